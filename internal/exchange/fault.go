package exchange

// Fault is what is wrong with a message. Faults are constant: nothing is allocated to report one.
type Fault struct {
	// Code is the refusal that a faulty request is answered with.
	Code Code
	// Detail says what is wrong, for the client or, if the message was a response, for the log.
	Detail string
}

// Error implements error.
func (f *Fault) Error() string { return f.Detail }
