package main

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// sumMetrics reads metrics in Prometheus's text format and returns the sum of all series of each name.
func sumMetrics(r io.Reader) (map[string]float64, error) {
	sums := map[string]float64{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		if bare, _, ok := strings.Cut(line, "{"); ok && len(bare) < len(name) { // a label's value may hold a space
			name, rest = bare, strings.TrimSpace(line[strings.LastIndexByte(line, '}')+1:])
		}
		value, _, _ := strings.Cut(rest, " ") // a time stamp may follow
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("metric %q: %w", line, err)
		}
		sums[name] += v
	}
	return sums, lines.Err()
}
