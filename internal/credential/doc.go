// Package credential is a gateway's table of credentials: the immutable shards that the feed delivers, and a
// [Record] in memory for each credential that was used.
//
// A look-up takes no lock and allocates nothing: it looks among the records that were asked for lately, and otherwise
// searches one small sorted segment. The record
// that it returns is the same for as long as the credential is, whatever else changes in the table, so that limits
// hang on it; [quota.Subject]s belong to subscriptions and outlive even the record. A credential that was never used
// costs its bytes in the segment and one word.
//
// [Table.Apply] replaces what changed. Records of credentials that are no longer good are marked dead, which ends
// the streams that were opened with them. Secrets are never held: a credential is found by the SHA-256 of its value.
// That the time of a search depends on the digest tells nothing about a value of 256 random bits.
//
// Everything is safe for concurrent use. It is used by gateway.
package credential
