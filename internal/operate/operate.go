// Package operate is the local administration of a gateway: what an operator on its machine may ask and tell it, without
// any control plane. It holds the words of the conversation, the socket and the client; package app answers, package cli
// asks.
//
// The conversation is HTTP and JSON over a Unix socket in the data folder. Who may use it is what the file system says:
// the folder is its owner's alone and so is the socket (0600), so that it takes the user of the gateway, or root. A port on
// loopback would let in every user and every program of the machine, web pages in a browser among them, and a secret for
// it would have to lie in a file with the same protection as the socket has.
package operate

import (
	"errors"
	"time"

	"hansa.dev/hansa/internal/gateway"
)

// The paths of the conversation. All but Status and Listeners are POST, with the type of the request named here as body.
const (
	PathStatus      = "/status"      // GET: Status
	PathDrain       = "/drain"       // Status
	PathUndrain     = "/undrain"     // Status
	PathMaintenance = "/maintenance" // Maintenance: Status
	PathLogLevel    = "/log-level"   // LogLevel: Status
	PathListeners   = "/listeners"   // GET: Listeners; POST gateway.Listener: Listeners; DELETE with ?name=: Listeners
	PathReload      = "/reload"      // Status
	PathUpgrade     = "/upgrade"     // Upgrade: Upgraded
	PathGrounds     = "/grounds"     // gateway.Grounds: gateway.Grounds
	PathCounts      = "/counts"      // bytes: nothing
)

// QueryDryRun in the query of a change has it checked and not made.
const QueryDryRun = "dry-run"

// Status is what a gateway says of itself.
type Status struct {
	gateway.Status
	PID       int               `json:"pid"`
	LogLevel  string            `json:"logLevel"`
	Addresses map[string]string `json:"addresses"`
	// Drained tells that the gateway is draining and has no connection left.
	Drained bool `json:"drained"`
	// Checks are what readiness consists of.
	Checks []gateway.CheckResult `json:"checks"`
}

// Maintenance asks for maintenance, or ends it.
type Maintenance struct {
	On bool `json:"on"`
}

// LogLevel asks for a level of the log: debug, info, warn or error.
type LogLevel struct {
	Level string `json:"level"`
}

// Listener is a listener as it is.
type Listener struct {
	gateway.Listener
	// Bound is the address that it listens on.
	Bound string `json:"bound"`
}

// Listeners are the listeners of a gateway.
type Listeners struct {
	Items []Listener `json:"items"`
}

// Upgrade asks the gateway to hand over to a new process.
type Upgrade struct {
	// Program is the path of the new program. Default: the path that the running one was started from.
	Program string `json:"program,omitempty"`
	// Timeout bounds the time until the new process serves. Default: 1 min.
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Upgraded tells what came of it.
type Upgraded struct {
	// OldPID is the process that finishes its connections, PID the one that serves.
	OldPID int `json:"oldPid"`
	PID    int `json:"pid"`
	// Version is that of the new program.
	Version string `json:"version"`
}

// Refusal is the body of an answer that is no success.
type Refusal struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// The codes of refusals.
const (
	CodeInvalid  = "invalid"
	CodeNotFound = "not-found"
	CodeConflict = "conflict"
	CodeFailed   = "failed"
)

// Error is a refusal as the client returns it.
type Error struct{ Refusal }

// Error implements error.
func (e *Error) Error() string { return e.Message }

// ErrNotRunning is the error of the client if no gateway listens on the socket.
var ErrNotRunning = errors.New("no gateway runs on this data folder")
