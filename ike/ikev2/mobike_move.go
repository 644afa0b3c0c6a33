package ikev2

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
)

// AddressesChanged implements ike.Mover.
func (s *sa) AddressesChanged(now time.Time, c ike.AddressesChanged) {
	if !s.Usable() {
		return
	}
	m := s.mob
	switch {
	case m == nil:
		if c.Slept {
			s.sendCheck(now)
		}
		return
	case m.origin:
		m.refused = nil
		s.findPaths(now, seek{check: c.Links || c.Slept})
		return
	}
	if s.gone() || m.adrift {
		s.leaveAddress(now)
		return
	}
	s.announceChange()
	s.run(now)
	if c.Slept {
		s.sendCheck(now)
	}
}

// gone reports whether the host has our address no longer, as far as it is known.
func (s *sa) gone() bool {
	own := s.env.OwnAddresses()
	return len(own) > 0 && !slices.Contains(own, s.local.Addr())
}

// seek is why paths are looked for.
type seek struct {
	check   bool // the path in use is to be tried even if nothing speaks against it
	failing bool // it does not answer
}

// findPaths asks the host for the ways to all addresses of the peer.
func (s *sa) findPaths(now time.Time, why seek) {
	remotes := s.remotes()
	s.askPaths(now, remotes, func(now time.Time, sources []netip.Addr) {
		s.pathsKnown(now, remotes, sources, why)
		s.run(now)
	})
}

func (s *sa) askPaths(now time.Time, remotes []netip.Addr, then func(time.Time, []netip.Addr)) {
	m := s.mob
	if m.seeking != 0 {
		s.env.DropJob(m.seeking)
		delete(s.sched.jobs, m.seeking)
	}
	m.seeking = s.env.NewJob()
	s.background(m.seeking, func(now time.Time, r ike.Result) {
		if s.mob != m {
			return
		}
		m.seeking = 0
		if list, ok := r.Value.([]netip.Addr); ok && r.Err == nil && len(list) == len(remotes) && s.Usable() {
			then(now, list)
		}
	})
	s.env.Effect(ike.Ask{Job: m.seeking, Deadline: now.Add(timeoutAsk), Question: ike.Paths{Remotes: remotes}})
}

// remotes are the addresses at which the peer may be: that in use, those that it has
// told of, those of the configuration.
func (s *sa) remotes() []netip.Addr {
	list := []netip.Addr{s.remote.Addr()}
	for _, a := range s.mob.peers {
		if !s.behind(a, s.remote.Addr(), func(c *ike.Child) []ipsec.Selector { return c.Remote }) {
			list = append(list, a)
		}
	}
	for _, a := range s.peer.RemoteAddrs {
		if a.From.IsValid() && a.From == a.To && !slices.Contains(list, a.From) && len(list) < limitRemotes {
			list = append(list, a.From)
		}
	}
	return list
}

// pathTo is the path between two addresses: with the ports in use, but for a mapping that
// a NAT before the peer's present address made.
func (s *sa) pathTo(local, remote netip.Addr) path {
	port := s.remote.Port()
	if remote != s.remote.Addr() && port != 500 {
		if port = 4500; s.peer.RemotePort != 0 && s.peer.RemotePort != 500 {
			port = s.peer.RemotePort
		}
	}
	return path{netip.AddrPortFrom(local, s.local.Port()), netip.AddrPortFrom(remote, port)}
}

// candidates are the paths to try: those that the host would take, then all others from
// addresses of ours.
func (s *sa) candidates(remotes, sources []netip.Addr) (list []path) {
	add := func(local, remote netip.Addr) {
		p := s.pathTo(local, remote)
		if local.Is4() == remote.Is4() && len(list) < limitPaths && !slices.Contains(list, p) && !slices.Contains(s.mob.refused, p) {
			list = append(list, p)
		}
	}
	own := s.env.OwnAddresses()
	for i, r := range remotes {
		if src := sources[i]; src.IsValid() && s.mayUse(src) {
			add(src, r)
		}
	}
	for i, r := range remotes {
		for _, a := range own {
			if sources[i].IsValid() && s.mayUse(a) && reachable(a) {
				add(a, r)
			}
		}
	}
	return list
}

// pathsKnown decides for a path (RFC 4555 §3.5).
func (s *sa) pathsKnown(now time.Time, remotes, sources []netip.Addr, why seek) {
	m := s.mob
	current := path{s.local, s.remote}
	list := s.candidates(remotes, sources)
	was := m.nowhere
	if m.nowhere = len(list) == 0; m.nowhere {
		if len(m.refused) > 0 {
			s.Close(now, ike.Closed{Cause: ike.CauseDead, Reason: "the peer accepts none of the paths to it"}, false)
		} else if !was {
			s.note(1, "no path leads to the peer: the IKE SA waits for one")
		}
		return
	}
	usable := sources[0].IsValid() && !s.gone() && !slices.Contains(m.refused, current)
	switch {
	case !usable:
		// To another address of the peer there is nothing to choose by: all are tried at once.
		m.paths, m.doubt = list, list[0].remote != s.remote
		s.goTo(now, list[0])
	case why.failing:
		s.tryAll(now, list)
	case was:
		s.update() // what was between us may have forgotten us
		s.repeatNow(now)
	case sources[0] != s.local.Addr() && s.peer.AnyLocal():
		// Packets from our address would leave by another one's interface: maybe they
		// arrive, maybe not.
		m.paths, m.doubt = append([]path{current}, list...), true
		s.checkPath(now)
	case why.check && now.Sub(m.checked) >= minPathCheck:
		s.checkPath(now)
	}
	s.announceChange()
}

// checkPath asks the peer for a sign at once.
func (s *sa) checkPath(now time.Time) {
	s.mob.checked = now
	if s.win.out != nil {
		s.repeatNow(now)
		return
	}
	s.sendCheck(now)
}

// tryAll sends what is in flight over all other paths, too, and so do its repetitions.
func (s *sa) tryAll(now time.Time, list []path) {
	m, out := s.mob, s.win.out
	current := path{s.local, s.remote}
	m.paths = append([]path{current}, slices.DeleteFunc(list, func(p path) bool { return p == current })...)
	if out == nil {
		return
	}
	for _, p := range m.paths[1:] {
		s.sendAll(now, s.along(p), out.packets, out.summary, out.sent)
	}
}

func (s *sa) along(p path) ike.Datagram {
	d := s.local2remote(nil)
	d.Local, d.Remote = p.local, p.remote
	return d
}

// ways are how a request goes out.
func (s *sa) ways(out *outstanding) []ike.Datagram {
	m := s.mob
	switch {
	case out.to != nil && out.sent < probeSendings:
		return []ike.Datagram{s.along(*out.to)}
	case m == nil || len(m.paths) < 2 || out.sent == 0 && !m.doubt:
		return []ike.Datagram{s.local2remote(nil)}
	}
	var list []ike.Datagram
	for _, p := range m.paths {
		list = append(list, s.along(p))
	}
	return list
}

// seekPath looks for other paths when a repeated request is still unanswered.
func (s *sa) seekPath(now time.Time) {
	m := s.mob
	if m == nil || !m.origin || !s.Usable() || m.paths != nil || m.seeking != 0 {
		return
	}
	s.findPaths(now, seek{failing: true})
}

// stranded puts a repetition off while no path leads anywhere, and looks for one.
func (s *sa) stranded(now time.Time) bool {
	m := s.mob
	if m == nil || !m.nowhere || !s.Usable() {
		return false
	}
	s.win.out.next = now.Add(retryStranded)
	if m.seeking == 0 {
		s.findPaths(now, seek{})
	}
	return true
}

// repeatNow sends what is in flight at once, and gives it the whole schedule again.
func (s *sa) repeatNow(now time.Time) {
	if out := s.win.out; out != nil {
		out.sent = 0
		s.transmit(now)
	}
}

// pathFound takes note of the path over which an answer came: if it is another one, that
// is the one.
func (s *sa) pathFound(now time.Time, d ike.Datagram) {
	m := s.mob
	if m == nil || !m.origin || m.paths == nil || s.state.phase() != phaseEstablished {
		return
	}
	p := path{d.Local, d.Remote}
	known := slices.Contains(m.paths, p)
	m.paths, m.doubt = nil, false
	if known && p != (path{s.local, s.remote}) {
		s.goTo(now, p)
	}
}

// goTo moves the IKE SA to another path, and the peer with UPDATE_SA_ADDRESSES. Child
// SAs go along unless the peer's address is new: data goes there when it has shown that
// it is there (RFC 4555 §3.5, §3.7).
func (s *sa) goTo(now time.Time, p path) {
	m := s.mob
	data := s.endpoints()
	m.moves++
	s.local, s.remote = p.local, p.remote
	for _, old := range s.previous {
		old.local, old.remote = p.local, p.remote
		old.updateOld(now)
	}
	if p.remote.Addr() == data.remote.Addr() {
		m.data = nil
		s.place()
		s.tellMoved(data)
	} else {
		m.data = &data
	}
	s.update()
	s.repeatNow(now)
}

// update has UPDATE_SA_ADDRESSES sent as soon as the window allows.
func (s *sa) update() {
	if !slices.ContainsFunc(s.sched.queue, isUpdate) {
		s.enqueueFirst(&updateAddrs{})
	}
}

func isUpdate(t task) bool { _, ok := t.(*updateAddrs); return ok }

// updateOld tells of the addresses in an IKE SA that the peer's rekey has replaced, too.
// If our answer to the rekey is lost the peer knows no other one, and repeats its request
// to where we were. A peer that has the new one deletes the old one instead of listening.
func (s *sa) updateOld(now time.Time) {
	if s.state.phase() != phaseEstablished || s.closing != nil || s.sched.current != nil || s.win.out != nil || s.initiatedReplacement() {
		return
	}
	t := &updateAddrs{cookie: newCookie2()}
	s.sched.current = t
	s.request(now, wire.ExchangeInformational, append([]wire.Payload{notify(wire.UpdateSAAddresses, nil), notify(wire.Cookie2, t.cookie)}, s.natHashes(s.local, s.remote)...))
}

// initiatedReplacement reports whether our own request made the IKE SA that replaces this one.
func (s *sa) initiatedReplacement() bool { return s.replacedBy == nil || s.replacedBy.initiator }

// updateAddrs tells the responder to use the addresses that the request comes from and
// goes to (RFC 4555 §3.5).
type updateAddrs struct {
	moves  int
	cookie []byte
	list   []netip.Addr
	tells  bool // of our additional addresses
}

func (*updateAddrs) name() string { return "IKE_MOBIKE" }

func (t *updateAddrs) begin(s *sa, now time.Time) {
	m := s.mob
	if m == nil || !s.Usable() {
		s.finish()
		return
	}
	t.moves, t.cookie = m.moves, newCookie2()
	list := append([]wire.Payload{notify(wire.UpdateSAAddresses, nil)}, s.natHashes(s.local, s.remote)...)
	list = append(list, s.noNATs()...)
	list = append(list, notify(wire.Cookie2, t.cookie))
	if t.list = s.ownAddresses(); !slices.Equal(t.list, m.told) {
		t.tells = true
		list = append(list, additionalPayloads(t.list, true)...)
	}
	s.request(now, wire.ExchangeInformational, list)
}

func (*updateAddrs) cancel(*sa, time.Time) {}

func (t *updateAddrs) answered(s *sa, now time.Time, in *inbound) {
	s.finish()
	m := s.mob
	if m == nil || !s.cookieReturns(now, in, t.cookie, m.data != nil) {
		return
	}
	if t.moves != m.moves {
		s.update() // we have moved since
		return
	}
	switch {
	case wire.FindNotify(in.payloads, wire.UnexpectedNATDetected) != nil:
		s.unexpectedNAT(now, &updateAddrs{})
		return
	case wire.FindNotify(in.payloads, wire.UnacceptableAddresses) != nil:
		s.note(1, "the peer does not accept "+s.local.String()+" to "+s.remote.String())
		if len(m.refused) < limitPaths {
			m.refused = append(m.refused, path{s.local, s.remote})
		}
		s.findPaths(now, seek{})
		return
	}
	m.natRetries, m.refused = 0, nil
	if t.tells {
		m.told = t.list
	}
	if h := wire.FindNotify(in.payloads, wire.NATDetectionDestinationIP); h != nil && s.nat.supported {
		s.sees(now, detectNAT(in.payloads, s.spiI, s.spiR, s.local, s.remote))
		m.mapping = slices.Clone(h.Data)
	}
	if s.remote.Port() == 500 && s.nat.encap() {
		s.release()
		s.goTo(now, path{netip.AddrPortFrom(s.local.Addr(), s.config().NATPort), netip.AddrPortFrom(s.remote.Addr(), 4500)})
		return
	}
	s.release()
	s.renewBound(now)
	s.announceChange()
}

// unexpectedNAT tries again what a NAT on the way has spoiled, a few times: whoever can
// change one packet must not decide for ever (RFC 4555 §3.9).
func (s *sa) unexpectedNAT(now time.Time, again task) {
	if s.mob.natRetries++; s.mob.natRetries <= limitNATRetries {
		s.later(now.Add(retryNAT), again)
		return
	}
	r := &ike.Rejection{Reason: ike.ReasonPeer, ByPeer: true, Notify: wire.UnexpectedNATDetected.String(), Difference: "a NAT is on the way, and the peer knows no NAT traversal"}
	s.Close(now, ike.Closed{Cause: ike.CauseDead, Reason: "a NAT is on the way", Rejection: s.reject(r)}, false)
}

// renewBound makes those Child SAs anew that belong to the addresses of before:
// transport mode's.
func (s *sa) renewBound(now time.Time) {
	at := s.endpoints()
	for _, c := range slices.Clone(s.children) {
		if c.state == childInstalled && s.bound(c, at) {
			s.enqueue(&createChild{cfg: c.cfg})
			s.deleteChild(now, c, ike.CauseReplaced, "transport mode does not move")
		}
	}
}

// natCheck are the hashes by which a check of liveness also shows a NAT that came, went
// or forgot (RFC 4555 §3.8).
func (s *sa) natCheck() []wire.Payload {
	if s.mob == nil || !s.mob.origin {
		return nil
	}
	return s.natHashes(s.local, s.remote)
}

func (s *sa) natChecked(now time.Time, in *inbound) {
	m := s.mob
	h := wire.FindNotify(in.payloads, wire.NATDetectionDestinationIP)
	if m == nil || !m.origin || h == nil || !s.nat.supported || (path{in.datagram.Local, in.datagram.Remote}) != (path{s.local, s.remote}) {
		return
	}
	n := detectNAT(in.payloads, s.spiI, s.spiR, s.local, s.remote)
	if n.supported && (n.local != s.nat.local || n.remote != s.nat.remote || m.mapping != nil && !bytes.Equal(m.mapping, h.Data)) {
		s.note(2, "the NAT on the way is another than before")
		m.moves++
		s.update()
	}
	m.mapping = slices.Clone(h.Data)
}

// leaveAddress goes on from another address of ours as responder, when the one in use is
// gone, and tells the peer of it: the only case in which the responder chooses a path
// (RFC 4555 §3.5, §3.6). Best is one to where the peer is known to be. Until the peer has
// answered, each change of the host is a reason to choose again: an address that is
// replaced is gone for a moment, and what is left in that moment may lead nowhere.
func (s *sa) leaveAddress(now time.Time) {
	remotes := s.remotes()
	if at := s.endpoints().remote.Addr(); at != remotes[0] {
		remotes = append([]netip.Addr{at}, slices.DeleteFunc(remotes, func(a netip.Addr) bool { return a == at })...)
	}
	s.askPaths(now, remotes, func(now time.Time, sources []netip.Addr) {
		if !s.gone() && !s.mob.adrift {
			return
		}
		list := s.candidates(remotes, sources)
		if len(list) == 0 {
			return // the next change may help
		}
		m, p, data := s.mob, list[0], s.endpoints()
		if p.remote.Addr() == data.remote.Addr() {
			p.remote = data.remote // with the port that a NAT may have given it
		}
		s.local, s.remote = p.local, p.remote
		m.moves++
		m.told, m.adrift = nil, true
		if p.remote == data.remote {
			m.data = nil
			s.place()
			s.tellMoved(data)
		} else if m.data == nil {
			m.data = &data
		}
		s.repeatNow(now)
		if !slices.ContainsFunc(s.sched.queue, isMove) {
			s.enqueueFirst(&announceAddrs{moved: true})
		}
		s.run(now)
	})
}

func isMove(t task) bool { a, ok := t.(*announceAddrs); return ok && a.moved }

// probe is a check of an address of the peer at which ESP has come in: if the peer shows
// that it is there, the IKE SA follows. The first sendings go there alone, so that the
// answer proves it; then the path in use is asked, which must not suffer by it.
type probe struct {
	to     path
	cookie []byte
	out    *outstanding
}

func (*probe) name() string { return "IKE_MOBIKE" }

// probeSendings is how often a probe is sent to the new address alone.
const probeSendings = 2

// probeOnce has the address probed, unless that is under way.
func (s *sa) probeOnce(now time.Time, to path) {
	for _, t := range s.sched.all() {
		if _, ok := t.(*probe); ok {
			return
		}
	}
	s.enqueue(&probe{to: to})
}

func (t *probe) begin(s *sa, now time.Time) {
	if s.mob == nil || !s.Usable() {
		s.finish()
		return
	}
	t.cookie = newCookie2()
	s.requestAlong(now, wire.ExchangeInformational, []wire.Payload{notify(wire.Cookie2, t.cookie)}, &t.to)
	t.out = s.win.out
}

func (t *probe) answered(s *sa, now time.Time, in *inbound) {
	s.finish()
	if s.mob == nil || t.out == nil || !s.cookieReturns(now, in, t.cookie, true) {
		return
	}
	if t.out.sent <= probeSendings {
		s.followTo(now, t.to.local, t.to.remote)
		s.release() // checked just now
	}
}

func (*probe) cancel(*sa, time.Time) {}
