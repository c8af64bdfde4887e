package content_test

import (
	"bytes"
	"fmt"
	"testing"

	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/content"
	"hansa.dev/hansa/internal/store/storetest"
)

func BenchmarkApplyCredentials(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var ops []byte
			for i := range n {
				var err error
				c := store.CredentialChange{Credential: storetest.Credential("acme", fmt.Sprintf("subscription-%d", i/100), i)}
				if ops, err = content.AppendCredential(ops, c); err != nil {
					b.Fatal(err)
				}
			}
			empty := content.New(store.Version{Epoch: 1})
			b.SetBytes(int64(len(ops)))
			b.ReportAllocs()
			for b.Loop() {
				builder := empty.Derive(store.Version{Epoch: 1, Seq: 1})
				for op, err := range content.Ops(bytes.NewReader(ops)) {
					if err != nil {
						b.Fatal(err)
					}
					if _, err := builder.Apply(op); err != nil {
						b.Fatal(err)
					}
				}
				if got := builder.State().NumCredentials(); got != n {
					b.Fatalf("%d credentials, want %d", got, n)
				}
			}
		})
	}
}
