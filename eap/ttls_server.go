package eap

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"slices"
)

// ttlsServer is the server of EAP-TTLSv0 (RFC 5281): TLS without a certificate of
// the peer, then a method inside.
type ttlsServer struct {
	framer
	tlsKeys
	cfg    *ServerConfig
	tunnel *tlsTunnel
	inner  *server // EAP inside, once the peer chose it
	who    string  // authenticated inside
	// content: MS-CHAP-V2 without EAP is proven, the acknowledgement of our proof due.
	content bool
	failed  error // why the alert was sent whose acknowledgement is due
}

func newTTLSServer(cfg *ServerConfig) method {
	return &ttlsServer{framer: cfg.TLS.framer(TypeTTLS), cfg: cfg, tunnel: cfg.TLS.serverTunnel(TypeTTLS, "")}
}

func (s *ttlsServer) next(_ uint8, in []byte) ([]byte, bool, error) {
	if in == nil {
		return []byte{flagStart}, false, nil
	}
	msg, reply, err := s.receive(in)
	switch {
	case err != nil || reply != nil:
		return reply, false, err
	case s.failed != nil:
		return nil, false, s.failed
	case s.content && len(msg) == 0:
		return nil, true, s.derive(s.tunnel)
	case s.content || len(msg) == 0:
		return nil, false, unexpected("TTLS message in the wrong place")
	}
	out, err := s.tunnel.exchange(msg)
	if err != nil {
		if why := s.failing(); why != nil {
			return nil, false, why // the peer heard so inside, and closes the tunnel
		}
		if len(out) == 0 {
			return nil, false, err
		}
		s.failed = err
		return s.send(out), false, nil
	}
	data := s.tunnel.read()
	if len(data) == 0 {
		if len(out) == 0 && !s.tunnel.established {
			return nil, false, unexpected("incomplete TLS message")
		}
		// With TLS 1.3 the handshake can end without a word of ours.
		return s.reply(out), false, nil
	}
	return s.phase2(out, data)
}

func (s *ttlsServer) failing() error {
	if s.failed == nil && s.inner != nil {
		return s.inner.failing()
	}
	return s.failed
}

// phase2 takes what came through the tunnel (RFC 5281 §7.2).
func (s *ttlsServer) phase2(out, data []byte) ([]byte, bool, error) {
	defer clear(data) // may be a password
	avps, err := sortAVPs(data)
	if err != nil {
		return nil, false, err
	}
	defer clear(avps.eap)
	var answer []byte
	done := false
	switch {
	case avps.eap != nil:
		answer, done, err = s.phase2EAP(avps.eap)
	case s.inner != nil:
		err = unexpected("inside TTLS another method than EAP, after EAP")
	case avps.response != nil && slices.Contains(s.cfg.Tunnelled, TypeMSCHAPv2):
		answer, err = s.phase2MSCHAPv2(avps)
	case avps.password != nil && slices.Contains(s.cfg.Tunnelled, TypeGTC):
		done, err = true, s.phase2PAP(avps)
	default:
		err = fmt.Errorf("eap: %w inside TTLS: we have %v", ErrMethods, s.cfg.Tunnelled)
	}
	if err != nil {
		return nil, false, err
	}
	if done {
		return nil, true, s.derive(s.tunnel)
	}
	more, err := s.tunnel.write(answer)
	if err != nil {
		return nil, false, err
	}
	return s.send(append(out, more...)), false, nil
}

// phase2EAP runs a server inside. Its Success stays inside: the outer one says it.
func (s *ttlsServer) phase2EAP(packet []byte) (answer []byte, done bool, err error) {
	if s.inner == nil {
		s.inner = newInnerServer(*s.cfg)
	}
	step, err := s.inner.Next(packet)
	step.MSK.Zero()
	if err != nil {
		return nil, false, err
	}
	if step.Done {
		s.who = step.Identity
		return nil, true, nil
	}
	return appendAVPs(AVP{Code: avpEAPMessage, Data: step.Out}), false, nil
}

// challengeTTLS is the challenge that nobody sends: both take it from the tunnel, its
// last byte is the Ident (RFC 5281 §11.1, RFC 9427 §2.4).
func challengeTTLS(t *tlsTunnel) (challenge []byte, ident byte, err error) {
	b, err := t.export("ttls challenge", nil, challengeLen+1)
	if err != nil {
		return nil, 0, err
	}
	return b[:challengeLen], b[challengeLen], nil
}

// phase2MSCHAPv2 is MS-CHAP-V2 in attributes (RFC 5281 §11.2.4).
func (s *ttlsServer) phase2MSCHAPv2(a phase2AVPs) ([]byte, error) {
	challenge, ident, err := challengeTTLS(s.tunnel)
	if err != nil {
		return nil, err
	}
	// Ident, flags, Peer-Challenge, 8 reserved bytes, NT-Response.
	const size = 2 + challengeLen + 8 + ntResponseLen
	switch {
	case len(a.response) != size || len(a.userName) == 0 || len(a.userName) > maxNameMSCHAPv2:
		return nil, malformed("MS-CHAP2-Response AVP")
	case a.response[0] != ident || subtle.ConstantTimeCompare(a.challenge, challenge) != 1:
		return nil, fmt.Errorf("eap: %w: MS-CHAP challenge is not that of the tunnel", ErrPassword)
	}
	peerChallenge, ntResponse := a.response[2:2+challengeLen], a.response[size-ntResponseLen:]
	proof, msk, err := verifyMSCHAPv2(s.cfg.Secret, challenge, peerChallenge, ntResponse, a.userName)
	if err != nil {
		return nil, err
	}
	msk.Zero()
	s.who, s.content = string(a.userName), true
	text := append([]byte{ident, 'S', '='}, upperHex(proof)...)
	return appendAVPs(AVP{Code: avpMSCHAP2Success, Vendor: vendorMicrosoft, Data: text}), nil
}

// phase2PAP is a password, filled up with zeros (RFC 5281 §11.2.5).
func (s *ttlsServer) phase2PAP(a phase2AVPs) error {
	password := bytes.TrimRight(a.password, "\x00")
	if len(a.userName) == 0 || len(a.userName) > maxIdentity || len(password) == 0 || len(password) > maxPassword {
		return malformed("PAP name or password")
	}
	secret, unknown := secretOf(s.cfg.Secret, string(a.userName))
	defer secret.zero()
	right := secret.matches(password)
	if unknown != nil {
		return unknown
	}
	if !right {
		return fmt.Errorf("eap: PAP: %w for %q", ErrPassword, a.userName)
	}
	s.who = string(a.userName)
	return nil
}

func (s *ttlsServer) identity() string { return s.who }

func (s *ttlsServer) close() {
	s.zero()
	if s.inner != nil {
		s.inner.Close()
	}
	s.tunnel.close()
}
