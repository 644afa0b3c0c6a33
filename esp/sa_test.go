package esp_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"adit/esp"
	"adit/ipsec"
	"adit/suite"
)

// forge seals any plaintext as a peer that breaks the rules would.
type forge struct {
	c   suite.Cipher
	seq uint32
}

func newForge(t testing.TB, s testSuite, p ipsec.SAParams) (*forge, *esp.SA) {
	t.Helper()
	enc, ing := s.keys(t)
	c, err := suite.NewCipher(s.encr, s.integ, enc, ing)
	if err != nil {
		t.Fatal(err)
	}
	q := mirror(p)
	q.EncKey, q.IntegKey = enc, ing
	in, err := esp.New(q)
	if err != nil {
		t.Fatal(err)
	}
	return &forge{c: c}, in
}

// seal protects text, which must have the cipher's alignment, trailer included.
func (f *forge) seal(text []byte) *esp.Packet {
	f.seq++
	iv, icv := f.c.IVLen(), f.c.ICVLen()
	b := make([]byte, 8+iv+len(text)+icv)
	binary.BigEndian.PutUint32(b, uint32(testSPI))
	binary.BigEndian.PutUint32(b[4:], f.seq)
	copy(b[8+iv:], text)
	f.c.PutIV(b[8:8+iv], uint64(f.seq))
	f.c.Seal(b[:8], b[8:8+iv], b[8+iv:8+iv+len(text)], b[8+iv+len(text):], nil)
	return packet(b)
}

func pad(b []byte, next uint8) []byte {
	b = append([]byte(nil), b...)
	n := byte(0)
	for (len(b)+2+int(n))%4 != 0 {
		n++
	}
	for i := range n {
		b = append(b, i+1)
	}
	return append(b, n, next)
}

// TestRFC4303_3_4_4_HostileInside opens what is authentic and nevertheless wrong.
func TestRFC4303_3_4_4_HostileInside(t *testing.T) {
	v4, v6 := innerPacket(false, 0, 30), innerPacket(true, 0, 30)
	edit := func(b []byte, at int, v ...byte) []byte {
		b = append([]byte(nil), b...)
		copy(b[at:], v)
		return b
	}
	for name, c := range map[string]struct {
		text []byte
		want error
	}{
		"right":                  {pad(v4, 4), nil},
		"right v6":               {pad(v6, 41), nil},
		"padding longer than it": {[]byte{1, 2, 3, 4, 5, 6, 255, 4}, esp.ErrPadding},
		"padding not 1, 2, 3":    {append(edit(v4, 0)[:28:28], 1, 3, 2, 4), esp.ErrPadding},
		"zero padding":           {append(edit(v4, 0)[:32:32], 0, 0, 2, 4), esp.ErrPadding},
		"trailer alone":          {[]byte{1, 2, 2, 4}, esp.ErrInner},
		"dummy":                  {pad(make([]byte, 99), 59), esp.ErrDummy},
		"next header UDP":        {pad(v4, 17), esp.ErrNextHeader},
		"next header 0":          {pad(v4, 0), esp.ErrNextHeader},
		"IPv6 called IPv4":       {pad(v6, 4), esp.ErrInner},
		"IPv4 called IPv6":       {pad(append(edit(v4, 0), make([]byte, 20)...), 41), esp.ErrInner},
		"IHL 4":                  {pad(edit(v4, 0, 0x44), 4), esp.ErrInner},
		"total below header":     {pad(edit(v4, 2, 0, 19), 4), esp.ErrInner},
		"total beyond packet":    {pad(edit(v4, 2, 1, 0), 4), esp.ErrInner},
		"options beyond total":   {pad(edit(v4, 0, 0x4f), 4), esp.ErrInner},
		"v6 beyond packet":       {pad(edit(v6, 4, 1, 0), 41), esp.ErrInner},
		"short v6":               {pad(v6[:39], 41), esp.ErrInner},
		"TFC padding":            {pad(append(edit(v4, 0), make([]byte, 500)...), 4), nil},
	} {
		f, in := newForge(t, suites[0], params(suites[0], ipsec.ModeTunnel, false, false, false))
		p := f.seal(c.text)
		if err := in.Open(p); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if c.want == nil && p.Len != len(v4) && p.Len != len(v6) {
			t.Errorf("%s: %d bytes came out", name, p.Len)
		}
		if st := in.Stats(); (c.want != nil && c.want != esp.ErrDummy) != (st.Malformed == 1) {
			t.Errorf("%s: counted %+v", name, st)
		}
		f.seq--
		if err := in.Open(f.seal(c.text)); !errors.Is(err, esp.ErrReplay) {
			t.Errorf("%s: sent again: %v", name, err)
		}
		// The window is asked before the cipher: replays must be cheap to refuse.
		f.seq--
		p = f.seal(c.text)
		p.Bytes()[p.Len-1] ^= 1
		if err := in.Open(p); !errors.Is(err, esp.ErrReplay) {
			t.Errorf("%s: sent again and changed: %v", name, err)
		}
	}
}

// TestRFC6040_4_2 is figure 4 of RFC 6040: 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE.
func TestRFC6040_4_2(t *testing.T) {
	const drop = 9
	table := [4][4]uint8{ // [inner][outer]
		0: {0, 0, 0, drop},
		2: {2, 2, 2, 3},
		1: {1, 1, 1, 3},
		3: {3, 3, 3, 3},
	}
	for inner := range uint8(4) {
		for outer := range uint8(4) {
			for _, v6 := range []bool{false, true} {
				out, in := newPair(t, suites[0], params(suites[0], ipsec.ModeTunnel, false, false, false))
				orig := innerPacket(v6, 0xb8|inner, 9)
				p := mustSeal(t, out, orig)
				if p.TOS != inner { // normal mode copies ECN; DSCP by DSCPOut
					if p.TOS != 0xb8|inner {
						t.Fatalf("outer TOS %#x of inner %#x", p.TOS, 0xb8|inner)
					}
				}
				p.TOS = p.TOS&^3 | outer
				err := in.Open(p)
				want := table[inner][outer]
				if want == drop {
					if !errors.Is(err, esp.ErrECN) {
						t.Fatalf("inner %d outer %d: %v", inner, outer, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				b := p.Bytes()
				tos := b[1]
				if v6 {
					tos = b[0]<<4 | b[1]>>4
				} else if onesum(b[:20], 0) != 0 {
					t.Fatal("IPv4 header checksum is wrong")
				}
				if tos != 0xb8|want {
					t.Fatalf("inner %d outer %d: %#x came out", inner, outer, tos)
				}
			}
		}
	}
}

// TestRFC4301_5_1_2_DSCPAndDF checks what the options do to the outer header and back.
func TestRFC4301_5_1_2_DSCPAndDF(t *testing.T) {
	for _, c := range []struct {
		copy   ipsec.DSCPCopy
		ecn    bool
		df     ipsec.DFMode
		noDF   bool // inner IPv4 without DF
		tos    uint8
		outDF  bool
		inside uint8 // what an outer DSCP of 0x28 makes of it
	}{
		{ipsec.DSCPOut, true, ipsec.DFCopy, false, 0xb9, true, 0xb9},
		{ipsec.DSCPIn, true, ipsec.DFCopy, true, 0x01, false, 0x29},
		{ipsec.DSCPBoth, false, ipsec.DFSet, true, 0xb8, true, 0x29},
		{ipsec.DSCPNone, false, ipsec.DFClear, false, 0, false, 0xb9},
	} {
		p := params(suites[0], ipsec.ModeTunnel, false, false, false)
		p.CopyDSCP, p.CopyECN, p.DF = c.copy, c.ecn, c.df
		out, in := newPair(t, suites[0], p)
		b := innerPacket(false, 0xb9, 5)
		if c.noDF {
			b[6] = 0
		}
		q := mustSeal(t, out, b)
		if q.TOS != c.tos || q.DF != c.outDF {
			t.Errorf("%+v: outer TOS %#x DF %v", c, q.TOS, q.DF)
		}
		q.TOS = 0x28
		if err := in.Open(q); err != nil {
			t.Fatal(err)
		}
		if got := q.Bytes()[1]; got != c.inside {
			t.Errorf("%+v: inner TOS %#x", c, got)
		}
	}
}

// TestRFC4303_3_3_3_NeverTwice: numbers end where they would repeat, and a new SA
// is asked for before; with ESN they go on, and the receiver follows.
func TestRFC4303_3_3_3_NeverTwice(t *testing.T) {
	s := suites[0]
	out, in := newPair(t, s, params(s, ipsec.ModeTunnel, false, false, false))
	b := innerPacket(false, 0, 1)
	out.SetSeq(1<<32 - 1<<28 - 2)
	mustSeal(t, out, b)
	if soft, hard := out.Due(); soft || hard {
		t.Fatal("due too early")
	}
	mustSeal(t, out, b)
	if soft, hard := out.Due(); !soft || hard {
		t.Fatal("no soft bound before the end of sequence numbers")
	}
	if soft, _ := out.Due(); soft {
		t.Fatal("told twice")
	}
	out.SetSeq(1<<32 - 4)
	ps := make([]esp.Packet, 5)
	for i := range ps {
		ps[i] = *packet(b)
	}
	if n := out.SealBatch(ps); n != 3 || ps[2].Seq != 1<<32-1 || !errors.Is(ps[3].Err, esp.ErrExhausted) || !errors.Is(ps[4].Err, esp.ErrExhausted) {
		t.Fatalf("%d sealed at the end: %v %v", n, ps[3].Err, ps[4].Err)
	}
	if _, hard := out.Due(); !hard {
		t.Fatal("no hard bound at the end")
	}
	if err := out.Seal(packet(b)); !errors.Is(err, esp.ErrExhausted) {
		t.Fatalf("after the end: %v", err)
	}
	if err := in.Open(&ps[2]); err != nil {
		t.Fatal(err)
	}

	// The last number may go with a packet that cannot be sealed.
	out, _ = newPair(t, s, params(s, ipsec.ModeTunnel, false, false, false))
	out.SetSeq(1<<32 - 2)
	if err := out.Seal(packet([]byte("no packet"))); !errors.Is(err, esp.ErrInner) {
		t.Fatal(err)
	}
	if err := out.Seal(packet(b)); !errors.Is(err, esp.ErrExhausted) {
		t.Fatal(err)
	}
	if _, hard := out.Due(); !hard {
		t.Fatal("no hard bound at the end")
	}

	out, in = newPair(t, s, params(s, ipsec.ModeTunnel, false, false, true))
	for _, start := range []uint64{1<<32 - 5000, 1<<32 - 3, 1<<32 + 100, 1<<33 - 5000, 1<<33 - 2} {
		out.SetSeq(start)
		for range 5 {
			p := mustSeal(t, out, b)
			want := p.Seq
			if err := in.Open(p); err != nil || p.Seq != want {
				t.Fatalf("%#x: opened as %#x, %v", want, p.Seq, err)
			}
		}
	}
	out.SetSeq(1<<64 - 1<<32 - 1)
	mustSeal(t, out, b)
	if err := out.Seal(packet(b)); !errors.Is(err, esp.ErrExhausted) {
		t.Fatalf("after the end of 64 bits: %v", err)
	}
}

func TestLifetime(t *testing.T) {
	s := suites[0]
	p := params(s, ipsec.ModeTunnel, false, false, false)
	b := innerPacket(false, 0, 72) // 100 bytes
	p.Life = ipsec.Lifetime{SoftBytes: 250, HardPackets: 5}
	out, in := newPair(t, s, p)
	for n := 1; n <= 5; n++ {
		q := mustSeal(t, out, b)
		if err := in.Open(q); err != nil {
			t.Fatal(err)
		}
		for _, sa := range []*esp.SA{out, in} {
			soft, hard := sa.Due()
			if soft != (n == 3) || hard != (n == 5) {
				t.Fatalf("packet %d: soft %v hard %v", n, soft, hard)
			}
		}
	}
	if err := out.Seal(packet(b)); !errors.Is(err, esp.ErrExpired) {
		t.Fatalf("after the hard bound: %v", err)
	}
	if st := out.Stats(); st.Bytes != 500 || st.Packets != 5 || st.Seq != 5 {
		t.Fatalf("counted %+v", st)
	}
}

// TestRFC4303_2_7_TFC pads to a size, to the MTU, and never beyond it.
func TestRFC4303_2_7_TFC(t *testing.T) {
	s := suites[0]
	for _, tfc := range []int{100, 1000, 4000, ipsec.TFCToMTU} {
		sizes := map[int]bool{}
		for _, n := range []int{1, 50, 60} {
			p := params(s, ipsec.ModeTunnel, false, true, false)
			p.TFC, p.MTU = tfc, 1400
			out, in := newPair(t, s, p)
			b := innerPacket(n%2 == 1, 0, n)
			q := mustSeal(t, out, b)
			if tfc > 0 && q.Len < min(tfc, 1300) || q.Len > 1400-28 {
				t.Fatalf("TFC %d: ESP packet of %d bytes", tfc, q.Len)
			}
			sizes[q.Len] = true
			if err := in.Open(q); err != nil {
				t.Fatal(err)
			}
			compare(t, ipsec.ModeTunnel, q.Bytes(), b)
		}
		if tfc != 100 && len(sizes) != 1 {
			t.Fatalf("TFC %d: sizes %v tell the packets apart", tfc, sizes)
		}
	}
}

func TestRFC4303_2_6_Dummy(t *testing.T) {
	out, in := newPair(t, suites[0], params(suites[0], ipsec.ModeTunnel, false, false, false))
	p := packet(nil)
	if err := out.SealDummy(p, 700); err != nil {
		t.Fatal(err)
	}
	if err := in.Open(p); !errors.Is(err, esp.ErrDummy) {
		t.Fatalf("dummy: %v", err)
	}
	if st := in.Stats(); st.Packets != 1 || st.Malformed != 0 {
		t.Fatalf("counted %+v", st)
	}
}

// TestRFC4303_3_1_1_TransportRefuses: fragments and headers for routers.
func TestRFC4303_3_1_1_TransportRefuses(t *testing.T) {
	s := suites[0]
	for name, c := range map[string]struct {
		v6   bool
		edit func([]byte)
		want error
	}{
		"first fragment": {false, func(b []byte) { b[6] = 0x20 }, esp.ErrFragment},
		"later fragment": {false, func(b []byte) { b[7] = 9 }, esp.ErrFragment},
		"v6 fragment":    {true, func(b []byte) { b[6] = 44 }, esp.ErrFragment},
		"hop-by-hop":     {true, func(b []byte) { b[6] = 0 }, esp.ErrExtension},
		"routing":        {true, func(b []byte) { b[6] = 43 }, esp.ErrExtension},
		"IHL":            {false, func(b []byte) { b[0] = 0x4f }, esp.ErrInner},
		"version":        {false, func(b []byte) { b[0] = 0x55 }, esp.ErrInner},
	} {
		out, _ := newPair(t, s, params(s, ipsec.ModeTransport, c.v6, false, false))
		b := outerPacket(c.v6, 0, 20)
		c.edit(b)
		if err := out.Seal(packet(b)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRFC3948_3_1_2_TransportBehindNAT: the receiver sees other addresses than
// those that the sender computed its checksum over.
func TestRFC3948_3_1_2_TransportBehindNAT(t *testing.T) {
	s := suites[0]
	enc, _ := s.keys(t)
	p := params(s, ipsec.ModeTransport, false, true, false)
	p.EncKey = clone(enc)
	private := netip.MustParseAddr("10.9.9.9")
	p.Local = netip.AddrPortFrom(private, 4500)
	out, err := esp.New(p)
	if err != nil {
		t.Fatal(err)
	}
	q := mirror(p)
	q.EncKey = enc
	q.Remote = netip.MustParseAddrPort("203.0.113.77:61000")
	in, err := esp.New(q)
	if err != nil {
		t.Fatal(err)
	}
	sealed := mustSeal(t, out, udpPacket(private, gwB4.Addr(), 0, []byte("odd")))
	sealed.Encap = true
	if err := in.Open(sealed); err != nil {
		t.Fatal(err)
	}
	want := udpPacket(q.Remote.Addr(), gwB4.Addr(), 0, []byte("odd"))
	compare(t, ipsec.ModeTransport, sealed.Bytes(), want)
}

// TestInnerMTU: a packet of InnerMTU fits the path, one byte more does not.
func TestInnerMTU(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := rapid.SampledFrom(suites).Draw(rt, "suite")
		mode := rapid.SampledFrom([]ipsec.Mode{ipsec.ModeTunnel, ipsec.ModeTransport}).Draw(rt, "mode")
		v6, encap := rapid.Bool().Draw(rt, "v6"), rapid.Bool().Draw(rt, "encap")
		p := params(s, mode, v6, encap, false)
		p.MTU = rapid.IntRange(576, 2000).Draw(rt, "mtu")
		out, _ := newPair(t, s, p)
		outer, header := 20, 28
		if v6 {
			outer, header = 40, 48
		}
		if encap {
			outer += 8
		}
		for _, extra := range []int{0, 1} {
			b := innerPacket(v6, 0, out.InnerMTU()+extra-header)
			if mode == ipsec.ModeTransport {
				b = outerPacket(v6, 0, out.InnerMTU()+extra-header)
			}
			q := mustSeal(t, out, b)
			if got := outer + q.Len; (got > p.MTU) != (extra == 1) {
				rt.Fatalf("%d bytes on a path of %d for an inner packet of %d (InnerMTU %d)", got, p.MTU, len(b), out.InnerMTU())
			}
		}
	})
}

// TestNoRoom: buffers too small are refused, not overrun.
func TestNoRoom(t *testing.T) {
	for _, mode := range []ipsec.Mode{ipsec.ModeTunnel, ipsec.ModeTransport} {
		out, in := newPair(t, suites[0], params(suites[0], mode, false, false, false))
		b := outerPacket(false, 0, 10)
		for head := range 17 {
			for tail := range 24 {
				p := &esp.Packet{Buf: make([]byte, head+len(b)+tail), Off: head, Len: len(b)}
				copy(p.Buf[head:], b)
				if err := out.Seal(p); err != nil && !errors.Is(err, esp.ErrNoRoom) {
					t.Fatal(err)
				}
			}
		}
		q := mustSeal(t, out, b)
		bare := &esp.Packet{Buf: append([]byte(nil), q.Bytes()...), Len: q.Len}
		if err := in.Open(bare); (err != nil) != (mode == ipsec.ModeTransport) {
			t.Fatalf("%s without headroom: %v", mode, err)
		}
	}
}

func TestDirection(t *testing.T) {
	out, in := newPair(t, suites[0], params(suites[0], ipsec.ModeTunnel, false, false, false))
	if err := in.Seal(packet(innerPacket(false, 0, 1))); !errors.Is(err, esp.ErrDirection) {
		t.Fatal(err)
	}
	if err := out.Open(packet(make([]byte, 100))); !errors.Is(err, esp.ErrDirection) {
		t.Fatal(err)
	}
}

// TestNoAllocation: nothing is allocated a packet, in any suite.
func TestNoAllocation(t *testing.T) {
	for _, s := range suites {
		for _, esn := range []bool{false, true} {
			for _, mode := range []ipsec.Mode{ipsec.ModeTunnel, ipsec.ModeTransport} {
				out, in := newPair(t, s, params(s, mode, false, true, esn))
				b := outerPacket(false, 0, 1300)
				p := packet(b)
				bad := 0
				if n := testing.AllocsPerRun(50, func() {
					copy(p.Buf[room:], b)
					p.Off, p.Len = room, len(b)
					if out.Seal(p) != nil || in.Open(p) != nil {
						bad++
					}
				}); n != 0 || bad != 0 {
					t.Errorf("%s %s esn=%v: %v allocations, %d failures", s.name, mode, esn, n, bad)
				}
			}
		}
	}
}

// FuzzOpen opens any bytes as they come from the wire, and the same bytes as the
// plaintext of an authentic packet, where padding and inner headers are met.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{}, false, false)
	f.Add(pad(innerPacket(false, 0, 8), 4), false, false)
	f.Add(pad(innerPacket(true, 0, 8), 41), true, false)
	f.Add(pad(outerPacket(false, 0, 8)[20:], 17), false, true)
	f.Fuzz(func(t *testing.T, b []byte, v6, transport bool) {
		if len(b) > 4096 {
			return
		}
		mode := ipsec.ModeTunnel
		if transport {
			mode = ipsec.ModeTransport
		}
		fg, in := newForge(t, suites[0], params(suites[0], mode, v6, true, false))
		wire := packet(b)
		wire.Encap = true
		if err := in.Open(wire); err == nil {
			t.Fatal("opened what nobody sealed")
		}
		for len(b)%4 != 0 {
			b = append(b, 1)
		}
		p := fg.seal(b)
		p.Encap = true
		if err := in.Open(p); err == nil {
			ip := p.Bytes()
			total := int(binary.BigEndian.Uint16(ip[2:]))
			if ip[0]>>4 == 6 {
				total = 40 + int(binary.BigEndian.Uint16(ip[4:]))
			}
			if total != len(ip) {
				t.Fatalf("a packet of %d bytes says %d", len(ip), total)
			}
		}
	})
}

func BenchmarkSealOpen(b *testing.B) {
	for _, s := range suites {
		for _, size := range []int{64, 1400} {
			b.Run(fmt.Sprintf("%s/%d", s.name, size), func(b *testing.B) {
				out, in := newPair(b, s, params(s, ipsec.ModeTunnel, false, true, true))
				inner := innerPacket(false, 0, size-28)
				p := packet(inner)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					copy(p.Buf[room:], inner)
					p.Off, p.Len = room, size
					if out.Seal(p) != nil || in.Open(p) != nil {
						b.Fatal(p.Err)
					}
				}
			})
		}
	}
}

// TestSealedLen: a buffer of SealedLen octets holds a sealed packet of every size, in
// either mode. In transport mode the IP header that stays before the payload is no
// multiple of a block of AES-CBC.
func TestSealedLen(t *testing.T) {
	for _, s := range suites {
		for _, mode := range []ipsec.Mode{ipsec.ModeTunnel, ipsec.ModeTransport} {
			for _, v6 := range []bool{false, true} {
				out, _ := newPair(t, s, params(s, mode, v6, false, false))
				for n := range 64 {
					src, dst := gwA4.Addr(), gwB4.Addr()
					if v6 {
						src, dst = gwA6.Addr(), gwB6.Addr()
					}
					inner := udpPacket(src, dst, 0, make([]byte, n))
					buf := make([]byte, out.SealedLen(len(inner)))
					copy(buf[out.HeadLen():], inner)
					p := esp.Packet{Buf: buf, Off: out.HeadLen(), Len: len(inner)}
					if err := out.Seal(&p); err != nil {
						t.Fatalf("%s, %v, %d octets: %v", s.name, mode, len(inner), err)
					}
				}
			}
		}
	}
}
