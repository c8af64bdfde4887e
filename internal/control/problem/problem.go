// Package problem holds the refusals of the control API: the registry of their stable codes, the error that
// carries one, and the writer that turns any error into application/problem+json (RFC 9457).
//
// A caller sees a code, a message and a correlation id; the cause stays in the log. The registry is codes.json,
// and docs/reference/errors.md is generated from it. The package is used by control; it has no state.
//
//go:generate go test -run TestReference -update .
package problem

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	v1 "hansa.dev/hansa/api/v1"
)

// Code names one kind of refusal. Every code is a row of codes.json.
type Code string

// The codes; codes.json tells what each of them means.
const (
	BadRequest           Code = "bad-request"
	Unauthenticated      Code = "unauthenticated"
	Forbidden            Code = "forbidden"
	NotFound             Code = "not-found"
	MethodNotAllowed     Code = "method-not-allowed"
	RequestTimeout       Code = "request-timeout"
	Conflict             Code = "conflict"
	InUse                Code = "in-use"
	SlotTaken            Code = "slot-taken"
	LastAdmin            Code = "last-admin"
	Expired              Code = "expired"
	PreconditionFailed   Code = "precondition-failed"
	TooLarge             Code = "too-large"
	UnsupportedMediaType Code = "unsupported-media-type"
	Invalid              Code = "invalid"
	TooManyRequests      Code = "too-many-requests"
	Internal             Code = "internal"
	Busy                 Code = "busy"
	Unavailable          Code = "unavailable"
	Timeout              Code = "timeout"
	StorageFull          Code = "storage-full"
)

// TypeBase precedes the code in the member type of a problem.
const TypeBase = "https://hansa.dev/docs/reference/errors#"

//go:embed codes.json
var codesJSON []byte

// Row is one row of the registry.
type Row struct {
	Code   Code   `json:"code"`
	Status int    `json:"status"`
	Title  string `json:"title"`
	// Meaning and Remedy are for the reference page.
	Meaning string `json:"meaning"`
	Remedy  string `json:"remedy"`
}

var parsed = sync.OnceValues(func() ([]Row, error) {
	var rows []Row
	err := json.Unmarshal(codesJSON, &rows)
	return rows, err
})

// Registry returns every row, in order of status. It must not be changed.
func Registry() []Row {
	rows, err := parsed()
	if err != nil {
		panic("codes.json: " + err.Error()) // an embedded file: only a broken build can get here, and the test says so first
	}
	return rows
}

// Lookup returns the row of a code.
func Lookup(c Code) (Row, bool) {
	for _, row := range Registry() {
		if row.Code == c {
			return row, true
		}
	}
	return Row{}, false
}

// Error is a refusal on its way to the caller.
type Error struct {
	Code Code
	// Detail is what the caller reads. It never repeats secrets.
	Detail string
	// Faults are the faults of the input.
	Faults []v1.Fault
	// RetryAfter is sent as Retry-After unless it is zero.
	RetryAfter time.Duration
	// Cause goes to the log and never to the caller.
	Cause error
}

// New returns a refusal whose detail is formatted as by fmt.Sprintf.
func New(c Code, format string, args ...any) *Error {
	return &Error{Code: c, Detail: fmt.Sprintf(format, args...)}
}

// Because returns e with a cause for the log.
func (e *Error) Because(cause error) *Error {
	with := *e
	with.Cause = cause
	return &with
}

// Error implements error.
func (e *Error) Error() string {
	s := string(e.Code)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// From returns err as a refusal. An error that is none becomes internal, with err as its cause.
func From(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: Internal, Cause: err}
}

// Body returns what the caller of the request with that id reads of e.
func (e *Error) Body(requestID string) v1.Problem {
	row, ok := Lookup(e.Code)
	if !ok {
		row, _ = Lookup(Internal)
	}
	detail := e.Detail
	if detail == "" {
		detail = row.Meaning + " " + row.Remedy
	}
	return v1.Problem{
		Type:      TypeBase + string(row.Code),
		Title:     row.Title,
		Status:    row.Status,
		Code:      string(row.Code),
		Detail:    detail,
		RequestID: requestID,
		Faults:    e.Faults,
	}
}

// Write answers with the refusal that err is and returns the status. Nothing must have been written to w yet.
func Write(w http.ResponseWriter, requestID string, err error) int {
	e := From(err)
	body := e.Body(requestID)
	h := w.Header()
	h.Set("Content-Type", v1.ContentTypeProblem)
	h.Set("Cache-Control", "no-store")
	h.Del("ETag")
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10))
	}
	if body.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="hansa"`)
	}
	w.WriteHeader(body.Status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(body) // the caller may be gone; there is nobody left to tell
	return body.Status
}
