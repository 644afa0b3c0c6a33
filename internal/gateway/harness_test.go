package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/ike/ikev2"
	"adit/internal/config"
	"adit/internal/gateway"
	"adit/internal/hostnet"
	"adit/ipsec"
)

// lab is two gateways, left (192.0.2.1) and right (192.0.2.2), with a data plane
// and a host that only record what they are told.
type lab struct {
	t    *testing.T
	mu   sync.Mutex
	log  []string // what happened, in order, of both
	ends map[netip.Addr]*end
}

type end struct {
	lab  *lab
	name string
	addr netip.Addr
	gw   *gateway.Gateway

	mu        sync.Mutex
	sas       map[ipsec.SARef]ipsec.SAParams
	policies  map[ipsec.PolicyID]ipsec.Policy
	state     hostnet.State
	addresses map[netip.Prefix]int // of virtual addresses, how often added
	emit      func(ipsec.Event)
	events    []ike.Event
	// Failures that a test orders.
	addSA, apply, send func() error
	mute               bool // nothing leaves
	injected           []injected
}

func newLab(t *testing.T) *lab {
	return &lab{t: t, ends: map[netip.Addr]*end{}}
}

func (l *lab) note(format string, a ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log = append(l.log, fmt.Sprintf(format, a...))
}

// since are the lines from the first that begins so.
func (l *lab) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.log)
}

type change func(*gateway.Options)

func (l *lab) end(name, addr string, changes ...change) *end {
	l.t.Helper()
	e := &end{lab: l, name: name, addr: netip.MustParseAddr(addr),
		sas: map[ipsec.SARef]ipsec.SAParams{}, policies: map[ipsec.PolicyID]ipsec.Policy{}}
	daemon, err := config.LoadDaemon("")
	if err != nil {
		l.t.Fatal(err)
	}
	o := gateway.Options{Daemon: daemon, Dataplane: e, Transport: outer{e}, Host: host{e}, Device: "tun0",
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Versions: []ike.Version{ikev2.Version}, ForceEncap: true}
	for _, c := range changes {
		c(&o)
	}
	if e.gw, err = gateway.New(o); err != nil {
		l.t.Fatal(err)
	}
	e.gw.Subscribe(func(ev ike.Event) {
		e.mu.Lock()
		e.events = append(e.events, ev)
		e.mu.Unlock()
	})
	l.mu.Lock()
	l.ends[e.addr] = e
	l.mu.Unlock()
	e.gw.Start()
	return e
}

// outer is the end's Transport.
type outer struct{ *end }

func (w outer) Send(d ike.Datagram) error {
	w.mu.Lock()
	mute, fail := w.mute, w.send
	w.mu.Unlock()
	if fail != nil {
		if err := fail(); err != nil {
			return err
		}
	}
	if len(d.Data) == 1 || mute {
		return nil
	}
	w.lab.note("%s sends exchange %d", w.name, d.Data[18])
	w.lab.mu.Lock()
	to := w.lab.ends[d.Remote.Addr()]
	w.lab.mu.Unlock()
	if to != nil {
		to.gw.Datagram(ike.Datagram{Local: d.Remote, Remote: d.Local, Data: d.Data})
	}
	return nil
}

func (w outer) SourceFor(netip.Addr) (netip.Addr, error) { return w.addr, nil }

// host is the end's Host.
type host struct{ *end }

func (h host) AddAddress(_ string, p netip.Prefix) error { return h.address(p, 1) }
func (h host) DelAddress(_ string, p netip.Prefix) error { return h.address(p, -1) }

func (h host) address(p netip.Prefix, by int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.addresses == nil {
		h.addresses = map[netip.Prefix]int{}
	}
	h.addresses[p] += by
	return nil
}

func (h host) Apply(s hostnet.State) error {
	h.mu.Lock()
	fail := h.apply
	h.mu.Unlock()
	if fail != nil {
		if err := fail(); err != nil {
			return err
		}
	}
	h.mu.Lock()
	h.state = s
	h.mu.Unlock()
	h.lab.note("%s host has %d policies", h.name, len(s.Policies))
	return nil
}

func (e *end) AddSA(p ipsec.SAParams) error {
	e.mu.Lock()
	fail := e.addSA
	e.mu.Unlock()
	if fail != nil {
		if err := fail(); err != nil {
			return err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.sas[p.Ref]; ok {
		return errors.New("taken")
	}
	e.sas[p.Ref] = p
	e.lab.note("%s adds SA %s", e.name, p.Ref.Dir)
	return nil
}

func (e *end) UpdateSA(ipsec.SARef, ipsec.SAUpdate) error { return nil }

func (e *end) DeleteSA(r ipsec.SARef) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.sas, r)
	return nil
}

func (e *end) AddPolicy(p ipsec.Policy) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.policies[p.ID] = p
	e.lab.note("%s adds policy of %s", e.name, p.Name)
	return nil
}

func (e *end) DeletePolicy(id ipsec.PolicyID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.policies, id)
	return nil
}

func (e *end) Query(r ipsec.SARef) (ipsec.SAStats, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.sas[r]
	return ipsec.SAStats{MTU: 1400}, ok
}

func (e *end) Events(f func(ipsec.Event)) { e.emit = f }
func (e *end) Close() error               { return nil }

func (e *end) count() (sas, policies, hostPolicies int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.sas), len(e.policies), len(e.state.Policies)
}

// expect checks the numbers of SAs, policies in the data plane and in the host.
func (e *end) expect(sas, policies, hostPolicies int) {
	e.lab.t.Helper()
	if a, b, c := e.count(); a != sas || b != policies || c != hostPolicies {
		e.lab.t.Fatalf("%s has %d SAs, %d policies, %d in the host; want %d, %d, %d", e.name, a, b, c, sas, policies, hostPolicies)
	}
}

func (e *end) children() (names []string) {
	sas, err := e.gw.SAs(context.Background())
	if err != nil {
		e.lab.t.Fatal(err)
	}
	for _, sa := range sas {
		for _, c := range sa.Children {
			if c.State == "INSTALLED" {
				names = append(names, fmt.Sprintf("%s/%s{%d}", sa.Name, c.Name, c.ID))
			}
		}
	}
	return names
}

func (e *end) bugs() (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.events {
		if _, ok := ev.(ike.Bug); ok {
			n++
		}
	}
	return n
}

// children is a connection's configuration: name, then children as "name:options".
func connection(name, local, remote string, children ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s {\n local_addrs = %s\n remote_addrs = %s\n keyingtries = 0\n proposals = aes128gcm16-prfsha256-x25519\n"+
		" local { auth = psk\n }\n remote { auth = psk\n }\n children {\n", name, local, remote)
	for _, c := range children {
		n, options, _ := strings.Cut(c, ":")
		fmt.Fprintf(&b, "  %s {\n esp_proposals = aes128gcm16\n %s\n }\n", n, strings.ReplaceAll(options, ";", "\n"))
	}
	b.WriteString(" }\n}\n")
	return b.String()
}

func model(t *testing.T, conns ...string) *config.Model {
	t.Helper()
	root, err := conf.ParseBytes("test.conf", []byte("connections {\n"+strings.Join(conns, "")+"}\nsecrets { ike { secret = \"a secret that is long enough\" } }\n"))
	if err != nil {
		t.Fatal(err)
	}
	daemon, _ := config.LoadDaemon("")
	m, err := config.Decode(root, daemon)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (e *end) load(conns ...string) {
	e.lab.t.Helper()
	if err := e.gw.Load(model(e.lab.t, conns...)); err != nil {
		e.lab.t.Fatal(err)
	}
	e.settle()
}

// settle lets everything happen that needs little time.
func (e *end) settle() {
	time.Sleep(100 * time.Millisecond)
	synctest.Wait()
}

const (
	leftAddr, rightAddr = "192.0.2.1", "192.0.2.2"
	leftNet             = "local_ts=10.1.0.0/24;remote_ts=10.2.0.0/24"
	rightNet            = "local_ts=10.2.0.0/24;remote_ts=10.1.0.0/24"
)

// pair is two gateways that know each other as gw with a child net.
func pair(t *testing.T, changes ...change) (left, right *end) {
	l := newLab(t)
	left, right = l.end("left", leftAddr, changes...), l.end("right", rightAddr)
	left.load(connection("gw", leftAddr, rightAddr, "net:"+leftNet))
	right.load(connection("gw", rightAddr, leftAddr, "net:"+rightNet))
	return left, right
}

func within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	_ = time.AfterFunc(d+time.Second, cancel)
	return ctx
}

var (
	discard  = slog.New(slog.NewTextHandler(io.Discard, nil))
	versions = []ike.Version{ikev2.Version}
)
