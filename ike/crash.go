package ike

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	"adit/ike/wire"
	"adit/ipsec"
)

// Quick crash detection (RFC 6290). We make tokens if there is a Config.CrashSecret
// that outlives us: who has one of ours knows, from the answer to a message in an IKE SA
// that we have lost, that we have lost it. Whoever learns a token can end that IKE SA at
// the peer, so it is told within the IKE SA, and never to others while the IKE SA lives.

// crashTokenLen is the least length of a token (RFC 6290 §4.1): a longer one would make
// the answer larger than the message that asks for it.
const crashTokenLen = 16

// crashToken is the token of an IKE SA (RFC 6290 §5.1), nil without a secret.
func (e *Engine) crashToken(spiI, spiR uint64) []byte {
	if len(e.cfg.CrashSecret) == 0 {
		return nil
	}
	m := hmac.New(sha256.New, e.cfg.CrashSecret)
	m.Write([]byte("adit QCD token"))
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], spiI)
	binary.BigEndian.PutUint64(b[8:], spiR)
	m.Write(b[:])
	return m.Sum(nil)[:crashTokenLen]
}

// CrashToken is our token of an IKE SA, to be told to its peer only; nil: there is none.
func (v *Env) CrashToken(spiI, spiR uint64) []byte {
	if v.e.cfg.NoCrashDetection {
		return nil
	}
	return v.e.crashToken(spiI, spiR)
}

// lostSA answers a protected request in an IKE SA that is not there by INVALID_IKE_SPI
// and our token (RFC 6290 §4.5). Neither SPI may be of an IKE SA that lives, whichever
// direction the flags pretend: the token would end it.
func (e *Engine) lostSA(now time.Time, d Datagram, h *wire.Header) {
	protected := h.NextPayload == wire.PayloadSK || h.NextPayload == wire.PayloadSKF
	if e.shutdown || e.cfg.NoCrashDetection || h.Version.Major != 2 || h.Response() || h.SPIr == 0 || !protected ||
		h.Exchange != wire.ExchangeInformational && h.Exchange != wire.ExchangeCreateChildSA && h.Exchange != wire.ExchangeIKEFollowupKE ||
		e.bySPI[h.SPIi] != nil || e.bySPI[h.SPIr] != nil || e.reserved[h.SPIi] || e.reserved[h.SPIr] {
		return
	}
	token := e.crashToken(h.SPIi, h.SPIr)
	if token == nil {
		return
	}
	flags := wire.FlagResponse
	if !h.FromInitiator() {
		flags |= wire.FlagInitiator
	}
	answer := wire.AppendMessage(nil, wire.Header{SPIi: h.SPIi, SPIr: h.SPIr, Version: wire.IKEv2, Exchange: h.Exchange, Flags: flags, MessageID: h.MessageID},
		[]wire.Payload{&wire.Notify{NotifyType: wire.InvalidIKESPI}, &wire.Notify{Protocol: wire.ProtocolIKE, NotifyType: wire.QuickCrashDetection, Data: token}})
	if len(answer) > len(d.Data)+crashSlack || !e.tokens.allow(now, limitCrashTokens) {
		return
	}
	e.stats.Sent++
	e.effect(Send{Datagram{Local: d.Local, Remote: d.Remote, Data: answer}})
}

// ReserveSPI is NewSPI for an IKE SA that a rekey is to make: until it is registered no
// token of it is told, should the peer be faster. An IKE SA reserves one at a time.
func (v *Env) ReserveSPI() uint64 {
	delete(v.e.reserved, v.spiReserved)
	v.spiReserved = v.NewSPI()
	v.e.reserved[v.spiReserved] = true
	return v.spiReserved
}

// rate allows so many a second.
type rate struct {
	from  time.Time
	count int
}

func (r *rate) allow(now time.Time, limit int) bool {
	if now.Sub(r.from) >= time.Second || now.Before(r.from) {
		r.from, r.count = now, 0
	}
	r.count++
	return r.count <= limit
}

// Prober is an SA that can ask whether its peer lives.
type Prober interface {
	// Probe asks if the peer at that address holds an inbound SA of that SPI.
	// The hint may hold the proof that the peer has lost even the IKE SA (RFC 6290 §8.2).
	Probe(now time.Time, remote netip.Addr, spi ipsec.SPI, hint []wire.Payload)
}

// hinted takes INVALID_SPI outside of any IKE SA: a peer that was restarted says so. As SPIs
// of its header zeros are as good as any (RFC 7296 §1.5). Nobody vouches for it: the peer is
// asked, no more. It reports whether it was such a message.
func (e *Engine) hinted(now time.Time, d Datagram, h *wire.Header) bool {
	if h.Version.Major != 2 || h.Exchange != wire.ExchangeInformational || h.NextPayload != wire.PayloadNotify || e.shutdown || len(d.Data) > limitHint || !e.hints.allow(now, limitHints) {
		return false
	}
	msg, err := wire.ParseMessage(d.Data)
	if err != nil || msg.Encrypted != nil {
		return false
	}
	n := wire.FindNotify(msg.Payloads, wire.InvalidSPI)
	if n == nil || len(n.Data) != 4 {
		return false
	}
	spi := ipsec.SPI(binary.BigEndian.Uint32(n.Data))
	for _, env := range e.ordered() {
		if p, ok := env.sa.(Prober); ok && !env.upSince.IsZero() && !env.rekeyed && !env.gone {
			e.guard(env, func() { p.Probe(now, d.Remote.Addr(), spi, msg.Payloads) })
		}
	}
	return true
}
