package content

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/store"
)

// Code says what an Op does. The numbers are in the record for ever.
type Code byte

// The codes.
const (
	CodePut        Code = 1 // payload: the JSON of the object
	CodeDelete     Code = 2 // payload: organization, kind, name
	CodeCredential Code = 3 // payload: organization, snapshot.AppendCredentialChange
	codeShard      Code = 4 // payload: organization, seq, number, segment; only in images
)

// MaxOp is the size of the largest change of one resource, in bytes of its encoding.
const MaxOp = 64 << 20

// Op is one change, as it stands in the record: the length of what follows, the code, the payload.
type Op struct {
	Code    Code
	payload []byte
}

// AppendPut appends the change that puts o. The size of one resource is limited to MaxOp.
func AppendPut(dst []byte, o *v1.Object) ([]byte, error) {
	b, err := json.Marshal(o)
	if err != nil {
		return dst, fmt.Errorf("encode %s: %w", o.Key(), err)
	}
	if len(b)+1 > MaxOp {
		return dst, fmt.Errorf("%s takes %d bytes, more than the %d that one resource may: split it", o.Key(), len(b), MaxOp-1)
	}
	return appendOp(dst, CodePut, b), nil
}

// AppendDelete appends the change that deletes the resource with key k.
func AppendDelete(dst []byte, k v1.Key) []byte {
	return appendOp(dst, CodeDelete, appendKey(nil, k))
}

// appendKey appends the form of a key that parseKey reads.
func appendKey(dst []byte, k v1.Key) []byte {
	for _, s := range [...]string{k.Organization, string(k.Kind), k.Name} {
		dst = appendString(dst, s)
	}
	return dst
}

// AppendCredential appends the change of a credential.
func AppendCredential(dst []byte, c store.CredentialChange) ([]byte, error) {
	if err := c.Credential.Validate(); err != nil {
		return dst, err
	}
	var scratch [256]byte
	b := appendString(scratch[:0], c.Credential.Organization)
	b = snapshot.AppendCredentialChange(b, snapshot.CredentialChange{Credential: c.Credential, Remove: c.Remove})
	return appendOp(dst, CodeCredential, b), nil
}

func appendOp(dst []byte, code Code, payload []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(payload)+1))
	dst = append(dst, byte(code))
	return append(dst, payload...)
}

// Ops yields the changes that r holds. What is yielded is valid until the next one. It ends after the first error.
func Ops(r io.Reader) iter.Seq2[Op, error] {
	return func(yield func(Op, error) bool) {
		br := bufio.NewReaderSize(r, 64<<10)
		var buf []byte
		for {
			size, err := binary.ReadUvarint(br)
			if errors.Is(err, io.EOF) {
				return
			}
			if err == nil && (size == 0 || size > MaxOp) {
				err = fmt.Errorf("a change of %d bytes is not possible", size)
			}
			if err != nil {
				yield(Op{}, fmt.Errorf("read change: %w", err))
				return
			}
			if buf, err = readFull(br, buf, int(size)); err != nil {
				yield(Op{}, fmt.Errorf("read change of %d bytes: %w", size, err))
				return
			}
			if !yield(Op{Code: Code(buf[0]), payload: buf[1:]}, nil) {
				return
			}
		}
	}
}

// readFull reads size bytes into buf, which grows only as fast as the bytes really come.
func readFull(r io.Reader, buf []byte, size int) ([]byte, error) {
	const step = 1 << 20
	buf = buf[:0]
	for len(buf) < size {
		n := min(size-len(buf), step)
		at := len(buf)
		if cap(buf) < at+n {
			grown := make([]byte, at, min(size, max(at+n, 2*cap(buf))))
			copy(grown, buf)
			buf = grown
		}
		buf = buf[:at+n]
		if _, err := io.ReadFull(r, buf[at:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return buf, err
		}
	}
	return buf, nil
}

// IsCredential tells whether op changes a credential; otherwise it changes a resource.
func (op Op) IsCredential() bool { return op.Code == CodeCredential }

// Change decodes the change of a resource.
func (op Op) Change() (store.Change, error) {
	switch op.Code {
	case CodePut:
		o := new(v1.Object)
		if err := json.Unmarshal(op.payload, o); err != nil {
			return store.Change{}, fmt.Errorf("decode resource: %w", err)
		}
		return store.Change{Key: o.Key(), Object: o}, nil
	case CodeDelete:
		k, err := parseKey(op.payload)
		return store.Change{Key: k}, err
	}
	return store.Change{}, fmt.Errorf("change with the code %d is not known: a newer Hansa wrote it", op.Code)
}

// parseKey reads the key that is b.
func parseKey(b []byte) (v1.Key, error) {
	var parts [3]string
	for i := range parts {
		s, rest, ok := cutString(b)
		if !ok {
			return v1.Key{}, errors.New("decode key: it is cut short")
		}
		parts[i], b = string(s), rest
	}
	if len(b) != 0 {
		return v1.Key{}, errors.New("decode key: there is more than a key")
	}
	return v1.Key{Organization: parts[0], Kind: v1.Kind(parts[1]), Name: parts[2]}, nil
}

// CredentialChange decodes the change of a credential.
func (op Op) CredentialChange() (store.CredentialChange, error) {
	org, b, ok := cutString(op.payload)
	if !ok {
		return store.CredentialChange{}, errors.New("decode credential: its organization is cut short")
	}
	c, rest, err := snapshot.ParseCredentialChange(b)
	switch {
	case err != nil:
		return store.CredentialChange{}, err
	case len(rest) != 0:
		return store.CredentialChange{}, errors.New("decode credential: there is more than a credential")
	case c.Remove:
		c.Credential.Organization = string(org)
	case c.Credential.Organization != string(org):
		return store.CredentialChange{}, fmt.Errorf("decode credential: it is of %q and changed in %q", c.Credential.Organization, org)
	}
	return store.CredentialChange{Credential: c.Credential, Remove: c.Remove}, nil
}

// appendString appends the length of s and s.
func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// cutString cuts off what appendString appended.
func cutString(b []byte) (s, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(size)], b[n+int(size):], true
}
