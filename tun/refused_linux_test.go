//go:build linux

package tun_test

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"adit/tun"
)

// TestRefusedTrain: a superpacket that the kernel refuses costs no packet that it would
// have taken singly, and those are what they were before they were joined.
func TestRefusedTrain(t *testing.T) {
	for name, f := range map[string]flow{
		"TCP":  {payload: payload(30000)},
		"UDP":  {udp: true, payload: payload(30000)},
		"TCP6": {v6: true, payload: payload(30000)},
	} {
		inNamespace(t, func() {
			dev, err := tun.CreateTUN("", tun.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			defer dev.Close()
			if o := dev.Offload(); !o.Coalesce || !o.CoalesceUDP {
				t.Skip("the kernel joins nothing")
			}
			want := f.reference(t, 1400)
			var got [][]byte
			dev.OnWrite(func(vectors [][]byte) unix.Errno {
				switch {
				case len(vectors) > 2:
					return unix.ENOMEM
				case len(got) == 3:
					got = append(got, nil)
					return unix.EINVAL
				}
				got = append(got, bytes.Clone(vectors[1]))
				return 0
			})
			n, err := dev.Write(clones(want), 0)
			if n != len(want)-1 || !errors.Is(err, unix.EINVAL) {
				t.Errorf("%s: Write: %d, %v", name, n, err)
			}
			if len(got) != len(want) {
				t.Fatalf("%s: %d packets were written of %d", name, len(got), len(want))
			}
			for i := range want {
				if i != 3 && !bytes.Equal(got[i], want[i]) {
					t.Errorf("%s: packet %d is %x, was %x", name, i, got[i][:60], want[i][:60])
				}
			}
			if s := dev.Stats(); s.WriteApart == 0 || s.WriteRefused != 1 || s.WriteSuper != 0 || s.WritePackets != uint64(n) {
				t.Errorf("%s: %+v", name, s)
			}
		})
	}
}

// TestDownDevice: with the device down everything is refused, at once.
func TestDownDevice(t *testing.T) {
	inNamespace(t, func() {
		dev, err := tun.CreateTUN("", tun.Options{})
		if err != nil {
			t.Error(err)
			return
		}
		defer dev.Close()
		calls := 0
		dev.OnWrite(func([][]byte) unix.Errno { calls++; return unix.EIO })
		want := flow{payload: payload(30000)}.reference(t, 1400)
		if n, err := dev.Write(clones(want), 0); n != 0 || !errors.Is(err, unix.EIO) || calls > 2 {
			t.Errorf("Write: %d, %v, %d calls", n, err, calls)
		}
	})
}

// TestFailedRead: a passing failure to read is no end, a lasting one is.
func TestFailedRead(t *testing.T) {
	inNamespace(t, func() {
		dev, err := tun.CreateTUN("", tun.Options{})
		if err != nil {
			t.Error(err)
			return
		}
		defer dev.Close()
		for range 999 {
			if err := dev.Misread(unix.ENOMEM); err != nil {
				t.Errorf("ENOMEM: %v", err)
				return
			}
		}
		if err := dev.Misread(unix.ENOMEM); !errors.Is(err, unix.ENOMEM) {
			t.Errorf("ENOMEM for the thousandth time: %v", err)
		}
		var s tun.Super
		if ok, err := dev.Take(&s, make([]byte, tun.TakeSize)); ok || err != nil {
			t.Errorf("Take of an empty device: %v, %v", ok, err)
		}
		if err := dev.Misread(unix.ENOMEM); err != nil {
			t.Errorf("ENOMEM after a success: %v", err)
		}
		if err := dev.Misread(unix.EBADFD); !errors.Is(err, unix.EBADFD) {
			t.Errorf("EBADFD: %v", err)
		}
		if n := dev.Stats().ReadFailed; n != 1002 {
			t.Errorf("%d failed reads were counted", n)
		}
	})
}
