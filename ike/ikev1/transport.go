package ikev1

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// exchange is one exchange under way: phase 1, whose message ID is 0, or one of
// phase 2. Each has a chain of IVs of its own (RFC 2409 appendix B).
type exchange struct {
	id    uint32
	kind  wire.ExchangeType
	iv    []byte // of the next message in either direction
	out   *outstanding
	quick *quick
	take  func(*sa, time.Time, *wire.V1Attributes) // gets the answer to a transaction of ours
	began time.Time
}

// outstanding is our last message of an exchange, until it is answered.
type outstanding struct {
	packets [][]byte
	summary string
	sent    int
	next    time.Time
}

// answer is what a message of the peer was answered by: the same message again gets
// the same bytes, or nothing if there was no answer.
type answer struct {
	request [sha256.Size]byte
	packets [][]byte
	until   time.Time
}

// repeat answers a message that was taken before; false: it is new.
func (s *sa) repeat(now time.Time, d ike.Datagram) bool {
	sum := sha256.Sum256(d.Data)
	i := slices.IndexFunc(s.answers, func(a answer) bool { return a.request == sum })
	if i < 0 {
		return false
	}
	if len(s.answers[i].packets) == 0 {
		s.env.Drop(now, ike.DropBusy, d.Remote)
		return true
	}
	s.env.CountRetransmit()
	s.sendAll(now, ike.Datagram{Local: d.Local, Remote: d.Remote, DSCP: s.dscp()}, s.answers[i].packets, "repeated answer", 1)
	return true
}

// taken remembers a message, so that its repetition changes nothing.
func (s *sa) taken(now time.Time, d ike.Datagram) {
	s.answers = slices.DeleteFunc(s.answers, func(a answer) bool { return now.After(a.until) })
	if len(s.answers) == limitAnswers {
		s.answers = s.answers[1:]
	}
	s.answers = append(s.answers, answer{request: sha256.Sum256(d.Data), until: now.Add(timeoutAnswer)})
}

// answered keeps the answer to a message that was taken.
func (s *sa) answered(d ike.Datagram, packets [][]byte) {
	sum := sha256.Sum256(d.Data)
	for i := range s.answers {
		if s.answers[i].request == sum {
			s.answers[i].packets = packets
		}
	}
}

func (s *sa) dscp() uint8 {
	if s.peer == nil {
		return 0
	}
	return s.peer.DSCP
}

func (s *sa) header(x *exchange) wire.Header {
	return wire.Header{SPIi: s.spiI, SPIr: s.spiR, Version: wire.IKEv1, Exchange: x.kind, MessageID: x.id}
}

// newExchange begins an exchange of ours in phase 2 under a message ID that no other
// one has.
func (s *sa) newExchange(now time.Time, kind wire.ExchangeType) *exchange {
	for {
		var b [4]byte
		rand.Read(b[:])
		id := binary.BigEndian.Uint32(b[:])
		if id == 0 || s.exchange(id) != nil {
			continue
		}
		return &exchange{id: id, kind: kind, iv: s.keys.chainIV(id), began: now}
	}
}

// exchange finds an exchange of phase 2.
func (s *sa) exchange(id uint32) *exchange {
	for _, x := range s.exchanges {
		if x.id == id {
			return x
		}
	}
	if x := s.lastConfig; x != nil && x.id == id {
		return x
	}
	return nil
}

func (s *sa) forgetExchange(x *exchange) {
	s.exchanges = slices.DeleteFunc(s.exchanges, func(o *exchange) bool { return o == x })
}

// clear builds a message of phase 1 that is not encrypted.
func (s *sa) clear(x *exchange, list []wire.V1Payload) ([][]byte, string) {
	h := s.header(x)
	return s.pieces(wire.AppendV1Message(nil, h, list), list), wire.V1Summary(h, list)
}

// sealed builds an encrypted message and moves the exchange's chain on.
func (s *sa) sealed(x *exchange, list []wire.V1Payload) ([][]byte, string) {
	h := s.header(x)
	h.Flags |= wire.FlagV1Encryption
	b := wire.AppendV1Message(nil, h, list)
	block := s.keys.chain.BlockLen()
	if over := (len(b) - wire.HeaderLen) % block; over > 0 {
		b = append(b, make([]byte, block-over)...)
	}
	binary.BigEndian.PutUint32(b[24:], uint32(len(b)))
	x.iv = s.keys.chain.Encrypt(x.iv, b[wire.HeaderLen:])
	return s.pieces(b, list), wire.V1Summary(h, list)
}

// hashed builds a message of phase 2: the HASH payload that hash makes of the rest,
// and the rest.
func (s *sa) hashed(x *exchange, hash func(rest []byte) []byte, list []wire.V1Payload) ([][]byte, string) {
	_, rest := wire.AppendV1Chain(nil, list)
	list = append([]wire.V1Payload{{Type: wire.PayloadV1Hash, Body: hash(rest)}}, list...)
	return s.sealed(x, list)
}

// opened decrypts a message in a copy; the chain moves on only when the caller says so.
func (s *sa) opened(k *keys, iv, data []byte) (text, next []byte, ok bool) {
	text = slices.Clone(data[wire.HeaderLen:])
	if len(text) == 0 || len(text)%k.chain.BlockLen() != 0 {
		return nil, nil, false
	}
	next = k.chain.Decrypt(iv, text)
	return text, next, true
}

// request sends a message of ours and repeats it until it is answered.
func (s *sa) request(now time.Time, x *exchange, packets [][]byte, summary string) {
	x.out = &outstanding{packets: packets, summary: summary}
	s.transmit(now, x)
}

func (s *sa) transmit(now time.Time, x *exchange) {
	out := x.out
	wait, _ := s.config().Retransmit.Wait(out.sent)
	out.next = now.Add(wait)
	s.sendAll(now, s.outward(), out.packets, out.summary, out.sent)
	out.sent++
}

// outward is a datagram to the peer without its bytes.
func (s *sa) outward() ike.Datagram {
	return ike.Datagram{Local: s.local, Remote: s.remote, DSCP: s.dscp()}
}

// respond answers a message of the peer, whose repetition gets the same bytes.
func (s *sa) respond(now time.Time, in *inbound, packets [][]byte, summary string) {
	s.answered(in.datagram, packets)
	s.sendAll(now, ike.Datagram{Local: in.datagram.Local, Remote: in.datagram.Remote, DSCP: s.dscp()}, packets, summary, 0)
}

func (s *sa) sendAll(now time.Time, d ike.Datagram, packets [][]byte, summary string, repeated int) {
	s.life.lastOut = now
	for i, b := range packets {
		d.Data = b
		s.env.Effect(ike.Send{Datagram: d})
		m := s.message(d, summary)
		m.Out, m.Retransmit, m.Whole = true, repeated, i == len(packets)-1
		s.env.Emit(m)
	}
}

// message is the event of one message.
func (s *sa) message(d ike.Datagram, summary string) ike.Message {
	h, _ := wire.ParseHeader(d.Data)
	return ike.Message{SAKey: s.key(), Local: d.Local, Remote: d.Remote, Bytes: len(d.Data), Summary: summary, Exchange: h.Exchange}
}

func (s *sa) received(d ike.Datagram, summary string) {
	m := s.message(d, summary)
	m.Whole = true
	s.env.Emit(m)
}

// retransmit repeats the last message of an exchange, or gives the exchange up.
func (s *sa) retransmit(now time.Time, x *exchange) {
	out := x.out
	if _, last := s.config().Retransmit.Wait(out.sent - 1); !last {
		s.env.CountRetransmit()
		s.transmit(now, x)
		return
	}
	x.out = nil
	r := &ike.Rejection{Reason: ike.ReasonNoAnswer, Difference: "no answer to " + out.summary}
	switch {
	case x == s.unheard: // what comes after it tells whether the peer lives
		s.unheard = nil
	case x == s.first:
		switch {
		case s.setup != nil && s.setup.refused != nil:
			r = s.setup.refused
		case s.phase == phaseSASent || s.phase == phaseAggrSent:
			r.Detail = ike.DetailSilent
		case s.phase == phaseAuthSent && s.nat.encap():
			r.Detail = ike.DetailSilentNAT
		}
		s.fail(now, r)
	case x.quick != nil && x.quick.task == nil:
		// The peer's last message got lost, and it was never repeated.
		s.abandonQuick(now, x, "the peer did not finish quick mode")
	default:
		s.end(now, ike.Closed{Cause: ike.CauseDead, Reason: "peer does not answer", Rejection: s.reject(r)})
	}
}
