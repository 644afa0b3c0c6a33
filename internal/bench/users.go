package bench

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"adit/eap"
	"adit/ike"
	"adit/interop/lab"
	"adit/ipsec"
	"adit/suite"
)

// people are the users of a storm: each with a name, a password, an outer address of its
// own, and the wish for an inner one. They come at their times, and those who are sent
// away stay away.
type people struct {
	spread time.Duration // in which all come
	start  time.Time
	list   []user
	byAddr map[netip.Addr]int // by outer address
	byName map[string]int     // by name of the connection
	eap    map[uint64]eap.Session
	socks  map[uint16]*net.UDPConn // by port
	left   int                     // who did not come in
	lost   int                     // who came in and was put out again
	why    map[string]int
}

// user is one of them.
type user struct {
	begun, took time.Duration
	up          bool
	in, out     ipsec.SAParams
}

// real is how clients repeat messages: strongSwan's defaults (retransmit_timeout 4 s,
// retransmit_base 1.8, retransmit_tries 5). Windows and Apple's begin sooner.
var real = ike.Retransmit{Timeout: 4 * time.Second, Base: 1.8, Tries: 5}

// crowdOuter is where users come from, each with an address of its own (RFC 2544's
// network for benchmarks), and crowdPool where their inner addresses are.
const (
	crowdOuter = "198.18.0.0/15"
	crowdPool  = "10.100.0.0/15"
)

// outer is the i-th user's address.
func outer(i int) netip.Addr {
	i++
	return netip.AddrFrom4([4]byte{198, byte(18 + i>>16), byte(i >> 8), byte(i)})
}

// ntHash is the i-th user's secret: that of a password, as files of users have it.
func (c *credentials) ntHash(i int) suite.Key {
	return eap.NTHash([]byte(hex.EncodeToString(c.psk[:8]) + initiatorName(i)))
}

// newUsers prepares a storm of users in a lab.
func newUsers(l *lab.Lab, c *credentials, n int, spread time.Duration) (*storm, error) {
	u := &people{spread: spread, list: make([]user, n), byAddr: map[netip.Addr]int{}, byName: map[string]int{}, eap: map[uint64]eap.Session{},
		socks: map[uint16]*net.UDPConn{}, why: map[string]int{}}
	s := bareStorm(c, real)
	s.users = u
	if err := u.settle(l); err != nil {
		s.close()
		return nil, err
	}
	for port, conn := range u.socks {
		s.wg.Go(func() { u.read(s, port, conn) })
	}
	ikeSuite, err1 := suite.ParseProposals(suite.IKE, []string{suites["eap"].ike})
	espSuite, err2 := suite.ParseProposals(suite.ESP, []string{suites["eap"].esp})
	gateway, err3 := ike.ParseIdentity(gatewayID)
	if err := firstError(err1, err2, err3); err != nil {
		s.close()
		return nil, err
	}
	s.engine.Do(time.Now(), ike.Trust{Authorities: [][20]byte{c.authority()}})
	to := []ike.AddrSpec{{From: l.R.Wan4, To: l.R.Wan4}}
	child := &ike.Child{Name: "net", Proposals: espSuite, ReplayWindow: 32, Policies: true,
		Local: []ipsec.Selector{ipsec.Dynamic()}, Remote: []ipsec.Selector{prefixSelector(l.R.Inner4)}}
	for i := range n {
		id, err := initiatorID(i)
		if err != nil {
			s.close()
			return nil, err
		}
		from, name := outer(i), initiatorName(i)
		u.byAddr[from], u.byName[name] = i, i
		s.peers = append(s.peers, &ike.Peer{Name: name, Version: 2, LocalAddrs: []ike.AddrSpec{{From: from, To: from}}, RemoteAddrs: to,
			Proposals: ikeSuite, KeyingTries: 1, GiveUp: true, SendCertReq: true, VIPs: []netip.Addr{netip.IPv4Unspecified()},
			Local:    []ike.AuthRound{{Method: ike.AuthEAP, EAP: ike.EAPMSCHAPv2, ID: id, EAPID: id}},
			Remote:   []ike.AuthRound{{Method: ike.AuthPubkey, ID: gateway}},
			Children: []*ike.Child{child}})
	}
	return s, nil
}

// settle gives the left gateway's namespace all addresses of users, and opens a socket
// for each port of all of them.
func (u *people) settle(l *lab.Lab) error {
	for node, cmd := range map[string][]string{
		lab.Left:  {"ip", "route", "add", "local", crowdOuter, "dev", "lo"},
		lab.Right: {"ip", "route", "add", crowdOuter, "via", l.L.Wan4.String()},
	} {
		if out, err := l.Exec(5*time.Second, node, cmd...); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return lab.InNS(l.NS(lab.Left), func() error {
		for _, port := range []uint16{500, 4500} {
			cfg := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
				return cmp.Or(c.Control(func(fd uintptr) {
					_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
					err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
				}), err)
			}}
			p, err := cfg.ListenPacket(context.Background(), "udp4", fmt.Sprintf("0.0.0.0:%d", port))
			if err != nil {
				return err
			}
			u.socks[port] = p.(*net.UDPConn)
		}
		return nil
	})
}

// read feeds what comes to one port; IP_PKTINFO tells whom it is for (ip(7)).
func (u *people) read(s *storm, port uint16, c *net.UDPConn) {
	buf, oob := make([]byte, 65536), make([]byte, 64)
	const destination = unix.SizeofCmsghdr + 8 // ipi_addr of struct in_pktinfo
	for {
		n, m, _, from, err := c.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			return
		}
		if m < destination+4 {
			continue
		}
		to := netip.AddrFrom4([4]byte(oob[destination:]))
		if !s.received(netip.AddrPortFrom(to, port), from, buf[:n]) {
			return
		}
	}
}

// send sends in the name of one user.
func (u *people) send(from, to netip.AddrPort, b []byte) {
	if c := u.socks[from.Port()]; c != nil {
		_, _, _ = c.WriteMsgUDPAddrPort(b, unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from.Addr().As4()}), to) // what is lost is repeated
	}
}

func (u *people) close() {
	for _, c := range u.socks {
		_ = c.Close()
	}
}

// atOnce is how many begin before others are served.
const atOnce = 16

// due is how many are to have begun, and when the next comes.
func (u *people) due(now time.Time, begun int) (int, time.Time) {
	if u.start.IsZero() {
		u.start = now
	}
	n := len(u.list)
	at := func(i int) time.Time { return u.start.Add(u.spread * time.Duration(i) / time.Duration(n)) }
	due := begun
	for due < n && due < begun+atOnce && !at(due).After(now) {
		u.list[due].begun = now.Sub(u.start)
		due++
	}
	if due == n {
		return n, time.Time{}
	}
	return due, at(due)
}

// ended notes how a set-up ended.
func (u *people) ended(s *storm, i int, err error) {
	if err != nil {
		u.left++
		u.why[reasonOf(err)]++
		return
	}
	s.up++
	x := &u.list[i]
	x.up, x.took = true, time.Since(u.start)-x.begun
}

// reasonOf is an error without what differs from user to user.
func reasonOf(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	words := strings.Fields(text)
	words = slices.DeleteFunc(words, func(w string) bool { return strings.Contains(w, ".bench.example") || strings.Contains(w, "198.1") })
	return strings.Join(words, " ")
}

// down notes that a user who had come in is out again.
func (u *people) down(name, reason string) {
	if i, ok := u.byName[name]; ok && u.list[i].up {
		u.list[i].up = false
		u.lost++
		u.why["put out again: "+reason]++
	}
}

// install keeps the keys of a user, for packets.
func (u *people) install(e ike.InstallChild) {
	if i, ok := u.byAddr[e.Out.Local.Addr()]; ok {
		u.list[i].in, u.list[i].out = e.In, e.Out
	}
}

// round is one packet of EAP-MSCHAPv2.
func (u *people) round(s *storm, q ike.EAPRound) (*ike.EAPAnswer, error) {
	session := u.eap[q.Session]
	if session == nil {
		i, ok := u.byName[q.Peer.Name]
		if !ok {
			return nil, fmt.Errorf("no user is called %s", q.Peer.Name)
		}
		var err error
		session, err = eap.NewPeer(eap.PeerConfig{Identity: initiatorName(i), Secret: eap.Secret{NTHash: s.creds.ntHash(i)}, Methods: []eap.Type{eap.TypeMSCHAPv2}})
		if err != nil {
			return nil, err
		}
		u.eap[q.Session] = session
	}
	step, err := session.Next(q.Message)
	a := &ike.EAPAnswer{Message: step.Out, Done: step.Done || err != nil, Success: step.Success && err == nil, Identity: step.Identity}
	if err != nil {
		a.Why = err.Error()
	}
	if a.Success {
		a.MSK, a.Method = step.MSK, step.Method.String()
	}
	return a, nil
}

func (u *people) endEAP(session uint64) {
	if x := u.eap[session]; x != nil {
		x.Close()
		delete(u.eap, session)
	}
}

// times are what set-ups took, sorted.
func (u *people) times() (list []time.Duration) {
	for _, x := range u.list {
		if x.up {
			list = append(list, x.took)
		}
	}
	slices.Sort(list)
	return list
}
