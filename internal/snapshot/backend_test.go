package snapshot

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestEndpointsOfTheFirstForm checks that a backend which asks for nothing new is written as gateways of the first
// version read it.
func TestEndpointsOfTheFirstForm(t *testing.T) {
	t.Parallel()
	plain := Backend{Endpoints: Endpoints("a:1", "b:1")}
	text, err := json.Marshal(plain.Endpoints)
	if err != nil || string(text) != `["a:1","b:1"]` || plain.Reader() != 1 {
		t.Errorf("%s, %v, form %d", text, err, plain.Reader())
	}
	more := Backend{Endpoints: []Endpoint{{Address: "a:1"}, {Address: "b:1", Priority: 2, Weight: 3, Site: "paris"}}}
	if text, err = json.Marshal(more); err != nil || more.Reader() != BackendReader {
		t.Errorf("%v, form %d", err, more.Reader())
	}
	var again Backend
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(more, again); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if err := json.Unmarshal([]byte(`{"endpoints":[1]}`), &again); err == nil {
		t.Error("a number is taken for an endpoint")
	}
	if b := (Backend{Endpoints: Endpoints("a:1"), Retries: &Retries{}}); b.Reader() != BackendReader {
		t.Error("retries are no matter of the first form")
	}
}
