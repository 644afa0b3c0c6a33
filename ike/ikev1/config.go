package ikev1

import (
	"net/netip"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// Mode Config (draft-dukes-ike-mode-cfg-02): virtual addresses and settings, asked for
// by the client (pull) or set by the server (push), with Cisco's Unity attributes.

// Unity attributes.
const (
	unityBanner       wire.AttributeType = 28672
	unitySplitInclude wire.AttributeType = 28676
	unityLocalLAN     wire.AttributeType = 28678
	unityLast         wire.AttributeType = 28684
	attrNetmask                          = wire.InternalIP4Netmask
)

// addresses are what Mode Config gave under one ISAKMP SA.
type addresses struct {
	got, given      []netip.Addr
	leased, assumed uint64 // what the driver holds for us, 0: nothing
}

// configTask asks for virtual addresses before anything else is asked for.
type configTask struct{ want []netip.Addr }

func (t *configTask) name() string          { return "MODE_CONFIG" }
func (t *configTask) cancel(*sa, time.Time) {}

// wantAddresses enqueues our CFG_REQUEST, if the connection wants addresses.
func (s *sa) wantAddresses() {
	want := s.peer.VIPs
	if had := s.env.AddressesBefore(); len(had) > 0 && len(want) > 0 {
		want = had // a reauthentication keeps what there is
	}
	if len(want) > 0 {
		s.enqueue(&configTask{want[:min(len(want), limitVIPs)]})
	}
}

func (t *configTask) begin(s *sa, now time.Time) {
	p := wire.V1Attributes{CFGType: wire.CFGRequest}
	for _, a := range t.want {
		x := wire.V1Attribute{Type: uint16(wire.InternalIP4Address)}
		if a.Is6() {
			x.Type = uint16(wire.InternalIP6Address)
		}
		if !a.IsUnspecified() {
			x.Value = a.AsSlice()
		}
		p.Attributes = append(p.Attributes, x)
	}
	for _, k := range []wire.AttributeType{attrNetmask, wire.InternalIP4DNS, wire.InternalIP4NBNS, unityBanner, unityBanner + 2, unityBanner + 3, unitySplitInclude, unityLocalLAN} {
		p.Attributes = append(p.Attributes, wire.V1Attribute{Type: uint16(k)})
	}
	s.transact(now, p, func(s *sa, now time.Time, r *wire.V1Attributes) {
		s.assume(now, r, func(now time.Time, ok bool) {
			s.sched.current = nil
			if !ok {
				s.end(now, ike.Closed{Cause: ike.CauseFailed, Reason: "no virtual address", Rejection: s.reject(&ike.Rejection{Reason: ike.ReasonAddresses, Detail: ike.DetailNotGiven, Difference: "the peer gives no virtual address"})})
				return
			}
			s.run(now)
		})
	})
}

// assume has the host take what the peer gives.
func (s *sa) assume(now time.Time, p *wire.V1Attributes, then func(time.Time, bool)) {
	var addrs []netip.Addr
	var rest []wire.Attribute
	for _, a := range p.Attributes {
		ip, isAddr := netip.AddrFromSlice(a.Value)
		switch t := wire.AttributeType(a.Type); {
		case t == wire.InternalIP4Address || t == wire.InternalIP6Address:
			if isAddr && ip.Is4() == (t == wire.InternalIP4Address) && !ip.IsUnspecified() && !ip.IsMulticast() && !ip.IsLoopback() && len(addrs) < limitVIPs && !slices.Contains(addrs, ip) {
				addrs = append(addrs, ip)
			}
		case len(rest) < limitAttributes && len(a.Value) <= 1024 && (t == wire.InternalIP4DNS && len(a.Value) == 4 || t == wire.InternalIP6DNS && len(a.Value) == 16):
			rest = append(rest, wire.Attribute{Type: t, Value: slices.Clone(a.Value)})
		case t == unityBanner && len(a.Value) > 0:
			s.note(1, "the peer's banner: "+shortText(string(a.Value)))
		}
	}
	if len(addrs) == 0 {
		then(now, false)
		return
	}
	s.vips.assumed = s.ourSPI()
	s.ask(now, timeoutAsk, ike.AssumeAddresses{Lease: s.vips.assumed, Peer: s.peer, Addrs: addrs, Attributes: rest}, func(now time.Time, r ike.Result) {
		if r.Err != nil {
			s.note(1, "the host cannot take the virtual address: "+r.Err.Error())
			then(now, false)
			return
		}
		s.vips.got = addrs
		then(now, true)
	})
}

func (s *sa) ourSPI() uint64 {
	if s.initiator {
		return s.spiI
	}
	return s.spiR
}

// configRequest answers the client's CFG_REQUEST.
func (s *sa) configRequest(now time.Time, p *wire.V1Attributes, reply func(time.Time, wire.CFGType, []wire.V1Attribute)) {
	s.lease(now, p.Attributes, func(now time.Time, list []wire.V1Attribute) { reply(now, wire.CFGReply, list) })
}

// lease finds the addresses and settings for a client that asks for these attributes.
func (s *sa) lease(now time.Time, asked []wire.V1Attribute, then func(time.Time, []wire.V1Attribute)) {
	var request []wire.Attribute
	netmask := false
	for _, a := range asked[:min(len(asked), limitAttributes)] {
		t := wire.AttributeType(a.Type)
		netmask = netmask || t == attrNetmask
		n := len(a.Value)
		if t == wire.InternalIP4Address && (n == 0 || n == 4) || t == wire.InternalIP6Address && (n == 0 || n == 16 || n == 17) {
			request = append(request, wire.Attribute{Type: t, Value: slices.Clone(a.Value)})
		}
	}
	if len(s.peer.Pools) == 0 || len(request) == 0 {
		then(now, nil)
		return
	}
	if s.vips.leased != 0 { // it asks again
		s.env.Effect(ike.ReleaseLease{Lease: s.vips.leased})
		s.vips.given = nil
	}
	s.vips.leased = s.ourSPI()
	id := s.ids[1].String()
	if s.eapID != "" {
		id = s.eapID
	}
	q := ike.LeaseAddresses{Lease: s.vips.leased, Peer: s.peer, ID: id, Remote: s.remote, Request: request}
	for _, o := range s.env.Siblings(s.ids[0], s.uniqueID()) {
		if old, ok := o.(*sa); ok && old.remade && old.vips.leased != 0 && len(q.Instead) < limitInstead {
			q.Instead = append(q.Instead, old.vips.leased)
		}
	}
	s.ask(now, timeoutAsk, q, func(now time.Time, r ike.Result) {
		lease, _ := r.Value.(*ike.Lease)
		if r.Err != nil || lease == nil || len(lease.Addrs) == 0 {
			detail, why := ike.DetailPool, "no pool has an address of the family that the peer wants"
			if r.Err != nil {
				detail, why = ike.WhyNoAddress(r.Err)
			}
			s.reject(&ike.Rejection{Reason: ike.ReasonAddresses, Detail: detail, Difference: why})
			then(now, nil)
			return
		}
		var list []wire.V1Attribute
		for _, a := range lease.Addrs[:min(len(lease.Addrs), limitVIPs)] {
			a = a.Unmap()
			s.vips.given = append(s.vips.given, a)
			t := wire.InternalIP4Address
			if a.Is6() {
				t = wire.InternalIP6Address
			}
			list = append(list, wire.V1Attribute{Type: uint16(t), Value: a.AsSlice()})
		}
		s.env.Emit(ike.Addressed{SA: s.Info()})
		then(now, append(list, settings(lease.Attributes, netmask)...))
	})
}

// settings are the pool's attributes as IKEv1 has them.
func settings(attributes []wire.Attribute, netmask bool) (list []wire.V1Attribute) {
	split := map[wire.AttributeType][]byte{}
	for _, a := range attributes[:min(len(attributes), limitAttributes)] {
		switch {
		case a.Type == attrNetmask:
			netmask = false
			list = append(list, wire.V1Attribute{Type: uint16(a.Type), Value: a.Value})
		case a.Type == unitySplitInclude || a.Type == unityLocalLAN:
			// Each subnet is address, mask, protocol and ports: 14 octets.
			if len(a.Value) == 8 {
				split[a.Type] = append(append(split[a.Type], a.Value...), 0, 0, 0, 0, 0, 0)
			} else if len(a.Value)%14 == 0 {
				split[a.Type] = append(split[a.Type], a.Value...)
			}
		case a.Type <= wire.InternalIP6DHCP || a.Type >= unityBanner && a.Type <= unityLast:
			list = append(list, wire.V1Attribute{Type: uint16(a.Type), Value: a.Value})
		}
	}
	for _, t := range []wire.AttributeType{unitySplitInclude, unityLocalLAN} {
		if len(split[t]) > 0 {
			list = append(list, wire.V1Attribute{Type: uint16(t), Value: split[t]})
		}
	}
	if netmask {
		list = append(list, wire.V1Attribute{Type: uint16(attrNetmask), Value: []byte{255, 255, 255, 255}})
	}
	return list
}

// configSet takes what the server pushes. Without a wish of ours nothing is taken.
func (s *sa) configSet(now time.Time, p *wire.V1Attributes, reply func(time.Time, wire.CFGType, []wire.V1Attribute)) {
	var ack []wire.V1Attribute
	for _, a := range p.Attributes[:min(len(p.Attributes), limitAttributes)] {
		ack = append(ack, wire.V1Attribute{Type: a.Type})
	}
	if len(s.peer.VIPs) == 0 || len(s.vips.got) > 0 || s.sched.busy != 0 {
		reply(now, wire.CFGAck, nil)
		return
	}
	reply(now, wire.CFGAck, ack)
	s.assume(now, p, func(now time.Time, _ bool) {
		if t, ok := s.sched.current.(*pushTask); ok && t != nil {
			s.sched.current = nil
		}
		s.run(now)
	})
}

// pushTask waits for the server's CFG_SET (`pull = no`).
type pushTask struct{}

func (t *pushTask) name() string          { return "MODE_CONFIG" }
func (t *pushTask) cancel(*sa, time.Time) {}
func (t *pushTask) begin(s *sa, now time.Time) {
	if len(s.vips.got) > 0 {
		s.sched.current = nil
	}
}

// giveTask pushes addresses to the client (`pull = no`).
type giveTask struct{}

func (t *giveTask) name() string          { return "MODE_CONFIG" }
func (t *giveTask) cancel(*sa, time.Time) {}
func (t *giveTask) begin(s *sa, now time.Time) {
	asked := []wire.V1Attribute{{Type: uint16(wire.InternalIP4Address)}, {Type: uint16(attrNetmask)}}
	s.lease(now, asked, func(now time.Time, list []wire.V1Attribute) {
		if len(list) == 0 {
			s.sched.current = nil
			return
		}
		s.transact(now, wire.V1Attributes{CFGType: wire.CFGSet, Attributes: list}, func(s *sa, now time.Time, _ *wire.V1Attributes) {
			s.sched.current = nil
			s.run(now)
		})
	})
}

// modeConfig enqueues what Mode Config the connection wants at its beginning.
func (s *sa) modeConfig() {
	switch {
	case s.peer.Push && len(s.peer.VIPs) > 0:
		s.enqueue(&pushTask{})
	case s.peer.Push && len(s.peer.Pools) > 0:
		s.enqueue(&giveTask{})
	case !s.peer.Push:
		s.wantAddresses()
	}
}

// releaseAddresses gives back what this SA holds.
func (s *sa) releaseAddresses() {
	if s.vips.leased != 0 {
		s.env.Effect(ike.ReleaseLease{Lease: s.vips.leased})
	}
	if s.vips.assumed != 0 {
		s.env.Effect(ike.UndoAddresses{Lease: s.vips.assumed})
	}
	s.vips = addresses{}
}
