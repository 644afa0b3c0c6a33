package suite

import (
	"crypto/subtle"
	"fmt"
	"io"
)

// Key is secret key material. It never prints: every fmt verb, slog's handlers
// and encoding/json show [key] instead.
//
// Two gaps are fmt's own: it calls no methods on unexported struct fields, so a
// struct that holds Keys there and may be printed needs a Format method; and %w
// outside Errorf prints raw bytes (go vet refuses it).
type Key []byte

const keyShown = "[key]"

// String hides the key.
func (Key) String() string { return keyShown }

// GoString hides the key.
func (Key) GoString() string { return keyShown }

// Format hides the key under every verb and flag.
func (Key) Format(s fmt.State, _ rune) { io.WriteString(s, keyShown) }

// MarshalText hides the key in text encodings, slog's handlers among them.
func (Key) MarshalText() ([]byte, error) { return []byte(keyShown), nil }

// MarshalJSON hides the key in JSON.
func (Key) MarshalJSON() ([]byte, error) { return []byte(`"` + keyShown + `"`), nil }

// Zero overwrites the key. Copies elsewhere, such as the round keys inside Go's
// own ciphers, are out of reach.
func (k Key) Zero() { clear(k) }

// Equal compares in constant time (for equal lengths).
func (k Key) Equal(other Key) bool { return subtle.ConstantTimeCompare(k, other) == 1 }
