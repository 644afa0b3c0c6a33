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

// limitOwners bounds the identities of one secret.
const limitOwners = 256

// decodeSecret decodes a section of `secrets` in a file.
func (d *decoder) decodeSecret(s *conf.Section) (Secret, bool) {
	for _, kind := range []string{"eap", "xauth", "ntlm", "ppk", "private", "rsa", "ecdsa", "pkcs8", "pkcs12", "token"} {
		if strings.HasPrefix(s.Name, kind) {
			d.failf(s.Pos, "%s: adit does not support %s secrets yet", s.Path(), kind)
			return Secret{}, true
		}
	}
	if !strings.HasPrefix(s.Name, "ike") {
		return Secret{}, false
	}
	out := Secret{ID: s.Name, Pos: s.Pos}
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
			if len(out.Owners) < limitOwners {
				out.Owners = append(out.Owners, id)
			}
		default:
			d.failf(v.Pos, "%s: unknown option%s", v.Path(), didYouMean(v.Key, []string{"secret", "id"}))
		}
	}
	sections(d, s, nil, func(*conf.Section) bool { return false })
	if len(out.Key) == 0 {
		d.failf(s.Pos, "%s: there is no secret in it", s.Path())
	} else if len(out.Key) < weakSecret {
		d.warn(s.Pos, fmt.Sprintf("%s: a secret of %d bytes can be guessed by an active attacker; use %d random ones or more", s.Path(), len(out.Key), weakSecret))
	}
	return out, true
}

// secretBytes reads a secret: 0x… hexadecimal, 0s… Base64, anything else as it stands.
func secretBytes(v conf.Value) (suite.Key, error) {
	text, err := v.One()
	if err != nil {
		return nil, err
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
	kind := body.Text("type")
	switch strings.ToLower(kind) {
	case "":
		return Secret{}, fmt.Errorf("shared key type missing")
	case "ike":
	case "eap", "xauth", "ntlm", "ppk":
		return Secret{}, fmt.Errorf("adit does not support %s secrets yet", kind)
	default:
		return Secret{}, fmt.Errorf("invalid shared key type: %s", kind)
	}
	s := Secret{ID: body.Text("id"), Key: suite.Key(body.Text("data"))}
	if len(s.Key) == 0 {
		return s, fmt.Errorf("shared key data missing")
	}
	if v, ok := body.Get("owners"); ok {
		for _, o := range v.Strings() {
			id, err := ike.ParseIdentity(o)
			if err != nil || len(s.Owners) == limitOwners {
				return s, fmt.Errorf("parsing shared key owners failed")
			}
			if !id.IsAny() {
				s.Owners = append(s.Owners, id)
			}
		}
	}
	return s, nil
}
