package userspace

import (
	"time"

	"adit/ipsec"
)

// wait keeps a packet of a trap policy until there is an SA. It returns the SA
// instead if that came meanwhile, or tells that the policy is gone.
func (p *Plane) wait(e *entry, h *headers, packet []byte, now time.Time) (s *sa, gone bool) {
	e.mu.Lock()
	if s = e.current(); s != nil || e.gone {
		e.mu.Unlock()
		return s, s == nil
	}
	acquire := e.acquired.IsZero() || now.Sub(e.acquired) >= acquireAgain
	if acquire {
		e.acquired = now
	}
	full := len(e.waiting) >= limitWaitPackets || e.bytes+len(packet) > limitWaitBytes ||
		p.waiting.Load() >= limitWaitTotal
	if !full {
		e.waiting = append(e.waiting, waiter{append([]byte(nil), packet...), now})
		e.bytes += len(packet)
		p.waiting.Add(1)
		p.count.waited.Add(1)
	}
	e.mu.Unlock()
	if full {
		p.count.drop(OutWaitFull)
	} else {
		p.waitMu.Lock()
		p.waiters[e] = struct{}{}
		p.waitMu.Unlock()
	}
	if acquire {
		src, dst := h.addrs()
		p.emit(ipsec.Acquire{Policy: e.policy.ID, Name: e.policy.Name, Src: src, Dst: dst,
			Proto: h.proto, SrcPort: h.srcPort, DstPort: h.dstPort})
	}
	return nil, false
}

// waitingEntries are the policies for which packets wait, in the SPD's order.
func (p *Plane) waitingEntries() []*entry {
	p.waitMu.Lock()
	defer p.waitMu.Unlock()
	var list []*entry
	for e := range p.waiters {
		list = insertEntry(list, e)
	}
	return list
}

// forget notes that n packets wait no longer, and the entry if none does. The
// entry's mutex must not be held.
func (p *Plane) forget(e *entry, n int) {
	p.waiting.Add(-int64(n))
	p.waitMu.Lock()
	defer p.waitMu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) == 0 {
		delete(p.waiters, e)
	}
}

func (p *Plane) dropOld(e *entry, now time.Time) {
	e.mu.Lock()
	n := 0
	for n < len(e.waiting) && now.Sub(e.waiting[n].since) >= limitWaitAge {
		e.bytes -= len(e.waiting[n].packet)
		n++
	}
	e.waiting = e.waiting[n:]
	e.mu.Unlock()
	if p.forget(e, n); n > 0 {
		p.count.drops[OutWaitExpired].Add(uint64(n))
	}
}

// switchOut gives a policy another SA. What waits for it leaves first: a worker
// that met the policy without SA holds its packet until this is done.
func (p *Plane) switchOut(e *entry, out *sa) {
	e.mu.Lock()
	n := 0
	if out != nil {
		n = len(e.waiting)
		for _, w := range e.waiting {
			p.flusher.sendWaited(out, w.packet)
		}
		e.waiting, e.bytes = nil, 0
		e.acquired = time.Time{}
	} else if e.current() != nil {
		e.acquired = time.Time{}
	}
	e.out.Store(out)
	e.mu.Unlock()
	p.forget(e, n)
}

// moveWaiting takes over what waited for a policy that is replaced.
func (p *Plane) moveWaiting(old, e *entry) {
	old.mu.Lock()
	old.gone = true
	e.waiting, e.bytes, e.acquired = old.waiting, old.bytes, old.acquired
	old.waiting, old.bytes = nil, 0
	old.mu.Unlock()
	p.waitMu.Lock()
	delete(p.waiters, old)
	if len(e.waiting) > 0 {
		p.waiters[e] = struct{}{}
	}
	p.waitMu.Unlock()
}

// retryWaiting looks again at all that waits, after the SPD or an SA changed: the
// SA may have come with another policy than the trap's own. Called under Plane.mu.
func (p *Plane) retryWaiting() {
	for _, e := range p.waitingEntries() {
		e.mu.Lock()
		kept, bytes, sent := e.waiting[:0], 0, 0
		for _, w := range e.waiting {
			if s := p.covering(w.packet, e.policy.IfID); s != nil {
				p.flusher.sendWaited(s, w.packet)
				sent++
				continue
			}
			kept = append(kept, w)
			bytes += len(w.packet)
		}
		clear(e.waiting[len(kept):])
		e.waiting, e.bytes = kept, bytes
		if sent > 0 {
			e.acquired = time.Time{} // that was the answer: when the SA goes, ask again at once
		}
		e.mu.Unlock()
		if sent > 0 {
			p.forget(e, sent)
		}
	}
}

// covering is the SA that would protect the packet now, or nil.
func (p *Plane) covering(packet []byte, ifID uint32) *sa {
	var h headers
	if h.parse(packet, false) != nil {
		return nil
	}
	e := p.spd.find(&h.flow, ifID)
	if e == nil || e.policy.Action != ipsec.Protect {
		return nil
	}
	return e.current()
}
