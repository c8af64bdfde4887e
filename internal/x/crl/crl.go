// Package crl reads lists of revoked certificates (RFC 5280, section 5) and answers from them whether a certificate still
// holds. It takes complete lists of CAs that are known, and nothing else: a delta, an indirect list, or one that holds for
// some certificates alone would let the others pass as good.
//
// It does no I/O, and nobody fetches lists by it. Lists never change and may be asked by any goroutine; asking takes the
// same time however long they are, and allocates nothing. resource uses it to check what people write, gateway/handshake
// to judge clients.
package crl

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// MaxLists is how many lists there may be.
const MaxLists = 64

// Status is what is known of a certificate.
type Status uint8

// The statuses.
const (
	// Unknown: there is no list of the CA that issued it.
	Unknown Status = iota
	// Good: it is not on the list of its CA, which holds.
	Good
	// Revoked: it is on the list.
	Revoked
	// Expired: it is not on the list, whose next issue is overdue: it may be on that.
	Expired
)

// Lists are those of several CAs. Make them with Parse; a nil one has none.
type Lists struct {
	by    map[authority]*list
	until time.Time
}

// authority is who signs certificates: a name and a key (RFC 5280, section 6.3.3).
type authority struct{ subject, key string }

type list struct {
	number  int // its place in the text
	until   time.Time
	serials map[string]struct{} // big-endian
}

// Parse reads lists in PEM, each signed by one of the authorities. It returns all that is wrong with the text, each fault
// with the place of its list, from 1; the lists are nil if there is any.
func Parse(text string, authorities []*x509.Certificate) (*Lists, []error) {
	all := &Lists{by: make(map[authority]*list)}
	var faults []error
	n := 0
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(bytes.TrimSpace(rest)) > 0 {
				faults = append(faults, errors.New("there is text that is not PEM"))
			}
			break
		}
		n++
		if n > MaxLists {
			return nil, append(faults, fmt.Errorf("there are more than %d lists", MaxLists))
		}
		if err := all.add(n, block, authorities); err != nil {
			faults = append(faults, fmt.Errorf("list %d: %w", n, err))
		}
	}
	switch begun := strings.Count(text, "-----BEGIN "); {
	case begun > n: // which pem.Decode passes over
		faults = append(faults, fmt.Errorf("%d of the %d blocks are not PEM", begun-n, begun))
	case n == 0 && len(faults) == 0:
		faults = append(faults, errors.New("there is no list in PEM"))
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return all, nil
}

func (l *Lists) add(number int, block *pem.Block, authorities []*x509.Certificate) error {
	if block.Type != "X509 CRL" {
		return fmt.Errorf("it is a %s, not an X509 CRL", block.Type)
	}
	parsed, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		return fmt.Errorf("it cannot be read: %w", err)
	}
	if err := complete(parsed); err != nil {
		return err
	}
	if parsed.NextUpdate.IsZero() {
		return errors.New("it does not say until when it holds (nextUpdate)")
	}
	issuer, err := signer(parsed, authorities)
	if err != nil {
		return err
	}
	of := authority{string(issuer.RawSubject), string(issuer.RawSubjectPublicKeyInfo)}
	if other := l.by[of]; other != nil {
		return fmt.Errorf("list %d is of the same CA: leave out the older one", other.number)
	}
	made := &list{number: number, until: parsed.NextUpdate, serials: make(map[string]struct{}, len(parsed.RevokedCertificateEntries))}
	for i := range parsed.RevokedCertificateEntries {
		made.serials[string(parsed.RevokedCertificateEntries[i].SerialNumber.Bytes())] = struct{}{}
	}
	l.by[of] = made
	if l.until.IsZero() || made.until.Before(l.until) {
		l.until = made.until
	}
	return nil
}

// signer returns the authority that has signed a list.
func signer(parsed *x509.RevocationList, authorities []*x509.Certificate) (*x509.Certificate, error) {
	err := fmt.Errorf("it is of %q, which is none of the CAs", parsed.Issuer)
	for _, ca := range authorities {
		if !bytes.Equal(ca.RawSubject, parsed.RawIssuer) {
			continue
		}
		signature := parsed.CheckSignatureFrom(ca)
		if signature == nil {
			return ca, nil
		}
		err = fmt.Errorf("the CA %q has not signed it, or must not: %w", ca.Subject, signature)
	}
	return nil, err
}

// complete returns an error for a list that does not hold for all certificates of its CA, or says what is not known here.
func complete(parsed *x509.RevocationList) error {
	var (
		reasonCode        = asn1.ObjectIdentifier{2, 5, 29, 21}
		number            = asn1.ObjectIdentifier{2, 5, 29, 20}
		deltaIndicator    = asn1.ObjectIdentifier{2, 5, 29, 27}
		distributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
		authorityKeyID    = asn1.ObjectIdentifier{2, 5, 29, 35}
	)
	for _, e := range parsed.Extensions {
		switch {
		case e.Id.Equal(deltaIndicator):
			return errors.New("it is a delta, which says only what has changed: give the complete list")
		case e.Id.Equal(distributionPoint):
			return errors.New("it holds only for some certificates of its CA (issuing distribution point): give the complete list")
		case e.Critical && !e.Id.Equal(number) && !e.Id.Equal(authorityKeyID):
			return fmt.Errorf("its critical extension %s is not known", e.Id)
		}
	}
	for i := range parsed.RevokedCertificateEntries {
		for _, e := range parsed.RevokedCertificateEntries[i].Extensions {
			if e.Critical && !e.Id.Equal(reasonCode) {
				return fmt.Errorf("the critical extension %s of its entry %d is not known", e.Id, i+1)
			}
		}
	}
	return nil
}

// Status returns what is known at a time of the certificate of that serial number which issuer has signed, and, if it is
// good, until when that holds.
func (l *Lists) Status(serial *big.Int, issuer *x509.Certificate, now time.Time) (Status, time.Time) {
	if l == nil {
		return Unknown, time.Time{}
	}
	of := l.by[authority{string(issuer.RawSubject), string(issuer.RawSubjectPublicKeyInfo)}]
	if of == nil {
		return Unknown, time.Time{}
	}
	if of.has(serial) {
		return Revoked, time.Time{}
	}
	if !now.Before(of.until) {
		return Expired, time.Time{}
	}
	return Good, of.until
}

func (l *list) has(serial *big.Int) bool {
	var buf [32]byte // RFC 5280 allows 20
	n := (serial.BitLen() + 7) / 8
	if n > len(buf) {
		_, ok := l.serials[string(serial.Bytes())]
		return ok
	}
	_, ok := l.serials[string(serial.FillBytes(buf[:n]))]
	return ok
}

// Until returns when the first of the lists expires; the zero time if there is none.
func (l *Lists) Until() time.Time {
	if l == nil {
		return time.Time{}
	}
	return l.until
}

// Len returns how many certificates are on the lists.
func (l *Lists) Len() (n int) {
	if l == nil {
		return 0
	}
	for _, of := range l.by {
		n += len(of.serials)
	}
	return n
}
