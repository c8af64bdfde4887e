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
//	                      The last argument, if it is body=BYTES, is the body, as raw has it.
//	json VAR FILE FIELD   set VAR to a field of the JSON object in FILE
//	content VAR FILE      set VAR to what is in FILE
//	raw STATUS CODE ADDRESS BYTES...
//	                      send bytes, as a Go string has them or N times over as N*BYTES, and read the refusal
//	hold ADDRESS BYTES... the same, without reading, over a connection that stays open until the script ends
//	leave ADDRESS BYTES...
//	                      the same, over one that is closed at once
//	tls STATUS CODE ADDRESS SERVERNAME URL [CERTIFICATE]
//	                      send a GET over TLS, perhaps with a client certificate, and read the refusal
//	certificate NAME HOST...
//	                      write NAME.crt and NAME.key, signed by themselves
//	logged CODE FILE      wait until an access log has the code
//
// The program "faulty" is a backend of bad manners.
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
		"faulty": faulty,
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
			"ready": ready, "address": address, "request": request, "json": jsonField, "content": contentOf,
			"raw": raw, "hold": hold, "leave": leave, "tls": overTLS, "certificate": certificate, "logged": logged,
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
	headers, body := args[4:], ""
	if n := len(args) - 1; strings.HasPrefix(args[n], "body=") {
		headers, body = args[4:n], bytesOf(ts, []string{strings.TrimPrefix(args[n], "body=")})
	}
	poll(ts, func() error {
		req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
		if err != nil {
			ts.Fatalf("%v", err)
		}
		for _, h := range headers {
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
