package hostnet

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// tableName is our nftables table, of family inet.
const tableName = "adit"

// baseArriving is the base chain that every program has.
const baseArriving = "arriving"

// program is the whole content of our table, as plain values. A chain that is no
// base chain is named after its content, so that what two programs have in
// common is left alone when one replaces the other; the epoch in the names of
// chains and maps keeps those of a dead instance apart.
type program struct {
	bases    []baseChain
	chains   []ruleChain
	maps     []verdictMap
	counters map[string]bool
}

type baseChain struct {
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
	rules    []exprs
}

type ruleChain struct {
	name  string
	rules func() []exprs
}

// verdictMap leads an address to the chain of the rules that concern it.
type verdictMap struct {
	name  string
	v6    bool
	set   bool // of addresses alone: the remote sides of a crowd
	exact bool // a set of single addresses
	jumps []jump
}

// jump is an interval of a verdictMap with the name of its chain; without one
// the packet is accepted.
type jump struct {
	r     addrRange
	chain string
}

// exprs is one rule: its expressions in order.
type exprs = []expr.Any

// The hooks' priorities. Steering and the inbound guard come after destination
// NAT (-100) and right before the routing decision; the outbound guard looks
// before and after source NAT (100), for what counts is what is on the wire.
const (
	priorityRoute    = -90
	priorityLeave    = -150
	priorityLeft     = 110
	maxLists         = 60000 // rules in a dispatch before it becomes coarse
	counterOut       = "o_"
	counterIn        = "i_"
	fibLocal         = 2 // RTN_LOCAL
	offDst4, offDst6 = 16, 24
	offSrc4, offSrc6 = 12, 8
)

// counterName makes a counter's name from a policy's ID, which may be anything.
func counterName(prefix, id string) string {
	h := sha256.Sum256([]byte(id))
	return prefix + hex.EncodeToString(h[:12])
}

// purpose is what a set of rule chains is for.
type purpose struct {
	name    string
	inbound bool // matches packets from remote to local
	// guard: the packets are accepted unless a rule of their chain drops them,
	// and dropped if the map knows nothing of their address, which can only be
	// when a transaction replaces the map while the packet is on its way: chains
	// switch at once, but elements vanish from under a chain that still runs.
	guard bool
	act   func(b *builder, q *Policy, r row) []expr.Any
}

// builder makes the program of one plan.
type builder struct {
	p     *plan
	o     *Options
	epoch uint64
	out   program
}

func buildProgram(p *plan, o *Options, epoch uint64) *program {
	b := &builder{p: p, o: o, epoch: epoch, out: program{counters: map[string]bool{}}}
	for i := range p.state.Policies {
		if q := &p.state.Policies[i]; q.Action != Bypass && !o.GuardOff {
			b.out.counters[counterName(counterOut, p.counterID(i))] = true
			b.out.counters[counterName(counterIn, p.counterID(i))] = true
		}
	}
	b.crowdSets()
	steer := b.dispatch(purpose{name: "s", act: (*builder).steer})
	pre := b.prerouting(steer)
	out := b.output(steer)
	bases := []*baseChain{pre, out}
	if !o.GuardOff {
		in := b.dispatch(purpose{name: "i", inbound: true, guard: true, act: (*builder).refuseIn})
		b.guardIn(pre, in)
		leave := b.dispatch(purpose{name: "o", guard: true, act: (*builder).refuseOut})
		bases = append(bases, b.postrouting("leaving", priorityLeave, leave),
			b.postrouting("left", priorityLeft, leave))
	}
	if nat := b.masquerade(); nat != nil {
		bases = append(bases, nat)
	}
	for _, c := range bases {
		b.out.bases = append(b.out.bases, *c)
	}
	return &b.out
}

// dispatch adds the maps and chains of a purpose and returns the rules that look
// an address up, a family at a time; a family without policies has none.
func (b *builder) dispatch(u purpose) []exprs {
	lookups := b.crowdRules(u)
	for f, rows := range b.p.rows {
		if len(rows) == 0 {
			continue
		}
		ranges := make([]addrRange, len(rows))
		for i, r := range rows {
			ranges[i] = r.remote
		}
		d, fine := cut(ranges, maxLists)
		if !fine {
			d = cutCoarse(ranges)
		}
		if u.guard {
			d.total(ranges[0].from)
		}
		prefix := fmt.Sprintf("%s%d_%d", u.name, 4+2*f, b.epoch)
		names := make([]string, len(d.lists))
		for n, list := range d.lists {
			names[n] = prefix + "_" + b.fingerprint(rows, list, fine)
			b.out.chains = append(b.out.chains, ruleChain{names[n], func() []exprs {
				var rules []exprs
				for _, i := range list {
					rules = append(rules, b.rowRules(u, rows[i], !fine)...)
				}
				if u.guard {
					rules = append(rules, exprs{verdict(expr.VerdictAccept)})
				}
				return rules
			}})
		}
		m := verdictMap{name: prefix, v6: f == 1}
		for _, s := range d.slots {
			j := jump{r: s.r}
			if s.list >= 0 {
				j.chain = names[s.list]
			}
			m.jumps = append(m.jumps, j)
		}
		b.out.maps = append(b.out.maps, m)
		lookups = append(lookups, lookup(m, u.inbound))
		if u.guard {
			lookups = append(lookups, append(family(m.v6), verdict(expr.VerdictDrop)))
		}
	}
	return lookups
}

// fingerprint names a list of rows by all that their rules depend on.
func (b *builder) fingerprint(rows []row, list []int, fine bool) string {
	h := sha256.New()
	for _, i := range list {
		r := rows[i]
		q := &b.p.state.Policies[r.policy]
		index, steered := b.p.device[q.Device]
		remote := addrRange{}
		if !fine {
			remote = r.remote
		}
		fmt.Fprintf(h, "%q %v %v %v %d %v %v %v %v %v", q.ID, q.Action, q.InstallRoutes, steered, index,
			r.local, remote, r.proto, r.lport, r.rport)
		for _, f := range r.both {
			fmt.Fprintf(h, " %v %v", f.src, f.dst)
		}
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// rowRules are the rules of one row: usually one; for a row with ports one more
// for fragments without ports.
func (b *builder) rowRules(u purpose, r row, explicitRemote bool) []exprs {
	q := &b.p.state.Policies[r.policy]
	act := u.act(b, q, r)
	v6 := r.remote.from.Is6()
	rules := b.fromTunnel(u, r)
	head := addrMatch(r.local, v6, u.inbound)
	if explicitRemote {
		head = append(head, addrMatch(r.remote, v6, !u.inbound)...)
	}
	if r.proto != 0 {
		head = append(head, protoIs(r.proto)...)
	}
	sport, dport := r.lport, r.rport
	if u.inbound {
		sport, dport = dport, sport
	}
	if sport.any && dport.any {
		return append(rules, slices.Concat(head, act))
	}
	if ports, ok := portMatch(r.proto, sport, dport); ok {
		rules = append(rules, slices.Concat(head, ports, act))
	}
	// A later fragment has no ports. It goes the way of the policy that it may
	// belong to, unless that way is in the clear.
	if q.Action != Bypass || sport.fragments || dport.fragments {
		rules = append(rules, slices.Concat(head, laterFragment(v6), act))
	}
	return rules
}

// fromTunnel are the rules before a row's own, for packets that came out of the
// tunnel by the same policy in its other direction.
func (b *builder) fromTunnel(u purpose, r row) []exprs {
	if u.inbound {
		return nil
	}
	leave := verdict(expr.VerdictReturn)
	if u.guard {
		leave = verdict(expr.VerdictAccept)
	}
	var rules []exprs
	v6 := r.remote.from.Is6()
	for _, f := range r.both {
		e := slices.Concat(b.markIs(expr.CmpOpEq, markInside), addrMatch(f.src, v6, false), addrMatch(f.dst, v6, true))
		if r.proto != 0 {
			e = append(e, protoIs(r.proto)...)
		}
		rules = append(rules, append(e, leave))
	}
	return rules
}

// steer marks the packets of a policy for the routing decision.
func (b *builder) steer(q *Policy, _ row) []expr.Any {
	index, ok := b.p.device[q.Device]
	switch {
	case q.Action == Bypass:
		return append(b.setMark(markBypass), verdict(expr.VerdictReturn))
	case q.Action == Protect && q.InstallRoutes && ok:
		return append(b.setMark(markSteer+index), verdict(expr.VerdictAccept))
	}
	return exprs{verdict(expr.VerdictReturn)}
}

func (b *builder) refuseOut(q *Policy, r row) []expr.Any { return b.refuse(counterOut, q, r) }
func (b *builder) refuseIn(q *Policy, r row) []expr.Any  { return b.refuse(counterIn, q, r) }

func (b *builder) refuse(prefix string, q *Policy, r row) []expr.Any {
	if q.Action == Bypass {
		return exprs{verdict(expr.VerdictAccept)}
	}
	id := q.ID
	if !r.remote.from.IsValid() { // of a crowd
		id = q.Group
	}
	return exprs{&expr.Objref{Type: int(nftables.ObjTypeCounter), Name: counterName(prefix, id)}, verdict(expr.VerdictDrop)}
}

// prerouting marks forwarded packets. Marks that came along are not believed.
func (b *builder) prerouting(steer []exprs) *baseChain {
	c := &baseChain{name: baseArriving, kind: nftables.ChainTypeFilter, hook: nftables.ChainHookPrerouting, priority: priorityRoute}
	c.rules = append(c.rules,
		slices.Concat(device(expr.MetaKeyIIF, loopback), exprs{verdict(expr.VerdictAccept)}),
		b.setMark(0))
	c.rules = append(c.rules, b.apart()...)
	c.rules = append(c.rules, b.ours(expr.MetaKeyIIFGROUP, b.setMark(markInside)...)...)
	c.rules = append(c.rules, steer...)
	return c
}

// guardIn goes on where prerouting ends: what came by our devices or belongs to
// IKE, ESP (and the ICMP errors about them), neighbour discovery or DHCP of the
// host itself passes.
func (b *builder) guardIn(c *baseChain, in []exprs) {
	c.rules = append(c.rules, b.ours(expr.MetaKeyIIFGROUP, verdict(expr.VerdictAccept))...)
	accept := exprs{verdict(expr.VerdictAccept)}
	local := exprs{&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true},
		compare(expr.CmpOpEq, native32(fibLocal))}
	for _, port := range b.o.IKEPorts {
		c.rules = append(c.rules, slices.Concat(protoIs(protoUDP), portIs(2, port), local, accept))
	}
	c.rules = append(c.rules, slices.Concat(protoIs(protoESP), local, accept))
	// Later fragments of IKE and ESP: nothing comes of them without a first
	// fragment, which is judged by its ports.
	for _, v6 := range []bool{false, true} {
		c.rules = append(c.rules, slices.Concat(family(v6), laterFragment(v6), protoIs(protoUDP), local, accept))
	}
	for _, v6 := range []bool{false, true} {
		for _, quoted := range append([]exprs{quotesProto(v6, protoESP)}, quotesPorts(v6, b.o.IKEPorts)...) {
			for _, icmp := range icmpErrors(v6) {
				c.rules = append(c.rules, slices.Concat(family(v6), icmp, quoted, local, accept))
			}
		}
	}
	c.rules = append(c.rules, neighbourDiscovery(), slices.Concat(protoIs(protoUDP), portsAre(67, 68), local, accept),
		slices.Concat(protoIs(protoUDP), portsAre(547, 546), local, accept))
	c.rules = append(c.rules, in...)
}

// output marks packets of the host itself. What the first routing decision led
// into a device of ours by a hinted route, but which belongs to no policy, is
// sent on by the mark that our rules don't know.
func (b *builder) output(steer []exprs) *baseChain {
	c := &baseChain{name: "sending", kind: nftables.ChainTypeRoute, hook: nftables.ChainHookOutput, priority: priorityRoute}
	accept := exprs{verdict(expr.VerdictAccept)}
	c.rules = append(c.rules,
		slices.Concat(b.markIs(expr.CmpOpEq, markOwn), accept),
		slices.Concat(device(expr.MetaKeyOIF, loopback), accept),
		neighbourDiscovery(),
		slices.Concat(protoIs(protoUDP), portsAre(68, 67), b.setMark(markBypass), accept),
		slices.Concat(protoIs(protoUDP), portsAre(546, 547), b.setMark(markBypass), accept))
	c.rules = append(c.rules, steer...)
	c.rules = append(c.rules, b.ours(expr.MetaKeyOIFGROUP, b.setMark(markBypass)...)...)
	return c
}

// ours is the rule for packets of our devices, if there are any, known by their
// group.
func (b *builder) ours(key expr.MetaKey, act ...expr.Any) []exprs {
	if len(b.p.state.Devices) == 0 {
		return nil
	}
	return []exprs{append(device(key, deviceGroup), act...)}
}

// postrouting is the outbound guard. What goes into the tunnel and what comes of it
// are the many packets, hence the first rules.
func (b *builder) postrouting(name string, priority nftables.ChainPriority, leave []exprs) *baseChain {
	c := &baseChain{name: name, kind: nftables.ChainTypeFilter, hook: nftables.ChainHookPostrouting, priority: priority}
	accept := exprs{verdict(expr.VerdictAccept)}
	c.rules = append(c.rules, b.ours(expr.MetaKeyOIFGROUP, accept...)...)
	c.rules = append(c.rules,
		slices.Concat(b.markIs(expr.CmpOpEq, markOwn), accept),
		slices.Concat(device(expr.MetaKeyOIF, loopback), accept))
	local := exprs{&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagSADDR: true},
		compare(expr.CmpOpEq, native32(fibLocal))}
	c.rules = append(c.rules, neighbourDiscovery(),
		slices.Concat(protoIs(protoUDP), portsAre(68, 67), local, accept),
		slices.Concat(protoIs(protoUDP), portsAre(546, 547), local, accept))
	c.rules = append(c.rules, leave...)
	return c
}

func (b *builder) setMark(value int) exprs { return markSet(b.o.MarkMask, b.o.mark(value)) }

func (b *builder) markIs(op expr.CmpOp, value int) exprs {
	return markCompare(b.o.MarkMask, op, b.o.mark(value))
}
