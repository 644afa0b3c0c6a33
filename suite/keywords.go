package suite

import (
	"fmt"
	"slices"
	"strings"
)

// keyword pairs strongSwan's name for an algorithm with the algorithm.
type keyword struct {
	name string
	t    Transform
}

// keywords lists every keyword that we understand. Where several mean the same
// transform, the first is the one that Transform.Keyword returns.
var keywords = buildKeywords()

func buildKeywords() []keyword {
	var list []keyword
	add := func(typ TransformType, id TransformID, bits uint16, names ...string) {
		for _, name := range names {
			list = append(list, keyword{name, Transform{typ, id, bits}})
		}
	}
	aead := []struct {
		mode          string
		id            TransformID
		octets, width string
	}{
		{"gcm", EncrAESGCM16, "16", "128"}, {"gcm", EncrAESGCM12, "12", "96"}, {"gcm", EncrAESGCM8, "8", "64"},
		{"ccm", EncrAESCCM16, "16", "128"}, {"ccm", EncrAESCCM12, "12", "96"}, {"ccm", EncrAESCCM8, "8", "64"},
	}
	for _, bits := range [...]uint16{128, 192, 256} {
		aes := fmt.Sprintf("aes%d", bits)
		add(TypeENCR, EncrAESCBC, bits, aes)
		add(TypeENCR, EncrAESCTR, bits, aes+"ctr")
		for _, a := range aead {
			add(TypeENCR, a.id, bits, aes+a.mode+a.octets, aes+a.mode+a.width)
			if a.octets == "16" {
				add(TypeENCR, a.id, bits, aes+a.mode)
			}
		}
		add(TypeENCR, EncrNULLAuthAESGMAC, bits, aes+"gmac")
	}
	add(TypeENCR, EncrAESCBC, 128, "aes")
	add(TypeENCR, EncrChaCha20Poly1305, 0, "chacha20poly1305")
	add(TypeENCR, EncrChaCha20Poly1305, 256, "chacha20poly1305compat")
	add(TypeENCR, EncrNULL, 0, "null")
	add(TypeENCR, Encr3DESCBC, 0, "3des")
	add(TypeINTEG, IntegHMACSHA2_256_128, 0, "sha256", "sha2_256")
	add(TypeINTEG, IntegHMACSHA2_384_192, 0, "sha384", "sha2_384")
	add(TypeINTEG, IntegHMACSHA2_512_256, 0, "sha512", "sha2_512")
	add(TypeINTEG, IntegHMACSHA1_96, 0, "sha1", "sha")
	add(TypeINTEG, IntegHMACMD5_96, 0, "md5")
	add(TypeINTEG, IntegAESXCBC96, 0, "aesxcbc")
	add(TypeINTEG, IntegAESCMAC96, 0, "aescmac")
	add(TypePRF, PRFHMACSHA2_256, 0, "prfsha256")
	add(TypePRF, PRFHMACSHA2_384, 0, "prfsha384")
	add(TypePRF, PRFHMACSHA2_512, 0, "prfsha512")
	add(TypePRF, PRFHMACSHA1, 0, "prfsha1")
	add(TypePRF, PRFHMACMD5, 0, "prfmd5")
	add(TypePRF, PRFAES128XCBC, 0, "prfaesxcbc")
	add(TypePRF, PRFAES128CMAC, 0, "prfaescmac")
	add(TypeKE, KECurve25519, 0, "curve25519", "x25519")
	add(TypeKE, KECurve448, 0, "curve448", "x448")
	add(TypeKE, KEECP256, 0, "ecp256")
	add(TypeKE, KEECP384, 0, "ecp384")
	add(TypeKE, KEECP521, 0, "ecp521")
	add(TypeKE, KEMODP1024, 0, "modp1024")
	add(TypeKE, KEMODP1536, 0, "modp1536")
	add(TypeKE, KEMODP2048, 0, "modp2048")
	add(TypeKE, KEMODP3072, 0, "modp3072")
	add(TypeKE, KEMODP4096, 0, "modp4096")
	add(TypeKE, KEMODP6144, 0, "modp6144")
	add(TypeKE, KEMODP8192, 0, "modp8192")
	add(TypeKE, KEMLKEM512, 0, "mlkem512")
	add(TypeKE, KEMLKEM768, 0, "mlkem768")
	add(TypeKE, KEMLKEM1024, 0, "mlkem1024")
	add(TypeKE, KENone, 0, "none", "modpnone")
	for _, k := range list {
		if k.t.Type != TypeKE {
			continue
		}
		for n := range TransformType(MaxAdditional) { // RFC 9370
			add(TypeADDKE1+n, k.t.ID, 0, fmt.Sprintf("ke%d_%s", n+1, k.name))
		}
	}
	add(TypeSN, SNNone, 0, "noesn")
	add(TypeSN, SNESN, 0, "esn")
	return list
}

// unsupported holds keywords of strongSwan that we know and refuse: a prefix and
// the reason.
var unsupported = []struct{ prefix, reason string }{
	{"des", "DES is broken and not offered by adit"},
	{"md5_128", "the untruncated MD5 is not offered by adit"},
	{"blowfish", "Blowfish is obsolete and not offered by adit"},
	{"cast128", "CAST is obsolete and not offered by adit"},
	{"camellia", "Camellia is not offered by adit"},
	{"prfcamellia", "Camellia is not offered by adit"},
	{"serpent", "Serpent was never assigned a number and is not offered by adit"},
	{"twofish", "Twofish was never assigned a number and is not offered by adit"},
	{"sha1_160", "the untruncated SHA-1 is not offered by adit"},
	{"sha256_96", "the 96-bit truncation of SHA-256 is not standard and not offered by adit"},
	{"sha2_256_96", "the 96-bit truncation of SHA-256 is not standard and not offered by adit"},
	{"modpnull", "it is for tests only"},
	{"modp768", "the group is broken and not offered by adit"},
	{"modp1024s160", "the origin of the RFC 5114 primes is unclear; not offered by adit"},
	{"modp2048s", "the origin of the RFC 5114 primes is unclear; not offered by adit"},
	{"ecp192", "the curve is too small and not offered by adit"},
	{"ecp224", "the curve is too small and not offered by adit"},
	{"ecp256bp", "Brainpool curves are not offered by adit"},
	{"ecp384bp", "Brainpool curves are not offered by adit"},
	{"ecp512bp", "Brainpool curves are not offered by adit"},
	{"gost", "GOST groups are not offered by adit"},
}

// Keyword is strongSwan's configuration keyword for the transform, or "" when
// adit cannot be configured with it.
func (t Transform) Keyword() string {
	for _, k := range keywords {
		if k.t == t {
			return k.name
		}
	}
	return ""
}

// ParseError says why a proposal string of a configuration was refused.
type ParseError struct {
	Protocol Protocol
	Text     string // the whole proposal string
	Keyword  string // the keyword at fault, or "" when it is the combination
	Nearest  string // the known keyword most like Keyword, or ""
	Reason   string // what is wrong, a sentence without its full stop
}

// Error names the proposal, the keyword and the nearest known one.
func (e *ParseError) Error() string {
	s := fmt.Sprintf("%s proposal %q: ", e.Protocol, clip(e.Text, maxShown))
	if e.Keyword != "" {
		s += fmt.Sprintf("keyword %q: ", clip(e.Keyword, maxShown))
	}
	s += e.Reason
	if e.Nearest != "" {
		s += fmt.Sprintf(" (did you mean %q?)", e.Nearest)
	}
	return s
}

// maxShown bounds how much of a foreign string an error repeats, in bytes.
const maxShown = 200

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "..."
}

func lookupKeyword(name string) (Transform, bool) {
	for _, k := range keywords {
		if k.name == name {
			return k.t, true
		}
	}
	return Transform{}, false
}

// nearestKeyword returns the known keyword with the smallest edit distance, or
// "" when none is similar.
func nearestKeyword(name string) string {
	if len(name) > 32 { // no keyword is longer; bounds the work below
		return ""
	}
	best, bestDistance := "", 1+len(name)/2
	for _, k := range keywords {
		if d := editDistance(name, k.name); d < bestDistance {
			best, bestDistance = k.name, d
		}
	}
	return best
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// ParseProposal reads one proposal in strongSwan's keywords, for example
// aes256gcm16-prfsha384-ecp384. It refuses, as strongSwan does, what makes no
// sense, and completes it likewise: an IKE proposal without a PRF gets those of
// its integrity algorithms, integrity algorithms beside AEAD ciphers are dropped,
// an ESP proposal without esn or noesn means noesn. Beyond strongSwan it refuses
// encryption without integrity in ESP, and a cipher that does not encrypt in IKE.
// Errors are *ParseError.
func ParseProposal(p Protocol, s string) (Proposal, error) {
	out := Proposal{Protocol: p}
	fail := func(word, nearest, reason string) (Proposal, error) {
		return Proposal{}, &ParseError{Protocol: p, Text: s, Keyword: word, Nearest: nearest, Reason: reason}
	}
	if p != IKE && p != ESP && p != AH {
		return fail("", "", "there are no proposals for this protocol")
	}
	if strings.TrimSpace(s) == "" {
		return fail("", "", "it is empty")
	}
	for _, word := range strings.Split(s, "-") {
		word = strings.TrimSpace(word)
		if word == "" {
			return fail("", "", "a keyword is missing beside a hyphen")
		}
		t, known := lookupKeyword(word)
		if known {
			out.add(t)
			continue
		}
		for _, u := range unsupported {
			if strings.HasPrefix(word, u.prefix) {
				return fail(word, "", u.reason)
			}
		}
		if word == "default" {
			return fail(word, "", "it stands alone, not within a proposal")
		}
		return fail(word, nearestKeyword(word), "no such algorithm")
	}
	word, reason := out.complete()
	if reason == "" {
		word, reason = out.checkAdditional()
	}
	if reason != "" {
		return fail(word, "", reason)
	}
	return out, nil
}

// checkAdditional holds what RFC 9370 §2.2.1 asks of additional key exchanges: there is
// a first one, and a selection in which no method takes place twice.
func (p *Proposal) checkAdditional() (word, reason string) {
	var first Transform
	for _, t := range p.Transforms {
		if t.Type.additional() && t.ID != KENone {
			first = t
			break
		}
	}
	if first.Type == 0 {
		for n := range TransformType(MaxAdditional) {
			p.remove(TypeADDKE1 + n)
		}
		return "", ""
	}
	if !slices.ContainsFunc(p.Transforms, func(t Transform) bool { return t.Type == TypeKE && t.ID != KENone }) {
		return first.Keyword(), "an additional key exchange needs a first one beside it (for example curve25519)"
	}
	if _, miss := match(p, p, SelectOptions{}); len(miss) > 0 && miss[len(miss)-1].additional() {
		return p.ByType(miss[len(miss)-1])[0].Keyword(), "the same method would take place twice (RFC 9370 §2.2.1)"
	}
	return "", ""
}

// prfOf maps an integrity algorithm to the PRF of the same construction.
var prfOf = map[TransformID]TransformID{
	IntegHMACMD5_96: PRFHMACMD5, IntegHMACSHA1_96: PRFHMACSHA1, IntegHMACSHA2_256_128: PRFHMACSHA2_256,
	IntegHMACSHA2_384_192: PRFHMACSHA2_384, IntegHMACSHA2_512_256: PRFHMACSHA2_512,
	IntegAESXCBC96: PRFAES128XCBC, IntegAESCMAC96: PRFAES128CMAC,
}

// complete checks the combination and fills in what may be left out. It returns
// the keyword at fault, if it is one, and the reason, or two empty strings.
func (p *Proposal) complete() (word, reason string) {
	switch p.Protocol {
	case IKE:
		word, reason = p.completeIKE()
	case ESP:
		p.remove(TypePRF)
		word, reason = p.completeCipher()
	case AH:
		p.remove(TypePRF)
		word, reason = p.completeAH()
	}
	if reason == "" && p.Protocol != IKE {
		if _, ok := p.First(TypeSN); !ok {
			p.add(Transform{TypeSN, SNNone, 0})
		}
	}
	return word, reason
}

func (p *Proposal) completeIKE() (word, reason string) {
	for _, t := range p.Transforms {
		if t.Type == TypeENCR && (t.ID == EncrNULL || t.ID == EncrNULLAuthAESGMAC) {
			return t.Keyword(), "IKE messages must be encrypted, and this does not encrypt"
		}
		if t.Type == TypeSN {
			return t.Keyword(), "extended sequence numbers belong into ESP and AH proposals"
		}
	}
	if _, ok := p.First(TypePRF); !ok {
		for _, t := range p.ByType(TypeINTEG) {
			p.add(Transform{TypePRF, prfOf[t.ID], 0})
		}
	}
	if word, reason = p.completeCipher(); reason != "" {
		return word, reason
	}
	if _, ok := p.First(TypePRF); !ok {
		return "", "a pseudo-random function is missing (for example prfsha256)"
	}
	kept := p.Transforms[:0]
	for _, t := range p.Transforms {
		if t != (Transform{Type: TypeKE, ID: KENone}) {
			kept = append(kept, t)
		}
	}
	p.Transforms = kept
	if _, ok := p.First(TypeKE); !ok {
		return "", "a key exchange is missing (for example curve25519 or ecp256)"
	}
	return "", ""
}

// completeCipher holds what IKE and ESP have in common.
func (p *Proposal) completeCipher() (word, reason string) {
	encr := p.ByType(TypeENCR)
	if len(encr) == 0 {
		return "", "an encryption algorithm is missing (for example aes256gcm16)"
	}
	aead := encr[0].AEAD()
	for _, t := range encr {
		if t.AEAD() != aead {
			return t.Keyword(), "ciphers with and without built-in authentication can't share a proposal; make it two"
		}
	}
	if aead {
		p.remove(TypeINTEG) // RFC 7296 §3.3: not beside AEAD ciphers
		return "", ""
	}
	if _, ok := p.First(TypeINTEG); !ok {
		return encr[0].Keyword(), "encryption without integrity protection is refused; add for example sha256, or use aes256gcm16"
	}
	return "", ""
}

func (p *Proposal) completeAH() (word, reason string) {
	for _, t := range p.ByType(TypeENCR) {
		if t.ID == EncrNULLAuthAESGMAC {
			return t.Keyword(), "adit has no AES-GMAC in AH; ESP has it"
		}
	}
	p.remove(TypeENCR)
	if _, ok := p.First(TypeINTEG); !ok {
		return "", "an integrity algorithm is missing (for example sha256)"
	}
	return "", ""
}

// ParseProposals reads a list of proposal strings, in which "default" stands for
// the proposals of Default.
func ParseProposals(p Protocol, list []string) ([]Proposal, error) {
	var out []Proposal
	for _, s := range list {
		if strings.TrimSpace(s) == "default" {
			out = append(out, Default(p)...)
			continue
		}
		one, err := ParseProposal(p, s)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	if len(out) == 0 {
		return nil, &ParseError{Protocol: p, Reason: "the list is empty"}
	}
	return out, nil
}

// Algorithms lists every algorithm that can be negotiated, once each, without key
// lengths, in the order of configuration's keywords.
func Algorithms() []Transform {
	var out []Transform
	for _, k := range keywords {
		t := Transform{Type: k.t.Type, ID: k.t.ID}
		if t.Type != TypeSN && !t.Type.additional() && (t.Type != TypeKE || t.ID != KENone) && !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out
}
