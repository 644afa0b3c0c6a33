package interop_test

import (
	"testing"

	"adit/interop/lab"
)

// v1 are both ends with IKEv1.
func (p *path) v1(v6 bool) (left, right conn) {
	left, right = p.ends(v6)
	for _, c := range []*conn{&left, &right} {
		c.version, c.ike, c.esp = "1", "aes256-sha256-modp2048", "aes256-sha256"
	}
	return left, right
}

// Main mode with shared keys and quick mode, with and without PFS.
func TestV1MainModePSK(t *testing.T) {
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.v1(false)
		p.load(left, right)
		p.up()
		p.pings(false)
		left.esp, right.esp = "aes128gcm16-ecp256", "aes128gcm16-ecp256"
		if err := p.left.Terminate("gw"); err != nil {
			t.Fatal(err)
		}
		p.load(left, right)
		p.up()
		p.pings(false)
	})
}
