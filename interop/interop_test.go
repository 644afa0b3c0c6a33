package interop_test

import (
	"cmp"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"adit/interop"
	"adit/interop/lab"
	"adit/interop/peer"
)

var table interop.Table

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) {
		f.Value.Set(fmt.Sprint(2 * labsAtOnce)) // some wait for a lab
	}
	code := m.Run()
	if err := table.Write("out"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	peer.RemoveBuilds()
	os.Exit(code)
}

// kind is a sort of daemon.
type kind string

const (
	adit       kind = "adit"
	strongSwan kind = "strongSwan"
)

// pair is who initiates (left) and who responds (right).
type pair struct{ initiator, responder kind }

func (p pair) String() string { return string(p.initiator) + "-" + string(p.responder) }

// pairs are adit in either role, and with itself. ADIT_INTEROP=control runs the
// scenarios with strongSwan at both ends instead: what fails then is the scenario's
// fault or strongSwan's.
func pairs() []pair {
	if os.Getenv("ADIT_INTEROP") == "control" {
		return []pair{{strongSwan, strongSwan}}
	}
	return []pair{{adit, strongSwan}, {strongSwan, adit}, {adit, adit}}
}

// path is a lab with a daemon at either end, the initiator left.
type path struct {
	*lab.Lab
	t           *testing.T
	left, right peer.Gateway
	outside     *lab.Capture
	patience    time.Duration // how long a state of the SAs is waited for
	facts       map[string]string
	v6          bool // what trials use, outside and inside
}

// settings are how a path is built.
type settings struct {
	middle     lab.Middle
	charon     string // lines for the section of the daemon in strongswan.conf, of both
	right      string // the same, of the responder alone
	strongSwan string // the same, of strongSwan alone
	own        string // lines for the section adit
	noAttach   bool   // no capture, for load tests
	file       bool   // the left adit is started with its usual configuration in a file
	mtu        int    // of the path outside, 0: 1500
}

// Labs are in /tmp and /var/run under their prefix: each gets a number. Two runs at
// once on one machine need ADIT_INTEROP_LAB, another prefix of two letters.
var labs atomic.Int32

func labName() string {
	return fmt.Sprintf("%s%d", cmp.Or(os.Getenv("ADIT_INTEROP_LAB"), "io"), labs.Add(1))
}

// Most labs wait more than they compute: so many are at work at once. Every test is
// parallel but those that load a tunnel; they have the machine to themselves.
const labsAtOnce = 3

var slots = make(chan struct{}, labsAtOnce)

// across runs a scenario in parallel for every pair and notes the outcome.
func across(t *testing.T, s settings, scenario func(t *testing.T, p *path)) {
	among(t, pairs(), s, scenario)
}

// led are the pairs with adit to the left: for what concerns one end alone, and
// for what strongSwan's kernel-libipsec doesn't do.
func led() []pair {
	if os.Getenv("ADIT_INTEROP") == "control" {
		return pairs()
	}
	return []pair{{adit, strongSwan}, {adit, adit}}
}

// among is across for some pairs.
func among(t *testing.T, all []pair, s settings, scenario func(t *testing.T, p *path)) {
	for _, ends := range all {
		t.Run(ends.String(), func(t *testing.T) {
			t.Parallel()
			runOne(t, ends, s, scenario)
		})
	}
}

func runOne(t *testing.T, ends pair, s settings, scenario func(t *testing.T, p *path)) {
	slots <- struct{}{}
	defer func() { <-slots }()
	l := lab.ForTest(t, labName(), lab.Options{Middle: s.middle, OuterMTU: s.mtu, Logf: func(string, ...any) {}})
	p := &path{Lab: l, t: t, facts: map[string]string{}, patience: 10 * time.Second}
	begin := time.Now()
	defer func() {
		row := interop.Result{
			Scenario:  strings.TrimSuffix(strings.TrimPrefix(t.Name(), "Test"), "/"+ends.String()),
			Initiator: string(ends.initiator), Responder: string(ends.responder),
			Passed: !t.Failed(), Seconds: time.Since(begin).Seconds(), Facts: p.facts,
		}
		if p.left != nil && p.right != nil { // else a daemon did not even start
			row.Initiator, row.Responder = p.left.Name(), p.right.Name()
			if t.Failed() {
				t.Logf("left (%s):\n%s\nright (%s):\n%s", row.Initiator, p.left.Log(), row.Responder, p.right.Log())
			}
		}
		table.Add(row)
	}()
	if s.file {
		left, _ := p.ends(false)
		p.left = p.daemon(lab.Left, ends.initiator, s, left.text(leftID, rightID))
	} else {
		p.left = p.daemon(lab.Left, ends.initiator, s, "")
	}
	s.charon += s.right
	p.right = p.daemon(lab.Right, ends.responder, s, "")
	var err error
	if !s.noAttach {
		if p.outside, err = l.CaptureOutside(); err != nil {
			t.Fatal(err)
		}
	}
	scenario(t, p)
	// Whatever the scenario was: nothing of the inside was ever seen outside.
	if p.outside != nil {
		if c := p.outside.Stop(); c.Clear != 0 || c.Missed != 0 {
			t.Errorf("outside %d packets with inner addresses were seen (%d missed): %+v", c.Clear, c.Missed, c)
		}
	}
}

func (p *path) daemon(node string, k kind, s settings, config string) peer.Gateway {
	p.t.Helper()
	var g peer.Gateway
	var err error
	if k == adit {
		g, err = peer.Adit(p.Lab, node, peer.AditOptions{Extra: s.charon, Own: s.own, Config: config, Race: os.Getenv("ADIT_LONG") != ""})
	} else if o := (peer.StrongSwanOptions{Extra: s.charon + s.strongSwan}); k == newer {
		g, err = peer.NewerStrongSwan(p.Lab, node, o)
	} else {
		g, err = peer.StrongSwan(p.Lab, node, o)
	}
	if err == nil {
		err = g.Start()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return g
}

// conn is one end's configuration; the zero values stand for the usual.
type conn struct {
	local, remote     string // addresses
	localTS, remoteTS string
	ike, esp          string // proposals
	version           string // of IKE
	key               string
	extra, child      string // further lines of the connection and of the child
	children          string // instead of the one child "net"
	secrets           string // further sections of secrets
}

// Identities of the ends, independent of addresses that a NAT may change.
const (
	leftID  = "left.example.org"
	rightID = "right.example.org"
)

func (c conn) text(localID, remoteID string) string {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&c.ike, "aes256gcm16-prfsha384-x25519")
	def(&c.version, "2")
	def(&c.esp, "aes256gcm16")
	def(&c.key, "a key that both ends share")
	def(&c.children, fmt.Sprintf("net {\nlocal_ts = %s\nremote_ts = %s\nesp_proposals = %s\n%s\n}", c.localTS, c.remoteTS, c.esp, c.child))
	return fmt.Sprintf(`connections {
	gw {
		version = %s
		local_addrs = %s
		remote_addrs = %s
		proposals = %s
		%s
		local {
			auth = psk
			id = %s
		}
		remote {
			auth = psk
			id = %s
		}
		children {
			%s
		}
	}
}
secrets {
	ike-1 {
		id-1 = %s
		id-2 = %s
		secret = "%s"
	}
	%s
}
`, c.version, c.local, c.remote, c.ike, c.extra, localID, remoteID, c.children, localID, remoteID, c.key, c.secrets)
}

// ends are both ends' configurations for the addresses of one family, inside and
// outside alike.
func (p *path) ends(v6 bool) (left, right conn) {
	if v6 {
		return p.endsWith(p.L.Wan6, p.L.Seen6, p.R.Wan6, p.L.Inner6, p.R.Inner6)
	}
	return p.endsWith(p.L.Wan4, p.L.Seen4, p.R.Wan4, p.L.Inner4, p.R.Inner4)
}

func (p *path) endsWith(left, seen, right netip.Addr, leftTS, rightTS netip.Prefix) (l, r conn) {
	l = conn{local: left.String(), remote: right.String(), localTS: leftTS.String(), remoteTS: rightTS.String()}
	r = conn{local: right.String(), remote: seen.String(), localTS: rightTS.String(), remoteTS: leftTS.String()}
	return l, r
}

// load gives both daemons their configuration.
func (p *path) load(left, right conn) {
	p.t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, 2)
	wg.Go(func() { errs[0] = p.left.Load(left.text(leftID, rightID)) })
	wg.Go(func() { errs[1] = p.right.Load(right.text(rightID, leftID)) })
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			p.t.Fatalf("loading %s: %v", []string{"left", "right"}[i], err)
		}
	}
}

// up initiates child "net" from the left and notes what was agreed.
func (p *path) up() {
	p.t.Helper()
	if err := p.left.Initiate("net"); err != nil {
		p.t.Fatalf("initiating: %v", err)
	}
	s := p.sas(p.left)
	e, c := peer.Established(s, "gw"), peer.Installed(s, "net")
	if len(e) != 1 || len(c) != 1 {
		p.t.Fatalf("after initiating there are %d IKE SAs and %d children:\n%+v", len(e), len(c), s)
	}
	p.facts["ike"] = strings.Join(nonEmpty(e[0].Encryption, e[0].Integrity, e[0].PRF, e[0].KeyExchange), "/")
	p.facts["esp"] = strings.Join(nonEmpty(c[0].Encryption, c[0].Integrity), "/")
}

func nonEmpty(ss ...string) []string {
	var out []string
	for _, s := range ss {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

func (p *path) sas(g peer.Gateway) []peer.SA {
	p.t.Helper()
	s, err := g.SAs()
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// wait polls a gateway's SAs until cond holds.
func (p *path) wait(what string, g peer.Gateway, cond func([]peer.SA) bool) []peer.SA {
	p.t.Helper()
	var last []peer.SA
	err := lab.Poll(p.patience, func() (bool, error) {
		s, err := g.SAs()
		last = s
		return err == nil && cond(s), err
	})
	if err != nil {
		p.t.Fatalf("waiting for %s: %v\n%+v", what, err, last)
	}
	return last
}

// noPing proves that hosts do not reach each other.
func (p *path) noPing(v6 bool) {
	p.t.Helper()
	l, r := p.hosts(v6)
	if got, err := p.Ping(lab.LeftHost, r, lab.PingOptions{Timeout: 100 * time.Millisecond}); err != nil || got.Received != 0 {
		p.t.Fatalf("a ping passes without a tunnel: %+v %v", got, err)
	}
	if got, err := p.Ping(lab.RightHost, l, lab.PingOptions{Timeout: 100 * time.Millisecond}); err != nil || got.Received != 0 {
		p.t.Fatalf("a ping passes without a tunnel: %+v %v", got, err)
	}
}

func (p *path) hosts(v6 bool) (l, r netip.Addr) {
	if v6 {
		return p.L.Host6, p.R.Host6
	}
	return p.L.Host4, p.R.Host4
}

var marker = []byte("adit-marker-1234")

// pings proves that hosts reach each other both ways, with small and large packets,
// and that the data is not to be read outside.
func (p *path) pings(v6 bool) {
	p.t.Helper()
	l, r := p.hosts(v6)
	for from, to := range map[string]netip.Addr{lab.LeftHost: r, lab.RightHost: l} {
		if err := p.WaitPing(from, to, 5*time.Second); err != nil {
			p.t.Fatalf("ping from %s: %v", from, err)
		}
		for _, size := range []int{56, 1000, 1300} {
			got, err := p.Ping(from, to, lab.PingOptions{Count: 3, Size: size, Pattern: marker})
			if err != nil || got.Received != 3 || got.Duplicates != 0 {
				p.t.Errorf("ping of %d octets from %s: %+v %v", size, from, got, err)
			}
		}
	}
	if p.outside != nil {
		if n := p.outside.Contains(marker); n != 0 {
			p.t.Errorf("%d packets outside show the pinged data", n)
		}
		if p.outside.Counts().ESP() == 0 {
			p.t.Errorf("no ESP was seen outside: %+v", p.outside.Counts())
		}
	}
}
