package sim

import (
	"math/rand/v2"
	"strings"
)

// ScenarioV1 is Scenario for two gateways that speak IKEv1: main and
// aggressive mode with shared keys or signatures, XAUTH and Mode Config, a network that loses,
// doubles and reorders, perhaps a NAT, rekeys of phase 2 and a phase 1 anew by either side,
// deaths. The first alone initiates.
func ScenarioV1(seed uint64) string {
	s := &scenario{rng: rand.New(rand.NewPCG(seed, 0x2409)), extra: rand.New(rand.NewPCG(seed, 0x3706))}
	s.clean = s.odds(4)
	s.quality()
	s.machines()
	s.configureV1()
	s.add("boot b")
	s.add("run %s", s.seconds(0, 1))
	s.add("boot a")
	s.add("ping 200ms")
	s.add("run %s", s.seconds(2, 10))
	for range 3 + s.rng.IntN(4) {
		s.happensV1()
		s.add("run %s", s.seconds(0, 30))
	}
	s.add("rest 500s site/net")
	s.add("ping off")
	s.add("run 2s")
	return strings.Join(s.lines, "\n") + "\n"
}

func (s *scenario) configureV1() {
	phase1 := s.pick("aes128-sha256-x25519", "aes256-sha384-ecp256", "3des-md5-x25519", "aes256-sha1-ecp384")
	phase2 := s.pick("aes128gcm16", "aes128gcm16-x25519", "aes128-sha256", "3des-md5-ecp256", "aes256-sha512-x25519")
	start := [2]string{"start", "none"}
	subnet := [2]string{"10.1.0.0/16", "10.2.0.0/16"}
	for i, h := range []string{"a", "b"} {
		o := 1 - i
		remote := s.addrs[o]
		if i == 1 && s.nat {
			remote = s.public
		}
		s.add("conn %s site version=1 local=%s remote=%s lid=%s.example rid=%s.example ike=%s tries=0 unique=replace dpd=%s", h, s.addrs[i], remote, h, string("ab"[o]), phase1, s.seconds(6, 20))
		if s.odds(3) {
			s.add("conn %s site reauth=%s over=60s", h, s.seconds(50, 120))
		}
		s.add("child %s site net local=%s remote=%s esp=%s start=%s close=%s dpd=%s", h, subnet[i], subnet[o], phase2, start[i], start[i], start[i])
		// Nobody answers a Delete: where it is lost the old SAs stay until their life ends.
		s.add("child %s site net life=150s", h)
		if i == 0 || s.odds(2) {
			s.add("child %s site net rekey=%s rand=%s", h, s.seconds(12, 60), s.seconds(0, 5))
		}
		s.add("psk %s %s.example %s.example a-shared-key", h, h, string("ab"[o]))
	}
	s.authenticateV1()
}

// authenticateV1 chooses how the two prove themselves, if not by the shared key in main mode,
// and whether the second gives the first an address.
func (s *scenario) authenticateV1() {
	how := s.extra.IntN(7)
	a, b := "", ""
	switch how {
	case 1, 2: // signatures
		a, b = "lauth=pubkey rauth=pubkey", "lauth=pubkey rauth=pubkey"
	case 3, 4, 5: // a key of the group and a password
		a, b = "lauth2=xauth eapid=alice", "rauth2=xauth"
	}
	if a != "" {
		s.add("key a a.example ecdsa b")
		s.add("key b b.example ecdsa a")
		s.add("password a alice a-password")
		s.add("password b alice a-password")
		s.add("conn a site %s", a)
		s.add("conn b site %s", b)
	}
	aggressive := s.extra.IntN(3) == 0
	pull := []string{"yes", "no"}[s.extra.IntN(2)]
	for _, h := range []string{"a", "b"} {
		if aggressive {
			s.add("engine %s aggressive-psk=yes", h)
			s.add("conn %s site aggressive=yes", h)
		}
		if how > 2 {
			s.add("conn %s site pull=%s", h, pull)
		}
	}
	if how > 2 && s.extra.IntN(3) > 0 {
		s.add("pool b pool 10.1.0.0/24")
		s.add("conn a site vips=0.0.0.0")
		s.add("conn b site pools=pool")
		s.add("child a site net local=dynamic remote=10.2.0.0/16")
		s.add("child b site net local=10.2.0.0/16 remote=dynamic")
	}
}

// happensV1 adds one event, or two at once.
func (s *scenario) happensV1() {
	x, y := "a", "b"
	if s.odds(2) {
		x, y = y, x
	}
	switch s.rng.IntN(9) {
	case 0, 1:
		s.fine("200ms", "rekey "+x+" site/net")
	case 2:
		s.fine("200ms", "rekey a site/net", "rekey b site/net")
	case 3:
		s.fine("200ms", "reauth a site")
	case 4:
		s.add("drop %s %s 1 %s", x, y, s.pick("Quick Mode", "Informational"))
		s.fine("200ms", "rekey "+x+" site/net")
	case 5:
		s.add("kill %s", x)
		s.add("run %s", s.seconds(0, 60))
		s.add("boot %s", x)
	case 6:
		s.add("cut a b")
		s.add("run %s", s.seconds(0, 50))
		s.add("heal")
		s.quality()
	case 7:
		if s.nat {
			s.add("rebind a")
		} else {
			s.add("garbage %s 20", x)
		}
	case 8:
		s.add("down b site/net")
		s.add("run %s", s.seconds(0, 5))
		s.add("up a site/net")
	}
}
