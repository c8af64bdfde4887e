package control_test

import (
	"fmt"
	"strings"
	"testing"

	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/compile"
	"hansa.dev/hansa/internal/control"
	"hansa.dev/hansa/internal/store"
)

// TestCheckUponPublished tries changes upon what was published, which may be behind the record by any number of change
// sets: what has come since must be seen as well.
func TestCheckUponPublished(t *testing.T) {
	t.Parallel()
	record := openStore(t)
	var version store.Version
	var published *compile.Result
	asked := 0
	c := newCluster(t, func(o *control.Options) {
		o.Store = record
		o.Compiled = func() (store.Version, *compile.Result) {
			asked++
			return version, published
		}
	})
	backend := "{kind: Backend, metadata: {name: b}, spec: {endpoints: [{address: \"127.0.0.1:1\"}]}}\n---\n"
	api := "{kind: API, metadata: {name: a%d}, spec: {basePath: /a%d, backend: b}}\n"
	c.apply(backend + fmt.Sprintf(api, 0, 0))
	for i := range 9 {
		if i%3 == 1 { // the publisher catches up, and then falls behind again
			state := record.State()
			r, err := compile.Compile(state, state.Version().Seq, compile.Options{})
			if err != nil {
				t.Fatal(err)
			}
			version, published = state.Version(), r
		}
		c.apply(fmt.Sprintf(api, i+1, i+1))
		missing := fmt.Sprintf("{kind: Product, metadata: {name: p}, spec: {apis: [a%d]}}", i+2)
		if _, err := c.admin.Apply(t.Context(), strings.NewReader(missing), client.ApplyOptions{}); err == nil {
			t.Errorf("a product of an API that is not there was taken")
		}
		c.apply(fmt.Sprintf("{kind: Product, metadata: {name: p}, spec: {apis: [a%d]}}", i+1)) // which the last change set made
	}
	if asked == 0 {
		t.Error("nobody asked for what is published")
	}
}
