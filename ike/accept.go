package ike

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime/debug"
	"time"

	"adit/ike/wire"
	"adit/internal/simbug"
	"adit/ipsec"
)

// accept takes a first message: it is refused, answered by a cookie, or begins
// a half-open IKE SA (RFC 7296 §2.6).
func (e *Engine) accept(now time.Time, v *Version, d Datagram, h *wire.Header) {
	source := sourceOf(d.Remote.Addr())
	switch {
	case len(e.byID) >= e.cfg.MaxSAs:
		e.drop(now, DropTable, d.Remote)
		return
	case e.halfOpen >= e.cfg.InitLimit, v.Major == 1 && e.halfOpenV1 >= limitHalfOpenV1:
		e.drop(now, DropHalfOpen, d.Remote)
		return
	}
	if v.Major == 2 && (e.halfOpen >= e.cfg.CookieThreshold || e.bySource[source] >= e.cfg.CookieThresholdIP) && !e.cookieShown(now, d, h) {
		return
	}
	// Only who has shown by a cookie that it receives what is sent to its address
	// comes here once the threshold is passed.
	if e.bySource[source] >= e.cfg.BlockThreshold || len(e.bySource) >= limitSourceTable {
		e.drop(now, DropHalfOpenAddress, d.Remote)
		return
	}
	env := e.newEnv(now, v.Major, false)
	refused := true
	func() {
		defer func() {
			if r := recover(); r != nil {
				e.stats.Bugs++
				e.emit(Bug{SAKey: env.key(), Value: fmt.Sprint(r), Stack: debug.Stack()})
			}
		}()
		env.sa = v.Accept(env, now, d, *h)
		refused = env.sa == nil || env.gone
	}()
	if refused {
		if env.spiLocal != 0 {
			delete(e.bySPI, env.spiLocal)
		}
		for j := range env.jobs {
			delete(e.jobs, j)
		}
		env.gone = true
		if e.lastID == env.id {
			e.lastID--
		}
		return
	}
	e.stats.Accepted++
	env.first = firstKey{h.SPIi, d.Remote.Addr()}
	e.firsts[env.first] = env
	e.byID[env.id] = env
	env.source = source
	e.halfOpen++
	if v.Major == 1 {
		e.halfOpenV1++
	}
	e.bySource[source]++
	e.touch(env)
}

// sourceOf is what half-open limits count by: an IPv4 address, or the /64 that
// one IPv6 host controls anyway.
func sourceOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64)
		return p.Addr()
	}
	return a
}

func (e *Engine) endHalfOpen(v *Env) {
	if !v.source.IsValid() {
		return
	}
	e.halfOpen--
	if v.version == 1 {
		e.halfOpenV1--
	}
	if e.bySource[v.source]--; e.bySource[v.source] <= 0 {
		delete(e.bySource, v.source)
	}
	v.source = netip.Addr{}
}

// cookieSecrets are the secrets that sign cookies: the current one and the one before.
type cookieSecrets struct {
	key   [2][32]byte
	until time.Time
	gen   byte
}

const cookieLen = 1 + 20

func (s *cookieSecrets) rotate(now time.Time) {
	if now.Before(s.until) {
		return
	}
	s.key[1] = s.key[0]
	if s.until.IsZero() || now.Sub(s.until) > cookieLifetime {
		rand.Read(s.key[1][:])
	}
	rand.Read(s.key[0][:])
	s.gen++
	s.until = now.Add(cookieLifetime)
}

// cookie is version | MAC(secret, Ni, IPi, SPIi), as RFC 7296 §2.6 suggests.
func (s *cookieSecrets) cookie(age int, ni []byte, from netip.Addr, spi uint64) []byte {
	m := hmac.New(sha256.New, s.key[age][:])
	m.Write(ni)
	a := from.As16()
	m.Write(a[:])
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], spi)
	m.Write(b[:])
	return append([]byte{s.gen - byte(age)}, m.Sum(nil)[:cookieLen-1]...)
}

// cookieShown reports whether the message brings a cookie of ours, and asks for
// one if it does not. Nothing is stored.
func (e *Engine) cookieShown(now time.Time, d Datagram, h *wire.Header) bool {
	msg, err := wire.ParseMessage(d.Data)
	if err != nil {
		e.drop(now, DropMalformed, d.Remote)
		return false
	}
	ni, ok := wire.First[*wire.Nonce](msg.Payloads)
	if !ok {
		e.drop(now, DropMalformed, d.Remote)
		return false
	}
	e.cookies.rotate(now)
	if n := wire.FindNotify(msg.Payloads, wire.Cookie); n != nil {
		good := 0
		for age := range 2 {
			good |= subtle.ConstantTimeCompare(n.Data, e.cookies.cookie(age, ni.Data, d.Remote.Addr(), h.SPIi))
		}
		if good == 1 || simbug.Chosen == simbug.CookieUnchecked {
			return true
		}
	}
	e.drop(now, DropCookie, d.Remote)
	e.stats.Cookies++
	answer := wire.Header{SPIi: h.SPIi, Version: wire.IKEv2, Exchange: h.Exchange, Flags: wire.FlagResponse, MessageID: h.MessageID}
	e.stats.Sent++
	e.effect(Send{Datagram{Local: d.Local, Remote: d.Remote, Data: wire.AppendMessage(nil, answer,
		[]wire.Payload{&wire.Notify{NotifyType: wire.Cookie, Data: e.cookies.cookie(0, ni.Data, d.Remote.Addr(), h.SPIi)}})}})
	return false
}

// refuseVersion tells a peer that speaks a later version which one is spoken
// here (RFC 7296 §2.5). Earlier versions could not read the answer.
func (e *Engine) refuseVersion(now time.Time, d Datagram, h *wire.Header) {
	if h.Version.Major <= 2 || h.Response() || now.Before(e.notifyNext) || e.shutdown {
		return
	}
	e.notifyNext = now.Add(majorInterval)
	flags := wire.FlagResponse
	if !h.FromInitiator() {
		flags |= wire.FlagInitiator
	}
	answer := wire.Header{SPIi: h.SPIi, SPIr: h.SPIr, Version: wire.IKEv2, Exchange: h.Exchange, Flags: flags, MessageID: h.MessageID}
	e.stats.Sent++
	e.effect(Send{Datagram{Local: d.Local, Remote: d.Remote, Data: wire.AppendMessage(nil, answer, []wire.Payload{&wire.Notify{NotifyType: wire.InvalidMajorVersion}})}})
}

// orphan tells the sender of ESP under an unknown SPI so, outside of any IKE SA
// (RFC 7296 §1.5: zero SPIs, Initiator flag set, Response flag not).
func (e *Engine) orphan(now time.Time, o ipsec.Orphan) {
	if now.Before(e.orphanNext) || e.shutdown || !o.Remote.IsValid() || !o.Local.IsValid() {
		return
	}
	e.orphanNext = now.Add(orphanInterval)
	if o.Remote.Port() == 0 || o.Local.Port() == 0 { // ESP outside of UDP
		o.Local, o.Remote = netip.AddrPortFrom(o.Local.Addr(), e.cfg.Port), netip.AddrPortFrom(o.Remote.Addr(), 500)
	}
	h := wire.Header{Version: wire.IKEv2, Exchange: wire.ExchangeInformational, Flags: wire.FlagInitiator}
	spi := binary.BigEndian.AppendUint32(nil, uint32(o.SPI))
	e.stats.Sent++
	e.effect(Send{Datagram{Local: o.Local, Remote: o.Remote, Data: wire.AppendMessage(nil, h, []wire.Payload{&wire.Notify{NotifyType: wire.InvalidSPI, Data: spi}})}})
}
