package suite

import (
	"fmt"
	"slices"
	"strings"
)

// Selected is the suite of one SA: exactly one algorithm of each type. A field
// whose Type is 0 has none (INTEG beside an AEAD cipher, PRF in ESP, KE without
// a key exchange). Values compare with ==.
type Selected struct {
	Protocol             Protocol
	Encr, Integ, PRF, KE Transform
	SN                   Transform
	KEPresent            bool // a key exchange takes place with KE
	// Additional are the additional key exchanges 1 to 7, those that take place
	// (RFC 9370 §2.2.1); the others are zero.
	Additional [MaxAdditional]Transform

	snImplied bool // the peer named no sequence number type; nor must the answer
}

// ESN reports 64-bit sequence numbers.
func (s Selected) ESN() bool { return s.SN == Transform{Type: TypeSN, ID: SNESN} }

// Proposal is the suite as the single proposal of an answer.
func (s Selected) Proposal() Proposal {
	p := Proposal{Protocol: s.Protocol}
	for _, t := range [...]Transform{s.Encr, s.Integ, s.PRF, s.KE, s.SN} {
		if t.Type == 0 || t.Type == TypeSN && s.snImplied {
			continue
		}
		p.Transforms = append(p.Transforms, t)
	}
	p.Transforms = append(p.Transforms, s.AdditionalKE()...)
	return p
}

// AdditionalKE lists the additional key exchanges that take place, in their order.
func (s Selected) AdditionalKE() (list []Transform) {
	for _, t := range s.Additional {
		if t.Type != 0 {
			list = append(list, t)
		}
	}
	return list
}

// PostQuantum reports a suite of which one key exchange withstands a quantum computer.
func (s Selected) PostQuantum() bool {
	for _, t := range s.AdditionalKE() {
		if t.ID.PostQuantum() {
			return true
		}
	}
	return s.KEPresent && s.KE.ID.PostQuantum()
}

// String prints the suite as strongSwan prints a selected proposal.
func (s Selected) String() string {
	s.snImplied = false
	return s.Proposal().String()
}

// KeyLengths is KeyLengths for the suite's cipher.
func (s Selected) KeyLengths() (enc, integ int, err error) { return KeyLengths(s.Encr, s.Integ) }

// SelectOptions changes how Select chooses; the zero value is the ordinary case.
type SelectOptions struct {
	// PreferPeer follows the order of the peer's list rather than ours
	// (strongSwan: charon.prefer_configured_proposals = no).
	PreferPeer bool
	// IgnoreKE leaves key exchanges out of the comparison and of the result:
	// the first Child SA takes its keys from the IKE SA (RFC 7296 §1.2).
	IgnoreKE bool
	// KE, if not KENone, is taken before our preference if both list it: the
	// group of the KE payload that the peer has already sent.
	KE TransformID
	// NoAdditional: the peer can't do additional key exchanges now (RFC 9370), so only
	// proposals fit in which they are optional.
	NoAdditional bool
}

// MaxProposals is how many proposals of a peer Select looks at: proposals carry
// an 8-bit number that starts at 1 (RFC 7296 §3.3.1).
const MaxProposals = 255

// Select picks the first suite that ours and theirs have in common, by the rules
// of RFC 7296 §2.7 and §3.3.6, and the index of the proposal in theirs.
//
//   - A transform of theirs that we don't know is passed over; a transform type
//     that we don't know makes that proposal unacceptable.
//   - Integrity algorithms, or NONE, beside an AEAD cipher are passed over.
//   - Key exchange NONE on one side makes it optional for the other in ESP and AH.
//     Without a key exchange there are no additional ones.
//   - No method takes place twice, whatever the lists say (RFC 9370 §2.2.1).
//   - ESP and AH proposals without sequence number type mean 32-bit numbers
//     (peer quirk; the answer then names none either).
//
// The error is a *NoProposalError.
func Select(ours, theirs []Proposal, opt SelectOptions) (Selected, int, error) {
	theirs = theirs[:min(len(theirs), MaxProposals)]
	if opt.PreferPeer {
		for i := range theirs {
			for j := range ours {
				if s, miss := match(&ours[j], &theirs[i], opt); len(miss) == 0 {
					return s, i, nil
				}
			}
		}
	} else {
		for j := range ours {
			for i := range theirs {
				if s, miss := match(&ours[j], &theirs[i], opt); len(miss) == 0 {
					return s, i, nil
				}
			}
		}
	}
	return Selected{}, -1, newNoProposalError(ours, theirs, opt)
}

// Accept checks the responder's answer against what we offered: exactly one
// proposal with exactly one transform of each type, all of them offered
// (RFC 7296 §2.7, §3.3.6).
func Accept(offered []Proposal, answer Proposal, opt SelectOptions) (Selected, error) {
	var seen [TypeADDKE7 + 1]bool
	for _, t := range answer.Transforms {
		if int(t.Type) < len(seen) {
			if seen[t.Type] {
				return Selected{}, fmt.Errorf("suite: the answer has more than one transform for %s", t.Type)
			}
			seen[t.Type] = true
		}
	}
	s, _, err := Select(offered, []Proposal{answer}, opt)
	return s, err
}

// match compares one proposal of each side. The types that differ are returned
// in the order of printOrder, unknown types last.
func match(our, their *Proposal, opt SelectOptions) (s Selected, miss []TransformType) {
	if our.Protocol != their.Protocol {
		return s, []TransformType{0}
	}
	s.Protocol = our.Protocol
	for _, typ := range printOrder {
		if typ.additional() {
			continue
		}
		if typ == TypeKE && opt.IgnoreKE || typ == TypeINTEG && s.Encr.AEAD() {
			continue
		}
		if typ == TypeINTEG && len(miss) > 0 && !(hasType(our, typ) && hasType(their, typ)) {
			continue // the ciphers differ in kind; that says it all
		}
		t, ok := matchType(our, their, typ, opt)
		switch {
		case !ok:
			miss = append(miss, typ)
		case typ == TypeENCR:
			s.Encr = t
		case typ == TypeINTEG:
			s.Integ = t
		case typ == TypePRF:
			s.PRF = t
		case typ == TypeKE:
			s.KE, s.KEPresent = t, t.Type == TypeKE
		case typ == TypeSN && s.Protocol != IKE:
			s.SN = Transform{Type: TypeSN, ID: t.ID}
			_, named := their.First(TypeSN)
			s.snImplied = !named
		}
	}
	if !opt.IgnoreKE && !slices.Contains(miss, TypeKE) {
		if typ := s.matchAdditional(our, their, opt); typ != 0 {
			miss = append(miss, typ)
		}
	}
	for _, t := range their.Transforms {
		if t.Type == 0 || t.Type > TypeADDKE7 {
			miss = append(miss, t.Type)
			break
		}
	}
	return s, miss
}

// limitChoices bounds the combinations of additional key exchanges that are tried for
// one pair of proposals: lists that need more are not agreed on.
const limitChoices = 128

// matchAdditional picks the additional key exchanges, the preferred ones in which no
// method comes twice. It returns the type for which there is none, or 0.
func (s *Selected) matchAdditional(our, their *Proposal, opt SelectOptions) TransformType {
	opt.NoAdditional = opt.NoAdditional || !s.KEPresent
	var choices [MaxAdditional][]Transform
	used := false
	for n := range choices {
		typ := TypeADDKE1 + TransformType(n)
		if choices[n] = additionalChoices(our, their, typ, opt); len(choices[n]) == 0 {
			return typ
		}
		used = used || len(choices[n]) > 1 || choices[n][0].Type != 0
	}
	if !used {
		return 0
	}
	deepest, tries := 0, 0
	var pick func(n int) bool
	pick = func(n int) bool {
		deepest = max(deepest, n)
		if n == len(choices) {
			return true
		}
		for _, t := range choices[n] {
			if tries++; tries > limitChoices {
				return false
			}
			if t.Type != 0 && s.takesPlace(t.ID, n) {
				continue
			}
			if s.Additional[n] = t; pick(n + 1) {
				return true
			}
		}
		s.Additional[n] = Transform{}
		return false
	}
	if !pick(0) {
		return TypeADDKE1 + TransformType(deepest)
	}
	return 0
}

// takesPlace reports whether the method is the key exchange, or one of the first n
// additional ones.
func (s *Selected) takesPlace(id TransformID, n int) bool {
	if s.KEPresent && s.KE.ID == id {
		return true
	}
	for _, t := range s.Additional[:n] {
		if t.Type != 0 && t.ID == id {
			return true
		}
	}
	return false
}

// additionalChoices lists what both take for one additional key exchange, the
// preferred one first; the zero Transform stands for none.
func additionalChoices(our, their *Proposal, typ TransformType, opt SelectOptions) []Transform {
	none := Transform{Type: typ}
	without := (!hasType(our, typ) || our.Has(none)) && (!hasType(their, typ) || their.Has(none))
	if opt.NoAdditional || !hasType(our, typ) || !hasType(their, typ) {
		if without {
			return []Transform{{}}
		}
		return nil
	}
	var list []Transform
	prefer, other := our, their
	if opt.PreferPeer {
		prefer, other = their, our
	}
	for _, t := range prefer.Transforms {
		switch {
		case t.Type != typ || !other.Has(t) || len(list) > limitChoices:
		case t == none:
			list = append(list, Transform{})
		case t.KeyBits != KeyBitsUnknown:
			list = append(list, t)
		}
	}
	return list
}

func hasType(p *Proposal, typ TransformType) bool {
	_, ok := p.First(typ)
	return ok
}

// matchType picks the algorithm of one type. The zero Transform with ok means
// that both can do without.
func matchType(our, their *Proposal, typ TransformType, opt SelectOptions) (pick Transform, ok bool) {
	ourFirst, have := our.First(typ)
	theirFirst, offered := their.First(typ)
	if typ == TypeSN && our.Protocol != IKE {
		if !have {
			our, ourFirst, have = snNoneOnly, snNoneOnly.Transforms[0], true
		}
		if !offered {
			their, theirFirst, offered = snNoneOnly, snNoneOnly.Transforms[0], true
		}
	}
	none := Transform{Type: typ}
	optional := typ == TypeKE && our.Protocol != IKE
	switch {
	case !have && !offered:
		// A cipher without integrity comes here for INTEG; it is never agreed on.
		return Transform{}, typ != TypeINTEG && (typ != TypeENCR || our.Protocol == AH) &&
			(our.Protocol != IKE || typ != TypePRF && typ != TypeKE)
	case !have:
		return Transform{}, optional && their.Has(none)
	case !offered:
		return Transform{}, optional && our.Has(none)
	}
	if typ == TypeKE && opt.KE != KENone {
		if want := (Transform{Type: TypeKE, ID: opt.KE}); our.Has(want) && their.Has(want) {
			return want, true
		}
	}
	if ourFirst == theirFirst && usable(ourFirst) { // the common case
		return ourFirst, true
	}
	prefer, other := our, their
	if opt.PreferPeer {
		prefer, other = their, our
	}
	for _, t := range prefer.Transforms {
		if t.Type == typ && other.Has(t) {
			if t == none && optional {
				return Transform{}, true
			}
			if usable(t) {
				return t, true
			}
		}
	}
	return Transform{}, false
}

// usable tells real algorithms from NONE and from what could not be decoded.
func usable(t Transform) bool {
	return t.KeyBits != KeyBitsUnknown && (t.ID != 0 || t.Type == TypeSN)
}

var snNoneOnly = &Proposal{Transforms: []Transform{{Type: TypeSN, ID: SNNone}}}

// NoProposalError says that two sides have no suite in common, and where the
// pair of proposals that is nearest to agreement differs first.
type NoProposalError struct {
	Offered, Wanted []Proposal // the peer's list and ours

	// Nearest match: indices into Offered and Wanted, -1 if a list is empty.
	OfferedIndex, WantedIndex int
	// Type is the first transform type that differs there, 0 if it is the
	// protocol. TypeOffered and TypeWanted are both sides' algorithms of it.
	Type                    TransformType
	TypeOffered, TypeWanted []Transform
	// Differing lists all types that differ in the nearest match.
	Differing []TransformType
}

func newNoProposalError(ours, theirs []Proposal, opt SelectOptions) *NoProposalError {
	e := &NoProposalError{Offered: theirs, Wanted: ours, OfferedIndex: -1, WantedIndex: -1}
	best := 1 << 30
	for i := range theirs {
		for j := range ours {
			_, miss := match(&ours[j], &theirs[i], opt)
			// Fewer differing types are nearer; among equals the later first one.
			score := len(miss)*16 - int(indexOfType(miss[0]))
			if miss[0] == 0 {
				score = 1 << 29
			}
			if score < best {
				best = score
				e.OfferedIndex, e.WantedIndex, e.Differing, e.Type = i, j, miss, miss[0]
			}
		}
	}
	if e.OfferedIndex >= 0 && e.Type != 0 {
		e.TypeOffered = theirs[e.OfferedIndex].ByType(e.Type)
		e.TypeWanted = ours[e.WantedIndex].ByType(e.Type)
	}
	return e
}

func indexOfType(typ TransformType) int {
	for i, t := range printOrder {
		if t == typ {
			return i
		}
	}
	return len(printOrder)
}

// maxListed bounds how many algorithms of a list an explanation names.
const maxListed = 12

// Error explains the first difference and how to remove it, in a bounded length.
func (e *NoProposalError) Error() string {
	switch {
	case len(e.Wanted) == 0:
		return "no proposal in common: we have no proposals for this"
	case len(e.Offered) == 0:
		return "no proposal in common: the peer offers nothing"
	case e.Type == 0 && e.Offered[e.OfferedIndex].Protocol != e.Wanted[e.WantedIndex].Protocol:
		return fmt.Sprintf("no proposal in common: the peer offers %s, we want %s",
			e.Offered[e.OfferedIndex].Protocol, e.Wanted[e.WantedIndex].Protocol)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "no proposal in common: for %s the peer offers %s, we accept %s; ",
		e.Type, nameList(e.TypeOffered), nameList(e.TypeWanted))
	b.WriteString(e.remedy())
	fmt.Fprintf(&b, "; nearest: the peer's proposal %d of %d, %s, against ours %d of %d, %s",
		e.OfferedIndex+1, len(e.Offered), clip(e.Offered[e.OfferedIndex].String(), maxShown),
		e.WantedIndex+1, len(e.Wanted), clip(e.Wanted[e.WantedIndex].String(), maxShown))
	if len(e.Differing) > 1 {
		b.WriteString("; these differ too: ")
		for i, typ := range e.Differing[1:] {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(typ.String())
		}
	}
	return b.String()
}

// remedy says what to change on either side so that Type agrees.
func (e *NoProposalError) remedy() string {
	if e.Type == 0 || e.Type > TypeADDKE7 {
		return "the peer must leave this transform type out"
	}
	peer := keywordList(e.TypeWanted)
	ours := keywordList(e.TypeOffered)
	switch {
	case len(e.TypeOffered) == 0 && e.Type == TypeKE:
		return "turn on perfect forward secrecy at the peer (" + peer + "), or add none to our proposal"
	case len(e.TypeWanted) == 0 && e.Type == TypeKE && ours != "":
		return "add " + ours + " to our proposal, or turn off perfect forward secrecy at the peer"
	case len(e.TypeOffered) == 0 && len(e.TypeWanted) != 0 && e.Type.additional():
		return "let the peer offer " + peer + ", or add " + Transform{Type: e.Type}.Keyword() + " to our proposal"
	case len(e.TypeWanted) == 0 && len(e.TypeOffered) != 0 && e.Type.additional() && ours != "":
		return "add " + ours + " to our proposal, or make it optional at the peer (" + Transform{Type: e.Type}.Keyword() + ")"
	case len(e.TypeOffered) == 0 && len(e.TypeWanted) == 0:
		return "neither side names one; add one to both"
	case len(e.TypeWanted) == 0 && ours == "":
		return "the peer must leave it out"
	case peer == "":
		return "add " + ours + " to our proposal"
	case ours == "":
		return "let the peer offer " + peer
	}
	s := "let the peer offer " + peer + ", or add " + ours + " to our proposal"
	for _, t := range e.TypeOffered {
		if w := t.Weakness(); w != "" && t.Keyword() != "" {
			return s + " (" + t.Keyword() + ": " + w + ")"
		}
	}
	return s
}

func nameList(list []Transform) string {
	if len(list) == 0 {
		return "none"
	}
	var names []string
	for i, t := range list {
		if i == maxListed {
			names = append(names, "...")
			break
		}
		names = append(names, t.String())
	}
	return strings.Join(names, ", ")
}

func keywordList(list []Transform) string {
	var names []string
	for _, t := range list {
		if k := t.Keyword(); k != "" && len(names) < maxListed {
			names = append(names, k)
		}
	}
	return strings.Join(names, " or ")
}
