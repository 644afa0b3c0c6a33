package userspace

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"adit/ipsec"
)

// entry is one policy of the SPD. The policy itself never changes; its outbound
// SA does, at every rekey, without touching the index or any cached flow.
type entry struct {
	policy   ipsec.Policy
	prefixes []netip.Prefix // under which it is indexed; nil: in spd.wide
	out      atomic.Pointer[sa]
	// single are the SAs of single workers, asked when each asked for its own, as Unix
	// seconds; both nil where there are none.
	single []atomic.Pointer[sa]
	asked  []atomic.Int64

	mu       sync.Mutex // of what follows, and of setting out from nil
	gone     bool
	waiting  []waiter
	bytes    int
	acquired time.Time
}

// waiter is a packet that waits for an SA.
type waiter struct {
	packet []byte
	since  time.Time
}

// removed reports whether the policy left the SPD.
func (e *entry) removed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.gone
}

// current is the SA that protects packets of the policy now, or nil.
func (e *entry) current() *sa {
	s := e.out.Load()
	for s != nil && s.dead.Load() {
		next := e.out.Load()
		if next == s {
			return nil
		}
		s = next // a rekey replaced it between the two looks
	}
	return s
}

// of is the worker's own SA, nil: it has none.
func (e *entry) of(worker int) *sa {
	if worker < len(e.single) {
		if s := e.single[worker].Load(); s != nil && !s.dead.Load() {
			return s
		}
	}
	return nil
}

// before is the order of the SPD (RFC 4301 §4.4.1): by priority, then by ID.
func (e *entry) before(o *entry) bool {
	if e.policy.Priority != o.policy.Priority {
		return e.policy.Priority < o.policy.Priority
	}
	return e.policy.ID < o.policy.ID
}

// spd is the outbound SPD, indexed by remote prefix. Readers are workers whose
// flow cache missed.
type spd struct {
	mu    sync.RWMutex
	gen   atomic.Uint64 // changes whenever a lookup may come out differently
	index map[netip.Prefix][]*entry
	lens4 [33]int // number of indexed prefixes by length
	lens6 [129]int
	wide  []*entry
}

func insertEntry(list []*entry, e *entry) []*entry {
	i, _ := slices.BinarySearchFunc(list, e, func(a, b *entry) int {
		switch {
		case a == b:
			return 0
		case a.before(b):
			return -1
		}
		return 1
	})
	return slices.Insert(list, i, e)
}

func removeEntry(list []*entry, e *entry) []*entry {
	if i := slices.Index(list, e); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}

func (d *spd) lens(p netip.Prefix) *int {
	if p.Addr().Is4() {
		return &d.lens4[p.Bits()]
	}
	return &d.lens6[p.Bits()]
}

// replace takes old out and puts e in, either of which may be nil, in one step.
func (d *spd) replace(old, e *entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old != nil {
		for _, p := range old.prefixes {
			if l := removeEntry(d.index[p], old); len(l) > 0 {
				d.index[p] = l
			} else {
				delete(d.index, p)
				*d.lens(p)--
			}
		}
		d.wide = removeEntry(d.wide, old)
	}
	if e != nil {
		for _, p := range e.prefixes {
			if len(d.index[p]) == 0 {
				*d.lens(p)++
			}
			d.index[p] = insertEntry(d.index[p], e)
		}
		if e.prefixes == nil {
			d.wide = insertEntry(d.wide, e)
		}
	}
	d.gen.Add(1)
}

// find returns the first policy in the SPD's order that covers the flow, or nil.
func (d *spd) find(f *flow, ifID uint32) *entry {
	d.mu.RLock()
	defer d.mu.RUnlock()
	_, dst := f.addrs()
	best := first(d.wide, nil, f, ifID)
	if f.v6 {
		for bits, n := range d.lens6 {
			if n > 0 {
				p, _ := dst.Prefix(bits)
				best = first(d.index[p], best, f, ifID)
			}
		}
		return best
	}
	for bits, n := range d.lens4 {
		if n > 0 {
			p, _ := dst.Prefix(bits)
			best = first(d.index[p], best, f, ifID)
		}
	}
	return best
}

// first returns the first match in an ordered list, unless best comes before it.
func first(list []*entry, best *entry, f *flow, ifID uint32) *entry {
	for _, e := range list {
		if best != nil && !e.before(best) {
			return best
		}
		if e.policy.IfID == ifID && matches(f, e.policy.Local, e.policy.Remote) {
			return e
		}
	}
	return best
}

// flowCache remembers decisions of one worker. It is of fixed size: a flow that
// falls on another's place takes it.
type flowCache struct {
	seed  maphash.Seed
	slots []cachedFlow
	last  *cachedFlow // that was asked for last: packets come in runs of one flow
}

type cachedFlow struct {
	flow  flow
	ifID  uint32
	gen   uint64
	entry *entry
}

func newFlowCache() flowCache {
	c := flowCache{seed: maphash.MakeSeed(), slots: make([]cachedFlow, limitFlows)}
	c.last = &c.slots[0]
	return c
}

func (c *cachedFlow) is(f *flow, ifID uint32, gen uint64) bool {
	return c.gen == gen && c.entry != nil && c.ifID == ifID && c.flow == *f
}

func (c *flowCache) find(d *spd, f *flow, ifID uint32) *entry {
	gen := d.gen.Load()
	if c.last.is(f, ifID, gen) {
		return c.last.entry
	}
	slot := &c.slots[maphash.Comparable(c.seed, *f)&(limitFlows-1)]
	c.last = slot
	if slot.is(f, ifID, gen) {
		return slot.entry
	}
	e := d.find(f, ifID)
	*slot = cachedFlow{*f, ifID, gen, e}
	return e
}
