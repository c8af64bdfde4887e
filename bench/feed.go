package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
)

// caseFeed is the name of the case feed.
const caseFeed = "feed"

// The sizes of feed beside the flags.
const (
	firstCredentials = 100_000
	credentialApps   = 1_000
	restarts         = 5
	// feedRate is the requests per second while changes are measured: enough to notice a gap, little enough to leave the
	// cores to what is measured.
	feedRate = 200
	// changeGap lies between a change that is served and the next.
	changeGap = 20 * time.Millisecond
	// changeTime is how long a change may take before the measurement is given up.
	changeTime = 30 * time.Second
)

// feedBench is one run of the case feed.
type feedBench struct {
	options
	dir     string
	control *controlNode
	link    *counter
	gateway *gatewayNode
	backend *server
	figures map[string]float64
	bars    []bar
	load    feedLoad
}

// measureFeed runs the case feed and adds its result and bars to r.
func measureFeed(ctx context.Context, o options, r *report) error {
	if err := need(map[string]string{"nginx": "nginx-light"}); err != nil {
		return err
	}
	b := &feedBench{options: o, dir: filepath.Join(o.dir, caseFeed), figures: map[string]float64{}}
	defer b.stop()
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"start", b.start},
		{"changes", b.changes},
		{"restart", b.restart},
		{"credentials", b.credentials},
	} {
		began := time.Now()
		o.progress("feed: %s", step.name)
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("feed: %s: %w", step.name, err)
		}
		o.progress("feed: %s took %.1f s", step.name, time.Since(began).Seconds())
	}
	u, err := b.gateway.usage()
	if err != nil {
		return err
	}
	r.Results = append(r.Results, result{
		Case: caseFeed, Subject: subjectHansa, Version: hansaVersion(ctx, o.hansa),
		Requests: b.load.requests, Errors: b.load.failed, RSS: u.rss, Figures: b.figures,
	})
	r.Bars = append(r.Bars, b.bars...)
	return nil
}

// note keeps a figure, and as a bar too if it has a limit.
func (b *feedBench) note(name string, value, limit float64) {
	b.figures[name] = value
	b.progress("feed: %s = %s", name, number(value))
	if limit >= 0 {
		b.bars = append(b.bars, newBar("feed "+name, limit, value))
	}
}

// noLimit marks a figure that is not a bar.
const noLimit = -1

// start brings up the backend, a control node with all APIs, and a gateway that reaches it through the counter.
func (b *feedBench) start(ctx context.Context) error {
	var err error
	if b.backend, err = startServer(ctx, b.dir, backendSpec(), serverParams{Cores: 1}); err != nil {
		return err
	}
	if b.control, err = startControl(ctx, b.options, b.dir); err != nil {
		return err
	}
	began := time.Now()
	for _, part := range feedDocuments(b.backend.addr, b.apis) {
		if _, err := b.control.apply(ctx, part); err != nil {
			return err
		}
	}
	b.note("apply_all_seconds", time.Since(began).Seconds(), noLimit)
	if b.link, err = newCounter(b.control.linkAddr); err != nil {
		return err
	}
	if b.gateway, err = b.control.startGateway(ctx, b.options, b.dir, "gateway", b.link.addr(), "--access-log", filepath.Join(b.dir, "access.log")); err != nil {
		return err
	}
	last := feedAPI(b.apis - 1)
	if err := b.gateway.serves(ctx, b.gateway.addr, last.host(), last.path(), "", 200); err != nil {
		return err
	}
	b.note("first_transfer_bytes", float64(b.link.bytes.Load()), noLimit)
	return nil
}

func (b *feedBench) stop() {
	if b.gateway != nil {
		b.gateway.stop()
	}
	if b.link != nil {
		b.link.close()
	}
	if b.control != nil {
		b.control.stop()
	}
	if b.backend != nil {
		b.backend.stop()
	}
}

// changes applies one change after the other under load and measures each from the call to the first answer that shows it.
func (b *feedBench) changes(ctx context.Context) error {
	loadCtx, endLoad := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() { b.load.run(loadCtx, b.gateway.addr, b.apis) })
	defer func() {
		endLoad()
		wait.Wait()
	}()
	random := rand.New(rand.NewPCG(1, 2))
	before := b.link.bytes.Load()
	var served, applied []float64 // milliseconds
	for i := range b.options.changes {
		s, a, err := b.change(ctx, feedAPI(random.IntN(b.apis)), strconv.Itoa(i+1))
		if err != nil {
			return err
		}
		served, applied = append(served, s), append(applied, a)
	}
	bytes := float64(b.link.bytes.Load()-before) / float64(len(served))
	endLoad()
	wait.Wait()
	if b.load.requests == 0 {
		return errors.New("the load saw no answer")
	}
	u, err := b.gateway.usage()
	if err != nil {
		return err
	}
	b.note("change_applied_p50_ms", median(applied), noLimit)
	b.note("change_served_p50_ms", median(served), noLimit)
	b.note("change_served_p99_ms", quantile(served, 0.99), 250)
	b.note("change_served_max_ms", slices.Max(served), noLimit)
	b.note("change_link_bytes", bytes, 10_000)
	b.note("failed_requests", float64(b.load.failed), 0)
	b.note("gateway_rss_bytes", float64(u.rss), 300e6)
	return nil
}

// change applies one change and polls until it is served. It returns both times from the call on, in milliseconds: until the
// change was served and until the call returned.
func (b *feedBench) change(ctx context.Context, a feedAPI, version string) (served, applied float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, changeTime)
	defer cancel()
	p := newProbe(b.gateway.addr, a.host())
	defer p.close()
	if _, err := p.get(a.path(), ""); err != nil { // connects
		return 0, 0, err
	}
	document := a.change(version)
	done := make(chan error, 1)
	began := time.Now()
	go func() {
		_, err := b.control.apply(ctx, document)
		applied = milliseconds(time.Since(began))
		done <- err
	}()
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for served == 0 {
		answer, getErr := p.get(a.path(), "")
		switch {
		case getErr != nil:
			err = getErr
		case answer.header.Get("X-Version") == version:
			served = milliseconds(time.Since(began))
		}
		if err == nil && ctx.Err() != nil {
			err = fmt.Errorf("change %s of %s is not served after %s", version, a.name(), changeTime)
		}
		if err != nil {
			cancel()
			return 0, 0, errors.Join(err, <-done)
		}
		<-tick.C
	}
	err = <-done
	tick.Reset(changeGap)
	<-tick.C
	return served, applied, err
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// restart stops and starts the gateway several times and measures the time from the start to the first answer of 200.
func (b *feedBench) restart(ctx context.Context) error {
	var times []float64
	for range restarts {
		b.gateway.stop()
		began := time.Now()
		// The ready file comes later than the first answer, so that is waited for on the address of before.
		addr, first := b.gateway.addr, make(chan float64, 1)
		pollCtx, cancel := context.WithTimeout(ctx, startTime)
		go func() { first <- firstAnswer(pollCtx, addr, feedAPI(0), began) }()
		g, err := startGatewayAgain(ctx, b.options, filepath.Join(b.dir, "gateway"), "gateway", addr,
			"--control", b.link.addr(), "--access-log", filepath.Join(b.dir, "access.log"))
		if err != nil {
			cancel()
			<-first
			return err
		}
		b.gateway = g
		ms := <-first
		cancel()
		if ms == 0 {
			return fmt.Errorf("no answer of 200 after %s", startTime)
		}
		times = append(times, ms)
	}
	b.note("restart_first_200_ms", median(times), noLimit)
	b.note("restart_first_200_max_ms", slices.Max(times), 1000)
	return nil
}

// firstAnswer polls until a request is answered with 200 and returns the milliseconds since began, 0 if it never is.
func firstAnswer(ctx context.Context, addr string, a feedAPI, began time.Time) float64 {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	p := newProbe(addr, a.host())
	defer p.close()
	for ctx.Err() == nil {
		if answer, err := p.get(a.path(), ""); err == nil && answer.status == 200 {
			return milliseconds(time.Since(began))
		}
		<-tick.C
	}
	return 0
}

// credentials adds an API that asks for a key, imports keys in two steps and measures the memory that they take.
func (b *feedBench) credentials(ctx context.Context) error {
	if err := b.addKeyedAPI(ctx); err != nil {
		return err
	}
	first := min(firstCredentials, b.options.credentials)
	before, err := b.gateway.settled(ctx)
	if err != nil {
		return err
	}
	if err := b.importKeys(ctx, 0, first); err != nil {
		return err
	}
	after, err := b.gateway.settled(ctx)
	if err != nil {
		return err
	}
	b.note(fmt.Sprintf("gateway_heap_for_%d_credentials_bytes", first), float64(after.heap-before.heap), noLimit)
	b.note(fmt.Sprintf("gateway_rss_for_%d_credentials_bytes", first), float64(after.rss-before.rss), 20e6)
	if b.options.credentials == first {
		return nil
	}
	if err := b.control.resetPeak(); err != nil {
		return err
	}
	began := time.Now()
	if err := b.importKeys(ctx, first, b.options.credentials); err != nil {
		return err
	}
	b.note("import_and_arrive_seconds", time.Since(began).Seconds(), noLimit)
	peak, err := b.control.peakRSS()
	if err != nil {
		return err
	}
	b.note("control_peak_rss_bytes", float64(peak), 1e9)
	after, err = b.gateway.settled(ctx)
	if err != nil {
		return err
	}
	b.note("gateway_heap_with_all_bytes", float64(after.heap), noLimit)
	b.note("gateway_rss_with_all_bytes", float64(after.rss), noLimit)
	return nil
}

// keyedHost is the hostname of the API that asks for keys.
const keyedHost = "keyed.example.com"

// addKeyedAPI adds what the keys belong to.
func (b *feedBench) addKeyedAPI(ctx context.Context) error {
	var d documents
	d.environment("keyed", keyedHost)
	d.api("keyed", "keyed", &v1.APISpec{BasePath: "/keyed/v1", Backend: groupName, Policies: v1.Policies{
		Request: []v1.Policy{{APIKey: &v1.APIKeyPolicy{}}},
	}})
	d.add("keyed", &v1.ProductSpec{APIs: []string{"keyed"}})
	for i := range credentialApps {
		d.add(subscriptionName(i), &v1.ApplicationSpec{Owner: "bench@example.com"})
		d.add(subscriptionName(i), &v1.SubscriptionSpec{Application: subscriptionName(i), Product: "keyed"})
	}
	if _, err := b.control.apply(ctx, d.String()); err != nil {
		return err
	}
	return b.gateway.serves(ctx, b.gateway.addr, keyedHost, keyedPath, "", 401)
}

// importKeys imports the keys from first up to but not including last and waits until the gateway accepts the last of them.
func (b *feedBench) importKeys(ctx context.Context, first, last int) error {
	if _, err := b.control.api.ImportKeys(ctx, organization, "", client.ContentTypeKeyRecords, keyRecords(first, last, credentialApps)); err != nil {
		return err
	}
	return b.gateway.serves(ctx, b.gateway.addr, keyedHost, keyedPath, keyValue(last-1), 200)
}

// feedLoad is a slow, steady load on random APIs that counts what fails.
type feedLoad struct {
	requests, failed int64
}

// run puts load on addr until the context ends.
func (l *feedLoad) run(ctx context.Context, addr string, apis int) {
	random := rand.New(rand.NewPCG(3, 4))
	p := newProbe(addr, "")
	defer p.close()
	tick := time.NewTicker(time.Second / feedRate)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a := feedAPI(random.IntN(apis))
		p.host = a.host()
		answer, err := p.get(a.path(), "")
		l.requests++
		if err != nil || answer.status != 200 {
			l.failed++
		}
	}
}
