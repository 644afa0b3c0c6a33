package config

import (
	"math"
	"slices"
	"strings"

	"adit/ike"
	"adit/suite"
)

// weakBits is the guessing work below which a pre-shared key is warned about:
// whoever took part in one exchange as an active attacker can try keys offline
// (CVE-2018-5389).
const weakBits = 80

// guessable are words that every list of passwords begins with.
var guessable = []string{"secret", "password", "passwort", "passw0rd", "changeme", "strongswan", "libreswan", "openswan", "ipsec", "shared", "preshared", "vpn", "tunnel",
	"qwerty", "qwertz", "asdf", "letmein", "welcome", "admin", "root", "test", "example", "default", "master", "dragon", "monkey", "iloveyou", "gateway", "site", "key", "psk",
	"the", "this", "that", "very", "long", "enough", "and", "for", "company", "office", "cisco", "fortinet", "mikrotik"}

// guessBits estimates how much work guessing a secret is, in bits: from its length
// and characters, less what repeats, follows an order or is a common word. It is
// made to say too little of what people think up rather than too much.
func guessBits(key suite.Key) float64 {
	text := string(key)
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		distinct := map[byte]bool{}
		for _, b := range key {
			distinct[b] = true
		}
		return float64(len(key)) * min(8, math.Log2(float64(len(distinct)))*2)
	}
	rest, bits := strings.ToLower(text), 0.0
	for _, w := range slices.SortedFunc(slices.Values(guessable), func(a, b string) int { return len(b) - len(a) }) {
		if n := strings.Count(rest, w); n > 0 {
			rest = strings.ReplaceAll(rest, w, "\x00") // which counts as nothing below
			bits += 5                                  // once: again is no work
		}
	}
	kinds := []struct{ set, has float64 }{{26, 0}, {26, 0}, {10, 0}, {33, 0}}
	vowels, letters := 0, 0
	for _, r := range text {
		switch {
		case r >= 'a' && r <= 'z':
			kinds[0].has = 1
		case r >= 'A' && r <= 'Z':
			kinds[1].has = 1
		case r >= '0' && r <= '9':
			kinds[2].has = 1
		default:
			kinds[3].has = 1
		}
	}
	size := 0.0
	for _, k := range kinds {
		size += k.set * k.has
	}
	if !strings.ContainsFunc(strings.ToLower(text), func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') }) {
		size = min(size, 16)
	}
	fresh, seen := 0, map[string]bool{}
	for i := range len(rest) {
		c := rest[i]
		if c == 0 {
			continue
		}
		if c >= 'a' && c <= 'z' {
			letters++
			if strings.IndexByte("aeiou", c) >= 0 {
				vowels++
			}
		}
		if i > 0 && (rest[i-1] == c || rest[i-1]+1 == c || rest[i-1] == c+1) {
			continue // a run: aaaa, 1234, 4321
		}
		if i > 1 && seen[rest[i-2:i+1]] {
			continue // again
		}
		if i > 1 {
			seen[rest[i-2:i+1]] = true
		}
		fresh++
	}
	each := math.Log2(max(size, 2))
	if kinds[1].has+kinds[2].has == 0 && letters > 0 && float64(vowels)/float64(letters) >= 0.3 {
		each = 2.5 // words of a language
	}
	return bits + float64(fresh)*each
}

// secrets looks at pre-shared keys: short ones were told of when they were read.
func (l *linter) secrets() {
	for i, s := range l.m.Secrets {
		if s.Kind != SecretIKE {
			continue
		}
		path := []string{"secrets", s.ID, "secret"}
		if bits := guessBits(s.Key); len(s.Key) >= weakSecret && bits < weakBits {
			l.warn(path, "it takes less than %d bits of work to guess (about %.0f), which an active attacker can do at home after one exchange; use the output of `openssl rand -base64 24`", weakBits, bits)
		}
		for _, other := range l.m.Secrets[:i] {
			if other.Kind == SecretIKE && other.Key.Equal(s.Key) && !sameOwners(other.Owners, s.Owners) {
				l.warn(path, "is that of secrets.%s, too: each of their peers can pass for the other; give each a secret of its own", other.ID)
				break
			}
		}
	}
}

func sameOwners(a, b []ike.Identity) bool {
	return slices.EqualFunc(a, b, func(x, y ike.Identity) bool { return x.String() == y.String() })
}
