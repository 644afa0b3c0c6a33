package userspace_test

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"adit/dataplane/userspace"
	"adit/internal/conn"
	"adit/ipsec"
)

// fragments cuts a packet into fragments of size bytes behind the header.
func fragments(b []byte, size int, id uint32) (list [][]byte) {
	hdr, proto := 20, b[9]
	if b[0]>>4 == 6 {
		hdr, proto = 40, b[6]
	}
	body := b[hdr:]
	for at := 0; at < len(body); at += size {
		part := body[at:min(at+size, len(body))]
		more := at+len(part) < len(body)
		f := slices.Clone(b[:hdr])
		if hdr == 20 {
			field := uint16(at / 8)
			if more {
				field |= 0x2000
			}
			binary.BigEndian.PutUint16(f[2:], uint16(20+len(part)))
			binary.BigEndian.PutUint16(f[4:], uint16(id))
			binary.BigEndian.PutUint16(f[6:], field)
			f[10], f[11] = 0, 0
			binary.BigEndian.PutUint16(f[10:], onesum(f, 0))
		} else {
			f[6] = 44
			binary.BigEndian.PutUint16(f[4:], uint16(8+len(part)))
			field := uint16(at)
			if more {
				field |= 1
			}
			f = append(f, proto, 0, byte(field>>8), byte(field))
			f = binary.BigEndian.AppendUint32(f, id)
		}
		list = append(list, append(f, part...))
	}
	return list
}

// TestRFC4303_3_3_4_Reassembly: transport mode carries datagrams whole, so those
// that the host fragmented before the device are put together first.
func TestRFC4303_3_3_4_Reassembly(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		l := newLab(t, nil)
		l.install(child{mode: ipsec.ModeTransport, outer6: v6})
		a, b := addrA4, addrB4
		if v6 {
			a, b = addrA6, addrB6
		}
		payload := make([]byte, 5000)
		for i := range payload {
			payload[i] = byte(i * 11 / 7)
		}
		whole := udp(a, b, 1, 2, payload)
		for n, order := range []func([][]byte){func([][]byte) {}, slices.Reverse[[][]byte], func(l [][]byte) { l[0], l[2] = l[2], l[0] }} {
			list := fragments(whole, 1200, uint32(100+n))
			order(list)
			l.a.send(list...)
			same(t, ipsec.ModeTransport, l.b.receive(1)[0], whole)
		}
		if d := dropsOf(l.a.plane); len(d) != 0 {
			t.Fatalf("drops %v", d)
		}
		// An overlap gives up the datagram.
		list := fragments(whole, 1200, 7)
		l.a.send(list[0], list[1], list[1], list[2], list[3], list[4])
		l.a.until(func() bool { c := l.a.plane.Counters(); return c.Drops(userspace.OutFragment) == 3 })
		// What stays incomplete goes by age, and room is found for others.
		l.now.add(time.Minute)
		for id := range uint32(50) {
			l.a.send(fragments(whole, 1200, 1000+id)[1])
		}
		list = fragments(whole, 2400, 9)
		l.a.send(list...)
		same(t, ipsec.ModeTransport, l.b.receive(1)[0], whole)
	}
}

// TestRFC4301_7_3_FragmentsFollowTheFirst: later fragments show no ports and go
// the way of the first, outbound and inbound, where selectors name ports.
func TestRFC4301_7_3_FragmentsFollowTheFirst(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		l := newLab(t, nil)
		a, b, local, remote := hostA4, hostB4, selectors(netA4), selectors(netB4)
		if v6 {
			a, b, local, remote = hostA6, hostB6, selectors(netA6), selectors(netB6)
		}
		remote[0].Proto, remote[0].PortFrom, remote[0].PortTo = 17, 53, 53
		l.install(child{a: local, b: remote})
		list := fragments(udp(a, b, 1, 53, make([]byte, 3000)), 1000, 77)
		l.a.send(list[1]) // without its first: nobody knows its port
		l.a.dropped(userspace.OutNoPolicy, 1)
		l.a.send(list...)
		for i, got := range l.b.receive(len(list)) {
			same(t, ipsec.ModeTunnel, got, list[i])
		}
		// Another port's later fragments do not profit.
		l.a.send(fragments(udp(a, b, 1, 54, make([]byte, 3000)), 1000, 78)...)
		l.a.dropped(userspace.OutNoPolicy, 5)
		l.now.add(time.Minute)
		l.a.send(list[2])
		l.a.dropped(userspace.OutNoPolicy, 6)
		l.a.send(list[0])
		l.b.receive(1)
		must(t, l.a.plane.DeletePolicy(1))
		l.a.send(list[1])
		l.a.dropped(userspace.OutNoPolicy, 7)
	}
}

// reporting is a Conn that reports "too big" from within WriteBatch, as the
// kernel's error queue is read there.
type reporting struct {
	sink
	plane *userspace.Plane
}

func (c *reporting) WriteBatch(ps []conn.Packet) (int, error) {
	for i := range ps {
		c.plane.Report(conn.Report{Remote: ps[i].Remote, Encap: ps[i].Encap, MTU: 1200, Quote: ps[i].Buf[:16]})
	}
	return c.sink.WriteBatch(ps)
}

// TestReportWhileSending must not lock up, neither for a worker nor where waiting packets leave.
func TestReportWhileSending(t *testing.T) {
	b := newBench(t, child{})
	c := &reporting{}
	p, err := userspace.New(userspace.Config{Tun: newHole(), Conn: c, IKE: func(*conn.Packet) {}})
	must(t, err)
	c.plane = p
	t.Cleanup(func() { must(t, p.Close()) })
	l := &lab{t: t, a: &side{t: t, plane: p}, b: &side{t: t, plane: b.l.b.plane}}
	must(t, p.AddPolicy(ipsec.Policy{ID: 3, Name: "net", Local: selectors(netA4, netA6), Remote: selectors(netB4, netB6), Trap: true}))
	p.NewOutbound().Batch([][]byte{numbered(hostA4, hostB4, 1)})
	if p.Counters().Waiting != 1 {
		t.Fatal("nothing waits")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.install(child{n: 3})
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("locked up")
	}
	if len(c.pkts) != 1 || p.Counters().PMTUReports != 1 {
		t.Fatalf("%d sent, %+v", len(c.pkts), p.Counters())
	}
	if st, _ := p.Query(ipsec.SARef{Child: 3, Dir: ipsec.Out}); st.MTU != 1200-62 {
		t.Fatalf("inner MTU %d", st.MTU)
	}
}
