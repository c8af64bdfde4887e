package localstore_test

import (
	"io"
	"math/rand/v2"
	"testing"

	"hansa.dev/hansa/internal/localstore"
)

// BenchmarkLoad is what the disk costs when a gateway with 10,000 APIs starts.
func BenchmarkLoad(b *testing.B) {
	s := open(b, b.TempDir())
	payload := make([]byte, 15<<20)
	rng := rand.NewChaCha8([32]byte{})
	if _, err := io.ReadFull(rng, payload); err != nil {
		b.Fatal(err)
	}
	save(b, s, 1, payload)
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		for g, err := range s.Generations() {
			if err != nil || len(g.Payload) != len(payload) {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkSave(b *testing.B) {
	s := open(b, b.TempDir())
	payload := make([]byte, 15<<20)
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		save(b, s, 1, payload)
	}
}

func BenchmarkAppendDelta(b *testing.B) {
	s := open(b, b.TempDir())
	n := save(b, s, 1, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.AppendDelta(n, localstore.Meta{Epoch: 1, Seq: 2}, make([]byte, 4<<10)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkShards(b *testing.B) {
	s := open(b, b.TempDir())
	shards := shardsOf(b, s)
	fill := func(put func(uint16, []byte) error) error {
		for i := range uint16(4096) {
			if err := put(i, make([]byte, 2500)); err != nil {
				return err
			}
		}
		return nil
	}
	b.Run("replace-all-4096x2.5kB", func(b *testing.B) {
		for b.Loop() {
			if err := shards.Replace(true, fill); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read-one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := shards.Read(77); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read-all", func(b *testing.B) {
		for b.Loop() {
			for i := range uint16(4096) {
				if _, err := shards.Read(i); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
