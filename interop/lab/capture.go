package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of a capture: it counts everything, but keeps only so much.
const (
	maxKeptPackets = 20000
	maxKeptOctets  = 2048
)

// Counts are what a capture has seen since it began.
type Counts struct {
	Total  uint64
	Clear  uint64 // packets that show an address of the watched prefixes
	By     [numClasses]uint64
	Missed uint64 // packets that the kernel had no room for; non-zero spoils any proof of absence
}

// ESP is the number of ESP packets, raw and in UDP.
func (c Counts) ESP() uint64 { return c.By[ClassESP] + c.By[ClassUDPESP] }

// Capture listens on one interface of one node. A packet is "clear" if an address
// of the watched prefixes is in its IP header, in an IP packet that it carries
// openly, or in the packet that an ICMP error quotes.
type Capture struct {
	file  *os.File
	watch []netip.Prefix
	done  chan struct{}

	mu     sync.Mutex
	counts Counts
	kept   []keptPacket
	stop   bool
}

type keptPacket struct {
	Packet
	at time.Time
}

// Capture begins to capture on an interface. Without prefixes it watches those of
// both inner networks. Close ends it if Stop did not.
func (l *Lab) Capture(node, iface string, watch ...netip.Prefix) (*Capture, error) {
	if len(watch) == 0 {
		watch = l.InnerPrefixes()
	}
	fd, err := packetSocket(l.NS(node), iface, unix.SOCK_DGRAM)
	if err != nil {
		return nil, fmt.Errorf("capturing on %s of %s: %w", iface, node, err)
	}
	c := &Capture{file: os.NewFile(uintptr(fd), "capture"), watch: watch, done: make(chan struct{})}
	go c.read()
	l.onClose(func() { c.Stop() })
	return c, nil
}

// CaptureOutside captures between the gateways: in the middle where there is one
// (with a NAT, on the side of the right gateway), else at the left gateway.
func (l *Lab) CaptureOutside() (*Capture, error) {
	switch l.opt.Middle {
	case Direct:
		return l.Capture(Left, Wan)
	case NAT:
		return l.Capture(Wire, Right)
	}
	return l.Capture(Wire, Left)
}

// packetSocket opens a non-blocking AF_PACKET socket for everything on iface.
func packetSocket(ns, iface string, kind int) (fd int, err error) {
	err = InNS(ns, func() error {
		ifi, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		// Bound with its protocol, it receives nothing of other interfaces before.
		fd, err = unix.Socket(unix.AF_PACKET, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: ifi.Index}))
		if err != nil {
			unix.Close(fd)
		}
		return err
	})
	return fd, err
}

func htons(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

func (c *Capture) read() {
	defer close(c.done)
	raw, err := c.file.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 1<<16)
	for {
		var n int
		var from unix.Sockaddr
		var rerr error
		err := raw.Read(func(fd uintptr) bool {
			// MSG_TRUNC: the true length, also of what buf does not hold.
			n, from, rerr = unix.Recvfrom(int(fd), buf, unix.MSG_TRUNC)
			return rerr != unix.EAGAIN
		})
		if err != nil || rerr != nil && rerr != unix.EINTR && rerr != unix.ENETDOWN {
			return
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && rerr == nil {
			c.add(buf[:min(n, len(buf))], n, ll.Pkttype == unix.PACKET_OUTGOING)
		}
	}
}

func (c *Capture) add(b []byte, n int, outgoing bool) {
	p := Packet{Bytes: b, Len: n, Outgoing: outgoing}
	parsePacket(&p, c.watch)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.Total++
	c.counts.By[p.Class]++
	if p.Clear {
		c.counts.Clear++
	}
	if len(c.kept) < maxKeptPackets {
		p.Bytes = bytes.Clone(b[:min(len(b), maxKeptOctets)])
		c.kept = append(c.kept, keptPacket{p, time.Now()})
	}
}

// Counts are the counters of now; what the kernel still queues isn't in them.
func (c *Capture) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts
}

// Stop ends the capture after all that the kernel has queued was read, and returns
// the final counts. It may be called again.
func (c *Capture) Stop() Counts {
	c.mu.Lock()
	again := c.stop
	c.stop = true
	c.mu.Unlock()
	if !again {
		c.file.SetReadDeadline(time.Now()) // wakes a waiting reader, which then drains
		<-c.done
		c.drain()
	}
	return c.Counts()
}

// drain reads the rest without waiting, asks for the misses and closes.
func (c *Capture) drain() {
	defer c.file.Close()
	raw, err := c.file.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := unix.Recvfrom(int(fd), buf, unix.MSG_TRUNC)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				break
			}
			if ll, ok := from.(*unix.SockaddrLinklayer); ok {
				c.add(buf[:min(n, len(buf))], n, ll.Pkttype == unix.PACKET_OUTGOING)
			}
		}
		if st, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			c.mu.Lock()
			c.counts.Missed += uint64(st.Drops)
			c.mu.Unlock()
		}
	})
}

// Packets are the packets kept so far (the first 20,000), each cut to 2,048
// octets. complete is false if there were more.
func (c *Capture) Packets() (ps []Packet, complete bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.kept {
		ps = append(ps, k.Packet)
	}
	return ps, uint64(len(ps)) == c.counts.Total
}

// Count is the number of kept packets for which match says true.
func (c *Capture) Count(match func(*Packet) bool) int {
	ps, _ := c.Packets()
	n := 0
	for i := range ps {
		if match(&ps[i]) {
			n++
		}
	}
	return n
}

// Contains is the number of kept packets that hold the pattern anywhere: a marker
// from a cleartext payload, for instance.
func (c *Capture) Contains(pattern []byte) int {
	return c.Count(func(p *Packet) bool { return bytes.Contains(p.Bytes, pattern) })
}

// WritePcap writes the kept IP packets to a file that tcpdump and Wireshark read
// (link type "raw IP").
func (c *Capture) WritePcap(path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xa1b2c3d4)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...)
	b = le.AppendUint32(b, 1<<16)
	b = le.AppendUint32(b, 101) // LINKTYPE_RAW
	for _, k := range c.kept {
		if !k.Src.IsValid() {
			continue
		}
		b = le.AppendUint32(b, uint32(k.at.Unix()))
		b = le.AppendUint32(b, uint32(k.at.Nanosecond()/1000))
		b = le.AppendUint32(b, uint32(len(k.Bytes)))
		b = le.AppendUint32(b, uint32(k.Len))
		b = append(b, k.Bytes...)
	}
	return os.WriteFile(path, b, 0o600)
}

// Inject sends one IP packet out of an interface as if that node had made it,
// past its routing and firewall, to the Ethernet address dst: the attacker's way
// to bring a clear packet with an inner address to a gateway.
func (l *Lab) Inject(node, iface string, dst net.HardwareAddr, packet []byte) error {
	if len(packet) == 0 || len(dst) != 6 {
		return errors.New("lab: Inject needs a packet and an Ethernet address")
	}
	return InNS(l.NS(node), func() error {
		ifi, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		proto := uint16(unix.ETH_P_IP)
		if packet[0]>>4 == 6 {
			proto = unix.ETH_P_IPV6
		}
		to := &unix.SockaddrLinklayer{Protocol: htons(proto), Ifindex: ifi.Index, Halen: 6}
		copy(to.Addr[:], dst)
		return unix.Sendto(fd, packet, 0, to)
	})
}

// MAC is the Ethernet address of a node's interface.
func (l *Lab) MAC(node, iface string) (mac net.HardwareAddr, err error) {
	err = InNS(l.NS(node), func() error {
		ifi, err := net.InterfaceByName(iface)
		if err == nil {
			mac = ifi.HardwareAddr
		}
		return err
	})
	return mac, err
}
