package traffic

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// pingSize is the payload of a round trip, in octets.
const pingSize = 64

// Echo answers in the background until the process ends.
func (s *service) Echo(at netip.AddrPort, _ *bool) error {
	fd, err := socket(at, netip.AddrPort{})
	if err != nil {
		return err
	}
	onThread(func() {
		defer unix.Close(fd)
		pin()
		b := make([]byte, MaxDatagram)
		for {
			n, from, err := unix.Recvfrom(fd, b, 0)
			switch {
			case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNREFUSED):
				continue
			case err != nil:
				return
			}
			_ = unix.Sendto(fd, b[:n], 0, from)
		}
	})
	return nil
}

// Ping asks on a thread of its own and waits for it.
func (s *service) Ping(p Ping, out *Pongs) error {
	if err := errors.Join(checkDuration("pinging", p.For), checkDuration("a pause", p.Pause)); err != nil {
		return err
	}
	fd, err := socket(netip.AddrPort{}, p.To)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	second := unix.NsecToTimeval(int64(time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &second); err != nil {
		return err
	}
	done := make(chan error, 1)
	onThread(func() {
		pin()
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0)
		done <- ping(fd, p, out)
	})
	return <-done
}

func ping(fd int, p Ping, out *Pongs) error {
	b, got := make([]byte, pingSize), make([]byte, MaxDatagram)
	out.Times = make([]int64, 0, 4096)
	end := monotonic() + int64(p.For)
	for n := byte(1); len(out.Times) < maxPongs; n++ {
		start := monotonic()
		if start >= end {
			break
		}
		b[0] = n
		if _, err := unix.Write(fd, b); err != nil && !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EINTR) {
			return err
		}
		took, err := answer(fd, got, n, start)
		if err != nil {
			return err
		}
		if took < 0 {
			out.Lost++
		} else {
			out.Times = append(out.Times, took)
		}
		if p.Pause > 0 {
			sleepUntil(monotonic() + int64(p.Pause))
		}
	}
	return nil
}

// answer waits for the datagram's echo; below 0: none came. Late echoes of earlier ones
// are passed over.
func answer(fd int, b []byte, n byte, start int64) (int64, error) {
	for {
		k, err := unix.Read(fd, b)
		now := monotonic()
		switch {
		case err == nil && k == pingSize && b[0] == n:
			return now - start, nil
		case errors.Is(err, unix.EAGAIN) || now-start > int64(time.Second):
			return -1, nil
		case err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNREFUSED):
			return 0, err
		}
	}
}

// pin keeps the calling thread on the first core that it may run on: both ends of a
// round trip on the same one, which is awake when the answer comes. To wake an idle core
// of a virtual machine takes tens of microseconds, which are the machine's and neither
// end's. Gateways wake as they do.
func pin() {
	var may, one unix.CPUSet
	if unix.SchedGetaffinity(0, &may) != nil {
		return
	}
	for cpu := range 8 * len(may) * 8 {
		if may.IsSet(cpu) {
			one.Set(cpu)
			_ = unix.SchedSetaffinity(0, &one) // without it all goes on, less evenly
			return
		}
	}
}
