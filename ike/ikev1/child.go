package ikev1

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"adit/ike"
	"adit/ipsec"
	"adit/suite"
)

// childState is where an IPsec SA pair stands.
type childState uint8

const (
	childPending   childState = iota // being negotiated, or waiting for message 3; not listed
	childInstalled                   // carries traffic
	childRekeying                    // our rekey of it is under way
	childRekeyed                     // replaced; stays for packets on the way
)

func (c childState) String() string {
	return [...]string{"INSTALLING", "INSTALLED", "REKEYING", "REKEYED"}[c]
}

// child is a pair of IPsec SAs that one quick mode made; the common parts call it a
// Child SA.
type child struct {
	cfg               *ike.Child
	id, reqid         uint32
	spiIn, spiOut     ipsec.SPI
	suite             suite.Selected
	mode              ipsec.Mode
	state             childState
	initiator         bool // we asked for it
	announced         bool // ChildUp was emitted
	bound             bool // has policies
	dataplane         bool // is installed
	localTS, remoteTS []ipsec.Selector
	life              time.Duration // what was agreed on, 0: nothing
	lifeBytes         uint64
	requested, born   time.Time
	rekeyAt, endAt    time.Time
	inactiveAt        time.Time
}

func (c *child) info(s *sa) ike.ChildInfo {
	return ike.ChildInfo{Name: c.cfg.Name, ID: c.id, ReqID: c.reqid, State: c.state.String(), Mode: c.mode, Encap: s.nat.encap(),
		SPIIn: c.spiIn, SPIOut: c.spiOut, Suite: c.suite, LocalTS: c.localTS, RemoteTS: c.remoteTS,
		Installed: c.born, RekeyAt: c.rekeyAt, ExpireAt: c.endAt, IfID: c.cfg.IfID,
		Updown: c.cfg.Updown, HostAccess: c.cfg.HostAccess}
}

func (s *sa) child(id uint32) *child {
	for _, c := range s.children {
		if c.id == id {
			return c
		}
	}
	return nil
}

func (s *sa) newChild(cfg *ike.Child, initiator bool) *child {
	c := &child{cfg: cfg, initiator: initiator, id: s.env.NewChildID(), spiIn: s.env.NewESPSPI(0, 0)}
	s.children = append(s.children, c)
	return c
}

// forgetChild takes a pair out of all tables.
func (s *sa) forgetChild(c *child) {
	if c.bound {
		s.env.UnbindPolicy(c.id)
		c.bound = false
	}
	s.env.ForgetChild(c.id)
	s.children = slices.DeleteFunc(s.children, func(x *child) bool { return x == c })
	s.env.ChildGone(c.id)
}

// dropChild removes a pair, installed or not, and reports it if it was up and is not
// replaced.
func (s *sa) dropChild(now time.Time, c *child, cause ike.Cause, reason string) {
	if !c.dataplane {
		s.forgetChild(c)
		return
	}
	s.env.RemoveChild(c.id)
	c.dataplane, c.bound = false, false
	info := c.info(s)
	s.forgetChild(c)
	if c.announced {
		s.env.ChildDown(now, info, c.cfg, cause, reason)
	}
}

// install derives the keys of a pair and installs it. initiator says whether we began
// the quick mode. then gets nil, or why the data plane refused; the pair is gone then.
func (s *sa) install(now time.Time, c *child, shared suite.Key, ni, nr []byte, activate bool, then func(time.Time, *ike.Rejection)) {
	failed := func(now time.Time, reason ike.Reason, err error) {
		s.forgetChild(c)
		then(now, s.reject(&ike.Rejection{SAKey: ike.SAKey{Child: c.cfg.Name}, Reason: reason, Difference: err.Error()}))
	}
	in, out := s.saParams(c, ipsec.In), s.saParams(c, ipsec.Out)
	var err error
	if in.EncKey, in.IntegKey, err = s.keys.keymat(c.suite, shared, c.spiIn, ni, nr); err == nil {
		out.EncKey, out.IntegKey, err = s.keys.keymat(c.suite, shared, c.spiOut, ni, nr)
	}
	shared.Zero()
	if err != nil {
		failed(now, ike.ReasonInternal, err)
		return
	}
	c.born = now
	var policies []ipsec.Policy
	c.reqid, policies = s.env.BindPolicy(c.id, s.env.CurrentPeer(s.peer), c.cfg, c.mode, c.localTS, c.remoteTS, false, 0)
	c.bound = true
	in.ReqID, out.ReqID = c.reqid, c.reqid
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
			failed(now, ike.ReasonInstall, r.Err)
			return
		}
		c.dataplane = true
		then(now, nil)
	})
	if activate {
		s.env.MarkActive(c.id)
	}
	s.env.Effect(ike.InstallChild{Job: job, In: in, Out: out, Policies: policies, Activate: activate})
}

func (s *sa) saParams(c *child, dir ipsec.Direction) ipsec.SAParams {
	integ := c.suite.Integ
	if c.cfg.SHA256_96 && integ == (suite.Transform{Type: suite.TypeINTEG, ID: suite.IntegHMACSHA2_256_128}) {
		integ.ID = suite.IntegHMACSHA2_256_96
	}
	p := ipsec.SAParams{Ref: ipsec.SARef{Child: c.id, Dir: dir}, SPI: c.spiIn, Name: c.cfg.Name, IfID: c.cfg.IfID,
		Local: s.local, Remote: s.remote, Encap: s.nat.encap(), TrackNAT: s.nat.remote && dir == ipsec.In,
		Mode: c.mode, Encr: c.suite.Encr, Integ: integ, ESN: c.suite.ESN(), ReplayWindow: c.cfg.ReplayWindow,
		LocalTS: c.localTS, RemoteTS: c.remoteTS, Life: c.lifetime(), DF: c.cfg.DF, CopyECN: c.cfg.CopyECN, CopyDSCP: c.cfg.CopyDSCP, MSSClamp: c.cfg.MSSClamp}
	if dir == ipsec.Out {
		// No TFC padding: IKEv1 has no way to say that the peer can't take it.
		p.SPI = c.spiOut
	}
	return p
}

// lifetime bounds a pair by use.
func (c *child) lifetime() ipsec.Lifetime {
	l := ipsec.Lifetime{HardBytes: c.cfg.LifeBytes, HardPackets: c.cfg.LifePackets}
	if c.lifeBytes > 0 && (l.HardBytes == 0 || c.lifeBytes < l.HardBytes) {
		l.HardBytes = c.lifeBytes
	}
	soft := func(rekey, span uint64) uint64 {
		if rekey == 0 {
			return 0
		}
		if span = min(span, rekey); span > 0 {
			rekey -= ike.RandomUint64() % (span + 1)
		}
		return max(rekey, 1)
	}
	l.SoftBytes, l.SoftPackets = soft(c.cfg.RekeyBytes, c.cfg.RandBytes), soft(c.cfg.RekeyPackets, c.cfg.RandPackets)
	if l.HardBytes > 0 && (l.SoftBytes == 0 || l.SoftBytes >= l.HardBytes) {
		l.SoftBytes = l.HardBytes / 10 * 9
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

func (s *sa) setChildTimers(now time.Time, c *child) {
	rekey, life := c.cfg.RekeyTime, c.cfg.LifeTime
	if c.life >= leastLife && (life == 0 || c.life < life) {
		life = c.life
		if rekey == 0 || rekey > life/10*9 {
			rekey = life / 10 * 9
		}
	}
	if rekey > 0 {
		c.rekeyAt = now.Add(rekey - ike.RandomSpan(min(c.cfg.RandTime, rekey/2)))
	}
	if life > 0 {
		c.endAt = now.Add(life)
	}
	if c.cfg.Inactivity > 0 {
		c.inactiveAt = now.Add(c.cfg.Inactivity)
	}
}

// wakeChildren runs the pairs' timers.
func (s *sa) wakeChildren(now time.Time) {
	due := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	for _, c := range slices.Clone(s.children) {
		switch {
		case due(c.endAt):
			cause, reason := ike.CauseExpired, "lifetime expired"
			if c.state == childRekeyed {
				cause, reason = ike.CauseReplaced, "replaced"
			}
			s.deleteChild(now, c, cause, reason)
		case due(c.rekeyAt):
			c.rekeyAt = time.Time{}
			s.RekeyChild(now, c.id)
		case due(c.inactiveAt):
			c.inactiveAt = time.Time{}
			s.checkInactive(now, c)
		}
	}
}

// childExpired acts on a bound of use.
func (s *sa) childExpired(now time.Time, c *child, hard bool) {
	switch {
	case c.state == childRekeyed:
	case hard:
		s.deleteChild(now, c, ike.CauseExpired, "lifetime of bytes or packets expired")
	default:
		s.RekeyChild(now, c.id)
	}
}

// checkInactive closes a pair that carried nothing for the configured time.
func (s *sa) checkInactive(now time.Time, c *child) {
	if c.state != childInstalled && c.state != childRekeying {
		return
	}
	s.lastUse(c, func(now, last time.Time) {
		switch at := last.Add(c.cfg.Inactivity); {
		case s.child(c.id) == nil:
		case now.Before(at):
			c.inactiveAt = at
		default:
			s.deleteChild(now, c, ike.CauseInactive, "inactive")
		}
	})
}

// lastUse asks when a pair last carried anything.
func (s *sa) lastUse(c *child, then func(now, last time.Time)) {
	job := s.env.NewJob()
	s.background(job, func(now time.Time, r ike.Result) {
		last := c.born
		if st, ok := r.Value.(ike.ChildStats); ok {
			for _, t := range []time.Time{st.In.LastUse, st.Out.LastUse} {
				if t.After(last) {
					last = t
				}
			}
		}
		then(now, last)
	})
	s.env.Effect(ike.QueryChild{Job: job, Child: c.id})
}

// replace lets next take over from old, which stays for what is on the way: until the
// peer deletes it, or its lifetime ends, or, if we asked for next, a little longer. But
// where the two sides asked at once neither is deleted early: they may differ in which
// one came last.
func (s *sa) replace(now time.Time, old, next *child) {
	old.state = childRekeyed
	old.rekeyAt, old.inactiveAt = time.Time{}, time.Time{}
	second := next.announced && old.announced // next came in the place of another one already
	next.announced = next.announced || old.announced
	old.announced = false
	s.env.RetireChild(old.id)
	if second {
		s.env.ChildDown(now, old.info(s), old.cfg, ike.CauseReplaced, "replaced")
	} else {
		s.env.CountRekeyChild()
		s.env.Emit(ike.ChildRekeyed{SA: s.Info(), Old: old.info(s), New: next.info(s)})
	}
	crossed := !old.born.Before(next.requested)
	if d := s.config().DeleteRekeyedDelay; next.initiator && !crossed {
		if at := now.Add(max(d, 0)); old.endAt.IsZero() || at.Before(old.endAt) {
			old.endAt = at
		}
	} else if old.endAt.IsZero() {
		old.endAt = now.Add(time.Hour)
	}
}

// settle replaces what the new pair takes the place of: pairs of the same child with
// the same selectors (IKEv1 doesn't say that a quick mode is a rekey).
func (s *sa) settle(now time.Time, c *child) {
	c.state = childInstalled
	s.setChildTimers(now, c)
	for _, o := range slices.Clone(s.children) {
		if o != c && o.cfg.Name == c.cfg.Name && (o.state == childInstalled || o.state == childRekeying) && o.mode == c.mode &&
			slices.Equal(o.localTS, c.localTS) && slices.Equal(o.remoteTS, c.remoteTS) {
			s.replace(now, o, c)
		}
	}
	if !c.announced {
		c.announced = true
		s.env.ChildUp(now, c.info(s))
	}
	if s.life.emptyAt = (time.Time{}); s.goes { // it was under way when the others left
		s.life.emptyAt = now.Add(emptyGrace)
	}
}

func spiBytes(spi ipsec.SPI) []byte { return binary.BigEndian.AppendUint32(nil, uint32(spi)) }

func addrOf(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// resolved are a configuration's selectors with addresses put into dynamic ones.
func resolved(list []ipsec.Selector, hosts ...netip.Addr) (out []ipsec.Selector) {
	for _, t := range list {
		if !t.IsDynamic() {
			out = append(out, t)
			continue
		}
		for _, h := range hosts {
			out = append(out, t.Resolve(h))
		}
	}
	return out
}

func (s *sa) selectorsOf(cfg *ike.Child) (local, remote []ipsec.Selector) {
	ours, theirs := []netip.Addr{s.local.Addr()}, []netip.Addr{s.remote.Addr()}
	if len(s.vips.got) > 0 {
		ours = s.vips.got
	}
	if len(s.vips.given) > 0 {
		theirs = s.vips.given
	}
	return resolved(cfg.Local, ours...), resolved(cfg.Remote, theirs...)
}
