package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"
)

// The forms of results.
const (
	outputTable = "table"
	outputJSON  = "json"
	outputYAML  = "yaml"
)

// print writes a result: as JSON or YAML of v, or as what table writes for people.
func (s *session) print(v any, table func(io.Writer)) error {
	s.endProgress()
	switch s.output {
	case outputJSON:
		enc := json.NewEncoder(s.out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return wrapOutput(enc.Encode(v))
	case outputYAML:
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encode result: %w", err)
		}
		// JSON is YAML: its nodes keep the order of the fields, and only their style changes.
		var n yaml.Node
		if err := yaml.Unmarshal(b, &n); err != nil {
			return fmt.Errorf("encode result: %w", err)
		}
		blockStyle(&n)
		enc := yaml.NewEncoder(s.out)
		enc.SetIndent(2)
		if err := enc.Encode(&n); err != nil {
			return wrapOutput(err)
		}
		return wrapOutput(enc.Close())
	}
	var buf bytes.Buffer
	table(&buf)
	_, err := buf.WriteTo(s.out)
	return wrapOutput(err)
}

func wrapOutput(err error) error {
	if err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

func blockStyle(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode && len(n.Content) > 0 {
		n.Style = 0
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		n.Style = 0 // quoted again where YAML needs it
		if strings.Contains(n.Value, "\n") {
			n.Style = yaml.LiteralStyle
		}
	}
	for _, c := range n.Content {
		blockStyle(c)
	}
}

// columns writes rows with aligned columns. Cells are one line each.
func columns(w io.Writer, header []string, rows [][]string) {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	write := func(cells []string) {
		for i, c := range cells {
			if i > 0 {
				_, _ = io.WriteString(tw, "\t")
			}
			_, _ = io.WriteString(tw, oneLine(c))
		}
		_, _ = io.WriteString(tw, "\n")
	}
	write(header)
	for _, row := range rows {
		write(row)
	}
	_ = tw.Flush() // to memory
}

// fields writes one name and value a line.
func fields(w io.Writer, pairs ...string) {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(tw, "%s\t%s\n", pairs[i], oneLine(pairs[i+1]))
		}
	}
	_ = tw.Flush() // to memory
}

// oneLine makes text from the server fit into a cell: it can neither break the table nor steer the terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// when writes a time for people.
func when(t time.Time, zero string) string {
	if t.IsZero() {
		return zero
	}
	return t.UTC().Format(time.RFC3339)
}

// age writes how long ago something was.
func age(seconds int64) string {
	switch {
	case seconds < 0:
		return "never"
	case seconds < 120:
		return fmt.Sprintf("%ds", seconds)
	case seconds < 2*3600:
		return fmt.Sprintf("%dm", seconds/60)
	case seconds < 2*86400:
		return fmt.Sprintf("%dh", seconds/3600)
	}
	return fmt.Sprintf("%dd", seconds/86400)
}
