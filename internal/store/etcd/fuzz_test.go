package etcd

import (
	"bytes"
	"testing"

	"hansa.dev/hansa/internal/store"
)

// FuzzParseChange holds that what is taken for the record of the next change set is chained to the one before, whatever lies in
// the store, and is the same when it is written again.
func FuzzParseChange(f *testing.F) {
	after := headRecord{Version: store.Version{Epoch: 1, Seq: 4}, Hash: digestOf([]byte("before"))}
	good := changeRecord{Version: store.Version{Epoch: 1, Seq: 5}, Previous: after.Hash, Nonce: "n", Pieces: []digest{digestOf(nil)}, Bytes: 7}
	value, err := encode(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(changeKey(5), value)
	f.Add(changeKey(6), value)
	f.Add("change/5", []byte(`{"epoch":1,"seq":5}`))
	f.Add(changeKey(5), bytes.Replace(value, []byte(`"epoch"`), []byte(`"EPOCH"`), 1))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		c, err := parseChange(key, value, after)
		if err != nil {
			return
		}
		if key != changeKey(c.Seq) || c.Seq != after.Seq+1 || c.Epoch < after.Epoch || c.Previous != after.Hash || c.hash != digestOf(value) {
			t.Fatalf("%s with %s is taken for %+v after %+v", key, value, c, after)
		}
		again, err := encode(c.changeRecord)
		if err != nil {
			return // a time that JSON has no form for
		}
		twice, err := parseChange(key, again, after)
		if err != nil {
			t.Fatalf("%s became %s, which cannot be read: %v", value, again, err)
		}
		if back, err := encode(twice.changeRecord); err != nil || !bytes.Equal(back, again) {
			t.Fatalf("%s became %s, %v", again, back, err)
		}
	})
}

// FuzzParseList holds that the list of the parts of an image is taken only if every part is one.
func FuzzParseList(f *testing.F) {
	for _, s := range []string{"[]", `[{"index":0,"of":1,"pieces":[]}]`, `[{"kind":"resources","index":0,"of":2,"pieces":["` + digestOf(nil).String() + `"]}]`, "null", "[[]]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		parts, err := parseList(bytes.NewReader(in))
		if err != nil {
			return
		}
		for _, p := range parts {
			if err := p.Validate(); err != nil {
				t.Fatalf("%q is taken, though %v", in, err)
			}
		}
		again, err := encode(parts)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := parseList(bytes.NewReader(again)); err != nil || len(twice) != len(parts) {
			t.Fatalf("%q became %q: %d parts, %v", in, again, len(twice), err)
		}
	})
}
