package setheaders

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/policy/policytest"
	"hansa.dev/hansa/internal/policyspec"
)

const settings = `{"remove":["X-Gone","Set-Cookie"],"set":{"X-Set":"new","X-Made":"1"},"add":{"X-Many":"c"}}`

func newStep(t *testing.T, w *policytest.World, phase policyspec.Phase) exchange.Step {
	t.Helper()
	w.Env.Phase = phase
	step, err := New([]byte(settings), w.Env)
	if err != nil {
		t.Fatal(err)
	}
	return step
}

func fields(h *exchange.Head) (list []string) {
	for name, value := range h.All() {
		list = append(list, fmt.Sprintf("%s: %s", name, value))
	}
	return list
}

func fill(h *exchange.Head) {
	for _, f := range [][2]string{{"x-gone", "1"}, {"x-set", "old"}, {"X-Many", "a"}, {"x-set", "older"}, {"X-Many", "b"}, {"X-Other", "o"}} {
		h.AddString(exchange.NameOf(f[0]), f[1])
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	want := []string{"X-Many: a", "X-Many: b", "X-Other: o", "X-Made: 1", "X-Set: new", "X-Many: c"}
	w := policytest.New(t)
	request, response := newStep(t, w, policyspec.Request), newStep(t, w, policyspec.Response)

	x := w.Exchange("", nil)
	fill(&x.Req)
	if v := request.Run(x); v != exchange.Continue {
		t.Fatalf("Run = %v", v)
	}
	if diff := cmp.Diff(want, fields(&x.Req)); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}

	x = w.Exchange("", nil)
	fill(&x.Resp)
	response.Run(x)
	if diff := cmp.Diff(want, fields(&x.Resp)); diff != "" {
		t.Errorf("response of the backend (-want +got):\n%s", diff)
	}

	x = w.Exchange("", nil)
	x.Answer(200, nil)
	fill(&x.Own)
	response.Run(x)
	if diff := cmp.Diff(want, fields(&x.Own)); diff != "" {
		t.Errorf("answer of the gateway (-want +got):\n%s", diff)
	}
}

func TestNoRoomIsRefused(t *testing.T) {
	t.Parallel()
	w := policytest.New(t)
	step := newStep(t, w, policyspec.Request)
	x := w.Exchange("", nil)
	for i := range exchange.MaxFields {
		x.Req.AddString(exchange.NameOf(fmt.Sprintf("X-%d", i)), "")
	}
	if v := step.Run(x); v != exchange.Responded || x.Code != exchange.BadRequestHeadersTooLarge {
		t.Fatalf("Run = %v with code %q", v, x.Code)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, settings := range []string{
		`{"set":{"Transfer-Encoding":"chunked"}}`, `{"add":{"content-length":"1"}}`, `{"remove":["Connection"]}`,
		`{"set":{"Host":"x"}}`, `{"set":{"X-Request-Id":"x"}}`, `{"set":{"X Y":"1"}}`, `{"set":{"X":"a\r\nY: b"}}`, `{"set":{"X":" a"}}`, `[]`,
	} {
		if _, err := New([]byte(settings), policytest.New(t).Env); err == nil {
			t.Errorf("New(%s) = nil error", settings)
		}
	}
}

func TestRunAllocatesNothing(t *testing.T) {
	w := policytest.New(t)
	step := newStep(t, w, policyspec.Request)
	x := w.Exchange("", nil)
	if n := testing.AllocsPerRun(1000, func() {
		x.Req.Reset()
		step.Run(x)
	}); n != 0 {
		t.Fatalf("%v allocations, want 0", n)
	}
}
