package ikev1

import (
	"net/netip"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// Version is IKEv1, for ike.New.
var Version = ike.Version{
	Major:    1,
	First:    isFirst,
	Accept:   accept,
	Initiate: initiate,
}

// isFirst reports whether a header can be that of a phase 1 that begins.
func isFirst(h *wire.Header) bool {
	return (h.Exchange == wire.ExchangeV1IdentityProtection || h.Exchange == wire.ExchangeV1Aggressive) &&
		h.SPIr == 0 && h.MessageID == 0 && h.Flags&wire.FlagV1Encryption == 0
}

// sa is one ISAKMP SA.
type sa struct {
	env       *ike.Env
	peer      *ike.Peer // nil in a responder until the peer has proved itself
	spiI      uint64    // CKY-I
	spiR      uint64    // CKY-R
	local     netip.AddrPort
	remote    netip.AddrPort
	initiator bool // of phase 1
	phase     phase
	setup     *setup // what only phase 1 needs, nil after it
	keys      *keys
	selected  suite.Selected
	nat       nat
	caps      capabilities
	ids       [2]ike.Identity // ours, the peer's
	tieBreak  []byte

	first *exchange // phase 1
	// unheard is the last message of aggressive mode, which nobody answers: it is repeated
	// until something authentic shows that it has come.
	unheard  *exchange
	ext      *extended // XAUTH, nil outside of it
	vips     addresses
	eapID    string     // the peer's name in XAUTH
	partials []*partial // messages of the peer's that have not come whole
	// fragmentID is that of our last message in fragments.
	fragmentID uint16
	exchanges  []*exchange // quick modes under way, of either side
	answers    []answer
	// lastConfig is the last transaction of the peer's that was answered.
	lastConfig *exchange
	children   []*child
	sched      scheduler
	dpd        dpd
	life       life
	remade     bool // its IPsec SAs passed to a newer ISAKMP SA
	goes       bool // that one is of the same initiator, so that both ends know which stays
}

// capabilities are what the peer's vendor IDs tell.
type capabilities struct {
	dpd    bool
	natT   natVersion
	draft  []byte // the vendor ID of natDraft that the peer sent
	xauth  bool
	unity  bool
	vendor string
	// fragments tells that it puts fragments together.
	fragments bool
}

// life are the timers of an ISAKMP SA.
type life struct {
	established        time.Time
	reauthAt, endAt    time.Time
	setupEnd           time.Time // half-open: closed by then
	lastIn, lastOut    time.Time
	dpdAt, keepAliveAt time.Time
	emptyAt            time.Time     // closed then, unless it has IPsec SAs again
	session            time.Duration // how long the user may stay at most, 0: as long as it likes
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
	if h.NextPayload == wire.PayloadV1Fragment && s.phase != phaseDead {
		whole := s.collect(now, d)
		if whole == nil {
			return
		}
		d.Data = whole
	}
	switch {
	case s.phase == phaseDead:
		s.env.Drop(now, ike.DropUnexpected, d.Remote)
	case s.phase == phasePieces:
		if !s.takeWhole(now, d) {
			s.end(now, ike.Closed{Cause: ike.CauseFailed})
		}
	case s.repeat(now, d):
	case s.sched.busy != 0:
		s.sched.hold(s, now, d)
	default:
		s.receive(now, d)
		s.run(now)
	}
}

// Done takes the result of a job.
func (s *sa) Done(now time.Time, r ike.Result) {
	then := s.sched.jobs[r.Job]
	delete(s.sched.jobs, r.Job)
	if then == nil {
		return
	}
	if s.sched.busy == r.Job {
		s.sched.busy, s.sched.busyUntil = 0, time.Time{}
	}
	then(now, r)
	for s.sched.busy == 0 && len(s.sched.held) > 0 && s.phase != phaseDead {
		d := s.sched.held[0]
		s.sched.held = s.sched.held[1:]
		s.sched.heldBytes -= len(d.Data)
		if !s.repeat(now, d) {
			s.receive(now, d)
		}
	}
	s.run(now)
}

// Wake runs the timers that are due.
func (s *sa) Wake(now time.Time) {
	due := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	if s.phase == phaseDead {
		return
	}
	if due(s.life.setupEnd) {
		s.setupTimeout(now)
		return
	}
	for _, x := range s.underWay() {
		if x.out != nil && due(x.out.next) {
			s.retransmit(now, x)
		}
		if s.phase == phaseDead {
			return
		}
	}
	if due(s.sched.busyUntil) {
		job := s.sched.busy
		s.env.DropJob(job)
		s.Done(now, ike.Result{Job: job, Err: errNoAnswerInTime})
	}
	if due(s.life.endAt) {
		s.Close(now, ike.Closed{Cause: ike.CauseExpired, Reason: "lifetime expired"}, false)
		return
	}
	if due(s.life.emptyAt) {
		s.life.emptyAt = time.Time{}
		switch {
		case len(s.children) > 0 && s.goes:
			s.handRest(now)
		case len(s.children) == 0:
			s.leave(now, ike.Closed{Cause: ike.CauseReplaced, Reason: "replaced"})
			return
		}
	}
	if due(s.life.reauthAt) {
		s.life.reauthAt = time.Time{}
		s.RekeyIKE(now)
	}
	if due(s.life.dpdAt) {
		s.checkPeer(now)
		if s.phase == phaseDead {
			return
		}
	}
	if due(s.life.keepAliveAt) {
		s.keepAlive(now)
	}
	s.forgetPartials(func(p *partial) bool { return due(p.until) })
	s.wakeChildren(now)
	s.sched.wakeDelayed(now)
	s.run(now)
}

// NextWake is the earliest timer.
func (s *sa) NextWake() time.Time {
	if s.phase == phaseDead {
		return time.Time{}
	}
	var next time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	l := &s.life
	for _, t := range []time.Time{l.setupEnd, l.reauthAt, l.endAt, l.dpdAt, l.keepAliveAt, l.emptyAt, s.sched.busyUntil} {
		sooner(t)
	}
	for _, x := range s.underWay() {
		if x.out != nil {
			sooner(x.out.next)
		}
	}
	for _, c := range s.children {
		sooner(c.rekeyAt)
		sooner(c.endAt)
		sooner(c.inactiveAt)
	}
	for _, d := range s.sched.delayed {
		sooner(d.at)
	}
	for _, p := range s.partials {
		sooner(p.until)
	}
	return next
}

// underWay lists phase 1 and the exchanges of phase 2.
func (s *sa) underWay() []*exchange {
	list := make([]*exchange, 0, len(s.exchanges)+2)
	for _, x := range []*exchange{s.first, s.unheard} {
		if x != nil {
			list = append(list, x)
		}
	}
	return append(list, s.exchanges...)
}

// Info is the ISAKMP SA as listed.
func (s *sa) Info() ike.SAInfo {
	i := ike.SAInfo{Name: s.key().Name, ID: s.env.ID(), Instance: s.env.Instance(), Version: 1, State: s.stateName(), Initiator: s.initiator, SPIi: s.spiI, SPIr: s.spiR,
		Local: s.local, Remote: s.remote, LocalID: s.ids[0], RemoteID: s.ids[1],
		NATLocal: s.nat.local, NATRemote: s.nat.remote, NATFake: s.nat.fake, Encap: s.nat.encap(),
		Suite: s.selected, Established: s.life.established, ReauthAt: s.life.reauthAt, PeerVendor: s.caps.vendor, RemoteEAPID: s.eapID, LocalVIPs: s.vips.got, RemoteVIPs: s.vips.given}
	for _, c := range s.children {
		if c.state != childPending {
			i.Children = append(i.Children, c.info(s))
		}
	}
	if p := s.peer; p != nil && p.ReauthTime == 0 { // as charon, after the option it comes from
		i.RekeyAt, i.ReauthAt = i.ReauthAt, i.RekeyAt
	}
	i.Tasks, i.TasksQueued, i.TasksPassive = s.tasks()
	return i
}

func (s *sa) stateName() string {
	switch {
	case s.phase == phaseDead:
		return "DESTROYING"
	case s.phase < phaseEstablished:
		return "CONNECTING"
	case s.remade:
		return "REKEYED"
	}
	return "ESTABLISHED"
}

// Usable reports whether new IPsec SAs may be made here.
func (s *sa) Usable() bool { return s.phase == phaseEstablished && !s.remade }

// TieBreak is the lower nonce of phase 1.
func (s *sa) TieBreak() []byte { return s.tieBreak }

// Wipe zeroes all keys.
func (s *sa) Wipe() {
	s.keys.wipe()
	s.leaveSetup()
	s.phase = phaseDead
	s.forgetPartials(func(*partial) bool { return true })
	s.releaseAddresses()
	s.exchanges, s.first, s.unheard, s.answers, s.ext, s.lastConfig = nil, nil, nil, nil, nil, nil
	s.sched = scheduler{}
}

// Dataplane takes an event of one of the IPsec SAs.
func (s *sa) Dataplane(now time.Time, ev ipsec.Event) {
	switch ev := ev.(type) {
	case ipsec.Expire:
		if c := s.child(ev.Ref.Child); c != nil {
			s.childExpired(now, c, ev.Hard)
		}
	case ipsec.MappingChange:
		if c := s.child(ev.Ref.Child); c != nil && s.nat.remote && ev.Remote.IsValid() {
			s.move(now, s.local, ev.Remote)
		}
	}
	s.run(now)
}

// RekeyIKE makes a new ISAKMP SA: IKEv1 has no other way, so it authenticates again.
// A client that gave a password, or has an address of ours, only itself can do so: the SA
// ends when its lifetime does, as in strongSwan.
func (s *sa) RekeyIKE(now time.Time) {
	switch {
	case !s.Usable():
	case !s.initiator && (s.eapID != "" || len(s.vips.given) > 0):
		s.note(1, "only the client can authenticate again; it has until the end of the SA's lifetime")
	default:
		s.env.Reauthenticate(now)
	}
}

// Close deletes the ISAKMP SA with its IPsec SAs. Nobody answers a Delete of IKEv1
// (RFC 2408 §3.15), so that nothing is waited for. Only one whose IPsec SAs have passed to a
// newer one stays a while: the peer may still be at the proof in the newer one's last message,
// and would close them with the older one.
func (s *sa) Close(now time.Time, c ike.Closed, _ bool) {
	switch {
	case s.phase == phaseDead:
	case s.remade && c.Cause == ike.CauseReplaced:
		if s.life.emptyAt.IsZero() {
			s.life.emptyAt = now.Add(emptyGrace)
			s.env.Touch()
		}
	default:
		s.leave(now, c)
	}
}

func (s *sa) leave(now time.Time, c ike.Closed) {
	if s.phase == phaseEstablished || s.phase == phaseExtended {
		s.sendDeletes(now)
	}
	s.end(now, c)
}

// end removes the ISAKMP SA and all that belongs to it.
func (s *sa) end(now time.Time, c ike.Closed) {
	if s.phase == phaseDead {
		return
	}
	s.phase = phaseDead
	waiting := s.sched.all()
	for _, x := range s.exchanges {
		if x.quick != nil && x.quick.task != nil {
			waiting = append(waiting, x.quick.task)
		}
	}
	for _, ch := range append([]*child(nil), s.children...) {
		s.dropChild(now, ch, c.Cause, c.Reason)
	}
	for _, t := range waiting {
		t.cancel(s, now)
	}
	s.sched.queue, s.sched.delayed = nil, nil
	s.leaveSetup()
	s.env.Closed(now, c)
}

// reject records a failed negotiation.
func (s *sa) reject(r *ike.Rejection) *ike.Rejection {
	r.Local, r.Remote = s.local, s.remote
	return s.env.Reject(r, s.peer, s.key(), s.Info())
}

// fail ends an ISAKMP SA that did not come up.
func (s *sa) fail(now time.Time, r *ike.Rejection) {
	if !s.initiator && !s.env.MayReject(now) {
		s.end(now, ike.Closed{Cause: ike.CauseFailed, Rejection: r})
		return
	}
	s.end(now, ike.Closed{Cause: ike.CauseFailed, Reason: r.Error(), Rejection: s.reject(r)})
}

func (s *sa) note(level int, text string) {
	s.env.Emit(ike.Note{SAKey: s.key(), Level: level, Text: text})
}

// move changes the peer's or our own endpoint.
func (s *sa) move(now time.Time, local, remote netip.AddrPort) {
	if s.local == local && s.remote == remote {
		return
	}
	oldLocal, old := s.local, s.remote
	s.local, s.remote = local, remote
	for _, c := range s.children {
		if c.dataplane {
			s.env.Effect(ike.UpdateChild{Child: c.id, Update: ipsec.SAUpdate{Local: local, Remote: remote, Encap: s.nat.encap(), TrackNAT: s.nat.remote}})
		}
	}
	if !s.life.established.IsZero() {
		s.env.Emit(ike.Moved{SA: s.Info(), OldLocal: oldLocal, Old: old})
	}
}
