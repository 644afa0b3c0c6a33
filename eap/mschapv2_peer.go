package eap

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"

	"adit/suite"
)

type mschapv2Peer struct {
	secret Secret // the session's
	name   string

	proof []byte // the authenticator response that we expect; set after our response
	msk   suite.Key
	done  bool
}

func (p *mschapv2Peer) next(_ uint8, in []byte) ([]byte, bool, error) {
	op, err := opMSCHAPv2(in)
	if err != nil {
		return nil, false, err
	}
	id, body, err := bodyMSCHAPv2(in)
	switch {
	case err != nil:
		return nil, false, err
	case op == opChallenge && p.proof == nil:
		out, err := p.respond(id, body)
		return out, false, err
	case op == opSuccess && p.proof != nil && !p.done:
		return p.judge(body)
	case op == opFailure && p.proof != nil && !p.done:
		code, err := failureCode(body)
		if err != nil {
			return nil, false, err
		}
		return []byte{opFailure}, false, fmt.Errorf("eap: MSCHAPv2: %w: error %d", ErrFailure, code)
	}
	return nil, false, unexpected(fmt.Sprintf("MSCHAPv2 OpCode %d", op))
}

func (p *mschapv2Peer) respond(id uint8, body []byte) ([]byte, error) {
	challenge, err := challengeMSCHAPv2(body)
	if err != nil {
		return nil, err
	}
	value, proof, msk := respondMSCHAPv2(p.secret, challenge, []byte(p.name))
	p.proof, p.msk = proof, msk
	return appendMSCHAPv2(opResponse, id, []byte{responseLen}, value, []byte{0}, []byte(p.name)), nil
}

// respondMSCHAPv2 makes the Peer-Challenge, 8 reserved bytes and the NT-Response,
// with the proof that the server owes us for it and the MSK.
func respondMSCHAPv2(secret Secret, challenge, name []byte) (value, proof []byte, msk suite.Key) {
	value = make([]byte, challengeLen+8, challengeLen+8+ntResponseLen)
	rand.Read(value[:challengeLen])
	hash, _ := secret.ntHash()
	defer hash.Zero()
	ch := challengeHash(value[:challengeLen], challenge, name)
	response := challengeResponse(ch, hash)
	return append(value, response...), authenticatorResponse(hash, response, ch), mskMSCHAPv2(hash, response)
}

// judge checks the server's proof.
func (p *mschapv2Peer) judge(body []byte) ([]byte, bool, error) {
	proof, err := successProof(body)
	if err != nil {
		return nil, false, err
	}
	if subtle.ConstantTimeCompare(proof, p.proof) != 1 {
		return nil, false, fmt.Errorf("eap: MSCHAPv2: %w", ErrServer)
	}
	p.done = true
	return []byte{opSuccess}, true, nil
}

func (p *mschapv2Peer) keys() (msk, emsk suite.Key) {
	msk, p.msk = p.msk, nil
	return msk, nil
}

func (p *mschapv2Peer) identity() string { return "" }

func (p *mschapv2Peer) close() { p.msk.Zero() }
