package ikev2_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
)

var (
	addrC = netip.MustParseAddr("192.0.2.3") // a second address of b: the other gateway
	addrD = netip.MustParseAddr("192.0.2.4")
)

// gateways is a pair whose b is reachable under several addresses, each a gateway for a.
func gateways(t *testing.T, tweak func(a, b *side)) *pair {
	return newPair(t, func(a, b *side) {
		b.peer.LocalAddrs = nil
		if tweak != nil {
			tweak(a, b)
		}
	})
}

// inits lists the REDIRECT notifies of a's first messages, by the address they went to.
func inits(h *host) (out []string) {
	for _, d := range h.sent {
		msg, err := wire.ParseMessage(d.Data)
		if err != nil || msg.Header.Exchange != wire.ExchangeIKESAInit || msg.Header.Response() {
			continue
		}
		text := d.Remote.Addr().String()
		if wire.FindNotify(msg.Payloads, wire.RedirectSupported) != nil {
			text += " supported"
		}
		if n := wire.FindNotify(msg.Payloads, wire.RedirectedFrom); n != nil {
			text += fmt.Sprintf(" from %x", n.Data)
		}
		out = append(out, text)
	}
	return out
}

func wants(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "; ") != strings.Join(want, "; ") {
		t.Errorf("first messages %q, want %q", got, want)
	}
}

func TestRFC5685_3_InIKESAInit(t *testing.T) {
	for _, by := range []string{"address", "name"} {
		p := gateways(t, nil)
		to := ike.RedirectTarget{Addr: addrC}
		if by == "name" {
			to = ike.RedirectTarget{Name: "gw2.example"}
			p.a.resolv = map[string][]netip.Addr{"gw2.example": {addrB, addrC}} // the first leads back
		}
		p.b.do(ike.Drain{On: true, To: to})
		p.a.initiate("net")
		p.run(25 * time.Millisecond)
		p.b.do(ike.Drain{}) // C is another gateway
		p.run(2 * time.Second)
		p.up()
		if p.a.e.SAs()[0].Remote.Addr() != addrC {
			t.Errorf("%s: the IKE SA is with %v", by, p.a.e.SAs()[0].Remote)
		}
		wants(t, inits(p.a), "192.0.2.2 supported", "192.0.2.3 from 0104c0000202")
		if d := lastDone(t, p.a); d.Err != nil {
			t.Error(d.Err)
		}
	}
}

// A name is looked up, and the address of the gateway that redirects is not among its answers.
func TestRFC5685_3_NameThatLeadsBack(t *testing.T) {
	p := gateways(t, nil)
	p.a.resolv = map[string][]netip.Addr{"gw2.example": {addrB, addrA}}
	p.b.do(ike.Drain{On: true, To: ike.RedirectTarget{Name: "gw2.example"}})
	p.a.initiate("net")
	p.run(10 * time.Second)
	if d := lastDone(t, p.a); d.Err == nil || !strings.Contains(d.Err.Error(), "leads back") {
		t.Errorf("%+v", d)
	}
	wants(t, inits(p.a), "192.0.2.2 supported")
	p.down()
}

// A gateway that is drained answers only who can be redirected, keeps nothing, and does
// not send back who comes from where it would send it.
func TestDrainRefuses(t *testing.T) {
	p := gateways(t, func(a, _ *side) { a.config.NoRedirects = true })
	p.b.do(ike.Drain{On: true, To: ike.RedirectTarget{Addr: addrC}})
	p.a.initiate("net")
	p.run(time.Second)
	if n := p.b.e.Stats().Dropped[ike.DropDraining]; n != 1 || len(p.b.sent) != 0 {
		t.Errorf("%d dropped, %d sent", n, len(p.b.sent))
	}
	wants(t, inits(p.a), "192.0.2.2")

	p = gateways(t, nil)
	p.b.do(ike.Drain{On: true, To: ike.RedirectTarget{Addr: addrB}}) // itself
	p.a.initiate("net")
	p.run(time.Second)
	if n := p.b.e.Stats().Dropped[ike.DropDraining]; n != 1 || len(p.b.sent) != 0 {
		t.Errorf("to oneself: %d dropped, %d sent", n, len(p.b.sent))
	}

	// All the configured gateway's new clients, without a drain: those that cannot be sent away stay.
	p = gateways(t, func(a, b *side) { a.config.NoRedirects, b.config.RedirectTo = true, ike.RedirectTarget{Addr: addrC} })
	p.a.initiate("net")
	p.run(time.Second)
	p.up()
}

// An answer by which a third party wants to redirect is dropped: it does not know our nonce.
func TestRFC5685_3_ForgedRedirect(t *testing.T) {
	for name, data := range map[string]func(ni []byte) []byte{
		"no nonce": func([]byte) []byte { return []byte("\x01\x04\xc0\x00\x02\x03") },
		"other nonce": func(ni []byte) []byte {
			return append([]byte("\x01\x04\xc0\x00\x02\x03"), bytes.Repeat([]byte{7}, len(ni))...)
		},
		"longer nonce": func(ni []byte) []byte { return append(append([]byte("\x01\x04\xc0\x00\x02\x03"), ni...), 0) },
		"no gateway":   func(ni []byte) []byte { return append([]byte("\x01\x00"), ni...) },
		"bad length":   func(ni []byte) []byte { return append([]byte("\x01\xff"), ni...) },
		"bad type":     func(ni []byte) []byte { return append([]byte("\x09\x04\xc0\x00\x02\x03"), ni...) },
		"bad name":     func(ni []byte) []byte { return append([]byte("\x03\x04a\nb."), ni...) },
		"empty":        func([]byte) []byte { return nil },
	} {
		p := gateways(t, nil)
		p.filter = func(from *host, d ike.Datagram) bool {
			msg, _ := wire.ParseMessage(d.Data)
			if from == p.a && msg != nil && msg.Header.Exchange == wire.ExchangeIKESAInit {
				ni, _ := wire.First[*wire.Nonce](msg.Payloads)
				h := wire.Header{SPIi: msg.Header.SPIi, Version: wire.IKEv2, Exchange: wire.ExchangeIKESAInit, Flags: wire.FlagResponse}
				forged := wire.AppendMessage(nil, h, []wire.Payload{&wire.Notify{NotifyType: wire.Redirect, Data: data(ni.Data)}})
				p.a.e.Datagram(p.now, ike.Datagram{Local: d.Local, Remote: d.Remote, Data: forged})
			}
			return true
		}
		p.a.initiate("net")
		p.run(2 * time.Second)
		p.up()
		if n := p.a.e.Stats().Dropped[ike.DropRedirect]; n != 1 {
			t.Errorf("%s: %d dropped", name, n)
		}
		wants(t, inits(p.a), "192.0.2.2 supported")
	}
}

// Redirections that a true gateway sends but nobody follows: to itself, to the client,
// to nowhere, and all with follow_redirects = no.
func TestRFC5685_RefusedTargets(t *testing.T) {
	for _, to := range []netip.Addr{addrB, addrA, netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::ffff:192.0.2.2")} {
		p := gateways(t, nil)
		answerBy(p, to)
		p.a.initiate("net")
		p.run(5 * time.Second)
		if d := lastDone(t, p.a); d.Err == nil || !strings.Contains(d.Err.Error(), "leads back, or nowhere") {
			t.Errorf("%v: %+v", to, d)
		}
		wants(t, inits(p.a), "192.0.2.2 supported")
	}
	p := gateways(t, func(a, _ *side) { a.config.NoRedirects = true })
	answerBy(p, addrC)
	p.a.initiate("net")
	p.run(5 * time.Second)
	if d := lastDone(t, p.a); d.Err == nil || !strings.Contains(d.Err.Error(), "follow_redirects = no") {
		t.Errorf("%+v", d)
	}
}

// answerBy has b answer every first message by a REDIRECT with the right nonce.
func answerBy(p *pair, to ...netip.Addr) {
	n := 0
	p.filter = func(from *host, d ike.Datagram) bool {
		msg, _ := wire.ParseMessage(d.Data)
		if from != p.a || msg == nil || msg.Header.Exchange != wire.ExchangeIKESAInit {
			return true
		}
		ni, _ := wire.First[*wire.Nonce](msg.Payloads)
		a := to[n%len(to)]
		n++
		typ := byte(1)
		if a.Is6() {
			typ = 2
		}
		data := append(append([]byte{typ, byte(a.BitLen() / 8)}, a.AsSlice()...), ni.Data...)
		h := wire.Header{SPIi: msg.Header.SPIi, Version: wire.IKEv2, Exchange: wire.ExchangeIKESAInit, Flags: wire.FlagResponse}
		p.seq++
		p.queue = append(p.queue, packet{p.now.Add(20 * time.Millisecond), p.seq, p.a, ike.Datagram{Local: d.Local, Remote: d.Remote,
			Data: wire.AppendMessage(nil, h, []wire.Payload{&wire.Notify{NotifyType: wire.Redirect, Data: data}})}})
		return false
	}
}

// Two gateways that send to each other: five redirections in 300 s, then it ends.
func TestRFC5685_7_Loop(t *testing.T) {
	p := gateways(t, nil)
	answerBy(p, addrC, addrB)
	p.a.initiate("net")
	p.run(10 * time.Second)
	if n := len(inits(p.a)); n != 6 {
		t.Errorf("%d first messages: %q", n, inits(p.a))
	}
	if d := lastDone(t, p.a); d.Err == nil || !strings.Contains(d.Err.Error(), "too many redirections in 5m0s") {
		t.Errorf("%+v", d)
	}
	p.down()
	p.a.initiate("net")
	p.run(10 * time.Second)
	if n := len(inits(p.a)); n != 7 {
		t.Errorf("within 300 s: %d first messages", n)
	}
	p.run(300 * time.Second)
	p.filter = nil
	p.a.initiate("net")
	p.run(2 * time.Second)
	p.up()
}

// With IKE_AUTH, once the peer is authenticated (RFC 5685 §6): no Child SA comes of it.
func TestRFC5685_6_InIKEAuth(t *testing.T) {
	// Under its address C the gateway redirects nobody to C.
	p := gateways(t, func(_, b *side) { b.peer.Redirect = ike.RedirectTarget{Addr: addrC} })
	p.a.initiate("net")
	p.run(2 * time.Second)
	p.up()
	wants(t, inits(p.a), "192.0.2.2 supported", "192.0.2.3 from 0104c0000202")
	if d := lastDone(t, p.a); d.Err != nil {
		t.Error(d.Err)
	}
	if n := len(eventsOf[ike.IKEUp](p.a)); n != 1 {
		t.Errorf("%d IKE SAs were up at the client, want the last alone", n)
	}
	if n := len(eventsOf[ike.ChildUp](p.b)); n != 1 {
		t.Errorf("%d Child SAs were made at the gateways", n)
	}
}

// With EAP it counts in the first answer and in the last one, and in none between (RFC 5685 §6).
func TestRFC5685_6_OnlyFirstAndLastAnswer(t *testing.T) {
	for _, k := range []uint32{1, 2, 3, 99} {
		m := newMITM(t, func(a, b *side) {
			b.peer.LocalAddrs = nil
			by(a, b, ike.AuthEAP, ike.AuthPubkey)
		})
		credentialsFor(t, m.pair)
		last := false
		m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
			final := h.MessageID > 1 && wire.FindNotify(p, wire.Redirect) == nil && slices.ContainsFunc(p, func(x wire.Payload) bool { return x.Type() == wire.PayloadAUTH })
			if from != m.b || h.Exchange != wire.ExchangeIKEAuth || last || h.MessageID != k && (k != 99 || !final) {
				return p
			}
			last = true
			return append(p, &wire.Notify{NotifyType: wire.Redirect, Data: []byte{1, 4, 192, 0, 2, 3}})
		}
		m.a.initiate("net")
		m.run(5 * time.Second)
		want := []string{"192.0.2.2 supported"}
		if k == 1 || k == 99 {
			want = append(want, "192.0.2.3 from 0104c0000202")
		}
		if !last {
			t.Errorf("%d: nothing was said", k)
		}
		wants(t, inits(m.a), want...)
	}
}

// In an established IKE SA (RFC 5685 §5): the tunnel is made with the other gateway, and
// only then the first one goes.
func TestRFC5685_5_ClientFollows(t *testing.T) {
	p := gateways(t, func(a, b *side) {
		for _, s := range []*side{a, b} {
			second := *s.child
			second.Name = "two"
			second.Local, second.Remote = []ipsec.Selector{sel("10.9.0.0/16")}, []ipsec.Selector{sel("10.9.0.0/16")}
			s.peer.Children = append(s.peer.Children, &second)
		}
	})
	p.a.initiate("net")
	p.run(time.Second)
	p.a.initiate("two")
	p.run(time.Second)
	p.upN(2)
	first := p.a.e.SAs()[0].SPIi
	p.b.do(ike.Redirect{ID: 9, IKEID: 1, Gateway: ike.RedirectTarget{Addr: addrC}})
	least := 4
	p.a.onEach = func(f ike.Effect) { least = min(least, len(p.a.plane.sas)) }
	p.run(10 * time.Second)
	p.upN(2)
	if sa := p.a.e.SAs()[0]; sa.SPIi == first || sa.Remote.Addr() != addrC {
		t.Errorf("still the first IKE SA: %+v", sa)
	}
	if least < 4 {
		t.Errorf("the client had %d SAs in between", least)
	}
	wants(t, inits(p.a), "192.0.2.2 supported", "192.0.2.3 from 0104c0000202")
}

// A gateway that is not there: the first tunnel stays until the gateway closes it.
func TestRFC5685_5_DeadTarget(t *testing.T) {
	p := gateways(t, nil)
	p.filter = func(_ *host, d ike.Datagram) bool { return d.Remote.Addr() != addrD }
	p.a.initiate("net")
	p.run(time.Second)
	p.b.do(ike.Redirect{ID: 9, IKEID: 1, Gateway: ike.RedirectTarget{Addr: addrD}})
	p.run(20 * time.Second)
	if n := len(p.a.plane.sas); n != 2 {
		t.Errorf("%d SAs", n)
	}
	p.run(300 * time.Second)
	p.down()
}

// REDIRECT of a client, of a peer that is told not to redirect us, and one that makes no
// sense change nothing.
func TestRFC5685_5_NotFollowed(t *testing.T) {
	for name, c := range map[string]struct {
		off     bool
		data    string
		by      bool // b sends it, which is the gateway
		refused string
	}{
		"of the client":    {data: "\x01\x04\xc0\x00\x02\x03", refused: "the peer is not our gateway"},
		"not announced":    {by: true, off: true, data: "\x01\x04\xc0\x00\x02\x03", refused: "follow_redirects = no"},
		"to itself":        {by: true, data: "\x01\x04\xc0\x00\x02\x02", refused: "leads back"},
		"without sense":    {by: true, data: "\x01", refused: "makes no sense"},
		"with loose bytes": {by: true, data: "\x03\x02..", refused: "makes no sense"},
	} {
		m := newMITM(t, func(a, _ *side) { a.config.NoRedirects = c.off })
		m.a.initiate("net")
		m.run(time.Second)
		m.up()
		from, to := m.a, m.b
		if c.by {
			from, to = m.b, m.a
		}
		m.inject(from, []wire.Payload{&wire.Notify{NotifyType: wire.Redirect, Data: []byte(c.data)}})
		m.run(time.Second)
		found := false
		for _, n := range eventsOf[ike.Note](to) {
			found = found || strings.Contains(n.Text, c.refused)
		}
		if !found {
			t.Errorf("%s: notes %+v", name, eventsOf[ike.Note](to))
		}
		if len(m.a.e.SAs()) != 1 || len(inits(m.a)) != 1 {
			t.Errorf("%s: %v %v", name, brief(m.a.e.SAs()), inits(m.a))
		}
	}
}

// inject has a host send an INFORMATIONAL request that it never made itself: the next one.
func (m *mitm) inject(from *host, payloads []wire.Payload) {
	sa := from.e.SAs()[0]
	h := wire.Header{SPIi: sa.SPIi, SPIr: sa.SPIr, Version: wire.IKEv2, Exchange: wire.ExchangeInformational}
	if sa.Initiator {
		h.Flags, h.MessageID = wire.FlagInitiator, 2
	}
	m.seq++
	m.queue = append(m.queue, packet{m.now, m.seq, m.other(from), ike.Datagram{Local: sa.Remote, Remote: sa.Local, Data: m.seal(h, payloads)}})
}

// Who was being set up when the draining began is redirected once it is up.
func TestDrainLate(t *testing.T) {
	p := gateways(t, nil)
	p.a.initiate("net")
	p.run(25 * time.Millisecond) // IKE_AUTH is under way
	p.b.do(ike.Drain{On: true, To: ike.RedirectTarget{Addr: addrC}})
	p.run(15 * time.Millisecond)
	p.b.do(ike.Drain{}) // for C
	p.run(5 * time.Second)
	p.up()
	wants(t, inits(p.a), "192.0.2.2 supported", "192.0.2.3 from 0104c0000202")
}
