//go:build linux

package tun_test

import (
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"adit/tun"
)

// BenchmarkTCPBetweenTUNs sends one TCP stream of the kernel through two TUN
// devices in two namespaces, with nothing but copying between: the most that a
// gateway in this process could do.
func BenchmarkTCPBetweenTUNs(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("network namespaces need root")
	}
	for _, name := range []string{"all", "noCoalesce", "none"} {
		b.Run(name, func(b *testing.B) { stream(b, offloads[name]) })
	}
}

// elsewhere runs f on a thread in a new namespace, as inNamespace does.
func elsewhere(b *testing.B, f func()) {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

func stream(b *testing.B, opts tun.Options) {
	opts.MTU = 1400
	var devs [2]*tun.Linux
	var l net.Listener
	var c net.Conn
	var wg sync.WaitGroup
	elsewhere(b, func() {
		var err error
		if devs[1], err = tun.CreateTUN("", opts); err != nil {
			b.Error(err)
			return
		}
		address(b, devs[1].Name(), "10.99.0.2/24")
		if l, err = net.Listen("tcp", "10.99.0.2:80"); err != nil {
			b.Error(err)
		}
	})
	elsewhere(b, func() {
		var err error
		if devs[0], err = tun.CreateTUN("", opts); err != nil {
			b.Error(err)
			return
		}
		address(b, devs[0].Name(), "10.99.0.1/24")
		var big [2]int
		wg.Add(2)
		go pump(&wg, devs[0], devs[1], &big[0])
		go pump(&wg, devs[1], devs[0], &big[1])
		if c, err = net.Dial("tcp", "10.99.0.2:80"); err != nil {
			b.Error(err)
		}
	})
	if b.Failed() {
		return
	}
	done := make(chan int64)
	go func() {
		s, err := l.Accept()
		if err != nil {
			done <- 0
			return
		}
		defer s.Close()
		n, _ := io.Copy(io.Discard, s)
		done <- n
	}()
	chunk := payload(1 << 20)
	b.SetBytes(int64(len(chunk)))
	b.ResetTimer()
	for range b.N {
		if _, err := c.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	c.Close()
	if n := <-done; n != int64(b.N)<<20 {
		b.Errorf("%d bytes of %d", n, int64(b.N)<<20)
	}
	b.StopTimer()
	l.Close()
	devs[0].Close()
	devs[1].Close()
	wg.Wait()
}

// BenchmarkSplitJoin is the work in user space alone: a superpacket of 46
// segments cut, checked and joined again.
func BenchmarkSplitJoin(b *testing.B) {
	f := flow{payload: payload(46 * 1348)}
	super := f.super(b, 1348, 0)
	b.SetBytes(int64(len(super)))
	for range b.N {
		packets, err := tun.Split(super, 1500)
		if err != nil {
			b.Fatal(err)
		}
		if n := len(tun.Joined(packets, true, true)); n != 1 {
			b.Fatal(n)
		}
	}
}
