package serve

import (
	"hansa.dev/hansa/internal/feed/wire"
	"hansa.dev/hansa/internal/snapshot"
)

// source is a content as the feed looks at it: pieces with keys, in 4096 buckets. The key of a credential is its hash.
type source interface {
	snapshot.Content
	digest(bucket int) snapshot.Hash
	// changedSince returns the keys under which the content differs from old; ok is false if they are more than limit.
	changedSince(old source, limit int) (keys []string, ok bool)
	// appendChange appends the change that brings a follower to what the content has under the key.
	appendChange(dst []byte, key string) []byte
	// appendBucket appends what a follower needs of a bucket that differs: changes, or a listing to choose from.
	appendBucket(changes, listing []byte, bucket int, theirs *wire.Digests) ([]byte, []byte)
}

// configSource is the configuration of a gateway group.
type configSource struct{ *snapshot.Set }

func (c configSource) digest(bucket int) snapshot.Hash { return c.BucketHash(bucket) }

func (c configSource) changedSince(old source, limit int) ([]string, bool) {
	was, ok := old.(configSource)
	if !ok {
		return nil, false
	}
	puts, dels := c.Diff(was.Set)
	if len(puts)+len(dels) > limit {
		return nil, false
	}
	keys := make([]string, 0, len(puts)+len(dels))
	for _, e := range puts {
		keys = append(keys, e.Key)
	}
	return append(keys, dels...), true
}

func (c configSource) appendChange(dst []byte, key string) []byte {
	if e, ok := c.Get(key); ok {
		return wire.AppendPut(dst, e)
	}
	return wire.AppendDelete(dst, key)
}

func (c configSource) appendBucket(changes, listing []byte, bucket int, theirs *wire.Digests) ([]byte, []byte) {
	if !theirs.Empty(bucket) {
		return changes, wire.AppendListing(listing, c.Set, bucket)
	}
	for e := range c.Bucket(bucket) {
		changes = wire.AppendPut(changes, e)
	}
	return changes, listing
}

// credentialSource is the credentials of an organization.
type credentialSource struct{ *snapshot.Credentials }

func (c credentialSource) digest(bucket int) snapshot.Hash { return c.Shard(bucket).Digest() }

func (c credentialSource) changedSince(old source, limit int) ([]string, bool) {
	was, ok := old.(credentialSource)
	if !ok {
		return nil, false
	}
	var keys []string
	for change := range c.Changes(was.Credentials) {
		if len(keys) == limit {
			return nil, false
		}
		keys = append(keys, string(change.Credential.Hash[:]))
	}
	return keys, true
}

func (c credentialSource) appendChange(dst []byte, key string) []byte {
	hash := snapshot.CredentialHash([]byte(key))
	credential, ok := c.Lookup(hash)
	credential.Hash = hash
	return wire.AppendCredential(dst, snapshot.CredentialChange{Credential: credential, Remove: !ok})
}

// appendBucket sends shards whole: their records are small, and which of them differ could only be told by listing
// hashes that take a third of their room.
func (c credentialSource) appendBucket(changes, listing []byte, bucket int, _ *wire.Digests) ([]byte, []byte) {
	return wire.AppendSegment(changes, bucket, c.Shard(bucket)), listing
}
