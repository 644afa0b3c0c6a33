package gateway

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"sync"

	"adit/ike"
	"adit/internal/hostnet"
	"adit/ipsec"
)

// activate records the policies of a Child SA; it reports whether the host's
// routes or guard have to change (at a rekey they don't).
func (v *inventory) activate(policies []ipsec.Policy) (changed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range policies {
		old, known := v.active[p.ID]
		v.active[p.ID] = p
		if !known || !reflect.DeepEqual(old.Local, p.Local) || !reflect.DeepEqual(old.Remote, p.Remote) ||
			v.mtu[old.Out.Child] != v.mtu[p.Out.Child] {
			changed = true
		}
	}
	return changed
}

func (v *inventory) deactivate(ids []ipsec.PolicyID) (changed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, id := range ids {
		if _, known := v.active[id]; known {
			delete(v.active, id)
			changed = true
		}
	}
	return changed
}

// setMTU records the effective MTU of a Child SA, 0 forgets it.
func (v *inventory) setMTU(child uint32, mtu int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if mtu == 0 {
		delete(v.mtu, child)
	} else {
		v.mtu[child] = mtu
	}
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
		add("sa/"+strconv.FormatUint(uint64(id), 10), p, routes, v.mtu[p.Out.Child])
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
// milliseconds; wishes that come meanwhile are done together.
type hostWorker struct {
	g      *Gateway
	mu     sync.Mutex
	wishes []func(error)
	dirty  bool
	signal chan struct{}
}

func (h *hostWorker) init(g *Gateway) { h.g, h.signal = g, make(chan struct{}, 1) }

// changed asks for the host to be brought in line; then, if given, hears how that went.
func (h *hostWorker) changed(then func(error)) {
	if h.g.opt.Host == nil {
		if then != nil {
			then(nil)
		}
		return
	}
	h.mu.Lock()
	h.dirty = true
	if then != nil {
		h.wishes = append(h.wishes, then)
	}
	h.mu.Unlock()
	select {
	case h.signal <- struct{}{}:
	default:
	}
}

// wait asks for the host to be brought in line and returns when it is.
func (h *hostWorker) wait() {
	done := make(chan struct{})
	h.changed(func(error) { close(done) })
	<-done
}

func (h *hostWorker) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			h.apply()
			return
		case <-h.signal:
			h.apply()
		}
	}
}

func (h *hostWorker) apply() {
	h.mu.Lock()
	wishes, dirty := h.wishes, h.dirty
	h.wishes, h.dirty = nil, false
	h.mu.Unlock()
	if !dirty {
		return
	}
	err := h.g.opt.Host.Apply(h.g.inv.hostState(h.g.opt.Device, h.g.opt.Daemon.InstallRoutes))
	if err != nil {
		h.g.bus.publish(ike.Note{Level: 1, Text: fmt.Sprintf("changing the host's routes and guard failed: %v", err)})
	}
	for _, then := range wishes {
		then(err)
	}
}
