package ikev2

import (
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// Post-quantum preshared keys (RFC 8784): a PPK that both sides have goes into SK_d,
// SK_pi and SK_pr before IKE_AUTH, so into the keys of all Child SAs and of every later
// IKE SA, and into AUTH. The initiator names it by PPK_IDENTITY; unless it insists, it
// sends a second AUTH, NO_PPK_AUTH, for a responder that does not have it. Both are beside
// its first AUTH payload: with EAP the last one, so that the responder's first AUTH is
// without the PPK. RFC 9867 has another way (ppk_intermediate.go).

// ppkOpaque and ppkFixed are the types of a PPK_ID (RFC 8784 §5.1).
const (
	ppkOpaque = 1
	ppkFixed  = 2
)

// withoutPPK are the keys as they were before a PPK was mixed in.
type withoutPPK struct{ d, pi, pr suite.Key }

func (w *withoutPPK) wipe() {
	if w != nil {
		zeroAll([]suite.Key{w.d, w.pi, w.pr})
	}
}

// mixPPK replaces SK_d, SK_pi and SK_pr by prf+ (PPK, SK_*) (RFC 8784 §3). It zeroes ppk.
func (k *ikeKeys) mixPPK(ppk suite.Key) *withoutPPK {
	w := &withoutPPK{k.d, k.pi, k.pr}
	k.d = k.prf.Plus(ppk, w.d, len(w.d))
	k.pi = k.prf.Plus(ppk, w.pi, len(w.pi))
	k.pr = k.prf.Plus(ppk, w.pr, len(w.pr))
	ppk.Zero()
	return w
}

// unmixPPK goes back to the keys without.
func (k *ikeKeys) unmixPPK(w *withoutPPK) {
	zeroAll([]suite.Key{k.d, k.pi, k.pr})
	k.d, k.pi, k.pr = w.d, w.pi, w.pr
}

// plain are the keys that AUTH is made of without the PPK; they are w's own.
func (k *ikeKeys) plain(w *withoutPPK) *ikeKeys {
	return &ikeKeys{prf: k.prf, setupKeys: &setupKeys{pi: w.pi, pr: w.pr}}
}

// wantsPPK reports whether we ask for the use of a PPK as initiator.
func wantsPPK(p *ike.Peer) bool { return p.PPKID != "" }

// ppkRefused is the record of a PPK that cannot be had although it must.
func (s *sa) ppkRefused(why string) *ike.Rejection {
	r := &ike.Rejection{Reason: ike.ReasonAuthentication, Detail: ike.DetailPPK, Notify: wire.AuthenticationFailed.String(), Difference: why}
	if s.peer != nil {
		r.Options = []string{s.peer.Option("ppk_required")}
	}
	return r
}

// askPPK finds the PPK of an identity; nil: there is none.
func (s *sa) askPPK(now time.Time, id string, then func(time.Time, suite.Key)) {
	s.ask(now, timeoutAsk, ike.PPKLookup{ID: id}, func(now time.Time, r ike.Result) {
		if k, ok := r.Value.(suite.Key); ok && r.Err == nil && len(k) > 0 {
			then(now, slices.Clone(k)) // the giver keeps its own, we zero ours
			return
		}
		then(now, nil)
	})
}

// seekPPK sees whether we have the PPK that we are to use, before it is announced: a
// responder refuses who announces and then names none (RFC 8784 §3).
func (s *sa) seekPPK(now time.Time, st *initSent) {
	s.askPPK(now, s.peer.PPKID, func(now time.Time, k suite.Key) {
		st.havePPK = k != nil
		k.Zero()
		if k == nil {
			s.withoutPPK(now, "there is no secret for ppk_id "+s.peer.PPKID, func(now time.Time) { s.sendInit(now, st) })
			return
		}
		s.sendInit(now, st)
	})
}

// withoutPPK has the initiator go on without a PPK, if the connection lets it.
func (s *sa) withoutPPK(now time.Time, why string, then func(time.Time)) {
	if s.peer.PPKRequired {
		r := s.ppkRefused(why)
		r.Notify = ""
		s.fail(now, r)
		return
	}
	s.note(1, "no PPK is used: "+why)
	then(now)
}

// offerPPK mixes in the initiator's PPK before its AUTH, if the peer knows PPKs.
func (s *sa) offerPPK(now time.Time, st *authSent, then func(time.Time)) {
	p := s.peer
	st.ppkDone = true
	switch {
	case !st.havePPK && !p.PPKRequired:
		then(now)
	case s.peerCaps.ppkInt:
		s.offerPPKInt(now, then)
	case !s.peerCaps.ppk:
		s.withoutPPK(now, "the peer does not know PPKs (RFC 8784)", then)
	default:
		s.askPPK(now, p.PPKID, func(now time.Time, k suite.Key) {
			if k == nil {
				s.withoutPPK(now, "there is no secret for ppk_id "+p.PPKID, then)
				return
			}
			st.ppk = s.keys.mixPPK(k)
			then(now)
		})
	}
}

// ppkIdentity names a PPK.
func ppkIdentity(id string) *wire.Notify {
	return notify(wire.PPKIdentity, append([]byte{ppkFixed}, id...))
}

// ppkNotifies go beside the initiator's AUTH; second is its AUTH without the PPK.
func ppkNotifies(p *ike.Peer, second *wire.Auth) []wire.Payload {
	list := []wire.Payload{ppkIdentity(p.PPKID)}
	if second != nil {
		list = append(list, notify(wire.NoPPKAuth, second.Data))
	}
	return list
}

// ppkAnswered sees whether the responder used the PPK, before its AUTH is verified.
func (s *sa) ppkAnswered(in *inbound, st *authSent) *ike.Rejection {
	w := st.ppk
	if w == nil {
		return nil
	}
	st.ppk = nil
	if wire.FindNotify(in.payloads, wire.PPKIdentity) != nil {
		w.wipe()
		s.ppk, s.ppkID = true, s.peer.PPKID
		return nil
	}
	s.keys.unmixPPK(w)
	if s.peer.PPKRequired {
		return s.ppkRefused("the peer does not use the PPK " + s.peer.PPKID)
	}
	s.note(1, "no PPK is used: the peer has none for "+shortText(s.peer.PPKID))
	return nil
}

// takePPK mixes in the PPK that the initiator names, before its AUTH is verified. in is
// changed to hold NO_PPK_AUTH in the place of AUTH if we don't have that one. Connections
// that insist on a PPK, or on another one, are not meant then.
func (s *sa) takePPK(now time.Time, st *authReceived, in *inbound, then func(time.Time)) {
	a := &st.authentication
	if st.ppkDone {
		then(now)
		return
	}
	if s.peerCaps.ppkInt {
		st.ppkDone = true
		s.ppkDemands(a)
		then(now)
		return
	}
	auth, _ := wire.First[*wire.Auth](in.payloads)
	n := wire.FindNotify(in.payloads, wire.PPKIdentity)
	without := func(now time.Time, why string) {
		a.keep(func(p *ike.Peer) (ike.Detail, string) {
			if p.PPKRequired {
				return ike.DetailPPK, "its ppk_required = yes, and " + why
			}
			return "", ""
		})
		then(now)
	}
	if s.peerCaps.ppk && auth == nil {
		then(now) // EAP: it comes with AUTH
		return
	}
	st.ppkDone = true
	switch {
	case !s.peerCaps.ppk:
		without(now, "the peer uses no PPK")
		return
	case n == nil:
		s.refuseAuth(now, in, s.ppkRefused("the peer announced a PPK and names none"))
		return
	}
	id := readPPKID(n.Data)
	s.askPPK(now, id, func(now time.Time, k suite.Key) {
		second := wire.FindNotify(in.payloads, wire.NoPPKAuth)
		switch {
		case k != nil && id != "":
			s.keys.mixPPK(k).wipe()
			s.ppk, s.ppkID, st.ppkTell = true, id, true
			a.keep(func(p *ike.Peer) (ike.Detail, string) {
				if !offersPPKAuth(p) {
					return ike.DetailPPK, "its ppk_intermediate = require, and the peer uses a PPK as of RFC 8784"
				}
				if p.PPKID != "" && p.PPKID != id {
					return ike.DetailPPK, "its ppk_id " + p.PPKID + " is not the " + shortText(id) + " that the peer uses"
				}
				return "", ""
			})
			then(now)
		case second != nil:
			in.payloads = slices.Clone(in.payloads)
			in.payloads[slices.IndexFunc(in.payloads, func(p wire.Payload) bool { return p == wire.Payload(auth) })] = &wire.Auth{Method: auth.Method, Data: second.Data}
			s.note(1, "no PPK is used: there is none for the peer's "+shortText(id))
			without(now, "there is no secret for the "+shortText(id)+" that the peer uses")
		default:
			// It insists, and its AUTH cannot be verified.
			a.keep(func(*ike.Peer) (ike.Detail, string) {
				return ike.DetailPPK, "there is no secret for the PPK " + shortText(id) + " on which the peer insists"
			})
			then(now)
		}
	})
}
