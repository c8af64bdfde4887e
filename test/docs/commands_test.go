package docs

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"hansa.dev/hansa/internal/cli"
)

// TestCommands checks the command lines of every page.
func TestCommands(t *testing.T) {
	t.Parallel()
	checked := 0
	err := fs.WalkDir(os.DirFS("../.."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && name != ".") {
			return fs.SkipDir
		}
		if filepath.Ext(name) != ".md" {
			return nil
		}
		text, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			return err
		}
		for _, line := range commandLines(string(text)) {
			checked++
			if err := checkCommand(t, line); err != nil {
				t.Errorf("%s: %q: %v", name, line, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked < 10 {
		t.Errorf("found %d command lines in the documentation, want at least 10", checked)
	}
}

func TestCheckCommand(t *testing.T) {
	t.Parallel()
	f := func(line string, ok bool) {
		t.Helper()
		if err := checkCommand(t, line); (err == nil) != ok {
			t.Errorf("checkCommand(%q) = %v, want ok = %v", line, err, ok)
		}
	}
	f("hansa get apis -o json", true)
	f("hansa keys create shop-gold --slot primary", true)
	f("hansa --version", false)
	f("hansa nonsense", false)
	f("hansa keys nonsense", false)
	f("hansa get apis --nonsense", false)
}

func TestCommandLines(t *testing.T) {
	t.Parallel()
	text := "Type `hansa status`, not `hansa.yaml` or `hansa dev|control`.\n" +
		"```\nKEY=$(hansa keys create x -o json | sed -n p)   # hansa comment\n" +
		"hansa apply -f a.yaml \\\n  --wait && hansa get apis >out\n" +
		"see hansa run\n```\n"
	want := []string{"hansa keys create x -o json", "hansa apply -f a.yaml --wait", "hansa get apis", "hansa status"}
	if got := commandLines(text); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("commandLines = %q, want %q", got, want)
	}
}

var (
	fence      = regexp.MustCompile("(?ms)^```.*?^```")
	inlineCode = regexp.MustCompile("`(hansa [^`|]+)`")
	// command is hansa where a shell expects a command, with its arguments.
	command = regexp.MustCompile(`(?m)(?:^ *|\$\(|[;|] *|&& *)(hansa( [^;|&#<>)\n]+)?)`)
	flag    = regexp.MustCompile(`(?:^| )(--?[a-z][a-z-]*)`)
)

// commandLines returns the command lines of hansa in a page: those in fenced blocks, then those in the text.
func commandLines(page string) []string {
	var lines []string
	add := func(s string) { lines = append(lines, strings.Join(strings.Fields(s), " ")) }
	for _, block := range fence.FindAllString(page, -1) {
		for _, m := range command.FindAllStringSubmatch(strings.ReplaceAll(block, "\\\n", " "), -1) {
			add(m[1])
		}
	}
	for _, m := range inlineCode.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		add(m[1])
	}
	return lines
}

// checkCommand asks the program for help on the command line and compares it with that.
func checkCommand(t *testing.T, line string) error {
	words := strings.Fields(line)
	n := 1
	for n < len(words) && !strings.HasPrefix(words[n], "-") {
		n++
	}
	var out bytes.Buffer
	getenv := func(string) string { return "" }
	if code := cli.Main(t.Context(), append(words[1:n:n], "--help"), strings.NewReader(""), &out, &out, getenv); code != 0 {
		return fmt.Errorf("exit code %d: %s", code, out.String())
	}
	help := out.String()
	for ; n > 0 && !strings.Contains(help, "\n  "+strings.Join(words[:n], " ")+" "); n-- { // the rest are arguments
	}
	switch {
	case n == 1 && len(words) > 1:
		return fmt.Errorf("there is no such command")
	case n < len(words) && !strings.HasPrefix(words[n], "-") && strings.Contains(help, "\n  "+strings.Join(words[:n], " ")+" [command]"):
		return fmt.Errorf("%s has no such command", strings.Join(words[:n], " "))
	}
	for _, m := range flag.FindAllStringSubmatch(line, -1) {
		if !regexp.MustCompile(`(^|[ ,])` + m[1] + `\b`).MatchString(help) {
			return fmt.Errorf("%s has no flag %s", strings.Join(words[:n], " "), m[1])
		}
	}
	return nil
}
