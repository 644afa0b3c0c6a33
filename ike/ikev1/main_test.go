package ikev1_test

import (
	"testing"
	"time"

	"adit/ike"
	"adit/suite"
)

// TestRFC2409_5_MainMode sets up phase 1 and one quick mode by shared keys and by
// signatures, with and without PFS and a NAT, and closes it from either side.
func TestRFC2409_5_MainMode(t *testing.T) {
	for _, c := range []struct {
		name, keys, esp, proposals string
		encap                      ike.EncapPolicy
		aggressive                 bool
	}{
		{"psk", "", "aes128gcm16-x25519", "aes128-sha256-x25519", ike.EncapNo, false},
		{"psk_no_pfs", "", "aes256-sha256", "aes256-sha1-modp1024", ike.EncapNo, false},
		{"psk_long_key", "", "aes256-sha1", "aes256-sha512-ecp256", ike.EncapNo, false},
		{"psk_encap", "", "aes128ctr-sha384-ecp256", "aes192-sha384-ecp256", ike.EncapYes, false},
		{"rsa", "rsa", "aes128gcm16", "aes128-sha256-x25519", ike.EncapNo, false},
		{"ecdsa", "ecdsa", "aes128gcm16", "aes128-sha1-x25519", ike.EncapYes, false},
		{"ecdsa384", "ecdsa384", "aes128gcm16", "aes128-sha256-x25519", ike.EncapNo, false},
		{"ecdsa521", "ecdsa521", "aes128gcm16", "aes128-sha256-x25519", ike.EncapNo, false},
		{"aggressive_psk", "", "aes128gcm16-x25519", "aes128-sha256-modp2048", ike.EncapNo, true},
		{"aggressive_psk_encap", "", "aes128gcm16-x25519", "aes128-sha256-x25519", ike.EncapYes, true},
		{"aggressive_rsa", "rsa", "aes128gcm16", "aes128-sha256-x25519", ike.EncapYes, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, func(a, b *side) {
				for _, s := range []*side{a, b} {
					s.child.Proposals = mustProposals(t, suite.ESP, c.esp)
					s.peer.Proposals = mustProposals(t, suite.IKE, c.proposals)
					s.peer.Encap, s.peer.Aggressive = c.encap, c.aggressive
					s.config.AggressivePSK = true
					if c.keys != "" {
						s.peer.Local[0].Method, s.peer.Remote[0].Method = ike.AuthPubkey, ike.AuthPubkey
					}
				}
			})
			if c.keys != "" {
				introduce(p.a, p.b, "a.example.org", newKey(t, c.keys))
				introduce(p.b, p.a, "b.example.org", newKey(t, c.keys))
			}
			p.a.initiate("net")
			p.run(time.Second)
			if t.Failed() || len(p.a.e.SAs()) != 1 {
				t.Fatal(p.a.trace(), p.b.trace())
			}
			p.up()
			if got := p.a.e.SAs()[0].Remote.Port(); (got == 4500) != (c.encap == ike.EncapYes) {
				t.Errorf("the peer's port is %d", got)
			}
			p.b.do(ike.Terminate{IKE: "b"})
			p.run(time.Second)
			p.down()
		})
	}
}

// TestPhase1AnewAsRekey: the time of a new phase 1 is listed as that of the option it comes from.
func TestPhase1AnewAsRekey(t *testing.T) {
	for _, reauth := range []bool{false, true} {
		p := newPair(t, func(a, b *side) {
			for _, s := range []*side{a, b} {
				s.peer.RekeyTime, s.peer.ReauthTime = time.Hour, 0
				if reauth {
					s.peer.RekeyTime, s.peer.ReauthTime = 0, time.Hour
				}
			}
		})
		p.a.initiate("net")
		p.run(time.Second)
		p.up()
		for _, h := range []*host{p.a, p.b} {
			if sa := h.e.SAs()[0]; sa.RekeyAt.IsZero() != reauth || sa.ReauthAt.IsZero() == reauth {
				t.Errorf("reauth %v: %s: rekey at %v, reauth at %v", reauth, h.name, sa.RekeyAt, sa.ReauthAt)
			}
		}
	}
}
