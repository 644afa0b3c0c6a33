package ike

import (
	"crypto/sha256"
	"time"
)

// lingering remembers the last answers of IKE SAs that are gone: if the answer
// to a Delete or a refusal got lost, the peer's repetition is answered by the
// same bytes, so that it need not try until its schedule ends (RFC 7296 §2.1).
// Only the very same request is answered, so nothing has to be decrypted.
type lingering struct {
	bySPI map[uint64]lastAnswer
	order []uint64 // oldest first
}

type lastAnswer struct {
	request  [sha256.Size]byte
	response [][]byte
	until    time.Time
}

// Linger keeps the answer to the last request, of which request is the SHA-256, of an
// IKE SA that ends.
func (v *Env) Linger(now time.Time, request [sha256.Size]byte, response [][]byte) {
	l := &v.e.linger
	if l.bySPI == nil {
		l.bySPI = map[uint64]lastAnswer{}
	}
	for len(l.order) > 0 && (len(l.order) >= limitLingering || now.After(l.bySPI[l.order[0]].until)) {
		delete(l.bySPI, l.order[0])
		l.order = l.order[1:]
	}
	size := 0
	for _, b := range response {
		size += len(b)
	}
	if _, dup := l.bySPI[v.spiLocal]; dup || v.spiLocal == 0 || size > limitLingerBytes {
		return
	}
	l.bySPI[v.spiLocal] = lastAnswer{request, response, now.Add(timeoutLinger)}
	l.order = append(l.order, v.spiLocal)
}

// answerAgain answers the repetition of a request to an IKE SA that is gone.
func (e *Engine) answerAgain(now time.Time, ours uint64, d Datagram) bool {
	a, ok := e.linger.bySPI[ours]
	if !ok || now.After(a.until) || a.request != sha256.Sum256(d.Data) {
		return false
	}
	e.stats.Retransmits++
	for _, b := range a.response {
		e.stats.Sent++
		e.effect(Send{Datagram{Local: d.Local, Remote: d.Remote, Data: b}})
	}
	return true
}
