package ikev2

import (
	"bytes"
	"crypto/rand"
	"net/netip"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// The length of COOKIE2 (RFC 4555 §4.2.5) in bytes, and of ours.
const (
	minCookie2, maxCookie2 = 8, 64
	cookie2Len             = 32
)

func newCookie2() []byte {
	b := make([]byte, cookie2Len)
	rand.Read(b)
	return b
}

// mobikeRequest takes what an INFORMATIONAL request says about addresses. act is what
// follows once the answer is out (RFC 4555 §3.5, §3.6).
func (s *sa) mobikeRequest(in *inbound) (answer []wire.Payload, act func(time.Time)) {
	if s.mob == nil && (s.replacedBy == nil || s.replacedBy.mob == nil) {
		return nil, nil
	}
	if c := wire.FindNotify(in.payloads, wire.Cookie2); c != nil && len(c.Data) >= minCookie2 && len(c.Data) <= maxCookie2 {
		answer = append(answer, notify(wire.Cookie2, slices.Clone(c.Data)))
	}
	d := in.datagram
	if wire.FindNotify(in.payloads, wire.NATDetectionSourceIP) != nil {
		answer = append(answer, s.natHashes(d.Local, d.Remote)...)
	}
	list, told := additional(in.payloads, d.Remote.Addr())
	update := wire.FindNotify(in.payloads, wire.UpdateSAAddresses) != nil
	if !told && !update || s.mob == nil || s.state.phase() != phaseEstablished {
		return answer, nil
	}
	if translatedOnTheWay(in.payloads, d) {
		s.note(1, "a NAT where the peer allows none: its message from "+d.Remote.String()+" moves nothing")
		return append(answer, notify(wire.UnexpectedNATDetected, nil)), nil
	}
	if update && s.mob.origin {
		s.note(2, "UPDATE_SA_ADDRESSES from a responder is ignored")
		update = false
	}
	if update && !s.acceptable(d.Remote.Addr()) {
		s.note(1, "the peer may not move to "+d.Remote.String())
		return append(answer, notify(wire.UnacceptableAddresses, nil)), nil
	}
	return answer, func(now time.Time) {
		if told {
			s.mob.peers = list
		}
		switch {
		case update:
			if wire.FindNotify(in.payloads, wire.NATDetectionSourceIP) != nil && s.nat.supported {
				s.sees(now, detectNAT(in.payloads, s.spiI, s.spiR, d.Local, d.Remote))
			}
			s.followTo(now, d.Local, d.Remote)
			s.repeatNow(now) // what is in flight went to where the peer was
		case told && s.mob.origin && d.Remote.Addr() != s.remote.Addr() && !slices.Contains(list, s.remote.Addr()):
			// The peer is no longer where we look for it. It was here just now.
			s.note(2, "the peer is no longer at "+s.remote.Addr().String())
			s.goTo(now, path{d.Local, d.Remote})
		}
	}
}

// acceptable reports whether the peer may move to an address: not to one of ours, nor to
// one that is nobody's.
func (s *sa) acceptable(a netip.Addr) bool {
	return reachable(a) && a != s.local.Addr() && !slices.Contains(s.env.OwnAddresses(), a)
}

// sees takes over what NAT detection found on a new path; what we pretend stays.
func (s *sa) sees(now time.Time, n nat) {
	n.fake = s.nat.fake
	had := s.nat.local
	s.nat = n
	switch {
	case n.local && !had:
		s.startKeepAlive(now)
	case !n.local:
		s.life.keepAliveAt = time.Time{}
	}
}

// followTo moves the IKE SA to where the peer is by its own word. The Child SAs follow at
// once if only ports have changed, else when the peer has shown that it receives what is
// sent there: who has the keys could otherwise turn its traffic on somebody else
// (RFC 4555 §3.7, §5.3).
func (s *sa) followTo(now time.Time, local, remote netip.AddrPort) {
	m := s.mob
	old := path{s.local, s.remote}
	if old != (path{local, remote}) {
		m.moves++
	}
	data := s.endpoints()
	s.local, s.remote, m.adrift = local, remote, false
	for _, p := range s.previous {
		p.local, p.remote = local, remote
	}
	if remote.Addr() == data.remote.Addr() {
		m.data = nil
		s.place()
		s.tellMoved(data)
		return
	}
	m.data = &data
	s.place() // NAT traversal may be another
	for _, t := range s.sched.queue {
		if _, ok := t.(*routability); ok {
			return
		}
	}
	s.enqueueFirst(&routability{})
}

// tellMoved tells of new endpoints, if they are.
func (s *sa) tellMoved(was path) {
	if was != (path{s.local, s.remote}) {
		s.env.Emit(ike.Moved{SA: s.Info(), OldLocal: was.local, Old: was.remote})
	}
}

// mapped takes the word of the data plane that packets of the peer come from elsewhere:
// the mapping of a NAT has changed (RFC 7296 §2.23, RFC 4555 §3.8).
func (s *sa) mapped(now time.Time, remote netip.AddrPort) {
	switch {
	case s.mob == nil:
		s.move(now, s.local, remote)
	case remote.Addr() == s.remote.Addr():
		s.followTo(now, s.local, remote)
	case !s.mob.origin && s.acceptable(remote.Addr()):
		s.probeOnce(now, path{s.local, remote})
	}
}

// routability asks the peer to repeat what only who is at its address can know
// (RFC 4555 §3.7).
type routability struct {
	cookie []byte
	moves  int
}

func (*routability) name() string { return "IKE_MOBIKE" }

func (t *routability) begin(s *sa, now time.Time) {
	if s.mob == nil || s.mob.data == nil {
		s.finish()
		return
	}
	t.cookie, t.moves = newCookie2(), s.mob.moves
	s.request(now, wire.ExchangeInformational, []wire.Payload{notify(wire.Cookie2, t.cookie)})
}

func (t *routability) answered(s *sa, now time.Time, in *inbound) {
	s.finish()
	if !s.cookieReturns(now, in, t.cookie, true) || s.mob == nil || s.mob.data == nil {
		return
	}
	if t.moves != s.mob.moves { // it may have been answered from an address of before
		s.enqueueFirst(&routability{})
		return
	}
	s.release()
}

func (*routability) cancel(*sa, time.Time) {}

// cookieReturns checks COOKIE2 of an answer: another one than was sent ends the IKE SA.
// must: that there is none does, too.
func (s *sa) cookieReturns(now time.Time, in *inbound, cookie []byte, must bool) bool {
	c := wire.FindNotify(in.payloads, wire.Cookie2)
	if c == nil && !must {
		return true
	}
	if c != nil && bytes.Equal(c.Data, cookie) {
		return true
	}
	r := &ike.Rejection{Reason: ike.ReasonPeer, ByPeer: true, Difference: "the peer does not return COOKIE2 as it was sent: it may not be at " + s.remote.String() + " (RFC 4555 §3.7)"}
	s.Close(now, ike.Closed{Cause: ike.CauseDead, Reason: "return routability check failed", Rejection: s.reject(r)}, false)
	return false
}

// release lets the Child SAs follow to an address that is checked.
func (s *sa) release() {
	was := s.endpoints()
	s.mob.data = nil
	s.place()
	s.tellMoved(was)
}

// announce tells the peer our additional addresses anew (RFC 4555 §3.6).
type announceAddrs struct {
	list  []netip.Addr
	moved bool // we are at another address: the peer must hear of it in any case
}

func (*announceAddrs) name() string { return "IKE_MOBIKE" }

func (t *announceAddrs) begin(s *sa, now time.Time) {
	if s.mob == nil || !s.Usable() || !t.moved && slices.Equal(s.ownAddresses(), s.mob.told) {
		s.finish()
		return
	}
	t.list = s.ownAddresses()
	s.request(now, wire.ExchangeInformational, append(additionalPayloads(t.list, true), s.noNATs()...))
}

func (t *announceAddrs) answered(s *sa, now time.Time, in *inbound) {
	s.finish()
	if s.mob == nil {
		return
	}
	if wire.FindNotify(in.payloads, wire.UnexpectedNATDetected) != nil {
		s.unexpectedNAT(now, &announceAddrs{moved: t.moved})
		return
	}
	s.mob.told, s.mob.adrift = t.list, false
	s.announceChange() // what changed meanwhile
}

func (*announceAddrs) cancel(*sa, time.Time) {}

// announceChange has the peer told if our addresses are others than it knows.
func (s *sa) announceChange() {
	if slices.Equal(s.ownAddresses(), s.mob.told) || !s.Usable() {
		return
	}
	for _, t := range s.sched.queue {
		if _, ok := t.(*announceAddrs); ok {
			return
		}
	}
	s.enqueue(&announceAddrs{})
}
