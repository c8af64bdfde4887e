package quota

import (
	"net/netip"
	"testing"
	"time"
)

func BenchmarkAdmit(b *testing.B) {
	now := noon
	for _, sliding := range []bool{false, true} {
		l := Limit{Key: NewKey(time.Second, sliding, "r"), Max: 1 << 30, Window: time.Second, Sliding: sliding}
		b.Run(map[bool]string{false: "fixed", true: "sliding"}[sliding], func(b *testing.B) {
			b.ReportAllocs()
			var s Subject
			for b.Loop() {
				now += 1000
				s.Admit(&l, now, 1)
			}
		})
	}
	b.Run("client", func(b *testing.B) {
		b.ReportAllocs()
		l := Limit{Key: NewKey(time.Second, true, "r"), Max: 1 << 30, Window: time.Second, Sliding: true}
		c := NewClients(0)
		addr := netip.MustParseAddr("192.0.2.7")
		for b.Loop() {
			now += 1000
			c.Admit(addr, &l, now, 1)
		}
	})
}
