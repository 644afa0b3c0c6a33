package ike

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"adit/suite"
)

// Session resumption (RFC 5723). A gateway keeps nothing for it: its tickets hold all that
// it needs, sealed by keys of its own, which follow from Config.TicketSecret and change
// every ticketEpoch. A ticket is taken while the key it was sealed with or the next one
// is the newest, and for one IKE SA only.

const (
	// TicketLifetime is how long a ticket is good for.
	TicketLifetime = time.Hour
	ticketEpoch    = time.Hour
	ticketVersion  = 1
	ticketHead     = 1 + 8
	// limitTicket bounds a ticket that we look at or keep, bytes.
	limitTicket = 4096
	// limitSpent bounds the tickets that are remembered as used; no more are taken then.
	limitSpent = 65_536
)

// Ticket is what the initiator of an IKE SA keeps, to make the next one of it.
type Ticket struct {
	Opaque  []byte
	Expires time.Time
	SKd     suite.Key // SK_d of the IKE SA that it was given in
	Suite   suite.Selected
	IDs     [2]Identity // ours, the peer's
	Peer    *Peer       // the configuration that it was given under
	Proof   any         // how the peer had proved itself
	PPK     bool        // a post-quantum preshared key is in SKd
}

func (t *Ticket) wipe() {
	if t != nil {
		t.SKd.Zero()
	}
}

// Resumes reports whether session resumption is on here, as responder.
func (v *Env) Resumes() bool { return len(v.e.cfg.TicketSecret) > 0 && v.e.cfg.ResumeSessions }

// KeepTicket keeps a ticket for the next attempt of the connection, in place of an older one.
func (v *Env) KeepTicket(t *Ticket) {
	if v.conn == nil || len(t.Opaque) > limitTicket {
		t.wipe()
		return
	}
	v.conn.ticket.wipe()
	v.conn.ticket = t
}

// takeTicket hands out the connection's ticket, once, if it is still good.
func (c *connection) takeTicket(now time.Time) *Ticket {
	t := c.ticket
	c.ticket = nil
	if t != nil && (t.Peer != c.peer || !now.Before(t.Expires)) {
		t.wipe()
		return nil
	}
	return t
}

// dropTicket forgets the ticket of an IKE SA that somebody wanted to end: only what was
// lost is resumed.
func (c *connection) dropTicket(why Cause) {
	switch why {
	case CauseDead, CauseCrashed, CauseReplaced:
		return
	}
	c.ticket.wipe()
	c.ticket = nil
}

// spentTickets are the tickets that were used, by the epoch that sealed them.
type spentTickets map[uint64]map[TicketID]bool

// TicketID tells tickets apart.
type TicketID struct {
	epoch uint64
	nonce [12]byte
}

func (e *Engine) ticketSealer(epoch uint64) (cipher.AEAD, error) {
	m := hmac.New(sha256.New, e.cfg.TicketSecret)
	m.Write([]byte("adit session ticket"))
	m.Write(binary.BigEndian.AppendUint64(nil, epoch))
	b, err := aes.NewCipher(m.Sum(nil))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

func epochOf(now time.Time) uint64 { return uint64(now.Unix() / int64(ticketEpoch/time.Second)) }

// SealTicket makes a ticket of what only we are to read.
func (v *Env) SealTicket(now time.Time, text []byte) ([]byte, error) {
	g, err := v.e.ticketSealer(epochOf(now))
	if err != nil {
		return nil, err
	}
	out := binary.BigEndian.AppendUint64([]byte{ticketVersion}, epochOf(now))
	nonce := make([]byte, g.NonceSize())
	rand.Read(nonce)
	out = append(out, nonce...)
	return g.Seal(out, nonce, text, out[:ticketHead]), nil
}

var errTicket = errors.New("the ticket is not ours, too old or used")

// OpenTicket reads a ticket of ours that has not been used.
func (v *Env) OpenTicket(now time.Time, ticket []byte) (text []byte, id TicketID, err error) {
	if len(ticket) < ticketHead+len(id.nonce) || len(ticket) > limitTicket || ticket[0] != ticketVersion {
		return nil, id, errTicket
	}
	id.epoch = binary.BigEndian.Uint64(ticket[1:])
	if newest := epochOf(now); id.epoch != newest && id.epoch+1 != newest {
		return nil, id, errTicket
	}
	g, err := v.e.ticketSealer(id.epoch)
	if err != nil {
		return nil, id, err
	}
	rest := ticket[ticketHead:]
	copy(id.nonce[:], rest)
	if v.e.spent[id.epoch][id] {
		return nil, id, errTicket
	}
	if text, err = g.Open(nil, id.nonce[:], rest[len(id.nonce):], ticket[:ticketHead]); err != nil {
		return nil, id, errTicket
	}
	return text, id, nil
}

// SpendTicket notes that a ticket was used, by who has proved that it is his; false: it
// was before.
func (v *Env) SpendTicket(now time.Time, id TicketID) bool {
	e := v.e
	for epoch := range e.spent {
		if epoch+1 < epochOf(now) {
			delete(e.spent, epoch)
		}
	}
	total := 0
	for _, m := range e.spent {
		total += len(m)
	}
	if e.spent[id.epoch][id] || total >= limitSpent || id.epoch+1 < epochOf(now) {
		return false
	}
	if e.spent[id.epoch] == nil {
		e.spent[id.epoch] = map[TicketID]bool{}
	}
	e.spent[id.epoch][id] = true
	return true
}
