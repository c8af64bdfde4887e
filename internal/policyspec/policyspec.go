// Package policyspec tells what each policy needs, so that compile can refuse what a gateway cannot run and the
// gateway can order and schedule what it can. It holds no behaviour: the code of a policy is
// internal/gateway/policy/<name>.
package policyspec

// Phase is where in an exchange a policy may stand.
type Phase uint8

// The phases; a policy may allow several.
const (
	Request Phase = 1 << iota
	Response
)

// Body tells what a policy does with bodies.
type Body uint8

// What a policy may need of a body.
const (
	NoBody Body = iota
	Streams
	Buffers
)

// Spec describes one policy.
type Spec struct {
	// Name is the field of api/v1.Policy: "apiKey".
	Name string
	// Phases are where it may stand.
	Phases Phase
	// Body is what it needs of the body.
	Body Body
	// MayBlock policies call something outside the process.
	MayBlock bool
	// After names the policies that must stand before this one if they are used at all.
	After []string
	// MinReader is the lowest reader version (snapshot.ReaderVersion) that can run it.
	MinReader uint16
}

// All returns the table of policies.
func All() []Spec {
	return []Spec{
		{Name: "apiKey", Phases: Request, MinReader: 1},
		{Name: "rateLimit", Phases: Request, After: []string{"apiKey"}, MinReader: 1},
		{Name: "quota", Phases: Request, After: []string{"apiKey"}, MinReader: 1},
		{Name: "setHeaders", Phases: Request | Response, MinReader: 1},
		{Name: "respond", Phases: Request, MinReader: 1},
	}
}

// Lookup returns the row of the policy with that name.
func Lookup(name string) (Spec, bool) {
	for _, s := range All() {
		if s.Name == name {
			return s, true
		}
	}
	return Spec{}, false
}
