package eap

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"
)

// EAP-MSCHAPv2 (draft-kamath-pppext-eap-mschapv2-02 §2):
//
//	+--------+---------------+---------------+------
//	| OpCode | MS-CHAPv2-ID  |   MS-Length   | Data …
//	+--------+---------------+---------------+------
//
// MS-Length counts from the OpCode. The Success and Failure responses are an OpCode
// alone.
const (
	opChallenge = 1
	opResponse  = 2
	opSuccess   = 3
	opFailure   = 4

	headerMSCHAPv2 = 4
	// Peer-Challenge, 8 reserved bytes, NT-Response, flags.
	responseLen = challengeLen + 8 + ntResponseLen + 1

	// errorAuthentication is ERROR_AUTHENTICATION_FAILURE (RFC 2759 §6).
	errorAuthentication = 691
)

func appendMSCHAPv2(op, id uint8, parts ...[]byte) []byte {
	b := []byte{op, id, 0, 0}
	for _, p := range parts {
		b = append(b, p...)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

// bodyMSCHAPv2 checks the header and returns what is behind it. MS-Length may be
// shorter than the packet but never longer.
func bodyMSCHAPv2(data []byte) (id uint8, body []byte, err error) {
	if len(data) < headerMSCHAPv2 {
		return 0, nil, malformed("MSCHAPv2 message too short")
	}
	n := int(binary.BigEndian.Uint16(data[2:]))
	if n < headerMSCHAPv2 || n > len(data) {
		return 0, nil, malformed("MSCHAPv2 length field")
	}
	return data[1], data[headerMSCHAPv2:n], nil
}

func opMSCHAPv2(data []byte) (uint8, error) {
	if len(data) == 0 {
		return 0, malformed("empty MSCHAPv2 message")
	}
	return data[0], nil
}

// challengeMSCHAPv2 takes a Challenge apart: Value-Size, Challenge, Name.
func challengeMSCHAPv2(body []byte) (challenge []byte, err error) {
	if len(body) < 1+challengeLen || body[0] != challengeLen {
		return nil, malformed("MSCHAPv2 challenge size")
	}
	if len(body) > 1+challengeLen+maxNameMSCHAPv2 {
		return nil, malformed("MSCHAPv2 server name too long")
	}
	return body[1 : 1+challengeLen], nil
}

// responseMSCHAPv2 takes a Response apart.
func responseMSCHAPv2(body []byte) (peerChallenge, ntResponse, name []byte, err error) {
	if len(body) < 1+responseLen || body[0] != responseLen {
		return nil, nil, nil, malformed("MSCHAPv2 response size")
	}
	name = body[1+responseLen:]
	if len(name) == 0 || len(name) > maxNameMSCHAPv2 {
		return nil, nil, nil, malformed("MSCHAPv2 name empty or too long")
	}
	v := body[1:]
	return v[:challengeLen], v[challengeLen+8 : challengeLen+8+ntResponseLen], name, nil
}

// successProof finds the authenticator response in a Success message, "S=" and 40
// digits and perhaps " M=" and a text (RFC 2759 §5).
func successProof(message []byte) ([]byte, error) {
	s := string(message)
	if len(s) < 2+2*authResponseLen || !strings.HasPrefix(s, "S=") {
		return nil, malformed("MSCHAPv2 success without authenticator response")
	}
	if rest := s[2+2*authResponseLen:]; rest != "" && rest[0] != ' ' && rest[0] != 0 {
		return nil, malformed("MSCHAPv2 authenticator response too long")
	}
	proof, err := hex.DecodeString(s[2 : 2+2*authResponseLen])
	if err != nil {
		return nil, malformed("MSCHAPv2 authenticator response is not hexadecimal")
	}
	return proof, nil
}

// failureCode reads a Failure message, "E=… R=… C=… V=… M=…" (RFC 2759 §6). Of its
// fields only the error's number is of use to us: there is no other password to try.
// The challenge is checked nevertheless, since servers that garble it are attacks
// (CVE-2025-62291).
func failureCode(message []byte) (int, error) {
	code := -1
	text, _, _ := strings.Cut(string(message), "M=")
	for _, field := range strings.Fields(text) {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return 0, malformed("MSCHAPv2 failure field")
		}
		switch key {
		case "E":
			n, err := strconv.ParseUint(value, 10, 31)
			if err != nil {
				return 0, malformed("MSCHAPv2 error number")
			}
			code = int(n)
		case "C":
			if c, err := hex.DecodeString(value); err != nil || len(c) != challengeLen {
				return 0, malformed("MSCHAPv2 challenge of a failure")
			}
		}
	}
	if code < 0 {
		return 0, malformed("MSCHAPv2 failure without error number")
	}
	return code, nil
}
