package hostnet

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	mdlayher "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ruler installs programs into the kernel's nftables. Each install is one
// transaction: packets meet the old program or the new one, never none.
type ruler struct {
	opt   *Options
	table *nftables.Table
	gen   uint64
	known bool // have mirrors the kernel
	have  inventory
	ids   map[string]string // counter name → policy ID
}

// inventory lists what our table has, so that a transaction can name it.
type inventory struct {
	exists                        bool
	bases, chains, maps, counters []string
}

// socketBuffer is for a netlink socket's buffers in bytes: a transaction of
// thousands of policies is sent at once and each part of it is acknowledged.
const socketBuffer = 256 << 20

// maxElements bounds the map elements in one netlink message, whose attribute
// lengths have 16 bits.
const maxElements = 400

func newRuler(o *Options) (*ruler, error) {
	r := &ruler{opt: o, ids: map[string]string{},
		table: &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}}
	if err := r.look(); err != nil {
		return nil, fmt.Errorf("hostnet: nftables: %w", err)
	}
	return r, nil
}

func (r *ruler) conn() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(c *mdlayher.Conn) error {
		return errors.Join(c.SetReadBuffer(socketBuffer), c.SetWriteBuffer(socketBuffer))
	}))
}

// look reads the inventory of our table, possibly of a dead instance.
func (r *ruler) look() error {
	r.have, r.known = inventory{}, false
	c, err := r.conn()
	if err != nil {
		return err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return err
	}
	r.have.exists = slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName })
	r.known = true
	if !r.have.exists {
		return nil
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return err
	}
	for _, ch := range chains {
		if ch.Table.Name != tableName {
			continue
		}
		if ch.Hooknum != nil {
			r.have.bases = append(r.have.bases, ch.Name)
		} else {
			r.have.chains = append(r.have.chains, ch.Name)
			r.noteGeneration(ch.Name)
		}
	}
	sets, err := c.GetSets(r.table)
	if err != nil {
		return err
	}
	for _, s := range sets {
		r.have.maps = append(r.have.maps, s.Name)
		r.noteGeneration(s.Name)
	}
	objs, err := c.GetNamedObjects(r.table)
	if err != nil {
		return err
	}
	for _, o := range objs {
		if n, ok := o.(*nftables.NamedObj); ok && n.Type == nftables.ObjTypeCounter {
			r.have.counters = append(r.have.counters, n.Name)
		}
	}
	return nil
}

// noteGeneration keeps our names apart from those in the table.
func (r *ruler) noteGeneration(name string) {
	if _, rest, ok := strings.Cut(name, "_"); ok {
		var gen uint64
		if n, _ := fmt.Sscanf(rest, "%d", &gen); n == 1 && gen > r.gen {
			r.gen = gen
		}
	}
}

// install replaces the table's content by the plan's program.
func (r *ruler) install(p *plan) error {
	err := r.replace(p)
	if err == nil {
		return nil
	}
	// Somebody changed the table behind our back, or flushed the whole ruleset:
	// look again, once.
	if lookErr := r.look(); lookErr != nil {
		return errors.Join(err, lookErr)
	}
	return r.replace(p)
}

func (r *ruler) replace(p *plan) error {
	if !r.known {
		if err := r.look(); err != nil {
			return err
		}
	}
	c, err := r.conn()
	if err != nil {
		return err
	}
	r.gen++
	prog := buildProgram(p, r.opt, r.gen)
	c.AddTable(r.table)
	r.clear(c, prog)
	next := inventory{exists: true}
	for name := range prog.counters {
		if !slices.Contains(r.have.counters, name) {
			c.AddObj(&nftables.NamedObj{Table: r.table, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
		}
		next.counters = append(next.counters, name)
	}
	for _, ch := range prog.chains {
		kc := c.AddChain(&nftables.Chain{Table: r.table, Name: ch.name})
		for _, e := range ch.rules {
			c.AddRule(&nftables.Rule{Table: r.table, Chain: kc, Exprs: e})
		}
		next.chains = append(next.chains, ch.name)
	}
	for _, m := range prog.maps {
		if err := r.addMap(c, m); err != nil {
			return err
		}
		next.maps = append(next.maps, m.name)
	}
	accept := nftables.ChainPolicyAccept
	for _, b := range prog.bases {
		kc := c.AddChain(&nftables.Chain{Table: r.table, Name: b.name, Type: b.kind, Hooknum: b.hook,
			Priority: &b.priority, Policy: &accept})
		for _, e := range b.rules {
			c.AddRule(&nftables.Rule{Table: r.table, Chain: kc, Exprs: e})
		}
		next.bases = append(next.bases, b.name)
	}
	for _, name := range r.have.counters {
		if !prog.counters[name] {
			c.DeleteObject(&nftables.NamedObj{Table: r.table, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
		}
	}
	r.known = false
	if err := c.Flush(); err != nil {
		return err
	}
	r.have, r.known = next, true
	r.ids = map[string]string{}
	for i := range p.state.Policies {
		id := p.state.Policies[i].ID
		r.ids[counterName(counterOut, id)], r.ids[counterName(counterIn, id)] = id, id
	}
	return nil
}

// clear takes everything but counters out of the table, in the order in which
// nothing is removed that is still referred to.
//
// Base chains that stay are emptied, not replaced: a packet reads its chain's
// rules of the old or the new generation at once, but two chains on one hook it
// may read on either side of the switch, and find both empty.
func (r *ruler) clear(c *nftables.Conn, next *program) {
	for _, name := range r.have.bases {
		ch := &nftables.Chain{Table: r.table, Name: name}
		c.FlushChain(ch)
		if !slices.ContainsFunc(next.bases, func(b baseChain) bool { return b.name == name }) {
			c.DelChain(ch)
		}
	}
	for _, name := range r.have.maps {
		c.DelSet(&nftables.Set{Table: r.table, Name: name})
	}
	for _, name := range r.have.chains {
		c.DelChain(&nftables.Chain{Table: r.table, Name: name})
	}
}

func (r *ruler) addMap(c *nftables.Conn, m verdictMap) error {
	set := &nftables.Set{Table: r.table, Name: m.name, IsMap: true, Interval: true,
		KeyType: nftables.TypeIPAddr, DataType: nftables.TypeVerdict, KeyByteOrder: binaryutil.BigEndian}
	if m.v6 {
		set.KeyType = nftables.TypeIP6Addr
	}
	if err := c.AddSet(set, nil); err != nil {
		return err
	}
	var elems []nftables.SetElement
	for _, s := range m.slots {
		v := &expr.Verdict{Kind: expr.VerdictAccept}
		if s.list >= 0 {
			v = &expr.Verdict{Kind: expr.VerdictJump, Chain: m.chain(s.list)}
		}
		elems = append(elems, nftables.SetElement{Key: s.r.from.AsSlice(), VerdictData: v})
		if end := s.r.to.Next(); end.IsValid() {
			elems = append(elems, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	for part := range slices.Chunk(elems, maxElements) {
		if err := c.SetAddElements(set, part); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes the table with all that is in it.
func (r *ruler) remove() error {
	c, err := r.conn()
	if err != nil {
		return err
	}
	c.DelTable(r.table)
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("hostnet: removing the guard: %w", err)
	}
	return nil
}

func (r *ruler) counters() (map[string]PolicyCount, error) {
	c, err := r.conn()
	if err != nil {
		return nil, fmt.Errorf("hostnet: counters: %w", err)
	}
	objs, err := c.GetNamedObjects(r.table)
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			return map[string]PolicyCount{}, nil
		}
		return nil, fmt.Errorf("hostnet: counters: %w", err)
	}
	counts := map[string]PolicyCount{}
	for _, o := range objs {
		n, ok := o.(*nftables.NamedObj)
		if !ok || n.Type != nftables.ObjTypeCounter {
			continue
		}
		id, ok := r.ids[n.Name]
		v, isCounter := n.Obj.(*expr.Counter)
		if !ok || !isCounter {
			continue
		}
		pc := counts[id]
		if strings.HasPrefix(n.Name, counterOut) {
			pc.Out = Count{v.Packets, v.Bytes}
		} else {
			pc.In = Count{v.Packets, v.Bytes}
		}
		counts[id] = pc
	}
	return counts, nil
}
