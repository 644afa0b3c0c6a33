package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"adit/ike"
	"adit/ike/ikev2"
	"adit/interop/lab"
	"adit/ipsec"
	"adit/suite"
)

// sources is the number of addresses that the initiators share.
const sources = 8

// received is the room for messages that wait for the initiator's thread.
const received = 4096

// storm is thousands of initiators: one engine with a connection each, without a
// data plane or a host. It runs on the caller's thread; readers feed it.
type storm struct {
	engine *ike.Engine
	creds  *credentials
	peers  []*ike.Peer
	socks  map[netip.AddrPort]*net.UDPConn
	in     chan ike.Datagram
	quit   chan struct{}
	wg     sync.WaitGroup

	parallel, begun, up int
	failed              error
}

func newStorm(l *lab.Lab, auth string, c *credentials, n, parallel int) (*storm, error) {
	if err := addSources(l); err != nil {
		return nil, err
	}
	return openStorm(l, auth, c, n, parallel)
}

// openStorm is newStorm where the addresses are there already.
func openStorm(l *lab.Lab, auth string, c *credentials, n, parallel int) (*storm, error) {
	s := &storm{parallel: parallel, creds: c, socks: map[netip.AddrPort]*net.UDPConn{}, in: make(chan ike.Datagram, received), quit: make(chan struct{})}
	s.engine = ike.New(ike.Config{KeepAlive: -1, Retransmit: ike.Retransmit{Timeout: 2 * time.Second, Tries: 6}, HalfOpenTimeout: time.Minute}, ikev2.Version)
	addrs, err := s.open(l)
	if err != nil {
		s.close()
		return nil, err
	}
	ikeSuite, err1 := suite.ParseProposals(suite.IKE, []string{suites[auth].ike})
	espSuite, err2 := suite.ParseProposals(suite.ESP, []string{suites[auth].esp})
	gateway, err3 := ike.ParseIdentity(gatewayID)
	if err := firstError(err1, err2, err3); err != nil {
		s.close()
		return nil, err
	}
	method := ike.AuthPSK
	if auth == "ecdsa" {
		method = ike.AuthPubkey
		s.engine.Do(time.Now(), ike.Trust{Authorities: [][20]byte{c.authority()}})
	}
	to := []ike.AddrSpec{{From: l.R.Wan4, To: l.R.Wan4}}
	for i := range n {
		id, err := initiatorID(i)
		if err != nil {
			s.close()
			return nil, err
		}
		from := addrs[i%len(addrs)]
		child := &ike.Child{Name: "net", Proposals: espSuite, ReplayWindow: 32, Policies: true,
			Local:  []ipsec.Selector{prefixSelector(netip.PrefixFrom(inner(i), 32))},
			Remote: []ipsec.Selector{prefixSelector(l.R.Inner4)}}
		s.peers = append(s.peers, &ike.Peer{Name: fmt.Sprintf("p%d", i), Version: 2, LocalAddrs: []ike.AddrSpec{{From: from, To: from}}, RemoteAddrs: to,
			Proposals: ikeSuite, KeyingTries: 1, SendCertReq: true,
			Local: []ike.AuthRound{{Method: method, ID: id}}, Remote: []ike.AuthRound{{Method: method, ID: gateway}}, Children: []*ike.Child{child}})
	}
	return s, nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func prefixSelector(p netip.Prefix) ipsec.Selector {
	s, err := ipsec.ParseSelector(p.String())
	if err != nil {
		panic(err) // a prefix of ours always parses
	}
	return s
}

// source is the i-th address of the initiators.
func source(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(16 + i)}) }

// addSources gives the left gateway's namespace the initiators' addresses.
func addSources(l *lab.Lab) error {
	for i := range sources {
		if _, err := l.Exec(5*time.Second, lab.Left, "ip", "addr", "add", source(i).String()+"/24", "dev", lab.Wan); err != nil {
			return err
		}
	}
	return nil
}

// beside lets the initiators' sockets stand beside those of a gateway there, which has
// the same ports on all addresses.
var beside = net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
	return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }), err)
}}

// open opens both ports on each of the initiators' addresses.
func (s *storm) open(l *lab.Lab) (addrs []netip.Addr, err error) {
	for i := range sources {
		addrs = append(addrs, source(i))
	}
	err = lab.InNS(l.NS(lab.Left), func() error {
		for _, a := range addrs {
			for _, port := range []uint16{500, 4500} {
				ap := netip.AddrPortFrom(a, port)
				p, err := beside.ListenPacket(context.Background(), "udp4", ap.String())
				if err != nil {
					return err
				}
				c := p.(*net.UDPConn)
				_ = c.SetReadBuffer(4 << 20)
				s.socks[ap] = c
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for ap, c := range s.socks {
		s.wg.Go(func() { s.read(ap, c) })
	}
	return addrs, nil
}

func (s *storm) close() {
	close(s.quit)
	for _, c := range s.socks {
		_ = c.Close()
	}
	s.wg.Wait()
}

// read feeds what one socket receives; port 4500 has the non-ESP marker (RFC 3948 §2.2).
func (s *storm) read(local netip.AddrPort, c *net.UDPConn) {
	buf := make([]byte, 65536)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		b := buf[:n]
		if local.Port() == 4500 {
			if n < 4 || [4]byte(b) != [4]byte{} {
				continue // a keepalive
			}
			b = b[4:]
		}
		select {
		case s.in <- ike.Datagram{Local: local, Remote: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), Data: slices.Clone(b)}:
		case <-s.quit:
			return
		}
	}
}

func (s *storm) send(d ike.Datagram) {
	c := s.socks[d.Local]
	if c == nil {
		s.fail(fmt.Errorf("nothing is open at %v", d.Local))
		return
	}
	b := d.Data
	if d.Local.Port() == 4500 && len(b) > 1 {
		b = append(make([]byte, 4, 4+len(b)), b...)
	}
	_, _ = c.WriteToUDPAddrPort(b, d.Remote) // what is lost is repeated
}

func (s *storm) fail(err error) {
	if s.failed == nil {
		s.failed = err
	}
}

// run makes all set-ups, a bounded number at a time.
func (s *storm) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for s.up < len(s.peers) && s.failed == nil {
		for s.begun < len(s.peers) && s.begun-s.up < s.parallel && s.failed == nil {
			s.begun++
			s.engine.Do(time.Now(), ike.Initiate{ID: ike.CommandID(s.begun), Peer: s.peers[s.begun-1], Child: "net"})
			s.drain()
		}
		if at := s.engine.NextWake(); !at.IsZero() {
			timer.Reset(time.Until(at))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d set-ups were done: %w", s.up, len(s.peers), ctx.Err())
		case d := <-s.in:
			s.engine.Datagram(time.Now(), d)
		case <-timer.C:
			s.engine.Wake(time.Now())
		}
		s.drain()
	}
	return s.failed
}

// repeated is the number of messages that were sent again.
func (s *storm) repeated() uint64 { return s.engine.Stats().Retransmits }

// drain does what the engine wants done.
func (s *storm) drain() {
	for {
		list := s.engine.Take()
		if len(list) == 0 {
			return
		}
		for _, e := range list {
			s.apply(e)
		}
	}
}

func (s *storm) apply(e ike.Effect) {
	done := func(job ike.JobID, v any, err error) {
		s.engine.Done(time.Now(), ike.Result{Job: job, Value: v, Err: err})
	}
	switch e := e.(type) {
	case ike.Send:
		s.send(e.Datagram)
	case ike.InstallChild:
		done(e.Job, nil, nil)
	case ike.QueryChild:
		done(e.Job, ike.ChildStats{}, nil)
	case ike.Compute:
		done(e.Job, e.Run(), nil)
	case ike.Ask:
		v, err := s.answer(e.Question)
		done(e.Job, v, err)
	case ike.Emit:
		s.event(e.Event)
	}
}

// answer is what the initiators know of the world.
func (s *storm) answer(q ike.Question) (any, error) {
	switch q := q.(type) {
	case ike.PSKLookup:
		return []suite.Key{slices.Clone(s.creds.psk)}, nil
	case ike.SignAuth:
		return s.creds.sign(q)
	case ike.VerifyAuth:
		return s.creds.verify(q)
	}
	return nil, fmt.Errorf("nobody answers %T", q)
}

func (s *storm) event(e ike.Event) {
	switch e := e.(type) {
	case ike.CommandDone:
		if e.Err != nil {
			s.fail(fmt.Errorf("set-up %d failed: %w", e.ID, e.Err))
			return
		}
		s.up++
	case ike.IKEDown:
		s.fail(fmt.Errorf("an IKE SA went down again: %s", e.Reason))
	case ike.ChildDown:
		s.fail(fmt.Errorf("a Child SA went down again: %s", e.Reason))
	case ike.Bug:
		s.fail(fmt.Errorf("bug in the initiator: %s\n%s", e.Value, e.Stack))
	}
}
