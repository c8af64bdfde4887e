package control

import (
	"crypto/subtle"
	"fmt"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/control/problem"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/vault"
)

func certificateOrderOf(k v1.Key) v1.Key {
	return v1.Key{Organization: k.Organization, Kind: v1.KindCertificateOrder, Name: k.Name}
}

// keptChain returns the key of a certificate that is to come by ACME, with the chain that stood in the certificate until
// now: gateways go on with it until there is another one. It returns nil if there is nothing to keep.
func keptChain(state store.State, k v1.Key, held *v1.CertificateKeySpec) *v1.Object {
	o, ok := state.Get(k)
	if !ok || held == nil {
		return nil
	}
	chain := o.Spec.(*v1.CertificateSpec).Certificate
	if chain == "" {
		return nil
	}
	next := *held
	next.Certificate = chain
	return keyObject(k, &next)
}

// externalAccount returns the account with the key that ties it to another one, sealed; nil if it is in the record already or
// there is none.
func (s *Server) externalAccount(state store.State, k v1.Key, a *v1.ACME) (*v1.Object, error) {
	e := a.ExternalAccount
	if e == nil {
		return nil, nil
	}
	own := v1.Key{Organization: k.Organization, Kind: v1.KindACMEAccount, Name: resource.AccountName(a)}
	next := v1.ACMEAccountSpec{Directory: a.Directory, Email: a.Email, ExternalKeyID: e.KeyID}
	if o, ok := state.Get(own); ok {
		next = *o.Spec.(*v1.ACMEAccountSpec)
	}
	switch {
	case next.URL != "" || e.Key == "" && next.ExternalSealed != "":
		return nil, nil // what is registered is tied for good
	case e.Key == "":
		return nil, resource.AsError([]v1.Fault{{
			Kind: string(k.Kind), Name: k.Name, Organization: k.Organization, Path: "spec.acme.externalAccount.key", Code: resource.CodeRequired,
			Message: "no key is stored for this external account", Remedy: "add the key that the CA has given out",
		}})
	case s.opts.Vault == nil:
		return nil, problem.New(problem.Unavailable, "this control node keeps no secrets, so that it cannot take the key of the external account of %s", k)
	}
	context := vault.ExternalKeyContext(own.Organization, own.Name)
	if next.ExternalSealed != "" {
		if held, err := s.opts.Vault.Open(context, next.ExternalSealed); err == nil && subtle.ConstantTimeCompare(held, []byte(e.Key)) == 1 {
			return nil, nil
		}
	}
	next.ExternalSealed = s.opts.Vault.Seal(context, []byte(e.Key))
	return &v1.Object{
		APIVersion: v1.APIVersion, Kind: own.Kind, Metadata: v1.Metadata{Name: own.Name, Organization: own.Organization}, Spec: &next,
	}, nil
}

// The conditions of a Certificate that comes by ACME, and those of their reasons that are not the CA's.
const (
	conditionIssued   = "Issued"
	conditionRenewing = "Renewing"
	conditionFailed   = "Failed"

	reasonIssued    = "Issued"
	reasonOrdering  = "Ordering"
	reasonOutdated  = "Outdated"
	reasonScheduled = "Scheduled"
	reasonNone      = "None"
)

// acmeConditions tells how far a certificate is that comes by ACME. key and order are nil if there are none.
func acmeConditions(spec *v1.CertificateSpec, key *v1.CertificateKeySpec, order *v1.CertificateOrderSpec) []v1.Condition {
	asked := resource.Asked(spec)
	if order == nil || order.Asked != asked {
		order = new(v1.CertificateOrderSpec) // what it tells is of something else
	}
	issued := v1.Condition{Type: conditionIssued, Status: "False", Reason: reasonOrdering, Message: "the CA has not issued it yet"}
	if key != nil {
		issued.LastTransition = key.NotBefore
		if key.Asked == asked {
			issued.Status, issued.Reason, issued.Message = "True", reasonIssued, "it is valid until "+key.NotAfter.Format(time.RFC3339)
		} else {
			issued.Reason, issued.Message = reasonOutdated, "gateways show the certificate before, which is valid until "+key.NotAfter.Format(time.RFC3339)
		}
	}
	renewing := v1.Condition{Type: conditionRenewing, Status: "False", Reason: reasonNone}
	switch {
	case order.URL != "":
		renewing.Status, renewing.Reason, renewing.Message = "True", reasonOrdering, "an order is open with the CA"
	case issued.Status == "True" && !order.RenewAt.IsZero():
		renewing.Reason, renewing.Message = reasonScheduled, "it will be renewed at "+order.RenewAt.Format(time.RFC3339)
	}
	failed := v1.Condition{Type: conditionFailed, Status: "False", Reason: reasonNone}
	if p := order.Problem; p != nil {
		failed.Status, failed.Reason, failed.LastTransition = "True", p.Reason, p.At
		failed.Message = fmt.Sprintf("%s; attempt %d failed, the next one is not before %s", p.Message, order.Failures, order.NextAttempt.Format(time.RFC3339))
	}
	return []v1.Condition{issued, renewing, failed}
}
