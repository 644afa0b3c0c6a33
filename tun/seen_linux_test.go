package tun_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"adit/internal/kernel"
	"adit/tun"
)

// watchedDevice is a device with a ring, in a namespace of its own.
func watchedDevice(t *testing.T, f func(dev *tun.Linux, link netlink.Link)) {
	t.Helper()
	if !kernel.AtLeast(6, 6) {
		t.Skip("the kernel has no tcx")
	}
	inNamespace(t, func() {
		dev, err := tun.CreateTUN("adit0", tun.Options{Ring: true})
		if err != nil {
			t.Error(err)
			return
		}
		defer dev.Close()
		link, err := netlink.LinkByName("adit0")
		if err := dev.RingError(); err != nil {
			t.Error(err)
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		f(dev, link)
	})
}

// seenBy waits until the device knows whether somebody looks.
func seenBy(t *testing.T, dev *tun.Linux, want bool, what string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); dev.Seen() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%s: seen is %v", what, !want)
			return
		}
	}
}

// TestSeen: who wants to see all that leaves by the device is noticed, and that it ends. The
// device is renamed on the way.
func TestSeen(t *testing.T) {
	watchedDevice(t, func(dev *tun.Linux, link netlink.Link) {
		index := link.Attrs().Index
		qdisc := func(parent uint32) netlink.QdiscAttrs {
			return netlink.QdiscAttrs{LinkIndex: index, Parent: parent, Handle: netlink.MakeHandle(1, 0)}
		}
		qdiscs := func(q netlink.Qdisc) (on, off func() error) {
			return func() error { return netlink.QdiscReplace(q) }, func() error { return netlink.QdiscDel(q) }
		}
		capture := -1
		type looker struct {
			what    string
			on, off func() error
		}
		list := []looker{{"a capture", func() (err error) {
			// As tcpdump does: the interface's flags, as others see them, don't tell.
			if capture, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
				return err
			}
			return unix.SetsockoptPacketMreq(capture, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC})
		}, func() error { return unix.Close(capture) }},
			{"an operator", func() error { return netlink.SetPromiscOn(link) }, func() error { return netlink.SetPromiscOff(link) }}}
		on, off := qdiscs(&netlink.GenericQdisc{QdiscAttrs: qdisc(netlink.HANDLE_ROOT), QdiscType: "bfifo"})
		list = append(list, looker{"a qdisc", on, off})
		clsact := qdisc(netlink.HANDLE_CLSACT)
		clsact.Handle = netlink.MakeHandle(0xffff, 0)
		on, off = qdiscs(&netlink.GenericQdisc{QdiscAttrs: clsact, QdiscType: "clsact"})
		list = append(list, looker{"filters", on, off})
		// What hostnet gives the device is nobody's wish to see anything.
		if err := netlink.QdiscReplace(&netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_ROOT}, QdiscType: "noqueue"}); err != nil {
			t.Error(err)
			return
		}
		for _, name := range []string{"adit0", "other"} {
			if err := netlink.LinkSetName(link, name); err != nil {
				t.Error(err)
				return
			}
			for _, l := range list {
				seenBy(t, dev, false, "before "+l.what)
				if err := l.on(); err != nil {
					t.Errorf("%s: %v", l.what, err)
					return
				}
				seenBy(t, dev, true, l.what)
				if err := l.off(); err != nil {
					t.Errorf("%s: %v", l.what, err)
					return
				}
				seenBy(t, dev, false, "after "+l.what)
			}
		}
	})
}

// TestSeenElsewhere: of a device that was moved to another namespace nobody knows who looks.
func TestSeenElsewhere(t *testing.T) {
	watchedDevice(t, func(dev *tun.Linux, link netlink.Link) {
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(home)
		err = unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			t.Error(err)
			return
		}
		other, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(other)
		if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		if err := netlink.LinkSetNsFd(link, other); err != nil {
			t.Error(err)
			return
		}
		seenBy(t, dev, true, "moved")
	})
}

// TestCloseAfterSignals: a signal that interrupts the watching thread doesn't have it wait where
// Close can't wake it.
func TestCloseAfterSignals(t *testing.T) {
	watchedDevice(t, func(dev *tun.Linux, _ netlink.Link) {
		for range 20 {
			tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", os.Getpid()))
			if err != nil {
				t.Error(err)
				return
			}
			for _, task := range tasks {
				if tid, err := strconv.Atoi(task.Name()); err == nil {
					_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
				}
			}
			time.Sleep(time.Millisecond)
		}
		closed := make(chan error, 1)
		go func() { closed <- dev.Close() }()
		select {
		case err := <-closed:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("Close waits for the thread that watches")
		}
	})
}
