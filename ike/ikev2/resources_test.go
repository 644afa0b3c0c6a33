package ikev2_test

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// perResource makes a pair that has one Child SA for all, with so many workers each.
func perResource(t *testing.T, a, b int, tweak func(a, b *side)) *mitm {
	m := newMITM(t, func(x, y *side) {
		x.child.PerCPU, y.child.PerCPU = ike.PerCPUEncap, ike.PerCPUYes
		x.config.Workers, y.config.Workers = a, b
		if tweak != nil {
			tweak(x, y)
		}
	})
	m.a.initiate("net")
	m.run(time.Second)
	m.upN(1)
	return m
}

// acquire is a worker's wish for an SA of its own.
func (h *host) acquire(worker int) {
	for _, p := range h.plane.pol {
		h.e.Dataplane(h.p.now, ipsec.Acquire{Policy: p.ID, Name: p.Name, Src: p.Local[0].From.Next(), Dst: p.Remote[0].From.Next(), Resource: uint16(worker + 1)})
	}
	h.drain()
}

// only is the policy of the only group.
func (h *host) only(t *testing.T) ipsec.Policy {
	t.Helper()
	if len(h.plane.pol) != 1 {
		t.Fatalf("%s has %d policies", h.name, len(h.plane.pol))
	}
	for _, p := range h.plane.pol {
		return p
	}
	return ipsec.Policy{}
}

// resources are those that the Child SAs of a host serve, in order of their numbers.
func (h *host) resources() (out []uint16) {
	for _, c := range h.e.SAs()[0].Children {
		if c.State == "INSTALLED" {
			out = append(out, c.Resource)
		}
	}
	return out
}

// consistent: each Child SA's inbound SPI names the worker that it serves, and the policy
// has one outbound SA for each resource.
func (h *host) consistent(t *testing.T, workers int) {
	t.Helper()
	p := h.only(t)
	if out := h.plane.sas[p.Out]; out.Resource != 0 {
		t.Errorf("%s: resource %d serves all", h.name, out.Resource)
	}
	seen := map[uint16]bool{}
	for _, ref := range p.Resources {
		sa, ok := h.plane.sas[ref]
		if !ok || sa.Resource == 0 || seen[sa.Resource] {
			t.Errorf("%s: %v of the policy: %+v", h.name, ref, sa)
		}
		seen[sa.Resource] = true
	}
	for ref, sa := range h.plane.sas {
		if ref.Dir == ipsec.In && sa.Resource > 0 && int(sa.SPI)%workers != int(sa.Resource-1) {
			t.Errorf("%s: SPI %v serves resource %d of %d", h.name, sa.SPI, sa.Resource, workers)
		}
		if sa.Resource > 0 && !seen[sa.Resource] {
			t.Errorf("%s: resource %d has no SA in the policy", h.name, sa.Resource)
		}
	}
}

// Child SAs of single resources beside the one for all: who asks names them by its own
// workers, who answers chooses its own; a rekey keeps the resource and the worker, and the
// notify is not in it; when one goes its worker falls back to the one for all.
func TestRFC9611_3_ResourceSpecificChildSAs(t *testing.T) {
	m := perResource(t, 2, 4, nil)
	var infos [][]byte
	m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
		if h.Exchange == wire.ExchangeCreateChildSA {
			if n := wire.FindNotify(p, wire.SAResourceInfo); n != nil {
				infos = append(infos, append([]byte(from.name), n.Data...))
				if n.Critical || n.Protocol != 0 || len(n.SPI) != 0 {
					t.Errorf("%+v", n)
				}
				n.Protocol, n.SPI = wire.ProtocolESP, []byte{1, 2, 3, 4} // is to be ignored
			} else {
				infos = append(infos, nil)
			}
		}
		return p
	}
	if !m.a.only(t).PerResource || !m.b.only(t).PerResource {
		t.Fatal("the notify was not exchanged")
	}
	for range 2 { // the second time they are there
		m.a.acquire(0)
		m.a.acquire(1)
		m.run(time.Second)
		m.upN(3)
	}
	if r := m.a.resources(); !slices.Equal(r, []uint16{0, 1, 2}) {
		t.Errorf("a serves %v", r)
	}
	if r := m.b.resources(); !slices.Equal(r, []uint16{0, 4, 3}) {
		t.Errorf("b serves %v", r)
	}
	m.b.acquire(0) // its first two have none
	m.run(time.Second)
	m.upN(4)
	m.a.consistent(t, 2)
	m.b.consistent(t, 4)
	for i, n := range infos { // unique, and no numbers of workers: those begin with 0
		if len(n) != 5 || slices.ContainsFunc(infos[:i], func(o []byte) bool { return slices.Equal(o, n) }) || binary.BigEndian.Uint32(n[1:]) < 2 {
			t.Errorf("SA_RESOURCE_INFO with %x", n)
		}
	}
	for ref, sa := range m.a.plane.sas {
		if want := ref.Dir == ipsec.Out && sa.Resource > 0; sa.OwnPort != want || sa.TrackNAT {
			t.Errorf("a: %v has a port of its own: %v; follows a NAT: %v", ref, sa.OwnPort, sa.TrackNAT)
		}
	}
	infos = nil
	for _, h := range []*host{m.a, m.b} {
		before := h.resources()
		h.do(ike.Rekey{Child: "net"})
		m.run(time.Minute)
		m.upN(4)
		if after := h.resources(); !slices.Equal(slices.Sorted(slices.Values(before)), slices.Sorted(slices.Values(after))) {
			t.Errorf("rekeyed: %v, before %v", after, before)
		}
		m.a.consistent(t, 2)
		m.b.consistent(t, 4)
	}
	for _, n := range infos {
		if n != nil {
			t.Error("SA_RESOURCE_INFO in a rekey")
		}
	}
	for _, c := range m.a.e.SAs()[0].Children {
		if c.Resource == 1 {
			m.a.do(ike.Terminate{ChildID: c.ID})
		}
	}
	m.run(time.Minute)
	for _, ref := range m.a.only(t).Resources {
		if m.a.plane.sas[ref].Resource == 1 && len(m.a.resources()) == 2 {
			t.Error("a resource whose Child SA is gone has one in the policy")
		}
	}
	m.a.consistent(t, 2)
}

// The one for all goes, and another one takes its place until it is back.
func TestRFC9611_4_WithoutFallback(t *testing.T) {
	m := perResource(t, 2, 2, nil)
	m.a.acquire(1)
	m.run(time.Second)
	m.upN(2)
	m.a.do(ike.Terminate{ChildID: m.a.e.SAs()[0].Children[0].ID})
	m.run(time.Minute)
	m.upN(1)
	p := m.a.only(t)
	if m.a.plane.sas[p.Out].Resource != 2 {
		t.Errorf("nothing serves all: %+v", p)
	}
	m.a.acquire(0) // nobody can ask for single ones now
	m.run(time.Second)
	m.upN(1)
	m.a.do(ike.Terminate{})
	m.run(time.Minute)
	if len(m.a.plane.pol)+len(m.b.plane.pol)+len(m.a.plane.sas)+len(m.b.plane.sas) != 0 {
		t.Errorf("left: %v %v", m.a.plane.pol, m.b.plane.pol)
	}
}

// A peer without the option makes an ordinary Child SA, and is asked for no other.
func TestRFC9611_3_PeerWithout(t *testing.T) {
	m := perResource(t, 2, 2, func(_, b *side) { b.child.PerCPU = ike.PerCPUNo })
	for _, h := range []*host{m.a, m.b} {
		if h.only(t).PerResource {
			t.Errorf("%s takes the peer for one that makes several", h.name)
		}
		h.acquire(0)
	}
	m.run(time.Minute)
	m.upN(1)
}

// The number that a peer can make is bounded: then it hears TS_MAX_QUEUE, and asks no
// more until one goes.
func TestRFC9611_5_2_TSMaxQueue(t *testing.T) {
	m := perResource(t, 70, 2, nil)
	requests := 0
	m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
		if h.Exchange == wire.ExchangeCreateChildSA && !h.Response() && from == m.a {
			requests++
		}
		return p
	}
	for i := range 64 {
		m.a.acquire(i)
		m.run(100 * time.Millisecond)
	}
	m.run(time.Second)
	m.upN(65)
	m.b.consistent(t, 2)
	refused := 0
	m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
		switch {
		case h.Exchange != wire.ExchangeCreateChildSA:
		case !h.Response():
			requests++
		case from == m.b && wire.FindNotify(p, wire.TSMaxQueue) != nil:
			refused++
		}
		return p
	}
	m.a.acquire(64)
	m.run(time.Second)
	m.a.acquire(65)
	m.run(time.Second)
	if requests != 65 || refused != 1 {
		t.Errorf("%d requests, %d refused", requests, refused)
	}
	m.upN(65)
	m.a.do(ike.Terminate{ChildID: m.a.e.SAs()[0].Children[1].ID})
	m.run(time.Second)
	m.a.acquire(65)
	m.run(time.Minute)
	if m.upN(65); requests != 66 || refused != 1 {
		t.Errorf("when one has gone: %d requests, %d refused", requests, refused)
	}
}

// The packet that asked stands in front of the selectors of the first, which are granted
// all the same; further ones have its algorithms alone to choose from, although others are
// configured and preferred by now.
func TestRFC9611_4_TriggerAndSameAlgorithms(t *testing.T) {
	strong, weak := mustProposals(t, suite.ESP, "aes256gcm16-x25519"), mustProposals(t, suite.ESP, "aes128gcm16-x25519")
	var children []*ike.Child
	m := perResource(t, 2, 2, func(a, b *side) {
		children = []*ike.Child{a.child, b.child}
		a.child.Proposals, b.child.Proposals = slices.Concat(weak, strong), slices.Concat(weak, strong)
	})
	for _, c := range children {
		c.Proposals = slices.Concat(strong, weak)
	}
	first := m.a.e.SAs()[0].Children[0].Suite.Encr
	asked := 0
	m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
		if h.Exchange != wire.ExchangeCreateChildSA || h.Response() {
			return p
		}
		asked++
		for _, typ := range []wire.PayloadType{wire.PayloadTSi, wire.PayloadTSr} {
			ts := wire.FindTS(p, typ).Selectors
			if len(ts) != 2 || ts[0].Start != ts[0].End || !ts[1].Start.Less(ts[1].End) {
				t.Errorf("%v: %+v", typ, ts)
			}
		}
		if sa, _ := wire.First[*wire.SA](p); len(sa.Proposals) != 1 {
			t.Errorf("offered: %+v", sa.Proposals)
		} else if from == m.b { // an initiator that offers more: the responder takes the same
			sa.Proposals = []wire.Proposal{stronger(sa.Proposals[0]), sa.Proposals[0]}
			sa.Proposals[1].Number = 2
		}
		return p
	}
	m.a.acquire(0)
	m.run(time.Second)
	m.b.acquire(0)
	m.run(time.Second)
	m.upN(3)
	for _, h := range []*host{m.a, m.b} {
		h.consistent(t, 2)
		for _, c := range h.e.SAs()[0].Children {
			if c.Suite.Encr != first {
				t.Errorf("%s: %v beside %v", h.name, c.Suite, first)
			}
		}
	}
	if asked != 2 {
		t.Errorf("%d requests", asked)
	}
}

// stronger is a proposal with a key of 256 bits.
func stronger(p wire.Proposal) wire.Proposal {
	p.Transforms = slices.Clone(p.Transforms)
	for i := range p.Transforms {
		if p.Transforms[i].KeyLength == 128 {
			p.Transforms[i].KeyLength = 256
		}
	}
	return p
}

// A peer that grants less than the first has: that one is deleted, and no other is asked for.
func TestRFC9611_3_NarrowedFurther(t *testing.T) {
	m := perResource(t, 2, 2, nil)
	requests := 0
	m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
		if h.Exchange == wire.ExchangeCreateChildSA {
			if h.Response() {
				ts := wire.FindTS(p, wire.PayloadTSr)
				ts.Selectors[0].End = ts.Selectors[0].Start
			} else {
				requests++
			}
		}
		return p
	}
	for i := range 2 {
		m.a.acquire(i)
		m.run(time.Minute)
	}
	m.upN(1)
	if requests != 1 {
		t.Errorf("%d requests", requests)
	}
}

// TS_MAX_QUEUE, not NO_ADDITIONAL_SAS, also where the option is off by now.
func TestRFC9611_6_NoMoreOfThese(t *testing.T) {
	var off *ike.Child
	m := perResource(t, 2, 2, func(_, b *side) { off = b.child })
	refused := 0
	m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
		if from == m.b && wire.FindNotify(p, wire.TSMaxQueue) != nil {
			refused++
		}
		return p
	}
	off.PerCPU = ike.PerCPUNo
	m.a.acquire(0)
	m.run(time.Minute)
	m.upN(1)
	if refused != 1 {
		t.Errorf("%d refused", refused)
	}
}
