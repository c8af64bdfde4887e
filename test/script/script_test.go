// Package script runs the whole product from txtar scripts, the way a stranger would: the real binary's commands, real
// ports on loopback, files and curl-like requests.
//
// A script in testdata is one story. Beside the commands of testscript there are:
//
//	ready FILE            wait until a process has written its ready file
//	address VAR FILE NAME set VAR to the address of that name in a ready file
//	request STATUS CODE METHOD URL [HEADER...]
//	                      send a request until it is answered with STATUS and, unless CODE is "-", with that code of a
//	                      refusal (10 s at most); the head and body of the last answer are in $WORK/response
//	json VAR FILE FIELD   set VAR to a field of the JSON object in FILE
package script

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"hansa.dev/hansa/internal/cli"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"hansa": func() {
			os.Exit(cli.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
		},
	})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	examples, err := filepath.Abs(filepath.Join("..", "..", "examples"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("EXAMPLES", examples)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ready": ready, "address": address, "request": request, "json": jsonField,
		},
	})
}

// patience is how long a script waits for something that must happen.
const patience = 30 * time.Second

// poll calls try until it returns nil, and fails the script with its last error when patience ends.
func poll(ts *testscript.TestScript, try func() error) {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("gave up after %v: %v", patience, err)
		}
		<-tick.C
	}
}

func noNegation(ts *testscript.TestScript, neg bool, args []string, least int, usage string) {
	if neg || len(args) < least {
		ts.Fatalf("usage: %s", usage)
	}
}

func ready(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg, args, 1, "ready FILE")
	path := ts.MkAbs(args[0])
	poll(ts, func() error {
		_, err := os.Stat(path)
		return err
	})
}

func address(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg, args, 3, "address VAR FILE NAME")
	var file struct {
		Addresses map[string]string `json:"addresses"`
	}
	if err := json.Unmarshal([]byte(ts.ReadFile(args[1])), &file); err != nil {
		ts.Fatalf("%s: %v", args[1], err)
	}
	addr, ok := file.Addresses[args[2]]
	if !ok {
		ts.Fatalf("%s has no address %q: %v", args[1], args[2], file.Addresses)
	}
	ts.Setenv(args[0], addr)
}

func request(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg, args, 4, "request STATUS CODE METHOD URL [HEADER...]")
	status, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("status %q: %v", args[0], err)
	}
	code, method, url := args[1], args[2], args[3]
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true} // a test on loopback
	poll(ts, func() error {
		req, err := http.NewRequestWithContext(context.Background(), method, url, nil)
		if err != nil {
			ts.Fatalf("%v", err)
		}
		for _, h := range args[4:] {
			name, value, _ := strings.Cut(h, ":")
			if strings.EqualFold(name, "Host") {
				req.Host = strings.TrimSpace(value)
				continue
			}
			req.Header.Add(name, strings.TrimSpace(value))
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err != nil {
			return err
		}
		head, _ := httputil.DumpResponse(resp, false)
		ts.Check(os.WriteFile(ts.MkAbs("response"), append(head, body...), 0o600))
		var refusal struct {
			Code string `json:"code"`
		}
		_ = json.Unmarshal(body, &refusal) // most bodies are something else
		if resp.StatusCode != status || code != "-" && refusal.Code != code {
			return fmt.Errorf("%s %s is answered with %d %s: %s", method, url, resp.StatusCode, refusal.Code, body)
		}
		return nil
	})
}

func jsonField(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg, args, 3, "json VAR FILE FIELD")
	var object map[string]any
	if err := json.Unmarshal([]byte(ts.ReadFile(args[1])), &object); err != nil {
		ts.Fatalf("%s: %v", args[1], err)
	}
	value, ok := object[args[2]]
	if !ok {
		ts.Fatalf("%s has no field %q", args[1], args[2])
	}
	ts.Setenv(args[0], fmt.Sprint(value))
}
