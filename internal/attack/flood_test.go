package attack_test

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

func addr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18 + byte(i>>16)&1, byte(i >> 8), byte(i)}), 500)
}

// flood sends n first messages from the addresses that from tells and returns the
// bytes sent and those that came back without a cookie having been shown.
func (w *world) flood(n int, from func(i int) netip.AddrPort) (in, out int) {
	kx, err := suite.NewKeyExchange(suite.KECurve25519)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range n {
		p := w.stranger()
		p.at, p.kx = from(i), kx
		b := p.first(p.initPayloads()...)
		in += len(b)
		for _, d := range p.send(b) {
			out += len(d.Data)
		}
		w.out = nil
	}
	return in, out
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Half-open IKE SAs from one address and from many: bounded tables and memory,
// cookies, and the honest peer, as well as a new one, comes through meanwhile.
func TestRFC7296_2_6_HalfOpenFlood(t *testing.T) {
	for _, c := range []struct {
		name string
		from func(i int) netip.AddrPort
		most int
		why  ike.DropReason
	}{
		{"one address", func(i int) netip.AddrPort { return netip.AddrPortFrom(hostileAddr, uint16(1024+i%60000)) }, 3, ike.DropCookie},
		{"many addresses", addr, 30, ike.DropCookie},
		{"one IPv6 network", func(i int) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 1, 1, 1, 1, byte(i >> 8), byte(i)}), 500)
		}, 3, ike.DropCookie},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			before := heap()
			w.counted(c.why, func() {
				in, out := w.flood(8000, c.from)
				if out > in {
					t.Errorf("%d bytes in, %d out: amplified", in, out)
				}
			})
			if st := w.v.e.Stats(); st.HalfOpen > c.most || st.Jobs != 0 {
				t.Errorf("%+v", st)
			}
			if grown := int64(heap()) - int64(before); grown > 4<<20 {
				t.Errorf("the flood costs %d bytes", grown)
			}
			// Who receives what is sent to it comes through.
			p := w.guest()
			p.at = netip.AddrPortFrom(netip.MustParseAddr("203.0.113.99"), 500)
			p.established()
			w.honest()
			w.rest(1)
			if grown := int64(heap()) - int64(before); grown > 4<<20 {
				t.Errorf("%d bytes are left of the flood", grown)
			}
		})
	}
}

// Who shows cookies still cannot have more than its share.
func TestRFC7296_2_6_CookieShowingFlood(t *testing.T) {
	w := newWorld(t, nil)
	kx, _ := suite.NewKeyExchange(suite.KECurve25519)
	w.counted(ike.DropHalfOpenAddress, func() {
		for range 200 {
			p := w.stranger()
			p.kx = kx
			list := p.initPayloads()
			for _, d := range p.send(p.first(list...)) {
				if n := wire.FindNotify(parse(t, d.Data).Payloads, wire.Cookie); n != nil {
					p.send(p.first(append([]wire.Payload{notify(wire.Cookie, n.Data)}, list...)...))
				}
			}
		}
	})
	if st := w.v.e.Stats(); st.HalfOpen > 5 {
		t.Errorf("%+v", st)
	}
	w.honest()
	w.rest(0)
}

// A half-open IKE SA may not hold megabytes: a first message of 64 KiB is refused
// or costs no more than a bounded copy, and a full table of them stays small.
func TestRFC7296_2_6_LargeFirstMessages(t *testing.T) {
	w := newWorld(t, func(c *ike.Config, _ *ike.Peer) {
		c.CookieThreshold, c.CookieThresholdIP, c.BlockThreshold = 1<<30, 1<<30, 1<<30
	})
	kx, _ := suite.NewKeyExchange(suite.KECurve25519)
	before := heap()
	const n = 200
	for i := range n {
		p := w.stranger()
		p.at, p.kx = addr(i), kx
		p.send(p.first(append(p.initPayloads(), &wire.VendorID{Data: make([]byte, 60_000)})...))
		w.out = nil
	}
	if grown := int64(heap()) - int64(before); grown > n*16<<10 {
		t.Errorf("%d half-open IKE SAs cost %d bytes each", w.v.e.Stats().HalfOpen, grown/n)
	}
	w.honest()
	w.rest(0)
}

// Before a cookie is shown no answer is longer than its question; without cookies
// the one response is of the same order: at most one and a half times the request,
// and its repetitions cost one request each.
func TestAmplification(t *testing.T) {
	w := newWorld(t, nil)
	worst := 0.0
	for _, group := range []suite.TransformID{suite.KECurve25519, suite.KEECP256, suite.KEECP384, suite.KECurve448, suite.KEMODP2048} {
		p := w.stranger()
		p.group, p.at = group, addr(int(group))
		b := p.first(p.initPayloads()...)
		for range 10 {
			back := p.send(b)
			if len(back) > 1 {
				t.Fatalf("%d answers to one message", len(back))
			}
			for _, d := range back {
				worst = max(worst, float64(len(d.Data))/float64(len(b)))
			}
		}
	}
	t.Logf("IKE_SA_INIT: at most %.2f bytes out for one in", worst)
	if worst > 1.5 {
		t.Errorf("IKE_SA_INIT is amplified %.2f times", worst)
	}
	// What is small and wrong gets no long answer, and mostly none.
	before, in, out := w.v.e.Stats().Sent, 0, 0
	for i := range 3000 {
		h := wire.Header{SPIi: random64(), Version: wire.Version{Major: uint8(i % 16)}, Exchange: wire.ExchangeType(30 + i%20), Flags: wire.Flags(random(1)[0])}
		if i%3 == 0 {
			h.SPIr = random64()
		}
		p := w.stranger()
		p.at = addr(i)
		b := wire.AppendMessage(nil, h, nil)
		in += len(b)
		for _, d := range p.send(b) {
			out += len(d.Data)
			if len(d.Data) > 3*len(b)/2 {
				t.Errorf("%d bytes in, %d out: %+v", len(b), len(d.Data), h)
			}
		}
	}
	if out > in {
		t.Errorf("%d bytes in, %d out in %d messages", in, out, w.v.e.Stats().Sent-before)
	}
	w.honest()
	w.rest(0)
}

// A cookie is good for one address, SPI and nonce, and not after its secrets went.
func TestRFC7296_2_6_CookieReplay(t *testing.T) {
	w := newWorld(t, func(c *ike.Config, _ *ike.Peer) { c.CookieThreshold = 1 })
	w.flood(5, addr) // now cookies are demanded
	p := w.stranger()
	list := p.initPayloads()
	cookieFor := func() []byte {
		for _, d := range p.send(p.first(list...)) {
			if n := wire.FindNotify(parse(t, d.Data).Payloads, wire.Cookie); n != nil {
				return n.Data
			}
		}
		t.Fatal("no cookie is demanded")
		return nil
	}
	c := cookieFor()
	shows := func(p *hostile, list []wire.Payload, c []byte) (taken bool) {
		before := w.v.e.Stats().Accepted
		p.send(p.first(append([]wire.Payload{notify(wire.Cookie, c)}, list...)...))
		return w.v.e.Stats().Accepted > before
	}
	other := *p
	other.at = netip.AddrPortFrom(netip.MustParseAddr("203.0.113.67"), 500)
	if shows(&other, list, c) {
		t.Error("taken from another address")
	}
	other = *p
	other.spiI++
	if shows(&other, list, c) {
		t.Error("taken for another SPI")
	}
	if shows(p, []wire.Payload{list[0], list[1], &wire.Nonce{Data: random(32)}}, c) {
		t.Error("taken for another nonce")
	}
	for i := range c {
		bad := append([]byte(nil), c...)
		bad[i] ^= 0x80
		if shows(p, list, bad) {
			t.Errorf("taken with byte %d changed", i)
		}
	}
	for _, bad := range [][]byte{nil, c[:len(c)-1], append(append([]byte(nil), c...), 0), make([]byte, 64)} {
		if shows(p, list, bad) {
			t.Errorf("taken: %x", bad)
		}
	}
	keep := func(d time.Duration) { // time passes while the flood goes on
		for end := w.now.Add(d); w.now.Before(end); {
			w.advance(10 * time.Second)
			w.flood(3, func(i int) netip.AddrPort { return addr(i + w.now.Second()) })
		}
	}
	keep(200 * time.Second)
	if shows(p, list, c) {
		t.Error("taken after both secrets were changed")
	}
	if !shows(p, list, cookieFor()) {
		t.Error("a fresh cookie is not taken")
	}
	w.honest()
	w.rest(0)
}
