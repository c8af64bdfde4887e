package main

import (
	"context"
	"time"
)

// load is one way to put load on a subject. It may be run again and again, by one goroutine at a time.
type load interface {
	// run puts load on the subject for the given time. Requests that are under way at the end are not counted.
	run(ctx context.Context, d time.Duration) (sample, error)
}

// preparer is a load that needs something for each round that is not part of what is measured.
type preparer interface {
	before(ctx context.Context) error
	after()
}

// sample is what a load saw in one round.
type sample struct {
	Requests int64   `json:"requests"`
	Errors   int64   `json:"errors"`
	Micros   int64   `json:"duration_us"`
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
}

func (s sample) rps() float64 { return float64(s.Requests) / (float64(s.Micros) / 1e6) }

// total adds up the requests of several rounds.
func total(samples []sample) sample {
	var t sample
	for _, x := range samples {
		t.Requests += x.Requests
		t.Errors += x.Errors
	}
	return t
}

// place is where a load meets a subject: the addresses of its listeners.
type place struct{ addr, tls, h2 string }

// loadFor prepares what the case puts on a subject. Files for it go to dir.
func loadFor(c proxyCase, o options, at place, dir string) (load, error) {
	switch c.load {
	case kindH2load:
		return newH2load(c.name, o, at, dir)
	case kindOpen:
		return &openLoop{addr: at.addr, host: proxyHost, path: plainPath, connections: o.connections, rate: o.rate}, nil
	}
	l := &wrkLoad{url: "http://" + at.addr, host: proxyHost, path: plainPath, connections: o.connections}
	switch c.name {
	case caseKeyQuota:
		l.path = keyedPath
		for i := range keyQuotaKeys {
			l.keys = append(l.keys, keyValue(i))
		}
	case caseTLS:
		l.url = "https://" + at.tls
	case caseHandshake:
		return &handshakeLoad{addr: at.tls, host: proxyHost, path: plainPath, connections: o.connections}, nil
	case caseResume:
		l.url, l.shut = "https://"+at.tls, true
	case case64k:
		l.path = path64k
	case case1m:
		l.path = path1m
	case casePost16k:
		l.path, l.body = postPath, 16<<10
	case caseRoutes1, caseRoutes1k, caseRoutes100k:
		l.path, l.paths = routePath(0), routeSample()
	case caseConns:
		l.connections = activeConns
		idle := &idleLoad{wrkLoad: l, addr: at.addr}
		return idle, idle.prepare(dir)
	}
	return l, l.prepare(dir)
}
