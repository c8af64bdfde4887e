package resource

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
)

const defaultKeyHeader = "X-API-Key"

// Default fills in every default that the comments of api/v1 name, in place. It is idempotent. It does not know the
// organization that the caller works in: Decode fills that in.
func Default(o *v1.Object) {
	o.APIVersion = v1.APIVersion
	switch spec := o.Spec.(type) {
	case *v1.BackendSpec:
		defaultBackend(spec)
	case *v1.APISpec:
		defaultAPI(spec)
	case *v1.APIRevisionSpec:
		defaultAPI(&spec.Spec)
	case *v1.EnvironmentGroupSpec:
		for i, h := range spec.Hostnames {
			spec.Hostnames[i] = strings.ToLower(h) // host names have no case (RFC 4343)
		}
	case *v1.CertificateSpec:
		for i, h := range spec.Hostnames {
			spec.Hostnames[i] = strings.ToLower(h)
		}
		defaultACME(spec.ACME)
	}
}

func or[T comparable](p *T, def T) {
	var zero T
	if *p == zero {
		*p = def
	}
}

func defaultAPI(a *v1.APISpec) {
	or(&a.BackendPath, "/")
	if a.Mirror != nil {
		or(&a.Mirror.Percent, 100)
	}
	keyed := defaultPolicies(a.Policies, false)
	for i := range a.Operations {
		op := &a.Operations[i]
		or(&op.Name, defaultName(op.Method, op.Path))
		defaultPolicies(op.Policies, keyed)
	}
}

// defaultName is the name of an operation that has none: "GET:/items/{id}". Where that is too long its end is replaced
// by a digest, so that it stays unique.
func defaultName(method, path string) string {
	name := method + ":" + path
	if len(name) <= maxOperationName {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	digest := "~" + hex.EncodeToString(sum[:6])
	return strings.ToValidUTF8(name[:maxOperationName-len(digest)], "") + digest
}

// defaultPolicies fills in the steps of a request and tells whether an API key is known after them. keyed tells
// whether it is known before.
func defaultPolicies(p v1.Policies, keyed bool) bool {
	for _, step := range p.Request {
		switch {
		case step.APIKey != nil:
			keyed = true
			if step.APIKey.Query == "" {
				or(&step.APIKey.Header, defaultKeyHeader)
			}
		case step.RateLimit != nil && keyed:
			or(&step.RateLimit.By, "subscription")
		case step.RateLimit != nil:
			or(&step.RateLimit.By, "clientIP")
		case step.Quota != nil && keyed:
			or(&step.Quota.By, "subscription")
		case step.Quota != nil:
			or(&step.Quota.By, "api")
		case step.Respond != nil:
			or(&step.Respond.Status, 200)
		}
	}
	return keyed
}

// Clone returns a copy of o that shares nothing that could be changed.
func Clone(o *v1.Object) *v1.Object {
	c := reflect.New(reflect.TypeFor[v1.Object]()).Elem()
	deepCopy(c, reflect.ValueOf(o).Elem())
	return c.Addr().Interface().(*v1.Object)
}

func deepCopy(dst, src reflect.Value) {
	switch src.Kind() {
	case reflect.Pointer:
		if !src.IsNil() {
			dst.Set(reflect.New(src.Type().Elem()))
			deepCopy(dst.Elem(), src.Elem())
		}
	case reflect.Interface:
		if !src.IsNil() {
			c := reflect.New(src.Elem().Type()).Elem()
			deepCopy(c, src.Elem())
			dst.Set(c)
		}
	case reflect.Struct:
		dst.Set(src) // also what is unexported, as in time.Time
		for i := range src.NumField() {
			if src.Type().Field(i).IsExported() {
				deepCopy(dst.Field(i), src.Field(i))
			}
		}
	case reflect.Slice:
		if !src.IsNil() {
			dst.Set(reflect.MakeSlice(src.Type(), src.Len(), src.Len()))
			for i := range src.Len() {
				deepCopy(dst.Index(i), src.Index(i))
			}
		}
	case reflect.Map:
		if !src.IsNil() {
			dst.Set(reflect.MakeMapWithSize(src.Type(), src.Len()))
			for it := src.MapRange(); it.Next(); {
				dst.SetMapIndex(it.Key(), it.Value())
			}
		}
	default:
		dst.Set(src)
	}
}

// Equal tells whether a and b are the same resource and say the same: equal in labels and, with the defaults filled
// in, in spec. Seq, revision and status do not count.
func Equal(a, b *v1.Object) bool {
	if a.Key() != b.Key() {
		return false
	}
	sa, errA := meaning(a)
	sb, errB := meaning(b)
	return errA == nil && errB == nil && bytes.Equal(sa, sb)
}

// meaning is what Equal compares. JSON makes nil and empty lists, which mean the same, the same.
func meaning(o *v1.Object) ([]byte, error) {
	c := Editable(o)
	Default(c)
	return json.Marshal(c)
}
