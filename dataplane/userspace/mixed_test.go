package userspace_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"adit/dataplane/userspace"
	"adit/internal/conn"
	"adit/ipsec"
)

// mixed is an inner packet of 64 bytes of any kind: inside or outside of selectors by
// address or by port, fragments, ICMP, errors that quote any of these.
func mixed(r *rand.Rand) (b []byte, fragment bool) {
	src, dst := hostA4, hostB4
	if r.IntN(8) == 0 {
		src = netip.AddrFrom4([4]byte{10, 77, 0, 1})
	}
	if r.IntN(8) == 0 {
		dst = netip.AddrFrom4([4]byte{10, 88, 0, 1})
	}
	ports := func(n int) []byte {
		body := make([]byte, n)
		binary.BigEndian.PutUint16(body, 7000)
		binary.BigEndian.PutUint16(body[2:], 7001+uint16(r.IntN(2)))
		return body
	}
	proto := []uint8{17, 17, 6}[r.IntN(3)]
	switch r.IntN(5) {
	case 0:
		b = ip(src, dst, 1, append([]byte{[]byte{8, 0, 3, 11}[r.IntN(4)], 1, 0, 0, 0, 0, 0, 0},
			ip([]netip.Addr{dst, hostB4}[r.IntN(2)], src, proto, ports(16))...))
	case 1:
		b = ip(src, dst, proto, ports(44))
		binary.BigEndian.PutUint16(b[4:], uint16(r.IntN(6)))
		b[6], b[7] = 0x20, byte(5*r.IntN(2))
		fragment = true
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], onesum(b[:20], 0))
	default:
		b = ip(src, dst, proto, ports(44))
	}
	return b, fragment
}

// TestMixedTrainsEqualPackets: of a train whose packets belong to several SAs and flows,
// some of them forged, repeated or outside the selectors, exactly those come through that
// a worker lets through which has seen none of the others.
func TestMixedTrainsEqualPackets(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 6))
	var sides [2]*bench
	var recs [2]*recorder
	var peers [2][3]*peer
	for i := range sides {
		sides[i], recs[i] = recording(t, child{})
		for k := range peers[i] {
			peers[i][k] = sides[i].l.peer(func(p *ipsec.SAParams) {
				p.Ref.Child, p.SPI = p.Ref.Child+uint32(k), p.SPI+ipsec.SPI(k)
				if k > 0 {
					p.LocalTS[0].Proto, p.RemoteTS[0].Proto = 17, 17
					p.LocalTS[0].PortFrom, p.LocalTS[0].PortTo = 7001, 7001
				}
			})
		}
	}
	userspace.ForgetsAlike(sides[0].in, sides[1].in)
	kept, dropped := 0, 0
	for range 150 {
		recs[0].got, recs[1].got = nil, nil
		var train []byte
		var list [][]byte
		size := 0
		for range 1 + r.IntN(60) {
			b, fragment := mixed(r)
			k := r.IntN(3)
			e, f := peers[0][k].seal(b, 4), peers[1][k].seal(b, 4)
			if !bytes.Equal(e, f) {
				t.Fatal("the two sides differ")
			}
			switch r.IntN(12) {
			case 0:
				e[r.IntN(len(e))] ^= 1
			case 1:
				if len(list) > 0 {
					e = bytes.Clone(list[r.IntN(len(list))])
					fragment = true
				}
			}
			size = len(e)
			train, list = append(train, e...), append(list, bytes.Clone(e))
			in := sides[1].in
			if !fragment {
				in = sides[1].l.b.plane.NewInbound(benchBatch)
			}
			in.Batch([]conn.Packet{{Kind: conn.ESP, Encap: true, Buf: e}})
		}
		sides[0].in.Batch([]conn.Packet{{Kind: conn.ESP, Encap: true, Buf: train, Segment: size}})
		if err := equal(recs[0].got, recs[1].got); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		kept += len(recs[0].got)
		dropped += len(list) - len(recs[0].got)
	}
	a, b := sides[0].l.b.plane.Counters(), sides[1].l.b.plane.Counters()
	for _, reason := range userspace.Reasons() {
		// A forged packet with the number of one of its own train is forged there, and a
		// repeated one apart.
		if reason == userspace.InAuth || reason == userspace.InReplay {
			continue
		}
		if a.Drops(reason) != b.Drops(reason) {
			t.Errorf("seed %d, %s: %d in trains, %d apart", seed, reason, a.Drops(reason), b.Drops(reason))
		}
	}
	if forged, apart := a.Drops(userspace.InAuth)+a.Drops(userspace.InReplay), b.Drops(userspace.InAuth)+b.Drops(userspace.InReplay); forged != apart {
		t.Errorf("seed %d: %d forged or repeated in trains, %d apart", seed, forged, apart)
	}
	if a.InPackets != b.InPackets || a.InBytes != b.InBytes || a.Drops(userspace.InSelector) == 0 || a.Drops(userspace.InAuth) == 0 || a.Drops(userspace.InReplay) == 0 {
		t.Errorf("seed %d: %v, %v", seed, dropsOf(sides[0].l.b.plane), dropsOf(sides[1].l.b.plane))
	}
	t.Logf("%d through, %d not: %v", kept, dropped, dropsOf(sides[0].l.b.plane))
}
