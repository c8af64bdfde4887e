package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// errTests says that tests did not go as they should; what happened has been printed.
var errTests = errors.New("tests failed")

// The outcomes of a test, in the words of go test.
const (
	pass = "pass"
	fail = "fail"
	skip = "skip"
)

// outcomes holds how each test ended. The key is the package and the test's name, "hansa.dev/hansa/internal/store.TestX/sub";
// a package that broke outside its tests stands for itself.
type outcomes map[string]string

// counts is how many tests ended how.
type counts struct{ passed, failed, skipped int }

func (c counts) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", c.passed, c.failed, c.skipped)
}

func (o outcomes) count() counts {
	var c counts
	for _, action := range o {
		switch action {
		case pass:
			c.passed++
		case fail:
			c.failed++
		case skip:
			c.skipped++
		}
	}
	return c
}

// merge adds the outcomes of another run: fail beats pass, and pass beats skip.
func (o outcomes) merge(other outcomes) {
	rank := map[string]int{skip: 1, pass: 2, fail: 3}
	for name, action := range other {
		if rank[action] > rank[o[name]] {
			o[name] = action
		}
	}
}

// named returns the names of the tests that ended like that, in order.
func (o outcomes) named(action string) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if o[name] == action {
			names = append(names, name)
		}
	}
	return names
}

func (o outcomes) save(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(o, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o644)
}

func load(file string) (outcomes, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var o outcomes
	if err := json.Unmarshal(b, &o); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return o, nil
}

// event is one line of go test -json ("go doc test2json").
type event struct {
	Action, Package, ImportPath, Test, Output string
}

// readEvents reads the output of go test -json, prints a line for every package and the output of what failed, and
// returns how the tests ended.
func readEvents(r io.Reader, w io.Writer) (outcomes, error) {
	results := outcomes{}
	output := map[string][]string{} // what the tests that still run have printed
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return results, nil
		}
		if err != nil {
			return results, fmt.Errorf("read the output of go test: %w", err)
		}
		var e event
		if json.Unmarshal(line, &e) != nil {
			fmt.Fprintf(w, "%s", line) // something that is not an event, as it stands
			continue
		}
		name := e.Package
		if e.Test != "" {
			name += "." + e.Test
		}
		switch e.Action {
		case "build-output":
			fmt.Fprint(w, e.Output)
		case "output":
			output[name] = append(output[name], e.Output)
		case pass, fail, skip:
			printEnd(w, e, output[name])
			delete(output, name)
			if e.Test != "" || e.Action == fail && !results.failedWithin(e.Package) {
				results[name] = e.Action
			}
		}
	}
}

// failedWithin tells whether a test of the package failed.
func (o outcomes) failedWithin(pkg string) bool {
	for name, action := range o {
		if action == fail && strings.HasPrefix(name, pkg+".Test") || action == fail && strings.HasPrefix(name, pkg+".Fuzz") {
			return true
		}
	}
	return false
}

// printEnd prints what is worth seeing of a test or package that has ended.
func printEnd(w io.Writer, e event, output []string) {
	for _, line := range output {
		switch {
		case e.Test != "" && e.Action == fail:
		case e.Test == "" && line != "PASS\n" && !strings.HasPrefix(line, "?   \t"):
		default:
			continue
		}
		fmt.Fprint(w, line)
	}
}
