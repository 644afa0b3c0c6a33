package hostnet_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"adit/internal/hostnet"
)

// The tests' agent: this test binary, run again inside a network namespace (a
// namespace belongs to a thread, so it is entered by a process of its own). It
// takes requests as JSON lines on stdin and answers on stdout.

func TestMain(m *testing.M) {
	if os.Getenv("HOSTNET_AGENT") != "" {
		runAgent()
		return
	}
	os.Exit(m.Run())
}

type request struct {
	Op      string
	Options hostnet.Options
	State   hostnet.State
	Remove  []string
	Device  string
	MTU     int
	Prefix  netip.Prefix
	Packets []packet
	Count   int
}

type answer struct {
	Err      string
	Running  bool // ErrAlreadyRunning
	Whole    bool // ErrWhole
	Seen     []packet
	Counters map[string]hostnet.PolicyCount
	Lines    []string
	Events   []hostnet.Event
	Took     time.Duration // CPU time, user and system
	Work     uint64        // allocations: how much was done, whatever the machine's load
}

// packet is a test packet: what to send, or what was seen.
type packet struct {
	Proto    uint8
	Src, Dst netip.AddrPort // ICMP: type<<8|code in both ports
	Mark     uint32         // of the sending socket
	Spoof    bool           // send by a raw socket with this very source
	Fragment uint16         // offset in 8-byte units of a later fragment (raw)
	MF       bool
	Payload  []byte // raw ICMP: behind type and code
}

func (p packet) String() string {
	s := fmt.Sprintf("%d %v>%v", p.Proto, p.Src, p.Dst)
	if p.Fragment != 0 {
		s += fmt.Sprintf("+%d", p.Fragment)
	}
	return s
}

type agentState struct {
	net    *hostnet.Net
	mu     sync.Mutex
	seen   []packet
	tun    *os.File
	events <-chan hostnet.Event
	cancel context.CancelFunc
}

func runAgent() {
	a := &agentState{}
	in := bufio.NewReader(os.Stdin)
	dec, enc := json.NewDecoder(in), json.NewEncoder(os.Stdout)
	for {
		var q request
		if dec.Decode(&q) != nil {
			return
		}
		var r answer
		start, work := cpuTime(), mallocs()
		if err := a.handle(&q, &r); err != nil {
			r.Err = err.Error()
			r.Running, r.Whole = errors.Is(err, hostnet.ErrAlreadyRunning), errors.Is(err, hostnet.ErrWhole)
		}
		if q.Op != "flood" {
			r.Took, r.Work = cpuTime()-start, mallocs()-work
		}
		enc.Encode(&r)
	}
}

func cpuTime() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

func (a *agentState) handle(q *request, r *answer) (err error) {
	switch q.Op {
	case "new":
		a.net, err = hostnet.New(q.Options)
	case "apply":
		err = a.net.Apply(q.State)
	case "change":
		err = a.net.Change(q.State.Policies, q.Remove)
	case "refresh":
		err = a.net.Refresh()
	case "close":
		err = a.net.Close()
	case "abandon":
		a.net.Abandon()
	case "counters":
		r.Counters, err = a.net.Counters()
	case "diagnose":
		r.Lines = a.net.Diagnose()
	case "setup":
		err = a.net.SetupDevice(q.Device, q.MTU)
	case "addaddr":
		err = a.net.AddAddress(q.Device, q.Prefix)
	case "deladdr":
		err = a.net.DelAddress(q.Device, q.Prefix)
	case "watch":
		var ctx context.Context
		ctx, a.cancel = context.WithCancel(context.Background())
		a.events, err = a.net.Watch(ctx, true)
	case "events":
		a.collect(r)
	case "unwatch":
		a.cancel()
		for range a.events {
		}
	case "tun":
		err = a.openTUN(q.Device)
		if err == nil {
			go a.readTUN()
		}
	case "deaf": // a TUN device that nobody reads
		err = a.openTUN(q.Device)
	case "flood":
		r.Took, err = flood(q.Packets[0], q.Count)
		return err
	case "closetun":
		err = a.tun.Close()
	case "sniff":
		err = a.sniff(q.Device)
	case "seen":
		a.mu.Lock()
		r.Seen = append([]packet(nil), a.seen...)
		a.mu.Unlock()
	case "forget":
		a.mu.Lock()
		a.seen = nil
		a.mu.Unlock()
	case "send":
		for _, p := range q.Packets {
			if e := p.send(); e != nil {
				err = e
			}
		}
	case "inject":
		for _, p := range q.Packets {
			if _, err = a.tun.Write(p.bytes()); err != nil {
				return err
			}
		}
	default:
		err = fmt.Errorf("no such request: %s", q.Op)
	}
	return err
}

func (a *agentState) collect(r *answer) {
	for {
		calm := time.After(500 * time.Millisecond)
		select {
		case ev := <-a.events:
			r.Events = append(r.Events, ev)
		case <-calm:
			return
		}
	}
}

func (a *agentState) note(b []byte) {
	if p, ok := parsePacket(b); ok {
		a.mu.Lock()
		a.seen = append(a.seen, p)
		a.mu.Unlock()
	}
}

func (a *agentState) openTUN(name string) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return err
	}
	unix.SetNonblock(fd, true)
	a.tun = os.NewFile(uintptr(fd), "tun")
	return nil
}

func (a *agentState) readTUN() {
	b := make([]byte, 70000)
	for {
		n, err := a.tun.Read(b)
		if err != nil {
			return
		}
		a.note(b[:n])
	}
}

func (a *agentState) sniff(device string) error {
	ifi, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifi.Index}); err != nil {
		return err
	}
	go func() {
		b := make([]byte, 70000)
		for {
			n, from, err := unix.Recvfrom(fd, b, 0)
			if err != nil {
				return
			}
			if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype != unix.PACKET_OUTGOING {
				a.note(b[:n])
			}
		}
	}()
	return nil
}

func parsePacket(b []byte) (packet, bool) {
	var p packet
	var src, dst netip.Addr
	var th []byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		p.Proto = b[9]
		src, _ = netip.AddrFromSlice(b[12:16])
		dst, _ = netip.AddrFromSlice(b[16:20])
		p.Fragment = binary.BigEndian.Uint16(b[6:]) & 0x1fff
		th = b[int(b[0]&15)*4:]
	case len(b) >= 40 && b[0]>>4 == 6:
		p.Proto = b[6]
		src, _ = netip.AddrFromSlice(b[8:24])
		dst, _ = netip.AddrFromSlice(b[24:40])
		th = b[40:]
		if p.Proto == 44 && len(th) >= 8 {
			p.Proto = th[0]
			p.Fragment = binary.BigEndian.Uint16(th[2:]) >> 3
			th = th[8:]
		}
	default:
		return p, false
	}
	var sp, dp uint16
	if p.Fragment == 0 && len(th) >= 4 {
		sp, dp = binary.BigEndian.Uint16(th), binary.BigEndian.Uint16(th[2:])
		if p.Proto == 1 || p.Proto == 58 {
			dp = sp
		}
	}
	p.Src, p.Dst = netip.AddrPortFrom(src, sp), netip.AddrPortFrom(dst, dp)
	return p, true
}

// bytes builds the packet with a payload of 16 bytes.
func (p packet) bytes() []byte {
	var th []byte
	switch {
	case p.Fragment != 0:
		th = make([]byte, 24)
	case p.Proto == 1 || p.Proto == 58:
		th = binary.BigEndian.AppendUint16(nil, p.Src.Port())
		th = append(th, make([]byte, 6)...)
		th = append(th, append(p.Payload, make([]byte, 16)...)...)
	case p.Proto == 6:
		th = make([]byte, 20)
		binary.BigEndian.PutUint16(th, p.Src.Port())
		binary.BigEndian.PutUint16(th[2:], p.Dst.Port())
		th[12], th[13] = 5<<4, 2
	default:
		th = binary.BigEndian.AppendUint16(nil, p.Src.Port())
		th = binary.BigEndian.AppendUint16(th, p.Dst.Port())
		th = append(th, 0, 24, 0, 0)
		th = append(th, make([]byte, 16)...)
	}
	if p.Src.Addr().Is4() {
		h := make([]byte, 20, 20+len(th))
		h[0], h[8], h[9] = 0x45, 64, p.Proto
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(th)))
		binary.BigEndian.PutUint16(h[4:], 77)
		flags := p.Fragment
		if p.MF {
			flags |= 0x2000
		}
		binary.BigEndian.PutUint16(h[6:], flags)
		copy(h[12:], p.Src.Addr().AsSlice())
		copy(h[16:], p.Dst.Addr().AsSlice())
		binary.BigEndian.PutUint16(h[10:], ^sum(h))
		return append(h, th...)
	}
	h := make([]byte, 40)
	next := p.Proto
	if p.Fragment != 0 || p.MF {
		f := []byte{p.Proto, 0, 0, 0, 0, 0, 0, 77}
		off := p.Fragment << 3
		if p.MF {
			off |= 1
		}
		binary.BigEndian.PutUint16(f[2:], off)
		th, next = append(f, th...), 44
	}
	h[0], h[6], h[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(h[4:], uint16(len(th)))
	copy(h[8:], p.Src.Addr().AsSlice())
	copy(h[24:], p.Dst.Addr().AsSlice())
	return append(h, th...)
}

func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// send sends the packet from here, by a socket of its protocol or a raw one. A
// refusal by a filter or for lack of a route is an outcome like others.
func (p packet) send() error {
	af, level := unix.AF_INET, unix.IPPROTO_IP
	if p.Dst.Addr().Is6() {
		af, level = unix.AF_INET6, unix.IPPROTO_IPV6
	}
	addr := func(ap netip.AddrPort) unix.Sockaddr {
		if af == unix.AF_INET6 {
			return &unix.SockaddrInet6{Addr: ap.Addr().As16(), Port: int(ap.Port())}
		}
		return &unix.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}
	}
	var fd int
	var err error
	switch {
	case p.Spoof:
		if fd, err = unix.Socket(af, unix.SOCK_RAW, unix.IPPROTO_RAW); err == nil && af == unix.AF_INET6 {
			err = unix.SetsockoptInt(fd, level, 36, 1) // IPV6_HDRINCL
		}
	case p.Proto == 6:
		fd, err = unix.Socket(af, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	case p.Proto == 17:
		fd, err = unix.Socket(af, unix.SOCK_DGRAM, 0)
	default:
		fd, err = unix.Socket(af, unix.SOCK_RAW, int(p.Proto))
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if p.Mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(p.Mark)); err != nil {
			return err
		}
	}
	if p.Spoof {
		to := addr(netip.AddrPortFrom(p.Dst.Addr(), 0))
		return harmless(unix.Sendto(fd, p.bytes(), 0, to))
	}
	if p.Src.IsValid() && (p.Src.Port() != 0 || !p.Src.Addr().IsUnspecified()) {
		src := p.Src
		if p.Proto != 6 && p.Proto != 17 {
			src = netip.AddrPortFrom(src.Addr(), 0)
		}
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		if err := unix.Bind(fd, addr(src)); err != nil {
			return fmt.Errorf("bind %v: %w", p.Src, err)
		}
	}
	if p.Proto == 6 {
		return harmless(unix.Connect(fd, addr(p.Dst)))
	}
	b := make([]byte, 24)
	dst := p.Dst
	if p.Proto == 1 || p.Proto == 58 {
		binary.BigEndian.PutUint16(b, p.Dst.Port())
	}
	if p.Proto != 17 {
		dst = netip.AddrPortFrom(dst.Addr(), 0)
	}
	return harmless(unix.Sendto(fd, b, 0, addr(dst)))
}

func harmless(err error) error {
	for _, e := range []syscall.Errno{unix.EPERM, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINPROGRESS, unix.EACCES} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}
