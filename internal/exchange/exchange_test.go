package exchange

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProblem(t *testing.T) {
	var x Exchange
	var g IDGenerator
	g.Seed(0xabc, 1)
	g.Next(&x.ID)
	if v := x.Refuse(RateLimited, "50 requests per second: \"slow\" down\n\x00\xff é\U0001f600"); v != Responded || !x.Refused() {
		t.Fatalf("Refuse = %v, Refused = %t", v, x.Refused())
	}
	var got map[string]any
	if err := json.Unmarshal(x.AppendProblem(nil), &got); err != nil {
		t.Fatalf("%v in %s", err, x.AppendProblem(nil))
	}
	want := map[string]any{
		"type":      "https://hansa.dev/errors/rate-limited",
		"title":     "Too many requests in a short time",
		"status":    429.0,
		"code":      "rate-limited",
		"detail":    "50 requests per second: \"slow\" down\n\x00\ufffd é\U0001f600",
		"requestId": x.ID.String(),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problem (-want +got)\n%s", diff)
	}
	x.Refuse(NoRoute, "")
	if err := json.Unmarshal(x.AppendProblem(nil), &got); err != nil {
		t.Fatalf("%v in %s", err, x.AppendProblem(nil))
	}
	if got["detail"] != NoRoute.Advice() {
		t.Errorf("the detail of a refusal without one is %q, want %q", got["detail"], NoRoute.Advice())
	}
	dst := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() {
		x.Reset()
		x.Refuse(KeyInvalid, "the key is not known here")
		dst = x.AppendProblem(dst[:0])
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// TestAppendJSONString has every byte at every place, with those beside it that are nearest to being escaped.
func TestAppendJSONString(t *testing.T) {
	t.Parallel()
	for _, fill := range " #~" {
		for size := range 18 {
			for at := range size {
				text := []byte(strings.Repeat(string(fill), size))
				for c := range 256 {
					text[at] = byte(c)
					got := AppendJSONString([]byte("-"), text)
					if same := AppendJSONString([]byte("-"), string(text)); !bytes.Equal(got, same) {
						t.Fatalf("%q: %s, and as a string %s", text, got, same)
					}
					var back string
					if err := json.Unmarshal(got[1:], &back); err != nil || back != strings.ToValidUTF8(string(text), "\ufffd") || bytes.IndexByte(got, 0x7f) >= 0 {
						t.Fatalf("%q: %s, which is %q, %v", text, got, back, err)
					}
				}
			}
		}
	}
	if got := string(AppendJSONString(nil, "")); got != `""` {
		t.Errorf("no text is %s", got)
	}
}

func TestCodes(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range Codes() {
		switch {
		case c.String() == "" || c.Title() == "" || c.Advice() == "" || c.Status() < 400 || seen[c.String()]:
			t.Errorf("code %d is %q %d %q", c, c, c.Status(), c.Title())
		case strings.HasPrefix(c.String(), "bad-request-") && c.Status()/100 != 4, strings.HasPrefix(c.String(), "upstream-") && c.Status()/100 != 5:
			t.Errorf("code %q has status %d", c, c.Status())
		}
		seen[c.String()] = true
	}
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	seen := map[RequestID]bool{}
	for seed := range uint64(4) {
		var g IDGenerator
		g.Seed(seed, seed)
		if seed == 0 {
			g.Seed(99, 0)
		}
		for range 1000 {
			var id RequestID
			g.Next(&id)
			if seen[id] || strings.Trim(id.String(), "0123456789abcdef") != "" || strings.Trim(id.String(), "0") == "" {
				t.Fatalf("id %q, seen %t", id.String(), seen[id])
			}
			seen[id] = true
		}
	}
}

type wakes struct{ n int }

func (w *wakes) Interrupt() { w.n++ }

func TestCancel(t *testing.T) {
	t.Parallel()
	var x Exchange
	var w wakes
	var i Interrupter = &w
	if !x.WaitOn(&i) {
		t.Error("WaitOn = false before Cancel")
	}
	x.Cancel()
	if w.n != 1 || !x.Cancelled() || x.WaitOn(&i) {
		t.Errorf("interrupted %d times, Cancelled %t", w.n, x.Cancelled())
	}
	x.Reset()
	if x.Cancelled() || !x.WaitOn(nil) {
		t.Error("Reset left the exchange cancelled")
	}
	x.Cancel()
	if w.n != 1 {
		t.Error("an interrupter was kept")
	}
}

func TestExtend(t *testing.T) {
	t.Parallel()
	var x Exchange
	a := x.Extend(nil, []byte("a"))
	b := x.Extend(a, []byte(","), []byte("b"))
	other := x.Scratch([]byte("x"))
	c := x.Extend(b, []byte("c")) // no longer the last
	d := x.Extend(View("d"), []byte("e"))
	if got := a.String() + " " + b.String() + " " + other.String() + " " + c.String() + " " + d.String(); got != "a a,b x a,bc de" {
		t.Errorf("Extend: %q", got)
	}
	all := x.Extend(nil)
	for range 10_000 {
		all = x.Extend(all, []byte("0123456789"))
	}
	if len(all) != 100_000 || cap(x.scratch) > 4*len(all) {
		t.Errorf("%d bytes take %d", len(all), cap(x.scratch))
	}
	if x.Reset(); cap(x.scratch) > keepScratch {
		t.Errorf("%d bytes are kept", cap(x.scratch))
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	var x Exchange
	x.Answer(200, []byte("body"))
	x.Own.AddString(IDAge.Name(), "1")
	x.Slots[1] = Slot{Num: 1}
	x.Consumer.LogMembers = "gold"
	s := x.Scratch([]byte("a"), []byte("b"))
	if got, ok := x.LocalAnswer(); !ok || got.Len() != 4 || string(s) != "ab" {
		t.Fatalf("LocalAnswer = %d bytes, %t; Scratch = %q", got.Len(), ok, s)
	}
	x.Reset()
	if _, ok := x.LocalAnswer(); ok || x.Own.Len() != 0 || x.Slots[1].Num != 0 || x.Consumer.LogMembers != "" || x.Status != 0 {
		t.Error("Reset left something")
	}
}

func TestReadAll(t *testing.T) {
	t.Parallel()
	var s Bytes
	s.Reset([]byte("four"))
	if got, err := ReadAll([]byte(">"), &s, 5); string(got) != ">four" || err != nil {
		t.Errorf("ReadAll = %q, %v", got, err)
	}
	s.Reset([]byte("four"))
	if _, err := ReadAll([]byte(">"), &s, 4); !errors.Is(err, io.ErrShortBuffer) {
		t.Errorf("ReadAll beyond the limit: %v", err)
	}
}

type step func(*Exchange) Verdict

func (s step) Run(x *Exchange) Verdict { return s(x) }

func TestRunSteps(t *testing.T) {
	t.Parallel()
	n := 0
	count := step(func(*Exchange) Verdict { n++; return Continue })
	refuse := step(func(x *Exchange) Verdict { return x.Refuse(KeyMissing, "") })
	var x Exchange
	if v := RunSteps([]Step{count, refuse, count}, &x); v != Responded || n != 1 || x.Status != 401 {
		t.Errorf("RunSteps = %v after %d steps, status %d", v, n, x.Status)
	}
}
