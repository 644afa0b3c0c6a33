package ikev1

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// nat is what NAT detection found (RFC 3947 §3.2).
type nat struct {
	local, remote bool // a NAT before us, before the peer
	fake          bool // we pretended one, so that ESP goes in UDP
}

// encap reports whether ESP is sent in UDP.
func (n nat) encap() bool { return n.local || n.remote || n.fake }

// natVersion is the NAT traversal that both sides speak.
type natVersion uint8

const (
	natNone  natVersion = iota
	natDraft            // draft-ietf-ipsec-nat-t-ike-02 and -03: the numbers differ
	natRFC              // RFC 3947
)

// payloadNATD and the like are the drafts' numbers, out of the private range.
const (
	payloadNATDDraft  wire.PayloadType = 130
	payloadNATOADraft wire.PayloadType = 131
)

func (v natVersion) payload() wire.PayloadType {
	if v == natDraft {
		return payloadNATDDraft
	}
	return wire.PayloadV1NATD
}

// The encapsulation modes of a phase 2 transform (RFC 2407 §4.5, RFC 3947 §5.1), and
// those of the drafts.
const (
	modeTunnel            = 1
	modeTransport         = 2
	modeUDPTunnel         = 3
	modeUDPTransport      = 4
	modeUDPTunnelDraft    = 61443
	modeUDPTransportDraft = 61444
)

// natHash is HASH(CKY-I | CKY-R | IP | Port) with the hash of phase 1.
func natHash(prf suite.PRF, cookies [16]byte, a netip.AddrPort) []byte {
	return prf.Hash(cookies[:], a.Addr().Unmap().WithZone("").AsSlice(), binary.BigEndian.AppendUint16(nil, a.Port()))
}

// wantFake reports whether our own hash is to be falsified: `encap = yes`, or auto
// where the data plane prefers UDP. The peer then sees a NAT before us.
func wantFake(cfg *ike.Config, p *ike.Peer) bool {
	return p.Encap == ike.EncapYes || p.Encap == ike.EncapAuto && cfg.ForceEncap
}

// natPayloads are the hashes of the peer's address and of ours, in this order.
func (s *sa) natPayloads(prf suite.PRF) []wire.V1Payload {
	if s.caps.natT == natNone {
		return nil
	}
	ours := natHash(prf, s.setup.cookies, s.local)
	if s.setup.fakeHash {
		rand.Read(ours)
	}
	t := s.caps.natT.payload()
	return []wire.V1Payload{{Type: t, Body: natHash(prf, s.setup.cookies, s.remote)}, {Type: t, Body: ours}}
}

// detectNAT compares the peer's hashes with the addresses that we see.
func (s *sa) detectNAT(prf suite.PRF, in *inbound) {
	list := in.all(s.caps.natT.payload())
	if s.caps.natT == natNone || len(list) < 2 {
		s.caps.natT, s.nat = natNone, nat{}
		return
	}
	s.nat.local = !equal(list[0], natHash(prf, s.setup.cookies, in.datagram.Local))
	s.nat.remote = true
	want := natHash(prf, s.setup.cookies, in.datagram.Remote)
	for _, h := range list[1:] {
		if equal(h, want) {
			s.nat.remote = false
		}
	}
	s.nat.fake = s.setup.fakeHash
}

// floatPorts moves the initiator to port 4500 once a NAT was found, or pretended
// (RFC 3947 §4).
func (s *sa) floatPorts() {
	if !s.nat.encap() || s.remote.Port() != 500 {
		return
	}
	s.local = netip.AddrPortFrom(s.local.Addr(), s.config().NATPort)
	s.remote = netip.AddrPortFrom(s.remote.Addr(), 4500)
}

// startKeepAlive begins the NAT keepalives (RFC 3948 §4): only who is behind a NAT
// sends them.
func (s *sa) startKeepAlive(now time.Time) {
	if every := s.config().KeepAlive; s.nat.local && every > 0 {
		s.life.keepAliveAt = now.Add(every)
	}
}

func (s *sa) keepAlive(now time.Time) {
	every := s.config().KeepAlive
	if at := s.life.lastOut.Add(every); now.Before(at) {
		s.life.keepAliveAt = at
		return
	}
	late := now.Sub(s.life.keepAliveAt)
	s.life.keepAliveAt = now.Add(every)
	s.life.lastOut = now
	if margin := s.config().KeepAliveDPDMargin; margin > 0 && late > margin && s.caps.dpd {
		s.firstCheck(now) // the host slept: the NAT or the peer may have forgotten us
		return
	}
	d := s.outward()
	d.Data = []byte{0xff}
	s.env.Effect(ike.Send{Datagram: d})
}
