package ikev2

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
)

// MOBIKE (RFC 4555): the IKE SA and its Child SAs move to other addresses of either
// end. The initiator of the first IKE SA of the line chooses the path (mobike_move.go);
// the other end follows its UPDATE_SA_ADDRESSES, and tells by lists of addresses where
// it is itself to be reached (mobike_answer.go). Data goes to an address of the peer
// only when the peer has shown that it receives packets there: until then it goes where
// it went before.

// mobike is what an IKE SA keeps that can move.
type mobike struct {
	origin bool         // we are the initiator of the first IKE SA of the line
	peers  []netip.Addr // the peer's additional addresses
	told   []netip.Addr // ours, as the peer knows them

	// data are the endpoints of the Child SAs while they are not those of the IKE SA: the
	// peer's new address is not checked yet.
	data *path
	// placed is what the data plane was told last.
	placed ipsec.SAUpdate
	// moves counts the changes of the endpoints: what was sent before the last one
	// proves nothing about where we are now.
	moves int

	// adrift: as responder we have left an address, and the peer has not confirmed where we
	// are instead.
	adrift bool

	// paths are those over which a request is repeated until one of them works, the best
	// first.
	paths   []path
	seeking ike.JobID // the question for them
	// nowhere: no path leads to the peer. Repetitions wait for one.
	nowhere bool
	// mapping is the peer's hash of where it sees us, to know another mapping of a NAT by.
	mapping    []byte
	natRetries int
	// refused are paths that the peer does not accept. doubt sends a request over all paths
	// from the first time on. checked is when the path was last tried for the host's sake.
	refused []path
	doubt   bool
	checked time.Time
}

// path is a pair of endpoints.
type path struct{ local, remote netip.AddrPort }

// offerMobike is what the initiator's IKE_AUTH request says (RFC 4555 §3.1).
func (s *sa) offerMobike() (list []wire.Payload) {
	if !s.peer.MOBIKE {
		return nil
	}
	list = append(list, notify(wire.MOBIKESupported, nil))
	list = append(list, additionalPayloads(s.ownAddresses(), false)...)
	return append(list, s.noNATs()...)
}

// acceptMobike takes the responder's answer to the offer.
func (s *sa) acceptMobike(payloads []wire.Payload, origin bool) {
	if s.peer.MOBIKE && wire.FindNotify(payloads, wire.MOBIKESupported) != nil {
		peers, _ := additional(payloads, s.remote.Addr())
		s.mob = &mobike{origin: origin, told: s.ownAddresses(), peers: peers}
		s.mob.placed = s.placement()
	}
}

// grantMobike is the responder's answer to an offer in the first request.
func (s *sa) grantMobike(first []wire.Payload) (list []wire.Payload) {
	if s.acceptMobike(first, false); s.mob == nil {
		return nil
	}
	return append([]wire.Payload{notify(wire.MOBIKESupported, nil)}, additionalPayloads(s.mob.told, false)...)
}

// handMobike gives what moves to the IKE SA that replaces this one. Hashes of NAT
// detection hold the SPIs: they begin anew.
func (s *sa) handMobike(now time.Time, n *sa) {
	m := s.mob
	n.mob, s.mob = m, nil
	if m == nil {
		return
	}
	m.mapping = nil
	if m.origin && slices.ContainsFunc(s.sched.queue, isUpdate) {
		s.updateOld(now)
	}
	if m.seeking != 0 { // the answer would come to the old IKE SA
		s.env.DropJob(m.seeking)
		delete(s.sched.jobs, m.seeking)
		m.seeking = 0
		if m.origin {
			n.findPaths(now, seek{})
		} else if n.gone() || m.adrift {
			n.leaveAddress(now)
		}
	}
}

// endpoints are those of the Child SAs.
func (s *sa) endpoints() path {
	if s.mob != nil && s.mob.data != nil {
		return *s.mob.data
	}
	return path{s.local, s.remote}
}

// place moves the Child SAs to where the IKE SA is, or to where their data may go.
// Transport mode's selectors are the endpoints: it cannot move between addresses.
func (s *sa) place() {
	at, u := s.endpoints(), s.placement()
	if s.mob != nil {
		if u == s.mob.placed {
			return
		}
		s.mob.placed = u
	}
	for _, c := range s.children {
		if c.installed() && !s.bound(c, at) {
			s.env.Effect(ike.UpdateChild{Child: c.id, Update: u})
		}
	}
}

func (s *sa) placement() ipsec.SAUpdate {
	at := s.endpoints()
	return ipsec.SAUpdate{Local: at.local, Remote: at.remote, Encap: s.nat.encap(), TrackNAT: s.nat.remote}
}

// bound reports whether a Child SA of transport mode belongs to other addresses.
func (s *sa) bound(c *child, at path) bool {
	if c.mode != ipsec.ModeTransport || s.mob == nil {
		return false
	}
	has := func(list []ipsec.Selector, a netip.Addr) bool {
		return slices.ContainsFunc(list, func(t ipsec.Selector) bool { return t.MatchAddr(a) })
	}
	return !has(c.localTS, at.local.Addr()) || !has(c.remoteTS, at.remote.Addr())
}

// ownAddresses are the addresses, besides the one in use, at which the peer may look
// for us: not those of the inside, which nobody reaches but through the tunnel.
func (s *sa) ownAddresses() (list []netip.Addr) {
	for _, a := range s.env.OwnAddresses() {
		if a != s.local.Addr() && s.mayUse(a) && len(list) < limitAdditional {
			list = append(list, a)
		}
	}
	return list
}

func (s *sa) mayUse(a netip.Addr) bool {
	return s.peer.Allows(a) && !slices.Contains(s.cp().got, a) && !s.behind(a, s.local.Addr(), func(c *ike.Child) []ipsec.Selector { return c.Local })
}

// behind reports whether the address is one of those that tunnels lead to, as the address
// in use is not: it is reached only through them.
func (s *sa) behind(a, used netip.Addr, of func(*ike.Child) []ipsec.Selector) bool {
	for _, c := range s.peer.Children {
		for _, t := range of(c) {
			if !t.IsDynamic() && t.MatchAddr(a) && !t.MatchAddr(used) {
				return true
			}
		}
	}
	return false
}

// additionalPayloads is a list of addresses as notifies (RFC 4555 §4.2.2); whole: that
// there are none is said, too.
func additionalPayloads(addrs []netip.Addr, whole bool) (list []wire.Payload) {
	for _, a := range addrs {
		t := wire.AdditionalIP6Address
		if a.Is4() {
			t = wire.AdditionalIP4Address
		}
		list = append(list, notify(t, a.AsSlice()))
	}
	if len(list) == 0 && whole {
		list = append(list, notify(wire.NoAdditionalAddresses, nil))
	}
	return list
}

// additional reads such a list: the first of those that can be a gateway's, and are not
// the one that the message came from. told: there was a list.
func additional(payloads []wire.Payload, from netip.Addr) (list []netip.Addr, told bool) {
	for _, p := range payloads {
		n, ok := p.(*wire.Notify)
		if !ok {
			continue
		}
		want := 0
		switch n.NotifyType {
		case wire.NoAdditionalAddresses:
			told = true
			continue
		case wire.AdditionalIP4Address:
			want = 4
		case wire.AdditionalIP6Address:
			want = 16
		default:
			continue
		}
		told = true
		a, ok := netip.AddrFromSlice(n.Data)
		if ok && len(n.Data) == want && !a.Is4In6() && reachable(a) && a != from.Unmap() && !slices.Contains(list, a) && len(list) < limitAdditional {
			list = append(list, a)
		}
	}
	return list, told
}

// reachable reports whether packets can be sent to the address at all.
func reachable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// natHashes are both hashes of NAT detection for a pair of endpoints; none if the peer
// does not take part.
func (s *sa) natHashes(local, remote netip.AddrPort) []wire.Payload {
	if !s.nat.supported {
		return nil
	}
	return natPayloads(s.spiI, s.spiR, local, remote, s.nat.fake)
}

// noNATs is NO_NATS_ALLOWED, which a message must hold that can move something where
// there is no NAT traversal (RFC 4555 §3.9, §4.2.6).
func (s *sa) noNATs() []wire.Payload {
	if s.nat.supported {
		return nil
	}
	return []wire.Payload{notify(wire.NoNATsAllowed, noNATsData(s.local, s.remote))}
}

func noNATsData(src, dst netip.AddrPort) []byte {
	b := append(src.Addr().Unmap().AsSlice(), dst.Addr().Unmap().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, src.Port())
	return binary.BigEndian.AppendUint16(b, dst.Port())
}

// translatedOnTheWay reports whether a message that forbids it came through a NAT.
func translatedOnTheWay(payloads []wire.Payload, d ike.Datagram) bool {
	n := wire.FindNotify(payloads, wire.NoNATsAllowed)
	return n != nil && !bytes.Equal(n.Data, noNATsData(d.Remote, d.Local))
}
