package ikev1

import (
	"encoding/binary"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// dpd is dead peer detection (RFC 3706).
type dpd struct {
	seq   uint32 // of our last R-U-THERE
	tries int    // that were not answered; 0: none is out
	since time.Time
	// theirs is the highest sequence number of the peer's that was answered, seen
	// whether there was one.
	theirs uint32
	seen   bool
}

// startDPD begins the checks, if the peer takes part in them.
func (s *sa) startDPD(now time.Time) {
	s.dpd = dpd{seq: uint32(ike.RandomUint64()) >> 1}
	if s.peer.DPDDelay > 0 && s.caps.dpd {
		s.life.dpdAt = now.Add(s.peer.DPDDelay)
	}
}

// checkPeer asks whether the peer lives, unless it was heard of lately.
func (s *sa) checkPeer(now time.Time) {
	delay := s.peer.DPDDelay
	if s.dpd.tries > 0 {
		s.checkAgain(now)
		return
	}
	if at := s.life.lastIn.Add(delay); now.Before(at) {
		s.life.dpdAt = at
		return
	}
	s.life.dpdAt = now.Add(delay)
	// What comes by an IPsec SA shows that the peer lives, too (RFC 3706 §5).
	for _, c := range s.children {
		if c.dataplane && c.state != childRekeyed {
			s.heardBy(c)
			return
		}
	}
	s.firstCheck(now)
}

// heardBy checks the peer unless the pair carried something in lately.
func (s *sa) heardBy(c *child) {
	job := s.env.NewJob()
	s.background(job, func(now time.Time, r ike.Result) {
		st, ok := r.Value.(ike.ChildStats)
		if ok && now.Before(st.In.LastUse.Add(s.peer.DPDDelay)) {
			s.life.dpdAt = st.In.LastUse.Add(s.peer.DPDDelay)
			return
		}
		s.firstCheck(now)
	})
	s.env.Effect(ike.QueryChild{Job: job, Child: c.id})
}

func (s *sa) firstCheck(now time.Time) {
	if s.dpd.tries > 0 || s.phase != phaseEstablished {
		return
	}
	s.dpd.since = now
	s.checkAgain(now)
}

// checkAgain sends the next R-U-THERE, or gives the peer up: after dpd_timeout, or
// after as many as there are retransmissions.
func (s *sa) checkAgain(now time.Time) {
	wait, _ := s.config().Retransmit.Wait(s.dpd.tries)
	var over bool
	if limit := s.peer.DPDTimeout; limit > 0 {
		wait, over = min(wait, max(limit/limitDPD, time.Second)), !now.Before(s.dpd.since.Add(limit))
	} else if s.dpd.tries > 0 {
		_, over = s.config().Retransmit.Wait(s.dpd.tries - 1)
	}
	if over && s.dpd.tries > 0 {
		s.end(now, ike.Closed{Cause: ike.CauseDead, Reason: "peer does not answer", Rejection: s.reject(&ike.Rejection{Reason: ike.ReasonNoAnswer, Difference: "no answer to R-U-THERE"})})
		return
	}
	s.dpd.tries++
	s.dpd.seq++
	s.life.dpdAt = now.Add(wait)
	s.notifyDPD(now, wire.V1RUThere, s.dpd.seq)
}

func (s *sa) notifyDPD(now time.Time, t wire.V1NotifyType, seq uint32) {
	c := cookiePair(s.spiI, s.spiR)
	s.inform(now, wire.V1Notify{Protocol: wire.ProtocolIKE, SPI: c[:], Type: t, Data: binary.BigEndian.AppendUint32(nil, seq)}.Payload())
}

// answerCheck answers R-U-THERE. A sequence number that goes back is that of a replay
// (RFC 3706 §7); the exchange's message ID is new, so that it was authentic.
func (s *sa) answerCheck(now time.Time, in *inbound, n wire.V1Notify) {
	if len(n.Data) != 4 {
		return
	}
	seq := binary.BigEndian.Uint32(n.Data)
	if s.dpd.seen && int32(seq-s.dpd.theirs) < 0 {
		s.env.Drop(now, ike.DropMessageID, in.datagram.Remote)
		return
	}
	s.dpd.theirs, s.dpd.seen = seq, true
	s.notifyDPD(now, wire.V1RUThereAck, seq)
}

// checkAnswered takes R-U-THERE-ACK.
func (s *sa) checkAnswered(n wire.V1Notify) {
	if len(n.Data) != 4 || s.dpd.tries == 0 || s.dpd.seq-binary.BigEndian.Uint32(n.Data) >= uint32(s.dpd.tries) {
		return
	}
	s.dpd.tries = 0
	if s.life.dpdAt = (time.Time{}); s.peer.DPDDelay > 0 { // not where a late keepalive asked
		s.life.dpdAt = s.life.lastIn.Add(s.peer.DPDDelay)
	}
}
