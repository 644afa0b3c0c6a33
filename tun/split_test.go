package tun_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"adit/tun"
)

const (
	gsoTCPv4 = 1
	gsoTCPv6 = 4
	gsoUDPL4 = 5
	gsoECN   = 0x80
)

// flow describes a packet for the reference, which is gopacket's serializer.
type flow struct {
	v6, udp bool
	hopopts bool // an IPv6 hop-by-hop header in between
	id      uint16
	seq     uint32
	flags   func(*layers.TCP)
	options []layers.TCPOption
	payload []byte
}

func (f flow) build(t testing.TB) []byte {
	t.Helper()
	var list []gopacket.SerializableLayer
	var network gopacket.NetworkLayer
	proto := layers.IPProtocolTCP
	if f.udp {
		proto = layers.IPProtocolUDP
	}
	if f.v6 {
		ip := &layers.IPv6{Version: 6, TrafficClass: 0x2a, FlowLabel: 0x12345, HopLimit: 61, NextHeader: proto,
			SrcIP: net.ParseIP("2001:db8::1"), DstIP: net.ParseIP("2001:db8:1::2")}
		network = ip
		list = append(list, ip)
		if f.hopopts {
			hop := &layers.IPv6HopByHop{}
			hop.NextHeader = proto
			hop.Options = []*layers.IPv6HopByHopOption{{OptionType: 0x1e, OptionData: []byte{1, 2, 3, 4}}}
			ip.NextHeader = layers.IPProtocolIPv6HopByHop
			list = append(list, hop)
		}
	} else {
		ip := &layers.IPv4{Version: 4, TOS: 0x2a, TTL: 61, Id: f.id, Flags: layers.IPv4DontFragment, Protocol: proto,
			SrcIP: net.IPv4(192, 0, 2, 1), DstIP: net.IPv4(198, 51, 100, 2)}
		network = ip
		list = append(list, ip)
	}
	if f.udp {
		u := &layers.UDP{SrcPort: 4000, DstPort: 5000}
		if err := u.SetNetworkLayerForChecksum(network); err != nil {
			t.Fatal(err)
		}
		list = append(list, u)
	} else {
		c := &layers.TCP{SrcPort: 4000, DstPort: 5000, Seq: f.seq, Ack: 77, Window: 512, ACK: true, Options: f.options}
		if f.flags != nil {
			f.flags(c)
		}
		if err := c.SetNetworkLayerForChecksum(network); err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	list = append(list, gopacket.Payload(f.payload))
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, list...); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(buf.Bytes())
}

// reference cuts the flow in the plain way: every segment built on its own.
func (f flow) reference(t testing.TB, mss int) (packets [][]byte) {
	for pos, i := 0, 0; pos < len(f.payload); pos, i = pos+mss, i+1 {
		end := min(pos+mss, len(f.payload))
		g := f
		g.payload = f.payload[pos:end]
		g.id = f.id + uint16(i)
		g.seq = f.seq + uint32(pos)
		first, last := pos == 0, end == len(f.payload)
		g.flags = func(c *layers.TCP) {
			if f.flags != nil {
				f.flags(c)
			}
			c.CWR = c.CWR && first
			c.FIN = c.FIN && last
			c.PSH = c.PSH && last
		}
		packets = append(packets, g.build(t))
	}
	return packets
}

// super is the packet with its virtio header, checksum as the kernel leaves it.
func (f flow) super(t testing.TB, mss int, ecn uint8) []byte {
	pkt := f.build(t)
	l4 := 20
	if f.v6 {
		l4 = 40
		if f.hopopts {
			l4 = 48
		}
	}
	typ, at := uint8(gsoTCPv4), 16
	switch {
	case f.udp:
		typ, at = gsoUDPL4, 6
	case f.v6:
		typ = gsoTCPv6
	}
	binary.BigEndian.PutUint16(pkt[l4+at:], 0xbeef) // must be replaced, not used
	return append(tun.VnetHeader(1, typ|ecn, uint16(l4), uint16(mss), uint16(l4), uint16(at)), pkt...)
}

func payload(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

func TestRFC9293_SplitEqualsReference(t *testing.T) {
	timestamps := []layers.TCPOption{
		{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindNop},
		{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte{0, 0, 1, 2, 0, 0, 3, 4}},
	}
	flags := map[string]func(*layers.TCP){
		"ack":         nil,
		"psh":         func(c *layers.TCP) { c.PSH = true },
		"fin psh cwr": func(c *layers.TCP) { c.FIN, c.PSH, c.CWR, c.ECE = true, true, true, true },
	}
	for _, v6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			for name, set := range flags {
				for _, size := range []int{1, 1399, 1400, 1401, 2800, 30011, 65000} {
					for _, mss := range []int{1400, 536, 1219} {
						f := flow{v6: v6, udp: udp, id: 0xfffd, seq: 0xfffffff0, flags: set, payload: payload(size)}
						if size%2 == 1 {
							f.options = timestamps
						}
						f.hopopts = v6 && size == 2800
						t.Run(fmt.Sprintf("v6=%v/udp=%v/%s/%d/%d", v6, udp, name, size, mss), func(t *testing.T) {
							got, err := tun.Split(f.super(t, mss, gsoECN*uint8(size&1)), 2000)
							if err != nil {
								t.Fatal(err)
							}
							want := f.reference(t, mss)
							if len(got) != len(want) {
								t.Fatalf("%d packets, reference has %d", len(got), len(want))
							}
							for i := range got {
								if !bytes.Equal(got[i], want[i]) {
									t.Fatalf("packet %d:\n got %x\nwant %x", i, got[i], want[i])
								}
							}
						})
					}
				}
			}
		}
	}
}

// A packet that isn't super may still lack its checksum.
func TestPartialChecksumIsCompleted(t *testing.T) {
	for _, f := range []flow{{payload: payload(99)}, {v6: true, payload: payload(98)}, {udp: true, payload: payload(1)}, {v6: true, udp: true, payload: payload(1200)}} {
		want := f.build(t)
		l4, at, addrs, proto := 20, 16, want[12:20], byte(6)
		if f.v6 {
			l4, addrs = 40, want[8:40]
		}
		if f.udp {
			at, proto = 6, 17
		}
		pkt := bytes.Clone(want)
		ph := append(bytes.Clone(addrs), 0, proto, byte((len(pkt)-l4)>>8), byte(len(pkt)-l4))
		binary.BigEndian.PutUint16(pkt[l4+at:], ^tun.Checksum(ph))
		super := append(tun.VnetHeader(1, 0, 0, 0, uint16(l4), uint16(at)), pkt...)
		got, err := tun.Split(super, 2000)
		if err != nil || len(got) != 1 || !bytes.Equal(got[0], want) {
			t.Errorf("v6=%v udp=%v: err %v\n got %x\nwant %x", f.v6, f.udp, err, got, want)
		}
	}
}

func TestSplitRefusesContradictions(t *testing.T) {
	good := flow{payload: payload(3000)}.super(t, 1400, 0)
	change := func(f func(b []byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	cases := map[string][]byte{
		"empty":              tun.VnetHeader(0, 0, 0, 0, 0, 0),
		"zero segment":       change(func(b []byte) { b[4], b[5] = 0, 0 }),
		"no checksum offset": change(func(b []byte) { b[0] = 0 }),
		"v6 type on v4":      change(func(b []byte) { b[1] = gsoTCPv6 }),
		"unknown type":       change(func(b []byte) { b[1] = 3 }),
		"transport offset":   change(func(b []byte) { b[6] = 24 }),
		"offset behind end":  change(func(b []byte) { b[6], b[7] = 0xff, 0xff }),
		"TCP header length":  change(func(b []byte) { b[10+20+12] = 0x10 }),
		"TCP header beyond":  change(func(b []byte) { b[10+20+12] = 0xf0 })[:10+20+30],
		"headers only":       good[:10+40],
		"version":            change(func(b []byte) { b[10] = 0x55 }),
		"checksum beyond":    append(tun.VnetHeader(1, 0, 0, 0, 65535, 65535), good[10:]...),
	}
	for name, b := range cases {
		if got, err := tun.Split(b, 2000); err == nil {
			t.Errorf("%s: accepted, %d packets", name, len(got))
		}
	}
	if _, err := tun.Split(good, 1000); !errors.Is(err, tun.ErrTooShort) {
		t.Errorf("small buffers: %v, want ErrTooShort", err)
	}
}

func FuzzSplit(f *testing.F) {
	for _, fl := range []flow{{payload: payload(3000)}, {v6: true, payload: payload(3000)}, {udp: true, payload: payload(3000)}, {v6: true, udp: true, hopopts: true, payload: payload(3000)}} {
		f.Add(fl.super(f, 1000, 0))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 10+tun.MaxPacket {
			return
		}
		before := bytes.Clone(b)
		packets, err := tun.Split(b, tun.MaxPacket)
		if err != nil {
			return
		}
		gso := before[1]&^gsoECN != 0
		total := 0
		for _, p := range packets {
			if len(p) == 0 {
				t.Fatal("empty packet")
			}
			total += len(p)
			if !gso {
				continue
			}
			// Every segment has a length that fits, and a checksum that holds.
			l4 := int(binary.NativeEndian.Uint16(before[6:]))
			addrs, length := p[12:20], int(binary.BigEndian.Uint16(p[2:]))
			if p[0]>>4 == 6 {
				addrs, length = p[8:40], 40+int(binary.BigEndian.Uint16(p[4:]))
			} else if tun.Checksum(p[:l4]) != 0 {
				t.Fatalf("IP checksum of %x", p)
			}
			if length != len(p) {
				t.Fatalf("length %d of a packet of %d bytes", length, len(p))
			}
			proto := byte(6)
			if before[1]&^gsoECN == gsoUDPL4 {
				proto = 17
			}
			ph := append(bytes.Clone(addrs), 0, proto, byte((len(p)-l4)>>8), byte(len(p)-l4))
			if tun.Checksum(append(ph, p[l4:]...)) != 0 {
				t.Fatalf("transport checksum of %x", p)
			}
		}
		if total < len(before)-10 {
			t.Fatalf("lost bytes: %d of %d", total, len(before)-10)
		}
	})
}
