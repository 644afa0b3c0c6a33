package config

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"adit/conf"
	"adit/ike"
	"adit/suite"
)

// weakSecret is the length in bytes below which a pre-shared key is warned about:
// whoever sees one exchange as an active attacker can try keys offline (CVE-2018-5389).
const weakSecret = 16

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

// decodeSecret decodes a section of `secrets` in a file; it returns false for a
// name that has no meaning.
func (d *decoder) decodeSecret(m *Model, s *conf.Section) bool {
	kinds := []string{"eap", "xauth", "ntlm", "ike", "ppk", "private", "rsa", "ecdsa", "pkcs8", "pkcs12", "token"}
	i := slices.IndexFunc(kinds, func(k string) bool { return strings.HasPrefix(s.Name, k) })
	if i < 0 {
		return false
	}
	switch kind := kinds[i]; kind {
	case "ppk":
		d.failf(s.Pos, "%s: adit does not support post-quantum pre-shared keys yet", s.Path())
	case "token":
		d.failf(s.Pos, "%s: adit does not support tokens", s.Path())
	case "eap", "xauth": // the same to strongSwan
		m.Secrets = append(m.Secrets, d.decodeShared(s, SecretEAP))
	case "ntlm", "ike":
		m.Secrets = append(m.Secrets, d.decodeShared(s, SecretKind(kind)))
	default:
		d.decodePassphrase(s, kind)
	}
	return true
}

func (d *decoder) decodeShared(s *conf.Section, kind SecretKind) Secret {
	out := Secret{ID: s.Name, Kind: kind, Pos: s.Pos}
	before := len(d.errs)
	for v := range s.Values() {
		switch {
		case v.Key == "secret":
			key, err := secretBytes(v)
			d.fail(err)
			out.Key = key
		case strings.HasPrefix(v.Key, "id"):
			id, err := ike.ParseIdentity(v.Text)
			if err != nil {
				d.fail(v.Errorf("%v", err))
			}
			if len(out.Owners) == limitOwners {
				d.fail(v.Errorf("more than %d identities of one secret", limitOwners))
				return out
			}
			out.Owners = append(out.Owners, id)
		default:
			d.failf(v.Pos, "%s: unknown option%s", v.Path(), didYouMean(v.Key, []string{"secret", "id"}))
		}
	}
	sections(d, s, nil, func(*conf.Section) bool { return false })
	switch {
	case len(d.errs) > before:
	case len(out.Key) == 0:
		d.failf(s.Pos, "%s: there is no secret in it", s.Path())
	case kind == SecretNTLM && len(out.Key) != ntHash:
		d.failf(s.Pos, "%s: an NT hash has %d bytes, as hexadecimal digits after 0x, and not %d", s.Path(), ntHash, len(out.Key))
	case kind == SecretIKE && len(out.Key) < weakSecret && guessBits(out.Key) < weakBits:
		d.warn(s.Pos, fmt.Sprintf("%s: a secret of %d bytes can be guessed by an active attacker; use %d random ones or more", s.Path(), len(out.Key), weakSecret))
	}
	return out
}

// decodePassphrase decodes a section private*, rsa*, ecdsa*, pkcs8* or pkcs12*.
func (d *decoder) decodePassphrase(s *conf.Section, dir string) {
	p := passphrase{dir: dir, pos: s.Pos, path: s.Path()}
	for v := range s.Values() {
		switch {
		case v.Key == "file":
			p.file = v.Text
		case strings.HasPrefix(v.Key, "secret") && len(p.secrets) < limitPhrases:
			text, err := v.One()
			d.fail(err)
			p.secrets = append(p.secrets, suite.Key(text)) // as it stands: no 0x, no 0s
		default:
			d.failf(v.Pos, "%s: unknown option%s", v.Path(), didYouMean(v.Key, []string{"secret", "file"}))
		}
	}
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
	case "ike", "ntlm":
		s.Kind = SecretKind(kind)
	case "eap", "xauth":
		s.Kind = SecretEAP
	case "ppk":
		return Secret{}, fmt.Errorf("adit does not support ppk secrets yet")
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
