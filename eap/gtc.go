package eap

import "fmt"

// Generic Token Card (RFC 3748 §5.6) as everybody uses it: the peer answers with its
// password, readable to the server.

type gtcServer struct {
	keyless
	secret  Secret
	unknown error
}

func newGTCServer(cfg *ServerConfig, identity string) *gtcServer {
	s := &gtcServer{}
	s.secret, s.unknown = secretOf(cfg.Secret, identity)
	return s
}

func (s *gtcServer) next(_ uint8, in []byte) ([]byte, bool, error) {
	if in == nil {
		return []byte("Password: "), false, nil
	}
	if len(in) == 0 || len(in) > maxPassword {
		return nil, false, malformed("GTC password empty or too long")
	}
	right := s.secret.matches(in)
	if s.unknown != nil {
		return nil, false, s.unknown
	}
	if !right {
		return nil, false, fmt.Errorf("eap: GTC: %w", ErrPassword)
	}
	return nil, true, nil
}

func (s *gtcServer) close() { s.secret.zero() }

type gtcPeer struct {
	keyless
	secret   Secret // the session's
	answered bool
}

func (p *gtcPeer) next(uint8, []byte) ([]byte, bool, error) {
	if p.answered {
		return nil, false, unexpected("second GTC prompt")
	}
	p.answered = true
	return p.secret.Password, true, nil
}

func (p *gtcPeer) close() {}
