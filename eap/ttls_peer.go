package eap

import (
	"crypto/subtle"
	"fmt"

	"adit/suite"
)

// ttlsPeer is the peer of EAP-TTLSv0 (RFC 5281). VerifyPeer has judged the server
// before anything goes into the tunnel.
type ttlsPeer struct {
	framer
	tlsKeys
	cfg     *PeerConfig
	tunnel  *tlsTunnel
	started bool
	inside  bool // phase 2 has begun
	content bool // the inner method is content with the server

	inner *peer  // Phase2EAP
	proof []byte // Phase2MSCHAPv2: the authenticator response that the server owes
	ident byte   // Phase2MSCHAPv2: in front of it
}

func newTTLSPeer(cfg *PeerConfig) method {
	return &ttlsPeer{framer: cfg.TLS.framer(TypeTTLS), cfg: cfg, tunnel: cfg.TLS.clientTunnel(TypeTTLS, cfg.ServerID)}
}

func (p *ttlsPeer) next(_ uint8, in []byte) ([]byte, bool, error) {
	if !p.started {
		return startClient(&p.started, &p.framer, p.tunnel, in)
	}
	msg, reply, err := p.receive(in)
	if err != nil || reply != nil {
		return reply, false, err
	}
	if len(msg) == 0 {
		return nil, false, unexpected("TTLS message in the wrong place")
	}
	out, err := p.tunnel.exchange(msg)
	if err != nil || !p.tunnel.established {
		return p.reply(out), false, err
	}
	answer, failed := p.phase2(p.tunnel.read())
	if failed != nil && answer == nil {
		return p.ack(), false, failed
	}
	if answer != nil {
		more, err := p.tunnel.write(answer)
		clear(answer) // may be a password
		if err != nil {
			return nil, false, err
		}
		out = append(out, more...)
	}
	return p.reply(out), p.content, failed
}

// phase2 answers what came through the tunnel, or begins if nothing has come. An
// error may come with an answer that tells the server.
func (p *ttlsPeer) phase2(data []byte) (answer []byte, err error) {
	begin := !p.inside
	if begin {
		p.inside = true
		if err := p.derive(p.tunnel); err != nil {
			return nil, err
		}
		if p.cfg.Phase2 == Phase2EAP {
			p.inner = newInnerPeer(*p.cfg)
		}
	}
	if len(data) == 0 {
		if begin {
			return p.begin()
		}
		return nil, nil // session tickets alone
	}
	avps, err := sortAVPs(data)
	switch {
	case err != nil:
		return nil, err
	case p.inner != nil && avps.eap != nil:
		return p.answerEAP(avps.eap)
	case p.proof != nil && avps.success != nil && !p.content:
		return nil, p.judge(avps.success)
	}
	return nil, unexpected("AVPs that nothing waits for")
}

// begin is the peer's first word in the tunnel.
func (p *ttlsPeer) begin() ([]byte, error) {
	name := AVP{Code: avpUserName, Data: []byte(p.cfg.Identity)}
	switch p.cfg.Phase2 {
	case Phase2MSCHAPv2:
		challenge, ident, err := challengeTTLS(p.tunnel)
		if err != nil {
			return nil, err
		}
		value, proof, msk := respondMSCHAPv2(p.cfg.Secret, challenge, name.Data)
		msk.Zero()
		p.proof, p.ident = proof, ident
		return appendAVPs(name,
			AVP{Code: avpChallenge, Vendor: vendorMicrosoft, Data: challenge},
			AVP{Code: avpMSCHAP2Response, Vendor: vendorMicrosoft, Data: append([]byte{ident, 0}, value...)}), nil
	case Phase2PAP:
		// The length is hidden up to 16 bytes (RFC 5281 §11.2.5).
		password := make(suite.Key, (len(p.cfg.Secret.Password)+15)&^15)
		defer password.Zero()
		copy(password, p.cfg.Secret.Password)
		p.content = true // the certificate was all that the server had to show
		return appendAVPs(name, AVP{Code: avpUserPassword, Data: password}), nil
	}
	// RFC 5281 §11.2.1: the identity, though nobody asked.
	return appendAVPs(AVP{Code: avpEAPMessage, Data: p.inner.response(TypeIdentity, name.Data)}), nil
}

// judge checks the MS-CHAP2-Success AVP: Ident, then the text of RFC 2759 §5.
func (p *ttlsPeer) judge(success []byte) error {
	if len(success) == 0 || success[0] != p.ident {
		return malformed("MS-CHAP2-Success AVP")
	}
	proof, err := successProof(success[1:])
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(proof, p.proof) != 1 {
		return fmt.Errorf("eap: MS-CHAP-V2: %w", ErrServer)
	}
	p.content = true
	return nil
}

// answerEAP runs the peer inside. A Success that comes inside, too, adds nothing, but
// may only come when the inner method is content.
func (p *ttlsPeer) answerEAP(packet []byte) ([]byte, error) {
	step, err := p.inner.Next(packet)
	step.MSK.Zero()
	switch {
	case err != nil:
		return nil, err
	case step.Done:
		return nil, nil
	}
	p.content = p.inner.ready
	defer clear(step.Out) // with GTC, the password
	return appendAVPs(AVP{Code: avpEAPMessage, Data: step.Out}), p.inner.failing
}

func (p *ttlsPeer) identity() string { return "" }

func (p *ttlsPeer) close() {
	p.zero()
	if p.inner != nil {
		p.inner.Close()
	}
	p.tunnel.close()
}
