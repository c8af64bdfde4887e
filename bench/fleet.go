package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
)

// What bench calls its resources. One organization, site and group suffice.
const (
	organization = "default"
	groupName    = "bench"
	startTime    = time.Minute
)

// ready is the ready file of a process.
type ready struct {
	Addresses map[string]string `json:"addresses"`
	CAFile    string            `json:"caFile"`
	TokenFile string            `json:"tokenFile"`
}

// startRole starts hansa with the arguments and waits for its ready file.
func startRole(ctx context.Context, o options, dir, name string, argv ...string) (*process, ready, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, ready{}, err
	}
	file := filepath.Join(dir, name+"-ready.json")
	if err := os.RemoveAll(file); err != nil {
		return nil, ready{}, err
	}
	p, err := startProcess(dir, name, append([]string{o.hansa}, append(argv, "--ready-file", file)...)...)
	if err != nil {
		return nil, ready{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	var r ready
	err = p.waitFor(ctx, "ready", func() bool {
		b, err := os.ReadFile(file)
		return err == nil && json.Unmarshal(b, &r) == nil
	})
	if err != nil {
		p.stop()
		return nil, ready{}, err
	}
	return p, r, nil
}

// controlNode is a running control node with a client for it.
type controlNode struct {
	*process
	api      *client.Client
	linkAddr string
}

func startControl(ctx context.Context, o options, dir string) (*controlNode, error) {
	p, r, err := startRole(ctx, o, dir, "control", "control", "--data", filepath.Join(dir, "control"),
		"--api-addr", "127.0.0.1:0", "--link-addr", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	api, err := newClient(r)
	if err != nil {
		p.stop()
		return nil, err
	}
	return &controlNode{process: p, api: api, linkAddr: r.Addresses["link"]}, nil
}

func newClient(r ready) (*client.Client, error) {
	ca, err := os.ReadFile(r.CAFile)
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(r.TokenFile)
	if err != nil {
		return nil, err
	}
	return client.New(client.Options{Server: "https://" + r.Addresses["api"], CA: ca, Token: strings.TrimSpace(string(token)), UserAgent: "hansa-bench"})
}

// apply applies a stream of resources.
func (c *controlNode) apply(ctx context.Context, documents string) (v1.ApplyResult, error) {
	return c.api.Apply(ctx, strings.NewReader(documents), client.ApplyOptions{})
}

// gatewayNode is a running gateway.
type gatewayNode struct {
	*process
	addr  string // traffic
	tls   string // traffic over TLS
	admin string // metrics
}

// startGateway enrols a gateway at the control node, by way of linkAddr, and waits until it has a configuration.
func (c *controlNode) startGateway(ctx context.Context, o options, dir, name, linkAddr string, argv ...string) (*gatewayNode, error) {
	token, err := c.api.CreateJoinToken(ctx, organization, v1.JoinTokenRequest{GatewayGroup: groupName})
	if err != nil {
		return nil, err
	}
	dir = filepath.Join(dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "join.token")
	if err := os.WriteFile(file, []byte(token.Token), 0o600); err != nil {
		return nil, err
	}
	return startGatewayAgain(ctx, o, dir, name, "127.0.0.1:0", append(argv, "--name", name, "--control", linkAddr, "--join-token-file", file)...)
}

// startGatewayAgain starts a gateway from the data that it has in dir.
func startGatewayAgain(ctx context.Context, o options, dir, name, addr string, argv ...string) (*gatewayNode, error) {
	p, r, err := startRole(ctx, o, dir, name, append([]string{"gateway", "--data", filepath.Join(dir, "data"), "--http-addr", addr, "--admin-addr", "127.0.0.1:0"}, argv...)...)
	if err != nil {
		return nil, err
	}
	return &gatewayNode{process: p, addr: r.Addresses["http"], tls: r.Addresses["https"], admin: r.Addresses["admin"]}, nil
}

// serves polls until a GET of path under host is answered with the status, on addr.
func (p *process) serves(ctx context.Context, addr, host, path, key string, status int) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	probe := newProbe(addr, host)
	defer probe.close()
	return p.waitFor(ctx, fmt.Sprintf("answering %s%s with %d", host, path, status), func() bool {
		a, err := probe.get(path, key)
		return err == nil && a.status == status
	})
}

// scrape reads the metrics of g.
func (g *gatewayNode) scrape(ctx context.Context) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.admin+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return sumMetrics(res.Body)
}
