// Package gateway is the data plane: it takes requests, finds out who asks and for what, holds them to their limits,
// forwards them and says what happened.
//
// A [Gateway] runs from a configuration, which [Gateway.Apply] brings into force: everything that can fail is done
// first, on pieces that nobody sees, and then one pointer is swapped. A request keeps the plan that it began under. What
// must outlive a change hangs on identities and not on plans: connections to backends, counts of limits, counters.
// A change costs its own size, however large the configuration is.
//
// Without a configuration every request is refused with 503 not-configured; a gateway never invents an answer. It needs
// no control plane: internal/feed/fetch brings configurations and credentials, from wherever they come.
//
// The parts: http1 speaks the protocol and feeds internal/exchange; router finds; policy and its folders decide;
// upstream calls; accesslog and the metrics here tell. The table of policies is policies.go.
package gateway
