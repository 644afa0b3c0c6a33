package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The nodes of a lab. Functions that take a node take one of these.
const (
	LeftHost  = "lh" // host behind the left gateway
	Left      = "l"  // left gateway
	Right     = "r"  // right gateway
	RightHost = "rh" // host behind the right gateway
	Wire      = "w"  // what lies between the gateways, except with Direct
)

// The interfaces of the nodes. The wire's two interfaces are called like the
// gateway that they lead to: [Left] and [Right].
const (
	Wan  = "wan"  // of a gateway, towards the other gateway
	Lan  = "lan"  // of a gateway, towards its host
	Eth0 = "eth0" // of a host
)

var (
	// ErrNotRoot is returned by [New] when the process may not make namespaces.
	ErrNotRoot = errors.New("lab: making network namespaces needs root")
	// ErrInUse is returned by [New] when a live process has a lab of that prefix.
	ErrInUse = errors.New("lab: prefix is in use by another process")
)

// Middle says what lies between the gateways.
type Middle int

const (
	// Direct joins the gateways by one veth pair: the fastest, for benchmarks.
	Direct Middle = iota
	// Bridge puts a namespace with a bridge between them: a place to capture
	// from that neither gateway's firewall can influence.
	Bridge
	// Impaired puts a forwarder of our own between them (see [Lab.Impair]).
	// The gateways' outside interfaces have checksum and segmentation offload
	// switched off, so that the forwarder sees what a real wire would carry.
	Impaired
	// NAT puts a masquerading router between them. The left gateway is at
	// 172.16.0.1 (fd0f::1) then and appears to the right one as 192.0.2.1
	// (2001:db8::1), from ports that the router chooses.
	NAT
)

// Options describe a lab. The zero value is a direct path with MTU 1500.
type Options struct {
	Middle   Middle
	OuterMTU int                           // MTU between the gateways; 0 means 1500
	InnerMTU int                           // MTU between host and gateway; 0 means 1500
	Logf     func(format string, a ...any) // where the lab tells what it does; nil: nowhere
}

// Addresses of one end of the path.
type Addresses struct {
	Host4, Host6   netip.Addr   // the host behind the gateway
	Lan4, Lan6     netip.Addr   // the gateway, inside
	Inner4, Inner6 netip.Prefix // the network behind the gateway
	Wan4, Wan6     netip.Addr   // the gateway's own outside address
	Seen4, Seen6   netip.Addr   // the address that the other gateway sees; differs from Wan behind a NAT
}

// Lab is one set of namespaces. Its methods may be called from several
// goroutines at once.
type Lab struct {
	L, R Addresses // the left and the right end
	Dir  string    // scratch directory of this lab, removed by Close

	prefix  string
	opt     Options
	lock    *os.File
	forward *forwarder

	mu      sync.Mutex
	closers []func()
	closed  bool
}

var validPrefix = regexp.MustCompile(`^[a-z][a-z0-9]{0,5}$`)

var allNodes = []string{LeftHost, Left, Wire, Right, RightHost}

// New builds a lab whose namespaces are called PREFIX-lh, PREFIX-l and so on. The
// prefix has at most six lower-case letters and digits and belongs to one lab at
// a time on the whole machine; leftovers of a dead process with the same prefix
// are removed first. The caller must Close the lab.
func New(prefix string, opt Options) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	if !validPrefix.MatchString(prefix) {
		return nil, fmt.Errorf("lab: prefix %q is not 1 to 6 lower-case letters and digits", prefix)
	}
	if opt.OuterMTU == 0 {
		opt.OuterMTU = 1500
	}
	if opt.InnerMTU == 0 {
		opt.InnerMTU = 1500
	}
	if opt.Logf == nil {
		opt.Logf = func(string, ...any) {}
	}
	base := filepath.Join(os.TempDir(), "adit-lab-"+prefix)
	lock, err := lockFile(base + ".lock")
	if err != nil {
		return nil, err
	}
	l := &Lab{prefix: prefix, opt: opt, lock: lock, Dir: base}
	l.address()
	if err := l.removeAll(); err != nil {
		lock.Close()
		return nil, fmt.Errorf("lab: removing what an earlier run left: %w", err)
	}
	if err := os.Mkdir(l.Dir, 0o700); err != nil {
		lock.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := l.build(); err != nil {
		l.Close()
		return nil, fmt.Errorf("lab: building %s: %w", prefix, err)
	}
	return l, nil
}

// lockFile takes the lock of one prefix; the kernel drops it with the process.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s", ErrInUse, path)
	}
	return f, nil
}

func (l *Lab) address() {
	end := func(n int) Addresses {
		v4 := func(s string) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(s, n)) }
		a := Addresses{
			Host4: v4("10.%d.0.2"), Host6: v4("fd0%d::2"),
			Lan4: v4("10.%d.0.1"), Lan6: v4("fd0%d::1"),
			Wan4: v4("192.0.2.%d"), Wan6: v4("2001:db8::%d"),
		}
		a.Inner4 = netip.PrefixFrom(a.Lan4, 24).Masked()
		a.Inner6 = netip.PrefixFrom(a.Lan6, 64).Masked()
		a.Seen4, a.Seen6 = a.Wan4, a.Wan6
		return a
	}
	l.L, l.R = end(1), end(2)
	if l.opt.Middle == NAT {
		l.L.Wan4, l.L.Wan6 = netip.MustParseAddr("172.16.0.1"), netip.MustParseAddr("fd0f::1")
	}
}

// NS is the name of a node's namespace, as `ip netns` knows it.
func (l *Lab) NS(node string) string { return l.prefix + "-" + node }

// InnerPrefixes are the networks behind both gateways: addresses that must never
// be seen outside.
func (l *Lab) InnerPrefixes() []netip.Prefix {
	return []netip.Prefix{l.L.Inner4, l.L.Inner6, l.R.Inner4, l.R.Inner6}
}

// onClose has f run by Close, last registered first.
func (l *Lab) onClose(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, f)
}

// Close stops every process and capture of the lab and removes its namespaces and
// files. It may be called more than once.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	closers := l.closers
	l.mu.Unlock()
	for i := len(closers) - 1; i >= 0; i-- {
		closers[i]()
	}
	err := l.removeAll()
	os.Remove(l.lock.Name())
	l.lock.Close()
	return err
}

// removeAll deletes the namespaces of this prefix, the processes in them and the
// scratch directory, whoever made them.
func (l *Lab) removeAll() error {
	var errs []error
	for _, node := range allNodes {
		ns := l.NS(node)
		if _, err := os.Stat(nsPath(ns)); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := killNamespace(ns); err != nil {
			errs = append(errs, err)
		}
		if out, err := run(10*time.Second, "", "ip", "netns", "del", ns); err != nil {
			errs = append(errs, fmt.Errorf("%w: %s", err, out))
		}
	}
	errs = append(errs, os.RemoveAll(l.Dir))
	return errors.Join(errs...)
}

// build makes namespaces, links, addresses and routes.
func (l *Lab) build() error {
	nodes := allNodes
	if l.opt.Middle == Direct {
		nodes = []string{LeftHost, Left, Right, RightHost}
	}
	var b strings.Builder
	say := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	for _, n := range nodes {
		say("netns add %s", l.NS(n))
	}
	if out, err := run(20*time.Second, b.String(), "ip", "-batch", "-"); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	// Before the interfaces exist: they copy the defaults when they are made, and
	// duplicate address detection would keep IPv6 waiting for a second.
	for _, n := range nodes {
		if err := l.sysctls(n); err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
	}
	b.Reset()
	veth := func(nodeA, ifA, nodeB, ifB string, mtu int) {
		say("link add %s netns %s mtu %d type veth peer name %s netns %s mtu %d",
			ifA, l.NS(nodeA), mtu, ifB, l.NS(nodeB), mtu)
	}
	veth(LeftHost, Eth0, Left, Lan, l.opt.InnerMTU)
	veth(RightHost, Eth0, Right, Lan, l.opt.InnerMTU)
	if l.opt.Middle == Direct {
		veth(Left, Wan, Right, Wan, l.opt.OuterMTU)
	} else {
		veth(Left, Wan, Wire, Left, l.opt.OuterMTU)
		veth(Right, Wan, Wire, Right, l.opt.OuterMTU)
	}
	if out, err := run(20*time.Second, b.String(), "ip", "-batch", "-"); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	for _, n := range nodes {
		b.Reset()
		say("link set lo up")
		l.configure(n, say)
		if out, err := run(20*time.Second, b.String(), "ip", "-n", l.NS(n), "-batch", "-"); err != nil {
			return fmt.Errorf("%s: %w: %s", n, err, out)
		}
	}
	var err error
	switch l.opt.Middle {
	case Impaired:
		err = l.startForwarder()
	case NAT:
		err = l.Rebind(20000)
	}
	if err != nil {
		return err
	}
	return l.waitLinks()
}

// waitLinks waits until every link carries both address families: the kernel tells
// its IPv6 of a new carrier only after a while.
func (l *Lab) waitLinks() error {
	type link struct {
		from string
		to   netip.Addr
	}
	links := []link{
		{LeftHost, l.L.Lan4}, {LeftHost, l.L.Lan6}, {RightHost, l.R.Lan4}, {RightHost, l.R.Lan6},
		{Left, l.L.Host6}, {Right, l.R.Host6}, {Left, l.R.Wan4}, {Left, l.R.Wan6},
	}
	if l.opt.Middle != NAT {
		links = append(links, link{Right, l.L.Wan6})
	}
	errs := make([]error, len(links))
	var wg sync.WaitGroup
	for i, k := range links {
		wg.Go(func() {
			if err := l.WaitPing(k.from, k.to, 10*time.Second); err != nil {
				errs[i] = fmt.Errorf("from %s to %v: %w", k.from, k.to, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (l *Lab) sysctls(node string) error {
	return InNS(l.NS(node), func() error {
		set := map[string]string{
			"ipv6/conf/all/accept_dad":     "0",
			"ipv6/conf/default/accept_dad": "0",
			"ipv6/conf/all/accept_ra":      "0",
			"ipv6/conf/default/accept_ra":  "0",
			"ipv4/ping_group_range":        "0 2147483647",
		}
		switch {
		case node == Wire && l.opt.Middle != NAT:
			set["ipv6/conf/all/disable_ipv6"] = "1"
			set["ipv6/conf/default/disable_ipv6"] = "1"
		case node == Left, node == Right, node == Wire:
			set["ipv4/ip_forward"] = "1"
			set["ipv6/conf/all/forwarding"] = "1"
			set["ipv6/conf/default/forwarding"] = "1"
			for _, c := range []string{"all", "default"} {
				set["ipv4/conf/"+c+"/rp_filter"] = "0"
				set["ipv4/conf/"+c+"/send_redirects"] = "0"
			}
		}
		for k, v := range set {
			if err := os.WriteFile("/proc/sys/net/"+k, []byte(v), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
}

// nowhereMAC is the link-layer address of the neighbour that does not exist.
const nowhereMAC = "02:00:00:00:00:fe"

// configure says the `ip` commands that give a node its addresses and routes.
func (l *Lab) configure(node string, say func(string, ...any)) {
	up := func(iface string, addrs ...string) {
		for _, a := range addrs {
			nodad := ""
			if strings.Contains(a, ":") {
				nodad = " nodad"
			}
			say("addr add %s dev %s%s", a, iface, nodad)
		}
		say("link set dev %s up", iface)
	}
	nowhere := func(iface string) {
		for _, a := range []string{"192.0.2.254", "2001:db8::fe"} {
			say("neigh add %s lladdr %s dev %s nud permanent", a, nowhereMAC, iface)
			say("route add default via %s dev %s", a, iface)
		}
	}
	host := func(e Addresses) {
		up(Eth0, e.Host4.String()+"/24", e.Host6.String()+"/64")
		say("route add default via %s", e.Lan4)
		say("route add default via %s", e.Lan6)
	}
	gateway := func(e Addresses) {
		up(Lan, e.Lan4.String()+"/24", e.Lan6.String()+"/64")
		up(Wan, e.Wan4.String()+"/24", e.Wan6.String()+"/64")
	}
	switch node {
	case LeftHost:
		host(l.L)
	case RightHost:
		host(l.R)
	case Left:
		gateway(l.L)
		if l.opt.Middle == NAT {
			say("route add default via 172.16.0.254")
			say("route add default via fd0f::fe")
		} else {
			nowhere(Wan)
		}
	case Right:
		gateway(l.R)
		nowhere(Wan)
	case Wire:
		switch l.opt.Middle {
		case Bridge:
			say("link add br0 type bridge mcast_snooping 0")
			for _, i := range []string{Left, Right} {
				say("link set dev %s master br0", i)
				up(i)
			}
			up("br0")
		case Impaired:
			up(Left)
			up(Right)
		case NAT:
			up(Left, "172.16.0.254/24", "fd0f::fe/64")
			up(Right, l.L.Seen4.String()+"/24", l.L.Seen6.String()+"/64")
			nowhere(Right)
		}
	}
}
