// Package simbug holds the seeded bugs that prove the simulator's bite: places in
// esp, ike and ikev2 that do a known wrong thing when the program was built with
// the tag simbug and the bug's number was chosen.
//
// It owns the numbers and nothing else. Without the tag Chosen is the constant
// zero, every hook is a condition that the compiler knows to be false, and no
// code of a bug is in the program. Start reading at the constants; the hooks are
// where these are used, and internal/sim's bug test runs them.
package simbug

// Bug is the number of a seeded bug; 0 is none.
type Bug int

// The seeded bugs.
const (
	None Bug = iota
	// ReplayWindow takes ESP packets one number behind the anti-replay window.
	ReplayWindow
	// EarlyOutbound switches outbound traffic to a new Child SA before the peer's proof.
	EarlyOutbound
	// AuthUnchecked takes any AUTH payload for right.
	AuthUnchecked
	// ReusedIV seals every third IKE message with the IV of the one before.
	ReusedIV
	// LostDelete forgets to tell the peer that a rekeyed Child SA goes.
	LostDelete
	// RebuiltResponse answers a repeated request with new bytes.
	RebuiltResponse
	// NonceCompare lets one side of a simultaneous rekey compare the wrong way round.
	NonceCompare
	// SwappedKeys lets a responder take the initiator of the IKE SA for that of the exchange.
	SwappedKeys
	// NoWindow sends requests without waiting for answers.
	NoWindow
	// CookieUnchecked takes any cookie for ours.
	CookieUnchecked
	// StalePolicy leaves outbound traffic on a Child SA that is removed.
	StalePolicy
	// HalfOpenForever never gives up a half-open IKE SA.
	HalfOpenForever
	// Last bounds the numbers.
	Last
)

// String names the bug.
func (b Bug) String() string {
	if b < 0 || b >= Last {
		return "unknown"
	}
	return [Last]string{"none", "replay window off by one", "outbound switched too early", "AUTH not checked", "IV reused", "Delete lost", "response rebuilt",
		"wrong nonce compare in a collision", "keys swapped", "window ignored", "cookie not checked", "policy left on a removed SA", "half-open for ever"}[b]
}
