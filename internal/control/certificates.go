package control

import (
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/compile"
	"hansa.dev/hansa/internal/control/problem"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/vault"
)

// Private keys are taken out of certificates before anything else is done with a change: what is compared, planned,
// compiled, staged, logged or answered never has one. A key goes into a resource of its own, sealed for the control nodes,
// and, once compiling has told which gateway groups need it, sealed to each of these.

func certificateKeyOf(k v1.Key) v1.Key {
	return v1.Key{Organization: k.Organization, Kind: v1.KindCertificateKey, Name: k.Name}
}

// takeKeys replaces the certificates of e by copies without secrets, and returns what follows from that: the resources with
// the sealed keys that are new or have changed, and the orders that nobody wants any more.
func (s *Server) takeKeys(state store.State, e *edit) (follows edit, err error) {
	var faults []v1.Fault
	puts := slices.Clone(e.puts) // e may be derived anew from the same resources
	for i, o := range puts {
		spec, ok := o.Spec.(*v1.CertificateSpec)
		if !ok {
			continue
		}
		puts[i] = bare(o, spec)
		key, err := s.keyOf(state, o.Key(), spec)
		var account *v1.Object
		if err == nil && spec.ACME != nil {
			account, err = s.externalAccount(state, o.Key(), spec.ACME)
		}
		if err != nil {
			if found := resource.FaultsOf(err); len(found) > 0 {
				faults = append(faults, found...)
				continue
			}
			return edit{}, err
		}
		if key != nil {
			follows.puts = append(follows.puts, key)
		}
		if account != nil && !slices.ContainsFunc(follows.puts, func(p *v1.Object) bool { return p.Key() == account.Key() }) {
			follows.puts = append(follows.puts, account) // of several certificates with the same one the first counts
		}
		if order := certificateOrderOf(o.Key()); spec.ACME == nil && has(state, order) {
			follows.deletes = append(follows.deletes, order)
		}
	}
	e.puts = puts
	return follows, resource.AsError(faults)
}

// bare returns a certificate without its secrets.
func bare(o *v1.Object, spec *v1.CertificateSpec) *v1.Object {
	c, s := *o, *spec
	s.PrivateKey = ""
	if s.ACME != nil && s.ACME.ExternalAccount != nil {
		acme, external := *s.ACME, *s.ACME.ExternalAccount
		external.Key = ""
		acme.ExternalAccount = &external
		s.ACME = &acme
	}
	c.Spec = &s
	return &c
}

// keyOf returns the resource with the key of a certificate as it is to be; nil if it is so already.
func (s *Server) keyOf(state store.State, k v1.Key, spec *v1.CertificateSpec) (*v1.Object, error) {
	var before *v1.CertificateKeySpec
	if o, ok := state.Get(certificateKeyOf(k)); ok {
		before = o.Spec.(*v1.CertificateKeySpec)
	}
	if spec.ACME != nil {
		return keptChain(state, k, before), nil
	}
	next, err := vault.Describe(spec.Certificate)
	if err != nil {
		return nil, err // it was validated
	}
	held := before != nil && before.Fingerprint == next.Fingerprint
	switch {
	case held:
		// The same key, perhaps with a newer certificate: what it is sealed to stays.
		next.Sealed, next.Groups = before.Sealed, before.Groups
		if before.Certificate == "" && before.NotBefore.Equal(next.NotBefore) && before.NotAfter.Equal(next.NotAfter) && slices.Equal(before.Names, next.Names) {
			return nil, nil
		}
	case spec.PrivateKey == "":
		return nil, resource.AsError([]v1.Fault{{
			Kind: string(k.Kind), Name: k.Name, Organization: k.Organization, Path: "spec.certificate", Code: resource.CodeRequired,
			Message: "no private key is stored for this certificate", Remedy: "add spec.privateKey (or privateKeyFile, in a file for the command line)",
		}})
	case s.opts.Vault == nil:
		return nil, problem.New(problem.Unavailable, "this control node keeps no secrets, so that it cannot take the private key of %s", k)
	default:
		der, err := vault.PrivateKeyOf(spec.Certificate, spec.PrivateKey)
		if err != nil {
			return nil, err // it was validated
		}
		next.Sealed = s.opts.Vault.SealPrivateKey(k.Organization, k.Name, next.Fingerprint, der)
		clear(der)
	}
	return keyObject(k, next), nil
}

func keyObject(k v1.Key, spec *v1.CertificateKeySpec) *v1.Object {
	own := certificateKeyOf(k)
	return &v1.Object{
		APIVersion: v1.APIVersion, Kind: own.Kind, Metadata: v1.Metadata{Name: own.Name, Organization: own.Organization}, Spec: spec,
	}
}

// sealTo seals private keys to the gateway groups that compiling has found to need them.
func (s *Server) sealTo(next store.State, e *edit, needs []compile.Unsealed) error {
	if s.opts.Vault == nil {
		return problem.New(problem.Unavailable, "this control node keeps no secrets, so that it cannot seal certificate %q to gateway group %q", needs[0].Certificate, needs[0].GatewayGroup)
	}
	changed := map[v1.Key]*v1.Object{}
	for _, need := range needs {
		k := v1.Key{Organization: need.Organization, Kind: v1.KindCertificateKey, Name: need.Certificate}
		o := changed[k]
		if o == nil {
			held, ok := next.Get(k)
			if !ok {
				return fmt.Errorf("seal %s: there is none", k)
			}
			spec := *held.Spec.(*v1.CertificateKeySpec)
			spec.Groups = slices.DeleteFunc(slices.Clone(spec.Groups), func(b v1.SealedToGroup) bool {
				version, ok := currentGroupKey(next, k.Organization, b.GatewayGroup)
				return !ok || version.ID != b.KeyID
			})
			o = keyObject(k, &spec)
			changed[k] = o
		}
		version, ok := currentGroupKey(next, k.Organization, need.GatewayGroup)
		if !ok {
			return fmt.Errorf("seal %s: gateway group %q has no key", k, need.GatewayGroup)
		}
		spec := o.Spec.(*v1.CertificateKeySpec)
		der, err := s.opts.Vault.PrivateKey(k.Organization, k.Name, spec)
		if err != nil {
			return problem.New(problem.Unavailable, "the private key of certificate %q cannot be opened with the at-rest key of this control node: apply the certificate with its private key again", k.Name).Because(err)
		}
		box, err := vault.SealTo(need.GatewayGroup, version, k.Organization, k.Name, spec.Fingerprint, der)
		clear(der)
		if err != nil {
			return err
		}
		spec.Groups = append(spec.Groups, box)
	}
	for k, o := range changed {
		if i := slices.IndexFunc(e.puts, func(p *v1.Object) bool { return p.Key() == k }); i >= 0 {
			e.puts[i] = o
		} else {
			e.puts = append(e.puts, o)
		}
	}
	return nil
}

func currentGroupKey(state store.State, organization, group string) (v1.GroupKeyVersion, bool) {
	o, ok := state.Get(groupKeyOf(organization, group))
	if !ok || len(o.Spec.(*v1.GroupKeySpec).Versions) == 0 {
		return v1.GroupKeyVersion{}, false
	}
	return o.Spec.(*v1.GroupKeySpec).Versions[0], true
}

// errUnsealed keeps a private key that was not taken out of its certificate from the record, by whatever mistake.
var errUnsealed = errors.New("a private key that is not sealed must not be written")

func unsealed(o *v1.Object) bool {
	spec, ok := o.Spec.(*v1.CertificateSpec)
	return ok && (spec.PrivateKey != "" || spec.ACME != nil && spec.ACME.ExternalAccount != nil && spec.ACME.ExternalAccount.Key != "")
}

// soon is how long before its end a certificate that is written is warned of.
const soon = 14 * 24 * time.Hour

// expiryWarnings tells of certificates among the changes that have expired, are not valid yet or will expire soon.
func (s *Server) expiryWarnings(changes []v1.Change) []string {
	var out []string
	now := s.opts.Now()
	for _, ch := range changes {
		if ch.After == nil {
			continue
		}
		spec, ok := ch.After.Spec.(*v1.CertificateSpec)
		if !ok {
			continue
		}
		d, err := vault.Describe(spec.Certificate)
		if err != nil {
			continue
		}
		switch {
		case now.After(d.NotAfter):
			out = append(out, fmt.Sprintf("Certificate %s expired at %s: clients will refuse it", ch.Name, d.NotAfter.Format(time.RFC3339)))
		case now.Before(d.NotBefore):
			out = append(out, fmt.Sprintf("Certificate %s is not valid before %s", ch.Name, d.NotBefore.Format(time.RFC3339)))
		case d.NotAfter.Sub(now) < soon:
			out = append(out, fmt.Sprintf("Certificate %s expires at %s", ch.Name, d.NotAfter.Format(time.RFC3339)))
		}
	}
	return out
}

// visible returns o as callers may see it: a certificate with what is known of it.
func (s *Server) visible(o *v1.Object) *v1.Object {
	o = visible(o)
	if o == nil || o.Kind != v1.KindCertificate {
		return o
	}
	state := s.store.State()
	var key *v1.CertificateKeySpec
	st := new(v1.Status)
	if o.Status != nil {
		st.ObservedSeq, st.Conditions = o.Status.ObservedSeq, o.Status.Conditions
	}
	if held, ok := state.Get(certificateKeyOf(o.Key())); ok {
		key = held.Spec.(*v1.CertificateKeySpec)
		st.Certificate = &v1.CertificateStatus{
			Fingerprint: key.Fingerprint, Names: key.Names, NotBefore: key.NotBefore, NotAfter: key.NotAfter,
		}
		for _, b := range key.Groups {
			st.Certificate.GatewayGroups = append(st.Certificate.GatewayGroups, b.GatewayGroup)
		}
		slices.Sort(st.Certificate.GatewayGroups)
	}
	if spec := o.Spec.(*v1.CertificateSpec); spec.ACME != nil {
		var order *v1.CertificateOrderSpec
		if held, ok := state.Get(certificateOrderOf(o.Key())); ok {
			order = held.Spec.(*v1.CertificateOrderSpec)
		}
		st.Conditions = acmeConditions(spec, key, order)
	}
	if key == nil && st.Conditions == nil {
		return o
	}
	c := *o
	c.Status = st
	return &c
}
