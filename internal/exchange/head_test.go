package exchange

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// parseHead indexes lines as an engine does.
func parseHead(t testing.TB, block string) *Head {
	t.Helper()
	h := new(Head)
	h.Borrow([]byte(block))
	for at := 0; at < len(block); {
		line := block[at : at+strings.Index(block[at:], "\r\n")]
		colon := strings.IndexByte(line, ':')
		value := colon + 1 + len(line[colon+1:]) - len(strings.TrimLeft(line[colon+1:], " \t"))
		if _, ok := h.Index(at, colon, at+value, len(line)-value, value == colon+2); !ok {
			t.Fatalf("Index(%q): full", line)
		}
		at += len(line) + 2
	}
	return h
}

func fields(h *Head) []string {
	var all []string
	for name, value := range h.All() {
		all = append(all, fmt.Sprintf("%s=%s", name, value))
	}
	return all
}

func TestIDs(t *testing.T) {
	t.Parallel()
	for id := ID(1); id < numIDs; id++ {
		name := id.String()
		if name == "" {
			t.Fatalf("ID %d has no name", id)
		}
		for _, spelled := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if got := IDOf([]byte(spelled)); got != id {
				t.Errorf("IDOf(%q) = %d, want %d", spelled, got, id)
			}
		}
		for _, other := range []string{name + "x", name[1:], "x" + name, name[:len(name)-1] + "_"} {
			if got := IDOf([]byte(other)); got == id {
				t.Errorf("IDOf(%q) = %v", other, got)
			}
		}
	}
	if numIDs > 64 {
		t.Error("an IDSet has 64 bits")
	}
	if got := IDOf(nil); got != IDOther {
		t.Errorf("IDOf(nil) = %v", got)
	}
}

const block = "Host: a\r\nX-One:1\r\nAccept: text/html\r\nx-one: 2\r\nVia: v\r\nEmpty: \r\n"

func TestHeadLookup(t *testing.T) {
	t.Parallel()
	h := parseHead(t, block)
	f := func(name, want string, there bool) {
		t.Helper()
		got := h.Get(NameOf(name))
		if string(got) != want || (got != nil) != there {
			t.Errorf("Get(%q) = %q, %t, want %q, %t", name, got, got != nil, want, there)
		}
	}
	f("host", "a", true)
	f("X-ONE", "1", true)
	f("accept", "text/html", true)
	f("empty", "", true)
	f("Accept-Language", "", false)
	f("nothing", "", false)
	var all []string
	for v := range h.Values(NameOf("x-one")) {
		all = append(all, v.String())
	}
	if diff := cmp.Diff([]string{"1", "2"}, all); diff != "" {
		t.Errorf("Values (-want +got)\n%s", diff)
	}
	if got := h.Len(); got != 6 {
		t.Errorf("Len = %d, want 6", got)
	}
}

func TestHeadChange(t *testing.T) {
	t.Parallel()
	h := parseHead(t, block)
	h.Set(NameOf("X-One"), []byte("3"))
	h.AddString(IDVia.Name(), "w")
	h.Del(NameOf("accept"))
	h.SetUint(IDAge.Name(), 17)
	h.DelNamed([]byte("EMPTY"))
	want := []string{"Host=a", "Via=v", "X-One=3", "Via=w", "Age=17"}
	if diff := cmp.Diff(want, fields(h)); diff != "" {
		t.Errorf("fields (-want +got)\n%s", diff)
	}
	if h.Len() != 5 || h.Count(IDVia) != 2 || h.Has(IDAccept) || !h.Has(IDAge) {
		t.Errorf("Len %d, Count(Via) %d, Has(Accept) %t, Has(Age) %t", h.Len(), h.Count(IDVia), h.Has(IDAccept), h.Has(IDAge))
	}
	wantLines := "Via: v\r\nX-One: 3\r\nVia: w\r\nAge: 17\r\n"
	if got := string(h.AppendLines(nil, SetOf(IDHost))); got != wantLines {
		t.Errorf("AppendLines = %q, want %q", got, wantLines)
	}

	g := new(Head)
	g.AddString(IDVia.Name(), "x")
	g.AddString(NameOf("x-two"), "y")
	g.AddString(NameOf("x-two"), "z")
	h.AddAll(g)
	want = []string{"Host=a", "X-One=3", "Age=17", "Via=x", "x-two=y", "x-two=z"}
	if diff := cmp.Diff(want, fields(h)); diff != "" {
		t.Errorf("fields after AddAll (-want +got)\n%s", diff)
	}

	h.Reset()
	if h.Len() != 0 || h.Has(IDAge) || h.Get(NameOf("x-two")) != nil {
		t.Error("Reset left something")
	}
}

func TestHeadLines(t *testing.T) {
	t.Parallel()
	f := func(block, want string, except IDSet) {
		t.Helper()
		if got := string(parseHead(t, block).AppendLines([]byte(">"), except)); got != ">"+want {
			t.Errorf("AppendLines(%q) = %q, want %q", block, got, want)
		}
	}
	f("", "", 0)
	f("A: 1\r\nB: 2\r\n", "A: 1\r\nB: 2\r\n", 0)
	f("A:1\r\nB:   2\r\nC: 3\r\n", "A: 1\r\nB: 2\r\nC: 3\r\n", 0)
	f("Host: x\r\nB: 2\r\nHost: y\r\n", "B: 2\r\n", SetOf(IDHost))
	f("B: 2\r\nTE: x\r\nC: 3\r\n", "B: 2\r\nC: 3\r\n", HopByHop)
	f("B: 2\r\n", "B: 2\r\n", ^IDSet(0)) // other names cannot be excepted
}

func TestHeadFull(t *testing.T) {
	t.Parallel()
	var h Head
	for i := range MaxFields {
		if !h.AddString(IDCookie.Name(), "c") {
			t.Fatalf("Add %d: full", i)
		}
	}
	if h.AddString(IDCookie.Name(), "c") {
		t.Error("Add beyond MaxFields: not full")
	}
	h.Borrow([]byte("A: 1\r\n"))
	if _, ok := h.Index(0, 1, 3, 1, true); ok {
		t.Error("Index beyond MaxFields: not full")
	}
	if got := h.Count(IDCookie); got != MaxFields {
		t.Errorf("Count = %d", got)
	}
}

func TestHeadAllocations(t *testing.T) {
	h := parseHead(t, block)
	name, dst := NameOf("x-new"), make([]byte, 0, 512)
	var g Head
	if n := testing.AllocsPerRun(100, func() {
		h.Reset()
		h.Borrow([]byte(nil))
		h.AddString(name, "value")
		h.SetUint(IDAge.Name(), 123456)
		g.Reset()
		g.AddString(name, "other")
		h.AddAll(&g)
		dst = h.AppendLines(dst[:0], HopByHop)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
	if want := "Age: 123456\r\nx-new: other\r\n"; !bytes.Equal(dst, []byte(want)) {
		t.Errorf("lines %q, want %q", dst, want)
	}
}
