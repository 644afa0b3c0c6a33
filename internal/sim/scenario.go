package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// scenario makes up a script.
type scenario struct {
	rng   *rand.Rand
	keeps *rand.Rand // of lasting
	extra *rand.Rand // of what came later, so that old seeds keep their stories
	moves *rand.Rand // of MOBIKE
	roams bool       // a changes its address now and then
	lines []string

	clean  bool // the network does no harm
	calm   bool // nobody dies and nothing is closed
	nat    bool
	trap   bool
	third  bool // a third host has a connection of its own to the second
	both   bool // both sides initiate
	addrs  [2]string
	public string
}

// Scenario is the script of a seed: two gateways, a network of some quality, a
// configuration, a few minutes of events, and at the end the demand that all
// comes to rest with just the SAs that are configured.
func Scenario(seed uint64) string {
	s := &scenario{rng: rand.New(rand.NewPCG(seed, 0x5ce0a110)), extra: rand.New(rand.NewPCG(seed, 0xf7a9)), moves: rand.New(rand.NewPCG(seed, 0x4555)), keeps: rand.New(rand.NewPCG(seed, 0x9867))}
	s.clean = s.rng.IntN(5) < 2
	s.calm = s.rng.IntN(3) == 0
	switch s.rng.IntN(12) {
	case 0:
		s.refusal()
	default:
		s.lives()
	}
	return strings.Join(s.lines, "\n") + "\n"
}

func (s *scenario) add(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func (s *scenario) pick(list ...string) string { return list[s.rng.IntN(len(list))] }
func (s *scenario) odds(n int) bool            { return s.rng.IntN(n) == 0 }
func (s *scenario) seconds(lo, hi int) string {
	return fmt.Sprintf("%d.%03ds", lo+s.rng.IntN(hi-lo+1), s.rng.IntN(1000))
}

// quality chooses what the network does while things happen.
func (s *scenario) quality() {
	if s.clean {
		s.add("net delay=%dms", 1+s.rng.IntN(60))
		s.add("grace %s", map[bool]string{true: "8s", false: "90s"}[s.calm])
		return
	}
	s.add("net delay=%dms jitter=%dms loss=%.2f dup=%.2f reorder=%.2f corrupt=%.2f", 1+s.rng.IntN(60), s.rng.IntN(20),
		float64(s.rng.IntN(20))/100, float64(s.rng.IntN(10))/100, float64(s.rng.IntN(15))/100, float64(s.rng.IntN(5))/100)
	s.add("grace 200s")
}

// machines makes the two hosts, and a NAT before the first perhaps.
func (s *scenario) machines() {
	s.addrs = [2]string{"192.0.2.1", "198.51.100.1"}
	if s.odds(4) {
		s.addrs = [2]string{"2001:db8:1::1", "2001:db8:2::1"}
	}
	s.public = s.addrs[0]
	s.nat = s.odds(4)
	if s.nat {
		s.addrs[0] = "10.9.0.2"
		s.addrs[1] = "198.51.100.1"
		s.public = "192.0.2.1"
	}
	s.add("host a %s", s.addrs[0])
	s.add("host b %s", s.addrs[1])
	if s.nat {
		s.add("nat a %s%s", s.public, s.pick("", " preserve"))
	}
	for _, h := range []string{"a", "b"} {
		s.add("engine %s retransmit=1s,1.6,5 retry=%ds half-open=20s", h, 2+s.rng.IntN(4))
		if s.odds(3) {
			s.add("engine %s cookies=1", h)
		}
		if s.odds(4) {
			s.add("engine %s encap=yes", h)
		}
		if s.odds(3) {
			s.add("spread %s %dms", h, s.rng.IntN(80))
		}
		if s.odds(4) {
			s.add("delay %s compute %dms", h, s.rng.IntN(300))
		}
		if s.odds(6) {
			s.add("delay %s install-answer %dms", h, s.rng.IntN(100))
		}
	}
}

// configure writes connections and children. Whoever initiates does so for ever.
func (s *scenario) configure() {
	ike := []string{"aes128gcm16-prfsha256-x25519", "aes256gcm16-prfsha384-ecp384", "aes128-sha256-ecp256", "chacha20poly1305-prfsha512-x25519", "aes128ccm12-prfsha256-ecp256", "aes256ctr-sha384-x25519"}
	esp := []string{"aes128gcm16", "aes128gcm16-x25519", "chacha20poly1305-ecp256", "aes128-sha256", "aes256gcm16-esn", "aes128gcm16-x25519,aes128gcm16", "aes256-sha512-x25519-esn"}
	pi, pe := s.pick(ike...), s.pick(esp...)
	ie := [2]string{pi, pi}
	ee := [2]string{pe, pe}
	if s.odds(4) { // the first guess is wrong
		ie = [2]string{"aes128gcm16-prfsha256-ecp256-x25519", "aes128gcm16-prfsha256-x25519"}
		ee = [2]string{"aes128gcm16-ecp256-x25519", "aes128gcm16-x25519"}
	}
	s.trap = s.odds(5)
	s.third = s.odds(6)
	s.both = !s.nat && s.odds(3)
	start := [2]string{"start", "none"}
	if s.trap {
		start[0] = "trap"
	}
	if s.both {
		start[1] = s.pick("start", "trap")
	}
	dpd := [2]string{"start", "none"}
	if s.both {
		dpd[1] = "start"
	}
	if s.trap {
		dpd[0] = "none"
	}
	tries := [2]int{0, 0}
	unique := s.pick("no", "no", "replace", "never", "keep")
	transport := !s.nat && s.odds(6)
	for i, h := range []string{"a", "b"} {
		o := 1 - i
		remote := s.addrs[o]
		if i == 1 && s.nat {
			remote = s.pick(s.public, "%any")
		}
		if i == 0 && s.odds(6) { // by a name, whose first address leads nowhere
			s.add("name a gateway.example %s%s", s.pick("", "203.0.113.77 "), remote)
			remote = "gateway.example"
		}
		s.add("conn %s site local=%s remote=%s lid=%s.example rid=%s.example ike=%s tries=%d unique=%s dpd=%s", h, s.addrs[i], remote, h, string("ab"[o]), ie[i], tries[i], unique, s.seconds(6, 20))
		if s.odds(2) {
			s.add("conn %s site rekey=%s rand=%s over=40s", h, s.seconds(25, 90), s.seconds(0, 8))
		}
		if s.odds(6) && !s.both && i == 0 && unique != "keep" {
			s.add("conn %s site reauth=%s over=60s", h, s.seconds(50, 120))
		}
		subnet := [2]string{"10.1.0.0/16", "10.2.0.0/16"}
		if s.odds(4) {
			subnet[o] = [2]string{"10.1.0.0/17", "10.2.0.0/15"}[o]
		}
		mode := ""
		if transport { // the endpoints themselves talk
			subnet[i], subnet[o], mode = "dynamic", "dynamic", " mode=transport"
		}
		s.add("child %s site net local=%s remote=%s esp=%s start=%s close=%s dpd=%s window=%s%s", h, subnet[i], subnet[o], ee[i], start[i], dpd[i], dpd[i], s.pick("32", "64", "4096"), mode)
		if s.odds(2) {
			s.add("child %s site net rekey=%s rand=%s life=150s", h, s.seconds(12, 60), s.seconds(0, 5))
		}
		switch s.rng.IntN(8) {
		case 0:
			s.add("child %s site net rekey-packets=%d life-packets=5000", h, 200+s.rng.IntN(400))
		case 1:
			s.add("child %s site net rekey-bytes=%d", h, 20000+s.rng.IntN(40000))
		}
		s.add("psk %s %s.example %s.example a-shared-key", h, h, string("ab"[o]))
	}
	s.authenticate()
	s.variety(transport)
	s.lasting()
	if s.moves.IntN(3) > 0 && !s.both && !transport {
		s.roams = true
		s.add("conn a site local=%%any mobike=yes")
		s.add("conn b site remote=%%any mobike=yes")
	}
}

// roam gives a another address of its family, maybe twice in a moment.
func (s *scenario) roam() {
	if !s.roams || s.moves.IntN(2) == 0 {
		return
	}
	for range 1 + s.moves.IntN(2) {
		s.add("address a %s", strings.Replace(s.addrs[0], "::1", "", 1)+map[bool]string{true: fmt.Sprintf("::%x", 16+s.moves.IntN(3)), false: fmt.Sprint(s.moves.IntN(3))}[strings.Contains(s.addrs[0], ":")])
		s.add("run %dms", s.moves.IntN(200))
	}
}

// lasting adds what makes IKE SAs last and be quick to come back, and keys that withstand
// quantum computers.
func (s *scenario) lasting() {
	crash, tickets, hybrid := s.keeps.IntN(2) == 0, s.keeps.IntN(3) == 0, s.keeps.IntN(4) == 0
	ppk := s.keeps.IntN(4) == 0
	for _, h := range []string{"a", "b"} {
		if crash {
			s.add("engine %s crash=of-%s", h, h)
		}
		if tickets {
			s.add("engine %s tickets=of-%s", h, h)
		}
		if s.keeps.IntN(2) == 0 {
			s.add("engine %s transcript=yes", h)
		}
		if hybrid {
			s.add("conn %s site ike=aes128gcm16-prfsha256-x25519-ke1_mlkem768", h)
		}
		if ppk {
			s.add("conn %s site ppk=carol", h)
			s.add("ppk %s carol %s", h, []string{"one", "one", "two"}[s.keeps.IntN(3)])
		}
	}
}

// variety adds small packets, which most messages exceed, and virtual addresses.
func (s *scenario) variety(transport bool) {
	if s.extra.IntN(3) == 0 {
		for _, h := range []string{"a", "b"} {
			s.add("engine %s fragment-size=576", h)
			s.add("conn %s site fragmentation=%s", h, []string{"yes", "yes", "accept", "no"}[s.extra.IntN(4)])
			// So many selectors that IKE_AUTH and CREATE_CHILD_SA go in three fragments.
			if own, far := manySelectors(h == "b"), manySelectors(h == "a"); !transport {
				s.add("child %s site net local=%s remote=%s", h, own, far)
			}
		}
	}
	if s.extra.IntN(6) == 0 && !transport && !s.both && !s.trap {
		s.add("pool b pool 10.1.0.0/24")
		s.add("conn a site vips=0.0.0.0")
		s.add("conn b site pools=pool")
		s.add("child a site net local=dynamic remote=10.2.0.0/16")
		s.add("child b site net local=10.2.0.0/16 remote=dynamic")
	}
}

func manySelectors(second bool) string {
	var list []string
	for i := range 40 {
		list = append(list, fmt.Sprintf("10.%d.%d.0/24", map[bool]int{false: 1, true: 2}[second], 2*i))
	}
	return strings.Join(list, ",")
}

// authenticate chooses how the two prove themselves, if not by the shared key. Only
// one that initiates can be a client of EAP.
func (s *scenario) authenticate() {
	how := s.rng.IntN(9)
	if how > 4 || how > 0 && s.both {
		return
	}
	kinds := []string{"ed25519", "ecdsa"}
	s.add("key a a.example %s b", s.pick(kinds...))
	s.add("key b b.example %s a", s.pick(kinds...))
	for _, h := range []string{"a", "b"} {
		s.add("password %s a.example a-password", h)
		s.add("password %s alice another-password", h)
	}
	sides := [][2]string{
		{"lauth=pubkey rauth=pubkey certreq=yes", "lauth=pubkey rauth=pubkey certreq=yes"},
		{"lauth=eap rauth=pubkey", "lauth=pubkey rauth=eap"},
		{"lauth=eap rauth=psk eapid=alice eap=md5", "lauth=psk rauth=eap eapask=yes eap=md5"},
		{"lauth=pubkey rauth=any lauth2=eap lid2=alice", "lauth=pubkey rauth=pubkey rauth2=eap rid2=%any"},
		{"lauth=eap rauth=eap", "lauth=eap rauth=eap"},
	}[how]
	s.add("conn a site %s", sides[0])
	s.add("conn b site %s", sides[1])
}

// lives is the ordinary scenario: it ends with everything up.
func (s *scenario) lives() {
	s.quality()
	s.machines()
	s.configure()
	if s.third {
		s.branch()
	}
	if s.both && s.odds(2) {
		s.add("boot a b")
	} else {
		s.add("boot b")
		s.add("run %s", s.seconds(0, 1))
		s.add("boot a")
	}
	if s.third {
		s.add("boot c")
	}
	if !s.calm && s.odds(5) {
		s.add("unreliable %s %s 0.%d", s.pick("a", "b"), s.pick("install", "compute", "ask"), 1+s.rng.IntN(3))
	}
	pings := s.pick("100ms", "200ms")
	s.add("ping %s", pings)
	s.add("run %s", s.seconds(2, 10))
	if s.clean && s.calm {
		s.add("net delay=%dms", 1+s.rng.IntN(60))
	}
	for range 4 + s.rng.IntN(6) {
		s.happening(pings)
		s.roam()
		s.add("run %s", s.seconds(0, 30))
	}
	s.add("rest 500s site/net%s", map[bool]string{true: " branch/far"}[s.third])
	s.add("ping off")
	s.add("run 2s")
}

// branch joins a third host to the second.
func (s *scenario) branch() {
	addr := "192.0.2.33"
	if strings.Contains(s.addrs[1], ":") {
		addr = "2001:db8:3::1"
	}
	s.add("host c %s", addr)
	s.add("engine c retransmit=1s,1.6,5 retry=3s")
	s.add("conn c branch local=%s remote=%s lid=c.example rid=b.example tries=0 dpd=%s", addr, s.addrs[1], s.seconds(6, 20))
	s.add("conn b branch local=%s remote=%s lid=b.example rid=c.example dpd=%s", s.addrs[1], addr, s.seconds(6, 20))
	s.add("child c branch far local=10.3.0.0/16 remote=10.2.0.0/16 start=start dpd=start close=start rekey=%s", s.seconds(20, 60))
	s.add("child b branch far local=10.2.0.0/16 remote=10.3.0.0/16")
	s.add("psk c c.example b.example another-shared-key")
	s.add("psk b b.example c.example another-shared-key")
}

// happening adds one event, or two at once.
func (s *scenario) happening(pings string) {
	x, y := "a", "b"
	if s.odds(2) {
		x, y = y, x
	}
	n := 18
	if s.calm {
		n = 8
	}
	switch s.rng.IntN(n) {
	case 0:
		s.fine(pings, "rekey "+x+" site/net")
	case 1, 2:
		s.fine(pings, "rekey "+x+" site/net", "rekey "+y+" site/net")
	case 3:
		s.fine(pings, "rekey "+x+" site")
	case 4, 5:
		s.fine(pings, "rekey "+x+" site", "rekey "+y+" site")
	case 6:
		s.fine(pings, "rekey "+x+" site", "rekey "+y+" site/net")
	case 7:
		s.add("drop %s %s 1 %s", x, y, s.pick("D(", "CREATE_CHILD_SA request", "CREATE_CHILD_SA response", "INFORMATIONAL response", "D(ESP)"))
		s.fine(pings, "rekey a site/net", "rekey b site/net")
	case 8:
		s.add("restart %s", x)
	case 9:
		s.add("kill %s", x)
		s.add("run %s", s.seconds(0, 60))
		s.add("boot %s", x)
	case 10:
		s.add("cut a b")
		s.add("run %s", s.seconds(0, 50))
		s.add("heal")
		s.quality()
	case 11:
		if s.nat {
			s.add("rebind a")
		} else {
			s.add("garbage %s 20", x)
		}
	case 12:
		s.add("garbage %s 20", x)
	case 13:
		if s.odds(2) {
			s.add("conn %s site rekey=%s over=40s", x, s.seconds(20, 60))
			s.add("child %s site net rekey=%s rand=3s", x, s.seconds(15, 40))
		}
		s.add("reload %s", x)
	case 14:
		s.add("down %s site%s", y, s.pick("", "/net"))
		s.add("run %s", s.seconds(0, 5))
		s.add("up a site/net")
	case 15:
		s.add("fail %s %s 1", x, s.pick("install", "compute", "ask"))
		s.fine(pings, "rekey "+y+" site/net")
	case 16:
		s.add("hold %s %s %d CREATE_CHILD_SA", x, y, 1+s.rng.IntN(2))
		s.fine(pings, "rekey a site/net", "rekey b site/net")
		s.add("release%s", s.pick("", " reversed"))
	case 17:
		s.add("flood b %d", 1+s.rng.IntN(10))
	}
}

// fine lets things happen nearly at once under denser traffic.
func (s *scenario) fine(pings string, commands ...string) {
	s.add("ping 10ms")
	for i, c := range commands {
		if i > 0 && s.odds(2) {
			s.add("run %dms", s.rng.IntN(150))
		}
		s.add("%s", c)
	}
	s.add("run %s", s.seconds(0, 2))
	s.add("ping %s", pings)
}

// refusal is a scenario in which nothing may ever come up.
func (s *scenario) refusal() {
	s.quality()
	s.machines()
	key, own, other := "a-shared-key", "b.example", ""
	switch s.rng.IntN(3) {
	case 0:
		key = "another-key"
	case 1:
		own = "c.example"
	case 2:
		other = " ike=aes256gcm16-prfsha384-ecp384"
	}
	remote := s.addrs[0]
	if s.nat {
		remote = s.public
	}
	s.add("conn a site local=%s remote=%s lid=a.example rid=b.example tries=0", s.addrs[0], s.addrs[1])
	s.add("conn b site local=%s remote=%s lid=%s rid=a.example%s", s.addrs[1], remote, own, other)
	s.add("child a site net local=10.1.0.0/16 remote=10.2.0.0/16 start=start")
	s.add("child b site net local=10.2.0.0/16 remote=10.1.0.0/16")
	s.add("psk a a.example b.example a-shared-key")
	s.add("psk b %s a.example %s", own, key)
	s.add("forbid")
	s.add("boot b a")
	for range 3 {
		s.add("run %s", s.seconds(5, 30))
		s.add("garbage b 10")
	}
	s.add("down a site")
	s.add("rest 120s")
}
