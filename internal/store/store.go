// Package store is the record: one linear log of change sets over resources and credentials, kept in embedded
// etcd, with the state after the last of them at hand in memory.
//
// The identity of a state is (cluster, epoch, seq); etcd's own revisions never leave the package. A change set is
// staged as content-addressed pieces and becomes visible by one small transaction that compares and moves the head,
// so that it is either whole or not there at all.
package store

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/snapshot"
)

// Version identifies a state of the record within its cluster. A higher epoch is newer, whatever the seq.
type Version struct {
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
}

// Before tells whether v is older than w.
func (v Version) Before(w Version) bool {
	return v.Epoch < w.Epoch || v.Epoch == w.Epoch && v.Seq < w.Seq
}

// State is the content of the record at one version. It never changes; reading it takes no lock.
type State interface {
	Version() Version
	// Get returns a resource. What it returns must not be changed.
	Get(v1.Key) (*v1.Object, bool)
	// List yields the resources of a kind in an organization ("" for every organization and for global kinds) in
	// order of organization and name, beginning after the given name.
	List(kind v1.Kind, organization, after string) iter.Seq[*v1.Object]
	// Credential returns the credential of an organization with that hash. The same value may be a key of several
	// organizations, as their gateways never share a listener.
	Credential(organization string, hash snapshot.CredentialHash) (snapshot.Credential, bool)
	// CredentialsOf yields the credentials of a subscription.
	CredentialsOf(organization, subscription string) iter.Seq[snapshot.Credential]
	// Credentials yields the credentials of an organization in order of hash; "" for all organizations, in order of
	// organization and hash.
	Credentials(organization string) iter.Seq[snapshot.Credential]
	// CredentialTable is the table of the organization's credentials; empty, not nil, if it has none. It is the one
	// copy that a process holds of them: the feed and the record share its shards.
	CredentialTable(organization string) *snapshot.Credentials
	// CredentialSeq is the seq of the last change set that changed a credential of the organization; 0 if none did.
	CredentialSeq(organization string) uint64
}

// Change is one change of a resource: a new value, or its removal if Object is nil.
type Change struct {
	Key    v1.Key
	Object *v1.Object
}

// CredentialChange is one change of a credential: a new value, or its removal.
type CredentialChange struct {
	Credential snapshot.Credential
	Remove     bool // only Hash and Organization count
}

// Info says who made a change set and why. It is the audit record together with the list of keys.
type Info struct {
	Principal string `json:"principal"`
	Reason    string `json:"reason,omitempty"`
	RequestID string `json:"requestId,omitempty"`
	// Organization owns the credentials that the change set changes; the resources name theirs.
	Organization string    `json:"organization,omitempty"`
	At           time.Time `json:"at"` // zero in Commit: the store's clock
}

// ChangeSet is a committed change set as watchers see it.
type ChangeSet struct {
	Version Version
	Info    Info
	// Changes holds every changed resource once, in the order in which the change set first touched them.
	Changes []Change
	// Credentials yields the changes of credentials in the order in which they were made; a later one of the same
	// credential counts. They may be millions and are read from the record in pieces.
	Credentials func(context.Context) iter.Seq2[CredentialChange, error]
	// NumCredentials is how many Credentials yields.
	NumCredentials int
	// State is the content of the record after exactly this change set. Log leaves it nil.
	State State
}

// Tx collects one change set. Pieces are written to the record as they fill, invisibly. Every Tx ends with
// Commit or Abort. It is for one goroutine.
type Tx interface {
	// Put adds a resource or replaces it. What is stored is a copy with metadata.seq set to the seq that the change
	// set will have; of two puts of one key the later counts.
	Put(context.Context, *v1.Object) error
	// Delete takes a resource away. It is an error if there is none with that key, in the base or by an earlier Put.
	Delete(context.Context, v1.Key) error
	// PutCredential adds a credential or replaces the one of its organization and hash.
	PutCredential(context.Context, snapshot.Credential) error
	// RemoveCredential takes a credential away; it does nothing if there is none.
	RemoveCredential(ctx context.Context, organization string, hash snapshot.CredentialHash) error
	// Commit makes the change set visible if the record is still at the base that Begin was given, and returns the
	// new version once it is durable and State shows it. The context is heeded until the deciding transaction is
	// sent, so that a caller who leaves makes no outcome unknown.
	//
	// ErrConflict: somebody else was first, and State shows it. ErrStorageFull: there is no room. ErrClosed before the transaction was
	// sent, and the context's error: in all of these nothing is changed. ErrUnknown: it may or may not have become
	// visible, the record could not be asked.
	Commit(context.Context, Info) (Version, error)
	// Abort gives the change set up. After Commit, whatever its outcome, it does nothing: defer it.
	Abort()
}

// Store is the record. internal/store/storetest is the suite for implementations.
type Store interface {
	Cluster() string
	// State returns the state at the head.
	State() State
	// Begin opens a change set upon base; it returns ErrConflict if the record is not at base.
	Begin(ctx context.Context, base Version) (Tx, error)
	// Watch yields every change set after from, a state of this store, in order and none left out, and then waits
	// for more. It ends with the context's error, with ErrClosed, or with ErrCompacted if the caller was so slow
	// that the log no longer holds the next one: begin again from State.
	Watch(ctx context.Context, from State) iter.Seq2[ChangeSet, error]
	// Log yields the change sets after one version up to and with another, in order, from the log alone. It ends
	// with ErrCompacted if the log no longer reaches back to after. A watch from an old version is Log up to that
	// of State, and then Watch from that State.
	Log(ctx context.Context, after, through Version) iter.Seq2[ChangeSet, error]
	// Audit yields audit records, newest first, beginning below the given seq (0: at the head).
	Audit(ctx context.Context, below uint64) iter.Seq2[AuditRecord, error]
	// Backup writes the whole record as it is at one version, in a form that Restore of the implementation reads.
	Backup(context.Context, io.Writer) error
}

// AuditRecord tells of one change set.
type AuditRecord struct {
	Version Version      `json:"version"`
	Info    Info         `json:"info"`
	Changes []AuditEntry `json:"changes"` // at most 1,000; Omitted counts the rest
	Omitted int          `json:"omitted,omitempty"`
	// Credentials is the number of credentials changed.
	Credentials int `json:"credentials,omitempty"`
}

// AuditEntry is one changed resource in an AuditRecord.
type AuditEntry struct {
	Key    v1.Key `json:"key"`
	Action string `json:"action"` // created, updated, deleted
}

// What goes wrong in the record.
var (
	ErrConflict    = errors.New("the record has moved on")
	ErrStorageFull = errors.New("the record's storage is full")
	ErrCompacted   = errors.New("that version is no longer in the record's log")
	ErrClosed      = errors.New("the record is closed")
	ErrUnknown     = errors.New("the outcome of the change set is unknown")
	// ErrFailed: the disk or what is on it is bad; the record takes no change sets until it is opened again.
	ErrFailed = errors.New("the record has failed")
)
