package router

import (
	"fmt"
	"testing"

	"hansa.dev/hansa/internal/x/pathpattern"
)

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1, 100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			hosts, bases, ops := bigTables(b, n)
			host, method, path := []byte("api-7.example.com"), []byte("GET"), fmt.Appendf(nil, "/service-%d/v1/items/42", n/2)
			for b.Loop() {
				hosts.Match(host)
				m, _ := bases.Match(path)
				if ops.Match(method, m.Rest) == nil {
					b.Fatal("no match")
				}
			}
		})
	}
}

// One base path replaced among many.
func BenchmarkChange(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			_, bases, _ := bigTables(b, n)
			base, err := pathpattern.ParseBase("/service-0/v1")
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				bases = with(b, bases, []BaseEntry[int]{{base, 1}}, base)
			}
		})
	}
}
