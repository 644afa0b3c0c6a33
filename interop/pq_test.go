package interop_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// newer is strongSwan 6.1, which has RFC 9370 and ML-KEM.
const newer kind = "strongSwan 6.1"

func withNewer() []pair {
	return []pair{{adit, newer}, {newer, adit}}
}

// ake lists the additional key exchanges of an IKE SA or Child SA as both daemons list them.
func ake(fields map[string]string) string {
	var list []string
	for n := 1; n <= 7; n++ {
		if s := fields[fmt.Sprint("ake", n)]; s != "" {
			list = append(list, s)
		}
	}
	return strings.Join(list, " ")
}

// The tunnel with one and with two additional key exchanges, in fragments and whole;
// IKE SA and Child SA are rekeyed by either end (RFC 9370).
func TestAdditionalKeyExchanges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, ike, esp, want, charon string }{
		{"one", "aes256gcm16-prfsha384-x25519-ke1_mlkem768", "aes256gcm16-x25519-ke1_mlkem768", "ML_KEM_768", ""},
		{"two", "aes256gcm16-prfsha384-ecp384-ke1_mlkem1024-ke2_mlkem512", "aes256gcm16-ecp384-ke1_mlkem512-ke2_x25519", "ML_KEM_1024 ML_KEM_512", "fragment_size = 600\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			among(t, withNewer(), settings{middle: lab.Bridge, charon: c.charon, strongSwan: "delete_rekeyed_delay = 1\n"}, func(t *testing.T, p *path) {
				left, right := p.ends(false)
				left.ike, right.ike, left.esp, right.esp = c.ike, c.ike, c.esp, c.esp
				p.load(left, right)
				p.up()
				p.facts["ake"] = ake(p.sas(p.left)[0].Fields)
				for _, g := range []peer.Gateway{p.left, p.right} {
					if got := ake(p.sas(g)[0].Fields); got != c.want {
						t.Errorf("%s lists %q", g.Name(), got)
					}
				}
				p.pings(false)
				for _, g := range []peer.Gateway{p.left, p.right} {
					p.rekeysBoth(g, c.want)
					p.pings(false)
				}
			})
		})
	}
}

// rekeysBoth has an end rekey the Child SA, then the IKE SA.
func (p *path) rekeysBoth(g peer.Gateway, want string) {
	p.t.Helper()
	before := p.sas(g)[0]
	if err := g.RekeyChild("net"); err != nil {
		p.t.Fatal(err)
	}
	for _, end := range []peer.Gateway{p.left, p.right} {
		p.wait("a new Child SA, and it alone", end, func(s []peer.SA) bool {
			c := peer.Installed(s, "net")
			return len(s) == 1 && len(c) == 1 && len(s[0].Children) == 1 && c[0].SPIIn != before.Children[0].SPIIn && c[0].SPIOut != before.Children[0].SPIIn && ake(c[0].Fields) != ""
		})
	}
	if err := g.RekeyIKE("gw"); err != nil {
		p.t.Fatal(err)
	}
	for _, end := range []peer.Gateway{p.left, p.right} {
		s := p.wait("a new IKE SA, and it alone", end, func(s []peer.SA) bool {
			return len(s) == 1 && s[0].State == "ESTABLISHED" && s[0].InitiatorSPI != before.InitiatorSPI && len(peer.Installed(s, "net")) == 1
		})
		if got := ake(s[0].Fields); got != want {
			p.t.Errorf("%s lists %q after the rekey", end.Name(), got)
		}
	}
}

// A peer that offers ML-KEM first meets one that has none: both go on without.
func TestPostQuantumPreferred(t *testing.T) {
	t.Parallel()
	among(t, []pair{{adit, strongSwan}, {newer, adit}}, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		left.ike, right.ike = "default", "default"
		p.load(left, right)
		begin := time.Now()
		p.up()
		p.facts["ake"] = ake(p.sas(p.left)[0].Fields)
		if time.Since(begin) > 5*time.Second {
			t.Error("it took a second attempt")
		}
		p.pings(false)
	})
}

// A PPK goes into the keys (RFC 8784), mandatory, and optional with a responder that
// has none.
func TestPPK(t *testing.T) {
	t.Parallel()
	among(t, []pair{{adit, strongSwan}, {strongSwan, adit}, {newer, adit}, {adit, adit}}, settings{middle: lab.Bridge, strongSwan: "delete_rekeyed_delay = 1\n"}, func(t *testing.T, p *path) {
		const secret = "ppk-1 {\nid-1 = carol\nsecret = 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n}\n"
		left, right := p.ends(false)
		left.extra, right.extra = "ppk_id = carol\nppk_required = yes\n", "ppk_id = carol\nppk_required = yes\n"
		left.secrets, right.secrets = secret, secret
		if strings.HasPrefix(p.left.Name(), "strongSwan 6") {
			left.ike, right.ike = "aes256gcm16-prfsha384-x25519-ke1_mlkem768", "aes256gcm16-prfsha384-x25519-ke1_mlkem768"
		}
		p.load(left, right)
		p.up()
		p.mixes("yes")
		p.pings(false)
		before := p.sas(p.left)[0]
		if err := p.right.RekeyIKE("gw"); err != nil {
			t.Fatal(err)
		}
		p.wait("a new IKE SA", p.left, func(s []peer.SA) bool {
			return len(s) == 1 && s[0].State == "ESTABLISHED" && s[0].InitiatorSPI != before.InitiatorSPI
		})
		if err := p.left.RekeyChild("net"); err != nil {
			t.Fatal(err)
		}
		p.wait("a new Child SA", p.right, func(s []peer.SA) bool {
			c := peer.Installed(s, "net")
			return len(c) == 1 && c[0].SPIOut != before.Children[0].SPIIn
		})
		p.pings(false)
		if err := p.left.Terminate("gw"); err != nil {
			t.Fatal(err)
		}
		p.wait("the end of the SA", p.right, func(s []peer.SA) bool { return len(s) == 0 })

		left.extra, right.extra, right.secrets = "ppk_id = carol\n", "", ""
		p.load(left, right)
		p.up()
		p.mixes("")
		p.pings(false)
	})
}

// mixes checks what both ends say of a PPK in the keys.
func (p *path) mixes(want string) {
	p.t.Helper()
	for _, g := range []peer.Gateway{p.left, p.right} {
		if got := p.sas(g)[0].Fields["ppk"]; got != want {
			p.t.Errorf("%s lists ppk = %q", g.Name(), got)
		}
	}
}
