package interop_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// Both ends start at once: what remains is one IKE SA with one child.
func TestBothStart(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		left.child, right.child = "start_action = start\n", "start_action = start\n"
		p.load(left, right)
		p.settled()
		p.pings(false)
		p.settled()
	})
}

// initMessage is what a captured IPv4 packet shows of an IKE_SA_INIT message.
type initMessage struct {
	spi      uint64 // of the initiator
	response bool
	cookie   bool // the first payload is N(COOKIE)
}

func initOf(k *lab.Packet) (initMessage, bool) {
	const ike, exchange, flags, next = 28, 18, 19, 16
	b := k.Bytes
	if k.Class != lab.ClassIKE || len(b) < ike+36 || b[0] != 0x45 || k.DstPort != 500 && k.SrcPort != 500 || b[ike+exchange] != 34 {
		return initMessage{}, false
	}
	m := initMessage{spi: binary.BigEndian.Uint64(b[ike:]), response: b[ike+flags]&0x20 != 0}
	m.cookie = b[ike+next] == 41 && binary.BigEndian.Uint16(b[ike+34:]) == 16390
	return m, true
}

// attempts is the number of different IKE SAs that were asked for outside.
func (p *path) attempts() int {
	seen := map[uint64]bool{}
	p.outside.Count(func(k *lab.Packet) bool {
		m, ok := initOf(k)
		if ok && !m.response {
			seen[m.spi] = true
		}
		return ok
	})
	return len(seen)
}

// A responder with a half-open IKE SA demands cookies (RFC 7296 §2.6), and gets
// them. The half-open one is a first message of before, with another SPI.
func TestCookies(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.Bridge, charon: "cookie_threshold = 1\ncookie_threshold_ip = 1\n"}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		p.load(left, right)
		p.up()
		if err := p.left.Terminate("gw"); err != nil {
			t.Fatal(err)
		}
		p.wait("the end of the SA at the peer", p.right, func(s []peer.SA) bool { return len(s) == 0 })
		var first []byte
		p.outside.Count(func(k *lab.Packet) bool {
			if m, ok := initOf(k); ok && !m.response && first == nil {
				first = k.Bytes
			}
			return false
		})
		if first == nil {
			t.Fatal("no IKE_SA_INIT was captured")
		}
		first[28] ^= 0x5a
		first[26], first[27] = 0, 0 // no UDP checksum
		forged := binary.BigEndian.Uint64(first[28:])
		mac, err := p.MAC(lab.Right, lab.Wan)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Inject(lab.Left, lab.Wan, mac, first); err != nil {
			t.Fatal(err)
		}
		if err := lab.Poll(5*time.Second, func() (bool, error) {
			return p.outside.Count(func(k *lab.Packet) bool {
				m, ok := initOf(k)
				return ok && m.response && m.spi == forged && !m.cookie
			}) > 0, nil
		}); err != nil {
			t.Fatalf("the forged message got no answer: %v", err)
		}
		p.freshCapture()
		p.up()
		p.pings(false)
		for _, response := range []bool{true, false} {
			if n := p.outside.Count(func(k *lab.Packet) bool {
				m, ok := initOf(k)
				return ok && m.cookie && m.response == response
			}); n == 0 {
				t.Errorf("no message with a cookie was seen (response: %v)", response)
			}
		}
	})
}

// Reauthentication makes the new IKE SA before it breaks the old one, whichever
// side wants it: nothing is lost.
func TestReauthentication(t *testing.T) {
	t.Parallel()
	for _, side := range []string{"left", "right"} {
		t.Run("by_"+side, func(t *testing.T) {
			across(t, settings{middle: lab.Bridge, charon: "make_before_break = yes\n"}, func(t *testing.T, p *path) {
				left, right := p.ends(false)
				by, g, answers := &left, p.left, p.right
				if side == "right" {
					by, g, answers = &right, p.right, p.left
				}
				// strongSwan, when it answers, sends by the new Child SA before its answer
				// is out: what overtakes it meets an SPI that nobody can know yet.
				early := uint64(0)
				if _, ours := answers.(*peer.AditGateway); !ours {
					early = 2
				}
				by.extra = "reauth_time = 3s\nrand_time = 0s\nover_time = 60s\n"
				p.load(left, right)
				p.up()
				p.pings(false)
				old := p.sas(g)[0]
				flow, err := p.StartFlow(lab.Flow{From: lab.LeftHost, To: lab.RightHost, Src: p.L.Host4, Dst: p.R.Host4, Rate: 300})
				if err != nil {
					t.Fatal(err)
				}
				for _, end := range []peer.Gateway{p.left, p.right} {
					p.wait("a new IKE SA and the end of the old one", end, func(s []peer.SA) bool {
						c := peer.Installed(s, "net")
						return len(s) == 1 && len(c) == 1 && s[0].State == "ESTABLISHED" && s[0].InitiatorSPI != old.InitiatorSPI
					})
				}
				r := flow.Stop()
				p.facts["flow"] = fmt.Sprintf("%d/%d", r.Received, r.Sent)
				if r.Lost() > early || r.Duplicated != 0 {
					t.Errorf("during a reauthentication: %v", r)
				}
			})
		})
	}
}

// A gateway that was killed and begins anew says INITIAL_CONTACT: the other one
// drops what is left (RFC 7296 §2.4).
func TestInitialContact(t *testing.T) {
	t.Parallel()
	for _, side := range []string{"left", "right"} {
		t.Run(side+"_killed", func(t *testing.T) {
			across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
				left, right := p.ends(false)
				p.load(left, right)
				p.up()
				p.pings(false)
				g, text := p.left, left.text(leftID, rightID)
				if side == "right" {
					g, text = p.right, right.text(rightID, leftID)
				}
				g.Kill9()
				if err := g.Start(); err != nil {
					t.Fatal(err)
				}
				if err := g.Load(text); err != nil {
					t.Fatal(err)
				}
				if err := g.Initiate("net"); err != nil {
					t.Fatal(err)
				}
				p.settled()
				p.pings(false)
			})
		})
	}
}

// What a responder does with a second IKE SA of the same identity: it decides by
// `unique`, and INITIAL_CONTACT counts where that says so.
func TestUnique(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		responder, initiator string
		remain               int // IKE SAs at the responder afterwards
		refused              bool
	}{
		{"replace", "never", 1, false},
		{"keep", "never", 1, true},
		{"no", "never", 2, false},
		{"no", "replace", 1, false}, // INITIAL_CONTACT
		{"never", "replace", 2, false},
	} {
		t.Run(c.responder+"_initiator_"+c.initiator, func(t *testing.T) {
			across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
				left, right := p.ends(false)
				// Without MOBIKE: strongSwan's Delete of the old one would wait behind an update
				// of its addresses that the killed peer cannot answer.
				left.extra, right.extra = "mobike = no\nunique = "+c.initiator+"\n", "mobike = no\nunique = "+c.responder+"\n"
				p.load(left, right)
				p.up()
				old := p.sas(p.right)[0].InitiatorSPI
				p.patience = 20 * time.Second // strongSwan 5.9.8 ends the old one after 10 s
				p.left.Kill9()
				if err := p.left.Start(); err != nil {
					t.Fatal(err)
				}
				p.load(left, right)
				refused, remain := c.refused, c.remain
				if c.responder == "keep" && strings.HasPrefix(p.right.Name(), string(strongSwan)) {
					// Peer quirk: strongSwan takes a second IKE SA from the same address for
					// a reauthentication and keeps both.
					refused, remain = false, 2
				}
				err := p.left.Initiate("net")
				if refused != (err != nil) {
					t.Errorf("initiating again: %v", err)
				}
				p.wait(fmt.Sprintf("%d IKE SAs", remain), p.right, func(s []peer.SA) bool {
					s = peer.Established(s, "gw") // without one whose Delete the killed peer can't answer
					kept := slices.ContainsFunc(s, func(sa peer.SA) bool { return sa.InitiatorSPI == old })
					return len(s) == remain && kept == (refused || remain == 2)
				})
				if !refused {
					p.pings(false)
				}
			})
		})
	}
}

// Extended sequence numbers, which strongSwan's kernel-libipsec does not do.
func TestESN(t *testing.T) {
	t.Parallel()
	alone(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		left.esp, right.esp = "aes256gcm16-esn", "aes256gcm16-esn-noesn"
		p.load(left, right)
		p.up()
		p.pings(false)
		for _, g := range []peer.Gateway{p.left, p.right} {
			if c := peer.Installed(p.sas(g), "net"); len(c) != 1 || !c[0].ESN {
				t.Errorf("%+v", c)
			}
		}
		p.rekeyChild(p.right)
		p.pings(false)
		if c := peer.Installed(p.sas(p.left), "net"); len(c) != 1 || !c[0].ESN {
			t.Errorf("after a rekey: %+v", c)
		}
	})
}

// keyingtries: one attempt and no more, or for ever until the peer is there.
func TestKeyingTries(t *testing.T) {
	t.Parallel()
	among(t, led(), settings{middle: lab.Bridge, charon: impatient}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		if err := p.right.Stop(); err != nil {
			t.Fatal(err)
		}
		left.child, left.extra = "start_action = start\n", "keyingtries = 1\n"
		if err := p.left.Load(left.text(leftID, rightID)); err != nil {
			t.Fatal(err)
		}
		if err := lab.Poll(5*time.Second, func() (bool, error) { return p.attempts() == 1, nil }); err != nil {
			t.Fatal("no attempt")
		}
		p.wait("the end of the attempt", p.left, func(s []peer.SA) bool { return len(s) == 0 })
		lab.Poll(time.Second, func() (bool, error) { return p.attempts() > 1, nil })
		if n := p.attempts(); n != 1 {
			t.Errorf("keyingtries = 1 gave %d attempts", n)
		}
		left.extra = "keyingtries = 0\n"
		if err := p.left.Load(left.text(leftID, rightID)); err != nil {
			t.Fatal(err)
		}
		if err := lab.Poll(15*time.Second, func() (bool, error) { return p.attempts() > 3, nil }); err != nil {
			t.Fatalf("keyingtries = 0 gave %d attempts", p.attempts()-1)
		}
		if err := p.right.Start(); err != nil {
			t.Fatal(err)
		}
		if err := p.right.Load(right.text(rightID, leftID)); err != nil {
			t.Fatal(err)
		}
		p.settled()
		p.pings(false)
	})
}

// The first of several remote addresses is dead: the next one is tried.
func TestRemoteAddrs(t *testing.T) {
	t.Parallel()
	among(t, led(), settings{middle: lab.Bridge, charon: impatient}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		left.remote = "192.0.2.77, 2001:db8::77, " + left.remote
		left.local = "%any"
		left.child, left.extra = "start_action = start\n", "keyingtries = 0\n"
		p.patience = 30 * time.Second
		p.load(left, right)
		p.settled()
		p.pings(false)
	})
}

// A name is resolved again after each failure: here it first leads nowhere.
func TestNameResolvedAgain(t *testing.T) {
	t.Parallel()
	among(t, led(), settings{middle: lab.Bridge, charon: impatient}, func(t *testing.T, p *path) {
		// `ip netns exec` shows these files to a process in place of the host's.
		dir := filepath.Join("/etc/netns", p.NS(lab.Left))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		hosts := filepath.Join(dir, "hosts")
		point := func(addr string) {
			t.Helper()
			if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost\n"+addr+" gateway.example.org\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		point("192.0.2.77")
		if err := p.left.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := p.left.Start(); err != nil { // sees the file from now on
			t.Fatal(err)
		}
		left, right := p.ends(false)
		left.remote, left.child, left.extra = "gateway.example.org", "start_action = start\n", "keyingtries = 0\n"
		p.patience = 30 * time.Second
		p.load(left, right)
		p.wait("an attempt at the first address", p.left, func(s []peer.SA) bool {
			return len(s) == 1 && s[0].RemoteHost == "192.0.2.77"
		})
		point(p.R.Wan4.String())
		p.settled()
		p.pings(false)
	})
}

// An end that presents another identity than the other one expects is refused.
func TestWrongIdentity(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"left", "right"} {
		t.Run("expected_"+at, func(t *testing.T) {
			across(t, settings{}, func(t *testing.T, p *path) {
				left, right := p.ends(false)
				wantsOfRight, wantsOfLeft := rightID, "other.example.org"
				if at == "left" {
					wantsOfRight, wantsOfLeft = "other.example.org", leftID
				}
				if err := p.left.Load(left.text(leftID, wantsOfRight)); err != nil {
					t.Fatal(err)
				}
				if err := p.right.Load(right.text(rightID, wantsOfLeft)); err != nil {
					t.Fatal(err)
				}
				err := p.left.Initiate("net")
				if err == nil || !strings.Contains(err.Error()+p.left.Log(), "AUTH_FAILED") && !strings.Contains(err.Error()+p.left.Log(), "AUTHENTICATION_FAILED") {
					t.Errorf("initiating gave %v, want AUTHENTICATION_FAILED", err)
				}
				for _, g := range []peer.Gateway{p.left, p.right} {
					if n := len(peer.Installed(p.sas(g), "net")); n != 0 {
						t.Errorf("%s has %d children", g.Name(), n)
					}
				}
			})
		})
	}
}

// Two connections between the same addresses differ by the peer's identity alone:
// each with its key and its networks.
func TestChosenByIdentity(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		other := right
		other.key, other.localTS, other.remoteTS = "the key of somebody else", "10.77.0.0/24", "10.78.0.0/24"
		text := strings.NewReplacer("gw {", "first {", "ike-1 {", "ike-2 {").Replace(other.text(rightID, "other.example.org")) + right.text(rightID, leftID)
		if err := p.right.Load(text); err != nil {
			t.Fatal(err)
		}
		if err := p.left.Load(left.text(leftID, rightID)); err != nil {
			t.Fatal(err)
		}
		p.up()
		p.pings(false)
		if s := p.sas(p.right); len(s) != 1 || s[0].Name != "gw" || s[0].RemoteID != leftID {
			t.Errorf("the responder chose %+v", s)
		}
	})
}
