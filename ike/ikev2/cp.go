package ikev2

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
)

// addresses are what the configuration payload gave in one IKE SA (RFC 7296
// §2.19); they pass to the IKE SA that replaces it.
type addresses struct {
	// asked are those that our CFG_REQUEST of IKE_AUTH wants; empty: none was sent.
	asked []netip.Addr
	got   []netip.Addr // that the peer gave us
	given []netip.Addr // that we gave the peer
	// leased and assumed name what the driver holds for us, 0: nothing.
	leased, assumed uint64
	// refused is why there can be no Child SA: no address was given, either way.
	refused *refusal
	// again: a Child SA was asked for since.
	again bool
}

// cp is what the IKE SA knows of virtual addresses, to be read; most know nothing.
func (s *sa) cp() addresses {
	if s.vips == nil {
		return addresses{}
	}
	return *s.vips
}

// holding is the same to be changed.
func (s *sa) holding() *addresses {
	if s.vips == nil {
		s.vips = &addresses{}
	}
	return s.vips
}

// cpRequest is the CP payload of our first IKE_AUTH request, nil if we want no
// addresses (RFC 7296 §2.19).
func (s *sa) cpRequest() []wire.Payload {
	want := s.peer.VIPs[:min(len(s.peer.VIPs), limitVIPs)]
	if had := s.env.AddressesBefore(); len(had) > 0 {
		want = had[:min(len(had), limitVIPs)] // a reauthentication keeps what there is
	}
	if len(want) == 0 {
		return nil
	}
	s.holding().asked = slices.Clone(want)
	cp := &wire.CP{CFGType: wire.CFGRequest}
	var four, six bool
	for _, a := range want {
		cp.Attributes = append(cp.Attributes, addressAttribute(a))
		four, six = four || a.Is4(), six || a.Is6()
	}
	if four {
		cp.Attributes = append(cp.Attributes, wire.Attribute{Type: wire.InternalIP4DNS})
	}
	if six {
		cp.Attributes = append(cp.Attributes, wire.Attribute{Type: wire.InternalIP6DNS})
	}
	// Domains only beside servers (RFC 8598 §3.1).
	cp.Attributes = append(cp.Attributes, wire.Attribute{Type: wire.InternalDNSDomain})
	return []wire.Payload{cp}
}

// addressAttribute asks for an address, any if it is unspecified, or gives one.
func addressAttribute(a netip.Addr) wire.Attribute {
	t := wire.InternalIP4Address
	if a.Is6() {
		t = wire.InternalIP6Address
	}
	switch {
	case a.IsUnspecified():
		return wire.Attribute{Type: t}
	case a.Is6():
		return wire.Attribute{Type: t, Value: append(a.AsSlice(), 128)} // with the prefix length (RFC 7296 §3.15.1)
	}
	return wire.Attribute{Type: t, Value: a.AsSlice()}
}

// findCP is the first CP payload of that type.
func findCP(payloads []wire.Payload, t wire.CFGType) *wire.CP {
	for _, p := range payloads {
		if cp, ok := p.(*wire.CP); ok && cp.CFGType == t {
			return cp
		}
	}
	return nil
}

// validAttributes are those of a peer's payload that make sense; reply tells that
// values are due. What does not is left out and noted: nothing else depends on it.
func (s *sa) validAttributes(cp *wire.CP, reply bool) (out []wire.Attribute) {
	left, bad := limitAttributeBytes, 0
	for _, a := range cp.Attributes {
		left -= len(a.Value)
		if len(out) == limitAttributes || left < 0 || !validAttribute(a, reply) {
			bad++
			continue
		}
		out = append(out, wire.Attribute{Type: a.Type, Value: slices.Clone(a.Value)})
	}
	if bad > 0 {
		s.note(2, fmt.Sprintf("%d configuration attributes of the peer are malformed or too many, and left out", bad))
	}
	return out
}

// validAttribute checks the length and form of an attribute's value (RFC 7296
// §3.15.1, RFC 8598 §4). Unknown ones pass: they are for whoever knows them.
func validAttribute(a wire.Attribute, reply bool) bool {
	n := len(a.Value)
	if n == 0 {
		return !reply
	}
	switch a.Type {
	case wire.InternalIP4Address:
		return n == 4 && usable(a.Value, reply)
	case wire.InternalIP4DNS, wire.InternalIP4NBNS, wire.InternalIP4DHCP:
		return n == 4
	case wire.InternalIP4Netmask:
		return n == 4
	case wire.InternalIP6Address:
		return (n == 17 && a.Value[16] <= 128 || n == 16) && usable(a.Value[:16], reply)
	case wire.InternalIP6DNS, wire.InternalIP6DHCP:
		return n == 16
	case wire.InternalIP4Subnet:
		return n == 8
	case wire.InternalIP6Subnet:
		return n == 17 && a.Value[16] <= 128
	case wire.InternalDNSDomain:
		return validDomain(a.Value)
	case wire.InternalDNSSECTA:
		return n > 4 // key tag, algorithm, digest type, digest
	}
	return true
}

// usable reports whether an address can be given to a host.
func usable(b []byte, reply bool) bool {
	a, ok := netip.AddrFromSlice(b)
	if !ok || a.IsMulticast() || a.IsLoopback() || a.Is4In6() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return false
	}
	return !reply || !a.IsUnspecified()
}

// validDomain reports whether b is a name in presentation form (RFC 8598 §4.1): it
// goes to resolvers and logs.
func validDomain(b []byte) bool {
	if len(b) > 253 {
		return false
	}
	label := 0
	for i, c := range b {
		switch {
		case c == '.':
			if label == 0 || label > 63 {
				return len(b) == 1 // the root alone
			}
			label = 0
			continue
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_':
		case c == '-' && label > 0 && i+1 < len(b) && b[i+1] != '.':
		default:
			return false
		}
		label++
	}
	return label <= 63
}

// attributeAddr is the address of an INTERNAL_IP4_ADDRESS or INTERNAL_IP6_ADDRESS;
// invalid: of another type. Empty values are unspecified.
func attributeAddr(a wire.Attribute) netip.Addr {
	switch a.Type {
	case wire.InternalIP4Address:
		if len(a.Value) == 0 {
			return netip.IPv4Unspecified()
		}
		ip, _ := netip.AddrFromSlice(a.Value)
		return ip
	case wire.InternalIP6Address:
		if len(a.Value) == 0 {
			return netip.IPv6Unspecified()
		}
		ip, _ := netip.AddrFromSlice(a.Value[:16])
		return ip
	}
	return netip.Addr{}
}

// askHost asks the driver about addresses; the IKE SA is busy meanwhile.
func (s *sa) askHost(now time.Time, q ike.Question, then func(time.Time, any, error)) {
	job := s.env.NewJob()
	s.await(job, func(now time.Time, r ike.Result) { then(now, r.Value, r.Err) })
	s.sched.busyUntil = now.Add(timeoutAsk)
	s.env.Effect(ike.Ask{Job: job, Deadline: s.sched.busyUntil, Question: q})
}

// cpGrant answers the initiator's CFG_REQUEST before its Child SA is chosen: then
// gets the payloads to put before SA into the last IKE_AUTH response. Where no
// address can be given the Child SA is refused (choose), the IKE SA stays. What the
// IKE SAs have that go for this one is the peer's own.
func (s *sa) cpGrant(now time.Time, payloads []wire.Payload, going []ike.SA, then func(time.Time, []wire.Payload)) {
	var request []wire.Attribute
	addressed := false
	if cp := findCP(payloads, wire.CFGRequest); cp != nil {
		request = s.validAttributes(cp, false)
		addressed = slices.ContainsFunc(request, func(a wire.Attribute) bool { return attributeAddr(a).IsValid() })
	}
	refuse := func(t wire.NotifyType, detail ike.Detail, why string) {
		s.holding().refused = &refusal{notify: t, record: &ike.Rejection{Reason: ike.ReasonAddresses, Detail: detail, Difference: why}}
		if detail == ike.DetailPool {
			for _, name := range s.peer.Pools[:min(len(s.peer.Pools), limitPassed)] {
				s.cp().refused.record.Options = append(s.cp().refused.record.Options, "pools."+name+".addrs")
			}
		}
		if sa, _ := wire.First[*wire.SA](payloads); sa == nil {
			then(now, []wire.Payload{notify(t, nil)}) // childless: nobody else will say it
			return
		}
		then(now, nil)
	}
	switch {
	case len(s.peer.Pools) == 0 && addressed:
		refuse(wire.InternalAddressFailure, ike.DetailNoPool, "the peer wants a virtual address and the connection has no pools")
		return
	case len(s.peer.Pools) == 0:
		then(now, nil)
		return
	case !addressed:
		refuse(wire.FailedCPRequired, ike.DetailUnasked, "the connection gives virtual addresses and the peer wants none")
		return
	}
	s.holding().leased = s.ourSPI()
	q := ike.LeaseAddresses{Lease: s.cp().leased, Peer: s.peer, ID: s.leaseID(), Remote: s.remote, Request: request}
	for _, o := range going {
		if old, ok := o.(*sa); ok && old.cp().leased != 0 && len(q.Instead) < limitInstead {
			q.Instead = append(q.Instead, old.cp().leased)
		}
	}
	s.askHost(now, q, func(now time.Time, v any, err error) {
		lease, _ := v.(*ike.Lease)
		switch {
		case err != nil:
			detail, why := ike.WhyNoAddress(err)
			refuse(wire.InternalAddressFailure, detail, why)
			return
		case lease == nil || len(lease.Addrs) == 0:
			refuse(wire.InternalAddressFailure, ike.DetailPool, "no pool has an address of the family that the peer wants")
			return
		}
		cp := &wire.CP{CFGType: wire.CFGReply}
		for _, a := range lease.Addrs[:min(len(lease.Addrs), limitVIPs)] {
			s.holding().given = append(s.cp().given, a.Unmap())
			cp.Attributes = append(cp.Attributes, addressAttribute(a.Unmap()))
		}
		cp.Attributes = append(cp.Attributes, lease.Attributes[:min(len(lease.Attributes), limitAttributes)]...)
		then(now, []wire.Payload{cp})
	})
}

// cpTake takes over what the responder's CFG_REPLY gives, before the Child SA that
// came with it is installed. Without an address the Child SA is not accepted.
func (s *sa) cpTake(now time.Time, payloads []wire.Payload, then func(time.Time)) {
	cp := findCP(payloads, wire.CFGReply)
	if len(s.cp().asked) == 0 {
		if cp != nil {
			s.note(2, "the peer sends a configuration that nobody asked for; left out")
		}
		then(now)
		return
	}
	refuse := func(why string) {
		s.holding().refused = &refusal{record: &ike.Rejection{Reason: ike.ReasonAddresses, Detail: ike.DetailNotGiven, Difference: why}}
		then(now)
	}
	var addrs []netip.Addr
	var rest []wire.Attribute
	if cp != nil {
		for _, a := range s.validAttributes(cp, true) {
			ip := attributeAddr(a)
			switch {
			case !ip.IsValid():
				rest = append(rest, a)
			case !slices.Contains(addrs, ip) && len(addrs) < len(s.cp().asked) && slices.ContainsFunc(s.cp().asked, func(w netip.Addr) bool { return w.Is4() == ip.Is4() }):
				addrs = append(addrs, ip)
			}
		}
	}
	if len(addrs) == 0 {
		refuse("the peer gives no virtual address")
		return
	}
	s.holding().assumed = s.ourSPI()
	s.askHost(now, ike.AssumeAddresses{Lease: s.cp().assumed, Peer: s.peer, Addrs: addrs, Attributes: rest}, func(now time.Time, _ any, err error) {
		if err != nil {
			refuse("the host cannot take the virtual address: " + err.Error())
			return
		}
		s.holding().got = addrs
		then(now)
	})
}

// cpInformational answers a CFG_REQUEST in INFORMATIONAL: nothing is told there. A
// CFG_SET is not taken, which an answer without CFG_ACK says (RFC 7296 §3.15).
func cpInformational(payloads []wire.Payload) []wire.Payload {
	if findCP(payloads, wire.CFGRequest) == nil {
		return nil
	}
	return []wire.Payload{&wire.CP{CFGType: wire.CFGReply}}
}

// releaseAddresses gives back what this IKE SA holds.
func (s *sa) releaseAddresses() {
	if s.cp().leased != 0 {
		s.env.Effect(ike.ReleaseLease{Lease: s.cp().leased})
	}
	if s.cp().assumed != 0 {
		s.env.Effect(ike.UndoAddresses{Lease: s.cp().assumed})
	}
	s.vips = nil
}

// ourSPI is our SPI of the IKE SA.
func (s *sa) ourSPI() uint64 {
	if s.initiator {
		return s.spiI
	}
	return s.spiR
}

// leaseID is who gets an address: the identity inside EAP if there was one.
func (s *sa) leaseID() string {
	if s.eapID != "" {
		return s.eapID
	}
	return s.ids[1].String()
}

// span is what a dynamic selector stands for: an address, or all of a family.
type span struct{ from, to netip.Addr }

func spansOf(list []netip.Addr) (out []span) {
	for _, a := range list {
		a = a.Unmap().WithZone("")
		out = append(out, span{a, a})
	}
	return out
}

// wantsAddresses reports whether our dynamic selectors wait for the peer's CFG_REPLY.
func (s *sa) wantsAddresses() bool {
	return len(s.cp().asked) > 0 && len(s.cp().got) == 0 && s.cp().refused == nil
}

// localSpans are what dynamic selectors of ours stand for: the virtual addresses;
// until the peer has given them anything of their families, which it narrows
// (RFC 7296 §2.19); without any our endpoint.
func (s *sa) localSpans() []span {
	switch {
	case len(s.cp().got) > 0:
		return spansOf(s.cp().got)
	case s.cp().refused != nil && len(s.cp().asked) > 0:
		return nil
	case s.wantsAddresses():
		var out []span
		for _, a := range s.cp().asked {
			all := span{netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255})}
			if a.Is6() {
				all.from, all.to = netip.IPv6Unspecified(), netip.AddrFrom16([16]byte(slices.Repeat([]byte{255}, 16)))
			}
			if !slices.Contains(out, all) {
				out = append(out, all)
			}
		}
		return out
	}
	return spansOf([]netip.Addr{s.local.Addr()})
}

// remoteSpans are what the peer's dynamic selectors stand for.
func (s *sa) remoteSpans() []span {
	if len(s.cp().given) > 0 {
		return spansOf(s.cp().given)
	}
	return spansOf([]netip.Addr{s.remote.Addr()})
}

// resolved puts addresses into dynamic selectors.
func resolved(list []ipsec.Selector, hosts []span) []ipsec.Selector {
	out := make([]ipsec.Selector, 0, len(list))
	for _, t := range list[:min(len(list), limitSelectors)] {
		if !t.IsDynamic() {
			out = append(out, t)
			continue
		}
		for _, h := range hosts {
			t.From, t.To = h.from, h.to
			out = append(out, t)
		}
	}
	return out
}
