package eap

import (
	"adit/suite"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
)

// Session is one authentication, as server or as peer. It belongs to one goroutine
// at a time.
type Session interface {
	// Next takes the whole packet that arrived and returns what is to be done. A
	// server begins with nil. An error says that the session is over and has failed;
	// the step may then still hold a last packet for the other side. in is not kept.
	//
	// Next returns at once, save that TLS methods call the caller's VerifyPeer and
	// signers, and calculate for milliseconds.
	Next(in []byte) (Step, error)
	// Close ends the session and overwrites its secrets. It may be called at any time
	// between two calls of Next, and repeatedly.
	Close()
}

// Step is what follows from a packet.
type Step struct {
	// Out is the packet to send, nil for none. It is the caller's.
	Out []byte
	// Done: nothing more is expected. Success tells how it ended.
	Done, Success bool
	// Failing is why the method has failed while its last word, Out, is on the way (a TLS
	// alert, MSCHAPv2's Failure): the other side may never answer it. Servers alone tell.
	Failing error

	// What follows is set with Success alone.

	// MSK and EMSK are the keys that the method derived (RFC 5247 §1.4), 64 bytes
	// each, nil where the method derives none (EMSK: also with MSCHAPv2). They are
	// the caller's to overwrite.
	MSK, EMSK suite.Key
	// Identity is who was authenticated: the identity whose secret was proven or for
	// which VerifyPeer accepted the certificate. It may differ from what an Identity
	// response claimed and may hold any bytes; compare it, not the claim. On the
	// peer it is the own identity.
	Identity string
	// Method is the outer method that succeeded.
	Method Type
}

// Secret is what is known about an identity: a password, the NT hash of one
// (RFC 2759 §8.3), or both.
type Secret struct {
	Password suite.Key // UTF-8
	NTHash   suite.Key // 16 bytes
}

// randomSecret stands for the secret of somebody unknown, so that the same is
// calculated as with a password.
func randomSecret() Secret {
	var b [10]byte
	rand.Read(b[:])
	return Secret{Password: upperHex(b[:])}
}

// clone copies a secret, so that Zero doesn't reach the caller's.
func (s Secret) clone() Secret {
	return Secret{Password: append(suite.Key(nil), s.Password...), NTHash: append(suite.Key(nil), s.NTHash...)}
}

func (s Secret) zero() {
	s.Password.Zero()
	s.NTHash.Zero()
}

// ntHash is the hash of MSCHAPv2, which is the caller's to overwrite; ok is false if
// the secret has neither form.
func (s Secret) ntHash() (hash suite.Key, ok bool) {
	switch {
	case len(s.NTHash) == ntHashLen:
		return append(suite.Key(nil), s.NTHash...), true
	case s.Password != nil:
		return ntPasswordHash(s.Password), true
	}
	return nil, false
}

// matches compares a password that came in the clear, in time that tells nothing
// about the secret.
func (s Secret) matches(password []byte) bool {
	if s.Password != nil {
		a, b := sha256.Sum256(password), sha256.Sum256(s.Password)
		return subtle.ConstantTimeCompare(a[:], b[:]) == 1
	}
	h := ntPasswordHash(password)
	defer h.Zero()
	return len(s.NTHash) == ntHashLen && h.Equal(s.NTHash)
}

// secretOf asks the caller for an identity's secret. For somebody unknown it returns
// a random one and the reason: the caller goes the same way and fails at its end.
func secretOf(lookup func(string) (Secret, bool), identity string) (Secret, error) {
	if lookup != nil {
		if s, ok := lookup(identity); ok && (s.Password != nil || len(s.NTHash) == ntHashLen) {
			return s.clone(), nil
		}
	}
	return randomSecret(), fmt.Errorf("eap: %w: no secret for %q", ErrUnknownIdentity, identity)
}

// method is one side of one method, below the packet: it sees and makes the data
// behind the type.
type method interface {
	// next takes the data of the packet that came, nil on a server's first call, and
	// returns the data of the packet to send, whose identifier is id. done says that
	// this side is content: a server sends Success instead of out; a peer sends out
	// and then accepts a Success. With an error, data that isn't nil is still to be
	// sent and the answer to it awaited.
	next(id uint8, in []byte) (out []byte, done bool, err error)
	// keys hands the keys over, after done.
	keys() (msk, emsk suite.Key)
	// identity is who was authenticated, "" for the one of the session.
	identity() string
	close()
}

// failing is the part of methods that say something before they fail.
type failing interface {
	// failing is why the answer to the last word is a failure whatever it is.
	failing() error
}

// keyless is the part of methods that derive nothing and identify nobody anew.
type keyless struct{}

func (keyless) keys() (msk, emsk suite.Key) { return nil, nil }
func (keyless) identity() string            { return "" }
