// Package publish keeps the views of a control node current: it watches the record, compiles, signs checkpoints and hands
// them to the feed.
//
// Every change set leads to at most one checkpoint per view, and a busy record to fewer: what came while the publisher was
// at work is compiled and published at once. A view in which nothing changed gets a checkpoint of the new version a little
// later, so that all gateways name the version of the record without every change waking all of them.
//
// Two contents of one version would make gateways freeze. Therefore the publisher writes down what it is about to publish
// ([Ledger]), and where a new release compiles a published version to something else, it commits an empty change set and
// publishes that. A state that does not compile, which the control API should never let into the record, leaves the last
// good views in place and raises an alarm.
//
// A Publisher's methods may be called from any goroutine; Run is called once. The package is used by app and control.
package publish
