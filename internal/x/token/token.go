// Package token makes values that grant something to whoever holds them: keys of subscriptions and bearer tokens of
// principals.
//
// A token is a prefix, 256 random bits and a checksum, all in letters and digits: a scanner of source code knows it by
// its prefix, and a token that lost a character is told from one that was revoked. The checksum protects from
// mistakes, not from anybody: only the random bits do that. What is stored of a token is [Hash]; with 256 random
// bits a plain SHA-256 cannot be guessed, so it needs neither salt nor stretching.
package token

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"hash/crc32"
	"math/big"
	"strings"
)

const (
	alphabet    = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	secretChars = 43 // 62^43 > 2^256
	sumChars    = 6  // 62^6 > 2^32
)

// Size is the length of a token without its prefix.
const Size = secretChars + sumChars

// New returns a fresh token that begins with prefix.
func New(prefix string) string {
	var secret [32]byte
	rand.Read(secret[:]) // never fails (crypto/rand)
	return encode(prefix, secret)
}

func encode(prefix string, secret [32]byte) string {
	body := prefix + base62(new(big.Int).SetBytes(secret[:]), secretChars)
	return body + checksum(body)
}

// Check tells whether s has the form of a token with that prefix. It says nothing about whether the token is known.
func Check(prefix, s string) error {
	body, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return fmt.Errorf("does not begin with %q", prefix)
	}
	if len(body) != Size {
		return fmt.Errorf("is %d characters long, not %d", len(s), len(prefix)+Size)
	}
	if sum := checksum(s[:len(s)-sumChars]); subtle.ConstantTimeCompare([]byte(sum), []byte(s[len(s)-sumChars:])) != 1 {
		return fmt.Errorf("does not match its checksum: a character was lost or changed")
	}
	return nil
}

// Hash returns what is stored of a token.
func Hash(s string) [sha256.Size]byte { return sha256.Sum256([]byte(s)) }

func checksum(body string) string {
	return base62(new(big.Int).SetUint64(uint64(crc32.ChecksumIEEE([]byte(body)))), sumChars)
}

// base62 writes n in exactly so many digits, which must suffice.
func base62(n *big.Int, digits int) string {
	out := make([]byte, digits)
	base, digit := big.NewInt(int64(len(alphabet))), new(big.Int)
	for i := digits - 1; i >= 0; i-- {
		n.QuoRem(n, base, digit)
		out[i] = alphabet[digit.Int64()]
	}
	return string(out)
}
