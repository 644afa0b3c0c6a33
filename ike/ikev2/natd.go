package ikev2

import (
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// nat is what NAT detection found (RFC 7296 §2.23).
type nat struct {
	supported     bool // the peer takes part
	local, remote bool // a NAT before us, before the peer
	fake          bool // we pretended one, so that ESP goes in UDP
}

// encap reports whether ESP is sent in UDP.
func (n nat) encap() bool { return n.supported && (n.local || n.remote || n.fake) }

// natHash is SHA-1(SPIi | SPIr | IP | port).
func natHash(spiI, spiR uint64, a netip.AddrPort) []byte {
	b := binary.BigEndian.AppendUint64(nil, spiI)
	b = binary.BigEndian.AppendUint64(b, spiR)
	b = append(b, a.Addr().Unmap().WithZone("").AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, a.Port())
	h := sha1.Sum(b)
	return h[:]
}

// wantFake reports whether the source hash is to be falsified: `encap = yes`, or
// auto where the data plane prefers UDP. The peer then sees a NAT before us.
func wantFake(cfg *ike.Config, p *ike.Peer) bool {
	return p.Encap == ike.EncapYes || p.Encap == ike.EncapAuto && cfg.ForceEncap
}

// natPayloads are the two notifies of IKE_SA_INIT.
func natPayloads(spiI, spiR uint64, local, remote netip.AddrPort, fake bool) []wire.Payload {
	src := natHash(spiI, spiR, local)
	if fake {
		rand.Read(src)
	}
	return []wire.Payload{notify(wire.NATDetectionSourceIP, src), notify(wire.NATDetectionDestinationIP, natHash(spiI, spiR, remote))}
}

// detectNAT compares the peer's hashes with the addresses that we see. Several
// source hashes stand for several possible addresses; one must fit.
func detectNAT(payloads []wire.Payload, spiI, spiR uint64, local, remote netip.AddrPort) (n nat) {
	src, dst, srcOK, dstOK := false, false, 0, 0
	wantSrc, wantDst := natHash(spiI, spiR, remote), natHash(spiI, spiR, local)
	for _, p := range payloads {
		x, ok := p.(*wire.Notify)
		switch {
		case !ok:
		case x.NotifyType == wire.NATDetectionSourceIP:
			src = true
			srcOK |= subtle.ConstantTimeCompare(x.Data, wantSrc)
		case x.NotifyType == wire.NATDetectionDestinationIP:
			dst = true
			dstOK |= subtle.ConstantTimeCompare(x.Data, wantDst)
		}
	}
	n.supported = src && dst
	n.remote = n.supported && srcOK == 0
	n.local = n.supported && dstOK == 0
	return n
}

// floatPorts moves the initiator to port 4500 once a NAT was found, or pretended, and
// wherever MOBIKE may be used: another path may have one (RFC 4555 §3.3).
func (s *sa) floatPorts() {
	if !s.nat.encap() && !(s.nat.supported && s.peer.MOBIKE) || s.remote.Port() != 500 {
		return
	}
	s.local = netip.AddrPortFrom(s.local.Addr(), s.config().NATPort)
	s.remote = netip.AddrPortFrom(s.remote.Addr(), 4500)
}

// startKeepAlive begins the NAT keepalives (RFC 3948 §4): only who is behind a
// NAT sends them.
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
	if margin := s.config().KeepAliveDPDMargin; margin > 0 && late > margin {
		s.sendCheck(now) // the host slept: the NAT or the peer may have forgotten us
		return
	}
	s.env.Effect(ike.Send{Datagram: ike.Datagram{Local: s.local, Remote: s.remote, Data: []byte{0xff}}})
}
