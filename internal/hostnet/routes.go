package hostnet

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	mdlayher "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// route is one route of ours: via a TUN device, or a throw, which sends the
// lookup on to the next rule.
type route struct {
	table int
	dst   netip.Prefix
	link  int // index of the device; 0 for a throw
	src   netip.Addr
	mtu   int
	throw bool
}

// routeKey is what makes a route unique in the kernel.
type routeKey struct {
	table int
	dst   netip.Prefix
}

func (r route) key() routeKey { return routeKey{r.table, r.dst} }

// rule is one ip rule of ours. In order of their priorities (from
// Options.Priority on):
//
//	+0  packets marked for a device go to its table; lookups for packets of the
//	    host without a mark of ours go to the hinted routes
//	+1  packets that came in by a device of ours skip the next step
//	+2  what is left with the mark of such packets are their reverse-path checks
//	    (IPv4): these find the device by its table
//	+3  the place to skip to
//
// Where the host's interfaces filter strictly by reverse path, the kernel asks
// with the addresses of an outer packet as if the host would answer it, which a
// hinted route for the host itself (or for everything) must not answer. There
// the hinted routes serve at first only packets that have no source yet, and the
// others in the end, if nothing else has a route.
//
// That there is any rule beside the kernel's costs a forwarded packet of 3.65 µs
// 0.46 µs more (the tables local and main come apart, and the source is looked up
// in full); five rules more cost 0.03 µs. So it is not worth while to save a few.
type rule struct {
	v6       bool
	step     int
	mark     uint32
	iif      string
	noSource bool // only packets whose source address is still open
	table    int  // 0 for a skip and its place
}

const (
	stepRoute = iota
	stepSkip
	stepReverse
	stepPlace
	stepLast // behind the default table
)

// afterDefault is the priority after that of the default table, which is fixed.
const afterDefault = 32768

func (o *Options) priority(step int) int {
	if step == stepLast {
		return afterDefault
	}
	return o.Priority + step
}

// rulesFor returns the rules that the plan's routes need, in the order in which
// they can be added.
func rulesFor(p *plan, h *host, o *Options) []rule {
	tables := [2]map[int]bool{{}, {}}
	for k := range p.routes {
		tables[familyOf(k.dst.Addr())][k.table] = true
	}
	var rules []rule
	for f, used := range tables {
		if len(used) == 0 {
			continue
		}
		v6 := f == 1
		if !v6 {
			rules = append(rules, rule{step: stepPlace})
			for d := range p.device {
				rules = append(rules, rule{step: stepSkip, iif: d})
			}
		}
		for i := range len(p.device) {
			t := o.SteerTable + i
			if !used[t] {
				continue
			}
			rules = append(rules, rule{v6: v6, mark: o.mark(markSteer + i), table: t})
			if !v6 {
				rules = append(rules, rule{step: stepReverse, mark: o.mark(markInside), table: t})
			}
		}
		if used[o.Table] {
			strict := h.strict && !v6
			rules = append(rules, rule{v6: v6, iif: "lo", noSource: strict, table: o.Table})
			if strict {
				rules = append(rules, rule{step: stepLast, iif: "lo", table: o.Table})
			}
		}
	}
	return rules
}

// fib is our part of the routing tables. The kernel's own dump is the record of
// what is there: routes that vanished with a device come back by the next Apply.
type fib struct {
	opt   *Options
	h     *netlink.Handle
	batch *mdlayher.Conn // of send, nil until it is needed
}

func newFIB(o *Options) (*fib, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("hostnet: rtnetlink: %w", err)
	}
	return &fib{opt: o, h: h}, nil
}

func (f *fib) close() {
	f.h.Close()
	if f.batch != nil {
		_ = f.batch.Close()
	}
}

// dump repeats a dump that the kernel says was interrupted by a change.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	for range 8 {
		got, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return got, err
		}
	}
	return list()
}

// routesOf returns the kernel's routes with the given protocol, all tables.
func (f *fib) routesOf(protocol int) ([]netlink.Route, error) {
	return dump(func() ([]netlink.Route, error) {
		return f.h.RouteListFiltered(netlink.FAMILY_ALL,
			&netlink.Route{Protocol: netlink.RouteProtocol(protocol), Table: unix.RT_TABLE_UNSPEC},
			netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	})
}

// rulesOf returns the kernel's rules with the given protocol.
func (f *fib) rulesOf(protocol int) ([]netlink.Rule, error) {
	all, err := dump(func() ([]netlink.Rule, error) { return f.h.RuleList(netlink.FAMILY_ALL) })
	return slices.DeleteFunc(all, func(r netlink.Rule) bool { return int(r.Protocol) != protocol }), err
}

// sweep removes all routes and rules that carry one of the protocol numbers.
func (f *fib) sweep(protocols []int) error {
	var errs []error
	for _, p := range slices.Compact(slices.Sorted(slices.Values(protocols))) {
		rules, err := f.rulesOf(p)
		errs = append(errs, err)
		for i := range rules {
			errs = append(errs, ignoreGone(f.h.RuleDel(&rules[i])))
		}
		routes, err := f.routesOf(p)
		errs = append(errs, err)
		for i := range routes {
			errs = append(errs, f.delRoute(&routes[i]))
		}
	}
	return errors.Join(errs...)
}

func (f *fib) delRoute(r *netlink.Route) error {
	if r.Type == unix.RTN_THROW && r.Family == netlink.FAMILY_V6 {
		r.LinkIndex = 0 // shown as lo, refused as lo
	}
	return ignoreGone(f.h.RouteDel(r))
}

func ignoreGone(err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// removeStale removes what the plan no longer has.
func (f *fib) removeStale(want map[routeKey]route, wantRules []rule) error {
	rules, err := f.rulesOf(f.opt.Protocol)
	if err != nil {
		return err
	}
	var errs []error
	for i := range rules {
		if !slices.Contains(wantRules, f.parseRule(&rules[i])) {
			errs = append(errs, ignoreGone(f.h.RuleDel(&rules[i])))
		}
	}
	routes, err := f.routesOf(f.opt.Protocol)
	errs = append(errs, err)
	for i := range routes {
		if _, ok := want[parseRoute(&routes[i]).key()]; !ok {
			errs = append(errs, f.delRoute(&routes[i]))
		}
	}
	return errors.Join(errs...)
}

// addMissing adds what the plan has and the kernel hasn't, routes before rules.
func (f *fib) addMissing(want map[routeKey]route, wantRules []rule) error {
	routes, err := f.routesOf(f.opt.Protocol)
	if err != nil {
		return err
	}
	have := make(map[routeKey]route, len(routes))
	for i := range routes {
		r := parseRoute(&routes[i])
		have[r.key()] = r
	}
	var errs []error
	failed := 0
	for k, r := range want {
		old, ok := have[k]
		if old == r {
			continue
		}
		if ok && old.throw != r.throw {
			errs = append(errs, ignoreGone(f.h.RouteDel(f.netlinkRoute(old))))
		}
		if err := f.h.RouteReplace(f.netlinkRoute(r)); err != nil {
			// Thousands of routes to a device that just vanished are one error.
			if failed++; failed <= 3 {
				errs = append(errs, fmt.Errorf("%v table %d: %w", r.dst, r.table, err))
			}
		}
	}
	if failed > 3 {
		errs = append(errs, fmt.Errorf("and %d more", failed-3))
	}
	rules, err := f.rulesOf(f.opt.Protocol)
	errs = append(errs, err)
	var haveRules []rule
	for i := range rules {
		haveRules = append(haveRules, f.parseRule(&rules[i]))
	}
	for _, r := range wantRules {
		if !slices.Contains(haveRules, r) {
			errs = append(errs, f.h.RuleAdd(f.netlinkRule(r)))
		}
	}
	return errors.Join(errs...)
}

func (f *fib) netlinkRoute(r route) *netlink.Route {
	nr := &netlink.Route{Table: r.table, Dst: ipNet(r.dst), Protocol: netlink.RouteProtocol(f.opt.Protocol)}
	if r.throw {
		nr.Type = unix.RTN_THROW
		return nr
	}
	nr.LinkIndex, nr.MTU = r.link, r.mtu
	if r.dst.Addr().Is4() {
		nr.Scope = unix.RT_SCOPE_LINK
	}
	if r.src.IsValid() {
		nr.Src = r.src.AsSlice()
	}
	return nr
}

func parseRoute(nr *netlink.Route) route {
	r := route{table: nr.Table, mtu: nr.MTU, throw: nr.Type == unix.RTN_THROW}
	if !r.throw {
		r.link = nr.LinkIndex
	}
	if a, ok := netip.AddrFromSlice(nr.Src); ok {
		r.src = a.Unmap()
	}
	var ok bool
	if r.dst, ok = ipNetPrefix(nr.Dst); !ok {
		zero := netip.IPv4Unspecified()
		if nr.Family == netlink.FAMILY_V6 {
			zero = netip.IPv6Unspecified()
		}
		r.dst = netip.PrefixFrom(zero, 0)
	}
	return r
}

func (f *fib) netlinkRule(r rule) *netlink.Rule {
	nr := netlink.NewRule()
	nr.Priority, nr.Protocol, nr.IifName = f.opt.priority(r.step), uint8(f.opt.Protocol), r.iif
	nr.Family = netlink.FAMILY_V4
	if r.v6 {
		nr.Family = netlink.FAMILY_V6
	}
	switch {
	case r.step == stepSkip:
		nr.Goto = f.opt.priority(stepPlace)
	case r.step == stepPlace:
		nr.Type = nl.FR_ACT_NOP
	default:
		mask := f.opt.MarkMask
		nr.Table, nr.Mark, nr.Mask = r.table, r.mark, &mask
		if r.noSource {
			nr.Src = noSource
		}
	}
	return nr
}

// noSource is the source of packets that have none.
var noSource = ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 32))

// parseRule reads a rule of our protocol; one of another mask or priority comes
// out unlike any that a plan has.
func (f *fib) parseRule(nr *netlink.Rule) rule {
	r := rule{v6: nr.Family == netlink.FAMILY_V6, step: nr.Priority - f.opt.Priority,
		mark: nr.Mark, iif: nr.IifName, table: max(nr.Table, 0),
		noSource: nr.Src != nil && nr.Src.String() == noSource.String()}
	if nr.Priority == afterDefault {
		r.step = stepLast
	}
	if r.table != 0 && (nr.Mask == nil || *nr.Mask != f.opt.MarkMask) ||
		r.step == stepSkip && nr.Goto != f.opt.priority(stepPlace) || nr.Src != nil && !r.noSource {
		r.step = -1
	}
	return r
}
