package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"hansa.dev/hansa/internal/app"
	"hansa.dev/hansa/internal/operate"
	"hansa.dev/hansa/test/process"
)

// gatewayProcess is a gateway in processes of its own, which may hand over to one another.
type gatewayProcess struct {
	t     testing.TB
	dir   string
	args  []string
	admin *operate.Client
	ended []<-chan struct{} // of the processes that the test started itself
}

// startGatewayProcess starts a gateway and waits until it serves a configuration. The further arguments are its flags.
func startGatewayProcess(t testing.TB, c *controlNode, name, group string, flags ...string) *gatewayProcess {
	t.Helper()
	p := &gatewayProcess{t: t, dir: t.TempDir()}
	token := p.path("join.token")
	if err := os.WriteFile(token, []byte(c.joinTokenFor(t, group)), 0o600); err != nil {
		t.Fatal(err)
	}
	p.args = append([]string{
		"gateway", "--data", p.path("gw"), "--name", name, "--control", c.link, "--join-token-file", token,
		"--http-addr", "127.0.0.1:0", "--https-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", "--ready-file", p.path("ready.json"),
		"--access-log", p.path("access.log"),
	}, flags...)
	p.admin = operate.NewClient(p.path("gw"))
	t.Cleanup(p.end)
	p.start()
	return p
}

func (p *gatewayProcess) path(name string) string { return filepath.Join(p.dir, name) }

// start starts a process and waits until it serves.
func (p *gatewayProcess) start() {
	p.t.Helper()
	_ = os.Remove(p.path("ready.json"))
	p.ended = append(p.ended, process.Start(p.t, process.Command(context.Background(), p.args...), p.path("log")))
	eventually(p.t, patience, func() error { _, err := p.ready(); return err })
}

// ready returns what the ready file says, once the process that wrote it has a configuration.
func (p *gatewayProcess) ready() (app.Ready, error) {
	var ready app.Ready
	b, err := os.ReadFile(p.path("ready.json"))
	if err == nil {
		err = json.Unmarshal(b, &ready)
	}
	if err != nil {
		return ready, err
	}
	st, err := p.admin.Status(p.t.Context())
	if err == nil && (st.Generation == 0 || st.PID != ready.PID) {
		err = fmt.Errorf("generation %d, process %d, ready file of %d", st.Generation, st.PID, ready.PID)
	}
	return ready, err
}

// address returns where a listener of the gateway is.
func (p *gatewayProcess) address(listener string) string {
	p.t.Helper()
	ready, err := p.ready()
	if err != nil {
		p.t.Fatal(err)
	}
	return ready.Addresses[listener]
}

// upgrade has the gateway hand over to another process of the same program, and returns the one before.
func (p *gatewayProcess) upgrade() (old int) {
	p.t.Helper()
	out, err := p.admin.Upgrade(p.t.Context(), operate.Upgrade{})
	if err != nil {
		p.t.Fatalf("upgrade: %v", err)
	}
	return out.OldPID
}

// stop ends the gateway as an operator does, and waits until its processes are gone.
func (p *gatewayProcess) stop() {
	p.t.Helper()
	for _, pid := range p.processes() {
		_ = syscall.Kill(pid, syscall.SIGTERM) // it fails if the process has just ended
	}
	eventually(p.t, patience, func() error {
		if left := p.processes(); len(left) > 0 {
			return fmt.Errorf("processes %v are left", left)
		}
		return nil
	})
}

// end kills what is left.
func (p *gatewayProcess) end() { process.End(p.t, p.path("gw"), p.path("log"), p.ended) }

// processes finds the processes that run on the data folder of this gateway.
func (p *gatewayProcess) processes() []int { return process.On(p.path("gw")) }
