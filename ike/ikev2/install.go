package ikev2

import (
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/internal/simbug"
	"adit/ipsec"
	"adit/suite"
)

// lowerNonce is what collisions are decided by (RFC 7296 §2.8.1).
func lowerNonce(ni, nr []byte) []byte {
	if slices.Compare(ni, nr) < 0 {
		return ni
	}
	return nr
}

// installChild derives the keys of a Child SA and installs it. exchangeInitiator
// says whether we sent the request that made it; ni and nr are that exchange's
// nonces. then gets nil, or why the data plane refused; the Child SA is gone then.
func (s *sa) installChild(now time.Time, c *child, exchangeInitiator bool, x secrets, ni, nr []byte, activate bool, then func(time.Time, *ike.Rejection)) {
	if simbug.Chosen == simbug.SwappedKeys && !exchangeInitiator {
		exchangeInitiator = s.initiator
	}
	if simbug.Chosen == simbug.EarlyOutbound {
		activate = true
	}
	keys, err := s.keys.deriveChild(c.suite, x, ni, nr)
	x.zero()
	if err != nil {
		s.forgetChild(c)
		then(now, s.reject(&ike.Rejection{SAKey: ike.SAKey{Child: c.cfg.Name}, Reason: ike.ReasonInternal, Difference: err.Error()}))
		return
	}
	c.nonce = slices.Clone(lowerNonce(ni, nr))
	c.born = now
	peer := s.env.CurrentPeer(s.peer)
	var policies []ipsec.Policy
	c.reqid, policies = s.env.BindPolicy(c.id, peer, c.cfg, c.mode, c.localTS, c.remoteTS, c.many, c.resource)
	c.bound = true
	in, out := s.saParams(c, ipsec.In), s.saParams(c, ipsec.Out)
	if exchangeInitiator {
		out.EncKey, out.IntegKey, in.EncKey, in.IntegKey = keys.encI, keys.intI, keys.encR, keys.intR
	} else {
		in.EncKey, in.IntegKey, out.EncKey, out.IntegKey = keys.encI, keys.intI, keys.encR, keys.intR
	}
	if s.config().UnsafeExportKeys {
		for _, p := range [2]*ipsec.SAParams{&in, &out} {
			src, dst := p.Local.Addr(), p.Remote.Addr()
			if p.Ref.Dir == ipsec.In {
				src, dst = dst, src
			}
			s.env.Effect(ike.ExportKeys{Child: &ike.ChildKeys{Src: src, Dst: dst, SPI: p.SPI, Encr: p.Encr, Integ: p.Integ, ESN: p.ESN,
				EncKey: slices.Clone(p.EncKey), IntegKey: slices.Clone(p.IntegKey)}})
		}
	}
	job := s.env.NewJob()
	s.await(job, func(now time.Time, r ike.Result) {
		if r.Err != nil {
			s.forgetChild(c)
			then(now, s.reject(&ike.Rejection{SAKey: ike.SAKey{Child: c.cfg.Name}, Reason: ike.ReasonInstall, Difference: r.Err.Error()}))
			return
		}
		c.dataplane = true
		c.state = childInstalled
		c.activated = c.activated || activate
		s.setChildTimers(now, c)
		then(now, nil)
	})
	if activate {
		s.env.MarkActive(c.id)
	}
	s.env.Effect(ike.InstallChild{Job: job, In: in, Out: out, Policies: policies, Activate: activate})
}

func (s *sa) saParams(c *child, dir ipsec.Direction) ipsec.SAParams {
	p := ipsec.SAParams{Ref: ipsec.SARef{Child: c.id, Dir: dir}, SPI: c.spiIn, Name: c.cfg.Name, ReqID: c.reqid, IfID: c.cfg.IfID,
		Resource: c.resource, OwnPort: c.resource > 0 && dir == ipsec.Out && c.cfg.PerCPU == ike.PerCPUEncap,
		// The port that one of several comes from says nothing about a NAT: it may be its own.
		Encap: s.nat.encap(), TrackNAT: s.nat.remote && dir == ipsec.In && !c.many,
		Mode: c.mode, Encr: c.suite.Encr, Integ: c.integ(), ESN: c.suite.ESN(), ReplayWindow: c.cfg.ReplayWindow,
		LocalTS: c.localTS, RemoteTS: c.remoteTS, Life: lifetime(c), DF: c.cfg.DF, CopyECN: c.cfg.CopyECN, CopyDSCP: c.cfg.CopyDSCP, MSSClamp: c.cfg.MSSClamp}
	at := s.endpoints()
	p.Local, p.Remote = at.local, at.remote
	if dir == ipsec.Out {
		p.SPI = c.spiOut
		if !s.peerCaps.noTFC {
			p.TFC = c.cfg.TFC
		}
	}
	return p
}

// lifetime bounds a Child SA by use. Without ESN the sequence numbers end it in
// any case, so that none is ever used twice (RFC 4303 §3.3.3).
func lifetime(c *child) ipsec.Lifetime {
	l := ipsec.Lifetime{HardBytes: c.cfg.LifeBytes, HardPackets: c.cfg.LifePackets}
	if c.cfg.RekeyBytes > 0 {
		l.SoftBytes = max(c.cfg.RekeyBytes-randomUint(min(c.cfg.RandBytes, c.cfg.RekeyBytes)), 1)
	}
	if c.cfg.RekeyPackets > 0 {
		l.SoftPackets = max(c.cfg.RekeyPackets-randomUint(min(c.cfg.RandPackets, c.cfg.RekeyPackets)), 1)
	}
	if !c.suite.ESN() {
		if l.SoftPackets == 0 || l.SoftPackets > softPackets {
			l.SoftPackets = softPackets
		}
		if l.HardPackets == 0 || l.HardPackets > hardPackets {
			l.HardPackets = hardPackets
		}
	}
	return l
}

func randomUint(span uint64) uint64 {
	if span == 0 {
		return 0
	}
	return ike.RandomUint64() % (span + 1)
}

// integ is the integrity algorithm as the SAs have it: that which was agreed on, or what
// the peer is known to make of it.
func (c *child) integ() suite.Transform {
	t := c.suite.Integ
	if c.cfg.SHA256_96 && t.Type == suite.TypeINTEG && t.ID == suite.IntegHMACSHA2_256_128 {
		t.ID = suite.IntegHMACSHA2_256_96
	}
	return t
}

func (s *sa) setChildTimers(now time.Time, c *child) {
	if c.cfg.RekeyTime > 0 {
		c.rekeyAt = now.Add(c.cfg.RekeyTime - ike.RandomSpan(min(c.cfg.RandTime, c.cfg.RekeyTime)))
	}
	if c.cfg.LifeTime > 0 {
		c.endAt = now.Add(c.cfg.LifeTime)
	}
	if c.cfg.Inactivity > 0 {
		c.inactiveAt = now.Add(c.cfg.Inactivity)
	}
}

// announce tells that a Child SA is up that replaces none.
func (s *sa) announce(now time.Time, c *child) {
	c.announced = true
	s.env.ChildUp(now, c.info(s))
}

// wakeChildren runs the Child SAs' timers.
func (s *sa) wakeChildren(now time.Time) {
	due := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	for _, c := range slices.Clone(s.children) {
		switch {
		case due(c.endAt):
			c.endAt = time.Time{}
			s.childEnd(now, c)
		case due(c.activateAt):
			c.activateAt = time.Time{}
			if c.state == childInstalled && !c.overtaken() {
				s.activate(c)
			}
		case due(c.rekeyAt):
			c.rekeyAt = time.Time{}
			s.RekeyChild(now, c.id)
		case due(c.inactiveAt):
			c.inactiveAt = time.Time{}
			s.checkInactive(now, c)
		}
	}
}

// childEnd acts on the end of a Child SA's time: a replaced one is removed, one
// that is in use is closed hard.
func (s *sa) childEnd(now time.Time, c *child) {
	switch {
	case c.state == childRekeyed && c.deleted:
		s.dropChild(now, c, ike.CauseReplaced, "replaced")
	case c.state == childRekeyed:
		s.deleteChild(now, c, ike.CauseReplaced, "replaced, and not deleted by the peer")
	default:
		s.deleteChild(now, c, ike.CauseExpired, "lifetime expired")
	}
}

// childExpired acts on a bound of use.
func (s *sa) childExpired(now time.Time, c *child, hard bool) {
	switch {
	case c.state == childRekeyed || c.state == childDeleting:
	case hard:
		s.deleteChild(now, c, ike.CauseExpired, "lifetime of bytes or packets expired")
	default:
		s.RekeyChild(now, c.id)
	}
}

// checkInactive closes a Child SA that carried nothing for the configured time.
func (s *sa) checkInactive(now time.Time, c *child) {
	if c.state != childInstalled && c.state != childRekeying {
		return
	}
	job := s.env.NewJob()
	s.background(job, func(now time.Time, r ike.Result) {
		st, ok := r.Value.(ike.ChildStats)
		if !ok || s.child(c.id) == nil {
			c.inactiveAt = now.Add(c.cfg.Inactivity)
			return
		}
		last := c.born
		for _, t := range []time.Time{st.In.LastUse, st.Out.LastUse} {
			if t.After(last) {
				last = t
			}
		}
		if at := last.Add(c.cfg.Inactivity); now.Before(at) {
			c.inactiveAt = at
			return
		}
		if s.config().CloseOnInactivity && len(s.children) == 1 {
			s.Close(now, ike.Closed{Cause: ike.CauseInactive, Reason: "its only Child SA was inactive"}, false)
			return
		}
		s.deleteChild(now, c, ike.CauseInactive, "inactive")
	})
	s.env.Effect(ike.QueryChild{Job: job, Child: c.id})
}

// replace lets next take over from old: the names and commands; the policies
// follow as RFC 7296 §2.8 lets them.
func (s *sa) replace(now time.Time, old, next *child) {
	old.replacement = next
	old.rekeyAt, old.inactiveAt = time.Time{}, time.Time{}
	next.announced = next.announced || old.announced
	old.announced = false
	s.env.CountRekeyChild()
	s.env.Emit(ike.ChildRekeyed{SA: s.Info(), Old: old.info(s), New: next.info(s)})
}

// restorePredecessor puts the Child SA back into use that c was to replace, when
// the peer, who asked for c, could not install it and goes on with the old one.
func (s *sa) restorePredecessor(now time.Time, c *child) {
	for _, old := range s.children {
		if old.replacement != c || old.deleted || old.state != childRekeyed || !old.dataplane {
			continue
		}
		old.replacement, old.state = nil, childInstalled
		s.setChildTimers(now, old)
		if c.announced {
			s.replace(now, c, old)
		}
		return
	}
}

// retire keeps a replaced Child SA that both sides have deleted a little longer,
// for packets that are on the way.
func (s *sa) retire(now time.Time, c *child) {
	c.state, c.deleted = childRekeyed, true
	c.rekeyAt, c.inactiveAt, c.activateAt = time.Time{}, time.Time{}, time.Time{}
	s.env.RetireChild(c.id)
	if d := s.config().DeleteRekeyedDelay; d > 0 {
		c.endAt = now.Add(d)
		return
	}
	s.dropChild(now, c, ike.CauseReplaced, "replaced")
}

func deletePayload(spis ...ipsec.SPI) *wire.Delete {
	d := &wire.Delete{Protocol: wire.ProtocolESP}
	for _, spi := range spis {
		d.SPIs = append(d.SPIs, uint32(spi))
	}
	return d
}
