package sig

import (
	"crypto"
	_ "crypto/sha1" // method 1 alone; every other use is refused
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/binary"
	"fmt"
	"slices"
)

// Hash is a hash algorithm of signatures, by its number in the notify
// SIGNATURE_HASH_ALGORITHMS (RFC 7427 §7, RFC 8420 §2).
type Hash uint16

// The hash algorithms that are known. SHA1 occurs only with method 1, and is
// never offered. Identity means that the signature scheme takes the octets
// themselves (Ed25519, Ed448).
const (
	SHA1     Hash = 1
	SHA256   Hash = 2
	SHA384   Hash = 3
	SHA512   Hash = 4
	Identity Hash = 5
)

// limitHashes bounds the list of a peer: the registry has a dozen.
const limitHashes = 64

var hashes = map[Hash]struct {
	name, scheme string // as people write it; as it stands in the name of a scheme
	fn           crypto.Hash
}{
	SHA1:     {"sha1", "SHA1", crypto.SHA1},
	SHA256:   {"sha256", "SHA2_256", crypto.SHA256},
	SHA384:   {"sha384", "SHA2_384", crypto.SHA384},
	SHA512:   {"sha512", "SHA2_512", crypto.SHA512},
	Identity: {"identity", "IDENTITY", 0},
}

// String is the name as constraints spell it, sha256 or identity.
func (h Hash) String() string {
	if k, ok := hashes[h]; ok {
		return k.name
	}
	return fmt.Sprintf("hash(%d)", uint16(h))
}

// size is the length of the digest in bytes, 0 for Identity.
func (h Hash) size() int {
	if fn := hashes[h].fn; fn != 0 {
		return fn.Size()
	}
	return 0
}

// digest is what a signature scheme with this hash signs.
func (h Hash) digest(octets []byte) []byte {
	fn := hashes[h].fn
	if fn == 0 {
		return octets
	}
	d := fn.New()
	d.Write(octets)
	return d.Sum(nil)
}

// Offered are the hash algorithms that Verify accepts with method 14, to be
// announced in SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4). The slice is the caller's.
func Offered() []Hash { return []Hash{SHA256, SHA384, SHA512, Identity} }

// AppendHashes appends the data of a notify SIGNATURE_HASH_ALGORITHMS.
func AppendHashes(dst []byte, list []Hash) []byte {
	for _, h := range list {
		dst = binary.BigEndian.AppendUint16(dst, uint16(h))
	}
	return dst
}

// ParseHashes reads the data of a notify SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4),
// without doubles; unknown numbers stay in the list. The list is never nil without
// an error, so that an empty announcement differs from none (see Choose). Errors
// are ErrMalformed.
func ParseHashes(data []byte) ([]Hash, error) {
	if len(data)%2 != 0 || len(data) > 2*limitHashes {
		return nil, fmt.Errorf("%w: hash algorithms of %d bytes", ErrMalformed, len(data))
	}
	list := make([]Hash, 0, len(data)/2)
	for ; len(data) > 0; data = data[2:] {
		if h := Hash(binary.BigEndian.Uint16(data)); !slices.Contains(list, h) {
			list = append(list, h)
		}
	}
	return list, nil
}
