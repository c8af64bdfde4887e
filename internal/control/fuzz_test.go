package control_test

import (
	"testing"

	"hansa.dev/hansa/internal/control"
)

func FuzzContinue(f *testing.F) {
	f.Add(control.EncodeContinue("apis/default", "catalog"), "apis/default")
	f.Add("", "")
	f.Add("eyJsIjoiYSIsImEiOiIifQ", "a")
	f.Fuzz(func(t *testing.T, s, list string) {
		after, err := control.DecodeContinue(s, list)
		if err != nil {
			return
		}
		if after == "" {
			t.Fatalf("%q means the first page", s)
		}
		if again, err := control.DecodeContinue(control.EncodeContinue(list, after), list); err != nil || again != after {
			t.Fatalf("%q: %q, %v after a round trip, want %q", s, again, err, after)
		}
		if _, err := control.DecodeContinue(s, list+"x"); err == nil {
			t.Fatalf("%q is taken for another list", s)
		}
	})
}

func FuzzSelector(f *testing.F) {
	for _, s := range []string{"", "a", "!a", "a=b", "a==b", "a!=b", "a=b,c!=d,!e", ",", "=", "a=b=c", "é=ü"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		// A resource without labels: what must hold for it can be read off the terms.
		if holds, err := control.SelectorMatches(s, nil); err == nil {
			negated, _ := control.SelectorMatches(s+",!surely-not-there", nil)
			if s != "" && holds != negated {
				t.Fatalf("%q: %v, but %v with a term that always holds", s, holds, negated)
			}
		}
	})
}

func TestSelectors(t *testing.T) {
	t.Parallel()
	labels := map[string]string{"tier": "gold", "env": ""}
	for _, tt := range []struct {
		in   string
		want bool
	}{
		{"", true},
		{"tier", true},
		{"!tier", false},
		{"tier=gold", true},
		{"tier==gold", true},
		{"tier=silver", false},
		{"tier!=silver", true},
		{"other!=x", true},
		{"other=x", false},
		{"!other", true},
		{"env=", true},
		{"env", true},
		{"tier=gold, !other", true},
		{"tier=gold,other", false},
	} {
		if got, err := control.SelectorMatches(tt.in, labels); err != nil || got != tt.want {
			t.Errorf("%q = %v, %v, want %v", tt.in, got, err, tt.want)
		}
	}
	for _, in := range []string{",", "a,,b", "=x", "a=b=c", "a b", "!"} {
		if _, err := control.SelectorMatches(in, labels); err == nil {
			t.Errorf("%q was taken", in)
		}
	}
}
