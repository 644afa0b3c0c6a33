package ike

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"adit/ike/wire"
	"adit/ipsec"
)

// Version is one version of IKE, as New takes it.
type Version struct {
	Major uint8
	// First reports whether a message to no SPI of ours may begin an IKE SA.
	First func(h *wire.Header) bool
	// Accept begins an IKE SA as responder. It returns nil if it refuses, after it
	// sent what is to be said; then nothing is kept.
	Accept func(env *Env, now time.Time, d Datagram, h wire.Header) SA
	// Initiate begins an IKE SA as initiator.
	Initiate func(env *Env, now time.Time, r InitiateRequest) SA
}

// InitiateRequest is what a version's Initiate works from.
type InitiateRequest struct {
	Peer          *Peer
	Local, Remote netip.AddrPort
	// Child is the first Child SA, nil for none.
	Child *ChildRequest
	// Reauth tells that the IKE SA is to replace one of the same peer, so that
	// INITIAL_CONTACT must not be sent.
	Reauth bool
	// RedirectedFrom is the gateway that sent us to Remote; invalid: none did.
	RedirectedFrom netip.Addr
	// Ticket resumes a former IKE SA (RFC 5723); nil: there is none.
	Ticket *Ticket
}

// ChildRequest is a Child SA that is to be made. Whoever was given one ends it by Env.ChildDone.
type ChildRequest struct {
	Child    *Child
	Acquired *ipsec.Acquire // the packet that asked for it, nil if none
	want     *want
}

// SA is one IKE SA of some version. The engine calls it; it answers through its Env.
type SA interface {
	Datagram(now time.Time, d Datagram, h wire.Header)
	Wake(now time.Time)
	// NextWake is the SA's next timer; zero: none.
	NextWake() time.Time
	Done(now time.Time, r Result)
	// Dataplane takes the events of the SA's Child SAs.
	Dataplane(now time.Time, ev ipsec.Event)
	Info() SAInfo

	// CreateChild makes a Child SA; Env.ChildDone follows.
	CreateChild(now time.Time, r *ChildRequest)
	RekeyChild(now time.Time, id uint32)
	DeleteChild(now time.Time, id uint32, reason string)
	RekeyIKE(now time.Time)
	// Close deletes the IKE SA. The peer is told, and its answer waited for unless
	// force is set; Env.Closed follows.
	Close(now time.Time, c Closed, force bool)
	// Usable reports whether new Child SAs may be made in it.
	Usable() bool
	// TieBreak is the lower one of the nonces that made the IKE SA.
	TieBreak() []byte
	// Wipe zeroes all keys. Nothing is called after it.
	Wipe()
}

// Cause is why an IKE SA or a Child SA ends; it chooses the action that follows.
type Cause uint8

// The causes.
const (
	CauseLocal      Cause = iota // an operator, the configuration or a policy of ours
	CausePeer                    // the peer deleted it
	CauseDead                    // the peer does not answer
	CauseFailed                  // it never came up
	CauseReplaced                // another one took over
	CauseExpired                 // its hard lifetime ended
	CauseInactive                // no traffic for the time of `inactivity`
	CauseCrashed                 // the peer was restarted and knows it no more
	CauseRedirected              // the peer sent us to another gateway while it was set up
)

// Closed tells how an IKE SA ended.
type Closed struct {
	Cause     Cause
	Reason    string
	Rejection *Rejection // where a negotiation failed
}

// Env is what one IKE SA sees of its engine: where its effects go and its
// entry in the tables.
type Env struct {
	e         *Engine
	sa        SA
	conn      *connection
	id        uint32
	version   uint8
	initiator bool
	created   time.Time
	upSince   time.Time // zero until established
	// origin says whether the set-up was ours, and tie is the lower nonce of it;
	// both outlive rekeys, so that the two sides compare the same.
	origin  bool
	tie     []byte
	rekeyed bool // another IKE SA took over its name and Child SAs
	reauth  bool
	spare   bool // the peer's half of a simultaneous set-up, which it should delete
	gone    bool

	spiLocal, spiPeer uint64
	spiReserved       uint64 // see ReserveSPI
	instance          uint64 // our SPI of the first IKE SA of the line that rekeys make
	first             firstKey
	source            netip.Addr // of a half-open IKE SA that is counted
	ids               [2]Identity
	jobs              map[JobID]struct{}
	children          []uint32
	waiters           []*waiter
	fragmentBytes     int // held, see HoldFragments

	touched bool
	heapAt  int
	wake    time.Time
}

func (e *Engine) newEnv(now time.Time, version uint8, initiator bool) *Env {
	e.lastID++
	return &Env{e: e, id: e.lastID, version: version, initiator: initiator, created: now, heapAt: -1}
}

// ID is the unique number of the IKE SA, as listed.
func (v *Env) ID() uint32 { return v.id }

// Instance names the IKE SA and all that replace it by rekey; see SAInfo.
func (v *Env) Instance() uint64 { return v.instance }

// Created is when the IKE SA was begun.
func (v *Env) Created() time.Time { return v.created }

// Config is the engine's configuration, defaults filled in.
func (v *Env) Config() *Config { return &v.e.cfg }

// Peers lists the PAD, in its order.
func (v *Env) Peers() []*Peer { return v.e.peers }

// Authorities are the key hashes of the certificate authorities that are trusted.
func (v *Env) Authorities() [][20]byte { return v.e.authorities }

// AuthorityNames are the subjects of the certificate authorities that are trusted, DER.
func (v *Env) AuthorityNames() [][]byte { return v.e.authorityNames }

// CurrentPeer is the newest configuration of the peer's name, or p itself if it was unloaded.
func (v *Env) CurrentPeer(p *Peer) *Peer {
	if c := v.e.conns[p.Name]; c != nil && c.loaded {
		return c.peer
	}
	return p
}

// Effect appends an effect.
func (v *Env) Effect(f Effect) {
	if _, ok := f.(Send); ok {
		v.e.stats.Sent++
	}
	v.e.effect(f)
}

// Emit publishes an event.
func (v *Env) Emit(ev Event) { v.e.emit(ev) }

// CountRetransmit, CountRekeyIKE and CountRekeyChild count for Stats.
func (v *Env) CountRetransmit() { v.e.stats.Retransmits++ }

// CountRekeyIKE counts an IKE SA that was replaced by a rekey.
func (v *Env) CountRekeyIKE() { v.e.stats.RekeysIKE++ }

// CountRekeyChild counts a Child SA that was replaced by a rekey.
func (v *Env) CountRekeyChild() { v.e.stats.RekeysChild++ }

// Touch tells that the SA's timers changed outside of a call to it.
func (v *Env) Touch() { v.e.touch(v) }

// MayReject reports whether a Rejection may be emitted for somebody who has
// proved nothing yet: their number is bounded in time, logs are no target.
func (v *Env) MayReject(now time.Time) bool {
	e := v.e
	if now.Sub(e.rejectFrom) >= time.Second {
		e.rejectFrom, e.rejectCount = now, 0
	}
	e.rejectCount++
	return e.rejectCount <= limitUnprovenRejections
}

// Drop counts a datagram that was refused.
func (v *Env) Drop(now time.Time, r DropReason, from netip.AddrPort) { v.e.drop(now, r, from) }

// NewJob names a job of this SA; its Result comes to SA.Done.
func (v *Env) NewJob() JobID {
	v.e.lastJob++
	v.e.jobs[v.e.lastJob] = jobOwner{env: v}
	if v.jobs == nil {
		v.jobs = map[JobID]struct{}{}
	}
	v.jobs[v.e.lastJob] = struct{}{}
	return v.e.lastJob
}

// DropJob forgets a job whose Result is no longer of interest.
func (v *Env) DropJob(j JobID) {
	delete(v.e.jobs, j)
	delete(v.jobs, j)
}

// NewSPI chooses an unused IKE SPI of ours: node, shard and 48 random bits.
func (v *Env) NewSPI() uint64 {
	label := uint64(v.e.cfg.Node)<<56 | uint64(v.e.cfg.Shard)<<48
	for {
		var b [8]byte
		rand.Read(b[:])
		spi := label | binary.BigEndian.Uint64(b[:])&(1<<48-1)
		if spi&(1<<48-1) != 0 && v.e.bySPI[spi] == nil {
			return spi
		}
	}
}

// Register enters the IKE SA into the table under our SPI. The peer's SPI may
// still be zero and be given by another call.
func (v *Env) Register(ours, peers uint64) {
	v.spiLocal, v.spiPeer = ours, peers
	if v.instance == 0 {
		v.instance = ours
	}
	v.e.bySPI[ours] = v
}

// Adopt makes an entry for the IKE SA that replaces this one by rekey. sa is
// told its Env by make.
func (v *Env) Adopt(now time.Time, initiator bool, mk func(*Env) SA) *Env {
	n := v.e.newEnv(now, v.version, initiator)
	n.sa = mk(n)
	n.conn, n.ids, n.spare, n.reauth = v.conn, v.ids, v.spare, v.reauth
	n.origin, n.tie, n.instance = v.origin, v.tie, v.instance
	v.e.byID[n.id] = n
	v.e.touch(n)
	return n
}

// Succeed makes the adopted IKE SA the successor of this one: it takes over the
// Child SAs, the commands and initiations that wait, and the place in the
// connection. Both stay until closed.
func (v *Env) Succeed(now time.Time, next *Env) {
	v.rekeyed = true
	next.upSince = now
	v.e.stats.Established++
	for _, id := range v.children {
		v.e.byChild[id] = next
	}
	next.children = append(next.children, v.children...)
	v.children = nil
	next.waiters = append(next.waiters, v.waiters...)
	v.waiters = nil
	v.e.policies.addIdentity(next)
	if v.conn != nil {
		v.conn.succeed(v, next)
		v.e.queueConn(v.conn)
	}
	v.e.touch(v)
	v.e.touch(next)
}

// NewChildID numbers a Child SA of this IKE SA.
func (v *Env) NewChildID() uint32 {
	v.e.lastChild++
	id := v.e.lastChild
	v.e.byChild[id] = v
	v.children = append(v.children, id)
	return id
}

// ForgetChild removes a Child SA's number from the tables.
func (v *Env) ForgetChild(id uint32) {
	if owner := v.e.byChild[id]; owner != nil {
		delete(v.e.byChild, id)
		if i := slices.Index(owner.children, id); i >= 0 {
			owner.children = slices.Delete(owner.children, i, i+1)
		}
	}
}

func (v *Env) key() SAKey {
	k := SAKey{ID: v.id}
	if v.conn != nil {
		k.Name = v.conn.peer.Name
	}
	return k
}

// CheckUnique applies the policy `unique = keep` to a peer that has just been
// authenticated; nil: welcome.
func (v *Env) CheckUnique(p *Peer, local, remote Identity) *Rejection {
	if p.Unique != UniqueKeep {
		return nil
	}
	for _, o := range v.e.policies.sameIdentities(local, remote) {
		if o != v && !o.upSince.IsZero() && !o.rekeyed && !o.racing(v) {
			return &Rejection{Reason: ReasonUnique, Difference: "an IKE SA of this identity is up and unique = keep", Options: []string{p.Option("unique")}}
		}
	}
	return nil
}

// HasContact reports whether an IKE SA joins the same identities, or whether the
// peer is about to make one: INITIAL_CONTACT would make it forget that.
func (v *Env) HasContact(local, remote Identity, from netip.Addr) bool {
	if v.e.bySource[sourceOf(from)] > 0 {
		return true
	}
	for _, o := range v.e.policies.sameIdentities(local, remote) {
		if o != v && !o.upSince.IsZero() {
			return true
		}
	}
	return false
}

// racing reports whether the two IKE SAs were set up at the same time from
// opposite sides, so that neither peer could know of the other one.
func (v *Env) racing(o *Env) bool {
	return v.initiator != o.initiator && (v.upSince.IsZero() || o.created.Before(v.upSince)) && (o.upSince.IsZero() || v.created.Before(o.upSince))
}

// Replaces are the IKE SAs that Established will close for this one, or that go anyway:
// the peer comes back without having said goodbye.
func (v *Env) Replaces(p *Peer, local, remote Identity, initialContact bool) (out []SA) {
	for _, o := range v.e.policies.sameIdentities(local, remote) {
		if o == v || o.rekeyed || o.gone || o.upSince.IsZero() || v.initiator || o.version != v.version {
			continue
		}
		if v.lost(o, p, initialContact) || !o.origin && p.Unique == UniqueReplace || !o.sa.Usable() {
			out = append(out, o.sa)
		}
	}
	return out
}

// lost reports whether the peer has said by INITIAL_CONTACT that it has lost an IKE SA:
// what it had before it sent its first message.
func (v *Env) lost(o *Env, p *Peer, initialContact bool) bool {
	return !v.initiator && initialContact && p.Unique != UniqueNever && o.upSince.Before(v.created)
}

// Established tells that the IKE SA is up: the peer is authenticated. It
// applies INITIAL_CONTACT and `unique`, and settles simultaneous set-ups.
func (v *Env) Established(now time.Time, p *Peer, local, remote Identity, initialContact bool) {
	e := v.e
	e.endHalfOpen(v)
	v.upSince = now
	v.origin, v.tie = v.initiator, slices.Clone(v.sa.TieBreak())
	v.ids = [2]Identity{local, remote}
	e.stats.Established++
	if v.conn == nil {
		v.conn = e.connection(p)
		v.conn.sas = append(v.conn.sas, v)
	}
	e.emit(IKEUp{v.sa.Info()})
	v.conn.abandon(e, now, v)
	for _, o := range e.policies.sameIdentities(local, remote) {
		if o == v || o.rekeyed || o.gone || o.upSince.IsZero() {
			continue
		}
		close := func(silent bool) {
			e.guard(o, func() {
				o.sa.Close(now, Closed{Cause: CauseReplaced, Reason: "replaced by a new IKE SA of the same peer"}, silent)
			})
		}
		switch {
		case v.reauth:
			// What it replaces goes when its Child SAs are up.
		case v.lost(o, p, initialContact):
			close(true)
		case v.version == 1 && v.origin != o.origin:
			// IKEv1 has no rule for who wins; the Child SAs pass to the newer one.
		case v.origin != o.origin:
			if !o.sa.Usable() {
				continue // it goes anyway
			}
			v.conn.settleDuplicate(e, now, o, v)
		case !v.initiator && p.Unique == UniqueReplace:
			close(false)
		}
	}
	e.policies.addIdentity(v)
	v.conn.established(e, now, v)
	e.queueConn(v.conn)
}

// ChildDone ends a ChildRequest: up if rej is nil.
func (v *Env) ChildDone(now time.Time, r *ChildRequest, rej *Rejection) {
	if r == nil || r.want == nil || v.conn == nil {
		return
	}
	v.conn.childDone(v.e, now, r.want, rej)
	v.e.queueConn(v.conn)
}

// ChildUp tells that a Child SA is installed, not as a replacement.
func (v *Env) ChildUp(now time.Time, c ChildInfo) {
	v.e.emit(ChildUp{v.sa.Info(), c})
	if v.conn != nil {
		v.conn.keep.cameUp(now, c.Name)
		v.e.queueConn(v.conn)
	}
}

// ChildDown tells that a Child SA that was up is gone and not replaced, and
// lets the configured action follow.
func (v *Env) ChildDown(now time.Time, c ChildInfo, cfg *Child, cause Cause, reason string) {
	act := ActionNone
	switch cause {
	case CausePeer:
		act = cfg.CloseAction
	case CauseDead:
		act = cfg.DPDAction
	case CauseCrashed:
		act = cfg.DPDAction
		if v.origin {
			act |= ActionStart // it was ours to make, and nobody wanted its end
		}
	case CauseExpired:
		act = cfg.StartAction | cfg.CloseAction
	}
	back := v.conn != nil && v.conn.lost(v.e, now, cfg.Name, cause)
	if back {
		act |= ActionStart
	}
	v.e.emit(ChildDown{v.sa.Info(), c, reason, act})
	if v.conn == nil {
		return
	}
	if act&ActionStart != 0 && !back && !v.e.shutdown && !v.conn.keep.held[cfg.Name] {
		v.conn.restart(v.e, now, cfg.Name, now.Sub(c.Installed))
	}
	v.e.queueConn(v.conn)
}

// ChildGone completes the commands that waited for a Child SA to go.
func (v *Env) ChildGone(id uint32) { v.e.childGone(id) }

// Reauthenticate asks for a new IKE SA with authentication that takes over.
func (v *Env) Reauthenticate(now time.Time) {
	if v.conn != nil && !v.rekeyed {
		v.conn.reauthenticate(v.e, now, v)
	}
}

// Closed tells that the IKE SA has ended; the Child SAs were reported and
// removed before. The SA is wiped and never called again.
func (v *Env) Closed(now time.Time, c Closed) {
	if v.gone {
		return
	}
	e := v.e
	var info SAInfo
	if v.sa != nil { // nil: it failed while it was being made
		info = v.sa.Info()
	}
	wasUp := !v.upSince.IsZero()
	v.remove()
	if wasUp {
		e.stats.Established--
		if !v.rekeyed {
			e.emit(IKEDown{info, c.Reason})
		}
	}
	if v.conn != nil {
		v.conn.closed(e, now, v, wasUp, c)
		e.queueConn(v.conn)
	}
	if v.sa != nil {
		v.sa.Wipe()
	}
}

// remove takes the IKE SA out of all tables.
func (v *Env) remove() {
	e := v.e
	v.gone = true
	v.HoldFragments(0)
	e.endHalfOpen(v)
	for j := range v.jobs {
		delete(e.jobs, j)
	}
	for _, id := range v.children {
		if e.byChild[id] == v {
			delete(e.byChild, id)
		}
	}
	if v.spiLocal != 0 && e.bySPI[v.spiLocal] == v {
		delete(e.bySPI, v.spiLocal)
	}
	if e.firsts[v.first] == v {
		delete(e.firsts, v.first)
	}
	if e.byID[v.id] == v {
		delete(e.byID, v.id)
	}
	delete(e.reserved, v.spiReserved)
	e.policies.dropIdentity(v)
	e.timers.set(v, time.Time{})
	for _, w := range v.waiters {
		w.done(e, nil)
	}
	v.waiters = nil
}

// crash removes an IKE SA in which an invariant failed, without trusting its state.
func (v *Env) crash() {
	if v.gone {
		return
	}
	e := v.e
	for _, id := range slices.Clone(v.children) {
		e.policies.remove(e, id)
		e.childGone(id)
	}
	var info SAInfo
	func() {
		defer func() { _ = recover() }()
		info = v.sa.Info()
	}()
	up := !v.upSince.IsZero()
	v.remove()
	if up {
		e.stats.Established--
		if !v.rekeyed {
			e.emit(IKEDown{info, "internal error"})
		}
	}
	if v.conn != nil {
		for _, ch := range info.Children {
			v.conn.keep.crashed = append(v.conn.keep.crashed, ch.Name)
		}
		v.conn.closed(e, v.created, v, up, Closed{Cause: CauseDead, Reason: "internal error", Rejection: &Rejection{SAKey: v.key(), Reason: ReasonInternal}})
		e.queueConn(v.conn)
	}
	func() {
		defer func() { _ = recover() }()
		if v.sa != nil {
			v.sa.Wipe()
		}
	}()
}
