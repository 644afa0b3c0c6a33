package eap

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"

	"adit/suite"
)

type mschapv2Server struct {
	cfg       *ServerConfig
	challenge [challengeLen]byte
	id        uint8 // MS-CHAPv2-ID of the challenge
	retries   int
	// proven: the NT-Response was right; name and msk are set and the peer's
	// Success response is due.
	proven bool
	name   string
	msk    suite.Key
	// refused is why, once the last Failure request was sent.
	refused error
}

func newMSCHAPv2Server(cfg *ServerConfig) *mschapv2Server {
	return &mschapv2Server{cfg: cfg, retries: cfg.Retries}
}

func (s *mschapv2Server) next(id uint8, in []byte) ([]byte, bool, error) {
	if in == nil {
		s.id = id
		rand.Read(s.challenge[:])
		return appendMSCHAPv2(opChallenge, id, []byte{challengeLen}, s.challenge[:], []byte(s.cfg.ServerName)), false, nil
	}
	if s.refused != nil {
		return nil, false, s.refused
	}
	op, err := opMSCHAPv2(in)
	switch {
	case err != nil:
		return nil, false, err
	case op == opFailure && s.proven:
		return nil, false, fmt.Errorf("eap: MSCHAPv2: %w: the peer refused our proof", ErrUnexpected)
	case op == opSuccess && s.proven:
		return nil, true, nil
	case op == opResponse && !s.proven:
		out, err := s.verify(in)
		return out, false, err
	}
	return nil, false, unexpected(fmt.Sprintf("MSCHAPv2 OpCode %d", op))
}

func (s *mschapv2Server) failing() error { return s.refused }

func (s *mschapv2Server) verify(in []byte) ([]byte, error) {
	_, body, err := bodyMSCHAPv2(in)
	if err != nil {
		return nil, err
	}
	peerChallenge, ntResponse, name, err := responseMSCHAPv2(body)
	if err != nil {
		return nil, err
	}
	proof, msk, err := verifyMSCHAPv2(s.cfg.Secret, s.challenge[:], peerChallenge, ntResponse, name)
	if err != nil {
		return s.refuse(err), nil
	}
	s.proven, s.name, s.msk = true, string(name), msk
	return appendMSCHAPv2(opSuccess, s.id, []byte("S="), upperHex(proof), []byte(" M=Welcome")), nil
}

// refuse sends a Failure request: with R=1 and a new challenge while the peer may try
// again, else as the method's last word.
func (s *mschapv2Server) refuse(why error) []byte {
	rand.Read(s.challenge[:])
	retry := 0
	if s.retries > 0 {
		s.retries--
		retry = 1
	} else {
		s.refused = why
	}
	text := fmt.Sprintf("E=%d R=%d C=%s V=3 M=Authentication failed", errorAuthentication, retry, upperHex(s.challenge[:]))
	return appendMSCHAPv2(opFailure, s.id, []byte(text))
}

// verifyMSCHAPv2 judges an NT-Response and returns the authenticator response and
// the MSK. An unknown name costs the same as a wrong password.
func verifyMSCHAPv2(lookup func(string) (Secret, bool), challenge, peerChallenge, ntResponse, name []byte) (proof []byte, msk suite.Key, err error) {
	secret, unknown := secretOf(lookup, string(name))
	defer secret.zero()
	hash, _ := secret.ntHash()
	defer hash.Zero()
	ch := challengeHash(peerChallenge, challenge, name)
	right := subtle.ConstantTimeCompare(challengeResponse(ch, hash), ntResponse) == 1
	if unknown != nil {
		return nil, nil, unknown
	}
	if !right {
		return nil, nil, fmt.Errorf("eap: MSCHAPv2: %w for %q", ErrPassword, name)
	}
	return authenticatorResponse(hash, ntResponse, ch), mskMSCHAPv2(hash, ntResponse), nil
}

func (s *mschapv2Server) keys() (msk, emsk suite.Key) {
	msk, s.msk = s.msk, nil
	return msk, nil
}

func (s *mschapv2Server) identity() string { return s.name }

func (s *mschapv2Server) close() { s.msk.Zero() }
