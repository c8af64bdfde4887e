package accesslog

import (
	"path/filepath"
	"testing"
)

func BenchmarkAppend(b *testing.B) {
	b.ReportAllocs()
	x := sample()
	dst := make([]byte, 0, 1024)
	for b.Loop() {
		dst = Append(dst[:0], x, Place{Site: "eu-west", Epoch: 1, Seq: 2})
	}
	b.SetBytes(int64(len(dst)))
}

func BenchmarkWrite(b *testing.B) {
	b.ReportAllocs()
	w, err := New(Options{Path: filepath.Join(b.TempDir(), "log")})
	if err != nil {
		b.Fatal(err)
	}
	x := sample()
	b.RunParallel(func(pb *testing.PB) {
		dst := make([]byte, 0, 1024)
		for pb.Next() {
			dst = Append(dst[:0], x, Place{Site: "eu-west", Epoch: 1, Seq: 2})
			w.Write(dst)
		}
	})
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(w.Dropped()), "dropped")
}
