package control

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/control/problem"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/store"
)

const (
	contentTypeLines   = "text/plain"
	contentTypeRecords = "application/x-ndjson"

	// maxImportLine bounds one line, maxKeyValue the value of a key.
	maxImportLine = 8 << 10
	maxKeyValue   = 1024
	// maxImportFaults is how many faults are collected before an import gives up.
	maxImportFaults = 100
	// maxImportListed is how many keys the answer lists.
	maxImportListed = 1000
	// maxImportBytes and importTime bound an import as a whole.
	maxImportBytes = 4 << 30
	importTime     = time.Hour
)

// importRecord is one key of an import. The value itself is forgotten as soon as it is hashed.
type importRecord struct {
	line         int
	hash         snapshot.CredentialHash
	subscription string
	expiresAt    int64
}

// importer reads an import batch by batch. Once it has found a fault nothing more is committed, but the rest is
// still read for its faults.
type importer struct {
	s            *Server
	q            *request
	subscription string // of the path; "" if each record names its own
	records      bool
	batch        []importRecord
	faults       []v1.Fault
	result       v1.ImportResult
	many         bool // there are more keys than are listed
}

// importKeys takes one key a line and commits them in change sets of Options.ImportBatch. What is there already is not
// changed, so an import that broke off is simply repeated.
func (s *Server) importKeys(q *request) error {
	ctype, err := q.contentType(contentTypeLines, contentTypeRecords)
	if err != nil {
		return err
	}
	im := importer{s: s, q: q, subscription: q.r.PathValue("name"), records: ctype == contentTypeRecords}
	if !im.records && im.subscription == "" {
		return problem.New(problem.UnsupportedMediaType, "keys of many subscriptions are sent as %s", contentTypeRecords)
	}
	version := s.store.State().Version()
	im.result = v1.ImportResult{Epoch: version.Epoch, Seq: version.Seq, DryRun: q.dryRun}
	if im.subscription != "" {
		if _, _, err := q.subscription(s.store.State()); err != nil {
			return err
		}
	}
	if err := im.run(q.body(maxImportBytes, importTime)); err != nil {
		return err
	}
	im.result.Wait = s.keysArrived(q, store.Version{Epoch: im.result.Epoch, Seq: im.result.Seq})
	return q.reply(http.StatusOK, im.result)
}

func (im *importer) run(body io.Reader) error {
	lines := bufio.NewReaderSize(body, maxImportLine)
	for n := 1; ; n++ {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return im.refuse(append(im.faults, v1.Fault{Line: n, Code: "line-too-long", Message: fmt.Sprintf("the line is longer than %d bytes", maxImportLine)}))
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read line %d of the import: %w", n, err)
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			im.add(n, line)
		}
		done := errors.Is(err, io.EOF)
		if len(im.batch) == im.s.opts.ImportBatch || done && len(im.batch) > 0 {
			if err := im.flush(); err != nil {
				return err
			}
		}
		if len(im.faults) >= maxImportFaults || done && len(im.faults) > 0 {
			return im.refuse(im.faults)
		}
		if done {
			return nil
		}
	}
}

// refuse returns the refusal with the faults and with what was imported before them.
func (im *importer) refuse(faults []v1.Fault) error {
	e := &problem.Error{Code: problem.Invalid, Faults: faults, Detail: "the import has faults; nothing was changed"}
	if im.result.ChangeSets > 0 && !im.q.dryRun {
		e.Detail = fmt.Sprintf("the import has faults; %d keys of earlier lines are imported. Repeat it when the faults are corrected: what is there is not changed", im.result.Imported)
	}
	return e
}

// add reads one line into the batch.
func (im *importer) add(n int, line []byte) {
	rec := importRecord{line: n, subscription: im.subscription}
	value := line
	if im.records {
		var in v1.KeyImport
		dec := json.NewDecoder(bytes.NewReader(line))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&in); err != nil || dec.More() {
			// The error text may quote the line, and with it a key.
			im.fault(n, "", "syntax", "the line is not an object of subscription, key or sha256, and expiresAt", "")
			return
		}
		if rec.subscription == "" {
			rec.subscription = in.Subscription
		} else if in.Subscription != "" && in.Subscription != rec.subscription {
			im.fault(n, "subscription", "invalid-value", fmt.Sprintf("the record is of subscription %q, the import of %q", in.Subscription, rec.subscription), "send it to the import of the organization, which takes keys of many subscriptions")
			return
		}
		if !in.ExpiresAt.IsZero() {
			rec.expiresAt = in.ExpiresAt.Unix()
			if rec.expiresAt <= 0 {
				im.fault(n, "expiresAt", "invalid-value", "the time is before 1970", "")
				return
			}
		}
		if (in.Key == "") == (in.SHA256 == "") {
			im.fault(n, "", "required", "the record needs either key or sha256", "")
			return
		}
		if in.SHA256 != "" {
			if b, err := hex.DecodeString(in.SHA256); err != nil || len(b) != len(rec.hash) {
				im.fault(n, "sha256", "invalid-value", "not a SHA-256 in hexadecimal", "write 64 hexadecimal digits")
				return
			}
			hex.Decode(rec.hash[:], []byte(in.SHA256)) // decoded above
			im.batch = append(im.batch, rec)
			return
		}
		value = []byte(in.Key)
	}
	if !keyValue(value) {
		im.fault(n, "key", "invalid-value", fmt.Sprintf("not a key: 1 to %d visible ASCII characters are", maxKeyValue), "a key travels in a header field; import its SHA-256 if it is of other characters")
		return
	}
	rec.hash = snapshot.HashCredential(value)
	im.batch = append(im.batch, rec)
}

func keyValue(b []byte) bool {
	if len(b) == 0 || len(b) > maxKeyValue {
		return false
	}
	for _, c := range b {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

func (im *importer) fault(line int, path, code, message, remedy string) {
	im.faults = append(im.faults, v1.Fault{Line: line, Path: path, Code: code, Message: message, Remedy: remedy, Kind: string(v1.KindSubscription), Name: im.subscription})
}

// flush commits the batch, or only checks it if there has been a fault.
func (im *importer) flush() error {
	batch := im.batch
	im.batch = im.batch[:0]
	var made, found []snapshot.Credential
	var faults []v1.Fault
	out, err := im.s.commit(im.q.ctx(), change{
		who: im.q.who, info: im.q.info("import keys"), dryRun: im.q.dryRun || len(im.faults) > 0,
		build: func(state store.State) (edit, error) {
			var e edit
			made, found, faults = im.credentials(state, batch)
			if len(faults) > 0 {
				return edit{}, nil
			}
			e.credentials = made
			return e, nil
		},
	})
	if err != nil {
		if im.result.ChangeSets > 0 {
			im.s.log.WarnContext(im.q.ctx(), "an import of keys broke off", "request_id", im.q.id, "imported", im.result.Imported, "err", err)
		}
		return err
	}
	im.faults = append(im.faults, faults...)
	if len(im.faults) > 0 {
		return nil
	}
	im.result.Imported += out.keys
	im.result.Unchanged += len(found)
	im.list(made)
	im.list(found)
	im.result.Epoch, im.result.Seq = out.version.Epoch, out.version.Seq
	if out.keys > 0 {
		im.result.ChangeSets++
	}
	return nil
}

// list adds keys to those that the answer lists; it lists none if they are too many.
func (im *importer) list(credentials []snapshot.Credential) {
	if im.many = im.many || len(im.result.Keys)+len(credentials) > maxImportListed; im.many {
		im.result.Keys = nil
		return
	}
	for _, c := range credentials {
		im.result.Keys = append(im.result.Keys, keyOf(c))
	}
}

// credentials returns what of the batch is new or different in state, and what is there already.
func (im *importer) credentials(state store.State, batch []importRecord) (out, unchanged []snapshot.Credential, faults []v1.Fault) {
	now := im.s.opts.Now().Unix()
	organization := im.q.organization
	table := state.CredentialTable(organization)
	specs := map[string]*v1.SubscriptionSpec{}
	first := make(map[snapshot.CredentialHash]int, len(batch)) // where in out
	fault := func(r importRecord, path, code, message, remedy string) {
		faults = append(faults, v1.Fault{Line: r.line, Kind: string(v1.KindSubscription), Name: r.subscription, Path: path, Code: code, Message: message, Remedy: remedy})
	}
	for _, r := range batch {
		if len(faults) >= maxImportFaults {
			break
		}
		spec, ok := specs[r.subscription]
		if !ok {
			_, spec, _ = subscription(state, organization, r.subscription)
			specs[r.subscription] = spec
		}
		if spec == nil {
			fault(r, "subscription", "dangling-reference", fmt.Sprintf("there is no subscription %q in organization %q", r.subscription, organization), "apply the subscription first")
			continue
		}
		have, exists := table.Lookup(r.hash)
		if at, twice := first[r.hash]; twice {
			have, exists = out[at], true
		}
		switch {
		case !exists:
			first[r.hash] = len(out)
			out = append(out, snapshot.Credential{
				Hash: r.hash, ID: newID("key-"), Organization: organization, Subscription: r.subscription,
				Application: spec.Application, Product: spec.Product, Slot: snapshot.SlotImported, State: stateOf(spec),
				CreatedAt: now, ExpiresAt: r.expiresAt,
			})
		case have.Subscription != r.subscription:
			fault(r, "key", "key-in-use", fmt.Sprintf("the key belongs to subscription %q already", have.Subscription), "a key is of one subscription: give this one another key")
		case have.State == snapshot.StateRevoked:
			fault(r, "key", "key-revoked", fmt.Sprintf("the key %s was revoked", have.ID), "a revoked key never comes back: give the subscription another one")
		case have.ExpiresAt == r.expiresAt:
			unchanged = append(unchanged, have)
		default:
			have.ExpiresAt = r.expiresAt
			if at, twice := first[r.hash]; twice {
				out[at] = have
			} else {
				first[r.hash] = len(out)
				out = append(out, have)
			}
		}
	}
	return out, unchanged, faults
}
