package operate

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"hansa.dev/hansa/internal/gateway"
)

// serve answers on the socket of a folder until the test ends.
func serve(t *testing.T, dir string, handler http.HandlerFunc) {
	t.Helper()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler}}
	srv.Start()
	t.Cleanup(srv.Close)
}

func TestSocket(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{
		"short": t.TempDir(),
		"long":  filepath.Join(t.TempDir(), strings.Repeat("long/", 30)),
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		c := NewClient(dir)
		if _, err := c.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: no socket: %v", name, err)
		}
		for _, level := range []string{"first", "second"} { // which takes the name of the first
			serve(t, dir, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(Status{LogLevel: level}) })
			if st, err := c.Status(t.Context()); err != nil || st.LogLevel != level {
				t.Errorf("%s: %q answers, %v, want %q", name, st.LogLevel, err, level)
			}
		}
		if info, err := os.Stat(filepath.Join(dir, SocketName)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
		for range 2 {
			if err := Remove(dir); err != nil {
				t.Error(err)
			}
		}
		if _, err := c.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: the socket is removed: %v", name, err)
		}
	}
	if _, err := Listen(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a socket in a folder that does not exist")
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var mu sync.Mutex
	var seen []string
	serve(t, dir, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.Method+" "+r.URL.String())
		mu.Unlock()
		switch r.URL.Path {
		case PathUndrain:
			w.WriteHeader(http.StatusConflict)
			_ = json.NewEncoder(w).Encode(Refusal{Code: CodeConflict, Message: "no"})
		case PathCounts:
			http.Error(w, "text", http.StatusInternalServerError)
		case PathReload:
			_, _ = w.Write([]byte("text"))
		}
	})
	c := NewClient(dir)
	if _, err := c.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	_, err := c.Undrain(t.Context())
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeConflict || e.Error() != "no" {
		t.Errorf("a refusal: %v", err)
	}
	if e, ok := errors.AsType[*Error](c.AddCounts(t.Context(), []byte("x"))); !ok || e.Code != CodeFailed {
		t.Errorf("a refusal without JSON: %v", e)
	}
	if _, err := c.Reload(t.Context()); err == nil {
		t.Error("an answer that is no JSON")
	}
	if _, err := c.DryRun().AddListener(t.Context(), gateway.Listener{Name: "x"}); err != nil {
		t.Error(err)
	}
	if _, err := c.DryRun().RemoveListener(t.Context(), "a b"); err != nil {
		t.Error(err)
	}
	want := []string{
		"POST /drain", "POST /undrain", "POST /counts", "POST /reload", "POST /listeners?dry-run=true",
		"DELETE /listeners?dry-run=true&name=a+b",
	}
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(seen, ", "); got != strings.Join(want, ", ") {
		t.Errorf("asked %s, want %s", got, strings.Join(want, ", "))
	}
}
