package config

import (
	"cmp"
	"encoding/asn1"
	"slices"
	"strconv"
	"strings"

	"adit/conf"
	"adit/ike"
	"adit/suite/sig"
)

// Limits of one authentication round.
const (
	limitRounds      = 8
	limitRoundCerts  = 256
	limitGroups      = 64
	limitPolicies    = 64
	limitConstraints = 1024 // characters of `auth`
)

type authDraft struct {
	ike.AuthRound
	local bool
	hasID bool // id is set, maybe to %any
	round int
	pos   conf.Pos
}

// authOptions are the values of a local* or remote* section, all that strongSwan 6 knows.
var authOptions = []option[authDraft]{
	{name: "auth", def: "pubkey", note: "`pubkey`, a key type with [constraints](#constraints-in-auth), `psk`, `eap`, `eap-METHOD[:constraints]`; of the remote side `any`, too", set: setAuth},
	{name: "id", note: "an address, a name, user@name, a distinguished name `\"C=CH, CN=moon\"`, `keyid:`, `%any`; of the remote side with wildcards; default: the subject of the first of `certs`, else the address", set: into(func(a *authDraft) *ike.Identity { a.hasID = true; return &a.ID }, identityOf)},
	{name: "round", def: "0", note: "order of the sections (RFC 4739); default: as they stand", set: func(_ *decoder, a *authDraft, v conf.Value) error {
		n, err := v.Uint(255)
		a.round = int(n)
		return err
	}},
	{name: "certs", note: "files in `x509` or with absolute names: locally those to choose from with their intermediates, remotely those that are accepted", set: func(d *decoder, a *authDraft, v conf.Value) error { return d.setCerts(a, v) }},
	{name: "cacerts", note: "files in `x509ca`: one of these must be in the peer’s chain. What `certs`, `cacerts` and `cert_policy` demand is not met by a shared key beside `auth = any`, nor by a method of EAP other than EAP-TLS done here", set: func(d *decoder, a *authDraft, v conf.Value) error { return d.setCACerts(a, v) }},
	{name: "pubkeys", note: "raw public keys, files in `pubkey`", set: func(d *decoder, a *authDraft, v conf.Value) error { return d.setPubkeys(a, v) }},
	{name: "cert_policy", note: "policy OIDs in dotted numbers: the peer’s chain must have one of them", set: into(func(a *authDraft) *[]string { return &a.CertPolicies }, policiesOf)},
	{name: "groups", note: "the peer must be in one of them, as the RADIUS server says", set: into(func(a *authDraft) *[]string { return &a.Groups }, wordsOf(limitGroups, "groups"))},
	{name: "ca_id", note: "subject or subjectAltName that one of the authorities in the peer’s chain must have; its certificate need not be loaded", set: into(func(a *authDraft) *ike.Identity { return &a.CAID }, identityOf)},
	{name: "aaa_id", note: "identity that the EAP server’s certificate must have; default: the gateway’s", set: into(func(a *authDraft) *ike.Identity { return &a.AAAID }, identityOf)},
	{name: "eap_id", def: "id", note: "locally: our name in EAP; remotely: the peer is asked for its name in EAP, which must fit; without it that name must fit `id`, RADIUS aside (strongSwan: takes any)", set: func(_ *decoder, a *authDraft, v conf.Value) (err error) {
		a.EAPID, err = identityOf(v)
		a.EAPAsk = !a.local && err == nil
		return err
	}},
	{name: "xauth_id", def: "id", note: "of IKEv1 only: our name in XAuth", set: func(_ *decoder, a *authDraft, v conf.Value) (err error) {
		a.EAPID, err = identityOf(v)
		return err
	}},
	{name: "revocation", def: "relaxed", note: "`relaxed`: only what is known to be revoked fails; `ifuri`: an answer is needed where the certificate says where to ask; `strict`: always", set: into(func(a *authDraft) *ike.RevocationPolicy { return &a.Revocation }, oneOf([]string{"relaxed", "ifuri", "strict"},
		[]ike.RevocationPolicy{ike.RevocationRelaxed, ike.RevocationIfURI, ike.RevocationStrict}))},
}

func identityOf(v conf.Value) (ike.Identity, error) {
	text, err := v.One()
	if err != nil {
		return ike.Identity{}, err
	}
	id, err := ike.ParseIdentity(text)
	if err != nil {
		return id, v.Errorf("%v", err)
	}
	return id, nil
}

// policiesOf reads object identifiers in dotted numbers.
func policiesOf(v conf.Value) ([]string, error) {
	list, err := wordsOf(limitPolicies, "policies")(v)
	for i, text := range list {
		oid, ok := dotted(text)
		if !ok {
			return nil, v.Errorf("%q is no object identifier such as 1.2.840.113549", text)
		}
		list[i] = oid.String()
	}
	return list, err
}

func dotted(text string) (oid asn1.ObjectIdentifier, ok bool) {
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil || len(oid) == 32 {
			return nil, false
		}
		oid = append(oid, int(n))
	}
	_, err := asn1.Marshal(oid)
	return oid, err == nil
}

// decodeAuth decodes one round of one side.
func (d *decoder) decodeAuth(s *conf.Section, local bool) authDraft {
	a := authDraft{AuthRound: ike.AuthRound{Name: s.Name, Method: ike.AuthPubkey}, local: local, pos: s.Pos}
	d.place(s)
	values(d, s, &a, authOptions)
	for v := range s.Values() {
		if text, _ := v.One(); v.Key == "auth" && strings.HasPrefix(strings.ToLower(text), "xauth-") {
			a.Given = append(a.Given, strings.ToLower(text))
		}
		a.Given = append(a.Given, v.Key)
	}
	sections(d, s, []string{"cert", "cacert"}, func(sub *conf.Section) bool {
		switch {
		case strings.HasPrefix(sub.Name, "cert"):
			d.decodeCertSection(sub, func(b []byte) error { return a.addCerts(b) })
		case strings.HasPrefix(sub.Name, "cacert"):
			d.decodeCertSection(sub, func(b []byte) error { return a.addCACerts(b) })
		default:
			return false
		}
		return true
	})
	if !a.hasID {
		if a.ID = a.subject(); !a.ID.IsAny() {
			a.Given = append(a.Given, "id")
		}
	}
	return a
}

// setAuth reads `auth`: psk, pubkey and the key types with constraints after them,
// eap with a method, and, of the remote side, any.
func setAuth(_ *decoder, a *authDraft, v conf.Value) error {
	text, err := v.One()
	if err != nil {
		return err
	}
	if len(text) > limitConstraints {
		return v.Errorf("longer than %d characters", limitConstraints)
	}
	lower := strings.ToLower(text)
	word, _, _ := strings.Cut(strings.TrimPrefix(lower, "ike:"), "-")
	switch {
	case lower == "psk":
		a.Method = ike.AuthPSK
	case lower == "any" && !a.local:
		a.Method = ike.AuthAny
	case lower == "any":
		return v.Errorf("any is for the remote side only: say how this side proves itself")
	case word == "xauth":
		a.Method = ike.AuthXAuth
		return setXAuth(a, v, lower)
	case strings.HasPrefix(word, "eap"):
		return setEAP(a, v, lower)
	case slices.Contains([]string{"pubkey", "rsa", "rsa/pss", "ecdsa", "ed25519", "ed448", "bliss"}, word):
		a.Method = ike.AuthPubkey
		return setConstraints(a, v, lower)
	default:
		return v.Errorf("unknown authentication %q%s", text, didYouMean(text, []string{"psk", "pubkey", "eap", "eap-tls", "eap-mschapv2", "any", "rsa", "ecdsa", "ed25519", "ed448"}))
	}
	return nil
}

// setXAuth reads xauth and xauth-backend.
func setXAuth(a *authDraft, v conf.Value, text string) error {
	switch backend := strings.TrimPrefix(text, "xauth"); {
	case backend == "" || backend == "-generic" || backend == "-any":
		return nil
	case a.local:
		return v.Errorf("%s is for the side that asks; a client uses xauth", text)
	case backend == "-radius":
		a.EAP = ike.EAPRadius
	case backend == "-eap":
		a.EAP = ike.EAPDynamic
	default:
		return v.Errorf("adit checks XAuth against its secrets (xauth, xauth-generic) or a RADIUS server (xauth-radius with name and password, xauth-eap with an EAP method), not by %q", text)
	}
	return nil
}

// eapMethods are the words after `eap-`.
var eapMethods = map[string]ike.EAPMethod{
	"identity": ike.EAPIdentity, "md5": ike.EAPMD5, "gtc": ike.EAPGTC, "tls": ike.EAPTLS, "ttls": ike.EAPTTLS,
	"mschapv2": ike.EAPMSCHAPv2, "dynamic": ike.EAPDynamic, "radius": ike.EAPRadius,
}

// unbuiltEAP are those of strongSwan that adit has not.
var unbuiltEAP = []string{"otp", "sim", "sim-file", "aka", "aka-3gpp2", "aka-prime", "peap", "tnc", "pt"}

// setEAP reads eap, eap-method and eap-method:constraints.
func setEAP(a *authDraft, v conf.Value, text string) error {
	a.Method = ike.AuthEAP
	name, constraints, constrained := strings.Cut(text, ":")
	if method, ok := strings.CutPrefix(name, "eap-"); ok {
		known := false
		if a.EAP, known = eapMethods[method]; !known {
			if _, err := strconv.ParseUint(strings.SplitN(method, "-", 2)[0], 10, 32); err == nil || slices.Contains(unbuiltEAP, method) {
				return v.Errorf("adit does not support the EAP method %q; these are possible: %s", method, strings.Join(eapWords(), ", "))
			}
			return v.Errorf("unknown EAP method %q; these are possible: %s%s", method, strings.Join(eapWords(), ", "), didYouMean(method, eapWords()))
		}
		if a.local && (a.EAP == ike.EAPRadius || a.EAP == ike.EAPDynamic || a.EAP == ike.EAPIdentity) {
			return v.Errorf("%s is for the side that asks; a client uses eap, or the method itself", name)
		}
	} else if name != "eap" {
		return v.Errorf("unknown authentication %q%s", text, didYouMean(text, []string{"eap"}))
	}
	if constrained {
		if a.EAP != ike.EAPTLS && a.EAP != ike.EAPTTLS && a.EAP != ike.EAPAny && a.EAP != ike.EAPDynamic {
			return v.Errorf("constraints of certificates mean nothing for %s", name)
		}
		return setConstraints(a, v, constraints)
	}
	return nil
}

func eapWords() []string {
	var words []string
	for w := range eapMethods {
		words = append(words, w)
	}
	slices.Sort(words)
	return words
}

// setConstraints keeps key types, strengths and hashes; plain pubkey has none.
func setConstraints(a *authDraft, v conf.Value, text string) error {
	if text == "pubkey" {
		return nil
	}
	if _, err := sig.ParseConstraints(text); err != nil {
		return v.Errorf("%v", err)
	}
	a.Constraints = []string{text}
	return nil
}

// rounds orders the authentication rounds of one side (RFC 4739). A side without a
// section authenticates with a public key, as in strongSwan.
func (d *decoder) rounds(s *conf.Section, side string, list []authDraft) []ike.AuthRound {
	if len(list) == 0 {
		return []ike.AuthRound{{Name: side, Method: ike.AuthPubkey}}
	}
	if len(list) > limitRounds {
		d.failf(list[limitRounds].pos, "%s.%s: more than %d rounds of authentication", s.Path(), list[limitRounds].Name, limitRounds)
	}
	slices.SortStableFunc(list, func(a, b authDraft) int { return cmp.Compare(a.round, b.round) })
	out := make([]ike.AuthRound, len(list))
	for i, a := range list {
		out[i] = a.AuthRound
	}
	return out
}

// belongTogether checks what single options cannot tell.
func (d *decoder) belongTogether(s *conf.Section, p *ike.Peer) {
	check := func(side string, r ike.AuthRound) {
		at := s.Path() + "." + r.Name
		switch r.Method {
		case ike.AuthPSK, ike.AuthEAP:
			if len(r.Pubkeys) > 0 || r.Method == ike.AuthPSK && len(r.Certs)+len(r.CACerts)+len(r.CertPolicies) > 0 {
				d.warn(s.Pos, at+": certificates and keys mean nothing for auth = "+map[ike.AuthMethod]string{ike.AuthPSK: "psk", ike.AuthEAP: "eap"}[r.Method])
			}
		}
		if side == "local" && len(r.Groups)+len(r.CACerts)+len(r.CertPolicies) > 0 || side == "local" && !r.CAID.IsAny() {
			d.warn(s.Pos, at+": groups, cacerts, ca_id and cert_policy are constraints on the remote side and have no effect here")
		}
		if r.Method == ike.AuthXAuth && p.Version != 1 {
			d.failf(s.Pos, "%s: XAuth belongs to IKEv1: version = 1, or eap-mschapv2", at)
		}
		if r.Method != ike.AuthEAP && r.Method != ike.AuthXAuth && (r.EAPAsk || !r.EAPID.IsAny() || !r.AAAID.IsAny()) {
			d.warn(s.Pos, at+": eap_id and aaa_id have no effect without auth = eap")
		}
	}
	for _, r := range p.Local {
		check("local", r)
	}
	for _, r := range p.Remote {
		check("remote", r)
		if r.Method == ike.AuthEAP && r.EAP == ike.EAPRadius && len(d.daemon.RADIUS) == 0 {
			d.warn(s.Pos, s.Path()+"."+r.Name+": auth = eap-radius, but strongswan.conf has no charon.plugins.eap-radius server")
		}
	}
}
