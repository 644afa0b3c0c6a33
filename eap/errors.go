package eap

import (
	"errors"
	"fmt"
)

// Why a session failed. Next's errors wrap one of these; the text around it is for
// our own log and never for the other side.
var (
	// ErrMalformed: a packet or a message inside it breaks its format.
	ErrMalformed = errors.New("malformed")
	// ErrUnexpected: a well-formed packet that has no place here: another code,
	// type or step of the method than the one that is due.
	ErrUnexpected = errors.New("unexpected packet")
	// ErrIdentifier: an answer to another packet than the last.
	ErrIdentifier = errors.New("identifier is not that of the last packet")
	// ErrEarlySuccess: a Success before the method was content (CVE-2021-45079).
	ErrEarlySuccess = errors.New("success before the method was complete")
	// ErrFailure: the server sent a Failure.
	ErrFailure = errors.New("the server refused")
	// ErrMethods: no method that both sides want.
	ErrMethods = errors.New("no method in common")
	// ErrUnknownIdentity: no secret is known for the identity.
	ErrUnknownIdentity = errors.New("unknown identity")
	// ErrPassword: the proof doesn't fit to the identity's secret.
	ErrPassword = errors.New("wrong password")
	// ErrServer: the server could not prove that it knows the password.
	ErrServer = errors.New("the server's proof is wrong")
	// ErrTLS: the TLS handshake or the tunnel failed.
	ErrTLS = errors.New("TLS failed")
	// ErrLimit: the other side went beyond a limit of ours.
	ErrLimit = errors.New("limit exceeded")
	// ErrOver: Next after the end or after Close.
	ErrOver = errors.New("session is over")
	// ErrConfig: a configuration that cannot authenticate anybody.
	ErrConfig = errors.New("configuration")
)

func malformed(what string) error { return fmt.Errorf("eap: %w: %s", ErrMalformed, what) }

func unexpected(what string) error { return fmt.Errorf("eap: %w: %s", ErrUnexpected, what) }

func limit(what string) error { return fmt.Errorf("eap: %w: %s", ErrLimit, what) }
