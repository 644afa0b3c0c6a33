package gateway

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"adit/ike"
	"adit/internal/hostnet"
	"adit/ipsec"
)

// activate records the policies of a Child SA with their effective MTU; it returns
// those for which the host's routes or guard have to change (at a rekey they don't).
func (v *inventory) activate(policies []ipsec.Policy, mtu int) (changed []ipsec.PolicyID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range policies {
		old, known := v.active[p.ID]
		v.active[p.ID] = &activePolicy{Policy: p, mtu: mtu}
		delete(v.prepared, p.Out.Child)
		if !known || old.mtu != mtu || !slices.Equal(old.Local, p.Local) || !slices.Equal(old.Remote, p.Remote) {
			changed = append(changed, p.ID)
		}
	}
	return changed
}

// remeasure records another MTU of a Child SA's tunnel; it returns the policies whose
// routes have to change.
func (v *inventory) remeasure(child uint32, mtu int) (changed []ipsec.PolicyID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, p := range v.active {
		if p.Out.Child == child && mtu > 0 && p.mtu != mtu {
			v.active[id] = &activePolicy{Policy: p.Policy, mtu: mtu}
			changed = append(changed, id)
		}
	}
	slices.Sort(changed)
	return changed
}

// prepare records policies that a Child SA will have as soon as it is activated, so
// that the host is ready for them; those that another Child SA serves stay as they are.
func (v *inventory) prepare(policies []ipsec.Policy, mtu int) (changed []ipsec.PolicyID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range policies {
		if _, known := v.active[p.ID]; !known {
			v.active[p.ID] = &activePolicy{Policy: p, mtu: mtu}
			v.prepared[p.Out.Child] = append(v.prepared[p.Out.Child], p.ID)
			changed = append(changed, p.ID)
		}
	}
	return changed
}

// servedBy are those of the policies that no other Child SA has taken over.
func (v *inventory) servedBy(child uint32, policies []ipsec.Policy) (ids []ipsec.PolicyID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range policies {
		if a := v.active[p.ID]; a != nil && a.Out.Child == child {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// deactivate forgets the policies named, and what was only prepared for the Child SA.
func (v *inventory) deactivate(child uint32, ids []ipsec.PolicyID) (changed []ipsec.PolicyID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, id := range v.prepared[child] {
		if a := v.active[id]; a != nil && a.Out.Child == child {
			delete(v.active, id)
			changed = append(changed, id)
		}
	}
	delete(v.prepared, child)
	for _, id := range ids {
		if _, known := v.active[id]; known {
			delete(v.active, id)
			changed = append(changed, id)
		}
	}
	return changed
}

// policiesOf are the policies that a Child SA protects now.
func (v *inventory) policiesOf(child uint32) (ids []ipsec.PolicyID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, p := range v.active {
		if p.Out.Child == child {
			ids = append(ids, id)
		}
	}
	return ids
}

// activePolicy is a policy of a Child SA with the MTU of its tunnel, in bytes.
type activePolicy struct {
	ipsec.Policy
	mtu int
}

// hostState is what the host's policies should be.
func (v *inventory) hostState(device string, routes bool) hostnet.State {
	v.mu.Lock()
	defer v.mu.Unlock()
	st := hostnet.State{Devices: []string{device}}
	for id, p := range v.active {
		st.Policies = append(st.Policies, v.limit(p.host(id, device, routes)))
	}
	for key, s := range v.static {
		st.Policies = append(st.Policies, hostPolicy("conn/"+key.conn+"/"+key.child, s.policy, device, routes && s.inDP && s.policy.Action == ipsec.Protect))
	}
	slices.SortFunc(st.Policies, func(a, b hostnet.Policy) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.ID, b.ID))
	})
	return st
}

// hostState is what the host's routes and guard should be, with the rules for clients.
func (g *Gateway) hostState(device string, routes bool) hostnet.State {
	st := g.inv.hostState(device, routes)
	st.Clients = g.leases.clients()
	return st
}

// hostDelta is what the host's policies should be for those of Child SAs.
func (v *inventory) hostDelta(of map[ipsec.PolicyID]bool, device string, routes bool) (add []hostnet.Policy, remove []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(of)) {
		if p, ok := v.active[id]; ok {
			add = append(add, v.limit(p.host(id, device, routes)))
		} else {
			remove = append(remove, hostID(id))
		}
	}
	return add, remove
}

// limit lowers the MTU of a policy's routes to what strongswan.conf says.
func (v *inventory) limit(p hostnet.Policy) hostnet.Policy {
	if v.routeMTU > 0 && (p.MTU == 0 || p.MTU > v.routeMTU) {
		p.MTU = v.routeMTU
	}
	return p
}

func hostID(id ipsec.PolicyID) string { return "sa/" + strconv.FormatUint(uint64(id), 10) }

// host is the policy as the host's. Those of one child share what they can.
func (p *activePolicy) host(id ipsec.PolicyID, device string, routes bool) hostnet.Policy {
	q := hostPolicy(hostID(id), p.Policy, device, routes)
	q.MTU, q.Group = p.mtu, p.Name
	return q
}

func hostPolicy(id string, p ipsec.Policy, device string, routes bool) hostnet.Policy {
	return hostnet.Policy{ID: id, Action: hostAction(p.Action), Local: hostSelectors(p.Local), Remote: hostSelectors(p.Remote),
		Priority: p.Priority, Device: device, InstallRoutes: routes, SrcHint: true}
}

func hostAction(a ipsec.Action) hostnet.Action {
	switch a {
	case ipsec.Bypass:
		return hostnet.Bypass
	case ipsec.Discard:
		return hostnet.Discard
	}
	return hostnet.Protect
}

func hostSelectors(in []ipsec.Selector) []hostnet.Selector {
	out := make([]hostnet.Selector, len(in))
	for i, s := range in {
		out[i] = hostnet.Selector{Proto: s.Proto, From: s.From, To: s.To, PortFrom: s.PortFrom, PortTo: s.PortTo}
	}
	return out
}

// hostWorker changes the host on a thread of its own, because the kernel can take
// milliseconds; wishes that come meanwhile are done together. A change that failed
// is tried again until it succeeds: the guard must come to stand.
type hostWorker struct {
	g       *Gateway
	mu      sync.Mutex
	wishes  []func(error)
	dirty   bool
	whole   bool                    // not only the policies in touched
	touched map[ipsec.PolicyID]bool // of Child SAs
	stopped bool
	crowded bool          // the last change was of several policies: more are coming
	took    time.Duration // what the last change took
	since   time.Time     // of the oldest wish that is not fulfilled, zero: none
	signal  chan struct{}
	pulse   pulse
}

func (h *hostWorker) init(g *Gateway) {
	h.pulse.init()
	h.g, h.signal, h.touched = g, make(chan struct{}, 1), map[ipsec.PolicyID]bool{}
}

// changed asks for the host to be brought in line; then, if given, hears how that
// went, on the worker's thread.
func (h *hostWorker) changed(then func(error)) { h.wish(true, nil, then) }

// moved is changed where only policies of Child SAs came, went or changed: these.
func (h *hostWorker) moved(ids []ipsec.PolicyID, then func(error)) { h.wish(false, ids, then) }

func (h *hostWorker) wish(whole bool, ids []ipsec.PolicyID, then func(error)) {
	h.mu.Lock()
	stopped := h.stopped
	if !stopped && h.g.opt.Host != nil {
		h.dirty, h.whole = true, h.whole || whole
		if h.since.IsZero() {
			h.since = time.Now()
		}
		for _, id := range ids {
			h.touched[id] = true
		}
		if then != nil {
			h.wishes = append(h.wishes, then)
		}
		h.mu.Unlock()
		select {
		case h.signal <- struct{}{}:
		default:
		}
		return
	}
	h.mu.Unlock()
	switch {
	case then == nil:
	case stopped:
		then(ErrNotRunning)
	default:
		then(nil)
	}
}

// hurry asks for the host to be brought in line and waits for it, unless that has
// become slow because very much is loaded: then whoever loads thousands of
// connections one by one does not wait for each, and what they ask for is done
// together, at most hostLag late.
func (h *hostWorker) hurry() {
	h.mu.Lock()
	slow := h.took > hostSlow && (h.since.IsZero() || time.Since(h.since) < hostLag)
	h.mu.Unlock()
	if slow {
		h.changed(nil)
		return
	}
	_ = h.wait() // logged, and tried again
}

// wait asks for the host to be brought in line and returns when it is, or when that failed.
func (h *hostWorker) wait() error {
	done := make(chan error, 1)
	h.changed(func(err error) { done <- err })
	return <-done
}

func (h *hostWorker) run(ctx context.Context) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for pause := retryHost; ; {
		select {
		case <-ctx.Done():
			h.mu.Lock()
			h.stopped = true
			h.mu.Unlock()
			_ = h.apply() // for those who still wait
			return
		case <-h.pulse.asked:
			h.pulse.answer()
			continue
		case <-h.signal:
		case <-retry.C:
		}
		if h.apply() == nil {
			pause = retryHost
			retry.Stop()
			if h.crowded {
				time.Sleep(hostGathers)
			}
			continue
		}
		h.mu.Lock()
		h.dirty, h.whole = true, true
		h.mu.Unlock()
		retry.Reset(pause)
		pause = min(2*pause, retryHostMost)
	}
}

// changer is a Host that can change a few policies without looking at the rest. Any
// error has the whole state applied.
type changer interface {
	Change(add []hostnet.Policy, remove []string) error
}

func (h *hostWorker) apply() error {
	h.mu.Lock()
	wishes, dirty, whole, touched := h.wishes, h.dirty, h.whole, h.touched
	h.wishes, h.dirty, h.whole, h.touched = nil, false, false, map[ipsec.PolicyID]bool{}
	h.mu.Unlock()
	if h.crowded = len(touched) > 1; !dirty {
		return nil
	}
	began := time.Now()
	defer func() {
		h.mu.Lock()
		h.took = time.Since(began)
		if !h.dirty {
			h.since = time.Time{}
		} else if h.since.Before(began) {
			h.since = began // what was asked for meanwhile
		}
		h.mu.Unlock()
	}()
	err := errBug
	guarded(func() {
		host, device, routes := h.g.opt.Host, h.g.opt.Device, h.g.opt.Daemon.InstallRoutes
		if c, ok := host.(changer); ok && !whole {
			if err = c.Change(h.g.inv.hostDelta(touched, device, routes)); err == nil {
				return
			}
		}
		err = host.Apply(h.g.hostState(device, routes))
	}, func(e error) { err = e })
	if err != nil {
		h.g.bus.publish(ike.Note{Level: 1, Text: fmt.Sprintf("changing the host's routes and guard failed: %v", err)})
	}
	for _, then := range wishes {
		then(err)
	}
	return err
}
