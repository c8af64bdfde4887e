// Package policy is what policies are made from: where a policy stands ([Env]), what one step of an exchange leaves
// for those after it (the slots), and what several of them need: products, limits, header fields.
//
// A policy is a package of its own below this one with a function New, a [Factory], which reads the policy's settings
// and returns a step; internal/gateway holds the table of all of them. A factory runs when configuration is read, may
// take its time and refuses what cannot work. The step runs for every request of its routes, at once with others, and
// allocates nothing. setheaders is the one to read first.
package policy

import (
	"encoding/json"
	"fmt"

	"hansa.dev/hansa/internal/credential"
	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/policyspec"
	"hansa.dev/hansa/internal/quota"
	"hansa.dev/hansa/internal/snapshot"
)

// The slots of an exchange. Slots that are not named here are free.
const (
	// SlotProducts holds the Products of the configuration that the exchange runs under.
	SlotProducts = iota
	// SlotProduct holds the *Product that the consumer's key belongs to.
	SlotProduct
	// SlotGateway belongs to internal/gateway.
	SlotGateway
)

// Factory makes the step of a policy from its settings, the JSON of its type in api/v1.
type Factory func(settings json.RawMessage, env *Env) (exchange.Step, error)

// Env is where a policy stands and what it may use.
type Env struct {
	Organization string
	Environment  string
	API          string
	// Operation is empty for a policy of the API as a whole.
	Operation string
	// Phase is the list that the policy stands in.
	Phase policyspec.Phase
	// Ordinal counts the policies of one name in one list, from 0. With the names above it identifies the policy
	// across changes of configuration.
	Ordinal int

	// Credentials finds who asks.
	Credentials Credentials
	// Engine decides about limits, and Clients about those by client address.
	Engine  Engine
	Clients *quota.Clients
	// Subject is the API, as one that shares limits.
	Subject *quota.Subject
}

// Credentials is a table of credentials: credential.Table.
type Credentials interface {
	Lookup(snapshot.CredentialHash) (*credential.Record, bool)
	// Application is who the limits of the record's application count for.
	Application(*credential.Record) *quota.Subject
}

// Engine decides whether a limit lets a subject pass, and counts what passes. quota.Local does so in this gateway
// alone.
type Engine interface {
	Admit(s *quota.Subject, l *quota.Limit, now int64, cost uint64) quota.Decision
}

// Read decodes the settings of a policy. No settings are empty settings.
func Read[T any](settings json.RawMessage) (T, error) {
	var t T
	if len(settings) == 0 {
		return t, nil
	}
	if err := json.Unmarshal(settings, &t); err != nil {
		return t, fmt.Errorf("read settings: %w", err)
	}
	return t, nil
}
