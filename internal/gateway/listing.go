package gateway

import (
	"context"
	"slices"
	"sync"
	"time"

	"adit/ike"
	"adit/ipsec"
)

// A listing reads the engine's state a page at a time: other inputs have their turn
// between two pages, and no more than one page is held, however many IKE SAs there
// are and however slowly they are taken.
const (
	listPage = 128                    // IKE SAs in one turn of the shard, at most
	listTurn = 500 * time.Microsecond // how long one turn takes, about
)

// Listed says which IKE SAs are listed; the zero value means all.
type Listed struct {
	Name string // of the connection
	ID   uint32 // unique number
}

// EachSA calls f for every IKE SA that l selects, oldest first, from the caller's own
// thread, and ends with the first error of f. Each one is as it was when its page was
// read; those that went meanwhile are left out, those that came are, too.
func (g *Gateway) EachSA(ctx context.Context, l Listed, f func(ike.SAInfo) error) error {
	ids := []uint32{l.ID}
	if l.ID == 0 {
		if err := g.shard.call(ctx, func(e *ike.Engine) { ids = e.IDs(l.Name) }); err != nil {
			return err
		}
		slices.Sort(ids)
	}
	page := make([]ike.SAInfo, 0, min(len(ids), listPage))
	for len(ids) > 0 {
		page = page[:0]
		if err := g.shard.call(ctx, func(e *ike.Engine) { ids, page = readPage(e, ids, page) }); err != nil {
			return err
		}
		for _, sa := range page {
			if l.Name != "" && sa.Name != l.Name {
				continue
			}
			if err := f(sa); err != nil {
				return err
			}
		}
	}
	return nil
}

// readPage appends the next IKE SAs to page and returns the numbers that are left.
func readPage(e *ike.Engine, ids []uint32, page []ike.SAInfo) ([]uint32, []ike.SAInfo) {
	for end := time.Now().Add(listTurn); len(ids) > 0 && len(page) < listPage; {
		if sa, ok := e.SA(ids[0]); ok {
			page = append(page, sa)
		}
		if ids = ids[1:]; !time.Now().Before(end) {
			break
		}
	}
	return ids, page
}

// SAs are all IKE SAs with their Child SAs, oldest first.
func (g *Gateway) SAs(ctx context.Context) ([]ike.SAInfo, error) {
	var out []ike.SAInfo
	err := g.EachSA(ctx, Listed{}, func(sa ike.SAInfo) error {
		out = append(out, sa)
		return nil
	})
	return out, err
}

// HalfOpenLimited reports whether so many IKE SAs are being set up that no more of the
// peers' are taken (init_limit_half_open): an initiation that minds limits is not begun.
func (g *Gateway) HalfOpenLimited(ctx context.Context) bool {
	limited := false
	_ = g.shard.call(ctx, func(e *ike.Engine) { limited = e.HalfOpenLimited() })
	return limited
}

// Query reads the data plane's counters of a Child SA. Within an event that tells of
// its end they are what it ended with.
func (g *Gateway) Query(child uint32) (in, out ipsec.SAStats) {
	in, isIn := g.opt.Dataplane.Query(ipsec.SARef{Child: child, Dir: ipsec.In})
	out, isOut := g.opt.Dataplane.Query(ipsec.SARef{Child: child, Dir: ipsec.Out})
	if !isIn && !isOut {
		st := g.departed.get(child)
		return st.In, st.Out
	}
	return in, out
}

// departed has the last counters of the Child SAs that one input to the engine ended:
// they are gone from the data plane when the events that tell of it are published.
type departed struct {
	mu   sync.Mutex
	last map[uint32]ike.ChildStats
}

func (d *departed) put(child uint32, st ike.ChildStats) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last == nil {
		d.last = map[uint32]ike.ChildStats{}
	}
	if len(d.last) < limitDeparted {
		d.last[child] = st
	}
}

func (d *departed) get(child uint32) ike.ChildStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last[child]
}

// forget is called when the events of an input are published.
func (d *departed) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = nil
}
