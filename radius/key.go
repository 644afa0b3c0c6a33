package radius

import (
	"fmt"
	"io"
)

// Key is a shared secret or key material. It never prints: every fmt verb, slog's
// handlers and encoding/json show [key] instead.
type Key []byte

const keyShown = "[key]"

// String hides the key.
func (Key) String() string { return keyShown }

// Format hides the key under every verb and flag.
func (Key) Format(s fmt.State, _ rune) { io.WriteString(s, keyShown) }

// MarshalText hides the key in text encodings, slog's handlers and JSON among them.
func (Key) MarshalText() ([]byte, error) { return []byte(keyShown), nil }

// Zero overwrites the key.
func (k Key) Zero() { clear(k) }
