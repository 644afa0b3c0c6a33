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
	users  *people // that the initiators are, or nil

	parallel, begun, up int
	failed              error
}

func newStorm(l *lab.Lab, auth string, c *credentials, n, parallel int) (*storm, error) {
	if err := addSources(l); err != nil {
		return nil, err
	}
	return openStorm(l, auth, c, n, parallel)
}

// bareStorm is a storm without initiators.
func bareStorm(c *credentials, r ike.Retransmit) *storm {
	return &storm{creds: c, in: make(chan ike.Datagram, received), quit: make(chan struct{}),
		engine: ike.New(ike.Config{KeepAlive: -1, Retransmit: r, HalfOpenTimeout: time.Minute}, ikev2.Version)}
}

// openStorm is newStorm where the addresses are there already.
func openStorm(l *lab.Lab, auth string, c *credentials, n, parallel int) (*storm, error) {
	s := bareStorm(c, ike.Retransmit{Timeout: 2 * time.Second, Tries: 6})
	s.parallel, s.socks = parallel, map[netip.AddrPort]*net.UDPConn{}
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
	if s.users != nil {
		s.users.close()
	}
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
		if !s.received(local, from, buf[:n]) {
			return
		}
	}
}

// received feeds one datagram, unless it is a keepalive or ESP; false: the storm is over.
func (s *storm) received(local, from netip.AddrPort, b []byte) bool {
	if local.Port() == 4500 {
		if len(b) < 4 || [4]byte(b) != [4]byte{} {
			return true
		}
		b = b[4:]
	}
	select {
	case s.in <- ike.Datagram{Local: local, Remote: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), Data: slices.Clone(b)}:
		return true
	case <-s.quit:
		return false
	}
}

func (s *storm) send(d ike.Datagram) {
	b := d.Data
	if d.Local.Port() == 4500 && len(b) > 1 {
		b = append(make([]byte, 4, 4+len(b)), b...)
	}
	if s.users != nil {
		s.users.send(d.Local, d.Remote, b)
		return
	}
	c := s.socks[d.Local]
	if c == nil {
		s.fail(fmt.Errorf("nothing is open at %v", d.Local))
		return
	}
	_, _ = c.WriteToUDPAddrPort(b, d.Remote) // what is lost is repeated
}

func (s *storm) fail(err error) {
	if s.failed == nil {
		s.failed = err
	}
}

// due is how many set-ups are to have begun by now, and when more will be; zero: when
// one of those has ended.
func (s *storm) due(now time.Time) (int, time.Time) {
	if s.users != nil {
		return s.users.due(now, s.begun)
	}
	return min(s.up+s.parallel, len(s.peers)), time.Time{}
}

// over reports whether every set-up has come to its end.
func (s *storm) over() bool {
	ended := s.up
	if s.users != nil {
		ended += s.users.left
	}
	return ended >= len(s.peers) || s.failed != nil
}

// run makes all set-ups, a bounded number at a time or each at its time.
func (s *storm) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !s.over() {
		due, next := s.due(time.Now())
		for s.begun < due && s.failed == nil {
			s.begun++
			s.engine.Do(time.Now(), ike.Initiate{ID: ike.CommandID(s.begun), Peer: s.peers[s.begun-1], Child: "net"})
			s.drain()
		}
		if at := s.engine.NextWake(); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
		if !next.IsZero() {
			timer.Reset(time.Until(next))
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
		if s.users != nil {
			s.users.install(e)
		}
		done(e.Job, nil, nil)
	case ike.QueryChild:
		done(e.Job, ike.ChildStats{}, nil)
	case ike.Compute:
		done(e.Job, e.Run(), nil)
	case ike.Ask:
		v, err := s.answer(e.Question)
		done(e.Job, v, err)
	case ike.EndEAP:
		if s.users != nil {
			s.users.endEAP(e.Session)
		}
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
	case ike.EAPRound:
		return s.users.round(s, q)
	case ike.AssumeAddresses:
		return nil, nil
	}
	return nil, fmt.Errorf("nobody answers %T", q)
}

func (s *storm) event(e ike.Event) {
	switch e := e.(type) {
	case ike.CommandDone:
		if s.users != nil {
			s.users.ended(s, int(e.ID)-1, e.Err)
			return
		}
		if e.Err != nil {
			s.fail(fmt.Errorf("set-up %d failed: %w", e.ID, e.Err))
			return
		}
		s.up++
	case ike.IKEDown:
		if s.users != nil {
			s.users.down(e.SA.Name, e.Reason)
			return
		}
		s.fail(fmt.Errorf("an IKE SA went down again: %s", e.Reason))
	case ike.ChildDown:
		if s.users != nil {
			return // its IKE SA goes, too, or the Child SA is missed later
		}
		s.fail(fmt.Errorf("a Child SA went down again: %s", e.Reason))
	case ike.Bug:
		s.fail(fmt.Errorf("bug in the initiator: %s\n%s", e.Value, e.Stack))
	}
}
