package respond

import (
	"testing"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/policy/policytest"
)

func TestRun(t *testing.T) {
	t.Parallel()
	w := policytest.New(t)
	for _, tc := range []struct {
		settings          string
		status            int
		contentType, body string
	}{
		{`{"body":"hello"}`, 200, "text/plain; charset=utf-8", "hello"},
		{`{"status":503,"headers":{"content-type":"application/json","X-A":"1"},"body":"{}"}`, 503, "application/json", "{}"},
		{`{"status":204}`, 204, "", ""},
	} {
		step, err := New([]byte(tc.settings), w.Env)
		if err != nil {
			t.Fatal(err)
		}
		x := w.Exchange("", nil)
		if v := step.Run(x); v != exchange.Responded || x.Status != tc.status || x.Refused() {
			t.Errorf("%s: Run = %v with status %d", tc.settings, v, x.Status)
		}
		src, _ := x.LocalAnswer()
		body, err := exchange.ReadAll(nil, src, 100)
		if err != nil || string(body) != tc.body || string(x.Own.Known(exchange.IDContentType)) != tc.contentType {
			t.Errorf("%s: %q of type %q, %v", tc.settings, body, x.Own.Known(exchange.IDContentType), err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, settings := range []string{`{"status":100}`, `{"status":600}`, `{"status":304,"body":"x"}`, `{"headers":{"Content-Length":"0"}}`, `7`} {
		if _, err := New([]byte(settings), policytest.New(t).Env); err == nil {
			t.Errorf("New(%s) = nil error", settings)
		}
	}
}
