package hostnet

import (
	"crypto/sha256"
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
	epoch uint64 // of the program's names; a new one starts from nothing
	known bool   // have mirrors the kernel
	have  inventory
	ids   map[string]string // counter name → policy ID

	lasting *nftables.Conn // of change, nil until it is needed
}

// inventory lists what our table has, so that a transaction can name it. What a
// dead instance left is known by name only: its chains' and maps' content is
// unlike any of ours.
type inventory struct {
	bases    map[string]string // name → digest of the rules
	chains   map[string]bool
	maps     map[string][]jump
	counters map[string]bool
}

func newInventory() inventory {
	return inventory{map[string]string{}, map[string]bool{}, map[string][]jump{}, map[string]bool{}}
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
	r.have, r.known = newInventory(), false
	c, err := r.conn()
	if err != nil {
		return err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName }) {
		r.known = true
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
			r.have.bases[ch.Name] = ""
		} else {
			r.have.chains[ch.Name] = true
			r.noteEpoch(ch.Name)
		}
	}
	sets, err := c.GetSets(r.table)
	if err != nil {
		return err
	}
	for _, s := range sets {
		r.have.maps[s.Name] = nil
		r.noteEpoch(s.Name)
	}
	objs, err := c.GetNamedObjects(r.table)
	if err != nil {
		return err
	}
	for _, o := range objs {
		if n, ok := o.(*nftables.NamedObj); ok && n.Type == nftables.ObjTypeCounter {
			r.have.counters[n.Name] = true
		}
	}
	r.epoch++
	r.known = true
	return nil
}

// noteEpoch keeps our names apart from those in the table.
func (r *ruler) noteEpoch(name string) {
	if _, rest, ok := strings.Cut(name, "_"); ok {
		var epoch uint64
		if n, _ := fmt.Sscanf(rest, "%d", &epoch); n == 1 && epoch > r.epoch {
			r.epoch = epoch
		}
	}
}

// install makes the plan's program the table's content, changing only what is
// different.
func (r *ruler) install(p *plan) error {
	err := r.replace(p)
	if err == nil {
		return nil
	}
	// Somebody changed the table behind our back, or flushed the whole ruleset:
	// look again, once, and start from nothing.
	if lookErr := r.look(); lookErr != nil {
		return errors.Join(err, lookErr)
	}
	return r.replace(p)
}

// check makes sure that the table is still there.
func (r *ruler) check(c *nftables.Conn) error {
	if r.known && len(r.have.bases) > 0 {
		chains, err := c.ListChain(r.table, baseArriving)
		r.known = err == nil && chains != nil
	}
	if r.known {
		return nil
	}
	return r.look()
}

func (r *ruler) replace(p *plan) error {
	c, err := r.conn()
	if err != nil {
		return err
	}
	if err := r.check(c); err != nil {
		return err
	}
	prog := buildProgram(p, r.opt, r.epoch)
	next := newInventory()
	c.AddTable(r.table)
	for name := range prog.counters {
		if !r.have.counters[name] {
			c.AddObj(r.counter(name))
		}
		next.counters[name] = true
	}
	for _, ch := range prog.chains {
		if !r.have.chains[ch.name] && !next.chains[ch.name] {
			kc := c.AddChain(&nftables.Chain{Table: r.table, Name: ch.name})
			for _, e := range ch.rules() {
				c.AddRule(&nftables.Rule{Table: r.table, Chain: kc, Exprs: e})
			}
		}
		next.chains[ch.name] = true
	}
	var later []func() error
	for _, m := range prog.maps {
		if err := r.setMap(c, m, &later); err != nil {
			return err
		}
		next.maps[m.name] = m.jumps
	}
	for _, b := range prog.bases {
		if next.bases[b.name], err = r.setBase(c, b); err != nil {
			return err
		}
	}
	r.clear(c, next)
	r.known = false
	if err := c.Flush(); err != nil {
		return err
	}
	// What left a crowd for the maps is in both for a moment, never in neither.
	for _, remove := range later {
		if err := remove(); err != nil {
			return err
		}
	}
	if err := c.Flush(); err != nil {
		return err
	}
	r.have, r.known = next, true
	r.ids = map[string]string{}
	for i := range p.state.Policies {
		id := p.counterID(i)
		r.ids[counterName(counterOut, id)], r.ids[counterName(counterIn, id)] = id, id
	}
	return nil
}

func (r *ruler) counter(name string) *nftables.NamedObj {
	return &nftables.NamedObj{Table: r.table, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}}
}

// setBase gives a base chain its rules and returns their digest.
//
// A base chain that exists is emptied, not replaced: a packet reads its chain's
// rules of the old or the new generation at once, but two chains on one hook it
// may read on either side of the switch, and find both empty.
func (r *ruler) setBase(c *nftables.Conn, b baseChain) (string, error) {
	h := sha256.New()
	for _, e := range b.rules {
		for _, x := range e {
			raw, err := expr.Marshal(byte(r.table.Family), x)
			if err != nil {
				return "", err
			}
			h.Write(raw)
		}
		h.Write([]byte{0})
	}
	digest := string(h.Sum(nil))
	old, exists := r.have.bases[b.name]
	if exists && old == digest {
		return digest, nil
	}
	accept := nftables.ChainPolicyAccept
	kc := &nftables.Chain{Table: r.table, Name: b.name, Type: b.kind, Hooknum: b.hook, Priority: &b.priority, Policy: &accept}
	if exists {
		c.FlushChain(kc)
	} else {
		c.AddChain(kc)
	}
	for _, e := range b.rules {
		c.AddRule(&nftables.Rule{Table: r.table, Chain: kc, Exprs: e})
	}
	return digest, nil
}

// clear removes what the next program doesn't have, in the order in which
// nothing is removed that is still referred to.
func (r *ruler) clear(c *nftables.Conn, next inventory) {
	for name := range r.have.bases {
		if _, keep := next.bases[name]; !keep {
			ch := &nftables.Chain{Table: r.table, Name: name}
			c.FlushChain(ch)
			c.DelChain(ch)
		}
	}
	for name := range r.have.maps {
		if _, keep := next.maps[name]; !keep {
			c.DelSet(&nftables.Set{Table: r.table, Name: name})
		}
	}
	for name := range r.have.chains {
		if !next.chains[name] {
			c.DelChain(&nftables.Chain{Table: r.table, Name: name})
		}
	}
	for name := range r.have.counters {
		if !next.counters[name] {
			c.DeleteObject(r.counter(name))
		}
	}
}

// setMap makes a map or set or changes the intervals that are different. What
// leaves a set goes by a later transaction.
func (r *ruler) setMap(c *nftables.Conn, m verdictMap, later *[]func() error) error {
	set := r.set(m.name, m.v6, m.set, m.exact)
	old, exists := r.have.maps[m.name]
	if !exists {
		if err := c.AddSet(set, nil); err != nil {
			return err
		}
	}
	remove := func() error {
		return inParts(elements(set, difference(old, m.jumps)), func(part []nftables.SetElement) error { return c.SetDeleteElements(set, part) })
	}
	if m.set {
		*later = append(*later, remove)
	} else if err := remove(); err != nil {
		return err
	}
	return inParts(elements(set, difference(m.jumps, old)), func(part []nftables.SetElement) error { return c.SetAddElements(set, part) })
}

// set describes a map of addresses to verdicts, or a plain set of addresses.
func (r *ruler) set(name string, v6, plain, exact bool) *nftables.Set {
	set := &nftables.Set{Table: r.table, Name: name, IsMap: !plain, Interval: !exact,
		KeyType: nftables.TypeIPAddr, KeyByteOrder: binaryutil.BigEndian}
	if !plain {
		set.DataType = nftables.TypeVerdict
	}
	if v6 {
		set.KeyType = nftables.TypeIP6Addr
	}
	return set
}

func inParts(list []nftables.SetElement, f func([]nftables.SetElement) error) error {
	for part := range slices.Chunk(list, maxElements) {
		if err := f(part); err != nil {
			return err
		}
	}
	return nil
}

// difference returns what a has and b hasn't.
func difference(a, b []jump) []jump {
	in := make(map[jump]bool, len(b))
	for _, j := range b {
		in[j] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(j jump) bool { return in[j] })
}

// elements are the starts and ends of intervals as the kernel keeps them, or
// single addresses.
func elements(set *nftables.Set, jumps []jump) []nftables.SetElement {
	elems := make([]nftables.SetElement, 0, 2*len(jumps))
	for _, j := range jumps {
		v := &expr.Verdict{Kind: expr.VerdictAccept}
		if j.chain != "" {
			v = &expr.Verdict{Kind: expr.VerdictJump, Chain: j.chain}
		}
		if !set.IsMap {
			v = nil
		}
		elems = append(elems, nftables.SetElement{Key: j.r.from.AsSlice(), VerdictData: v})
		if end := j.r.to.Next(); set.Interval && end.IsValid() {
			elems = append(elems, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return elems
}

// remove deletes the table with all that is in it.
func (r *ruler) remove() error {
	c, err := r.conn()
	if err != nil {
		return err
	}
	if r.lasting != nil {
		_ = r.lasting.CloseLasting()
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
