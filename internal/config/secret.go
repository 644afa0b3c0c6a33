package config

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"adit/conf"
	"adit/ike"
	"adit/suite"
)

// weakSecret is the length in bytes below which a pre-shared key is warned about:
// whoever sees one exchange as an active attacker can try keys offline (CVE-2018-5389).
const weakSecret = 16

// strongPPK is the length in bytes that RFC 8784 §6 asks of a PPK: 256 bits.
const strongPPK = 32

// Limits of secrets. ntHash is the length of an NT hash.
const (
	limitOwners      = 256 // identities of one secret
	limitSecretBytes = 4096
	limitPhrases     = 64 // passphrases for one file
	ntHash           = 16
)

// keyDirs are the directories of private keys, which are also the names of the
// sections of their passphrases.
var keyDirs = []string{"private", "rsa", "ecdsa", "pkcs8", "pkcs12"}

// passphrase is a section of `secrets` that opens files.
type passphrase struct {
	dir, file string
	secrets   []suite.Key
	pos       conf.Pos
	path      string
	used      bool
}

// secretSections are the sections of `secrets` by what their names begin with.
var secretSections = []option[Model]{
	{name: "ike*", set: checked[Model](conf.Value.One), note: "a pre-shared key"},
	{name: "eap*", set: checked[Model](conf.Value.One), note: "a password for EAP"},
	{name: "xauth*", set: checked[Model](conf.Value.One), note: "the same as `eap`, as in strongSwan"},
	{name: "ntlm*", set: checked[Model](conf.Value.One), note: "the NT hash of a password, for EAP-MSCHAPv2"},
	{name: "private*", set: checked[Model](conf.Value.One), note: "passphrases of a file in `private`"},
	{name: "rsa*", set: checked[Model](conf.Value.One), note: "passphrases of a file in `rsa`"},
	{name: "ecdsa*", set: checked[Model](conf.Value.One), note: "passphrases of a file in `ecdsa`"},
	{name: "pkcs8*", set: checked[Model](conf.Value.One), note: "passphrases of a file in `pkcs8`"},
	{name: "pkcs12*", set: checked[Model](conf.Value.One), note: "passphrases of a file in `pkcs12`"},
	{name: "ppk*", set: checked[Model](conf.Value.One), note: "a post-quantum preshared key ([PPK](post-quantum.md#ppk)); its identities are those of `ppk_id`"},
	{name: "token*", note: "adit does not support tokens: keys lie in files"},
}

// sharedOptions are the values of a secret that both sides have.
var sharedOptions = []option[Secret]{
	{name: "secret", note: "text, `0x…` hexadecimal or `0s…` Base64", set: into(func(s *Secret) *suite.Key { return &s.Key }, secretBytes)},
	{name: "id*", note: "whose it is; any number of them, none: everybody’s", set: func(_ *decoder, s *Secret, v conf.Value) error {
		id, err := ike.ParseIdentity(v.Text)
		if err != nil {
			return v.Errorf("%v", err)
		}
		if len(s.Owners) == limitOwners {
			return v.Errorf("more than %d identities of one secret", limitOwners)
		}
		s.Owners = append(s.Owners, id)
		return nil
	}},
}

// phraseOptions are the values of a section that opens files.
var phraseOptions = []option[passphrase]{
	{name: "file", note: "its name in the directory", set: into(func(p *passphrase) *string { return &p.file }, conf.Value.One)},
	{name: "secret*", note: "a passphrase, always text; any number of them", set: func(_ *decoder, p *passphrase, v conf.Value) error {
		text, err := v.One()
		if err == nil && len(p.secrets) == limitPhrases {
			err = v.Errorf("more than %d passphrases of one file", limitPhrases)
		}
		p.secrets = append(p.secrets, suite.Key(text)) // as it stands: no 0x, no 0s
		return err
	}},
}

// decodeSecret decodes a section of `secrets` in a file; it returns false for a
// name that has no meaning.
func (d *decoder) decodeSecret(m *Model, s *conf.Section) bool {
	o := lookup(secretSections, s.Name)
	if o == nil {
		return false
	}
	switch kind := strings.TrimSuffix(o.name, "*"); kind {
	case "token":
		d.failf(s.Pos, "%s: %s", s.Path(), o.reason())
	case "eap", "xauth": // the same to strongSwan
		m.Secrets = append(m.Secrets, d.decodeShared(s, SecretEAP))
	case "ntlm", "ike", "ppk":
		m.Secrets = append(m.Secrets, d.decodeShared(s, SecretKind(kind)))
	default:
		d.decodePassphrase(s, kind)
	}
	return true
}

func (d *decoder) decodeShared(s *conf.Section, kind SecretKind) Secret {
	out := Secret{ID: s.Name, Kind: kind, Pos: s.Pos}
	before := len(d.errs)
	values(d, s, &out, sharedOptions)
	sections(d, s, nil, func(*conf.Section) bool { return false })
	switch {
	case len(d.errs) > before:
	case len(out.Key) == 0:
		d.failf(s.Pos, "%s: there is no secret in it", s.Path())
	case kind == SecretNTLM && len(out.Key) != ntHash:
		d.failf(s.Pos, "%s: an NT hash has %d bytes, as hexadecimal digits after 0x, and not %d", s.Path(), ntHash, len(out.Key))
	case kind == SecretPPK && len(out.Key) < strongPPK:
		d.warn(s.Pos, fmt.Sprintf("%s: a post-quantum preshared key of %d bytes; against a quantum computer use %d random ones or more", s.Path(), len(out.Key), strongPPK))
	case kind == SecretIKE && len(out.Key) < weakSecret && guessBits(out.Key) < weakBits:
		d.warn(s.Pos, fmt.Sprintf("%s: a secret of %d bytes can be guessed by an active attacker; use %d random ones or more", s.Path(), len(out.Key), weakSecret))
	}
	return out
}

// decodePassphrase decodes a section private*, rsa*, ecdsa*, pkcs8* or pkcs12*.
func (d *decoder) decodePassphrase(s *conf.Section, dir string) {
	p := passphrase{dir: dir, pos: s.Pos, path: s.Path()}
	values(d, s, &p, phraseOptions)
	sections(d, s, nil, func(*conf.Section) bool { return false })
	if p.file == "" || len(p.secrets) == 0 {
		d.failf(s.Pos, "%s: needs a file and its secret", s.Path())
		return
	}
	d.phrases = append(d.phrases, p)
}

// secretBytes reads a secret: 0x… hexadecimal, 0s… Base64, anything else as it stands.
func secretBytes(v conf.Value) (suite.Key, error) {
	text, err := v.One()
	if err != nil {
		return nil, err
	}
	if len(text) > limitSecretBytes {
		return nil, v.Errorf("a secret of more than %d bytes", limitSecretBytes)
	}
	if h, ok := strings.CutPrefix(text, "0x"); ok {
		b, err := hex.DecodeString(h)
		if err != nil {
			return nil, v.Errorf("0x is not followed by hexadecimal digits")
		}
		return b, nil
	}
	if b64, ok := strings.CutPrefix(text, "0s"); ok {
		b, err := base64.StdEncoding.DecodeString(b64)
		if err != nil {
			return nil, v.Errorf("0s is not followed by Base64")
		}
		return b, nil
	}
	return suite.Key(text), nil
}

// DecodeSecret decodes the body of VICI's load-shared.
func DecodeSecret(body *conf.Section) (Secret, error) {
	s := Secret{ID: body.Text("id"), Key: suite.Key(body.Text("data"))}
	switch kind := strings.ToLower(body.Text("type")); kind {
	case "":
		return Secret{}, fmt.Errorf("shared key type missing")
	case "ike", "ntlm", "ppk":
		s.Kind = SecretKind(kind)
	case "eap", "xauth":
		s.Kind = SecretEAP
	default:
		return Secret{}, fmt.Errorf("invalid shared key type: %s", body.Text("type"))
	}
	switch {
	case len(s.Key) == 0:
		return Secret{}, fmt.Errorf("shared key data missing")
	case len(s.Key) > limitSecretBytes:
		return Secret{}, fmt.Errorf("shared key data of more than %d bytes", limitSecretBytes)
	case s.Kind == SecretNTLM && len(s.Key) != ntHash:
		return Secret{}, fmt.Errorf("an NT hash has %d bytes, not %d", ntHash, len(s.Key))
	}
	if v, ok := body.Get("owners"); ok {
		for _, o := range v.Strings() {
			id, err := ike.ParseIdentity(o)
			if err != nil || len(s.Owners) == limitOwners {
				return Secret{}, fmt.Errorf("parsing shared key owners failed")
			}
			if !id.IsAny() {
				s.Owners = append(s.Owners, id)
			}
		}
	}
	return s, nil
}
