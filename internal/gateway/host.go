package gateway

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"

	"adit/ike"
	"adit/internal/hostnet"
	"adit/ipsec"
)

// activate records the policies of a Child SA with their effective MTU; it reports
// whether the host's routes or guard have to change (at a rekey they don't).
func (v *inventory) activate(policies []ipsec.Policy, mtu int) (changed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range policies {
		old, known := v.active[p.ID]
		v.active[p.ID] = activePolicy{Policy: p, mtu: mtu}
		delete(v.prepared, p.Out.Child)
		if !known || old.mtu != mtu || !reflect.DeepEqual(old.Local, p.Local) || !reflect.DeepEqual(old.Remote, p.Remote) {
			changed = true
		}
	}
	return changed
}

// prepare records policies that a Child SA will have as soon as it is activated, so
// that the host is ready for them; those that another Child SA serves stay as they are.
func (v *inventory) prepare(policies []ipsec.Policy, mtu int) (changed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range policies {
		if _, known := v.active[p.ID]; !known {
			v.active[p.ID] = activePolicy{Policy: p, mtu: mtu}
			v.prepared[p.Out.Child] = append(v.prepared[p.Out.Child], p.ID)
			changed = true
		}
	}
	return changed
}

// servedBy are those of the policies that no other Child SA has taken over.
func (v *inventory) servedBy(child uint32, policies []ipsec.Policy) (ids []ipsec.PolicyID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range policies {
		if v.active[p.ID].Out.Child == child {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// deactivate forgets the policies named, and what was only prepared for the Child SA.
func (v *inventory) deactivate(child uint32, ids []ipsec.PolicyID) (changed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, id := range v.prepared[child] {
		if v.active[id].Out.Child == child {
			delete(v.active, id)
			changed = true
		}
	}
	delete(v.prepared, child)
	for _, id := range ids {
		if _, known := v.active[id]; known {
			delete(v.active, id)
			changed = true
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

// hostState is what the host's routes and guard should be.
func (v *inventory) hostState(device string, routes bool) hostnet.State {
	v.mu.Lock()
	defer v.mu.Unlock()
	st := hostnet.State{Devices: []string{device}}
	add := func(id string, p ipsec.Policy, routes bool, mtu int) {
		st.Policies = append(st.Policies, hostnet.Policy{
			ID: id, Action: hostAction(p.Action), Local: hostSelectors(p.Local), Remote: hostSelectors(p.Remote),
			Priority: p.Priority, Device: device, MTU: mtu, InstallRoutes: routes, SrcHint: true,
		})
	}
	for id, p := range v.active {
		add("sa/"+strconv.FormatUint(uint64(id), 10), p.Policy, routes, p.mtu)
	}
	for key, s := range v.static {
		add("conn/"+key.conn+"/"+key.child, s.policy, routes && s.inDP && s.policy.Action == ipsec.Protect, 0)
	}
	slices.SortFunc(st.Policies, func(a, b hostnet.Policy) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.ID, b.ID))
	})
	return st
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
	stopped bool
	signal  chan struct{}
}

func (h *hostWorker) init(g *Gateway) { h.g, h.signal = g, make(chan struct{}, 1) }

// changed asks for the host to be brought in line; then, if given, hears how that
// went, on the worker's thread.
func (h *hostWorker) changed(then func(error)) {
	h.mu.Lock()
	stopped := h.stopped
	if !stopped && h.g.opt.Host != nil {
		h.dirty = true
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
		case <-h.signal:
		case <-retry.C:
		}
		if h.apply() == nil {
			pause = retryHost
			retry.Stop()
			continue
		}
		h.mu.Lock()
		h.dirty = true
		h.mu.Unlock()
		retry.Reset(pause)
		pause = min(2*pause, retryHostMost)
	}
}

func (h *hostWorker) apply() error {
	h.mu.Lock()
	wishes, dirty := h.wishes, h.dirty
	h.wishes, h.dirty = nil, false
	h.mu.Unlock()
	if !dirty {
		return nil
	}
	err := errBug
	guarded(func() {
		err = h.g.opt.Host.Apply(h.g.inv.hostState(h.g.opt.Device, h.g.opt.Daemon.InstallRoutes))
	}, func(e error) { err = e })
	if err != nil {
		h.g.bus.publish(ike.Note{Level: 1, Text: fmt.Sprintf("changing the host's routes and guard failed: %v", err)})
	}
	for _, then := range wishes {
		then(err)
	}
	return err
}
