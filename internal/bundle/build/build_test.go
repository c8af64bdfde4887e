package build_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/app/sample"
	"hansa.dev/hansa/internal/bundle"
	"hansa.dev/hansa/internal/bundle/build"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/secret"
)

func options(t *testing.T, extra string) build.Options {
	t.Helper()
	objects, faults := resource.Decode("test.yaml", []byte(sample.Resources("127.0.0.1:7")+extra), resource.Options{})
	if len(faults) > 0 {
		t.Fatal(resource.AsError(faults))
	}
	root, err := keys.GenerateRoot()
	if err != nil {
		t.Fatal(err)
	}
	return build.Options{Objects: objects, Root: root, Now: time.Unix(1_800_000_000, 0)}
}

func TestBuild(t *testing.T) {
	t.Parallel()
	o := options(t, "")
	sum := snapshot.HashCredential([]byte("two")).String()
	o.Keys = strings.NewReader(`{"subscription": "shop-gold", "key": "one"}` + "\n\n" + `{"subscription": "shop-bronze", "sha256": "` + sum + `"}` + "\n")
	b, err := build.Build(o)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := bundle.Write(&buf, b, secret.Bytes{}); err != nil {
		t.Fatal(err)
	}
	pin := o.Root.Fingerprint()
	out, err := bundle.Read(&buf, secret.Bytes{}, &pin)
	if err != nil {
		t.Fatal(err)
	}
	if out.Config.View != "default/local" || out.Config.Seq != 1_800_000_000 {
		t.Errorf("checkpoint %+v", out.Config)
	}
	if _, ok := out.Set.Get(snapshot.EntryKey(snapshot.ClassAPI, "default", "prod", "catalog")); !ok {
		t.Error("the bundle has no entry of the API catalog")
	}
	c, ok := out.Credentials.Lookup(snapshot.HashCredential([]byte("two")))
	if !ok || c.Product != "bronze" || c.Application != "shop" || out.Credentials.Len() != 2 {
		t.Errorf("credential %+v, %v; %d in all", c, ok, out.Credentials.Len())
	}
}

func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	refused := func(want string, change func(*build.Options)) {
		t.Helper()
		o := options(t, "")
		change(&o)
		_, err := build.Build(o)
		var text strings.Builder
		for _, f := range resource.FaultsOf(err) {
			text.WriteString(resource.FormatFault(f) + "\n")
		}
		if err == nil || !strings.Contains(err.Error()+text.String(), want) {
			t.Errorf("error %v %s, want %q", err, &text, want)
		}
		if strings.Contains(text.String(), "s3cret") {
			t.Errorf("a key shows in %s", &text)
		}
	}
	refused(`no Subscription "nobody"`, func(o *build.Options) {
		o.Keys = strings.NewReader(`{"subscription": "nobody", "key": "s3cret"}`)
	})
	refused("not an object", func(o *build.Options) { o.Keys = strings.NewReader(`{"key": s3cret}`) })
	refused("either key or sha256", func(o *build.Options) { o.Keys = strings.NewReader(`{"subscription": "shop-gold"}`) })
	refused("SHA-256", func(o *build.Options) { o.Keys = strings.NewReader(`{"subscription": "shop-gold", "sha256": "00"}`) })
	refused("no gateway group", func(o *build.Options) { o.Group = "eu" })
	refused("no GatewayGroup", func(o *build.Options) { o.Objects = nil })
	refused("twice", func(o *build.Options) { o.Objects = append(o.Objects, o.Objects[0]) })
	refused("several gateway groups", func(o *build.Options) {
		other := resource.Clone(o.Objects[1])
		other.Metadata.Name = "second"
		o.Objects = append(o.Objects, other)
	})
	refused("local", func(o *build.Options) { // the site that the group refers to is gone
		for i, obj := range o.Objects {
			if obj.Kind == v1.KindSite {
				o.Objects = append(o.Objects[:i:i], o.Objects[i+1:]...)
				return
			}
		}
	})
}
