package suites

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// autobahnCases is the number of cases, of frames, fragments, control frames, UTF-8, limits and closing. The 216 others, of
// compression, take their runner minutes; TestCompressedWebSocket is there instead.
const autobahnCases = 301

// verdict is what the suite says about a case: the messages and the end of the connection.
type verdict struct{ Behavior, BehaviorClose string }

func (v verdict) good() bool {
	good := []string{"OK", "NON-STRICT", "INFORMATIONAL"}
	return slices.Contains(good, v.Behavior) && slices.Contains(good, v.BehaviorClose)
}

// TestAutobahn runs the cases of the Autobahn test suite against an echo server, directly and through a gateway by every
// way that a WebSocket can take to it: what passes directly must pass through the gateway, with the same verdict.
func TestAutobahn(t *testing.T) {
	t.Parallel()
	real(t)
	echo := startEcho(t)
	g := startGateway(t, newAuthority(t), fmt.Sprintf(`{endpoints: [{address: %q}]}`, echo), "--tls-any-host") // the suite asks for 127.0.0.1
	want := autobahn(t, echo)
	for id, v := range want {
		if !v.good() {
			t.Errorf("directly, case %s: %+v", id, v)
		}
	}
	if len(want) != autobahnCases {
		t.Errorf("only %d cases were run, want %d", len(want), autobahnCases)
	}
	for name, address := range g.ways(t) {
		got := autobahn(t, address)
		for id, v := range want {
			if got[id] != v && !got[id].good() {
				t.Errorf("%s, case %s: %+v, and directly %+v", name, id, got[id], v)
			}
		}
	}
}

// startEcho starts the server ws of npm, which sends back what it hears.
func startEcho(t *testing.T) (address string) {
	t.Helper()
	node, ws := program(t, "node"), tool(t, "ws/node_modules/ws")
	return start(t, func(port string) []string { return []string{node, filepath.Join("testdata", "echo.js"), ws, port} })
}

// ways are the addresses by which a client that speaks plain WebSocket reaches the gateway, by what it is carried in.
func (g *gateway) ways(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{"ws": g.http, "wss": overTLS(t, g), "h2": overHTTP2(t, g)}
}

// autobahn runs the suite against a server and returns its verdicts by the number of the case. Some cases judge by the second,
// which a busy machine does not have: those that are not good are run again, one at a time.
func autobahn(t *testing.T, address string) map[string]verdict {
	t.Helper()
	all := runAutobahn(t, address, "-p", "8", "-x", "12.*", "-x", "13.*")
	for range 2 {
		var again []string
		for id, v := range all {
			if !v.good() {
				again = append(again, "-i", id)
			}
		}
		if len(again) == 0 || len(again) > 2*autobahnAgain {
			break
		}
		maps.Copy(all, runAutobahn(t, address, again...))
	}
	return all
}

// autobahnAgain bounds the cases that are run again.
const autobahnAgain = 12

func runAutobahn(t *testing.T, address string, args ...string) map[string]verdict {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), tool(t, "kosoku/bin/kosoku"), append(args, "-o", dir, "ws://"+address+"/")...).CombinedOutput()
	b, readErr := os.ReadFile(filepath.Join(dir, "index.json"))
	if readErr != nil {
		t.Fatalf("the suite: %v\n%s", err, out)
	}
	var reports map[string]map[string]verdict // by the name of the server
	if err := json.Unmarshal(b, &reports); err != nil {
		t.Fatalf("the report of the suite: %v", err)
	}
	for _, cases := range reports {
		return cases
	}
	t.Fatalf("the suite reports nothing: %v\n%s", err, out)
	return nil
}

// TestCompressedWebSocket sends messages of up to 16 MiB, compressed in fragments, to an echo server of others by every way
// through a gateway.
func TestCompressedWebSocket(t *testing.T) {
	t.Parallel()
	real(t)
	g := startGateway(t, newAuthority(t), fmt.Sprintf(`{endpoints: [{address: %q}]}`, startEcho(t)), "--tls-any-host")
	for name, address := range g.ways(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := websocket.Dialer{EnableCompression: true, HandshakeTimeout: patience}
			c, res, err := d.DialContext(t.Context(), "ws://"+address+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if e := res.Header.Get("Sec-WebSocket-Extensions"); !strings.Contains(e, "permessage-deflate") {
				t.Errorf("the extensions are %q", e)
			}
			for _, n := range []int{0, 1, 64 << 10, 1 << 20, 16 << 20} {
				sent := make([]byte, n)
				for i := range sent {
					sent[i] = byte(i>>8 ^ i*i>>3) // neither all the same nor noise
				}
				if err := c.WriteMessage(websocket.BinaryMessage, sent); err != nil {
					t.Fatalf("%d bytes: %v", n, err)
				}
				kind, got, err := c.ReadMessage()
				if err != nil || kind != websocket.BinaryMessage || !bytes.Equal(got, sent) {
					t.Fatalf("%d bytes: %d of kind %d came back, %v", n, len(got), kind, err)
				}
			}
			end := websocket.FormatCloseMessage(4321, "enough")
			if err := c.WriteControl(websocket.CloseMessage, end, time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, 4321) {
				t.Errorf("at the end: %v", err)
			}
		})
	}
}
