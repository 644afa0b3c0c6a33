package ikev2

import (
	"crypto/sha256"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// authentication is what both roles keep while they prove to each other who they
// are, in one or more rounds (RFC 7296 §2.15, §2.16, RFC 4739). It goes when the
// IKE SA is established.
type authentication struct {
	request, response []byte // the messages of IKE_SA_INIT, which AUTH covers
	ni, nr            []byte
	// transcript: AUTH covers both of them (draft-ietf-ipsecme-ikev2-downgrade-prevention).
	transcript bool
	intAuth    []byte // IntAuth of RFC 9242 §3.3.2, nil without IKE_INTERMEDIATE

	// candidates are the connections that may be meant, the best first: that one we
	// go by. The list is ours to shorten. passed are those that are not meant.
	candidates []*ike.Peer
	passed     []ike.Candidate
	first      []*ike.Peer // those of the addresses, for questions in vain

	ours   int        // our rounds that are done
	shown  []shown    // what we have proved so far, to whom switches
	theirs []verified // the peer's rounds that are done
	// expects: the peer has another round to come.
	expects bool
	// multiple: both sides know RFC 4739.
	multiple bool
	// ourID and peerID are the ID payloads of the latest rounds, as sent.
	ourID, peerID *wire.ID
	// wanted is the IDr with which the initiator asks for an identity of ours.
	wanted    *wire.ID
	exchanges int
	// announced are the peer's extensions and wishes for our signature.
	announced authWishes
	psks      sharedKeys
	eap       *conversation // that is under way
}

// authWishes are what the peer told about the signatures and certificates that it takes.
type authWishes struct {
	hashes      []uint16               // RFC 7427 §4; nil: it does not know them
	methods     []ike.AuthAnnouncement // RFC 9593
	requested   bool                   // a CERTREQ came
	authorities []byte
}

// shown is one of our own rounds, as the peer saw it.
type shown struct {
	round ike.AuthRound
	id    ike.Identity
}

// verified is one round that the peer has passed. Only the three checks of an
// AUTH payload (a shared key's, a signature's, that of an EAP key) make one.
type verified struct {
	method ike.AuthMethod
	id     ike.Identity
	certs  [][]byte // DER, of a peer that may get a ticket: the one whose key it was first
	// The rest is of EAP.
	eapID    string
	groups   []string
	lifetime time.Duration
}

// proof is what up wants: that the peer passed every round that its connection
// demands, and no other. See authentication.proof.
type proof struct {
	peer   *ike.Peer
	rounds []verified
}

// proof is the only maker of a proof. It is nil while anything is missing.
func (a *authentication) proof() *proof {
	if len(a.candidates) == 0 || a.expects || a.eap != nil {
		return nil
	}
	p := a.candidates[0]
	if len(a.theirs) == 0 || len(a.theirs) != len(p.Remote) {
		return nil
	}
	for i, v := range a.theirs {
		if !takes(&p.Remote[i], v.method) || v.id.Match(p.Remote[i].ID) == ike.MatchNone {
			return nil
		}
	}
	return &proof{p, slices.Clone(a.theirs)}
}

// wipe drops keys and ends a conversation of EAP.
func (a *authentication) wipe() {
	a.psks.wipe()
	a.endEAP()
	a.request, a.response, a.theirs, a.shown = nil, nil, nil, nil
}

// takes reports whether a round of the peer's may be of the method.
func takes(r *ike.AuthRound, m ike.AuthMethod) bool {
	return r.Method == m || r.Method == ike.AuthAny
}

// identify takes over who has proved itself, and by which connection. It returns
// who is unique: the user, where EAP tells it.
func (s *sa) identify(p *proof) ike.Identity {
	s.peer = p.peer
	last := p.rounds[len(p.rounds)-1]
	s.ids[1] = last.id
	known := last.id
	for _, v := range p.rounds {
		if v.method == ike.AuthEAP {
			s.byEAP = true
		}
		if v.eapID != "" {
			s.eapID = v.eapID
			known = eapIdentity(v.eapID)
		}
	}
	return known
}

// up makes the IKE SA established. Without a proof it never is.
func (s *sa) up(now time.Time, p *proof, initialContact bool) {
	if p == nil || len(p.rounds) == 0 || len(p.rounds) != len(p.peer.Remote) {
		panic("ikev2: established without a proof of the peer")
	}
	known := s.identify(p)
	s.resumed = nil
	s.enter(established{})
	s.keys.proved()
	s.life.setupEnd = time.Time{}
	if !s.initiator {
		s.authID, s.life.forgetAt = s.win.recvID, now.Add(timeoutRepeated)
	}
	s.setTimers(now)
	s.setAuthLife(now)
	s.env.Established(now, s.peer, s.ids[0], known, initialContact)
}

// forgetAuth drops the last IKE_AUTH and its answer, with the certificates in them,
// when the peer has stopped repeating it long ago.
func (s *sa) forgetAuth() {
	s.life.forgetAt = time.Time{}
	if s.win.recvID == s.authID && s.sched.busy == 0 {
		s.win.response, s.sched.working = nil, [sha256.Size]byte{}
	}
}

// eapIdentity is the identity inside EAP as one that IKE SAs are compared by.
func eapIdentity(text string) ike.Identity {
	id, err := ike.ParseIdentity(text)
	if err != nil || id.IsPattern() {
		return ike.Identity{Type: ike.IDKeyID, Data: text}
	}
	return id
}

// unique is the identity of the peer that the uniqueness policy compares.
func (a *authentication) unique() ike.Identity {
	var id ike.Identity
	for _, v := range a.theirs {
		id = v.id
	}
	for _, v := range a.theirs {
		if v.eapID != "" {
			id = eapIdentity(v.eapID)
		}
	}
	return id
}

// ask puts a question to the outside world; the IKE SA is busy until it is
// answered, or the time is over.
func (s *sa) ask(now time.Time, limit time.Duration, q ike.Question, then func(time.Time, ike.Result)) {
	job := s.env.NewJob()
	s.await(job, then)
	s.sched.busyUntil = now.Add(limit)
	if !s.life.setupEnd.IsZero() {
		s.prolong(now, limit+graceAsk)
	}
	s.env.Effect(ike.Ask{Job: job, Deadline: s.sched.busyUntil, Question: q})
}

// prolong gives a set-up that goes on more time, up to a bound.
func (s *sa) prolong(now time.Time, by time.Duration) {
	at := now.Add(by)
	if most := s.env.Created().Add(limitSetup); at.After(most) {
		at = most
	}
	if !s.life.setupEnd.IsZero() && at.After(s.life.setupEnd) {
		s.life.setupEnd = at
	}
}

// sharedKeys are the shared keys of a pair of identities, looked up once.
type sharedKeys struct {
	local, remote ike.Identity
	asked         bool
	list          []suite.Key
	// fits is the one with which the peer has proved itself: ours answers with it.
	fits suite.Key
}

func (k *sharedKeys) wipe() {
	zeroAll(k.list)
	*k = sharedKeys{}
}

// askPSK finds the shared keys of two identities into the authentication.
func (s *sa) askPSK(now time.Time, a *authentication, local, remote ike.Identity, p *ike.Peer, then func(time.Time)) {
	if a.psks.asked && a.psks.local == local && a.psks.remote == remote {
		then(now)
		return
	}
	q := ike.PSKLookup{Peer: p, LocalID: local, RemoteID: remote, Local: s.local.Addr(), Remote: s.remote.Addr()}
	s.ask(now, timeoutAsk, q, func(now time.Time, r ike.Result) {
		a.psks.wipe()
		a.psks.local, a.psks.remote, a.psks.asked = local, remote, true
		if list, ok := r.Value.([]suite.Key); ok && r.Err == nil {
			for _, k := range list[:min(len(list), limitPSKs)] {
				a.psks.list = append(a.psks.list, slices.Clone(k)) // the giver keeps its own, we zero ours
			}
		}
		then(now)
	})
}

// covered is what the AUTH of one side covers: the initiator's or the responder's. With
// the full transcript of IKE_SA_INIT it is eight octets of zero, so that it can't be
// taken for a message, which begins with an SPI; the message that the side received; and
// the one that it sent.
func (a *authentication) covered(initiator bool) covered {
	c, received := covered{a.response, a.ni, a.intAuth}, a.request
	if initiator {
		c, received = covered{a.request, a.nr, a.intAuth}, a.response
	}
	if a.transcript {
		c.message = slices.Concat(make([]byte, 8), received, c.message)
	}
	return c
}

// setTimers starts the lifetimes of an IKE SA that has just come up.
func (s *sa) setTimers(now time.Time) {
	p := s.peer
	l := &s.life
	l.established, l.lastIn = now, now
	jitter := func(d time.Duration) time.Duration { return d - ike.RandomSpan(min(p.RandTime, d)) }
	hard := time.Duration(0)
	if p.RekeyTime > 0 {
		l.rekeyAt = now.Add(jitter(p.RekeyTime))
		hard = p.RekeyTime
	}
	if p.ReauthTime > 0 {
		l.reauthAt = now.Add(jitter(p.ReauthTime))
		if hard == 0 || p.ReauthTime < hard {
			hard = p.ReauthTime
		}
	}
	if hard > 0 && p.OverTime > 0 {
		l.endAt = now.Add(hard + p.OverTime)
	}
	if p.DPDDelay > 0 {
		l.dpdAt = now.Add(p.DPDDelay)
	}
	s.startKeepAlive(now)
}

func addAt(list []ike.Candidate, name string, detail ike.Detail, why string) []ike.Candidate {
	if len(list) >= limitPassed {
		return list
	}
	return append(list, ike.Candidate{Name: name, Why: why, Detail: detail})
}
