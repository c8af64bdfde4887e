package token

import (
	"strings"
	"testing"
)

func TestNewTokensAreWellFormedAndDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 1000 {
		s := New("hk1_")
		if err := Check("hk1_", s); err != nil {
			t.Fatalf("Check(%q) = %v, want nil", s, err)
		}
		if seen[s] {
			t.Fatalf("New returned %q twice", s)
		}
		seen[s] = true
	}
}

func TestEncodeKeepsAllBits(t *testing.T) {
	t.Parallel()
	var zero, one, max [32]byte
	one[31] = 1
	for i := range max {
		max[i] = 0xff
	}
	seen := map[string]bool{}
	for _, secret := range [][32]byte{zero, one, max} {
		s := encode("p_", secret)
		if len(s) != len("p_")+Size {
			t.Errorf("encode(%x) = %q, %d characters, want %d", secret, s, len(s), len("p_")+Size)
		}
		if err := Check("p_", s); err != nil {
			t.Errorf("Check(%q) = %v", s, err)
		}
		seen[s] = true
	}
	if len(seen) != 3 {
		t.Errorf("three secrets gave %d tokens", len(seen))
	}
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	good := New("hk1_")
	swapped := []byte(good)
	if swapped[10] == 'a' {
		swapped[10] = 'b'
	} else {
		swapped[10] = 'a'
	}
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", "begin"},
		{"other prefix", "hp1_" + good[4:], "begin"},
		{"short", good[:len(good)-1], "characters long"},
		{"long", good + "0", "characters long"},
		{"changed", string(swapped), "checksum"},
	} {
		if err := Check("hk1_", tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Check(%q) = %v, want an error with %q", tt.name, tt.in, err, tt.want)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("hk1_")
	f.Add(New("hk1_"))
	f.Fuzz(func(t *testing.T, s string) {
		if Check("hk1_", s) == nil && len(s) != 4+Size {
			t.Errorf("Check(%q) accepts %d characters", s, len(s))
		}
	})
}
