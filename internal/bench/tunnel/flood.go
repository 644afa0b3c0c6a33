package tunnel

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"

	cost "adit/internal/bench"
	"adit/interop/lab"
)

// garbageRate bounds what a flood sends a second, so that it also is one for gateways on
// the same two cores, and not only for the sender.
const garbageRate = 100_000

// flood sends garbage from forged addresses to the right gateway and looks at its memory:
// ESP of unknown SPIs, raw and in UDP, IKE of random octets and headers, first messages that
// are whole.
func (b *bench) flood(ctx context.Context, s *Sample) error {
	first, err := cost.FirstMessage(b.lab)
	if err != nil {
		return err
	}
	pid := b.run.pids[0] // the right one's, which is started first
	before, err := cost.Resident(pid)
	if err != nil {
		return err
	}
	n, failed := 0, make(chan error, 1)
	go func() {
		failed <- lab.InNS(b.lab.NS(lab.Left), func() (err error) {
			n, err = garbage(ctx, b.lab.R.Wan4.As4(), first, b.o.Length)
			return err
		})
	}()
	most := before
	for len(failed) == 0 {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
		now, err := cost.Resident(pid)
		if err != nil {
			return err
		}
		most = max(most, now)
	}
	if err := <-failed; err != nil {
		return err
	}
	s.Values["kpps"] = float64(n) / b.o.Length.Seconds() / 1e3
	s.Values["before_mb"], s.Values["most_mb"] = float64(before)/1e6, float64(most)/1e6
	return b.lab.WaitPing(lab.LeftHost, b.lab.R.Host4, setupTimeout) // the tunnel stands
}

// garbage sends for a while and returns the number of packets.
func garbage(ctx context.Context, to [4]byte, first []byte, length time.Duration) (n int, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	addr := &unix.SockaddrInet4{Addr: to}
	start := time.Now()
	for time.Since(start) < length && ctx.Err() == nil {
		if n > int(time.Since(start).Seconds()*garbageRate) {
			time.Sleep(200 * time.Microsecond)
			continue
		}
		switch err := unix.Sendto(fd, forged(n, to, first), 0, addr); err {
		case nil, unix.ENOBUFS, unix.EAGAIN, unix.EINTR:
			n++
		default:
			return n, err
		}
	}
	return n, ctx.Err()
}

// forged is the n-th packet of a flood, from an address of anybody's.
func forged(n int, to [4]byte, first []byte) []byte {
	const ipLen, udpLen = 20, 8
	body := make([]byte, 16+rand.IntN(1200))
	for i := 0; i+8 <= len(body); i += 8 {
		binary.BigEndian.PutUint64(body[i:], rand.Uint64())
	}
	port, proto := uint16(4500), uint8(17)
	switch n % 5 {
	case 0: // ESP in UDP
	case 1: // raw ESP
		proto = 50
	case 2: // IKE by its marker
		clear(body[:4])
	case 3:
		port = 500
	case 4: // a first message with an SPI of its own
		port, body = 500, append([]byte(nil), first...)
		binary.BigEndian.PutUint64(body, rand.Uint64())
	}
	head := make([]byte, ipLen, ipLen+udpLen+len(body))
	head[0], head[8], head[9] = 0x45, 64, proto
	binary.BigEndian.PutUint32(head[12:], 0xc0000220+rand.Uint32N(200)) // of the wire's network: answers find no one
	copy(head[16:], to[:])
	if proto == 17 {
		u := binary.BigEndian.AppendUint16(head, uint16(1024+rand.IntN(60000)))
		u = binary.BigEndian.AppendUint16(u, port)
		u = binary.BigEndian.AppendUint16(u, uint16(udpLen+len(body)))
		head = append(u, 0, 0) // no checksum
	}
	return append(head, body...)
}
