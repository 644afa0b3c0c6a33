package bench

import (
	"crypto/rand"
	"fmt"
	"net/netip"

	"adit/ike"
)

const (
	gatewayID = "gateway.bench.example"
	// innerNet has the initiators' inner addresses, each a /32; innerPrefix is how
	// they all begin in print.
	innerNet    = "10.100.0.0/15"
	innerPrefix = "10.10"
)

// credentials are what both sides know of each other.
type credentials struct {
	psk []byte
}

func newCredentials(auth string, n int) (*credentials, error) {
	if auth != "psk" {
		return nil, fmt.Errorf("the initiator has no %s yet", auth)
	}
	c := &credentials{psk: make([]byte, 32)}
	rand.Read(c.psk)
	return c, nil
}

// write puts the gateway's files where its configuration finds them.
func (c *credentials) write(dir string) error { return nil }

// initiatorID is the identity of the i-th initiator: all are distinct.
func initiatorID(i int) (ike.Identity, error) {
	return ike.ParseIdentity(fmt.Sprintf("peer-%05d.bench.example", i))
}

// inner is the inner address of the i-th initiator.
func inner(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(100 + i>>16), byte(i >> 8), byte(i)})
}
