package ikev2

import (
	"crypto/sha256"
	"net/netip"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// Version is IKEv2, for ike.New.
var Version = ike.Version{
	Major: 2,
	First: func(h *wire.Header) bool {
		return (h.Exchange == wire.ExchangeIKESAInit || h.Exchange == wire.ExchangeIKESessionResume) && !h.Response() && h.FromInitiator() && h.MessageID == 0 && h.SPIr == 0
	},
	Accept: func(env *ike.Env, now time.Time, d ike.Datagram, h wire.Header) ike.SA {
		if h.Exchange == wire.ExchangeIKESessionResume {
			return acceptResume(env, now, d, h)
		}
		return accept(env, now, d, h)
	},
	Initiate: initiate,
}

// sa is one IKE SA.
type sa struct {
	env       *ike.Env
	peer      *ike.Peer // nil in a responder until IKE_AUTH has chosen
	spiI      uint64
	spiR      uint64
	local     netip.AddrPort
	remote    netip.AddrPort
	state     state
	keys      *ikeKeys
	selected  suite.Selected
	nat       nat
	peerCaps  capabilities
	initiator bool            // the original initiator of this IKE SA
	byEAP     bool            // the peer proved itself by EAP
	ppk       bool            // a PPK is in the keys (RFC 8784, RFC 9867)
	redundant bool            // made by one of two rekeys at once, and not the one that stays
	authID    uint32          // the message ID after IKE_AUTH
	ids       [2]ike.Identity // ours, the peer's
	vendor    string
	eapID     string   // the peer's identity inside EAP
	auth      authLife // of what is proved
	tieBreak  []byte
	// ppkID names that PPK (RFC 9867).
	ppkID string
	// crashToken is the peer's of this IKE SA (RFC 6290), nil: it makes none.
	crashToken []byte
	// nextToken is that of the IKE SA that our rekey is about to make.
	nextToken []byte
	// resumed is what the IKE SA was made of, if it was of a ticket (RFC 5723).
	resumed *resumption

	win      window
	children []*child
	// noMore are the children for which the peer makes no more Child SAs of single
	// resources, until one of them goes.
	noMore []*ike.Child
	// earlyDeletes are SPIs that the peer deleted while our request for a Child SA
	// was not answered: the answer may name them.
	earlyDeletes []ipsec.SPI
	vips         *addresses // nil: there is nothing about any
	mob          *mobike    // nil: the two ends don't move
	sched        scheduler
	life         life
	// partial are the messages of the peer of which not all fragments have come: a
	// request, a response.
	partial [2]*partial
	// awaiting are exchanges of the peer's whose additional key exchanges are to come.
	awaiting []*awaited
	// doomed ends the IKE SA after what is being done: an answer of ours cannot be sent.
	doomed  *ike.Rejection
	closing *ike.Closed // set when the Delete of the IKE SA was asked for
	// replacedBy is the IKE SA that took over by rekey; this one only waits for its Delete.
	replacedBy *sa
	// previous are those that came before this one and wait for the peer's Delete, oldest first.
	previous []*sa
	// undecided is the IKE SA that this one replaces if it wins against our own
	// rekey, which is still in flight.
	undecided *sa
}

// capabilities are what the peer announced.
type capabilities struct {
	childless bool
	noTFC     bool
	fragments bool // RFC 7383: announced by both sides
	redirect  bool // RFC 5685: it may be redirected
	ppk       bool // RFC 8784: announced by both sides
	ppkInt    bool // RFC 9867: announced by both sides, and chosen
	// redirected: it was, or will be.
	redirected bool
	// noChildKE: its rekeys of Child SAs have no key exchange, and ours must have none.
	noChildKE bool
	// certWithheld: it asked for no certificate of ours, and got none.
	certWithheld bool
}

// life are the timers of an established IKE SA.
type life struct {
	established              time.Time
	rekeyAt, reauthAt, endAt time.Time
	setupEnd                 time.Time // half-open: closed by then
	forgetAt                 time.Time // when nobody repeats IKE_AUTH any more
	lastIn, lastOut          time.Time // messages of the peer (authenticated), and of ours
	dpdAt                    time.Time
	keepAliveAt              time.Time
}

func (s *sa) config() *ike.Config { return s.env.Config() }

func (s *sa) key() ike.SAKey {
	k := ike.SAKey{ID: s.env.ID()}
	if s.peer != nil {
		k.Name = s.peer.Name
	}
	return k
}

// Datagram takes a message that was routed here.
func (s *sa) Datagram(now time.Time, d ike.Datagram, h wire.Header) {
	if s.state.phase() == phaseDead {
		s.env.Drop(now, ike.DropUnexpected, d.Remote)
		return
	}
	if s.sched.busy != 0 {
		s.sched.hold(s, now, d)
		return
	}
	s.receive(now, d)
}

// Done takes the result of a job.
func (s *sa) Done(now time.Time, r ike.Result) {
	then := s.sched.jobs[r.Job]
	if delete(s.sched.jobs, r.Job); len(s.sched.jobs) == 0 {
		s.sched.jobs = nil // a map in every idle IKE SA is much
	}
	if then == nil {
		return
	}
	if s.sched.busy == r.Job {
		s.sched.busy, s.sched.busyUntil = 0, time.Time{}
	}
	then(now, r)
	s.resume(now)
}

// resume takes the inputs that waited while the IKE SA was busy, then starts
// what waits to be started.
func (s *sa) resume(now time.Time) {
	for s.sched.busy == 0 && len(s.sched.held) > 0 && s.state.phase() != phaseDead {
		d := s.sched.held[0]
		s.sched.held = s.sched.held[1:]
		s.sched.heldBytes -= len(d.Data)
		s.receive(now, d)
	}
	s.run(now)
}

// Wake runs the timers that are due.
func (s *sa) Wake(now time.Time) {
	due := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	if s.state.phase() == phaseDead {
		return
	}
	if due(s.life.setupEnd) {
		s.setupTimeout(now)
		return
	}
	if due(s.life.forgetAt) {
		s.forgetAuth()
	}
	if out := s.win.out; out != nil && due(out.next) {
		s.retransmit(now)
		if s.state.phase() == phaseDead {
			return
		}
	}
	if due(s.sched.busyUntil) {
		// A question that nobody answered: go on without.
		job := s.sched.busy
		s.env.DropJob(job)
		s.Done(now, ike.Result{Job: job, Err: errNoAnswerInTime})
	}
	if due(s.life.endAt) {
		s.expired(now)
		return
	}
	if due(s.life.reauthAt) {
		s.life.reauthAt = time.Time{}
		s.env.Reauthenticate(now)
	}
	if due(s.life.rekeyAt) {
		s.life.rekeyAt = time.Time{}
		s.RekeyIKE(now)
	}
	if due(s.life.dpdAt) {
		s.checkPeer(now)
	}
	if due(s.life.keepAliveAt) {
		s.keepAlive(now)
	}
	s.wakePartials(now)
	s.wakeAwaiting(now)
	s.wakeChildren(now)
	s.sched.wakeDelayed(now)
	s.run(now)
}

// NextWake is the earliest timer.
func (s *sa) NextWake() time.Time {
	if s.state.phase() == phaseDead {
		return time.Time{}
	}
	var next time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	l := &s.life
	for _, t := range []time.Time{l.setupEnd, l.forgetAt, l.rekeyAt, l.reauthAt, l.endAt, l.dpdAt, l.keepAliveAt, s.sched.busyUntil} {
		sooner(t)
	}
	if s.win.out != nil {
		sooner(s.win.out.next)
	}
	for _, p := range s.partial {
		if p != nil {
			sooner(p.until)
		}
	}
	if s.sched.busy == 0 {
		for _, w := range s.awaiting {
			sooner(w.until)
		}
	}
	for _, c := range s.children {
		sooner(c.rekeyAt)
		sooner(c.endAt)
		sooner(c.inactiveAt)
		sooner(c.activateAt)
	}
	for _, d := range s.sched.delayed {
		sooner(d.at)
	}
	return next
}

// Info is the IKE SA as listed.
func (s *sa) Info() ike.SAInfo {
	i := ike.SAInfo{Name: s.key().Name, ID: s.env.ID(), Instance: s.env.Instance(), Version: 2, State: s.stateName(), Initiator: s.initiator, SPIi: s.spiI, SPIr: s.spiR,
		Local: s.local, Remote: s.remote, LocalID: s.ids[0], RemoteID: s.ids[1],
		NATLocal: s.nat.local, NATRemote: s.nat.remote, NATFake: s.nat.fake, Encap: s.nat.encap(),
		Suite: s.selected, Established: s.life.established, RekeyAt: s.life.rekeyAt, ReauthAt: s.life.reauthAt, PeerVendor: s.vendor, RemoteEAPID: s.eapID, PPK: s.ppk}
	i.LocalVIPs, i.RemoteVIPs = s.cp().got, s.cp().given
	for _, c := range s.children {
		if c.state != childPending {
			i.Children = append(i.Children, c.info(s))
		}
	}
	i.Tasks, i.TasksQueued, i.TasksPassive = s.tasks()
	return i
}

func (s *sa) stateName() string {
	switch s.state.phase() {
	case phaseInitSent, phaseIntermediateSent, phaseInitReceived, phaseAuthReceived, phaseAuthSent:
		return "CONNECTING"
	case phaseClosing:
		return "DELETING"
	case phaseDead:
		return "DESTROYING"
	}
	switch _, rekeying := s.sched.current.(*rekeyIKE); {
	case s.replacedBy != nil:
		return "REKEYED"
	case rekeying:
		return "REKEYING"
	}
	return "ESTABLISHED"
}

// Usable reports whether new Child SAs may be made here.
func (s *sa) Usable() bool {
	return s.state.phase() == phaseEstablished && s.replacedBy == nil && s.closing == nil && !s.redundant
}

// TieBreak is the lower nonce of the exchange that made the IKE SA.
func (s *sa) TieBreak() []byte { return s.tieBreak }

// Wipe zeroes all keys.
func (s *sa) Wipe() {
	s.keys.wipe()
	s.releaseAddresses()
	s.state.leave()
	s.state = dead{}
	for _, c := range s.children {
		c.wipe()
	}
	s.sched.follow.wipe()
	s.sched.ppk.wipe()
	s.forgetAwaiting()
	s.sched = scheduler{}
	s.win = window{}
	s.partial = [2]*partial{}
}

// Dataplane takes an event of one of the Child SAs.
func (s *sa) Dataplane(now time.Time, ev ipsec.Event) {
	switch ev := ev.(type) {
	case ipsec.Expire:
		if c := s.child(ev.Ref.Child); c != nil {
			s.childExpired(now, c, ev.Hard)
		}
	case ipsec.MappingChange:
		if c := s.child(ev.Ref.Child); c != nil && s.nat.remote && ev.Remote.IsValid() {
			s.mapped(now, ev.Remote)
		}
	}
	s.run(now)
}

// Close deletes the IKE SA.
func (s *sa) Close(now time.Time, c ike.Closed, force bool) {
	switch s.state.phase() {
	case phaseDead:
		return
	case phaseInitSent, phaseIntermediateSent, phaseInitReceived, phaseAuthReceived:
		s.end(now, c)
		return
	case phaseAuthSent:
		// The peer may hold the IKE SA as established: it finds out by its own checks.
		s.end(now, c)
		return
	case phaseClosing:
		if force {
			s.end(now, c)
		}
		return
	}
	if s.closing == nil {
		s.closing = &c
		s.sched.clear(s, now)
		s.enqueueFirst(&deleteIKE{why: c, force: force})
	}
	if force {
		// The Delete goes out once, if the window lets it; nobody waits for the answer.
		if s.win.out == nil {
			s.sendDeleteNow(now)
		}
		s.end(now, c)
		return
	}
	s.run(now)
}

// end removes the IKE SA and all that belongs to it.
func (s *sa) end(now time.Time, c ike.Closed) {
	if s.state.phase() == phaseDead {
		return
	}
	if s.win.response != nil && s.sched.working != ([sha256.Size]byte{}) {
		s.env.Linger(now, s.sched.working, s.win.response)
	}
	s.state.leave()
	s.state = dead{}
	s.forgetAwaiting()
	if u := s.undecided; u != nil { // it can no longer take over from that one
		if t, ok := u.sched.current.(*rekeyIKE); ok && t.theirs == s {
			t.theirs = nil
		}
	}
	for _, ch := range append([]*child(nil), s.children...) {
		s.dropChild(now, ch, c.Cause, c.Reason)
	}
	s.sched.clear(s, now)
	s.win.out = nil
	s.env.Closed(now, c)
}

// reject records a failed negotiation.
func (s *sa) reject(r *ike.Rejection) *ike.Rejection {
	r.Local, r.Remote = s.local, s.remote
	return s.env.Reject(r, s.peer, s.key(), s.Info())
}

// fail ends an IKE SA that did not come up.
func (s *sa) fail(now time.Time, r *ike.Rejection) {
	if p := s.state.phase(); (p == phaseInitReceived || p == phaseAuthReceived) && !s.env.MayReject(now) {
		s.end(now, ike.Closed{Cause: ike.CauseFailed, Rejection: r})
		return
	}
	s.end(now, ike.Closed{Cause: ike.CauseFailed, Reason: r.Error(), Rejection: s.reject(r)})
}

func (s *sa) note(level int, text string) {
	s.env.Emit(ike.Note{SAKey: s.key(), Level: level, Text: text})
}

// move changes the peer's or our own endpoint (RFC 7296 §2.23).
func (s *sa) move(now time.Time, local, remote netip.AddrPort) {
	if s.local == local && s.remote == remote {
		return
	}
	oldLocal, old := s.local, s.remote
	s.local, s.remote = local, remote
	s.place()
	if !s.life.established.IsZero() {
		s.env.Emit(ike.Moved{SA: s.Info(), OldLocal: oldLocal, Old: old})
	}
}
