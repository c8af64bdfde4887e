package cli

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/operate"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/etcd"
	"hansa.dev/hansa/internal/x/durable"
)

// The exit codes. Scripts rely on them.
const (
	ExitDone        = 0
	ExitFailed      = 1  // refused or failed
	ExitUsage       = 2  // the command line is wrong
	ExitNotFound    = 3  // there is no such resource or file
	ExitConflict    = 4  // somebody else was first
	ExitInvalid     = 5  // the input has faults
	ExitUnreachable = 6  // no answer, or not in time
	ExitDifferent   = 10 // diff or plan with --exit-code found changes
	ExitStorage     = 74 // the disk or the record's storage
	ExitConfig      = 78 // the identity or the configuration of the node
)

// exitError is an error with the exit code that it calls for. Without an error nothing is printed.
type exitError struct {
	code int
	err  error
}

// withExit returns err with an exit code of its own.
func withExit(code int, err error) error { return &exitError{code: code, err: err} }

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exitCode returns the code that err calls for.
func exitCode(err error) int {
	if err == nil {
		return ExitDone
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		return codeOfStatus(e.Status)
	}
	if _, ok := errors.AsType[*resource.InvalidError](err); ok {
		return ExitInvalid
	}
	if e, ok := errors.AsType[*operate.Error](err); ok {
		return codeOfRefusal(e.Code)
	}
	switch {
	case errors.Is(err, client.ErrUnreachable), errors.Is(err, operate.ErrNotRunning), errors.Is(err, context.DeadlineExceeded):
		return ExitUnreachable
	case errors.Is(err, fs.ErrNotExist):
		return ExitNotFound
	case errors.Is(err, store.ErrStorageFull), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EIO):
		return ExitStorage
	}
	return ExitFailed
}

// codeOfRefusal is for refusals of a gateway on this machine.
func codeOfRefusal(code string) int {
	switch code {
	case operate.CodeInvalid:
		return ExitInvalid
	case operate.CodeNotFound:
		return ExitNotFound
	case operate.CodeConflict:
		return ExitConflict
	}
	return ExitFailed
}

func codeOfStatus(status int) int {
	switch status {
	case http.StatusNotFound:
		return ExitNotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return ExitConflict
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return ExitInvalid
	case http.StatusRequestTimeout, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return ExitUnreachable
	case http.StatusInsufficientStorage:
		return ExitStorage
	}
	return ExitFailed
}

// failure is an error as scripts read it.
type failure struct {
	Code          string     `json:"code"`
	Message       string     `json:"message"`
	CorrelationID string     `json:"correlationId,omitempty"`
	Faults        []v1.Fault `json:"faults,omitempty"`
}

// describe returns err as scripts read it.
func describe(err error) failure {
	f := failure{Code: "failed", Message: err.Error(), Faults: resource.FaultsOf(err)}
	if e, ok := errors.AsType[*client.Error](err); ok {
		f.Code, f.Message, f.CorrelationID, f.Faults = e.Code, e.Detail, e.RequestID, e.Faults
		if f.Message == "" {
			f.Message = e.Title
		}
		return f
	}
	switch exitCode(err) {
	case ExitUsage:
		f.Code = "usage"
	case ExitNotFound:
		f.Code = "not-found"
	case ExitConflict:
		f.Code = "conflict"
	case ExitInvalid:
		f.Code = "invalid"
	case ExitUnreachable:
		f.Code = "unreachable"
	case ExitStorage:
		f.Code = "storage"
	case ExitConfig:
		f.Code = "configuration"
	}
	if len(f.Faults) > 0 {
		f.Message = faultsHeadline(len(f.Faults))
	}
	return f
}

func faultsHeadline(n int) string {
	if n == 1 {
		return "the input has a fault"
	}
	return fmt.Sprintf("the input has %d faults", n)
}

// report prints err on standard error, in the form that --output asks for.
func (s *session) report(c *cobra.Command, err error) {
	if e, ok := errors.AsType[*exitError](err); ok && e.err == nil {
		return
	}
	f := describe(err)
	if s.output == outputJSON {
		enc := json.NewEncoder(s.err)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(f) // there is nowhere to tell that standard error is closed
		return
	}
	var b strings.Builder
	for _, fault := range f.Faults {
		b.WriteString(faultText(fault))
		if strings.Contains(f.Message, fault.Message) { // say it once
			f.Message = "nothing was changed"
		}
	}
	fmt.Fprintf(&b, "%s: %s", c.CommandPath(), f.Message)
	if f.CorrelationID != "" {
		fmt.Fprintf(&b, " (%s, request %s)", f.Code, f.CorrelationID)
	}
	b.WriteByte('\n')
	if exitCode(err) == ExitUsage {
		fmt.Fprintf(&b, "See \"%s --help\".\n", c.CommandPath())
	}
	if hint := hintFor(c, err); hint != "" {
		b.WriteString(hint + "\n")
	}
	_, _ = s.err.Write([]byte(b.String()))
}

// hintFor says what may help against an error that does not say so itself.
func hintFor(c *cobra.Command, err error) string {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, elsewhere := errors.AsType[x509.HostnameError](err)
	switch {
	case unknown:
		return "The control node answers, but this program does not know its CA: name ca.pem of its data folder with --ca-file or HANSA_CA_FILE.\n" +
			"In the folder where \"hansa dev\" was started all of it is found without."
	case elsewhere:
		return "Use one of those names with --server or HANSA_SERVER, or start the control node with --host NAME."
	case errors.Is(err, client.ErrUnreachable):
		return "Is the control node running? Flags --server and --ca-file, or HANSA_SERVER and HANSA_CA_FILE, say which one is meant."
	case errors.Is(err, syscall.EADDRINUSE):
		return "Another process has that address: stop it, or choose another one with " + addressFlag(c, err) + " (port 0: any that is free)."
	case errors.Is(err, durable.ErrLocked), errors.Is(err, etcd.ErrLocked):
		return "One process at a time can run on a data folder: use the one that runs, stop it, or name another folder with --data."
	case errors.Is(err, keys.ErrUnseal):
		return "The at-rest key is <data>.key unless --key-file or --key-credential says otherwise; it must be the one that the folder was sealed with."
	}
	return ""
}

// addressFlag names the flag of c that says the address which err is about.
func addressFlag(c *cobra.Command, err error) string {
	name := "the flag of that listener"
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Addr == nil {
		return name
	}
	_, port, _ := net.SplitHostPort(op.Addr.String())
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if _, of, err := net.SplitHostPort(f.Value.String()); err == nil && of == port && strings.HasSuffix(f.Name, addressSuffix) {
			name = "--" + f.Name
		}
	})
	return name
}

// faultText writes a fault with its remedy on a line of its own.
func faultText(f v1.Fault) string {
	remedy := f.Remedy
	f.Remedy = ""
	if f.File == "" && f.Line > 0 {
		f.File = "input"
	}
	text := resource.FormatFault(f) + "\n"
	if remedy != "" {
		text += "    " + remedy + "\n"
	}
	return text
}
