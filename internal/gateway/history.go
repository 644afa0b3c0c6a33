package gateway

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// What has happened to connections: why they did not come up, how far a set-up is,
// when they were up. It is read by whoever has to explain; it decides nothing.

// attemptTimeout is how long the engine may take to say how things stand.
const attemptTimeout = 5 * time.Second

// Bounds of what is remembered.
const (
	limitHistories = limitConnections // connections with a history
	limitRefusals  = 4                // different refusals of one connection
	limitStrangers = 64               // different refusals that belong to no connection
	limitTrouble   = 16               // reasons for which datagrams were dropped
)

// Refusal is a negotiation that was refused, once or again and again.
type Refusal struct {
	Record      *ike.Rejection // the last one
	First, Last time.Time
	Count       int
	// Mended is when what was refused came up after it, zero: it has not.
	Mended time.Time
}

// SetUp is an IKE SA that is being made.
type SetUp struct {
	IKE     uint32 // its unique number
	Message string // summary of our last request
	Auth    bool   // that is IKE_AUTH: IKE_SA_INIT was answered
	Sent    int    // how often it was sent
	First   time.Time
	Last    time.Time
	Remote  string
}

// History is what is remembered of one connection. Refusals are in the order of
// their last time, the newest last.
type History struct {
	Refusals []Refusal
	SetUp    *SetUp // nil: none is under way, as far as we sent anything
	// Up and Down are when an IKE SA came up and went, DownReason why.
	Up, Down   time.Time
	DownReason string
}

// Trouble are datagrams that were dropped before they belonged to anybody.
type Trouble struct {
	ike.Dropped // Count since the start
	Last        time.Time
}

// histories keeps them. The engine's thread writes, others read.
type histories struct {
	mu        sync.Mutex
	now       func() time.Time
	byName    map[string]*History
	strangers []Refusal
	trouble   []Trouble
}

func (h *histories) init() { h.now, h.byName = time.Now, map[string]*History{} }

// History is what is remembered of a connection.
func (g *Gateway) History(name string) History {
	h := &g.histories
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.byName[name]
	if p == nil {
		return History{}
	}
	out := *p
	out.Refusals = slices.Clone(p.Refusals)
	if p.SetUp != nil {
		s := *p.SetUp
		out.SetUp = &s
	}
	return out
}

// Strangers are the refusals that belong to no connection, the newest last: of
// peers whose first message or identity none of them fits.
func (g *Gateway) Strangers() ([]Refusal, []Trouble) {
	h := &g.histories
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.strangers), slices.Clone(h.trouble)
}

// Attempt is how the connection's initiations stand.
func (g *Gateway) Attempt(name string) (a ike.Attempt, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), attemptTimeout)
	defer cancel()
	err = g.shard.call(ctx, func(e *ike.Engine) { a = e.Attempt(name) })
	return a, err
}

// of is the connection's history, made where there is none and room for one.
func (h *histories) of(name string) *History {
	p := h.byName[name]
	if p == nil && name != "" && len(h.byName) < limitHistories {
		p = &History{}
		h.byName[name] = p
	}
	return p
}

// forget drops what is known of connections that were unloaded.
func (h *histories) forget(name string) {
	h.mu.Lock()
	delete(h.byName, name)
	h.mu.Unlock()
}

// take learns from an event.
func (h *histories) take(e ike.Event) {
	switch e := e.(type) {
	case ike.Message:
		if !e.Out || e.Response || e.Exchange != wire.ExchangeIKESAInit && e.Exchange != wire.ExchangeIKEAuth {
			return // what comes often does not come here
		}
	case *ike.Rejection, ike.IKEUp, ike.IKEDown, ike.ChildUp, ike.Dropped:
	default:
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	switch e := e.(type) {
	case ike.Message:
		h.sent(e, now)
	case *ike.Rejection:
		h.refused(e, now)
	case ike.IKEUp:
		if p := h.of(e.SA.Name); p != nil {
			p.Up, p.SetUp = now, nil
			p.mend(now, func(r *ike.Rejection) bool { return r.Child == "" && !ofChild(r) })
			h.known(e.SA, now)
		}
	case ike.IKEDown:
		if p := h.of(e.SA.Name); p != nil {
			p.Down, p.DownReason = now, e.Reason
		}
	case ike.ChildUp:
		if p := h.of(e.SA.Name); p != nil {
			p.mend(now, func(r *ike.Rejection) bool { return r.Child == e.Child.Name || r.Child == "" })
		}
	case ike.Dropped:
		h.dropped(e, now)
	}
}

func (h *histories) sent(m ike.Message, now time.Time) {
	p := h.of(m.Name)
	if p == nil || !m.Whole && m.Retransmit == 0 {
		return
	}
	auth := m.Exchange == wire.ExchangeIKEAuth
	if s := p.SetUp; s != nil && s.IKE == m.ID && s.Message == m.Summary {
		s.Sent, s.Last = max(s.Sent, m.Retransmit+1), now
		return
	}
	p.SetUp = &SetUp{IKE: m.ID, Message: m.Summary, Auth: auth, Sent: 1 + m.Retransmit, First: now, Last: now, Remote: m.Remote.String()}
}

func (h *histories) refused(r *ike.Rejection, now time.Time) {
	p := h.of(r.Name)
	if p == nil {
		h.strangers = remember(h.strangers, limitStrangers, r, now)
		return
	}
	if p.SetUp != nil && p.SetUp.IKE == r.ID {
		p.SetUp = nil
	}
	p.Refusals = remember(p.Refusals, limitRefusals, r, now)
}

// remember puts a refusal to the end of a list, with those of before that are the same.
func remember(list []Refusal, limit int, r *ike.Rejection, now time.Time) []Refusal {
	f := Refusal{Record: r, First: now, Last: now, Count: 1}
	i := slices.IndexFunc(list, func(o Refusal) bool { return same(o.Record, r) })
	switch {
	case i >= 0:
		if list[i].Mended.IsZero() {
			f.First, f.Count = list[i].First, list[i].Count+1
		}
		list = slices.Delete(list, i, i+1)
	case len(list) == limit:
		list = slices.Delete(list, 0, 1)
	}
	return append(list, f)
}

// same reports whether two refusals are mended by the same.
func same(a, b *ike.Rejection) bool {
	return a.Reason == b.Reason && a.Detail == b.Detail && a.Child == b.Child && a.ByPeer == b.ByPeer && a.Notify == b.Notify &&
		a.Ours == b.Ours && a.Theirs == b.Theirs && a.Remote.Addr() == b.Remote.Addr() && strings.EqualFold(a.Difference, b.Difference)
}

// mend notes that what was refused is up.
func (p *History) mend(now time.Time, which func(*ike.Rejection) bool) {
	for i := range p.Refusals {
		if f := &p.Refusals[i]; f.Mended.IsZero() && which(f.Record) {
			f.Mended = now
		}
	}
}

// ofChild reports whether a refusal left the IKE SA alone: of a Child SA that was
// asked for together with it.
func ofChild(r *ike.Rejection) bool {
	switch r.Reason {
	case ike.ReasonSelectors, ike.ReasonAddresses, ike.ReasonInstall:
		return true
	}
	return r.Detail == ike.DetailMode
}

// known notes that a stranger was no stranger: its address has an IKE SA.
func (h *histories) known(sa ike.SAInfo, now time.Time) {
	for i := range h.strangers {
		if f := &h.strangers[i]; f.Mended.IsZero() && f.Record.Remote.Addr() == sa.Remote.Addr() {
			f.Mended = now
		}
	}
}

func (h *histories) dropped(d ike.Dropped, now time.Time) {
	i := slices.IndexFunc(h.trouble, func(t Trouble) bool { return t.Reason == d.Reason })
	switch {
	case i >= 0:
		d.Count += h.trouble[i].Count
		h.trouble[i] = Trouble{d, now}
	case len(h.trouble) < limitTrouble:
		h.trouble = append(h.trouble, Trouble{d, now})
	}
}

// Mentions are the refusals of connections in which others were considered, too, by the
// names of those: a peer may have been taken for somebody else. The newest come last.
func (g *Gateway) Mentions() map[string][]Refusal {
	h := &g.histories
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string][]Refusal{}
	for name, p := range h.byName {
		for _, r := range p.Refusals {
			for _, c := range r.Record.Candidates {
				if c.Name != name && len(out[c.Name]) < limitStrangers {
					out[c.Name] = append(out[c.Name], r)
				}
			}
		}
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b Refusal) int { return a.Last.Compare(b.Last) })
	}
	return out
}
