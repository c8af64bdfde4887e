package handshake

import (
	"crypto/tls"
	"testing"
)

// BenchmarkRequest is a request on a connection that is kept, with a short response and with one of 100 kB.
func BenchmarkRequest(b *testing.B) {
	r := newRig(b, Options{})
	for _, path := range []string{"/", "/large"} {
		b.Run(path, func(b *testing.B) {
			c := r.mustDial(b, "a.example", nil)
			b.ReportAllocs()
			for b.Loop() {
				if s, _ := c.get(b, "a.example", path); s != 200 {
					b.Fatal(s)
				}
			}
		})
	}
}

// BenchmarkHandshake is a connection with one request, with a full handshake and with a session that is resumed.
func BenchmarkHandshake(b *testing.B) {
	r := newRig(b, Options{})
	for _, name := range []string{"full", "resumed"} {
		b.Run(name, func(b *testing.B) {
			cache := tls.NewLRUClientSessionCache(1)
			b.ReportAllocs()
			for b.Loop() {
				c := r.mustDial(b, "a.example", func(c *tls.Config) {
					if name == "resumed" {
						c.ClientSessionCache = cache
					}
				})
				if s, _ := c.get(b, "a.example", "/"); s != 200 {
					b.Fatal(s)
				}
				c.Close()
			}
		})
	}
}
