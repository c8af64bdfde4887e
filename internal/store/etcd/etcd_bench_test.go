package etcd_test

import (
	"fmt"
	"testing"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/store/etcd"
	"hansa.dev/hansa/internal/store/storetest"
)

func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("%d resources", n), func(b *testing.B) {
			s, err := etcd.Open(b.Context(), etcd.Options{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := storetest.TryCommit(b.Context(), s, s.State().Version(), storetest.Put(many(n)...)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("%d resources", n), func(b *testing.B) {
			dir := b.TempDir()
			for i := 0; b.Loop(); i++ {
				s, err := etcd.Open(b.Context(), etcd.Options{Dir: dir})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if i == 0 {
					if _, err := storetest.TryCommit(b.Context(), s, s.State().Version(), storetest.Put(many(n)...)); err != nil {
						b.Fatal(err)
					}
				}
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// many returns n backends.
func many(n int) []*v1.Object {
	objects := make([]*v1.Object, n)
	for i := range objects {
		objects[i] = storetest.Backend("acme", fmt.Sprintf("b%d", i), "127.0.0.1:1")
	}
	return objects
}
