package v1

import (
	"encoding/json"
	"fmt"
	"time"
)

// APIVersion is the only value of the field apiVersion that this package describes.
const APIVersion = "hansa.dev/v1"

// DefaultOrganization owns the resources that name no organization. It exists in every cluster, with a resource of
// its own or without.
const DefaultOrganization = "default"

// Kind names a type of resource, in CamelCase and singular: "API", "GatewayGroup".
type Kind string

// Object is one resource. Objects are immutable once they are in the record: whoever wants to change one
// copies it first.
type Object struct {
	// APIVersion is always "hansa.dev/v1".
	APIVersion string `json:"apiVersion"`
	// Kind is the type of the resource; it decides what spec may hold.
	Kind Kind `json:"kind"`
	// Metadata names the resource.
	Metadata Metadata `json:"metadata"`
	// Spec is what the user wants; its fields depend on the kind.
	Spec Spec `json:"spec"`
	// Status is what Hansa found. It is ignored in what users send.
	Status *Status `json:"status,omitempty"`
}

// Spec is implemented by the pointer to the spec type of every kind.
type Spec interface {
	// Kind returns the kind that this spec belongs to.
	Kind() Kind
}

// Metadata names a resource and tells when it last changed.
type Metadata struct {
	// Name is unique per organization and kind: 1 to 63 characters of a-z, 0-9, "-" and ".", the first and the
	// last one a letter or a digit.
	Name string `json:"name"`
	// Organization owns the resource. Default: the organization that the caller works in ("default" where none
	// is named). Empty for the kinds that belong to no organization.
	Organization string `json:"organization,omitempty"`
	// Labels are free pairs of text for selecting resources; at most 64, each key and value at most 63
	// characters.
	Labels map[string]string `json:"labels,omitempty"`
	// Revision is the newest immutable revision of an API; other kinds have none. Written by Hansa.
	Revision uint64 `json:"revision,omitempty"`
	// Seq is the number of the change set that last changed the resource. Written by Hansa; sent back in
	// If-Match it makes a write conditional.
	Seq uint64 `json:"seq,omitempty"`
}

// Status is what Hansa knows of a resource.
type Status struct {
	// ObservedSeq is the change set that the conditions speak of.
	ObservedSeq uint64 `json:"observedSeq,omitempty"`
	// Conditions are the claims that hold or do not hold, one per type.
	Conditions []Condition `json:"conditions,omitempty"`
	// Certificate is what is known of a Certificate.
	Certificate *CertificateStatus `json:"certificate,omitempty"`
}

// CertificateStatus is what Hansa knows of a Certificate.
type CertificateStatus struct {
	// Fingerprint is the SHA-256 of the public key (SubjectPublicKeyInfo), in lower-case hexadecimal: all that is ever
	// shown of the private key.
	Fingerprint string `json:"fingerprint"`
	// Names are the DNS names that the certificate carries.
	Names []string `json:"names,omitempty"`
	// NotBefore is when it begins to be valid.
	NotBefore time.Time `json:"notBefore"`
	// NotAfter is when it expires.
	NotAfter time.Time `json:"notAfter"`
	// GatewayGroups are the groups that have the private key.
	GatewayGroups []string `json:"gatewayGroups,omitempty"`
}

// Condition is one claim about a resource.
type Condition struct {
	// Type is the claim, in CamelCase: "Compiled", "Serving".
	Type string `json:"type"`
	// Status says whether the claim holds: "True", "False" or "Unknown".
	Status string `json:"status"`
	// Reason is a stable code in CamelCase.
	Reason string `json:"reason,omitempty"`
	// Message is for people.
	Message string `json:"message,omitempty"`
	// LastTransition is when Status last changed.
	LastTransition time.Time `json:"lastTransition,omitzero"`
}

// Key identifies a resource in the record.
type Key struct {
	Organization string
	Kind         Kind
	Name         string
}

// String returns "Kind organization/name", for messages.
func (k Key) String() string {
	if k.Organization == "" {
		return fmt.Sprintf("%s %s", k.Kind, k.Name)
	}
	return fmt.Sprintf("%s %s/%s", k.Kind, k.Organization, k.Name)
}

// Key returns the identity of o.
func (o *Object) Key() Key {
	return Key{Organization: o.Metadata.Organization, Kind: o.Kind, Name: o.Metadata.Name}
}

// UnmarshalJSON decodes o with the spec type of its kind. It is meant for what Hansa itself wrote (the record,
// answers of the control API): input of users goes through internal/resource, which is strict and reports
// every fault.
func (o *Object) UnmarshalJSON(b []byte) error {
	var raw struct {
		APIVersion string          `json:"apiVersion"`
		Kind       Kind            `json:"kind"`
		Metadata   Metadata        `json:"metadata"`
		Spec       json.RawMessage `json:"spec"`
		Status     *Status         `json:"status"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	info, ok := Lookup(raw.Kind)
	if !ok {
		return fmt.Errorf("unknown kind %q", raw.Kind)
	}
	spec := info.NewSpec()
	if len(raw.Spec) > 0 {
		if err := json.Unmarshal(raw.Spec, spec); err != nil {
			return fmt.Errorf("spec of %s %q: %w", raw.Kind, raw.Metadata.Name, err)
		}
	}
	*o = Object{APIVersion: raw.APIVersion, Kind: raw.Kind, Metadata: raw.Metadata, Spec: spec, Status: raw.Status}
	return nil
}

// Duration is a length of time, written as in Go: "250ms", "30s", "1h", and also in days: "90d".
type Duration time.Duration

// MarshalText writes d in the shortest of the forms that ParseDuration reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseDuration(string(b))
	if err != nil {
		return err
	}
	*d = v
	return nil
}
