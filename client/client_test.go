package client_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
)

// serve starts a server that answers everything with h and returns a client that trusts it.
func serve(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	c, err := client.New(client.Options{Server: s.URL + "/", CA: ca, Token: "secret-token"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		o    client.Options
		want string
	}{
		{"no server", client.Options{}, "not a URL"},
		{"no scheme", client.Options{Server: "127.0.0.1:8090"}, "server"},
		{"other scheme", client.Options{Server: "ftp://example.com"}, "not a URL"},
		{"token in the clear", client.Options{Server: "http://example.com", Token: "x"}, "https"},
		{"CA that is none", client.Options{Server: "https://example.com", CA: []byte("x")}, "PEM"},
	} {
		if _, err := client.New(tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: New = %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	if _, err := client.New(client.Options{Server: "http://127.0.0.1:1", Token: "x"}); err != nil {
		t.Errorf("a token over loopback: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		want   client.Error
	}{
		{"problem", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", v1.ContentTypeProblem+"; charset=utf-8")
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(503)
			fmt.Fprint(w, `{"code":"busy","status":503,"title":"t","detail":"d","requestId":"r"}`)
		}, client.Error{Problem: v1.Problem{Code: "busy", Status: 503, Detail: "d", RequestID: "r"}, RetryAfter: 7 * time.Second}},
		{"a proxy's page", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Request-Id", "p")
			http.Error(w, "bad gateway", http.StatusBadGateway)
		}, client.Error{Problem: v1.Problem{Code: "http-502", Status: 502, RequestID: "p"}}},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://example.com/", http.StatusFound)
		}, client.Error{Problem: v1.Problem{Code: "http-302", Status: 302}}},
	} {
		_, err := serve(t, tt.answer).Status(t.Context())
		e, ok := errors.AsType[*client.Error](err)
		if !ok {
			t.Errorf("%s: %v, want an *Error", tt.name, err)
			continue
		}
		if e.Code != tt.want.Code || e.Status != tt.want.Status || e.RequestID != tt.want.RequestID || e.RetryAfter != tt.want.RetryAfter ||
			tt.want.Detail != "" && e.Detail != tt.want.Detail {
			t.Errorf("%s: %+v, want %+v", tt.name, e, tt.want)
		}
		if errors.Is(err, client.ErrUnreachable) {
			t.Errorf("%s: an answer is taken for none", tt.name)
		}
	}
}

func TestNoAnswer(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/status"):
			<-r.Context().Done()
		case strings.HasSuffix(r.URL.Path, "/backup"):
			_, _ = io.WriteString(w, "half")
			panic(http.ErrAbortHandler)
		default:
			fmt.Fprint(w, `{"items": [`)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Status(ctx); !errors.Is(err, client.ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer in time: %v", err)
	}
	if _, err := c.List(t.Context(), v1.KindAPI, "default", client.ListOptions{}); !errors.Is(err, client.ErrUnreachable) {
		t.Errorf("half an answer: %v", err)
	}
	if n, err := c.Backup(t.Context(), io.Discard); err == nil {
		t.Errorf("half a backup of %d bytes is taken for whole", n)
	}
	closed, err := client.New(client.Options{Server: "https://127.0.0.1:1", Token: "secret-token"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := closed.Status(t.Context()); !errors.Is(err, client.ErrUnreachable) || strings.Contains(err.Error(), "secret") {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestRequests(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 1)
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		seen <- r
		fmt.Fprint(w, "{}")
	})
	_, err := c.Trial().Apply(t.Context(), strings.NewReader("kind: Site"), client.ApplyOptions{Organization: "a&b", Wait: v1.Duration(time.Second), Reason: "why?"})
	if err != nil {
		t.Fatal(err)
	}
	r := <-seen
	if got := r.URL.Query(); got.Get("organization") != "a&b" || got.Get("wait") != "1s" || got.Get("dryRun") != "true" || got.Get("reason") != "why?" {
		t.Errorf("query = %v", got)
	}
	if r.Header.Get("Authorization") != "Bearer secret-token" || r.Header.Get("Content-Type") != client.ContentTypeYAML {
		t.Errorf("header = %v", r.Header)
	}
	_, err = c.Delete(t.Context(), v1.Key{Organization: "default", Kind: v1.KindAPI, Name: "../../principals/admin"}, 7, client.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if r = <-seen; r.Header.Get("If-Match") != `"7"` || !strings.HasPrefix(r.URL.EscapedPath(), "/api/v1/organizations/default/apis/") {
		t.Errorf("delete goes to %s with %q", r.URL.EscapedPath(), r.Header.Get("If-Match"))
	}
	for _, k := range []v1.Key{
		{Kind: v1.KindAPI, Organization: "default"},
		{Kind: "None", Name: "x"},
		{Kind: v1.KindAPI, Organization: "default", Name: ".."},
		{Kind: v1.KindAPI, Name: "x"},
	} {
		if _, err := c.Get(t.Context(), k); err == nil {
			t.Errorf("Get(%v) was sent", k)
		}
		if _, err := c.Delete(t.Context(), k, 0, client.ApplyOptions{}); err == nil {
			t.Errorf("Delete(%v) was sent", k)
		}
	}
}

func Example() {
	token, err := os.ReadFile("admin.token")
	if err != nil {
		fmt.Println(err)
		return
	}
	c, err := client.New(client.Options{Server: "https://control.example.com:8090", Token: strings.TrimSpace(string(token))})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := c.Apply(ctx, strings.NewReader("kind: Site\nmetadata: {name: eu-west}\nspec: {cloud: aws}\n"), client.ApplyOptions{})
	if e, ok := errors.AsType[*client.Error](err); ok {
		fmt.Println("refused:", e.Code, e.Faults)
	} else if err != nil {
		fmt.Println("not reached:", err)
	} else {
		fmt.Println("now at", out.Epoch, out.Seq)
	}
}
