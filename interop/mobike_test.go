package interop_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// download is a TCP transfer from the right host to the left one that goes on until it is
// stopped; both ends keep a checksum.
type download struct {
	t            *testing.T
	ln           net.Listener
	conn         net.Conn
	sent, came   chan [sha256.Size]byte
	stop         chan struct{}
	bytes        int64
	sendErr, err error
}

func (p *path) download() *download {
	p.t.Helper()
	d := &download{t: p.t, sent: make(chan [sha256.Size]byte, 1), came: make(chan [sha256.Size]byte, 1), stop: make(chan struct{})}
	l, r := p.hosts(false)
	at := net.TCPAddrFromAddrPort(netip.AddrPortFrom(r, 8080))
	err := lab.InNS(p.NS(lab.RightHost), func() (err error) { d.ln, err = net.ListenTCP("tcp", at); return err })
	if err != nil {
		p.t.Fatal(err)
	}
	go d.serve()
	err = lab.InNS(p.NS(lab.LeftHost), func() (err error) {
		d.conn, err = (&net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(l, 0))}).Dial("tcp", at.String())
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	go func() {
		h := sha256.New()
		d.bytes, d.err = io.Copy(h, d.conn)
		d.came <- [sha256.Size]byte(h.Sum(nil))
	}()
	return d
}

func (d *download) serve() {
	h := sha256.New()
	defer func() { d.sent <- [sha256.Size]byte(h.Sum(nil)) }()
	c, err := d.ln.Accept()
	if err != nil {
		d.sendErr = err
		return
	}
	defer c.Close()
	b := make([]byte, 8<<10)
	for n := 0; ; n++ {
		select {
		case <-d.stop:
			return
		case <-time.After(5 * time.Millisecond): // 1.6 MB a second
		}
		for i := range b {
			b[i] = byte(i*n>>3) ^ byte(n)
		}
		h.Write(b)
		if _, d.sendErr = c.Write(b); d.sendErr != nil {
			return
		}
	}
}

// finish ends the transfer: all that was sent must have come.
func (d *download) finish() {
	d.t.Helper()
	close(d.stop)
	d.conn.SetReadDeadline(time.Now().Add(15 * time.Second))
	came := <-d.came
	d.ln.Close()
	if sent := <-d.sent; d.err != nil || d.sendErr != nil || sent != came || d.bytes < 1<<20 {
		d.t.Errorf("download of %d bytes: %v, %v, checksums equal %v", d.bytes, d.err, d.sendErr, sent == came)
	}
}

// The address of either end really changes, and the family, while a download and a stream
// of numbered packets run through the tunnel: it survives with the same SAs.
func TestMOBIKE(t *testing.T) {
	t.Parallel()
	charon := "retransmit_timeout = 1.0\n"
	across(t, settings{middle: lab.Bridge, charon: charon}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		left.local, right.local, right.remote = "%any", "%any", "%any"
		for _, ts := range []*string{&left.localTS, &right.remoteTS} {
			*ts += "," + p.L.Inner6.String()
		}
		for _, ts := range []*string{&left.remoteTS, &right.localTS} {
			*ts += "," + p.R.Inner6.String()
		}
		left.extra, right.extra = "dpd_delay = 3s\n", "dpd_delay = 30s\n"
		p.load(left, right)
		p.up()
		before := p.sas(p.left)[0]
		transfer := p.download()
		step := func(what, node string, local, remote netip.Addr, commands string) {
			t.Helper()
			flow, err := p.StartFlow(lab.Flow{From: lab.RightHost, To: lab.LeftHost, Src: p.R.Host4, Dst: p.L.Host4, Rate: 200})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(300 * time.Millisecond)
			if out, err := p.Exec(5*time.Second, node, "sh", "-c", commands); err != nil {
				t.Fatal(out, err)
			}
			p.wait("the left end after "+what, p.left, func(s []peer.SA) bool {
				return len(s) == 1 && s[0].LocalHost == local.String() && s[0].RemoteHost == remote.String()
			})
			p.wait("the right end after "+what, p.right, func(s []peer.SA) bool {
				return len(s) == 1 && s[0].LocalHost == remote.String() && s[0].RemoteHost == local.String()
			})
			had := flow.Received()
			if err := lab.Poll(10*time.Second, func() (bool, error) { return flow.Received() > had+20, nil }); err != nil {
				t.Errorf("no data after %s: %v", what, err)
			}
			r := flow.Stop()
			if r.Corrupt != 0 || r.Duplicated != 0 {
				t.Errorf("%s: %v", what, r)
			}
			lost := fmt.Sprintf("%v without data, %d of %d packets lost", r.MaxGap.Round(time.Millisecond), r.Lost(), r.Sent)
			t.Logf("%s: %s", what, lost)
			p.facts[what] = lost
		}
		swap := func(from, to netip.Addr) string {
			bits, nodad := 24, ""
			if from.Is6() {
				bits, nodad = 64, "nodad"
			}
			return fmt.Sprintf("ip addr del %[1]s/%[3]d dev %[4]s && ip addr add %[2]s/%[3]d dev %[4]s %[5]s", from, to, bits, lab.Wan, nodad)
		}
		swapped := fmt.Sprintf("ip addr del %s/24 dev %s", "192.0.2.77", lab.Wan)
		if !strings.HasPrefix(p.left.Name(), string(adit)) {
			// It tries all paths at once and takes the one that answers first: on a busy
			// machine now and then the other family. So it has one path at a time.
			if out, err := p.Exec(5*time.Second, lab.Left, "ip", "addr", "del", p.L.Wan6.String()+"/64", "dev", lab.Wan); err != nil {
				t.Fatal(out, err)
			}
			swapped = fmt.Sprintf("ip addr add %s/64 dev %s nodad && ", p.L.Wan6, lab.Wan) + swapped
		}
		new4, gw6 := netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("2001:db8::88")
		step("another address", lab.Left, new4, p.R.Wan4, swap(p.L.Wan4, new4))
		step("IPv4 to IPv6", lab.Left, p.L.Wan6, p.R.Wan6, swapped)
		step("another address of the gateway", lab.Right, p.L.Wan6, gw6, swap(p.R.Wan6, gw6))
		step("IPv6 to IPv4", lab.Left, p.L.Wan4, p.R.Wan4, fmt.Sprintf("ip addr add %s/24 dev %[2]s && ip addr del %[3]s/64 dev %[2]s", p.L.Wan4, lab.Wan, p.L.Wan6))
		transfer.finish()
		if after := p.sas(p.left)[0]; after.InitiatorSPI != before.InitiatorSPI || after.ResponderSPI != before.ResponderSPI {
			t.Error("it is another IKE SA")
		}
		// strongSwan's kernel-libipsec rekeys Child SAs after a move, and loses packets by it.
		p.settled()
		_ = lab.Poll(10*time.Second, func() (bool, error) {
			r, err := p.Ping(lab.LeftHost, p.R.Host4, lab.PingOptions{Count: 10})
			return r.Received == 10, err
		})
		p.pings(false)
	})
}
