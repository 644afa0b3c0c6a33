package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"adit/conf"
	"adit/dataplane/userspace"
	"adit/ike"
	"adit/ike/ikev2"
	"adit/internal/config"
	"adit/internal/conn"
	"adit/internal/gateway"
	"adit/tun/netstack"
)

// end is one gateway with one host behind it, inside this process.
type end struct {
	host  *netstack.Stack
	plane *userspace.Plane
	gw    *gateway.Gateway
}

// rootless runs both gateways in this process: hosts are gVisor's stack, the
// network between the gateways is memory. Everything else is the real thing.
func rootless(ctx context.Context, o Options, s *screen) error {
	fmt.Fprintln(s.out, "adit demo without root: two gateways in one process over a network in memory,")
	fmt.Fprintln(s.out, "the hosts are gVisor's TCP/IP stack. As root it uses network namespaces and real devices.")
	if o.Mode == "transport" {
		return errors.New("transport mode needs root: the hosts in memory have no address of their own outside")
	}
	wire := conn.NewNetwork()
	var seen observer
	wire.SetTap(seen.packet)
	wire.SetFilter(seen.flip)
	outer := [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	inner := [2]netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.2.0.2")}
	nets := [2]string{"10.1.0.0/24", "10.2.0.0/24"}
	names := [2]string{"left.example", "right.example"}
	key := secret()
	var ends [2]*end
	for i := range ends {
		text := siteConf(outer[i].String(), outer[1-i].String(), names[i], names[1-i], nets[i], nets[1-i], "tunnel", "none", key)
		e, err := newEnd(wire, outer[i], inner[i], text)
		if err != nil {
			return err
		}
		defer e.close()
		ends[i] = e
	}
	s.title("The left gateway sets the tunnel up (IKEv2, pre-shared key, AES-256-GCM)")
	up, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	stop := ends[0].gw.Subscribe(func(e ike.Event) {
		if r, ok := gateway.Describe(e); ok && r.Level <= 1 {
			s.say("left: %s", r.Text)
		}
	})
	err := ends[0].gw.Initiate(up, "demo", "net")
	stop()
	if err != nil {
		return err
	}
	return showRootless(ctx, o, s, ends, inner, &seen)
}

func newEnd(wire *conn.Network, outer, inner netip.Addr, text string) (*end, error) {
	h, err := wire.Host(outer)
	if err != nil {
		return nil, err
	}
	sockets, err := h.Listen(conn.Options{})
	if err != nil {
		return nil, err
	}
	e := &end{}
	if e.host, err = netstack.New([]netip.Addr{inner}, 1400); err != nil {
		return nil, err
	}
	e.plane, err = userspace.New(userspace.Config{Tun: e.host, Conn: sockets, IKE: func(p *conn.Packet) {
		if p.Kind != conn.IKE {
			return // a keepalive has done its work by passing the NAT
		}
		e.gw.Datagram(ike.Datagram{Local: p.Local, Remote: p.Remote, Data: p.Buf})
	}})
	if err != nil {
		return nil, err
	}
	daemon, err := config.LoadDaemon("")
	if err != nil {
		return nil, err
	}
	root, err := conf.ParseBytes("demo.conf", []byte(text))
	if err != nil {
		return nil, err
	}
	m, err := config.Decode(root, daemon)
	if err != nil {
		return nil, err
	}
	e.gw, err = gateway.New(gateway.Options{Daemon: daemon, Dataplane: e.plane, Transport: gateway.Sockets{Conn: sockets},
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Versions: []ike.Version{ikev2.Version}, ForceEncap: true})
	if err != nil {
		return nil, err
	}
	e.gw.Start()
	if err := e.plane.Start(); err != nil {
		return nil, err
	}
	if err := e.gw.Load(m); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *end) close() {
	e.gw.Shutdown()
	_ = e.plane.Close()
}

// observer sits between the gateways.
type observer struct {
	mu    sync.Mutex
	last  []byte
	esp   atomic.Uint64
	clear atomic.Uint64
	flips atomic.Int64
}

func (w *observer) packet(d conn.Datagram) {
	if bytes.Contains(d.Payload, []byte(marker)) {
		w.clear.Add(1)
	}
	if _, ok := espOf(d); ok {
		w.esp.Add(1)
		w.mu.Lock()
		w.last = append(w.last[:0], d.Payload...)
		w.mu.Unlock()
	}
}

func (w *observer) flip(d *conn.Datagram) bool {
	if _, ok := espOf(*d); ok && w.flips.Add(-1) >= 0 {
		d.Payload[len(d.Payload)-20] ^= 1
	}
	return true
}

func espOf(d conn.Datagram) ([]byte, bool) {
	if d.Raw {
		return d.Payload, true
	}
	kind, body, ok := conn.Demux(d.Payload, d.Dst.Port() == conn.PortNATT)
	return body, ok && kind == conn.ESP
}

func showRootless(ctx context.Context, o Options, s *screen, ends [2]*end, inner [2]netip.Addr, seen *observer) error {
	s.title("Ping from host to host, and what an observer between the gateways sees")
	ping := func() (time.Duration, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return ends[0].host.Ping(ctx, inner[1], 56)
	}
	rtt, err := ping()
	if err != nil {
		return fmt.Errorf("ping through the tunnel: %w", err)
	}
	seen.mu.Lock()
	packet := append([]byte(nil), seen.last...)
	seen.mu.Unlock()
	s.say("round trip %v; the observer saw %d ESP packets, the last one begins", rtt.Round(time.Microsecond), seen.esp.Load())
	for _, line := range dump(packet, 6) {
		s.say("  %s", line)
	}
	s.title("A TCP transfer through the tunnel")
	total := int64(64 << 20)
	if o.Quick {
		total = 2 << 20
	}
	n, took, err := transferRootless(ctx, s, ends, inner, total)
	if err != nil {
		return err
	}
	s.say("%d bytes arrived, %s", n, rate(n, took))
	if seen.clear.Load() != 0 {
		return errors.New("the observer saw clear text")
	}
	s.say("the observer saw %q nowhere", marker)
	s.title("New keys, then a bit flipped on the wire")
	if n, err := ends[0].gw.Rekey(ctx, ike.Rekey{Child: "net"}); err != nil || n != 1 {
		return fmt.Errorf("rekey of %d Child SAs: %w", n, err)
	}
	for range 20 {
		if _, err := ping(); err != nil {
			return fmt.Errorf("ping during the rekey: %w", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	seen.flips.Store(1)
	if _, err := ping(); err == nil {
		return errors.New("a changed packet was accepted")
	}
	c := ends[1].plane.Counters()
	s.say("20 pings during the rekey came back; the one with a flipped bit did not: %d dropped for its integrity check", c.Drops(userspace.InAuth))
	return nil
}

func transferRootless(ctx context.Context, s *screen, ends [2]*end, inner [2]netip.Addr, total int64) (int64, time.Duration, error) {
	ln, err := ends[1].host.Listen(netip.AddrPortFrom(inner[1], 5001))
	if err != nil {
		return 0, 0, err
	}
	defer ln.Close()
	received := make(chan int64, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			received <- 0
			return
		}
		defer c.Close()
		n, _ := io.Copy(io.Discard, io.LimitReader(c, total))
		_, _ = c.Write([]byte{1})
		received <- n
	}()
	c, err := ends[0].host.Dial(ctx, "tcp", netip.AddrPortFrom(inner[1], 5001))
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	block := make([]byte, 64<<10)
	copy(block, marker)
	start, shown := time.Now(), time.Time{}
	for sent := int64(0); sent < total; {
		n, err := c.Write(block)
		if err != nil {
			return sent, time.Since(start), err
		}
		sent += int64(n)
		if time.Since(shown) > 100*time.Millisecond {
			shown = time.Now()
			s.bar(sent, total, start)
		}
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	took := time.Since(start)
	s.bar(total, total, start)
	fmt.Fprintln(s.out)
	return <-received, took, err
}
