package ikev2

import (
	"crypto/sha256"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/internal/simbug"
)

// window is the message IDs of both directions, window size 1 (RFC 7296 §2.2,
// §2.3), with the bytes that are repeated (§2.1).
type window struct {
	sendID uint32 // of our next request
	recvID uint32 // of the peer's next request
	out    *outstanding
	// response answers request recvID−1; it is repeated, never rebuilt. More than one
	// packet are its fragments.
	response [][]byte
}

// outstanding is our request in flight.
type outstanding struct {
	id       uint32
	exchange wire.ExchangeType
	packets  [][]byte // the message, or its fragments
	summary  string
	sent     int // how often
	next     time.Time
	to       *path // where it is sent first, if not to where the IKE SA is
}

func (s *sa) flags(response bool) wire.Flags {
	var f wire.Flags
	if s.initiator {
		f |= wire.FlagInitiator
	}
	if response {
		f |= wire.FlagResponse
	}
	return f
}

func (s *sa) header(x wire.ExchangeType, id uint32, response bool) wire.Header {
	return wire.Header{SPIi: s.spiI, SPIr: s.spiR, Version: wire.IKEv2, Exchange: x, Flags: s.flags(response), MessageID: id}
}

// build makes the bytes of a message: protected once there are keys, and in
// fragments if one packet does not hold it.
func (s *sa) build(h wire.Header, payloads []wire.Payload) ([][]byte, error) {
	if s.keys == nil || s.keys.out == nil || h.Exchange == wire.ExchangeIKESAInit {
		return [][]byte{wire.AppendMessage(nil, h, payloads)}, nil
	}
	room := 0
	if s.sendsFragments() {
		room = s.room()
	}
	return s.keys.sealAll(h, payloads, room)
}

// request sends our next request and keeps it until it is answered.
func (s *sa) request(now time.Time, x wire.ExchangeType, payloads []wire.Payload) {
	s.requestAlong(now, x, payloads, nil)
}

func (s *sa) requestAlong(now time.Time, x wire.ExchangeType, payloads []wire.Payload, to *path) {
	h := s.header(x, s.win.sendID, false)
	packets, err := s.build(h, payloads)
	if err != nil {
		r := s.oversized(h, err)
		s.end(now, ike.Closed{Cause: ike.CauseFailed, Reason: r.Error(), Rejection: r})
		return
	}
	s.win.sendID++
	s.win.out = &outstanding{id: h.MessageID, exchange: x, packets: packets, summary: summary(h, payloads), to: to}
	s.transmit(now)
}

// transmit sends the request in flight, for the first time or again.
func (s *sa) transmit(now time.Time) {
	out := s.win.out
	wait, _ := s.config().Retransmit.Wait(out.sent)
	out.next = now.Add(wait)
	for _, d := range s.ways(out) {
		s.sendAll(now, d, out.packets, out.summary, out.sent)
	}
	out.sent++
}

func (s *sa) local2remote(data []byte) ike.Datagram {
	d := ike.Datagram{Local: s.local, Remote: s.remote, Data: data}
	if s.peer != nil {
		d.DSCP = s.peer.DSCP
	}
	return d
}

// send sends a message in one packet.
func (s *sa) send(now time.Time, d ike.Datagram, summary string, repeated int) {
	s.sendPart(now, d, summary, repeated, true)
}

// sendPart sends one packet; last tells that the message is whole with it.
func (s *sa) sendPart(now time.Time, d ike.Datagram, summary string, repeated int, last bool) {
	s.life.lastOut = now
	s.env.Effect(ike.Send{Datagram: d})
	m := s.message(d, summary)
	m.Out, m.Retransmit, m.Whole = true, repeated, last
	s.env.Emit(m)
}

// message is the event of one IKE message, or of a fragment of one.
func (s *sa) message(d ike.Datagram, summary string) ike.Message {
	h, _ := wire.ParseHeader(d.Data) // built or read by us already
	return ike.Message{SAKey: s.key(), Local: d.Local, Remote: d.Remote, Bytes: len(d.Data), Summary: summary,
		Exchange: h.Exchange, Response: h.Response()}
}

// received emits the event of a message of the peer that is whole.
func (s *sa) received(d ike.Datagram, summary string) {
	m := s.message(d, summary)
	m.Whole = true
	s.env.Emit(m)
}

// sendAll sends a message in as many packets as it has.
func (s *sa) sendAll(now time.Time, d ike.Datagram, packets [][]byte, summary string, repeated int) {
	for i, b := range packets {
		text := summary
		if len(packets) > 1 {
			text += fragmentTag(i+1, len(packets))
		}
		d.Data = b
		s.sendPart(now, d, text, repeated, i == len(packets)-1)
	}
}

// retransmit repeats the request in flight, or gives the peer up.
func (s *sa) retransmit(now time.Time) {
	out := s.win.out
	if s.stranded(now) {
		return
	}
	if _, last := s.config().Retransmit.Wait(out.sent - 1); !last {
		s.env.CountRetransmit()
		s.transmit(now)
		s.seekPath(now)
		return
	}
	out.next = time.Time{}
	r := &ike.Rejection{Reason: ike.ReasonNoAnswer, Difference: "no answer to " + out.summary, Detail: s.silence()}
	switch s.state.phase() {
	case phaseInitSent, phaseIntermediateSent, phaseAuthSent:
		s.fail(now, r)
	case phaseClosing:
		s.end(now, *s.closing)
	default:
		if t, ok := s.sched.current.(*rekeyIKE); ok && t.theirs != nil && s.replacedBy == nil {
			s.succeedBy(now, t.theirs)
		}
		s.end(now, ike.Closed{Cause: ike.CauseDead, Reason: "peer does not answer", Rejection: s.reject(r)})
	}
}

// silence tells how far the set-up has come with a peer that does not answer.
func (s *sa) silence() ike.Detail {
	switch s.state.phase() {
	case phaseInitSent:
		return ike.DetailSilent
	case phaseIntermediateSent, phaseAuthSent:
		if p := s.peer.RemotePort; s.remote.Port() != 500 && (p == 0 || p == 500) {
			return ike.DetailSilentNAT
		}
	}
	return ""
}

// respond answers the peer's request and keeps the bytes for its repetition.
func (s *sa) respond(now time.Time, in *inbound, payloads []wire.Payload) {
	h := s.header(in.header.Exchange, in.header.MessageID, true)
	packets, err := s.build(h, payloads)
	if err != nil {
		// What the caller goes on with is undone as soon as it is finished.
		s.doomed = s.oversized(h, err)
		payloads = []wire.Payload{notify(wire.AuthenticationFailed, nil)}
		packets = [][]byte{s.keys.seal(h, payloads)}
	}
	s.win.response = packets
	s.win.recvID = in.header.MessageID + 1
	s.forgetPartials(false)
	d := s.local2remote(nil)
	if s.state.phase() != phaseDead {
		d.Local, d.Remote = in.datagram.Local, in.datagram.Remote // RFC 7296 §2.11
	}
	s.sendAll(now, d, packets, summary(h, payloads), 0)
}

func (s *sa) respondNotify(now time.Time, in *inbound, t wire.NotifyType, data []byte) {
	s.respond(now, in, []wire.Payload{&wire.Notify{NotifyType: t, Data: data}})
}

// summary is wire's one line of a message before it is protected.
func summary(h wire.Header, payloads []wire.Payload) string {
	m := wire.Message{Header: h, Payloads: payloads}
	return m.Summary()
}

// inbound is one message that is authentic (or, in IKE_SA_INIT, in the clear)
// and whose ID is the expected one.
type inbound struct {
	header   wire.Header
	datagram ike.Datagram
	payloads []wire.Payload
	// first is the datagram by which a repetition of the message is known: the message,
	// or its first fragment. text is what its Encrypted payload held.
	first, text []byte
	fresh       *namedPPK // that both sides have, in a CREATE_CHILD_SA of the peer's
}

// receive checks a message in the order that costs least and changes nothing
// before it is authentic: form, direction, ID, integrity, then the rule table.
func (s *sa) receive(now time.Time, d ike.Datagram) {
	drop := func(r ike.DropReason) { s.env.Drop(now, r, d.Remote) }
	msg, err := wire.ParseMessage(d.Data)
	if err != nil {
		drop(ike.DropMalformed)
		return
	}
	h := msg.Header
	if h.FromInitiator() == s.initiator {
		drop(ike.DropUnexpected)
		return
	}
	if h.Exchange == wire.ExchangeIKESAInit || h.Exchange == wire.ExchangeIKESessionResume {
		s.receiveInit(now, d, msg)
		return
	}
	if s.keys == nil || s.keys.in == nil {
		drop(ike.DropUnexpected)
		return
	}
	if msg.Encrypted == nil && s.peerCrashed(now, msg.Payloads) {
		return
	}
	if msg.Encrypted == nil || len(msg.Payloads) > 0 {
		drop(ike.DropUnprotected) // nothing in the clear is believed (RFC 7296 §2.21)
		return
	}
	fragment := msg.Encrypted.Type == wire.PayloadSKF
	if fragment && (!s.peerCaps.fragments || msg.Encrypted.TotalFragments > limitFragments) {
		drop(ike.DropFragment)
		return
	}
	repeated := false
	switch {
	case h.Response() && (s.win.out == nil || h.MessageID != s.win.out.id || h.Exchange != s.win.out.exchange):
		drop(ike.DropMessageID)
		return
	case !h.Response() && h.MessageID+1 == s.win.recvID && s.win.response != nil:
		repeated = true
	case !h.Response() && h.MessageID != s.win.recvID:
		drop(ike.DropMessageID)
		return
	}
	text, ok, err := s.keys.open(msg, repeated)
	if !ok {
		drop(ike.DropIntegrity)
		return
	}
	if repeated {
		s.repeatResponse(now, d, msg)
		return
	}
	inner, first, tag := msg.Encrypted.FirstInner, d.Data, ""
	r := findRule(s.state.phase(), h.Exchange, h.Response())
	if fragment {
		if err != nil || r == nil {
			drop(ike.DropFragment)
			return
		}
		w := s.collect(now, d, msg, text)
		if w == nil {
			return
		}
		inner, text, first = w.inner, w.text, w.first
		tag = fragmentTag(int(msg.Encrypted.FragmentNumber), int(msg.Encrypted.TotalFragments))
	}
	s.life.lastIn = now
	var payloads []wire.Payload
	if err == nil {
		payloads, err = wire.ParsePayloads(inner, text)
	}
	in := &inbound{header: h, datagram: d, payloads: payloads, first: first, text: text}
	s.received(d, summary(h, payloads)+tag)
	if r == nil {
		drop(ike.DropUnexpected)
		return
	}
	if !s.wellFormed(now, in, err, r) {
		return
	}
	s.followPeer(now, d)
	if h.Response() {
		s.win.out = nil
		s.forgetPartials(true)
		s.pathFound(now, d)
	} else {
		s.keys.forgetBefore()
		s.decidedByUse(now, in)
		s.sched.working = sha256.Sum256(in.first)
	}
	r.take(s, now, in)
	if s.win.sendID >= limitMessageID || s.win.recvID >= limitMessageID {
		s.RekeyIKE(now) // message IDs must not wrap (RFC 7296 §2.2)
	}
	s.run(now)
}

// repeatResponse answers a repeated request by the stored bytes. Of a request in
// fragments only the first one is answered, or each would cost a whole response
// (RFC 7383 §2.6.1).
func (s *sa) repeatResponse(now time.Time, d ike.Datagram, msg *wire.Message) {
	if msg.Encrypted.Type == wire.PayloadSKF && msg.Encrypted.FragmentNumber != 1 {
		return
	}
	s.life.lastIn = now
	if simbug.Chosen == simbug.RebuiltResponse {
		s.win.response, _ = s.build(s.header(msg.Header.Exchange, msg.Header.MessageID, true), nil)
	}
	s.env.CountRetransmit()
	s.sendAll(now, ike.Datagram{Local: d.Local, Remote: d.Remote}, s.win.response, "repeated response", 1)
}

// wellFormed answers a protected message that cannot be read or lacks what its
// rule needs: INVALID_SYNTAX ends the IKE SA on both sides (RFC 7296 §2.21.3),
// an unknown critical payload fails only the exchange (§2.5).
func (s *sa) wellFormed(now time.Time, in *inbound, err error, r *rule) bool {
	missing := ""
	if err == nil {
		missing = r.missing(in.payloads)
	}
	critical, isCritical := wire.PayloadNone, false
	if err == nil {
		critical, isCritical = wire.UnknownCritical(in.payloads)
	}
	switch {
	case err == nil && missing == "" && !isCritical:
		return true
	case isCritical && !in.header.Response():
		s.respondNotify(now, in, wire.UnsupportedCriticalPayload, []byte{byte(critical)})
		rej := &ike.Rejection{Reason: ike.ReasonCritical, Notify: wire.UnsupportedCriticalPayload.String(), Difference: "payload type " + critical.String()}
		if p := s.state.phase(); p == phaseInitReceived || p == phaseAuthReceived {
			s.fail(now, rej) // an IKE_AUTH that fails ends the IKE SA (RFC 7296 §2.21.2)
		} else {
			s.reject(rej)
		}
		return false
	case isCritical:
		s.env.Drop(now, ike.DropUnexpected, in.datagram.Remote)
		return false
	}
	why := "missing " + missing
	if err != nil {
		why = err.Error()
	}
	if !in.header.Response() {
		s.respondNotify(now, in, wire.InvalidSyntax, nil)
	}
	rej := &ike.Rejection{Reason: ike.ReasonSyntax, Notify: wire.InvalidSyntax.String(), Difference: why}
	if s.state.phase() == phaseEstablished || s.state.phase() == phaseClosing {
		s.end(now, ike.Closed{Cause: ike.CauseDead, Reason: "malformed message", Rejection: s.reject(rej)})
	} else {
		s.fail(now, rej)
	}
	return false
}

// followPeer takes over the address that a new authentic message came from:
// always while the IKE SA is set up (the float to port 4500), later only if the
// peer is behind a NAT and we are not (RFC 7296 §2.23), and does not know MOBIKE.
func (s *sa) followPeer(now time.Time, d ike.Datagram) {
	if d.Remote == s.remote && d.Local == s.local {
		return
	}
	switch s.state.phase() {
	case phaseInitReceived, phaseAuthReceived:
		s.move(now, d.Local, d.Remote)
	case phaseEstablished, phaseClosing:
		// With MOBIKE nothing but UPDATE_SA_ADDRESSES moves it (RFC 4555 §3.8).
		if s.mob == nil && s.nat.remote && !s.nat.local {
			s.move(now, d.Local, d.Remote)
		}
	}
}
