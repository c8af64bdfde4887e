package control_test

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"testing"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
)

// following pulls the events of a watch.
type following struct {
	t    *testing.T
	next func() (v1.WatchEvent, error, bool)
}

func follow(ctx context.Context, t *testing.T, c *client.Client, kind v1.Kind, organization, since string) following {
	t.Helper()
	next, stop := iter.Pull2(c.Watch(ctx, kind, organization, since))
	t.Cleanup(stop)
	return following{t, next}
}

// event returns the next event that is no bookmark.
func (f following) event() v1.WatchEvent {
	f.t.Helper()
	for {
		ev, err, ok := f.next()
		if err != nil || !ok {
			f.t.Fatalf("the watch ended: %v", err)
		}
		if ev.Type != v1.WatchBookmark {
			return ev
		}
	}
}

func TestWatchGoesOnWhereItBroke(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.apply(shop)
	ctx := patience(t)
	app := func(i int, owner string) v1.ApplyResult {
		return c.apply(fmt.Sprintf("{kind: Application, metadata: {name: app-%d}, spec: {owner: %q}}", i, owner))
	}
	list, err := c.admin.List(ctx, v1.KindApplication, "default", client.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	start := fmt.Sprintf("%d.%d", list.Epoch, list.Seq)
	made := app(1, "a")
	c.apply("{kind: Site, metadata: {name: other}, spec: {}}") // not watched
	live := follow(ctx, t, c.admin, v1.KindApplication, "default", start)
	if ev := live.event(); ev.Type != v1.WatchPut || ev.Object.Metadata.Name != "app-1" || ev.Seq != made.Seq {
		t.Fatalf("first event = %+v, want the put of app-1 at %d, which came before the watch", ev, made.Seq)
	}
	second := app(2, "b")
	if ev := live.event(); ev.Object == nil || ev.Object.Metadata.Name != "app-2" {
		t.Fatalf("event = %+v, want the put of app-2", ev)
	}
	if _, err := c.admin.Delete(ctx, key(v1.KindApplication, "app-1"), 0, client.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	if ev := live.event(); ev.Type != v1.WatchDelete || ev.Name != "app-1" || ev.Organization != "default" {
		t.Fatalf("event = %+v, want the delete of app-1", ev)
	}
	// Another watch from where the first one was.
	again := follow(ctx, t, c.admin, v1.KindApplication, "default", fmt.Sprintf("%d.%d", second.Epoch, second.Seq))
	if ev := again.event(); ev.Type != v1.WatchDelete || ev.Name != "app-1" {
		t.Fatalf("event = %+v, want to go on with the delete", ev)
	}
	for _, tt := range []struct{ since, code string }{
		{"nonsense", "bad-request"},
		{fmt.Sprintf("%d.%d", second.Epoch, second.Seq+100), "expired"},
		{fmt.Sprintf("%d.1", second.Epoch+1), "expired"},
	} {
		_, err, _ := follow(ctx, t, c.admin, v1.KindApplication, "default", tt.since).next()
		wantCode(t, err, tt.code)
	}
}

func TestWatchEndsWithTheRight(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.apply(shop)
	ctx := patience(t)
	viewer := c.principal("viewer", "default", "viewer")
	f := follow(ctx, t, viewer, v1.KindApplication, "default", "")
	if _, err, _ := f.next(); err != nil { // the first bookmark: the watch has begun
		t.Fatal(err)
	}
	c.apply("{kind: Application, metadata: {name: seen}, spec: {}}")
	if ev := f.event(); ev.Object.Metadata.Name != "seen" {
		t.Fatalf("event = %+v", ev)
	}
	c.apply("{kind: Principal, metadata: {name: viewer}, spec: {roles: []}}\n---\n{kind: Application, metadata: {name: unseen}, spec: {}}")
	for {
		ev, err, ok := f.next()
		if err != nil {
			wantCode(t, err, "forbidden")
			return
		}
		if !ok || ev.Object != nil {
			t.Fatalf("event = %+v, %v after the role was taken away, want the end", ev, ok)
		}
	}
}

func TestWatchesEndWithTheServer(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx := patience(t)
	f := follow(ctx, t, c.admin, v1.KindSite, "default", "")
	if _, err, _ := f.next(); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- c.server.Config.Shutdown(ctx) }()
	for {
		if _, err, ok := f.next(); err != nil || !ok {
			wantCode(t, err, "unavailable")
			break
		}
	}
	if err := <-stopped; err != nil {
		t.Errorf("Shutdown with an open watch: %v", err)
	}
}

func TestWatchesAreBounded(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx := patience(t)
	for range 64 {
		f := follow(ctx, t, c.admin, v1.KindSite, "default", "")
		if _, err, _ := f.next(); err != nil {
			t.Fatal(err)
		}
	}
	_, err, _ := follow(ctx, t, c.admin, v1.KindSite, "default", "").next()
	wantCode(t, err, "too-many-requests")
}

func TestAudit(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	editor := c.principal("ed", "default", "editor")
	for i := range 5 {
		doc := fmt.Sprintf("{kind: Application, metadata: {name: app-%d}, spec: {}}", i)
		if _, err := editor.Apply(t.Context(), strings.NewReader(doc), client.ApplyOptions{Reason: fmt.Sprintf("ticket %d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	c.apply(shop)
	if _, err := c.admin.CreateKey(t.Context(), "default", "shop-gold", v1.KeyRequest{}); err != nil {
		t.Fatal(err)
	}
	minted, err := c.admin.Audit(t.Context(), client.AuditOptions{Organization: "default", Limit: 1})
	if err != nil || len(minted.Items) != 1 || minted.Items[0].Credentials != 1 || minted.Items[0].Reason != "mint key of shop-gold" {
		t.Errorf("audit of a key = %+v, %v", minted, err)
	}
	var got []string
	for o := (client.AuditOptions{Organization: "default", Limit: 2}); ; {
		page, err := c.admin.Audit(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Items {
			if r.Principal == "admin" {
				continue
			}
			if r.Principal != "ed" || r.RequestID == "" || r.At.IsZero() || len(r.Changes) != 1 || r.Changes[0].Action != v1.ActionCreated {
				t.Errorf("audit record %+v", r)
			}
			got = append(got, r.Reason)
		}
		if o.Continue = page.Continue; o.Continue == "" {
			break
		}
	}
	if want := "[ticket 4 ticket 3 ticket 2 ticket 1 ticket 0]"; fmt.Sprint(got) != want {
		t.Errorf("audit = %v, want %v", got, want)
	}
}
