package userspace

import (
	"time"

	"adit/internal/conn"
)

// Outbound and Inbound run single batches in the caller's goroutine.
type (
	Outbound = outbound
	Inbound  = inbound
)

func (p *Plane) NewOutbound(size int) *Outbound {
	w := newOutbound(p, p.devices[0], size)
	w.flows = newFlowCache()
	return w
}

func (p *Plane) NewInbound(size int) *Inbound { return newInbound(p, size) }

// Batch runs packets through the worker; guarded as in the goroutine.
func (w *outbound) Batch(packets [][]byte) {
	for i, b := range packets {
		w.sizes[i] = copy(w.bufs[i][headroom:], b)
	}
	w.guarded(len(packets))
}

func (w *inbound) Batch(packets []conn.Packet) {
	copy(w.recv, packets)
	w.guarded(len(packets))
}

// DropAged is what the timer does every second.
func (p *Plane) DropAged(now time.Time) { p.dropAged(now) }

const (
	LimitWaitPackets = limitWaitPackets
	LimitWaitAge     = limitWaitAge
	AcquireAgain     = acquireAgain
	LimitOrphans     = limitOrphans
	LimitICMP        = limitICMP
)
