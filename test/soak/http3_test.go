package soak

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

func (r *rig) newHTTP3(listener string) *http3.Transport {
	return &http3.Transport{
		TLSClientConfig: &tls.Config{RootCAs: r.roots, ServerName: hostname},
		Dial: func(ctx context.Context, _ string, t *tls.Config, q *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, r.addr[listener], t, q)
		},
	}
}

// http3 works with a client of HTTP/3, whose connections an upgrade of the gateway cuts, until HTTP/3 is back, and nothing else
// does.
func (k *task) http3(listener string, work func(requester) error) error {
	began := time.Now()
	t := k.newHTTP3(listener)
	defer t.Close()
	err := work(requester{t, "https"})
	if err != nil && k.history.within(upgrading, began, time.Now()) {
		return nil
	}
	return err
}

// answersHTTP3 returns nil once new connections of HTTP/3 are served.
func (r *rig) answersHTTP3() error {
	for _, listener := range []string{"https", "partner"} {
		t := r.newHTTP3(listener)
		k := &task{rig: r, id: "http3-after-upgrade"}
		err := k.getOver(requester{t, "https"}, "/soak", k.next())
		t.Close()
		if err != nil {
			return fmt.Errorf("HTTP/3 of listener %s: %w", listener, err)
		}
	}
	return nil
}
