package soak

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/app"
	"hansa.dev/hansa/internal/operate"
	"hansa.dev/hansa/internal/x/fdpass"
	"hansa.dev/hansa/test/process"
)

// steps are the messages of a handover, in order.
var steps = []string{"offer", "prepared", "folder", "ready", "serve", "accepting"}

// successorName begins the names under which this program takes part in a handover, and goes wrong at a step:
//
//	successor-die-STEP      ends instead of sending or answering the message
//	successor-stall-STEP    does nothing any more from there on
//	successor-lone-STEP     stands between the old process and a real new one, and kills the old one before it passes the
//	                        message on
const successorName = "successor-"

func successor(what string) int {
	how, at, _ := strings.Cut(what, "-")
	conn, err := app.Predecessor(os.Getenv)
	if err != nil || conn == nil {
		return 1
	}
	if how == "lone" {
		return relay(conn, at)
	}
	for i, step := range steps {
		if step == at {
			if how == "stall" {
				<-make(chan struct{}) // with all that was handed over in its hands
			}
			return 1
		}
		if i%2 == 0 { // it is for the old process to say
			if _, err := conn.Receive(new(any), patience); err != nil {
				return 1
			}
			continue
		}
		if err := conn.Send(map[string]any{"step": step, "configured": true, "epoch": 1 << 40}, nil, patience); err != nil {
			return 1
		}
	}
	return 1
}

// relay passes messages on between the old process and a new one that it starts, up to a step.
func relay(old *fdpass.Conn, last string) int {
	ours, theirs, err := fdpass.Pair()
	if err != nil {
		return 1
	}
	cmd := exec.Command(os.Getenv(programEnv), os.Args[1:]...)
	cmd.Env = append(os.Environ(), app.HandoverEnv+"=3")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if cmd.Start() != nil || theirs.Close() != nil {
		return 1
	}
	var pid int
	for i, step := range steps {
		from, to := old, ours
		if i%2 == 1 {
			from, to = ours, old
		}
		var message json.RawMessage
		files, err := from.Receive(&message, patience)
		if err != nil {
			return 1
		}
		if step == "offer" {
			var offer struct{ PID int }
			if json.Unmarshal(message, &offer) != nil {
				return 1
			}
			pid = offer.PID
		}
		if step == last {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			return 0 // which closes the conversation, as the end of the old process does
		}
		if to.Send(message, files, patience) != nil {
			return 1
		}
		for _, f := range files {
			_ = f.Close()
		}
	}
	return 0
}

// programEnv names this program for those of its processes that run under another name.
const programEnv = "HANSA_SOAK_PROGRAM"

// successorProgram makes this program available under the name of a successor.
func (r *rig) successorProgram(how, step string) string {
	r.t.Helper()
	program, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	path := r.path(successorName + how + "-" + step)
	if err := os.Symlink(program, path); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// simple is traffic that shows whether the gateway serves.
func simple() []protocol {
	return []protocol{{"http1-short", 2, func(k *task) error { return k.session("http", "/soak", 1, 0) }}}
}

// follows fails the test unless the gateway gets configurations and nobody else can have its folder.
func (r *rig) follows(n int) {
	r.t.Helper()
	r.apply(r.changing(n))
	eventually(r.t, "configuration", func() error { return r.marked(n) })
	out, err := process.Command(r.t.Context(), r.args...).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 78 {
		r.t.Errorf("a second process on the data folder: %v: %s", err, out)
	}
}

// A new process that ends or hangs, at whatever step, leaves the old one as it was, with no request lost.
func TestNewProcessFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	pid := r.pid()
	n := 0
	for _, how := range []string{"die", "stall"} {
		for _, step := range steps {
			if step == "offer" && how == "stall" {
				continue // it looks the same as the next one
			}
			tr := startTraffic(r, simple())
			out, err := r.admin.Upgrade(t.Context(), operate.Upgrade{Program: r.successorProgram(how, step), Timeout: 700 * time.Millisecond})
			if err == nil {
				t.Errorf("%s at %s: handed over to %d", how, step, out.PID)
			}
			if got := r.pid(); got != pid {
				t.Fatalf("%s at %s: process %d serves, not %d", how, step, got, pid)
			}
			n++
			r.follows(n)
			tr.end(t)
			if got := r.processes(); len(got) != 1 {
				t.Errorf("%s at %s: processes %v are left", how, step, got)
			}
		}
	}
	if r.upgrade() != pid {
		t.Error("another process has handed over")
	}
	r.follows(100)
}

// An old process that is killed in the middle of a handover leaves a new one that serves. Before the offer there is none yet,
// and the gateway starts again from what is on the disk.
func TestOldProcessIsKilled(t *testing.T) {
	t.Setenv(programEnv, os.Args[0])
	for i, step := range steps {
		t.Run(step, func(t *testing.T) {
			r := newRig(t)
			old := r.pid()
			_, err := r.admin.Upgrade(t.Context(), operate.Upgrade{Program: r.successorProgram("lone", step)})
			if err == nil {
				t.Fatal("the old process has answered")
			}
			eventually(t, "the end of the old process", gone(old))
			if step == "offer" {
				eventually(t, "the end of all processes", r.empty)
				r.start()
			}
			eventually(t, "new process", func() error {
				if err := r.ready(); err != nil {
					return err
				}
				if got := r.pid(); got == old {
					return fmt.Errorf("process %d serves", got)
				}
				return nil
			})
			tr := startTraffic(r, simple())
			r.follows(i + 1)
			r.upgrade()
			tr.end(t)
		})
	}
}

// A new process that is killed when it serves already leaves a folder that another one can start on, while the old one still
// finishes its streams.
func TestNewProcessIsKilledLater(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s, err := r.openEvents("http", "/soak", "", "test", endless)
	if err != nil {
		t.Fatal(err)
	}
	defer s.c.Close()
	old := r.upgrade()
	fresh := r.pid()
	if err := syscall.Kill(fresh, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the new process", gone(fresh))
	r.start()
	r.follows(1)
	for range 10 {
		if err := s.event(); err != nil {
			t.Fatalf("the stream of the first process: %v", err)
		}
	}
	s.c.Close()
	eventually(t, "the end of the first process", gone(old))
}

// SIGTERM in the middle of a handover ends both processes and leaves the folder to the next.
func TestStopDuringHandover(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.pid()
	asked := make(chan error, 1)
	program := r.successorProgram("stall", "ready")
	go func() {
		_, err := r.admin.Upgrade(t.Context(), operate.Upgrade{Program: program, Timeout: time.Hour})
		asked <- err
	}()
	eventually(t, "new process", func() error {
		if n := len(r.processes()); n != 2 {
			return fmt.Errorf("%d processes", n)
		}
		return nil
	})
	if err := syscall.Kill(old, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the old process", gone(old))
	if err := <-asked; err == nil {
		t.Error("handed over")
	}
	eventually(t, "the end of all processes", r.empty)
	r.start()
	r.follows(1)
}

const doomedAPI = `
apiVersion: hansa.dev/v1
kind: API
metadata: {name: doomed}
spec: {basePath: /doomed, backend: soak, backendPath: /doomed}
---
kind: Deployment
metadata: {name: doomed-prod}
spec: {api: doomed, environment: prod}
`

// empty returns nil if no process is left.
func (r *rig) empty() error {
	if left := r.processes(); len(left) > 0 {
		return fmt.Errorf("%v are left", left)
	}
	return nil
}

// keyed are APIs with keys, beside the one without.
const keyed = doomedAPI + `
---
apiVersion: hansa.dev/v1
kind: API
metadata: {name: keyed}
spec: {basePath: /keyed, backend: soak, backendPath: /keyed, policies: {request: [apiKey: {}, quota: {}]}}
---
kind: Deployment
metadata: {name: keyed-prod}
spec: {api: keyed, environment: prod}
---
kind: Product
metadata: {name: gold}
spec: {apis: [keyed], quota: {limit: 100, window: 30d}}
---
kind: Application
metadata: {name: shop}
spec: {owner: shop@example.com}
---
kind: Subscription
metadata: {name: shop-gold}
spec: {application: shop, product: gold}
---
kind: Subscription
metadata: {name: other-gold}
spec: {application: shop, product: gold}
`

// pinned are streams of both kinds.
type pinned struct {
	name   string
	stream *stream
	more   func() error
}

func (r *rig) openBoth(name, api, key string) []pinned {
	r.t.Helper()
	s, err := r.openEvents("http", api, key, "test", endless)
	if err != nil {
		r.t.Fatalf("%s: %v", name, err)
	}
	w, err := r.openTalk("http", api, key, "test")
	if err != nil {
		r.t.Fatalf("%s: %v", name, err)
	}
	r.t.Cleanup(func() { s.c.Close(); w.c.Close() })
	return []pinned{{name + " events", s, s.event}, {name + " talk", w, w.say}}
}

// A stream ends when its API is removed or its key revoked, also if it is in a process that has handed over, and with
// nothing else that changes.
func TestStreamsPinTheirRoute(t *testing.T) {
	t.Parallel()
	for _, handOver := range []bool{false, true} {
		t.Run(fmt.Sprintf("handover %v", handOver), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.apply(keyed)
			keys, ids := make(map[string]string), make(map[string]string)
			for _, s := range []string{"shop-gold", "other-gold"} {
				k, err := r.control.CreateKey(t.Context(), v1.DefaultOrganization, s, v1.KeyRequest{})
				if err != nil {
					t.Fatal(err)
				}
				keys[s], ids[s] = k.Key, k.KeyID
			}
			eventually(t, "keys", func() error {
				for _, k := range keys {
					s, err := r.openEvents("http", "/keyed", k, "test", 1)
					if err != nil {
						return err
					}
					s.c.Close()
				}
				return nil
			})
			stay := append(r.openBoth("other API", "/soak", ""), r.openBoth("other key", "/keyed", keys["other-gold"])...)
			revoked, doomed := r.openBoth("revoked", "/keyed", keys["shop-gold"]), r.openBoth("removed", "/doomed", "")
			alive := func(all []pinned) {
				t.Helper()
				for _, p := range all {
					if err := p.more(); err != nil {
						t.Fatalf("%s: %v", p.name, err)
					}
				}
			}
			broken := func(all []pinned) {
				t.Helper()
				for _, p := range all {
					eventually(t, p.name, func() error {
						err := p.more()
						if err == nil {
							return errors.New("the stream goes on")
						}
						if errors.Is(err, os.ErrDeadlineExceeded) {
							t.Fatalf("%s: %v", p.name, err)
						}
						return nil
					})
				}
			}
			old := r.pid()
			if handOver {
				r.upgrade()
			}
			r.apply(r.changing(2)) // other endpoints, another revision of an API
			r.newCertificate()
			if _, err := r.admin.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "configuration", func() error { return r.marked(2) })
			alive(append(append(stay, revoked...), doomed...))
			if _, err := r.control.RevokeKey(t.Context(), v1.DefaultOrganization, "shop-gold", ids["shop-gold"]); err != nil {
				t.Fatal(err)
			}
			broken(revoked)
			alive(append(stay, doomed...))
			if _, err := r.control.DeleteAll(t.Context(), strings.NewReader(doomedAPI), client.ApplyOptions{}); err != nil {
				t.Fatal(err)
			}
			broken(doomed)
			alive(stay)
			for _, p := range stay {
				p.stream.c.Close()
			}
			if handOver {
				eventually(t, "the end of the old process", gone(old))
			}
		})
	}
}

// What a quota has counted goes over to the new process, also what the old one counts after that.
func TestQuotaOverUpgrades(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(keyed)
	k, err := r.control.CreateKey(t.Context(), v1.DefaultOrganization, "shop-gold", v1.KeyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "key", func() error { _, err := r.keyedOn(nil, k.Key); return err })
	c, err := r.open("http") // this connection stays with the old process for one more request
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if left, err := r.keyedOn(c, k.Key); err != nil || left != 98 {
		t.Fatalf("%d are left, %v, want 98", left, err)
	}
	old := r.upgrade()
	if left, err := r.keyedOn(nil, k.Key); err != nil || left != 97 {
		t.Errorf("in the new process %d are left, %v, want 97", left, err)
	}
	if left, err := r.keyedOn(c, k.Key); err != nil || left != 97 {
		t.Errorf("in the old process %d are left, %v, want 97", left, err)
	}
	eventually(t, "the end of the old process", gone(old))
	if left, err := r.keyedOn(nil, k.Key); err != nil || left != 95 {
		t.Errorf("when the old process has ended %d are left, %v, want 95", left, err)
	}
}

// keyedOn sends a request with a key, on a connection of its own if c is nil, and returns what is left of the quota.
func (r *rig) keyedOn(c net.Conn, key string) (left int, err error) {
	if c == nil {
		if c, err = r.open("http"); err != nil {
			return 0, err
		}
		defer c.Close()
	}
	fmt.Fprintf(c, "GET /keyed/events/test?n=1 HTTP/1.1\r\nHost: %s\r\nX-API-Key: %s\r\n\r\n", hostname, key)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("answered with %s", resp.Status)
	}
	_, err = fmt.Sscanf(resp.Header.Get("RateLimit"), `"quota";r=%d`, &left)
	return left, err
}
