// Package linediff compares texts line by line and writes the differences in the unified format.
//
// The comparison is Myers' greedy algorithm on what remains after the common beginning and end are taken away. It is
// exact up to a bound of work; beyond that the differing middle is shown as removed and added as a whole, which is
// still a correct difference. The package is pure.
package linediff

import (
	"bytes"
	"fmt"
)

const (
	// around is how many equal lines are shown around a difference.
	around = 3
	// maxEdits bounds the work: the algorithm keeps a row for each edit, so memory grows with its square.
	maxEdits = 2000
	// nowhere is how far a path reaches that does not exist.
	nowhere = -1 << 40
)

// Unified returns the differences of two texts, or nothing if they are equal.
func Unified(nameA, nameB string, a, b []byte) []byte {
	if bytes.Equal(a, b) {
		return nil
	}
	la, lb := bytes.SplitAfter(a, []byte("\n")), bytes.SplitAfter(b, []byte("\n"))
	la, lb = trimEmpty(la), trimEmpty(lb)
	var out bytes.Buffer
	fmt.Fprintf(&out, "--- %s\n+++ %s\n", nameA, nameB)
	for _, h := range hunks(edits(la, lb)) {
		fmt.Fprintf(&out, "@@ -%s +%s @@\n", span(h[0].a, count(h, '+')), span(h[0].b, count(h, '-')))
		for _, e := range h {
			line := e.line(la, lb)
			out.WriteByte(e.op)
			out.Write(line)
			if len(line) == 0 || line[len(line)-1] != '\n' {
				out.WriteString("\n\\ No newline at end of file\n")
			}
		}
	}
	return out.Bytes()
}

func trimEmpty(lines [][]byte) [][]byte {
	if n := len(lines); n > 0 && len(lines[n-1]) == 0 {
		return lines[:n-1]
	}
	return lines
}

// edit is one line of the result: kept (' '), removed ('-') or added ('+'). a and b are the positions in both texts
// before it.
type edit struct {
	op   byte
	a, b int
}

func (e edit) line(a, b [][]byte) []byte {
	if e.op == '+' {
		return b[e.b]
	}
	return a[e.a]
}

// count counts the lines of a hunk that are not of the given operation.
func count(h []edit, not byte) int {
	n := 0
	for _, e := range h {
		if e.op != not {
			n++
		}
	}
	return n
}

// span writes a range of lines as the unified format does.
func span(from, n int) string {
	if n == 0 {
		return fmt.Sprintf("%d,0", from)
	}
	if n == 1 {
		return fmt.Sprintf("%d", from+1)
	}
	return fmt.Sprintf("%d,%d", from+1, n)
}

// hunks cuts the edits into groups with at most around equal lines before and after each difference.
func hunks(all []edit) [][]edit {
	var out [][]edit
	for i := 0; i < len(all); {
		if all[i].op == ' ' {
			i++
			continue
		}
		from := max(i-around, 0)
		end, equal := i, 0 // end is after the last difference of the hunk
		for j := i; j < len(all) && equal <= 2*around; j++ {
			if all[j].op == ' ' {
				equal++
			} else {
				end, equal = j+1, 0
			}
		}
		out = append(out, all[from:min(end+around, len(all))])
		i = end + around
	}
	return out
}

// edits returns the whole way from a to b.
func edits(a, b [][]byte) []edit {
	prefix := 0
	for prefix < len(a) && prefix < len(b) && bytes.Equal(a[prefix], b[prefix]) {
		prefix++
	}
	suffix := 0
	for suffix < len(a)-prefix && suffix < len(b)-prefix && bytes.Equal(a[len(a)-1-suffix], b[len(b)-1-suffix]) {
		suffix++
	}
	var out []edit
	for i := range prefix {
		out = append(out, edit{' ', i, i})
	}
	for _, e := range middle(a[prefix:len(a)-suffix], b[prefix:len(b)-suffix]) {
		out = append(out, edit{e.op, e.a + prefix, e.b + prefix})
	}
	for i := range suffix {
		out = append(out, edit{' ', len(a) - suffix + i, len(b) - suffix + i})
	}
	return out
}

// middle is Myers' algorithm ("An O(ND) Difference Algorithm and Its Variations", 1986, section 4): trace[d][k+d] is
// how far the furthest path with d edits reaches on the diagonal k.
func middle(a, b [][]byte) []edit {
	var trace [][]int
	reach := func(d, k int) int {
		if d < 0 || k < -d || k > d {
			return nowhere
		}
		return trace[d][k+d]
	}
	for d := 0; d <= len(a)+len(b); d++ {
		if d > maxEdits {
			return replaced(a, b)
		}
		trace = append(trace, make([]int, 2*d+1))
		for k := -d; k <= d; k += 2 {
			x := 0
			if d > 0 {
				x = max(reach(d-1, k-1)+1, reach(d-1, k+1))
			}
			y := x - k
			if x < 0 || y < 0 || x > len(a) || y > len(b) {
				trace[d][k+d] = nowhere
				continue
			}
			for x < len(a) && y < len(b) && bytes.Equal(a[x], b[y]) {
				x++
				y++
			}
			trace[d][k+d] = x
			if x == len(a) && y == len(b) {
				return path(trace, reach, len(a), len(b))
			}
		}
	}
	return nil // not reached: len(a)+len(b) edits always suffice
}

// path walks the trace back from the end.
func path(trace [][]int, reach func(d, k int) int, x, y int) []edit {
	var back []edit
	for d := len(trace) - 1; d > 0; d-- {
		k := x - y
		removed, added := reach(d-1, k-1)+1, reach(d-1, k+1)
		from := max(removed, added)
		for x > from {
			x--
			y--
			back = append(back, edit{' ', x, y})
		}
		if removed > added {
			x--
			back = append(back, edit{'-', x, y})
		} else {
			y--
			back = append(back, edit{'+', x, y})
		}
	}
	for x > 0 {
		x--
		y--
		back = append(back, edit{' ', x, y})
	}
	for i, j := 0, len(back)-1; i < j; i, j = i+1, j-1 {
		back[i], back[j] = back[j], back[i]
	}
	return back
}

func replaced(a, b [][]byte) []edit {
	var out []edit
	for i := range a {
		out = append(out, edit{'-', i, 0})
	}
	for i := range b {
		out = append(out, edit{'+', len(a), i})
	}
	return out
}
