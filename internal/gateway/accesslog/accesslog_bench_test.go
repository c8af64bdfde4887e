package accesslog

import (
	"path/filepath"
	"testing"
)

func BenchmarkAppend(b *testing.B) {
	b.ReportAllocs()
	x, at := sample(), NewPlace("eu-west", 1, 2)
	x.Path = []byte("/catalog/v1/items/17") // with nothing to escape, as most
	dst := make([]byte, 0, 1024)
	for b.Loop() {
		dst = Append(dst[:0], x, at)
	}
	b.SetBytes(int64(len(dst)))
}

func BenchmarkWrite(b *testing.B) {
	b.ReportAllocs()
	w, err := New(Options{Path: filepath.Join(b.TempDir(), "log")})
	if err != nil {
		b.Fatal(err)
	}
	x, at := sample(), NewPlace("eu-west", 1, 2)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			w.Write(func(dst []byte) []byte { return Append(dst, x, at) })
		}
	})
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(w.Dropped()), "dropped")
}
