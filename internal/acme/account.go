package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"

	"golang.org/x/crypto/acme"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/vault"
)

// register makes the client speak for the account, which it makes and registers if need be. The key is in the record before
// the CA sees it: an answer that is lost is given again.
func (j *job) register(ctx context.Context) error {
	account, err := j.accountKey(ctx)
	if err != nil {
		return err
	}
	if account.URL != "" {
		j.ca.KID = acme.KeyID(account.URL)
		return nil
	}
	ask := &acme.Account{}
	if account.Email != "" {
		ask.Contact = []string{"mailto:" + account.Email}
	}
	if account.ExternalKeyID != "" {
		text, err := j.w.opts.Vault.Open(vault.ExternalKeyContext(j.key.Organization, j.account), account.ExternalSealed)
		if err != nil {
			return fail(reasonSealed, false, "the key of the external account cannot be opened with the at-rest key of this control node: apply the certificate with it again: %w", err)
		}
		mac, err := base64.RawURLEncoding.DecodeString(string(text))
		if err != nil {
			return fail(reasonSealed, false, "the key of the external account is not base64url")
		}
		ask.ExternalAccountBinding = &acme.ExternalAccountBinding{KID: account.ExternalKeyID, Key: mac}
	}
	if _, err := j.ca.Register(ctx, ask, acme.AcceptTOS); err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
		return err
	}
	account.URL = string(j.ca.KID)
	if account.URL == "" {
		return fail(reasonUnfit, true, "the CA has not said what it calls the account")
	}
	j.log.InfoContext(ctx, "registered with a CA", "directory", account.Directory, "account", j.account)
	return j.changeAccount(ctx, "registered", func(held *v1.ACMEAccountSpec) { held.URL = account.URL })
}

// accountKey returns the account with the key that the client signs with; the key is made if there is none.
func (j *job) accountKey(ctx context.Context) (account v1.ACMEAccountSpec, err error) {
	k := j.own(v1.KindACMEAccount, j.account)
	held := func() bool {
		o, ok := j.w.opts.Record.State().Get(k)
		if ok {
			account = *o.Spec.(*v1.ACMEAccountSpec)
		}
		return ok && account.Sealed != ""
	}
	if !held() {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return account, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			return account, fmt.Errorf("encode private key: %w", err)
		}
		sealed := j.w.opts.Vault.Seal(vault.AccountKeyContext(j.key.Organization, j.account), der)
		clear(der)
		if err := j.changeAccount(ctx, "made", func(held *v1.ACMEAccountSpec) {
			if held.Sealed == "" { // nobody was faster
				held.Sealed = sealed
			}
		}); err != nil {
			return account, err
		}
		held()
	}
	der, err := j.w.opts.Vault.Open(vault.AccountKeyContext(j.key.Organization, j.account), account.Sealed)
	if err != nil {
		return account, fail(reasonSealed, false, "the key of the account cannot be opened with the at-rest key of this control node: %w", err)
	}
	defer clear(der)
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return account, fail(reasonSealed, false, "the key of the account cannot be read: %w", err)
	}
	j.ca.Key = private.(crypto.Signer)
	return account, nil
}

// changeAccount changes the account in the record, which is made if there is none.
func (j *job) changeAccount(ctx context.Context, what string, change func(*v1.ACMEAccountSpec)) error {
	k := j.own(v1.KindACMEAccount, j.account)
	_, err := j.w.opts.Control.Commit(ctx, fmt.Sprintf("acme: account %s: %s", j.account, what), func(state store.State) ([]*v1.Object, error) {
		next := v1.ACMEAccountSpec{Directory: j.spec.ACME.Directory, Email: j.spec.ACME.Email}
		if o, ok := state.Get(k); ok {
			next = *o.Spec.(*v1.ACMEAccountSpec)
		}
		change(&next)
		return []*v1.Object{object(k, 0, &next)}, nil
	})
	if err != nil {
		return writeError{err}
	}
	return nil
}

// forget has the next attempt register the account anew: the CA does not know it.
func (j *job) forget(ctx context.Context) error {
	return j.changeAccount(ctx, "the CA does not know it", func(held *v1.ACMEAccountSpec) { held.URL = "" })
}
