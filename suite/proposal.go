package suite

import (
	"slices"
	"strings"
)

// Proposal is one list of alternatives for one protocol: for every transform
// type the acceptable algorithms, the preferred one first (RFC 7296 §3.3).
// Transforms of different types may be interleaved.
type Proposal struct {
	Protocol   Protocol
	Transforms []Transform
}

// printOrder is the order in which strongSwan prints the types of a proposal.
var printOrder = [...]TransformType{
	TypeENCR, TypeINTEG, TypePRF, TypeKE, TypeSN,
	TypeADDKE1, TypeADDKE2, TypeADDKE3, TypeADDKE4, TypeADDKE5, TypeADDKE6, TypeADDKE7,
}

// String prints the proposal as strongSwan does, for example
// IKE:AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_384.
func (p Proposal) String() string {
	var b strings.Builder
	b.WriteString(p.Protocol.String())
	sep := byte(':')
	write := func(t Transform) {
		b.WriteByte(sep)
		b.WriteString(t.String())
		sep = '/'
	}
	for _, typ := range printOrder {
		for _, t := range p.Transforms {
			if t.Type == typ {
				write(t)
			}
		}
	}
	for _, t := range p.Transforms {
		if t.Type == 0 || t.Type > TypeADDKE7 {
			write(t)
		}
	}
	if sep == ':' {
		b.WriteByte(sep)
	}
	return b.String()
}

// Keywords spells the proposal in strongSwan's configuration keywords, for
// example aes256gcm16-prfsha384-ecp384. What has no keyword is left out.
func (p Proposal) Keywords() string {
	var words []string
	for _, typ := range printOrder {
		for _, t := range p.Transforms {
			if k := t.Keyword(); t.Type == typ && k != "" {
				words = append(words, k)
			}
		}
	}
	return strings.Join(words, "-")
}

// ByType lists the alternatives of one type in order of preference.
func (p Proposal) ByType(typ TransformType) []Transform {
	var list []Transform
	for _, t := range p.Transforms {
		if t.Type == typ {
			list = append(list, t)
		}
	}
	return list
}

// First returns the preferred alternative of one type.
func (p Proposal) First(typ TransformType) (Transform, bool) {
	for _, t := range p.Transforms {
		if t.Type == typ {
			return t, true
		}
	}
	return Transform{}, false
}

// Has reports whether the proposal lists the transform.
func (p Proposal) Has(want Transform) bool {
	for _, t := range p.Transforms {
		if t == want {
			return true
		}
	}
	return false
}

// WithoutKE returns the proposal without key exchanges, as it is sent for the
// Child SA in IKE_AUTH (RFC 7296 §1.2).
func (p Proposal) WithoutKE() Proposal {
	out := Proposal{Protocol: p.Protocol}
	for _, t := range p.Transforms {
		if t.Type != TypeKE && !t.Type.additional() {
			out.Transforms = append(out.Transforms, t)
		}
	}
	return out
}

// WithKEFirst returns the proposal with the key exchange id moved in front of
// the others of its type, as after INVALID_KE_PAYLOAD (RFC 7296 §1.2), and
// whether the proposal lists it at all.
func (p Proposal) WithKEFirst(id TransformID) (Proposal, bool) {
	want := Transform{Type: TypeKE, ID: id}
	if !p.Has(want) {
		return p, false
	}
	out := Proposal{Protocol: p.Protocol, Transforms: []Transform{want}}
	for _, t := range p.Transforms {
		if t != want {
			out.Transforms = append(out.Transforms, t)
		}
	}
	return out, true
}

// ClassicKE reports whether each suite of the proposal has a key exchange that is not
// ML-KEM: should that be broken, nothing else protects the others.
func (p Proposal) ClassicKE() bool {
	classic := map[TransformType]bool{}
	for _, t := range p.Transforms {
		if t.Type == TypeKE || t.Type.additional() {
			was, seen := classic[t.Type]
			classic[t.Type] = (was || !seen) && t.ID != KENone && !t.ID.PostQuantum()
		}
	}
	for _, always := range classic {
		if always {
			return true
		}
	}
	return false
}

// Additional reports whether the proposal has additional key exchanges (RFC 9370).
func (p Proposal) Additional() bool {
	return slices.ContainsFunc(p.Transforms, func(t Transform) bool { return t.Type.additional() && t.ID != KENone })
}

// PostQuantum reports whether some suite of the proposal has ML-KEM.
func (p Proposal) PostQuantum() bool {
	for _, t := range p.Transforms {
		if (t.Type == TypeKE || t.Type.additional()) && t.ID.PostQuantum() {
			return true
		}
	}
	return false
}

// WithPostQuantum returns the proposal with ML-KEM in each of its suites: as it is if
// there is some already, but not optional any more; else with ML-KEM-768 as the first
// additional key exchange that is free (RFC 9370). ok is false if none is free.
func (p Proposal) WithPostQuantum() (out Proposal, ok bool) {
	out = Proposal{Protocol: p.Protocol}
	for _, t := range p.Transforms {
		if (t.Type == TypeKE || t.Type.additional()) && !t.ID.PostQuantum() && slices.ContainsFunc(p.ByType(t.Type), func(o Transform) bool { return o.ID.PostQuantum() }) {
			continue // its alternatives go
		}
		out.Transforms = append(out.Transforms, t)
	}
	for _, typ := range append([]TransformType{TypeKE}, printOrder[len(printOrder)-MaxAdditional:]...) {
		list := out.ByType(typ)
		if len(list) > 0 && !slices.ContainsFunc(list, func(t Transform) bool { return !t.ID.PostQuantum() }) {
			return out, true
		}
	}
	for n := range TransformType(MaxAdditional) {
		if !hasType(&out, TypeADDKE1+n) {
			out.add(Transform{TypeADDKE1 + n, KEMLKEM768, 0})
			return out, true
		}
	}
	return p, false
}

// WithoutPostQuantum returns the proposal without ML-KEM; ok is false if no first key
// exchange is left.
func (p Proposal) WithoutPostQuantum() (out Proposal, ok bool) {
	out = Proposal{Protocol: p.Protocol}
	for _, t := range p.Transforms {
		if (t.Type == TypeKE || t.Type.additional()) && t.ID.PostQuantum() {
			continue
		}
		out.Transforms = append(out.Transforms, t)
	}
	out.checkAdditional() // drops what is NONE only
	return out, hasType(&out, TypeKE) || !hasType(&p, TypeKE)
}

// Weak lists the transforms that deserve a warning when a configuration names
// them; Transform.Weakness says why.
func (p Proposal) Weak() []Transform {
	var weak []Transform
	for _, t := range p.Transforms {
		if t.Weakness() != "" {
			weak = append(weak, t)
		}
	}
	return weak
}

// add appends t unless the proposal has it already.
func (p *Proposal) add(t Transform) {
	if !p.Has(t) {
		p.Transforms = append(p.Transforms, t)
	}
}

// remove drops every transform of one type.
func (p *Proposal) remove(typ TransformType) {
	kept := p.Transforms[:0]
	for _, t := range p.Transforms {
		if t.Type != typ {
			kept = append(kept, t)
		}
	}
	p.Transforms = kept
}

// Default returns what the keyword "default" stands for: in IKE first one with
// ML-KEM beside a classic group, for when both ends can (RFC 9370); one proposal with
// combined-mode ciphers and one with AES-CBC and HMAC, in strongSwan's order but
// without its concessions to old peers (SHA-1, XCBC and 8-byte tags, RFC 8221 and
// RFC 8247), and without the MODP groups over 4096 bits, whose cost a stranger
// could make us pay. In ESP perfect forward secrecy is optional, and there is no
// ESN, as in strongSwan.
func Default(p Protocol) []Proposal {
	aead, classic := Proposal{Protocol: p}, Proposal{Protocol: p}
	for _, bits := range [...]uint16{128, 192, 256} {
		aead.add(Transform{TypeENCR, EncrAESGCM16, bits})
		classic.add(Transform{TypeENCR, EncrAESCBC, bits})
	}
	if p == IKE {
		aead.add(Transform{TypeENCR, EncrChaCha20Poly1305, 0})
	}
	for _, id := range [...]TransformID{IntegHMACSHA2_256_128, IntegHMACSHA2_384_192, IntegHMACSHA2_512_256} {
		classic.add(Transform{TypeINTEG, id, 0})
	}
	for _, q := range [...]*Proposal{&aead, &classic} {
		if p == IKE {
			q.add(Transform{TypePRF, PRFHMACSHA2_256, 0})
			q.add(Transform{TypePRF, PRFHMACSHA2_384, 0})
			q.add(Transform{TypePRF, PRFHMACSHA2_512, 0})
		} else {
			q.add(Transform{TypeSN, SNNone, 0})
		}
		for _, id := range [...]TransformID{
			KECurve25519, KEECP256, KEECP384, KEECP521, KECurve448, KEMODP3072, KEMODP4096, KEMODP2048,
		} {
			q.add(Transform{TypeKE, id, 0})
		}
		if p != IKE {
			q.add(Transform{TypeKE, KENone, 0})
		}
	}
	if p == AH {
		classic.remove(TypeENCR)
		return []Proposal{classic}
	}
	if p != IKE {
		return []Proposal{aead, classic}
	}
	hybrid := Proposal{Protocol: p, Transforms: slices.Clone(aead.Transforms)}
	hybrid.add(Transform{TypeADDKE1, KEMLKEM768, 0})
	hybrid.add(Transform{TypeADDKE1, KEMLKEM1024, 0})
	return []Proposal{hybrid, aead, classic}
}
