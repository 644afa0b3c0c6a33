package ike

import (
	"net/netip"
	"time"
)

// DropReason is why a datagram was refused before any state was made or changed.
type DropReason uint8

// The reasons.
const (
	DropMalformed       DropReason = iota // not an IKE message
	DropVersion                           // IKE version that is not spoken here
	DropUnknownSPI                        // no IKE SA of this SPI
	DropUnexpected                        // an exchange that does not fit the state, or a wrong flag
	DropMessageID                         // outside the window, or a response that nobody waits for
	DropIntegrity                         // the checksum of a protected message is wrong
	DropUnprotected                       // in the clear where protection is due
	DropBusy                              // the IKE SA is at work and its queue is full, or it works at this message
	DropHalfOpen                          // too many half-open IKE SAs in all
	DropHalfOpenAddress                   // too many half-open IKE SAs of this address
	DropCookie                            // answered by a cookie: nothing stored
	DropNoConnection                      // no connection for these addresses
	DropShutdown                          // the engine takes no more
	DropRepeated                          // a first message of a known SPI with other content
	DropTable                             // a table is full
	DropTooLarge                          // a first message beyond the limit
	DropFragment                          // a fragment that fits no message, or goes beyond a limit
	DropInitiatorOnly                     // a first message, and strongswan.conf has initiator_only = yes
	DropDraining                          // a first message while the gateway is drained, of a peer that cannot be redirected
	DropRedirect                          // a REDIRECT that is not an answer to our message, or makes no sense
	DropTicket                            // a ticket that is too old, used, forged or of other demands: answered by TICKET_NACK, nothing stored
	dropReasons
)

var dropNames = [dropReasons]string{"malformed", "version", "unknown-spi", "unexpected", "message-id", "integrity",
	"unprotected", "busy", "half-open", "half-open-address", "cookie", "no-connection", "shutdown", "repeated", "table-full", "too-large", "fragment", "initiator-only", "draining", "redirect", "ticket"}

// String is the stable name for logs and metrics.
func (r DropReason) String() string {
	if int(r) < len(dropNames) {
		return dropNames[r]
	}
	return "unknown"
}

// DropReasons lists all reasons, for metrics that must exist before they count.
func DropReasons() []DropReason {
	all := make([]DropReason, dropReasons)
	for i := range all {
		all[i] = DropReason(i)
	}
	return all
}

// dropCounter counts one reason between two Dropped events.
type dropCounter struct {
	total, pending uint64
	last           netip.AddrPort
	emitted        time.Time
}

func (e *Engine) drop(now time.Time, r DropReason, from netip.AddrPort) {
	c := &e.drops[r]
	c.total++
	c.pending++
	c.last = from
	if now.Sub(c.emitted) >= dropInterval {
		e.emitDropped(now, r)
		return
	}
	if at := c.emitted.Add(dropInterval); e.dropWake.IsZero() || at.Before(e.dropWake) {
		e.dropWake = at
	}
}

func (e *Engine) emitDropped(now time.Time, r DropReason) {
	c := &e.drops[r]
	e.emit(Dropped{Reason: r, Count: c.pending, Last: c.last})
	c.pending, c.emitted = 0, now
}

// wakeDrops emits what was counted since the last event of each reason.
func (e *Engine) wakeDrops(now time.Time) {
	if e.dropWake.IsZero() || now.Before(e.dropWake) {
		return
	}
	e.dropWake = time.Time{}
	for r := range e.drops {
		c := &e.drops[r]
		if c.pending == 0 {
			continue
		}
		if at := c.emitted.Add(dropInterval); now.Before(at) {
			if e.dropWake.IsZero() || at.Before(e.dropWake) {
				e.dropWake = at
			}
			continue
		}
		e.emitDropped(now, DropReason(r))
	}
}
