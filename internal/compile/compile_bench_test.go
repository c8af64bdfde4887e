package compile

import (
	"fmt"
	"testing"

	v1 "hansa.dev/hansa/api/v1"
)

// BenchmarkFull compiles everything from nothing.
func BenchmarkFull(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			st := large(n)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Compile(st, 1, Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOneChange compiles one changed API among many.
func BenchmarkOneChange(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			st := large(n)
			r, err := Compile(st, 1, Options{})
			if err != nil {
				b.Fatal(err)
			}
			next, key := changeOne(st, 7)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Next(next, 2, []v1.Key{key}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
