package ikev2

import (
	"time"

	"adit/ike/wire"
)

// rule says which message is taken in which phase, and what it must hold.
type rule struct {
	from     phase
	exchange wire.ExchangeType
	response bool
	// need are payloads without which the message is malformed. Responses that hold
	// an error notify instead are excused.
	need []wire.PayloadType
	take func(s *sa, now time.Time, in *inbound)
}

// rules holds every message that is taken; all others are dropped and counted.
// IKE_SA_INIT, which is in the clear, checks its needs itself (init.go), and so do
// the later steps of IKE_AUTH, whose needs depend on what went before (auth_*.go), and
// what additional key exchanges ask for.
var rules []rule

func init() {
	req, resp := false, true
	rules = []rule{
		{phaseInitSent, wire.ExchangeIKESAInit, resp, nil, (*sa).initResponse},
		{phaseInitReceived, wire.ExchangeIKESAInit, req, nil, (*sa).initRepeated},
		{phaseInitSent, wire.ExchangeIKESessionResume, resp, nil, (*sa).resumeResponse},
		{phaseInitReceived, wire.ExchangeIKESessionResume, req, nil, (*sa).initRepeated},
		{phaseIntermediateSent, wire.ExchangeIKEIntermediate, resp, nil, (*sa).intermediateResponse},
		{phaseInitReceived, wire.ExchangeIKEIntermediate, req, nil, (*sa).intermediateRequest},
		{phaseInitReceived, wire.ExchangeIKEAuth, req, []wire.PayloadType{wire.PayloadIDi}, (*sa).authRequest},
		{phaseAuthReceived, wire.ExchangeIKEAuth, req, nil, (*sa).authNext},
		{phaseAuthReceived, wire.ExchangeInformational, req, nil, (*sa).authGivenUp},
		{phaseAuthSent, wire.ExchangeIKEAuth, resp, nil, (*sa).authResponse},
		{phaseEstablished, wire.ExchangeCreateChildSA, req, []wire.PayloadType{wire.PayloadSA, wire.PayloadNonce}, (*sa).createRequest},
		{phaseEstablished, wire.ExchangeCreateChildSA, resp, []wire.PayloadType{wire.PayloadSA, wire.PayloadNonce}, (*sa).taskResponse},
		{phaseEstablished, wire.ExchangeInformational, req, nil, (*sa).informationalRequest},
		{phaseEstablished, wire.ExchangeInformational, resp, nil, (*sa).taskResponse},
		{phaseEstablished, wire.ExchangeIKEFollowupKE, req, nil, (*sa).followupRequest},
		{phaseEstablished, wire.ExchangeIKEFollowupKE, resp, []wire.PayloadType{wire.PayloadKE}, (*sa).followupResponse},
		{phaseClosing, wire.ExchangeIKEFollowupKE, req, nil, (*sa).refuseWhileClosing},
		{phaseClosing, wire.ExchangeCreateChildSA, req, nil, (*sa).refuseWhileClosing},
		{phaseClosing, wire.ExchangeInformational, req, nil, (*sa).informationalRequest},
		{phaseClosing, wire.ExchangeInformational, resp, nil, (*sa).taskResponse},
	}
}

func findRule(p phase, x wire.ExchangeType, response bool) *rule {
	for i := range rules {
		if r := &rules[i]; r.from == p && r.exchange == x && r.response == response {
			return r
		}
	}
	return nil
}

// missing names the first payload that the rule needs and the message lacks.
func (r *rule) missing(payloads []wire.Payload) string {
	if r.response && errorNotify(payloads) != nil {
		return ""
	}
	for _, need := range r.need {
		found := false
		for _, p := range payloads {
			if p.Type() == need {
				found = true
				break
			}
		}
		if !found {
			return need.String()
		}
	}
	return ""
}

// errorNotify is the first Notify payload of an error type.
func errorNotify(payloads []wire.Payload) *wire.Notify {
	for _, p := range payloads {
		if n, ok := p.(*wire.Notify); ok && n.NotifyType.IsError() {
			return n
		}
	}
	return nil
}
