package attack_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// fragmenter is a guest that announces fragments.
func (w *world) fragmenter() *hostile {
	p := w.guest()
	p.fragments = true
	return p
}

// pieces cuts a request into n fragments.
func (p *hostile) pieces(h wire.Header, n int, list ...wire.Payload) (out [][]byte) {
	first, text := wire.AppendPayloads(nil, list)
	size := (len(text) + n - 1) / n
	for i := range n {
		e := wire.Encrypted{Type: wire.PayloadSKF, FragmentNumber: uint16(i + 1), TotalFragments: uint16(n)}
		if i == 0 {
			e.FirstInner = first
		}
		out = append(out, p.sealPayload(h, e, bytes.Clone(text[min(i*size, len(text)):min((i+1)*size, len(text))])))
	}
	return out
}

// sendAll sends datagrams and returns all answers.
func (p *hostile) sendAll(list ...[]byte) (back []ike.Datagram) {
	for _, b := range list {
		back = append(back, p.send(b)...)
	}
	return back
}

func TestHonestFragments(t *testing.T) {
	w := newWorld(t, nil)
	p := w.fragmenter()
	p.init()
	list := p.pieces(p.header(wire.ExchangeIKEAuth, 1, false), 5, p.authPayloads()...)
	slices.Reverse(list)
	back := p.sendAll(list...)
	if len(back) != 1 {
		t.Fatalf("%d answers, %v", len(back), w.v.rejections)
	}
	if _, ok := wire.First[*wire.Auth](p.open(back[0].Data)); !ok {
		t.Error("IKE_AUTH in fragments was refused")
	}
	w.honest()
	w.rest(1)
}

// A wrong AUTH is a wrong AUTH in fragments too.
func TestNobodyUpByFragmentsWithoutAUTH(t *testing.T) {
	for _, drop := range []wire.PayloadType{wire.PayloadNone, wire.PayloadAUTH, wire.PayloadIDi} {
		w := newWorld(t, nil)
		p := w.fragmenter()
		p.psk = []byte("a guess")
		p.init()
		ups := w.v.ups
		payloads := slices.DeleteFunc(p.authPayloads(), func(x wire.Payload) bool { return x.Type() == drop })
		back := p.sendAll(p.pieces(p.header(wire.ExchangeIKEAuth, 1, false), 3, payloads...)...)
		for _, d := range back {
			if list := p.open(d.Data); errorIn(list) == 0 {
				t.Errorf("without %v: answered by %v", drop, list)
			}
		}
		if w.v.ups != ups {
			t.Errorf("without %v: an IKE SA came up", drop)
		}
		w.honest()
		w.rest(0)
	}
}

// Forged fragments between the true ones, of the right SPIs, numbers and message
// ID: none is kept, and the true message comes through. The forger also repeats
// what is true, cut, longer and under other numbers.
func TestRFC7383_2_6_ForgedFragmentsRaceTheTruth(t *testing.T) {
	w := newWorld(t, nil)
	p := w.fragmenter().established()
	h := p.header(wire.ExchangeInformational, p.next, false)
	list := p.pieces(h, 6, &wire.VendorID{Data: random(600)})
	for i, b := range list {
		for n := uint16(1); n <= 6; n++ {
			if (n == 1) != (i == 0) {
				continue // malformed: only the first has a next payload
			}
			forged := bytes.Clone(b)
			forged[33], forged[35] = byte(n), 6
			copy(forged[len(forged)-40:], random(40))
			w.counted(ike.DropIntegrity, func() { p.send(forged) })
			renumbered := bytes.Clone(b)
			if renumbered[33] = byte(n); int(n) != i+1 {
				w.counted(ike.DropIntegrity, func() { p.send(renumbered) })
			}
		}
		if i < len(list)-1 {
			if back := p.send(b); len(back) != 0 {
				t.Error("an answer before the last fragment")
			}
		}
	}
	if back := p.send(list[5]); len(back) != 1 {
		t.Errorf("%d answers to the true message", len(back))
	}
	p.next++
	if p.ask(wire.ExchangeInformational) == nil {
		t.Error("the IKE SA does not go on")
	}
	w.honest()
	w.rest(1)
}

// Whoever repeats what he has seen gets at most one response for fragment 1 and
// nothing for the others: no amplification by the number of fragments (RFC 7383
// §2.6.1). Fragments of former messages are nothing at all.
func TestRFC7383_2_6_1_ReplayedFragments(t *testing.T) {
	w := newWorld(t, nil)
	p := w.fragmenter().established()
	var all [][][]byte
	for range 4 {
		list := p.pieces(p.header(wire.ExchangeInformational, p.next, false), 20, &wire.VendorID{Data: random(900)})
		if back := p.sendAll(list...); len(back) != 1 {
			t.Fatalf("%d answers", len(back))
		}
		p.next++
		all = append(all, list)
	}
	if back := p.sendAll(all[3]...); len(back) != 1 {
		t.Errorf("%d answers to a repeated request in 20 fragments", len(back))
	}
	for _, list := range all[:3] {
		if back := p.sendAll(list...); len(back) != 0 {
			t.Errorf("%d answers to an old request", len(back))
		}
	}
	// Mixed with a new one.
	fresh := p.pieces(p.header(wire.ExchangeInformational, p.next, false), 20, &wire.VendorID{Data: random(900)})
	answers := 0
	for i, b := range fresh {
		answers += len(p.send(b))
		if i > 0 {
			answers += len(p.sendAll(all[3][i], all[2][i], all[1][i]))
		}
	}
	if answers != 1 {
		t.Errorf("%d answers", answers)
	}
	if n := w.v.e.Stats().FragmentBytes; n != 0 {
		t.Errorf("%d bytes are held", n)
	}
	p.next++
	w.honest()
	w.rest(1)
}

// Strangers and a guest fill the fragment store: bounded, emptied in time, and the
// honest peer does not notice.
func TestRFC7383_2_6_FragmentHoard(t *testing.T) {
	const sas, most = 600, 16 << 20
	w := newWorld(t, func(c *ike.Config, guest *ike.Peer) {
		c.CookieThreshold, c.CookieThresholdIP, c.BlockThreshold, c.MaxPacket = 1_000_000, 1_000_000, 1_000_000, 65_535
	})
	before := heap()
	for i := range sas {
		p := w.fragmenter()
		p.at = addr(i)
		if !p.init() {
			t.Fatal("refused")
		}
		h := p.header(wire.ExchangeIKEAuth, 1, false)
		for n := range 30 {
			e := wire.Encrypted{Type: wire.PayloadSKF, FragmentNumber: uint16(n + 2), TotalFragments: 64}
			p.send(p.sealPayload(h, e, make([]byte, 1000)))
		}
		w.out = nil
	}
	held := w.v.e.Stats().FragmentBytes
	if grown := int64(heap()) - int64(before); held > most || held < most/2 || grown > 3*most {
		t.Errorf("%d bytes are held, the heap has grown by %d", held, grown)
	}
	w.honest()
	w.advance(time.Minute)
	if n := w.v.e.Stats().FragmentBytes; n != 0 {
		t.Errorf("%d bytes are held after a minute", n)
	}
	w.rest(0)
}

// A guest begins messages again and again in ever smaller fragments: each beginning
// anew drops what was there.
func TestRFC7383_2_5_2_EndlessBeginnings(t *testing.T) {
	w := newWorld(t, nil)
	p := w.fragmenter().established()
	h := p.header(wire.ExchangeInformational, p.next, false)
	for round := range 200 {
		for total := uint16(2); total <= 63; total++ {
			e := wire.Encrypted{Type: wire.PayloadSKF, FragmentNumber: 2, TotalFragments: total}
			p.send(p.sealPayload(h, e, make([]byte, 500)))
		}
		if n := w.v.e.Stats().FragmentBytes; n > 4096 {
			t.Fatalf("round %d: %d bytes are held", round, n)
		}
	}
	if back := p.sendAll(p.pieces(h, 64, &wire.VendorID{Data: random(64*15 - 4)})...); len(back) != 1 {
		t.Errorf("%d answers", len(back))
	}
	p.next++
	w.honest()
	w.rest(1)
}
