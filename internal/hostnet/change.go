package hostnet

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	mdlayher "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ErrWhole is Change's answer to what it cannot do by itself: Apply the whole State.
var ErrWhole = errors.New("hostnet: the whole state must be applied")

// standing is what Change knows of what the last Apply made.
type standing struct {
	plan    *plan             // without what is kept below
	general map[string]bool   // IDs of the policies that are in no crowd
	taken   map[routeKey]bool // their routes
	members map[string]member // the others, by ID
	ranges  [2]rangeIndex     // remote addresses of all policies that are in crowds
	others  [2]rangeIndex     // and, merged where they overlap, of the rest
	tables  [2]map[int]bool   // routing tables that rules lead to
}

type member struct {
	policy *Policy
	crowd  *crowd
}

// stand takes down what the plan made.
func (n *Net) stand(pl *plan) {
	st := &standing{plan: pl, general: map[string]bool{}, taken: map[routeKey]bool{}, members: map[string]member{}, tables: [2]map[int]bool{{}, {}}}
	var apart [2][]addrRange
	var rest []Policy
	for i := range pl.state.Policies {
		q := &pl.state.Policies[i]
		c := pl.crowdOf[i]
		if c != nil {
			own := *q
			own.Local = c.sample.Local // the same content, once in memory
			st.members[q.ID] = member{&own, c}
		} else {
			rest = append(rest, *q)
			st.general[q.ID] = true
		}
		for _, r := range q.Remote {
			f, span := familyOf(r.From), addrRange{r.From, r.To}
			if c != nil {
				st.ranges[f].add(span)
			} else {
				apart[f] = append(apart[f], span)
			}
		}
		if c == nil {
			pl.routesOf(q, &n.opt, func(r route) { st.taken[r.key()] = true })
		}
	}
	for k, r := range pl.routes {
		if r.throw {
			st.taken[k] = true
		}
		st.tables[familyOf(k.dst.Addr())][k.table] = true
	}
	for f, list := range apart {
		if len(list) > 0 {
			for _, s := range cutCoarse(list).slots {
				st.others[f].add(s.r)
			}
		}
	}
	for _, c := range pl.crowds {
		for k := range c.ranges { // one is enough to tell that there is a set
			c.ranges[k] = slices.Clone(c.ranges[k][:min(1, len(c.ranges[k]))])
		}
	}
	n.last = &State{Devices: pl.state.Devices, Policies: rest, Clients: pl.state.Clients}
	pl.state, pl.rows, pl.routes, pl.rules, pl.crowdOf = n.last, [2][]row{}, nil, nil, nil
	n.now = st
}

// whole is the State that was last applied, with all changes since.
func (n *Net) whole() *State {
	s := n.last.clone()
	if n.now != nil {
		for _, id := range slices.Sorted(maps.Keys(n.now.members)) {
			s.Policies = append(s.Policies, *n.now.members[id].policy)
		}
	}
	return &s
}

// unfold keeps what stands as a State alone: the next to come is the whole.
func (n *Net) unfold() {
	if n.now != nil {
		n.last, n.now = n.whole(), nil
	}
}

// Change adds policies to what was applied last and removes those named. A policy
// whose ID is known takes the place of the old one. It costs what changes, not what
// is there, and is for the policies of a Group that come and go by thousands; the
// order of things is that of Apply. Everything else answers ErrWhole and changes
// nothing.
func (n *Net) Change(add []Policy, remove []string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.done {
		return ErrClosed
	}
	st := n.now
	if st == nil || !n.nft.known {
		return ErrWhole
	}
	d, ok := n.delta(add, remove)
	if !ok {
		return ErrWhole
	}
	if err := n.fib.send(unix.RTM_DELROUTE, d.goneRoutes); err != nil {
		n.unfold()
		return fmt.Errorf("hostnet: removing routes: %w", err)
	}
	if err := n.nft.change(d.in, d.out); err != nil {
		n.unfold()
		return fmt.Errorf("hostnet: nftables: %w", err)
	}
	for _, m := range d.gone {
		delete(st.members, m.policy.ID)
		m.crowd.members--
	}
	for _, m := range d.come {
		if _, known := st.members[m.policy.ID]; !known {
			m.crowd.members++
		}
		st.members[m.policy.ID] = m
	}
	// What is missing of the routes is the next Apply's or Refresh's to repeat.
	if err := n.fib.send(unix.RTM_NEWROUTE, d.newRoutes); err != nil {
		return fmt.Errorf("hostnet: adding routes: %w", err)
	}
	return nil
}

// delta is a change in terms of routes and sets.
type delta struct {
	come, gone            []member
	goneRoutes, newRoutes []route
	in, out               map[setID][]jump
}

type setID struct {
	name string
	kind setKind
}

// delta works a change out; false if it is not one that Change can make. The
// indexes of ranges are up to date afterwards, or back at what they were.
func (n *Net) delta(add []Policy, remove []string) (*delta, bool) {
	st := n.now
	d := &delta{in: map[setID][]jump{}, out: map[setID][]jump{}}
	var undo []func()
	fail := func() (*delta, bool) {
		for _, f := range slices.Backward(undo) {
			f()
		}
		return nil, false
	}
	leaving, devices := map[*crowd]int{}, deviceSet(n.last.Devices)
	for _, id := range remove {
		m, ok := st.members[id]
		switch {
		case !ok && !st.general[id]:
			continue // it never came
		case !ok || m.crowd.members-leaving[m.crowd] <= 1:
			return fail() // the last one takes the rules along
		}
		leaving[m.crowd]++
		d.gone = append(d.gone, m)
		n.routesOf(m.policy, &d.goneRoutes)
		for _, r := range m.policy.Remote {
			f, span := familyOf(r.From), addrRange{r.From, r.To}
			st.ranges[f].remove(span)
			undo = append(undo, func() { st.ranges[f].add(span) })
			set := m.crowd.setID(span, n.nft.epoch)
			d.out[set] = append(d.out[set], jump{r: span})
		}
	}
	for i := range add {
		q := add[i].clone()
		if len(st.members)+len(st.general)+len(add) > MaxPolicies || q.validate(devices) != nil {
			return fail()
		}
		c := st.plan.crowds[q.crowdKey(st.plan.host)]
		if c == nil || st.general[q.ID] || slices.Contains(remove, q.ID) {
			return fail()
		}
		q.Local = c.sample.Local
		if old, known := st.members[q.ID]; known {
			if old.crowd != c || !slices.Equal(old.policy.Remote, q.Remote) {
				return fail()
			}
		} else {
			for _, r := range q.Remote {
				f, span := familyOf(r.From), addrRange{r.From, r.To}
				if len(c.ranges[kindOf(span)]) == 0 || st.ranges[f].overlaps(span) || st.others[f].overlaps(span) {
					return fail()
				}
				st.ranges[f].add(span)
				undo = append(undo, func() { st.ranges[f].remove(span) })
				set := c.setID(span, n.nft.epoch)
				d.in[set] = append(d.in[set], jump{r: span})
			}
		}
		d.come = append(d.come, member{&q, c})
		n.routesOf(&q, &d.newRoutes)
	}
	for _, list := range [][]route{d.goneRoutes, d.newRoutes} {
		for _, r := range list {
			if st.taken[r.key()] || !st.tables[familyOf(r.dst.Addr())][r.table] {
				return fail()
			}
		}
	}
	return d, true
}

func (c *crowd) setID(r addrRange, epoch uint64) setID {
	return setID{c.setName(kindOf(r), epoch), kindOf(r)}
}

func (n *Net) routesOf(q *Policy, list *[]route) {
	n.now.plan.routesOf(q, &n.opt, func(r route) { *list = append(*list, r) })
}

func deviceSet(names []string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, d := range names {
		m[d] = true
	}
	return m
}

// change puts elements into sets and takes others out, in one transaction.
func (r *ruler) change(in, out map[setID][]jump) error {
	if len(in)+len(out) == 0 {
		return nil
	}
	if r.lasting == nil {
		c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *mdlayher.Conn) error {
			return errors.Join(c.SetReadBuffer(socketBuffer), c.SetWriteBuffer(socketBuffer))
		}))
		if err != nil {
			return err
		}
		r.lasting = c
	}
	c := r.lasting
	for id, list := range out {
		set := r.set(id.name, id.kind.v6(), true, !id.kind.ranges())
		if err := inParts(elements(set, list), func(part []nftables.SetElement) error { return c.SetDeleteElements(set, part) }); err != nil {
			return err
		}
	}
	for id, list := range in {
		set := r.set(id.name, id.kind.v6(), true, !id.kind.ranges())
		if err := inParts(elements(set, list), func(part []nftables.SetElement) error { return c.SetAddElements(set, part) }); err != nil {
			return err
		}
	}
	r.known = false
	if err := c.Flush(); err != nil {
		_ = c.CloseLasting()
		r.lasting = nil
		return err
	}
	r.known = true
	for id, list := range out {
		gone := make(map[addrRange]bool, len(list))
		for _, j := range list {
			gone[j.r] = true
		}
		r.have.maps[id.name] = slices.DeleteFunc(r.have.maps[id.name], func(j jump) bool { return gone[j.r] })
	}
	for id, list := range in {
		r.have.maps[id.name] = append(r.have.maps[id.name], list...)
	}
	return nil
}

// routeParts is how many routes go to the kernel in one system call.
const routeParts = 64

// send adds (or replaces) or deletes routes, many at a time.
func (f *fib) send(typ uint16, routes []route) error {
	if len(routes) == 0 {
		return nil
	}
	if f.batch == nil {
		c, err := mdlayher.Dial(unix.NETLINK_ROUTE, nil)
		if err != nil {
			return err
		}
		f.batch = c
	}
	var errs []error
	for part := range slices.Chunk(routes, routeParts) {
		msgs := make([]mdlayher.Message, 0, len(part)+1)
		for _, r := range part {
			body, err := f.encode(r)
			if err != nil {
				return err
			}
			flags := mdlayher.Request
			if typ == unix.RTM_NEWROUTE {
				flags |= mdlayher.Create | mdlayher.Replace
			}
			msgs = append(msgs, mdlayher.Message{Header: mdlayher.Header{Type: mdlayher.HeaderType(typ), Flags: flags}, Data: body})
		}
		// Refusals are always told; that there are no more of them tells the answer to
		// a message that does nothing.
		msgs = append(msgs, mdlayher.Message{Header: mdlayher.Header{Type: mdlayher.Noop, Flags: mdlayher.Request | mdlayher.Acknowledge}})
		err := f.exchange(msgs, typ == unix.RTM_DELROUTE, &errs)
		if err != nil {
			_ = f.batch.Close()
			f.batch = nil
			return err
		}
	}
	return errors.Join(errs...)
}

// exchange sends messages and reads their answers. Refusals of single routes are
// collected, three of them.
func (f *fib) exchange(msgs []mdlayher.Message, ignore bool, errs *[]error) error {
	if _, err := f.batch.SendMessages(msgs); err != nil {
		return err
	}
	for range len(msgs) {
		_, err := f.batch.Receive()
		if err == nil {
			return nil
		}
		var op *mdlayher.OpError
		if !errors.As(err, &op) || op.Op != "receive" || errors.Is(err, unix.ENOBUFS) {
			return err
		}
		if len(*errs) < 3 && (!ignore || ignoreGone(op.Err) != nil) {
			*errs = append(*errs, op.Err)
		}
	}
	return errors.New("rtnetlink: no answer")
}

// encode is the body of a route message: struct rtmsg and attributes (rtnetlink(7)).
func (f *fib) encode(r route) ([]byte, error) {
	v6 := r.dst.Addr().Is6()
	head := [12]byte{0: unix.AF_INET, 1: byte(r.dst.Bits()), 4: unix.RT_TABLE_UNSPEC, 5: byte(f.opt.Protocol), 6: unix.RT_SCOPE_LINK, 7: unix.RTN_UNICAST}
	if v6 {
		head[0], head[6] = unix.AF_INET6, unix.RT_SCOPE_UNIVERSE
	}
	a := mdlayher.NewAttributeEncoder()
	address := func(typ uint16, x netip.Addr) { a.Bytes(typ, x.AsSlice()) }
	address(unix.RTA_DST, r.dst.Addr())
	a.Uint32(unix.RTA_TABLE, uint32(r.table))
	a.Uint32(unix.RTA_OIF, uint32(r.link))
	if r.src.IsValid() {
		address(unix.RTA_PREFSRC, r.src)
	}
	if r.mtu > 0 {
		a.Nested(unix.RTA_METRICS, func(m *mdlayher.AttributeEncoder) error {
			m.Uint32(unix.RTAX_MTU, uint32(r.mtu))
			return nil
		})
	}
	body, err := a.Encode()
	return append(head[:], body...), err
}
