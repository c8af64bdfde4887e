package soak

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// http3Gap is how long after an upgrade HTTP/3 may be away: the old process lets go of its port after a second, and the new one
// looks for it ten times a second. The rest is for machines that are busy with other tests.
const http3Gap = 6 * time.Second

func (r *rig) newHTTP3(listener string) *http3.Transport {
	return &http3.Transport{
		TLSClientConfig: &tls.Config{RootCAs: r.roots, ServerName: hostname},
		Dial: func(ctx context.Context, _ string, t *tls.Config, q *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, r.addr[listener], t, q)
		},
	}
}

// http3 works with a client of HTTP/3, whose connections an upgrade of the gateway cuts, and nothing else does.
func (k *task) http3(listener string, work func(requester) error) error {
	began := time.Now()
	t := k.newHTTP3(listener)
	defer t.Close()
	err := work(requester{t, "https"})
	if err != nil && k.history.within("upgrade", began.Add(-http3Gap), time.Now()) {
		return nil
	}
	return err
}

// answersHTTP3 returns nil once a new connection of HTTP/3 is served.
func (r *rig) answersHTTP3() error {
	t := r.newHTTP3("https")
	defer t.Close()
	k := &task{rig: r, id: "http3-after-upgrade"}
	if err := k.getOver(requester{t, "https"}, "/soak", k.next()); err != nil {
		return fmt.Errorf("HTTP/3: %w", err)
	}
	return nil
}
