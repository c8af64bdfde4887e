package archtest

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

var (
	mdLink    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	mdHeading = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *$`)
	mdFence   = regexp.MustCompile("(?ms)^```.*?^```")
	mdCode    = regexp.MustCompile("`[^`\n]*`")
	notAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// docLinks checks that every relative link in a Markdown file leads to a file, and to a heading if it names one.
func docLinks(t *tree) []fault {
	var faults []fault
	for name, content := range t.files {
		if path.Ext(name) != ".md" || strings.Contains(name, "testdata/") {
			continue
		}
		text := mdFence.ReplaceAllFunc(content, func(b []byte) []byte { return bytes.Repeat([]byte("\n"), bytes.Count(b, []byte("\n"))) })
		text = mdCode.ReplaceAll(text, nil)
		for i, line := range strings.Split(string(text), "\n") {
			for _, m := range mdLink.FindAllStringSubmatch(line, -1) {
				if why := t.brokenLink(name, m[1]); why != "" {
					faults = append(faults, fault{path: name, line: i + 1, text: fmt.Sprintf("link %s: %s", m[1], why)})
				}
			}
		}
	}
	return faults
}

// brokenLink says why a link in the file from leads nowhere, or returns "".
func (t *tree) brokenLink(from, link string) string {
	if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
		return ""
	}
	file, anchor, _ := strings.Cut(link, "#")
	target := from
	if file != "" {
		target = path.Join(path.Dir(from), file)
	}
	content, ok := t.files[target]
	if !ok {
		for name := range t.files {
			if strings.HasPrefix(name, target+"/") {
				return ""
			}
		}
		return "there is no " + target
	}
	if anchor == "" || path.Ext(target) != ".md" {
		return ""
	}
	for _, m := range mdHeading.FindAllSubmatch(mdFence.ReplaceAll(content, nil), -1) {
		if headingAnchor(string(m[1])) == anchor {
			return ""
		}
	}
	return target + " has no such heading"
}

// headingAnchor returns the anchor that code hosts make of a heading.
func headingAnchor(heading string) string {
	return strings.ReplaceAll(notAnchor.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

const (
	decisionDir   = "docs/adr"
	decisionIndex = decisionDir + "/README.md"
	// maxDecisionLines is about two pages.
	maxDecisionLines = 120
)

var (
	decisionFile   = regexp.MustCompile(`^docs/adr/([0-9]{4})-[a-z0-9-]+\.md$`)
	decisionHeader = regexp.MustCompile(`^# ([0-9]{4}): (.+)\n\nStatus: (proposed|accepted|superseded by [0-9]{4}) · Date: ([0-9]{4}-[0-9]{2}-[0-9]{2})(?: · Supersedes: [0-9]{4})?\n`)
)

// decisionRecords checks the form of the decision records and that their index is current.
func decisionRecords(t *tree) []fault {
	var faults []fault
	next := 1
	for _, name := range t.decisions() {
		content := t.files[name]
		number := decisionFile.FindStringSubmatch(name)[1]
		if want := fmt.Sprintf("%04d", next); number != want {
			faults = append(faults, fault{path: name, text: "the next number is " + want})
		}
		next++
		m := decisionHeader.FindSubmatch(content)
		if m == nil || string(m[1]) != number {
			faults = append(faults, fault{path: name, line: 1, text: "must begin \"# " + number + ": title\", an empty line, \"Status: accepted · Date: 2026-01-31\""})
		}
		for _, section := range []string{"Context", "Options", "Decision", "Consequences"} {
			if !bytes.Contains(content, []byte("\n## "+section+"\n")) {
				faults = append(faults, fault{path: name, text: "has no section " + section})
			}
		}
		if n := bytes.Count(content, []byte("\n")); n > maxDecisionLines {
			faults = append(faults, fault{path: name, text: fmt.Sprintf("%d lines; at most %d", n, maxDecisionLines)})
		}
	}
	if !bytes.Equal(t.files[decisionIndex], t.decisionIndexText()) {
		faults = append(faults, fault{path: decisionIndex, text: "is not current: run make fix"})
	}
	return faults
}

// decisions returns the paths of the decision records, in order.
func (t *tree) decisions() []string {
	var names []string
	for name := range t.files {
		if decisionFile.MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// decisionIndexText makes the index of the decision records out of their headers.
func (t *tree) decisionIndexText() []byte {
	var b bytes.Buffer
	b.WriteString("# Decision records\n\nWhat was decided, among which options and why. One file a decision, at most two pages, never rewritten: a later\n" +
		"record supersedes it. Each has the sections Context, Options, Decision and Consequences.\n\n" +
		"<!-- The table is generated from the records: make fix. -->\n\n| | decision | status | date |\n|---|---|---|---|\n")
	for _, name := range t.decisions() {
		if m := decisionHeader.FindSubmatch(t.files[name]); m != nil {
			fmt.Fprintf(&b, "| %s | [%s](%s) | %s | %s |\n", m[1], m[2], path.Base(name), m[3], m[4])
		}
	}
	return b.Bytes()
}
