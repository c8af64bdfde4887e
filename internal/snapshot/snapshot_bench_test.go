package snapshot

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
)

func bigSet(tb testing.TB, n int) *Set {
	puts := make([]Entry, 0, n)
	for i := range n {
		puts = append(puts, entry(tb, fmt.Sprintf("api/acme/prod/api-%05d", i), fmt.Sprintf("%0900d", i)))
	}
	return NewSet().With(puts, nil)
}

func BenchmarkSetWithOne(b *testing.B) {
	set := bigSet(b, 10_000)
	puts := [][]Entry{{entry(b, "api/acme/prod/api-00001", "a")}, {entry(b, "api/acme/prod/api-00001", "b")}}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		set = set.With(puts[i%2], nil)
	}
}

func BenchmarkDecodeSet(b *testing.B) {
	set := bigSet(b, 10_000)
	var buf bytes.Buffer
	if err := EncodeSet(&buf, set); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(set.Bytes()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeSet(bytes.NewReader(buf.Bytes()), set.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCredentials(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("fill/%d", n), func(b *testing.B) {
			var before, after runtime.MemStats
			b.ReportAllocs()
			var table *Credentials
			for b.Loop() {
				table = nil
				runtime.GC()
				runtime.ReadMemStats(&before)
				batch := NewCredentials().Batch()
				for i := range n {
					if err := batch.Add(CredentialChange{Credential: credential(i)}); err != nil {
						b.Fatal(err)
					}
				}
				table = batch.Table()
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/credential")
			runtime.KeepAlive(table)
		})
	}
	table := NewCredentials()
	batch := table.Batch()
	for i := range 100_000 {
		if err := batch.Add(CredentialChange{Credential: credential(i)}); err != nil {
			b.Fatal(err)
		}
	}
	table = batch.Table()
	b.Run("lookup", func(b *testing.B) {
		hash := credential(5).Hash
		b.ReportAllocs()
		for b.Loop() {
			table.Lookup(hash)
		}
	})
	b.Run("with", func(b *testing.B) {
		c := credential(5)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			c.ExpiresAt = int64(i)
			table = table.With([]CredentialChange{{Credential: c}})
		}
	})
}
