package sample_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"hansa.dev/hansa/internal/app/sample"
	"hansa.dev/hansa/internal/resource"
)

func TestBackend(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(sample.Backend(func() time.Time { return time.Unix(0, 0) }))
	t.Cleanup(srv.Close)
	do := func(method, path, body string, status int, want string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != status || !strings.Contains(string(got), want) {
			t.Errorf("%s %s = %d %s, want %d with %q", method, path, resp.StatusCode, got, status, want)
		}
	}
	do("GET", "/items", "", 200, "herring")
	do("GET", "/items/4", "", 200, "salt")
	do("GET", "/items/9", "", 404, "no item")
	do("GET", "/orders", "", 200, "[]")
	do("POST", "/orders", `{"item": "2", "quantity": 0}`, 400, "quantity")
	do("POST", "/orders", `{"item": "2", "quantity": 3}`, 201, `"id":"1"`)
	do("GET", "/orders/1", "", 200, "1970-01-01T00:00:00Z")
	do("GET", "/orders/2", "", 404, "no order")
}

func TestResourcesNameTheBackend(t *testing.T) {
	t.Parallel()
	got := sample.Resources("127.0.0.1:7")
	if !strings.Contains(got, `"127.0.0.1:7"`) || strings.Contains(got, "BACKEND_ADDRESS") {
		t.Errorf("resources do not carry the address of the backend:\n%s", got)
	}
}

func TestResourcesAreValid(t *testing.T) {
	t.Parallel()
	objects, faults := resource.Decode("resources.yaml", []byte(sample.Resources("127.0.0.1:7")), resource.Options{})
	for _, o := range objects {
		resource.Default(o)
		faults = append(faults, resource.Validate(o)...)
	}
	for _, f := range faults {
		t.Error(resource.FormatFault(f))
	}
	if len(objects) < 14 {
		t.Errorf("%d resources", len(objects))
	}
}
