package eap

import (
	"crypto/md5"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
)

// MD5-Challenge (RFC 3748 §5.4) is CHAP (RFC 1994) in EAP: a value with its length
// in front, then a name. It needs the password itself, gives no key and doesn't
// authenticate the server.

// chapValue is the Response Value of RFC 1994 §4.1.
func chapValue(id uint8, secret, challenge []byte) [md5.Size]byte {
	h := md5.New()
	h.Write([]byte{id})
	h.Write(secret)
	h.Write(challenge)
	return [md5.Size]byte(h.Sum(nil))
}

func parseValue(data []byte) (value, name []byte, err error) {
	if len(data) < 1 || data[0] == 0 || len(data)-1 < int(data[0]) {
		return nil, nil, malformed("MD5 value size")
	}
	n := 1 + int(data[0])
	return data[1:n], data[n:], nil
}

func appendValue(value []byte, name string) []byte {
	return append(append([]byte{byte(len(value))}, value...), name...)
}

type md5Server struct {
	keyless
	name      string
	secret    Secret
	unknown   error
	id        uint8
	challenge [md5.Size]byte
}

func newMD5Server(cfg *ServerConfig, identity string) *md5Server {
	s := &md5Server{name: cfg.ServerName}
	s.secret, s.unknown = secretOf(cfg.Secret, identity)
	if s.secret.Password == nil {
		s.secret = randomSecret()
		s.unknown = fmt.Errorf("eap: %w: MD5 needs the password of %q, not its hash", ErrUnknownIdentity, identity)
	}
	return s
}

func (s *md5Server) next(id uint8, in []byte) ([]byte, bool, error) {
	if in == nil {
		s.id = id
		rand.Read(s.challenge[:])
		return appendValue(s.challenge[:], s.name), false, nil
	}
	value, _, err := parseValue(in)
	if err != nil {
		return nil, false, err
	}
	want := chapValue(s.id, s.secret.Password, s.challenge[:])
	right := subtle.ConstantTimeCompare(value, want[:]) == 1
	if s.unknown != nil {
		return nil, false, s.unknown
	}
	if !right {
		return nil, false, fmt.Errorf("eap: MD5: %w", ErrPassword)
	}
	return nil, true, nil
}

func (s *md5Server) close() { s.secret.zero() }

type md5Peer struct {
	keyless
	secret   Secret // the session's
	name     string
	answered bool
}

func (p *md5Peer) next(id uint8, in []byte) ([]byte, bool, error) {
	challenge, _, err := parseValue(in)
	if err != nil {
		return nil, false, err
	}
	if p.answered {
		return nil, false, unexpected("second MD5 challenge")
	}
	p.answered = true
	v := chapValue(id, p.secret.Password, challenge)
	return appendValue(v[:], p.name), true, nil
}

func (p *md5Peer) close() {}
