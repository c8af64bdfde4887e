package crl

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"hansa.dev/hansa/internal/gateway/certs/certstest"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	root, other, third := certstest.NewAuthority(t, "root"), certstest.NewAuthority(t, "other"), certstest.NewAuthority(t, "third")
	namesake := certstest.NewAuthority(t, "root")
	good, bad := root.Issue(t, "good"), root.Issue(t, "bad")
	next := time.Now().Add(time.Hour).Truncate(time.Second)
	l, faults := Parse(
		"the list of root\n"+root.ListAs(t, x509.RevocationList{NextUpdate: next}, bad.Cert)+other.ListAs(t, x509.RevocationList{NextUpdate: next.Add(time.Hour)}),
		[]*x509.Certificate{namesake.Cert, root.Cert, other.Cert, third.Cert},
	)
	if faults != nil {
		t.Fatal(faults)
	}
	for _, tc := range []struct {
		name   string
		serial *big.Int
		issuer *certstest.Authority
		at     time.Time
		want   Status
		until  time.Time
	}{
		{"good", good.Cert.SerialNumber, root, time.Now(), Good, next},
		{"revoked", bad.Cert.SerialNumber, root, time.Now(), Revoked, time.Time{}},
		{"same number of another CA", bad.Cert.SerialNumber, other, time.Now(), Good, next.Add(time.Hour)},
		{"same number, same name, another key", bad.Cert.SerialNumber, namesake, time.Now(), Unknown, time.Time{}},
		{"no list", good.Cert.SerialNumber, third, time.Now(), Unknown, time.Time{}},
		{"just before the end", good.Cert.SerialNumber, root, next.Add(-1), Good, next},
		{"expired", good.Cert.SerialNumber, root, next, Expired, time.Time{}},
		{"revoked, expired", bad.Cert.SerialNumber, root, next, Revoked, time.Time{}},
		{"long number", new(big.Int).Lsh(bad.Cert.SerialNumber, 400), root, time.Now(), Good, next},
	} {
		if got, until := l.Status(tc.serial, tc.issuer.Cert, tc.at); got != tc.want || !until.Equal(tc.until) {
			t.Errorf("%s: %v until %v, want %v until %v", tc.name, got, until, tc.want, tc.until)
		}
	}
	if got := l.Until(); !got.Equal(next) {
		t.Errorf("the first expires %v, want %v", got, next)
	}
	if got := l.Len(); got != 1 {
		t.Errorf("%d are revoked, want 1", got)
	}
	var none *Lists
	if got, _ := none.Status(big.NewInt(1), root.Cert, time.Now()); got != Unknown || !none.Until().IsZero() || none.Len() != 0 {
		t.Errorf("without lists: %v", got)
	}
}

// TestStatusAllocates nothing, whatever number is asked for.
func TestStatusAllocates(t *testing.T) {
	root := certstest.NewAuthority(t, "root")
	all := x509.RevocationList{}
	for i := range int64(10_000) {
		all.RevokedCertificateEntries = append(all.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(1 + i), RevocationTime: time.Now()})
	}
	l, faults := Parse(root.ListAs(t, all), []*x509.Certificate{root.Cert})
	if faults != nil || l.Len() != 10_000 {
		t.Fatal(faults, l.Len())
	}
	now, number := time.Now(), root.Cert.SerialNumber
	if n := testing.AllocsPerRun(100, func() { _, _ = l.Status(number, root.Cert, now) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	root, other, namesake := certstest.NewAuthority(t, "root"), certstest.NewAuthority(t, "other"), certstest.NewAuthority(t, "root")
	mayNot := certstest.NewAuthority(t, "no lists")
	notForLists := *mayNot.Cert
	notForLists.KeyUsage = x509.KeyUsageCertSign
	cas := []*x509.Certificate{root.Cert, &notForLists}
	with := func(id ...int) x509.RevocationList {
		return x509.RevocationList{ExtraExtensions: []pkix.Extension{{Id: id, Critical: true, Value: []byte{asn1.TagNull, 0}}}}
	}
	list := root.List(t)
	for _, tc := range []struct{ name, text, want string }{
		{"empty", " \n", "no list"},
		{"text", "x", "not PEM"},
		{"text behind", list + "x", "not PEM"},
		{"certificate", string(root.PEM), "list 1: it is a CERTIFICATE"},
		{"torn", list[:len(list)-30] + "\n" + list, "not PEM"},
		{"garbage", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "list 1: it cannot be read"},
		{"of another CA", list + other.List(t), `list 2: it is of "CN=other", which is none of the CAs`},
		{"of one with the name of a CA", namesake.List(t), `"CN=root" has not signed it`},
		{"of one that signs no lists", mayNot.List(t), "must not"},
		{"twice", list + root.List(t), "list 2: list 1 is of the same CA"},
		{"delta", root.ListAs(t, with(2, 5, 29, 27)), "delta"},
		{"partition", root.ListAs(t, with(2, 5, 29, 28)), "only for some certificates"},
		{"critical", root.ListAs(t, with(1, 2, 3)), "critical extension 1.2.3 is not known"},
		{"critical in an entry", root.ListAs(t, x509.RevocationList{RevokedCertificateEntries: []x509.RevocationListEntry{
			{SerialNumber: big.NewInt(1), RevocationTime: time.Now(), ExtraExtensions: with(2, 5, 29, 29).ExtraExtensions},
		}}), "2.5.29.29 of its entry 1"},
		{"many", strings.Repeat(list, MaxLists+1), "more than 64 lists"},
	} {
		l, faults := Parse(tc.text, cas)
		if err := errors.Join(faults...); err == nil || l != nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q in it", tc.name, err, tc.want)
		}
	}
	if _, faults := Parse(root.List(t)+other.List(t)+namesake.List(t), cas); len(faults) != 2 {
		t.Errorf("%v, want both faults", faults)
	}
}

// FuzzParse looks for text that is not survived, or is taken without a list that is signed.
func FuzzParse(f *testing.F) {
	root := certstest.NewAuthority(f, "root")
	list := root.List(f, root.Cert)
	f.Add(list)
	f.Add(list + list)
	f.Add("x" + list[:40])
	f.Add(string(root.PEM))
	f.Fuzz(func(t *testing.T, text string) {
		l, faults := Parse(text, []*x509.Certificate{root.Cert})
		if (l == nil) == (faults == nil) {
			t.Fatalf("lists %v and faults %v", l, faults)
		}
		if got, _ := l.Status(root.Cert.SerialNumber, root.Cert, time.Now()); l != nil && got == Unknown {
			t.Error("a text is taken that holds no list")
		}
		if _, none := Parse(text, nil); none == nil {
			t.Error("a list is taken that nobody has signed")
		}
	})
}
