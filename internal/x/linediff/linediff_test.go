package linediff

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUnified(t *testing.T) {
	t.Parallel()
	numbers := func(n int) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(strconv.Itoa(i) + "\n")
		}
		return b.String()
	}
	for _, tt := range []struct{ name, a, b, want string }{
		{"equal", "x\n", "x\n", ""},
		{"created", "", "x\ny\n", "--- A\n+++ B\n@@ -0,0 +1,2 @@\n+x\n+y\n"},
		{"deleted", "x\n", "", "--- A\n+++ B\n@@ -1 +0,0 @@\n-x\n"},
		{"changed", "a\nb\nc\n", "a\nB\nc\n", "--- A\n+++ B\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"},
		{"no newline", "a", "a\n", "--- A\n+++ B\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n"},
		{
			"two hunks", numbers(30), strings.Replace(strings.Replace(numbers(30), "4\n", "four\n", 1), "25\n", "25\nmore\n", 1),
			"--- A\n+++ B\n@@ -2,7 +2,7 @@\n 1\n 2\n 3\n-4\n+four\n 5\n 6\n 7\n@@ -24,6 +24,7 @@\n 23\n 24\n 25\n+more\n 26\n 27\n 28\n",
		},
	} {
		got := string(Unified("A", "B", []byte(tt.a), []byte(tt.b)))
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// apply makes b of a by the edits, or reports that they do not belong to a.
func apply(t *testing.T, all []edit, a, b [][]byte) []byte {
	t.Helper()
	var out []byte
	x, y := 0, 0
	for _, e := range all {
		if e.a != x || e.b != y {
			t.Fatalf("edit %c at %d,%d, want %d,%d", e.op, e.a, e.b, x, y)
		}
		switch e.op {
		case ' ':
			if !bytes.Equal(a[x], b[y]) {
				t.Fatalf("%q is kept as %q", a[x], b[y])
			}
			out = append(out, a[x]...)
			x++
			y++
		case '-':
			x++
		case '+':
			out = append(out, b[y]...)
			y++
		}
	}
	if x != len(a) {
		t.Fatalf("the edits end at line %d of %d", x, len(a))
	}
	return out
}

func FuzzEdits(f *testing.F) {
	f.Add("a\nb\nc\n", "a\nc\nd\n")
	f.Add("", "x")
	f.Add("a\na\na\nb\n", "b\na\na\n")
	f.Fuzz(func(t *testing.T, a, b string) {
		la, lb := trimEmpty(bytes.SplitAfter([]byte(a), []byte("\n"))), trimEmpty(bytes.SplitAfter([]byte(b), []byte("\n")))
		if got := apply(t, edits(la, lb), la, lb); string(got) != b {
			t.Fatalf("edits(%q, %q) make %q", a, b, got)
		}
		if got := apply(t, replaced(la, lb), la, lb); string(got) != b {
			t.Fatalf("replaced(%q, %q) make %q", a, b, got)
		}
	})
}
