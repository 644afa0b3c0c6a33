package tun_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/gopacket/gopacket/layers"

	"adit/tun"
)

func clones(packets [][]byte) (c [][]byte) {
	for _, p := range packets {
		c = append(c, bytes.Clone(p))
	}
	return c
}

// resplit cuts everything joined back into packets.
func resplit(t testing.TB, super [][]byte) (packets [][]byte) {
	for _, s := range super {
		got, err := tun.Split(s, tun.MaxPacket)
		if err != nil {
			t.Fatalf("Super refuses %x: %v", s[:min(len(s), 80)], err)
		}
		packets = append(packets, got...)
	}
	return packets
}

func TestCoalesceThenSplitIsIdentity(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			for _, size := range []int{100, 1400, 1401, 14000, 14123, 60000} {
				f := flow{v6: v6, udp: udp, id: 0xfffe, seq: 0xffffff00, payload: payload(size),
					flags: func(c *layers.TCP) { c.PSH = true }}
				want := f.reference(t, 1400)
				super := tun.Joined(clones(want), true, true)
				if len(super) != 1 {
					t.Errorf("v6=%v udp=%v %d bytes: %d superpackets of %d packets", v6, udp, size, len(super), len(want))
				}
				got := resplit(t, super)
				if len(got) != len(want) {
					t.Fatalf("v6=%v udp=%v %d bytes: %d packets, want %d", v6, udp, size, len(got), len(want))
				}
				for i := range want {
					if !bytes.Equal(got[i], want[i]) {
						t.Fatalf("v6=%v udp=%v %d bytes, packet %d:\n got %x\nwant %x", v6, udp, size, i, got[i], want[i])
					}
				}
			}
		}
	}
}

// What differs in anything that a superpacket has only once stays apart, and
// what is broken stays as broken as it was.
func TestCoalesceKeepsApart(t *testing.T) {
	fixIP := func(p []byte) { p[10], p[11] = 0, 0; binary.BigEndian.PutUint16(p[10:], tun.Checksum(p[:20])) }
	cases := map[string]func(a, b *flow) func(p []byte){
		"ECN":            func(a, b *flow) func([]byte) { return func(p []byte) { p[1] ^= 1; fixIP(p) } },
		"TTL":            func(a, b *flow) func([]byte) { return func(p []byte) { p[8]--; fixIP(p) } },
		"DF":             func(a, b *flow) func([]byte) { return func(p []byte) { p[6] ^= 0x40; fixIP(p) } },
		"fragment":       func(a, b *flow) func([]byte) { return func(p []byte) { p[6] ^= 0x20; fixIP(p) } },
		"IP checksum":    func(a, b *flow) func([]byte) { return func(p []byte) { p[10] ^= 1 } },
		"TCP checksum":   func(a, b *flow) func([]byte) { return func(p []byte) { p[len(p)-1] ^= 1 } },
		"gap":            func(a, b *flow) func([]byte) { b.seq++; return nil },
		"overlap":        func(a, b *flow) func([]byte) { b.seq--; return nil },
		"FIN":            func(a, b *flow) func([]byte) { b.flags = func(c *layers.TCP) { c.FIN = true }; return nil },
		"CWR":            func(a, b *flow) func([]byte) { b.flags = func(c *layers.TCP) { c.CWR = true }; return nil },
		"ECE":            func(a, b *flow) func([]byte) { b.flags = func(c *layers.TCP) { c.ECE = true }; return nil },
		"acknowledgment": func(a, b *flow) func([]byte) { b.flags = func(c *layers.TCP) { c.Ack++ }; return nil },
		"window":         func(a, b *flow) func([]byte) { b.flags = func(c *layers.TCP) { c.Window++ }; return nil },
		"port":           func(a, b *flow) func([]byte) { b.flags = func(c *layers.TCP) { c.SrcPort++ }; return nil },
		"longer":         func(a, b *flow) func([]byte) { b.payload = payload(1001); return nil },
		"after PSH":      func(a, b *flow) func([]byte) { a.flags = func(c *layers.TCP) { c.PSH = true }; return nil },
		"pure ACK":       func(a, b *flow) func([]byte) { b.payload = nil; return nil },
		"options": func(a, b *flow) func([]byte) {
			b.options = []layers.TCPOption{{OptionType: layers.TCPOptionKindNop}}
			return nil
		},
	}
	for name, change := range cases {
		a := flow{id: 5, seq: 100, payload: payload(1000)}
		b := flow{id: 6, seq: 1100, payload: payload(1000)}
		edit := change(&a, &b)
		want := [][]byte{a.build(t), b.build(t)}
		if edit != nil {
			edit(want[1])
		}
		super := tun.Joined(clones(want), true, true)
		if len(super) != 2 {
			t.Errorf("%s: %d packets of 2", name, len(super))
			continue
		}
		for i := range want {
			if !bytes.Equal(super[i][10:], want[i]) || !bytes.Equal(super[i][:10], make([]byte, 10)) {
				t.Errorf("%s: packet %d was changed", name, i)
			}
		}
	}
	a := flow{id: 5, seq: 100, payload: payload(1000)}
	b := flow{id: 6, seq: 1100, payload: payload(1000)}
	if n := len(tun.Joined([][]byte{a.build(t), b.build(t)}, true, true)); n != 1 {
		t.Errorf("unchanged: %d packets", n)
	}
	if n := len(tun.Joined([][]byte{a.build(t), b.build(t)}, false, true)); n != 2 {
		t.Errorf("TCP off: %d packets", n)
	}
}

// Within a flow the order stays, however flows and odd packets are mixed.
func TestCoalesceKeepsOrder(t *testing.T) {
	var batch [][]byte
	next := map[uint16]uint32{}
	for i := range 120 {
		port := uint16(1000 + i*7%11) // more flows than trains
		f := flow{id: uint16(i), seq: next[port], payload: payload(500 + i%13/12*100), v6: i%2 == 0}
		f.flags = func(c *layers.TCP) {
			c.SrcPort = layers.TCPPort(port)
			c.ECE = i%17 == 0
		}
		next[port] += uint32(len(f.payload))
		batch = append(batch, f.build(t))
	}
	seen := map[uint16]uint32{}
	got := resplit(t, tun.Joined(clones(batch), true, true))
	if len(got) != len(batch) {
		t.Fatalf("%d packets of %d", len(got), len(batch))
	}
	for _, p := range got {
		l4 := 20
		if p[0]>>4 == 6 {
			l4 = 40
		}
		port, seq := binary.BigEndian.Uint16(p[l4:]), binary.BigEndian.Uint32(p[l4+4:])
		if seq != seen[port] {
			t.Fatalf("port %d: number %d, want %d", port, seq, seen[port])
		}
		seen[port] += uint32(len(p) - l4 - 20)
	}
}

// TestRandomMixes joins packets of flows that are mixed at random, with odd sizes,
// flags, gaps and broken checksums among them, and cuts them again: every flow has
// the same packets in the same order.
func TestRandomMixes(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 2))
	for range 40 {
		flows := make([][][]byte, 1+r.IntN(12))
		var batch [][]byte
		for i := range flows {
			f := flow{v6: r.IntN(2) == 0, udp: r.IntN(2) == 0, id: uint16(r.Uint32()), seq: r.Uint32(), payload: payload(1 + r.IntN(9000))}
			f.hopopts = f.v6 && r.IntN(6) == 0
			push, ece, fin := r.IntN(2) == 0, r.IntN(6) == 0, r.IntN(4) == 0
			f.flags = func(c *layers.TCP) {
				c.SrcPort = layers.TCPPort(1000 + i)
				c.PSH, c.ECE, c.FIN = push, ece, fin
			}
			for _, p := range f.reference(t, 100+r.IntN(1400)) {
				switch r.IntN(20) {
				case 0:
					p[len(p)-1] ^= 1 // broken
				case 1:
					continue // lost
				}
				flows[i] = append(flows[i], p)
			}
		}
		for left := true; left; {
			left = false
			for i, f := range r.Perm(len(flows)) {
				n := min(len(flows[f]), r.IntN(5)*(i%3+1))
				batch = append(batch, flows[f][:n]...)
				flows[f] = flows[f][n:]
				left = left || len(flows[f]) > 0
			}
		}
		got := byFlow(resplit(t, tun.Joined(clones(batch), true, true)))
		want := byFlow(batch)
		for k, w := range want {
			if len(got[k]) != len(w) {
				t.Fatalf("seed %d: %d packets of %d", seed, len(got[k]), len(w))
			}
			for i := range w {
				g := got[k][i]
				if w[i][0]>>4 == 4 { // with DF the identification may be counted anew
					copy(g[4:6], w[i][4:6])
					copy(g[10:12], w[i][10:12])
				}
				if !bytes.Equal(g, w[i]) {
					t.Fatalf("seed %d, packet %d:\n got %x\nwant %x", seed, i, g, w[i])
				}
			}
		}
	}
}

// byFlow sorts packets by family, protocol and source port.
func byFlow(packets [][]byte) map[string][][]byte {
	m := map[string][][]byte{}
	for _, p := range packets {
		l4, proto := 20, p[9]
		if p[0]>>4 == 6 {
			if l4, proto = 40, p[6]; proto == 0 {
				l4 = 48
			}
		}
		k := fmt.Sprint(p[0]>>4, proto, p[l4:l4+2])
		m[k] = append(m[k], p)
	}
	return m
}

// Two packets of any kind come out as they went in, joined or not.
func FuzzCoalesce(f *testing.F) {
	for _, fl := range []flow{{payload: payload(300)}, {v6: true, payload: payload(300)}, {udp: true, payload: payload(300)}, {v6: true, udp: true, payload: payload(300)}} {
		r := fl.reference(f, 150)
		f.Add(r[0], r[1])
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		want := [][]byte{}
		for _, p := range [][]byte{a, b} {
			if len(p) >= 20 && len(p) <= tun.MaxPacket && (p[0]>>4 == 4 || p[0]>>4 == 6 && len(p) >= 40) {
				want = append(want, p)
			}
		}
		got := resplit(t, tun.Joined(clones(want), true, true))
		if len(got) != len(want) {
			t.Fatalf("%d packets of %d", len(got), len(want))
		}
		for i := range want {
			w := want[i]
			if len(got) == 2 && i == 1 && w[0]>>4 == 4 && w[6]&0x40 != 0 {
				// With DF the identification may be counted anew.
				copy(w[4:6], got[i][4:6])
				copy(w[10:12], got[i][10:12])
			}
			if !bytes.Equal(got[i], w) {
				t.Fatalf("packet %d:\n got %x\nwant %x", i, got[i], w)
			}
		}
	})
}
