package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/app/sample"
	"hansa.dev/hansa/internal/x/secret"
)

// DevOptions configure "hansa dev".
type DevOptions struct {
	// Data is the folder of everything. Default: ".hansa".
	Data string
	// HTTPAddr, AdminAddr, APIAddr, LinkAddr and SampleAddr are the listeners. Defaults: 127.0.0.1 with the ports of
	// the roles; 127.0.0.1:8070 for the sample backend.
	HTTPAddr, AdminAddr, APIAddr, LinkAddr, SampleAddr string
	// ReadyFile is written when everything serves, beside ready.json in Data, by which the command line finds it. Default:
	// none.
	ReadyFile string
	// Version is the version of the binary.
	Version string
	// Progress gets a line for every step. Default: none.
	Progress io.Writer
	// Log is required.
	Log *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// The folder that dev works in and the file there that the command line finds it by.
const (
	defaultDevData = ".hansa"
	readyName      = "ready.json"
)

func (o *DevOptions) setDefaults() {
	o.Data = orDefault(o.Data, defaultDevData)
	o.HTTPAddr = orDefault(o.HTTPAddr, "127.0.0.1:8080")
	o.AdminAddr = orDefault(o.AdminAddr, "127.0.0.1:8085")
	o.APIAddr = orDefault(o.APIAddr, "127.0.0.1:8090")
	o.LinkAddr = orDefault(o.LinkAddr, "127.0.0.1:8091")
	o.SampleAddr = orDefault(o.SampleAddr, "127.0.0.1:8070")
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Dev is a control node, a gateway and a sample backend in one process, with a sample organization.
type Dev struct {
	opts DevOptions
	*process

	control *Control
	gateway *Gateway
	client  *client.Client
	sample  string // address of the sample backend
	ready   Ready
}

// The names of the sample that dev itself needs.
const (
	devGateway = "dev"
	devGroup   = "local"
	devBackend = "shop"
)

// StartDev starts everything and returns when the sample APIs are served. The caller must call Stop. An error leaves
// nothing running.
func StartDev(ctx context.Context, opts DevOptions) (*Dev, error) {
	opts.setDefaults()
	d := &Dev{opts: opts, process: newProcess(opts.Log)}
	if err := d.start(ctx); err != nil {
		return nil, errors.Join(err, d.stop(context.WithoutCancel(ctx)))
	}
	return d, nil
}

func (d *Dev) start(ctx context.Context) error {
	if err := os.MkdirAll(d.opts.Data, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"control node", d.startControl},
		{"sample backend", d.startSample},
		{"sample organization", d.applySample},
		{"gateway", d.startGateway},
		{"first configuration", d.awaitService},
	} {
		began := time.Now()
		fmt.Fprintf(d.opts.Progress, "  %-22s", step.name)
		if err := step.do(ctx); err != nil {
			fmt.Fprintln(d.opts.Progress, "failed")
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Fprintf(d.opts.Progress, "ready  %4d ms\n", time.Since(began).Milliseconds())
	}
	return d.announce()
}

func (d *Dev) startControl(ctx context.Context) (err error) {
	d.control, err = StartControl(ctx, ControlOptions{
		Data: filepath.Join(d.opts.Data, "control"), APIAddr: d.opts.APIAddr, LinkAddr: d.opts.LinkAddr,
		Version: d.opts.Version, Log: d.opts.Log.With("role", "control"), Now: d.opts.Now,
	})
	if err != nil {
		return err
	}
	d.onStop("control node", 30*time.Second, d.control.Stop)
	d.run("control node watch", func(ctx context.Context) error { return untilDone(ctx, d.control.Wait) })
	ready := d.control.Ready()
	ca, err := os.ReadFile(ready.CAFile)
	if err != nil {
		return fmt.Errorf("read CA file: %w", err)
	}
	token, err := os.ReadFile(ready.TokenFile)
	if err != nil {
		return fmt.Errorf("read token file: %w", err)
	}
	d.client, err = client.New(client.Options{
		Server: "https://" + ready.Addresses["api"], CA: ca, Token: strings.TrimSpace(string(token)),
	})
	return err
}

// untilDone turns a wait that ends with nil for an ended context into a run loop.
func untilDone(ctx context.Context, wait func(context.Context) error) error {
	if err := wait(ctx); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// startSample starts the sample backend, on any port if its own is taken.
func (d *Dev) startSample(ctx context.Context) error {
	l, err := listen(ctx, d.opts.SampleAddr)
	if err != nil {
		d.log.WarnContext(ctx, "the sample backend takes another port", "err", err)
		if l, err = listen(ctx, "127.0.0.1:0"); err != nil {
			return err
		}
	}
	d.sample = l.Addr().String()
	d.serveHTTP("sample backend", &http.Server{Handler: sample.Backend(d.opts.Now), ReadHeaderTimeout: 10 * time.Second}, l)
	return nil
}

// applySample applies the sample organization to a new record. To one that has APIs already only the address of the
// sample backend is written, if it changed: what the user made of the sample stays.
func (d *Dev) applySample(ctx context.Context) error {
	list, err := d.client.List(ctx, v1.KindAPI, v1.DefaultOrganization, client.ListOptions{Limit: 1})
	if err != nil {
		return err
	}
	if len(list.Items) == 0 {
		_, err = d.client.Apply(ctx, strings.NewReader(sample.Resources(d.sample)), client.ApplyOptions{})
		return err
	}
	backend, err := d.client.Get(ctx, v1.Key{Organization: v1.DefaultOrganization, Kind: v1.KindBackend, Name: devBackend})
	if err != nil {
		if e, ok := errors.AsType[*client.Error](err); ok && e.Status == http.StatusNotFound {
			return nil // the user took the sample away
		}
		return err
	}
	spec, ok := backend.Spec.(*v1.BackendSpec)
	if !ok || len(spec.Endpoints) == 1 && spec.Endpoints[0].Address == d.sample {
		return nil
	}
	spec.Endpoints = []v1.Endpoint{{Address: d.sample}}
	_, err = d.client.Put(ctx, backend, client.ApplyOptions{})
	return err
}

func (d *Dev) startGateway(ctx context.Context) error {
	dir := filepath.Join(d.opts.Data, "gateway")
	opts := GatewayOptions{
		Data: dir, Name: devGateway, HTTPAddr: d.opts.HTTPAddr, AdminAddr: d.opts.AdminAddr,
		Control: []string{d.control.Ready().Addresses["link"]}, AccessLog: filepath.Join(d.opts.Data, "access.log"),
		Version: d.opts.Version, Log: d.opts.Log.With("role", "gateway"), Now: d.opts.Now,
	}
	_, err := d.client.Gateway(ctx, v1.DefaultOrganization, devGateway)
	if e, ok := errors.AsType[*client.Error](err); ok && e.Status == http.StatusNotFound {
		token, err := d.client.CreateJoinToken(ctx, v1.DefaultOrganization, v1.JoinTokenRequest{GatewayGroup: devGroup})
		if err != nil {
			return err
		}
		opts.JoinToken = secret.New([]byte(token.Token))
	} else if err != nil {
		return err
	}
	if d.gateway, err = StartGateway(ctx, opts); err != nil {
		return err
	}
	d.onStop("gateway", 40*time.Second, d.gateway.Stop)
	d.run("gateway watch", func(ctx context.Context) error { return untilDone(ctx, d.gateway.Wait) })
	return nil
}

// awaitService waits until the gateway has a configuration.
func (d *Dev) awaitService(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return d.gateway.AwaitConfiguration(ctx)
}

func (d *Dev) announce() error {
	of, at := d.control.Ready(), d.gateway.Ready()
	d.ready = Ready{PID: os.Getpid(), CAFile: of.CAFile, TokenFile: of.TokenFile, Addresses: map[string]string{
		"api": of.Addresses["api"], "link": of.Addresses["link"], "sample": d.sample,
		"http": at.Addresses["http"], "admin": at.Addresses["admin"],
	}}
	files := []string{filepath.Join(d.opts.Data, readyName)}
	if d.opts.ReadyFile != "" && filepath.Clean(d.opts.ReadyFile) != files[0] {
		files = append(files, d.opts.ReadyFile)
	}
	for _, file := range files {
		if err := writeReady(file, d.ready); err != nil {
			return err
		}
		d.onStop("ready file", time.Second, func(context.Context) error { return os.Remove(file) })
	}
	return nil
}

// Ready returns what a script needs to use it all.
func (d *Dev) Ready() Ready { return d.ready }

// Wait blocks until ctx ends (nil) or a part fails.
func (d *Dev) Wait(ctx context.Context) error { return d.wait(ctx) }

// Stop ends everything within ctx, the gateway first.
func (d *Dev) Stop(ctx context.Context) error { return d.stop(ctx) }

// Welcome tells a person what runs where and what to type next; program is how this program is called.
func (d *Dev) Welcome(program string) string {
	a := d.ready.Addresses
	host, port, _ := net.SplitHostPort(a["http"])
	if host == "127.0.0.1" {
		host = "localhost"
	}
	traffic := "http://" + net.JoinHostPort(host, port)
	where := "" // the command line finds the control node by itself if the folder is the usual one
	if filepath.Clean(d.opts.Data) != defaultDevData {
		where = fmt.Sprintf("  export HANSA_SERVER=https://%s HANSA_CA_FILE=%s HANSA_TOKEN_FILE=%s\n", a["api"], d.ready.CAFile, d.ready.TokenFile)
	}
	return fmt.Sprintf(`
Hansa is ready.

  traffic      %s   APIs at /catalog/v1 and /orders/v1
  control API  https://%s   token in %s
  health       http://%s/readyz?verbose
  access log   %s

Type next, in another terminal:

%s  curl -i %s/catalog/v1/items
  %s keys create shop-gold
  curl -i -H "X-API-Key: THE_KEY" %s/catalog/v1/items/4

Ctrl-C stops it; the data stays in %s for the next start.
`, traffic, a["api"], d.ready.TokenFile, a["admin"], filepath.Join(d.opts.Data, "access.log"), where, traffic, program, traffic, d.opts.Data)
}
