// Package build makes bundles from files of resources, where there is no control plane: it validates and compiles as
// the control API does and signs with a root key of the operator's. The package is used by the command line.
package build

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/bundle"
	"hansa.dev/hansa/internal/compile"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/snapshot"
)

// Options are what a bundle is made of.
type Options struct {
	// Objects are the resources as decoded: defaults not yet filled in.
	Objects []*v1.Object
	// Keys has one v1.KeyImport a line as JSON. Nil: the bundle has no credentials.
	Keys io.Reader
	// KeysFile is the name of Keys in faults. Default: "keys".
	KeysFile string
	// Organization is the one of keys and of Group. Default: "default".
	Organization string
	// Group is the gateway group. It may be empty if the resources have one only.
	Group string
	// Root signs. Its fingerprint names the cluster.
	Root *keys.Root
	// Seq numbers the bundle: a gateway takes only a higher one. Default: Unix seconds of Now.
	Seq uint64
	Now time.Time
}

// maxKeyLine bounds one line of Keys.
const maxKeyLine = 8 << 10

// epoch of what is built here: there is no record that could be restored.
const epoch = 1

// Build makes and signs the bundle. What is wrong with the resources or keys comes back as faults
// (resource.FaultsOf).
func Build(o Options) (*bundle.Bundle, error) {
	if o.Organization == "" {
		o.Organization = v1.DefaultOrganization
	}
	if o.Seq == 0 {
		o.Seq = uint64(o.Now.Unix())
	}
	st, err := newState(o.Objects)
	if err != nil {
		return nil, err
	}
	if err := o.sealCertificates(st); err != nil {
		return nil, err
	}
	result, err := compile.Compile(st, o.Seq, compile.Options{})
	if err != nil {
		return nil, err
	}
	view, err := o.view(result)
	if err != nil {
		return nil, err
	}
	credentials, err := o.credentials(st)
	if err != nil {
		return nil, err
	}
	trust, signer, err := o.trust()
	if err != nil {
		return nil, err
	}
	b := &bundle.Bundle{Trust: trust, Set: result.Views[view], Credentials: credentials, CreatedAt: o.Now.UTC()}
	for range b.Set.Class(snapshot.ClassCertificate) {
		key, err := o.Root.GroupKey(view)
		if err != nil {
			return nil, err
		}
		b.GroupKeys = keys.NewGroupKeys(key)
		break
	}
	if b.Config, err = o.checkpoint(trust, signer, view, b.Set); err != nil {
		return nil, err
	}
	if b.CredentialConfig, err = o.checkpoint(trust, signer, snapshot.CredentialView(o.Organization), credentials); err != nil {
		return nil, err
	}
	return b, b.Sign(signer)
}

// view returns the name of the view to put into the bundle.
func (o Options) view(result *compile.Result) (string, error) {
	views := slices.Sorted(maps.Keys(result.Views))
	if o.Group != "" {
		name := compile.ViewName(o.Organization, o.Group)
		if !slices.Contains(views, name) {
			return "", fmt.Errorf("there is no gateway group %q in organization %q; there are %s", o.Group, o.Organization, strings.Join(views, ", "))
		}
		return name, nil
	}
	views = slices.DeleteFunc(views, func(v string) bool { return !strings.HasPrefix(v, o.Organization+"/") })
	switch len(views) {
	case 0:
		return "", fmt.Errorf("the resources have no GatewayGroup in organization %q: a bundle is for the gateways of one", o.Organization)
	case 1:
		return views[0], nil
	}
	return "", fmt.Errorf("the resources have several gateway groups (%s): name one with --group", strings.Join(views, ", "))
}

// trust makes a signing key that lives as long as this call, and the document that vouches for it.
func (o Options) trust() (*keys.Trust, *keys.SigningKey, error) {
	signer, err := keys.GenerateSigningKey()
	if err != nil {
		return nil, nil, fmt.Errorf("make signing key: %w", err)
	}
	encoded, err := o.Root.SignTrust(keys.Trust{
		Cluster: "bundle-" + o.Root.Fingerprint().String()[:16], Serial: o.Seq, IssuedAt: o.Now.UTC(), Epoch: epoch,
		Keys: []keys.TrustedKey{{
			PublicKey: signer.Public(), NotBefore: o.Now.Add(-time.Hour).UTC(), NotAfter: o.Now.Add(time.Hour).UTC(),
			Purposes: []string{keys.PurposeCheckpoint, keys.PurposeBundle},
		}},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("sign trust: %w", err)
	}
	trust, err := keys.ParseTrust(encoded, o.Root.Fingerprint())
	return trust, signer, err
}

func (o Options) checkpoint(trust *keys.Trust, signer keys.Signer, view string, content snapshot.Content) (snapshot.Checkpoint, error) {
	c := snapshot.Checkpoint{Cluster: trust.Cluster, Epoch: epoch, Seq: o.Seq, View: view, Compiler: "bundle build", IssuedAt: o.Now.UTC()}
	c.Describe(content)
	err := c.Sign(signer.KeyID(), func(m []byte) ([]byte, error) { return signer.Sign(keys.PurposeCheckpoint, m) })
	return c, err
}

// credentials reads the keys and looks their subscriptions up.
func (o Options) credentials(st state) (*snapshot.Credentials, error) {
	table := snapshot.NewCredentials()
	if o.Keys == nil {
		return table, nil
	}
	var faults []v1.Fault
	batch := table.Batch()
	lines := bufio.NewScanner(o.Keys)
	lines.Buffer(make([]byte, 0, maxKeyLine), maxKeyLine)
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		c, fault := o.credential(st, line)
		if fault == nil {
			if err := batch.Add(snapshot.CredentialChange{Credential: c}); err != nil {
				fault = &v1.Fault{Code: "invalid-value", Message: err.Error()}
			}
		}
		if fault != nil {
			fault.File, fault.Line, fault.Column = cmp.Or(o.KeysFile, "keys"), n, 1
			faults = append(faults, *fault)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	if err := resource.AsError(faults); err != nil {
		return nil, err
	}
	return batch.Table(), nil
}

func (o Options) credential(st state, line []byte) (snapshot.Credential, *v1.Fault) {
	var in v1.KeyImport
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		// The error text may quote the line, and with it a key.
		return snapshot.Credential{}, &v1.Fault{Code: "syntax", Message: "the line is not an object of subscription, key or sha256, and expiresAt", Remedy: `write {"subscription": "NAME", "key": "VALUE"}`}
	}
	c := snapshot.Credential{Organization: o.Organization, Subscription: in.Subscription, Slot: snapshot.SlotImported, CreatedAt: o.Now.Unix()}
	if !in.ExpiresAt.IsZero() {
		c.ExpiresAt = in.ExpiresAt.Unix()
	}
	switch {
	case (in.Key == "") == (in.SHA256 == ""):
		return c, &v1.Fault{Code: "required", Path: "key", Message: "the line needs either key or sha256", Remedy: "leave one of them out, or add one"}
	case in.Key != "":
		c.Hash = snapshot.HashCredential([]byte(in.Key))
	default:
		b, err := hex.DecodeString(in.SHA256)
		if err != nil || copy(c.Hash[:], b) != len(c.Hash) || len(b) != len(c.Hash) {
			return c, &v1.Fault{Code: "invalid-value", Path: "sha256", Message: "not a SHA-256 in hexadecimal", Remedy: "write 64 hexadecimal digits"}
		}
	}
	c.ID = "k_" + c.Hash.String()[:16]
	obj, ok := st.Get(v1.Key{Organization: o.Organization, Kind: v1.KindSubscription, Name: in.Subscription})
	if !ok {
		return c, &v1.Fault{
			Code: "dangling-reference", Path: "subscription", Value: in.Subscription,
			Message: fmt.Sprintf("there is no Subscription %q in organization %q", in.Subscription, o.Organization),
			Remedy:  "add it to the resources, or correct the name",
		}
	}
	sub := obj.Spec.(*v1.SubscriptionSpec)
	c.Application, c.Product = sub.Application, sub.Product
	if sub.Suspended {
		c.State = snapshot.StateSuspended
	}
	return c, nil
}

// state is the content of a record that never was: the resources of the files, each API at revision 1.
type state struct {
	byKey map[v1.Key]*v1.Object
	kinds map[v1.Kind][]*v1.Object // in order of organization and name
}

var errTwice = errors.New("the resource is there twice")

func newState(objects []*v1.Object) (state, error) {
	st := state{byKey: map[v1.Key]*v1.Object{}, kinds: map[v1.Kind][]*v1.Object{}}
	var faults []v1.Fault
	add := func(o *v1.Object) {
		if _, ok := st.byKey[o.Key()]; ok {
			faults = append(faults, v1.Fault{Kind: string(o.Kind), Name: o.Metadata.Name, Code: "duplicate", Message: errTwice.Error()})
			return
		}
		st.byKey[o.Key()] = o
		st.kinds[o.Kind] = append(st.kinds[o.Kind], o)
	}
	for _, in := range objects {
		o := resource.Clone(in)
		resource.Default(o)
		faults = append(faults, resource.Validate(o)...)
		if spec, ok := o.Spec.(*v1.APISpec); ok {
			o.Metadata.Revision = 1
			add(&v1.Object{
				APIVersion: v1.APIVersion, Kind: v1.KindAPIRevision,
				Metadata: v1.Metadata{Organization: o.Metadata.Organization, Name: resource.RevisionName(o.Metadata.Name, 1)},
				Spec:     &v1.APIRevisionSpec{API: o.Metadata.Name, Revision: 1, Spec: *spec},
			})
		}
		add(o)
	}
	for key := range maps.Clone(st.byKey) {
		org := v1.Key{Kind: v1.KindOrganization, Name: key.Organization}
		if _, ok := st.byKey[org]; key.Organization != "" && !ok {
			add(&v1.Object{APIVersion: v1.APIVersion, Kind: org.Kind, Metadata: v1.Metadata{Name: org.Name}, Spec: &v1.OrganizationSpec{}})
		}
	}
	for _, list := range st.kinds {
		slices.SortFunc(list, func(a, b *v1.Object) int {
			if c := strings.Compare(a.Metadata.Organization, b.Metadata.Organization); c != 0 {
				return c
			}
			return strings.Compare(a.Metadata.Name, b.Metadata.Name)
		})
	}
	return st, resource.AsError(faults)
}

// put adds a resource or replaces it.
func (st state) put(o *v1.Object) {
	if old, ok := st.byKey[o.Key()]; ok {
		st.kinds[o.Kind][slices.Index(st.kinds[o.Kind], old)] = o
	} else {
		st.kinds[o.Kind] = append(st.kinds[o.Kind], o)
	}
	st.byKey[o.Key()] = o
}

// Get implements compile.State.
func (st state) Get(k v1.Key) (*v1.Object, bool) {
	o, ok := st.byKey[k]
	return o, ok
}

// List implements compile.State.
func (st state) List(kind v1.Kind, organization, after string) iter.Seq[*v1.Object] {
	return func(yield func(*v1.Object) bool) {
		for _, o := range st.kinds[kind] {
			if organization != "" && o.Metadata.Organization != organization || o.Metadata.Name <= after && after != "" {
				continue
			}
			if !yield(o) {
				return
			}
		}
	}
}
