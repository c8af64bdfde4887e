package cli

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
)

const (
	defaultServer = "https://127.0.0.1:8090"
	// callTime bounds a call that neither waits nor carries much.
	callTime = time.Minute
	// changeTime bounds a change, beside the wait that was asked for.
	changeTime = 10 * time.Minute
)

// readyFile is what "hansa dev" writes in the folder that it was started in.
func readyFile() string { return filepath.Join(".hansa", "ready.json") }

// target is where the control API is and how it was found.
type target struct {
	Server    string `json:"server"`
	CAFile    string `json:"caFile,omitempty"`
	TokenFile string `json:"tokenFile,omitempty"`
	FoundBy   string `json:"foundBy"`
}

// target finds the control API: by flags, by the environment, by the ready file of "hansa dev", or where it is by
// default. The ready file counts only if the server is named in no other way.
func (s *session) target() (target, error) {
	t := target{
		Server:    s.env(s.server, "HANSA_SERVER"),
		CAFile:    s.env(s.caFile, "HANSA_CA_FILE"),
		TokenFile: s.env(s.tokenFile, "HANSA_TOKEN_FILE"),
		FoundBy:   "flags and environment",
	}
	if t.Server != "" {
		return t, nil
	}
	b, err := os.ReadFile(readyFile())
	if errors.Is(err, fs.ErrNotExist) {
		t.Server, t.FoundBy = defaultServer, "default"
		return t, nil
	}
	if err != nil {
		return t, fmt.Errorf("find the control node: %w", err)
	}
	var ready struct {
		Addresses map[string]string `json:"addresses"`
		CAFile    string            `json:"caFile"`
		TokenFile string            `json:"tokenFile"`
	}
	if err := json.Unmarshal(b, &ready); err != nil {
		return t, withExit(ExitConfig, fmt.Errorf("read %s: %w", readyFile(), err))
	}
	if ready.Addresses["api"] == "" {
		return t, withExit(ExitConfig, fmt.Errorf("%s names no address \"api\": name the control node with --server", readyFile()))
	}
	t.Server, t.FoundBy = "https://"+ready.Addresses["api"], readyFile()
	if t.CAFile == "" {
		t.CAFile = ready.CAFile
	}
	if t.TokenFile == "" {
		t.TokenFile = ready.TokenFile
	}
	return t, nil
}

// connect returns a client for the control API.
func (s *session) connect() (*client.Client, error) {
	t, err := s.target()
	if err != nil {
		return nil, err
	}
	o := client.Options{Server: t.Server, UserAgent: "hansa/" + version()}
	if t.CAFile != "" {
		if o.CA, err = os.ReadFile(t.CAFile); err != nil {
			return nil, fmt.Errorf("read the CA certificate: %w", err)
		}
		if block, _ := pem.Decode(o.CA); block == nil {
			return nil, withExit(ExitInvalid, fmt.Errorf("the CA file %s holds no PEM certificate: name ca.pem of the data folder of the control node", t.CAFile))
		}
	}
	if t.TokenFile != "" {
		b, err := os.ReadFile(t.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read the token: %w", err)
		}
		o.Token = strings.TrimSpace(string(b))
	}
	c, err := client.New(o)
	if err != nil {
		return nil, withExit(ExitUsage, err)
	}
	return c, nil
}

// org returns the organization to work in.
func (s *session) org() string {
	if organization := s.env(s.organization, "HANSA_ORGANIZATION"); organization != "" {
		return organization
	}
	return v1.DefaultOrganization
}

// call runs f with a client, bounded by limit; 0: not bounded.
func (s *session) call(ctx context.Context, limit time.Duration, f func(context.Context, *client.Client) error) error {
	c, err := s.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
		defer s.progress("waiting for the control node").end()
	}
	return f(ctx, c)
}
