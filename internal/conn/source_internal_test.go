package conn

import (
	"testing"

	"golang.org/x/sys/unix"
)

// prefer_temporary_addrs: what the kernel is asked for when it chooses a source (RFC 5014).
func TestTemporaryAddresses(t *testing.T) {
	for _, temporary := range []bool{false, true} {
		c, err := Listen(Options{AnyPort: true, NoRaw: true, TemporaryAddrs: temporary})
		if err != nil {
			t.Fatal(err)
		}
		fd := c.(*linuxConn).probe[family(true)]
		if fd < 0 {
			t.Skip("no IPv6")
		}
		got, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_ADDR_PREFERENCES)
		if err != nil || temporary != (got&preferTemporary != 0) || temporary == (got&preferPublic != 0) {
			t.Errorf("temporary %v: preferences %#x, %v", temporary, got, err)
		}
		c.Close()
	}
}
