package control

import (
	"fmt"
	"strings"
)

// maxSelector bounds the text of a selector.
const maxSelector = 1024

// selector selects resources by their labels. All of its terms must hold; without any it selects everything.
type selector []term

type term struct {
	key, value string
	hasValue   bool // key=value or key!=value, otherwise key or !key
	negate     bool
}

// parseSelector reads terms that are joined by commas: "key=value", "key!=value", "key" (has the label) and "!key" (has
// it not). A resource without the label satisfies key!=value.
func parseSelector(s string) (selector, error) {
	if len(s) > maxSelector {
		return nil, fmt.Errorf("the selector is longer than %d characters", maxSelector)
	}
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	var out selector
	for part := range strings.SplitSeq(s, ",") {
		t, err := parseTerm(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

func parseTerm(s string) (term, error) {
	var t term
	if key, value, ok := strings.Cut(s, "!="); ok {
		t = term{key: key, value: value, hasValue: true, negate: true}
	} else if key, value, ok := strings.Cut(s, "="); ok {
		t = term{key: key, value: strings.TrimPrefix(value, "="), hasValue: true}
	} else if key, ok := strings.CutPrefix(s, "!"); ok {
		t = term{key: key, negate: true}
	} else {
		t = term{key: s}
	}
	t.key, t.value = strings.TrimSpace(t.key), strings.TrimSpace(t.value)
	if t.key == "" || strings.ContainsAny(t.key, "=! ") || strings.ContainsAny(t.value, "=! ") {
		return term{}, fmt.Errorf("%q is not a term of a selector: write key=value, key!=value, key or !key", s)
	}
	return t, nil
}

// matches tells whether all terms hold for the labels.
func (s selector) matches(labels map[string]string) bool {
	for _, t := range s {
		value, has := labels[t.key]
		holds := has
		if t.hasValue {
			holds = has && value == t.value
		}
		if holds == t.negate {
			return false
		}
	}
	return true
}
