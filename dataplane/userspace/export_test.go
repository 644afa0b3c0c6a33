package userspace

import (
	"fmt"
	"time"

	"adit/internal/conn"
	"adit/ipsec"
	"adit/tun"
)

// Outbound and Inbound run single batches in the caller's goroutine.
type (
	Outbound = outbound
	Inbound  = inbound
)

func (p *Plane) NewOutbound() *Outbound {
	w := newOutbound(p, p.devices[0], arenaSize, arenaPackets)
	w.flows = newFlowCache()
	return w
}

func (p *Plane) NewInbound(size int) *Inbound { return newInbound(p, size) }

// Batch runs packets through the worker; guarded as in the goroutine.
func (w *outbound) Batch(packets [][]byte) {
	var list [benchBatch]tun.Super
	for i, b := range packets {
		list[i] = tun.Whole(b)
	}
	w.guarded(w.p.devices[0], list[:len(packets)])
}

// Trains is Batch for superpackets.
func (w *outbound) Trains(list []tun.Super) { w.guarded(w.p.devices[0], list) }

func (w *inbound) Batch(packets []conn.Packet) {
	copy(w.recv, packets)
	w.guarded(len(packets))
}

// ForgetsAlike has two workers forget the same first fragments: which ones push each other
// out of the memory is chance otherwise.
func ForgetsAlike(a, b *Inbound) {
	a.first.slot(&headers{})
	b.first.slot(&headers{})
	b.first.seed = a.first.seed
}

// FindPolicy looks up the SPD for a packet, 0 if nothing covers it.
func (p *Plane) FindPolicy(packet []byte, ifID uint32) ipsec.PolicyID {
	var h headers
	if h.parse(packet, false) != nil {
		return 0
	}
	if e := p.spd.find(&h.flow, ifID); e != nil {
		return e.policy.ID
	}
	return 0
}

// FlowOf names the flow of a packet.
func FlowOf(packet []byte) (string, bool) {
	var h headers
	err := h.parse(packet, false)
	return fmt.Sprint(h.flow), err == nil
}

// SPIHash is where an SPI's walk through an empty table begins.
func SPIHash(spi ipsec.SPI) int { return spiHash(spi, 63) }

// DropAged is what the timer does every second.
func (p *Plane) DropAged(now time.Time) { p.dropAged(now) }

const (
	benchBatch       = 64
	LimitWaitPackets = limitWaitPackets
	LimitWaitBytes   = limitWaitBytes
	LimitWaitAge     = limitWaitAge
	AcquireAgain     = acquireAgain
	LimitOrphans     = limitOrphans
	LimitInforms     = limitInforms
	LimitICMP        = limitICMP
)

// Moved is how many packets each worker sealed and opened.
func (p *Plane) Moved() (out, in []uint64) {
	for _, w := range p.workers {
		out, in = append(out, w.out.count.outPackets.Load()), append(in, w.in.count.inPackets.Load())
	}
	return out, in
}
