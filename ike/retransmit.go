package ike

import (
	"crypto/rand"
	"encoding/binary"
	"math"
	"time"
)

// limitWait bounds one wait of a schedule, whatever Base and Tries say.
const limitWait = 24 * time.Hour

// Wait is how long to wait for an answer after the n-th sending, counted from
// 0; false when n repetitions were all.
func (r Retransmit) Wait(n int) (wait time.Duration, last bool) {
	f := float64(r.Timeout) * math.Pow(r.Base, float64(n))
	d := limitWait
	if f < float64(limitWait) {
		d = time.Duration(f)
	}
	if r.Limit > 0 {
		d = min(d, r.Limit)
	}
	if r.Jitter > 0 {
		d -= RandomSpan(d * time.Duration(r.Jitter) / 100)
	}
	return max(d, time.Millisecond), n >= r.Tries
}

// RandomSpan is a random duration from 0 to span, for jitter.
func RandomSpan(span time.Duration) time.Duration {
	if span <= 0 {
		return 0
	}
	return time.Duration(RandomUint64() % uint64(span+1))
}

// RandomUint64 is 64 random bits.
func RandomUint64() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}
