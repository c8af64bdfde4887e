package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func entry(t testing.TB, key, content string) Entry {
	t.Helper()
	e, err := NewEntry(key, 1, 1, true, content)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestSetAgainstMap drives sets with random changes and compares them with a plain map.
func TestSetAgainstMap(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		set, model := NewSet(), map[string]Entry{}
		history := []*Set{set}
		for range 60 {
			var puts []Entry
			var dels []string
			for range rnd.IntN(12) {
				key := fmt.Sprintf("api/o/e/%d", rnd.IntN(80))
				if rnd.IntN(3) == 0 {
					dels = append(dels, key)
				} else {
					puts = append(puts, entry(t, key, fmt.Sprint(rnd.IntN(5))))
				}
			}
			for _, key := range dels {
				delete(model, key)
			}
			for _, e := range puts {
				model[e.Key] = e
			}
			set = set.With(puts, dels)
			history = append(history, set)
			compareSet(t, set, model)
		}
		old := history[rnd.IntN(len(history))]
		puts, dels := set.Diff(old)
		if got := old.With(puts, dels); got.Root() != set.Root() || got.Len() != set.Len() || got.Bytes() != set.Bytes() {
			t.Fatalf("seed %d: old.With(new.Diff(old)) has root %v, want %v", seed, got.Root(), set.Root())
		}
	}
}

func compareSet(t *testing.T, set *Set, model map[string]Entry) {
	t.Helper()
	got := map[string]Entry{}
	var size uint64
	for e := range set.All() {
		got[e.Key] = e
		size += uint64(len(e.Key) + len(e.Bytes))
		if one, ok := set.Get(e.Key); !ok || one.Hash != e.Hash {
			t.Fatalf("Get(%q) = %v, %v; All has %v", e.Key, one.Hash, ok, e.Hash)
		}
	}
	if diff := cmp.Diff(model, got); diff != "" {
		t.Fatalf("entries (-want +got)\n%s", diff)
	}
	if set.Len() != len(model) || set.Bytes() != size {
		t.Fatalf("Len, Bytes = %d, %d; want %d, %d", set.Len(), set.Bytes(), len(model), size)
	}
	if full := NewSet().With(slices.Collect(maps.Values(model)), nil); full.Root() != set.Root() {
		t.Fatalf("root %v after many changes, %v when built at once", set.Root(), full.Root())
	}
}

func TestSetSharesUnchanged(t *testing.T) {
	t.Parallel()
	var puts []Entry
	for i := range 1000 {
		puts = append(puts, entry(t, fmt.Sprintf("api/o/e/%d", i), "x"))
	}
	set := NewSet().With(puts, nil)
	if set.With(puts[:100], []string{"none"}) != set {
		t.Error("a change that changes nothing made another set")
	}
	next := set.With([]Entry{entry(t, "api/o/e/7", "y")}, nil)
	shared := 0
	for i := range set.buckets {
		if set.buckets[i] == next.buckets[i] {
			shared++
		}
	}
	if shared != Buckets-1 {
		t.Errorf("%d buckets are shared after one change, want %d", shared, Buckets-1)
	}
	if n := len(slices.Collect(next.Class("api"))); n != 1000 {
		t.Errorf("Class(api) has %d entries, want 1000", n)
	}
	if n := len(slices.Collect(next.Class("ap"))); n != 0 {
		t.Errorf("Class(ap) has %d entries, want 0", n)
	}
}

func TestHashCoversAllButSeq(t *testing.T) {
	t.Parallel()
	base, _ := RawEntry("api/a", 1, 1, false, []byte("{}"))
	same, _ := RawEntry("api/a", 2, 1, false, []byte("{}"))
	if base.Hash != same.Hash {
		t.Error("Seq changes the hash")
	}
	for name, e := range map[string]Entry{
		"key":       {Key: "api/b", MinReader: 1, Bytes: []byte("{}")},
		"minReader": {Key: "api/a", MinReader: 2, Bytes: []byte("{}")},
		"critical":  {Key: "api/a", MinReader: 1, Critical: true, Bytes: []byte("{}")},
		"bytes":     {Key: "api/a", MinReader: 1, Bytes: []byte("{ }")},
	} {
		if other, _ := RawEntry(e.Key, 1, e.MinReader, e.Critical, e.Bytes); other.Hash == base.Hash {
			t.Errorf("another %s leaves the hash as it was", name)
		}
	}
}

func TestNewEntryLimits(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{"empty": "", "long": strings.Repeat("k", MaxKeyBytes+1), "not UTF-8": "a\xff"} {
		if _, err := NewEntry(key, 1, 1, false, 1); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s key: error %v, want ErrMalformed", name, err)
		}
	}
	if _, err := RawEntry("k", 1, 1, false, make([]byte, MaxEntryBytes+1)); !errors.Is(err, ErrMalformed) {
		t.Errorf("large entry: error %v, want ErrMalformed", err)
	}
	if _, err := NewEntry("k", 1, 1, false, func() {}); err == nil {
		t.Error("a content that is no JSON was accepted")
	}
	if _, err := Decode[API](Entry{Key: "api/x", Bytes: []byte(`{"revision":"x"}`)}); !errors.Is(err, ErrMalformed) {
		t.Errorf("Decode of a wrong type: error %v, want ErrMalformed", err)
	}
	e, err := NewEntry("api/x", 1, 1, false, API{Name: "<x>", Revision: 3})
	if err != nil {
		t.Fatal(err)
	}
	if api, err := Decode[API](e); err != nil || api.Name != "<x>" || api.Revision != 3 {
		t.Errorf("Decode = %+v, %v", api, err)
	}
}

func TestEncodeSet(t *testing.T) {
	t.Parallel()
	var puts []Entry
	for i := range 500 {
		puts = append(puts, entry(t, fmt.Sprintf("api/o/e/%d", i), strings.Repeat("content ", i)))
	}
	set := NewSet().With(puts, nil)
	var buf bytes.Buffer
	if err := EncodeSet(&buf, set); err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSet(bytes.NewReader(buf.Bytes()), set.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(slices.Collect(set.All()), slices.Collect(got.All())); diff != "" {
		t.Fatalf("decoded (-want +got)\n%s", diff)
	}
	if _, err := DecodeSet(bytes.NewReader(buf.Bytes()), set.Bytes()-1); !errors.Is(err, ErrMalformed) {
		t.Errorf("over the limit: error %v, want ErrMalformed", err)
	}
	for n := range buf.Len() {
		if n%97 != 0 && n < buf.Len()-40 {
			continue
		}
		if _, err := DecodeSet(bytes.NewReader(buf.Bytes()[:n]), set.Bytes()); err == nil {
			t.Fatalf("a set that was cut after %d of %d bytes was accepted", n, buf.Len())
		}
	}
	if err := EncodeSet(&limitedWriter{n: 100}, set); err == nil {
		t.Error("EncodeSet hides that the writer failed")
	}
}

// limitedWriter fails after n bytes, as a full disk does.
type limitedWriter struct{ n int }

func (w *limitedWriter) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, errors.New("full")
	}
	return len(p), nil
}

func FuzzDecodeSet(f *testing.F) {
	var buf bytes.Buffer
	e, _ := NewEntry("api/o/e/a", 1, 1, true, "x")
	if err := EncodeSet(&buf, NewSet().With([]Entry{e}, nil)); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Add([]byte(setMagic))
	f.Fuzz(func(t *testing.T, in []byte) {
		set, err := DecodeSet(bytes.NewReader(in), 1<<20)
		if err != nil {
			return
		}
		if again := NewSet().With(slices.Collect(set.All()), nil); again.Root() != set.Root() {
			t.Fatalf("root %v, rebuilt %v", set.Root(), again.Root())
		}
	})
}

func FuzzParseEntry(f *testing.F) {
	e, _ := NewEntry("api/o/e/a", 300, 1, true, "x")
	f.Add(AppendEntry(nil, e))
	f.Fuzz(func(t *testing.T, in []byte) {
		e, rest, err := ParseEntry(in)
		if err != nil {
			return
		}
		if out := AppendEntry(nil, e); !bytes.Equal(out, in[:len(in)-len(rest)]) {
			t.Fatalf("parsed %x and wrote %x", in[:len(in)-len(rest)], out)
		}
	})
}
