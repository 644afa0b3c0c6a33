//go:build linux

package conn_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"adit/internal/conn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// path is two network namespaces with a veth pair between: 192.0.2.1 and
// 2001:db8::1 on the left, .2 and ::2 on the right, .3 and ::3 on both sides as
// second and third addresses. The namespaces have no names and go away with
// their last descriptor.
type path struct {
	t    testing.TB
	side [2]netns.NsHandle
}

func newPath(t testing.TB) *path {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces and raw sockets need root")
	}
	p := &path{t: t}
	done := make(chan error, 1)
	go func() { done <- p.build() }()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.side[0].Close()
		p.side[1].Close()
	})
	return p
}

// build runs on a thread that is never unlocked, and so ends with it.
func (p *path) build() (err error) {
	runtime.LockOSThread()
	for i := range p.side {
		if p.side[i], err = netns.New(); err != nil {
			return err
		}
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "out"}, PeerName: "out",
		PeerNamespace: netlink.NsFd(int(p.side[0]))}
	if err := netlink.LinkAdd(veth); err != nil { // the thread is in side 1
		return err
	}
	for i, addrs := range [][]string{
		{"192.0.2.1/24", "192.0.2.11/24", "2001:db8::1/64", "2001:db8::11/64", "fe80::1/64"},
		{"192.0.2.2/24", "192.0.2.12/24", "2001:db8::2/64", "2001:db8::12/64", "fe80::2/64"},
	} {
		if err := netns.Set(p.side[i]); err != nil {
			return err
		}
		link, err := netlink.LinkByName("out")
		if err != nil {
			return err
		}
		for _, a := range addrs {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			if addr.IP.To4() == nil {
				addr.Flags = unix.IFA_F_NODAD
			}
			if err := netlink.AddrAdd(link, addr); err != nil {
				return err
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetUp(link), netlink.LinkSetUp(lo)); err != nil {
			return err
		}
	}
	return nil
}

// in runs f on a thread in one side's namespace.
func (p *path) in(side int, f func()) {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(p.side[side])
		defer func() { done <- err }()
		if err == nil {
			f()
		}
	}()
	if err := <-done; err != nil {
		p.t.Fatal(err)
	}
}

func (p *path) listen(side int, opts conn.Options) conn.Conn {
	p.t.Helper()
	var c conn.Conn
	var err error
	p.in(side, func() { c, err = conn.Listen(opts) })
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}

// inbox collects copies of what all readers of a Conn receive.
type inbox struct {
	mu   sync.Mutex
	pkts []conn.Packet
	wg   sync.WaitGroup
}

func collect(t *testing.T, c conn.Conn) *inbox {
	b := &inbox{}
	for _, r := range c.Readers() {
		b.wg.Add(1)
		go func() {
			defer b.wg.Done()
			pkts := make([]conn.Packet, 64)
			for {
				n, err := r.ReadBatch(pkts)
				if err != nil {
					if !errors.Is(err, conn.ErrClosed) {
						t.Errorf("ReadBatch: %v", err)
					}
					return
				}
				b.mu.Lock()
				for _, p := range pkts[:n] {
					p.Buf = bytes.Clone(p.Buf)
					b.pkts = append(b.pkts, p)
				}
				b.mu.Unlock()
			}
		}()
	}
	t.Cleanup(func() {
		c.Close()
		b.wg.Wait()
	})
	return b
}

// wait returns what came once there are n datagrams, or what there is.
func (b *inbox) wait(t *testing.T, n int) []conn.Packet {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		b.mu.Lock()
		if len(b.pkts) >= n || time.Now().After(end) {
			got := b.pkts
			b.pkts = nil
			b.mu.Unlock()
			if len(got) != n {
				t.Fatalf("%d datagrams, want %d", len(got), n)
			}
			return got
		}
		b.mu.Unlock()
	}
}

func espPacket(seq uint32, size int) []byte {
	b := make([]byte, size)
	binary.BigEndian.PutUint32(b, 0xc0ffee01)
	binary.BigEndian.PutUint32(b[4:], seq)
	for i := 8; i < size; i++ {
		b[i] = byte(i + int(seq))
	}
	return b
}

var optionSets = map[string]conn.Options{
	"all": {}, "noGRO": {NoGRO: true}, "noGSO": {NoGSO: true}, "none": {NoGRO: true, NoGSO: true},
}

// Every kind, both families, from both addresses, with and without DF, each
// with its traffic class; and no datagram more than once.
func TestSocketsCarryEveryKind(t *testing.T) {
	for name, opts := range optionSets {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			a, b := p.listen(0, opts), p.listen(1, opts)
			in := collect(t, b)
			back := collect(t, a)
			for _, froms := range [][2]string{{"192.0.2.1", "192.0.2.12"}, {"192.0.2.11", "192.0.2.2"}, {"2001:db8::11", "2001:db8::2"}, {"2001:db8::1", "2001:db8::12"}} {
				from, to := netip.MustParseAddr(froms[0]), netip.MustParseAddr(froms[1])
				for _, df := range []bool{false, true} {
					everyKind(t, a, b, in, back, from, to, df)
				}
			}
			for _, c := range []conn.Conn{a, b} {
				st := c.Stats()
				if st.Malformed+st.Truncated+st.SendOther+st.SendRefused+st.SendTooBig+st.SendUnreachable+st.SegmentFallback+st.Reports != 0 {
					t.Errorf("%+v", st)
				}
			}
		})
	}
}

func everyKind(t *testing.T, a, b conn.Conn, in, back *inbox, from, to netip.Addr, df bool) {
	t.Helper()
	// One first, since what waits for the neighbour's address may be dropped.
	first := []conn.Packet{{Kind: conn.IKE, Local: netip.AddrPortFrom(from, 500), Remote: netip.AddrPortFrom(to, 500), Buf: []byte("first")}}
	if n, err := a.WriteBatch(first); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	in.wait(t, 1)
	at := func(addr netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(addr, port) }
	out := []conn.Packet{
		{Kind: conn.IKE, Local: at(from, 500), Remote: at(to, 500), Buf: []byte("an IKE message"), DF: df, TOS: 0xc0},
		{Kind: conn.IKE, Encap: true, Local: at(from, 4500), Remote: at(to, 4500), Buf: []byte("an IKE message on 4500"), DF: df},
		{Kind: conn.Keepalive, Encap: true, Local: at(from, 4500), Remote: at(to, 4500), Buf: []byte{0xff}, DF: df},
		{Kind: conn.ESP, Local: at(from, 0), Remote: at(to, 0), Buf: espPacket(900, 200), DF: df, TOS: 0x02},
	}
	for i := range 100 {
		tos := uint8(0xb8 | i/50) // a train must split where ECN changes
		out = append(out, conn.Packet{Kind: conn.ESP, Encap: true, Local: at(from, 4500), Remote: at(to, 4500),
			Buf: espPacket(uint32(i), 1300-i%25/24*77), DF: df, TOS: tos})
	}
	if n, err := a.WriteBatch(out); n != len(out) || err != nil {
		t.Fatalf("WriteBatch: %d of %d, %v", n, len(out), err)
	}
	got := in.wait(t, len(out))
	unseen := map[string]conn.Packet{}
	for _, p := range out {
		unseen[string(p.Buf)] = p
	}
	for i := range got {
		g := &got[i]
		want, ok := unseen[string(g.Buf)]
		delete(unseen, string(g.Buf))
		if !ok || g.Kind != want.Kind || g.Encap != want.Encap || g.TOS != want.TOS ||
			g.Local != want.Remote || g.Remote != want.Local || g.IfIndex == 0 {
			t.Fatalf("received %v %v<-%v tos %x encap %v if %d, %d bytes; sent %+v", g.Kind, g.Local, g.Remote, g.TOS, g.Encap, g.IfIndex, len(g.Buf), want)
		}
	}
	// An answer goes back the way it came.
	if n, err := b.WriteBatch(got[:8]); n != 8 || err != nil {
		t.Fatalf("answer: %d, %v", n, err)
	}
	for _, g := range back.wait(t, 8) {
		if g.Local.Addr() != from || g.Remote.Addr() != to {
			t.Errorf("answer: %v<-%v", g.Local, g.Remote)
		}
	}
}

// The kernel joins and splits trains, where it is let.
func TestTrainsAreUsed(t *testing.T) {
	p := newPath(t)
	a, b := p.listen(0, conn.Options{}), p.listen(1, conn.Options{})
	in := collect(t, b)
	var out []conn.Packet
	for i := range 128 {
		out = append(out, conn.Packet{Kind: conn.ESP, Encap: true, DF: true, Remote: netip.AddrPortFrom(right, 4500), Buf: espPacket(uint32(i), 1000)})
	}
	if n, err := a.WriteBatch(out); n != 128 || err != nil {
		t.Fatal(n, err)
	}
	got := in.wait(t, 128)
	for i, g := range got {
		if !bytes.Equal(g.Buf, out[i].Buf) {
			t.Fatalf("datagram %d out of order or changed", i)
		}
	}
	if st := a.Stats(); st.SentTrains != 2 || st.Sent != 128 {
		t.Errorf("sender: %+v", st)
	}
	if st := b.Stats(); st.ReceivedTrains == 0 || st.Received != 128 {
		t.Errorf("receiver: %+v", st)
	}
}

func TestDFRefusesWhatIsTooBig(t *testing.T) {
	p := newPath(t)
	var reps reports
	a, b := p.listen(0, conn.Options{OnReport: reps.add}), p.listen(1, conn.Options{})
	in := collect(t, b)
	for _, to := range []netip.Addr{right, right6} {
		for _, encap := range []bool{true, false} {
			before := a.Stats()
			remote := netip.AddrPortFrom(to, 4500)
			out := []conn.Packet{
				{Kind: conn.ESP, Encap: encap, Remote: remote, Buf: espPacket(1, 3000), DF: true},
				{Kind: conn.ESP, Encap: encap, Remote: remote, Buf: espPacket(2, 3000), DF: true},
				{Kind: conn.ESP, Encap: encap, Remote: remote, Buf: espPacket(3, 1000), DF: true},
				{Kind: conn.ESP, Encap: encap, Remote: remote, Buf: espPacket(4, 3000)},
			}
			n, err := a.WriteBatch(out)
			if n != 2 || !errors.Is(err, conn.ErrTooBig) {
				t.Errorf("%v encap=%v: %d, %v", to, encap, n, err)
			}
			got := in.wait(t, 2)
			if len(got[0].Buf)+len(got[1].Buf) != 4000 {
				t.Errorf("%v encap=%v: wrong ones came through", to, encap)
			}
			if st := a.Stats(); st.SendTooBig-before.SendTooBig != 2 {
				t.Errorf("%v encap=%v: %+v", to, encap, st)
			}
			// The kernel tells the MTU as well.
			if got := reps.take(); len(got) == 0 || got[0].MTU != 1500 || got[0].Offender.IsValid() || got[0].Remote.Addr() != to {
				t.Errorf("%v encap=%v: reports %+v", to, encap, got)
			}
		}
	}
}

// reports collects what OnReport gets.
type reports struct {
	mu   sync.Mutex
	list []conn.Report
}

func (r *reports) add(rep conn.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep.Quote = bytes.Clone(rep.Quote)
	r.list = append(r.list, rep)
}

func (r *reports) take() []conn.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.list
	r.list = nil
	return l
}

// ICMP errors are reported and end neither reading nor writing.
func TestICMPErrorsAreReported(t *testing.T) {
	p := newPath(t)
	var reps reports
	a := p.listen(0, conn.Options{OnReport: reps.add})
	in := collect(t, a)
	cases := []struct {
		name      string
		to        netip.Addr
		encap     bool
		typ, code uint8
	}{
		{"port unreachable", right, true, 3, 3},
		{"port unreachable, IPv6", right6, true, 1, 4},
		{"protocol unreachable", right, false, 3, 2},
		{"unknown next header, IPv6", right6, false, 4, 1},
	}
	for _, c := range cases { // nobody listens on the right side
		for _, df := range []bool{false, true} {
			port := uint16(0)
			if c.encap {
				port = 4500
			}
			out := []conn.Packet{{Kind: conn.ESP, Encap: c.encap, DF: df, Remote: netip.AddrPortFrom(c.to, port), Buf: espPacket(7, 100)}}
			reps.take()
			var got []conn.Report
			for end := time.Now().Add(5 * time.Second); len(got) == 0 && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				if n, err := a.WriteBatch(out); n != 1 {
					t.Fatalf("%s: WriteBatch: %d, %v", c.name, n, err)
				}
				got = reps.take()
			}
			if len(got) == 0 {
				t.Errorf("%s df=%v: no report", c.name, df)
				continue
			}
			r := got[0]
			if r.Type != c.typ || r.Code != c.code || r.Remote != out[0].Remote || r.Offender != c.to || r.Encap != c.encap || r.Raw == c.encap ||
				len(r.Quote) < 4 || binary.BigEndian.Uint32(r.Quote) != 0xc0ffee01 {
				t.Errorf("%s df=%v: report %+v", c.name, df, r)
			}
		}
	}
	// Both directions still work.
	b := p.listen(1, conn.Options{})
	inB := collect(t, b)
	for _, c := range cases {
		port := uint16(0)
		if c.encap {
			port = 4500
		}
		out := []conn.Packet{{Kind: conn.ESP, Encap: c.encap, Remote: netip.AddrPortFrom(c.to, port), Buf: espPacket(7, 100)}}
		if n, err := a.WriteBatch(out); n != 1 || err != nil {
			t.Errorf("%s: WriteBatch: %d, %v", c.name, n, err)
		}
		got := inB.wait(t, 1)
		if n, err := b.WriteBatch(got); n != 1 || err != nil {
			t.Errorf("%s: answer: %d, %v", c.name, n, err)
		}
		in.wait(t, 1)
	}
}

// A train with segments above the MTU falls back to fragments, and trains that
// fit stay trains.
func TestTrainsFallBackBySize(t *testing.T) {
	p := newPath(t)
	a, b := p.listen(0, conn.Options{}), p.listen(1, conn.Options{})
	in := collect(t, b)
	for _, to := range []netip.Addr{right, right6} {
		send := func(size, n int) {
			t.Helper()
			var out []conn.Packet
			for i := range n {
				out = append(out, conn.Packet{Kind: conn.ESP, Encap: true, Remote: netip.AddrPortFrom(to, 4500), Buf: espPacket(uint32(i), size)})
			}
			if k, err := a.WriteBatch(out); k != n || err != nil {
				t.Fatalf("%d, %v", k, err)
			}
			in.wait(t, n)
		}
		before := a.Stats()
		send(1000, 1) // the neighbour's address
		send(2000, 8)
		send(2000, 8)
		if st := a.Stats(); st.SentTrains != before.SentTrains {
			t.Errorf("%s: trains above the MTU: %+v", to, st)
		}
		if st := a.Stats(); st.SegmentFallback-before.SegmentFallback > 1 {
			t.Errorf("%s: the fallback isn't remembered: %+v", to, st)
		}
		send(1200, 8)
		if st := a.Stats(); st.SentTrains != before.SentTrains+1 {
			t.Errorf("%s: no train where it fits: %+v", to, st)
		}
	}
}

func TestLinkLocal(t *testing.T) {
	p := newPath(t)
	a, b := p.listen(0, conn.Options{}), p.listen(1, conn.Options{})
	in, back := collect(t, b), collect(t, a)
	var ifIndex int
	p.in(0, func() {
		if l, err := netlink.LinkByName("out"); err == nil {
			ifIndex = l.Attrs().Index
		}
	})
	out := []conn.Packet{{Kind: conn.IKE, IfIndex: uint32(ifIndex), Buf: []byte("nearby"),
		Local: netip.MustParseAddrPort("[fe80::1]:500"), Remote: netip.MustParseAddrPort("[fe80::2]:500")}}
	if n, err := a.WriteBatch(out); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	got := in.wait(t, 1)
	if got[0].Remote != out[0].Local || got[0].Local != out[0].Remote {
		t.Errorf("%+v", got[0])
	}
	if n, err := b.WriteBatch(got); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	back.wait(t, 1)
}

func TestSourceFor(t *testing.T) {
	p := newPath(t)
	a := p.listen(0, conn.Options{})
	for to, want := range map[string]string{
		"192.0.2.2": "192.0.2.1", "192.0.2.77": "192.0.2.1", "127.0.0.1": "127.0.0.1", "::ffff:192.0.2.2": "192.0.2.1",
	} {
		if got, err := a.SourceFor(netip.MustParseAddr(to)); err != nil || got.String() != want {
			t.Errorf("to %s from %v, %v", to, got, err)
		}
	}
	if got, err := a.SourceFor(right6); err != nil || got.Is4() || !strings.HasPrefix(got.String(), "2001:db8::") {
		t.Errorf("to %s from %v, %v", right6, got, err)
	}
	for _, to := range []string{"203.0.113.1", "2001:db8:ffff::1"} {
		if got, err := a.SourceFor(netip.MustParseAddr(to)); !errors.Is(err, conn.ErrNoRoute) {
			t.Errorf("to %s: %v, %v", to, got, err)
		}
	}
	// Unreachable ones among others don't stop the batch.
	out := []conn.Packet{
		{Kind: conn.IKE, Remote: netip.MustParseAddrPort("203.0.113.1:500"), Buf: []byte("nowhere")},
		{Kind: conn.IKE, Remote: netip.AddrPortFrom(right, 500), Buf: []byte("somewhere")},
	}
	if n, err := a.WriteBatch(out); n != 1 || err == nil || a.Stats().SendUnreachable != 1 {
		t.Errorf("WriteBatch: %d, %v, %+v", n, err, a.Stats())
	}
}

func TestPortInUse(t *testing.T) {
	p := newPath(t)
	a := p.listen(0, conn.Options{})
	if a.Ports() != (conn.Ports{IKE: 500, NATT: 4500}) {
		t.Errorf("ports %+v", a.Ports())
	}
	p.in(0, func() {
		_, err := conn.Listen(conn.Options{})
		var pe *conn.PortError
		if !errors.Is(err, conn.ErrPortInUse) || !errors.As(err, &pe) || pe.Port != 500 || !strings.Contains(err.Error(), "500") {
			t.Errorf("second instance: %v", err)
		}
		_, err = conn.Listen(conn.Options{Ports: conn.Ports{IKE: 501}})
		if !errors.As(err, &pe) || pe.Port != 4500 {
			t.Errorf("second on 4500: %v", err)
		}
		if _, err := conn.Listen(conn.Options{Ports: conn.Ports{IKE: 4500}}); !errors.Is(err, conn.ErrPorts) {
			t.Errorf("same port twice: %v", err)
		}
		c, err := conn.Listen(conn.Options{AnyPort: true, NoRaw: true, Mark: 7})
		if err != nil {
			t.Errorf("free ports: %v", err)
			return
		}
		if ports := c.Ports(); ports.IKE == 0 || ports.NATT == 0 || ports.IKE == ports.NATT {
			t.Errorf("free ports: %+v", ports)
		}
		c.Close()
	})
	a.Close()
	p.listen(0, conn.Options{}) // free again
}

func TestCloseUnblocksReaders(t *testing.T) {
	p := newPath(t)
	a := p.listen(0, conn.Options{})
	if n := len(a.Readers()); n != 6 {
		t.Errorf("%d readers", n)
	}
	in := collect(t, a)
	time.Sleep(20 * time.Millisecond)
	a.Close()
	a.Close()
	done := make(chan struct{})
	go func() { in.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("readers still wait")
	}
	if _, err := a.WriteBatch([]conn.Packet{{Kind: conn.IKE}}); !errors.Is(err, conn.ErrClosed) {
		t.Errorf("WriteBatch after Close: %v", err)
	}
	if _, err := a.SourceFor(right); !errors.Is(err, conn.ErrClosed) {
		t.Errorf("SourceFor after Close: %v", err)
	}
}

func TestSocketsDoNotAllocate(t *testing.T) {
	p := newPath(t)
	a, b := p.listen(0, conn.Options{NoIPv6: true}), p.listen(1, conn.Options{NoIPv6: true})
	if len(b.Readers()) != 3 {
		t.Fatalf("%d readers", len(b.Readers()))
	}
	for i, encap := range []bool{true, false} {
		for _, df := range []bool{true, false} {
			noAllocation(t, a, b.Readers()[1+i], encap, df)
		}
	}
}

func noAllocation(t *testing.T, a conn.Conn, r conn.Reader, encap, df bool) {
	t.Helper()
	var out []conn.Packet
	for i := range 64 {
		out = append(out, conn.Packet{Kind: conn.ESP, Encap: encap, DF: df, TOS: 2,
			Local: netip.AddrPortFrom(left, 4500), Remote: netip.AddrPortFrom(right, 4500), Buf: espPacket(uint32(i), 1300)})
	}
	in := make([]conn.Packet, 64)
	turn := func() {
		if n, err := a.WriteBatch(out); n != 64 || err != nil {
			t.Fatal(n, err)
		}
		for got := 0; got < 64; {
			n, err := r.ReadBatch(in)
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
	}
	turn()
	// sync.Pool may lose its content to the garbage collector now and then.
	if n := testing.AllocsPerRun(200, turn); n > 1 {
		t.Errorf("encap %v, DF %v: %v allocations for 64 datagrams", encap, df, n)
	}
}
