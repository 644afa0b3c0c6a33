package tun_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"adit/tun"
	"adit/tun/ring"
)

// TestRingSeen: a capture that makes the device promiscuous sees all, and it all arrives.
// When it ends, the ring is used again.
func TestRingSeen(t *testing.T) {
	withRing(t, func(l *ringLab) {
		for range 2 {
			l.warm(ring.UDP)
			l.warm(ring.TCP)
			index := l.link("adit0").Attrs().Index
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(tunHtons(unix.ETH_P_ALL)))
			l.must(err)
			l.must(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: tunHtons(unix.ETH_P_ALL), Ifindex: index}))
			l.must(unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}))
			seenBy(t, l.dev, true, "a capture")
			buf := make([]byte, 2000)
			for n := range 600 { // more than switch the ring on
				p := l.packet(false, []ring.Class{ring.UDP, ring.TCP}[n%2], 300, nil)
				l.put(p)
				byRing := l.expect("captured", forwarded(p))
				l.empty()
				if n == 0 { // it wakes the reader, which finds the capture
					_, _ = unix.Read(fd, buf)
					continue
				}
				if byRing {
					t.Fatalf("packet %d comes by the ring", n)
				}
				if k, _ := unix.Read(fd, buf); k < 0 || !bytes.Equal(buf[:k], forwarded(p)) {
					t.Fatalf("packet %d isn't captured: %d bytes", n, k)
				}
			}
			unix.Close(fd)
			seenBy(t, l.dev, false, "no capture")
		}
		// What an operator sets by hand counts as well.
		link := l.link("adit0")
		l.warm(ring.UDP)
		l.must(netlink.SetPromiscOn(link))
		seenBy(t, l.dev, true, "an operator")
		l.empty()
		p := l.packet(false, ring.UDP, 300, nil)
		l.put(p)
		if l.expect("promiscuous", forwarded(p)) {
			t.Error("the ring is used by a promiscuous device")
		}
		l.must(netlink.SetPromiscOff(link))
		seenBy(t, l.dev, false, "no operator")
		l.empty()
		l.warm(ring.UDP)
	})
}

// TestRingFull: what nobody reads is lost when the ring is full, and counted; then all
// goes on, by Read as well.
func TestRingFull(t *testing.T) {
	withRing(t, func(l *ringLab) {
		l.warm(ring.UDP)
		const more = 2000
		room := tun.RingSize / (1536 + 8) // a record and its header
		sent := 0
		first := l.packet(false, ring.UDP, 1500, nil)
		for n := range room + more {
			p := bytes.Clone(first)
			p[40], p[41] = byte(n>>8), byte(n)
			l.put(summed(p))
			sent++
		}
		other := l.packet(false, ring.TCP, 300, nil)
		l.put(other)
		full := l.dev.Stats().RingFull
		if full < more-2 || full > more+2 {
			t.Errorf("%d packets of %d had no room", full, more)
		}
		bufs, sizes := buffers(7, 2000)
		next, rest := 0, sent-int(full)+1
		for rest > 0 {
			n, err := l.dev.Read(bufs, sizes, 0)
			l.must(err)
			for i := range n {
				p := bufs[i][:sizes[i]]
				if ofKernel(p) {
					continue
				}
				rest--
				if p[9] == 6 {
					if !bytes.Equal(p, forwarded(other)) {
						t.Errorf("another class: %x", p)
					}
					continue
				}
				if number := int(p[40])<<8 | int(p[41]); number != next {
					t.Fatalf("packet %d comes where %d should", number, next)
				}
				next++
			}
		}
		l.empty()
		for range 300 {
			p := l.packet(false, ring.UDP, 1000, nil)
			l.put(p)
			if !l.expect("after a full ring", forwarded(p)) {
				t.Fatal("the ring is no longer used")
			}
		}
		if n := l.dev.Stats().RingFull; n != full {
			t.Errorf("%d more are lost", n-full)
		}
	})
}

// TestRingRead: the blocking call is woken by either way, and by Close while packets pour in.
func TestRingRead(t *testing.T) {
	for range 5 {
		withRing(t, func(l *ringLab) {
			l.warm(ring.UDP)
			type packet struct {
				b   []byte
				err error
			}
			came := make(chan packet, 10_000)
			go func() {
				defer close(came)
				bufs, sizes := buffers(8, 2000)
				for {
					n, err := l.dev.Read(bufs, sizes, 0)
					for i := range n {
						if ofKernel(bufs[i]) {
							continue
						}
						came <- packet{b: bytes.Clone(bufs[i][:sizes[i]])}
					}
					if err != nil {
						came <- packet{err: err}
						return
					}
				}
			}()
			for n := range 200 {
				p := l.packet(false, []ring.Class{ring.UDP, 0}[n%5/4], 300, nil)
				time.Sleep(time.Duration(l.rng.IntN(100)) * time.Microsecond)
				l.put(p)
				select {
				case got := <-came:
					if !bytes.Equal(got.b, forwarded(p)) {
						t.Fatalf("%x came, want %x: %v", got.b, p, got.err)
					}
				case <-time.After(2 * time.Second):
					t.Fatalf("packet %d doesn't wake Read", n)
				}
			}
			pour := append(l.header(0, 0, 0, 0, false), l.packet(false, ring.UDP, 1000, nil)...)
			ended := make(chan error, 1)
			for n := range 2000 {
				if n == 1000 {
					go func() { ended <- l.dev.Close() }()
				}
				_, _ = unix.Write(l.raw, pour) // the route goes with the device
			}
			select {
			case err := <-ended:
				l.must(err)
			case <-time.After(5 * time.Second):
				t.Fatal("Close hangs")
			}
			for got := range came {
				if got.err != nil && !errors.Is(got.err, tun.ErrClosed) {
					t.Errorf("Read: %v", got.err)
				}
			}
		})
	}
}
