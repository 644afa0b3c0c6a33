package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"adit/esp"
	"adit/interop/lab"
	"adit/ipsec"
)

// PacketCost is what packets of users cost the gateway, as many as it lets pass.
type PacketCost struct {
	Active int  // users that have packets, one after the other
	Down   bool // to the users; else from them
	Passed float64
	Offer  float64 // both a second
	CPU    time.Duration
	Each   time.Duration // of CPU a packet
}

func (p PacketCost) String() string {
	way := "from"
	if p.Down {
		way = "to"
	}
	return fmt.Sprintf("packets %s %d of them in turn: %.0f kpps of %.0f offered, %.2f µs CPU each", way, p.Active, p.Passed/1000, p.Offer/1000, float64(p.Each)/1000)
}

// manyActive is how many users have packets where many do.
const manyActive = 1000

// packetBytes is the payload of a packet, packetPort where they go to (discard).
const (
	packetBytes = 512
	packetPort  = 9
)

// packets sends to one user, and to many in turn, and from them.
func packets(ctx context.Context, l *lab.Lab, pid int, st *storm, length time.Duration) (list []PacketCost, err error) {
	actives := []int{1}
	if len(st.users.list) >= manyActive {
		actives = append(actives, manyActive)
	}
	st.users.close()
	b, err := newBlaster(l, st.users)
	if err != nil {
		return nil, err
	}
	defer b.close()
	for _, down := range []bool{true, false} {
		for _, n := range actives {
			if _, err := b.run(ctx, pid, n, down, length/4); err != nil { // keys are expanded with the first packet
				return nil, err
			}
			p, err := b.run(ctx, pid, n, down, length)
			if err != nil {
				return nil, err
			}
			list = append(list, p)
		}
	}
	return list, nil
}

// blaster has the sockets: that of the host behind the gateway, and that of all users.
type blaster struct {
	l          *lab.Lab
	u          *people
	host, user int
	seal       map[int]*esp.SA
	open       map[int]*esp.SA
}

func newBlaster(l *lab.Lab, u *people) (*blaster, error) {
	b := &blaster{l: l, u: u, host: -1, user: -1, seal: map[int]*esp.SA{}, open: map[int]*esp.SA{}}
	socket := func(node string, fd *int, port int) error {
		return lab.InNS(l.NS(node), func() (err error) {
			if *fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
				return err
			}
			// Nobody reads while packets are sent: they are counted by the kernel.
			return errors.Join(unix.SetsockoptInt(*fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 64<<10),
				unix.SetsockoptInt(*fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1), unix.Bind(*fd, &unix.SockaddrInet4{Port: port}))
		})
	}
	if err := errors.Join(socket(lab.RightHost, &b.host, packetPort), socket(lab.Left, &b.user, 4500)); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *blaster) close() {
	for _, fd := range []int{b.host, b.user} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// vip is a user's inner address.
func (u *people) vip(i int) netip.Addr { return u.list[i].in.LocalTS[0].From }

// sa is a user's SA out of m, made of p.
func sa(m map[int]*esp.SA, i int, p ipsec.SAParams) (*esp.SA, error) {
	if s := m[i]; s != nil {
		return s, nil
	}
	p.EncKey, p.IntegKey = bytes.Clone(p.EncKey), bytes.Clone(p.IntegKey)
	s, err := esp.New(p)
	m[i] = s
	return s, err
}

// run sends for some time and counts what arrives.
func (b *blaster) run(ctx context.Context, pid, active int, down bool, length time.Duration) (PacketCost, error) {
	p := PacketCost{Active: active, Down: down}
	if err := ctx.Err(); err != nil {
		return p, err
	}
	node := lab.RightHost
	if down {
		node = lab.Left
	}
	arrived, _, err := datagrams(b.l.NS(node))
	if err != nil {
		return p, err
	}
	cpu, err := CPUTime(pid)
	if err != nil {
		return p, err
	}
	start := time.Now()
	sent, err := b.send(active, down, length)
	if err != nil {
		return p, err
	}
	took := time.Since(start).Seconds()
	if err := pause(ctx, 50*time.Millisecond); err != nil { // what is on its way
		return p, err
	}
	cpu2, err1 := CPUTime(pid)
	arrived2, _, err2 := datagrams(b.l.NS(node))
	if err := errors.Join(err1, err2, b.look(active, down)); err != nil {
		return p, err
	}
	n := arrived2 - arrived
	if n == 0 {
		return p, fmt.Errorf("no packet of %d arrived", sent)
	}
	p.CPU, p.Passed, p.Offer = cpu2-cpu, float64(n)/took, float64(sent)/took
	p.Each = p.CPU / time.Duration(n)
	return p, nil
}

// send sends as fast as one thread can.
func (b *blaster) send(active int, down bool, length time.Duration) (sent int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if !down {
		return b.sendUp(active, length)
	}
	to := make([]unix.Sockaddr, active)
	for i := range to {
		to[i] = &unix.SockaddrInet4{Port: packetPort, Addr: b.u.vip(i).As4()}
	}
	payload := make([]byte, packetBytes)
	for end := time.Now().Add(length); sent&63 != 0 || time.Now().Before(end); sent++ {
		if err := unix.Sendto(b.host, payload, 0, to[sent%active]); err != nil && !busy(err) {
			return sent, err
		}
	}
	return sent, nil
}

// sendUp seals and sends packets of users to the host behind the gateway.
func (b *blaster) sendUp(active int, length time.Duration) (sent int, err error) {
	type source struct {
		sa    *esp.SA
		inner []byte
		oob   []byte
	}
	list := make([]source, active)
	for i := range list {
		sa, err := sa(b.seal, i, b.u.list[i].out)
		if err != nil {
			return 0, err
		}
		list[i] = source{sa, innerPacket(b.u.vip(i), b.l.R.Host4), unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: outer(i).As4()})}
	}
	to := &unix.SockaddrInet4{Port: 4500, Addr: b.l.R.Wan4.As4()}
	buf := make([]byte, 2048)
	const head = 256
	for end := time.Now().Add(length); sent&63 != 0 || time.Now().Before(end); sent++ {
		s := &list[sent%active]
		p := esp.Packet{Buf: buf, Off: head, Len: copy(buf[head:], s.inner)}
		if err := s.sa.Seal(&p); err != nil {
			return sent, err
		}
		if _, err := unix.SendmsgN(b.user, p.Bytes(), s.oob, to, 0); err != nil && !busy(err) {
			return sent, err
		}
	}
	return sent, nil
}

// innerPacket is a UDP datagram in IPv4, without a checksum of UDP.
func innerPacket(from, to netip.Addr) []byte {
	p := make([]byte, 28+packetBytes)
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], from.AsSlice())
	copy(p[16:], to.AsSlice())
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
	binary.BigEndian.PutUint16(p[20:], packetPort)
	binary.BigEndian.PutUint16(p[22:], packetPort)
	binary.BigEndian.PutUint16(p[24:], 8+packetBytes)
	return p
}

// look empties the receiver's socket, and opens what a user got.
func (b *blaster) look(active int, down bool) error {
	fd := b.host
	if down {
		fd = b.user
	}
	buf, oob := make([]byte, 4096), make([]byte, 64)
	for seen := 0; ; {
		n, m, _, _, err := unix.Recvmsg(fd, buf, oob, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN) && seen > 0:
			return nil
		case errors.Is(err, unix.EAGAIN):
			return errors.New("nothing of what arrived was a packet of ours")
		case err != nil:
			return err
		case !down:
			if n == packetBytes {
				seen++
			}
			continue
		case n < 8 || m < unix.SizeofCmsghdr+12 || [4]byte(buf[:4]) == [4]byte{}:
			continue
		}
		i, ok := b.u.byAddr[netip.AddrFrom4([4]byte(oob[unix.SizeofCmsghdr+8:]))]
		if !ok || i >= active {
			continue
		}
		sa, err := sa(b.open, i, b.u.list[i].in)
		if err != nil {
			return err
		}
		p := esp.Packet{Buf: bytes.Clone(buf), Len: n, Encap: true}
		if err := sa.Open(&p); err != nil {
			return fmt.Errorf("what user %d got cannot be opened: %w", i, err)
		}
		if got := p.Bytes(); len(got) != 28+packetBytes || !bytes.Equal(got[16:20], b.u.vip(i).AsSlice()) {
			return fmt.Errorf("user %d got a packet of %d bytes for %v", i, len(got), got[16:20])
		}
		seen++
	}
}

// busy reports whether a datagram was not sent for a reason that passes.
func busy(err error) bool {
	return errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)
}

// datagrams counts those that came to sockets of a namespace, also those that found no
// room.
func datagrams(ns string) (all, full int, err error) {
	err = lab.InNS(ns, func() error {
		b, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		var names []string
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) == 0 || f[0] != "Udp:" {
				continue
			}
			if names == nil {
				names = f
				continue
			}
			for i, name := range names {
				k, _ := strconv.Atoi(f[i])
				switch name {
				case "RcvbufErrors":
					full += k
					all += k
				case "InDatagrams":
					all += k
				}
			}
		}
		return nil
	})
	return all, full, err
}
