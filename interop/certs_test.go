package interop_test

import (
	"fmt"
	"strings"
	"testing"

	"adit/interop/lab"
	"adit/pki/pkitest"
)

// duo are both ends' certificates and their authority.
type duo struct{ ca, left, right *pkitest.Entity }

// issued is an authority with a certificate for either end's usual identity.
func issued(t *testing.T, name string, ca, entity pkitest.KeyKind) duo {
	root := pkitest.NewCA(t, pkitest.Spec{Name: "CA " + name, Key: ca})
	return duo{root,
		root.Issue(pkitest.Spec{Name: "left " + name, DNS: []string{"l." + name + ".example.org"}, Key: entity}),
		root.Issue(pkitest.Spec{Name: "right " + name, DNS: []string{"r." + name + ".example.org"}, Key: entity}),
	}
}

// Every kind of key signs AUTH, by RFC 7427 and, where charon is told not to know
// it, by the methods of before; under authorities with keys of its kind and of RSA.
func TestCertKeys(t *testing.T) {
	t.Parallel()
	kinds := []struct {
		name, auth string
		key, ca    pkitest.KeyKind
		scheme     string // what adit logs
		old        bool   // it has a fixed method
	}{
		{"rsa", "pubkey", pkitest.RSA2048, pkitest.RSA2048, "", true},
		{"rsa-sha512", "pubkey-ike:rsa-sha512", pkitest.RSA2048, pkitest.RSA2048, "RSA_EMSA_PKCS1_SHA2_512", false},
		{"pss", "pubkey-ike:rsa/pss-sha256", pkitest.RSA2048, pkitest.RSA2048, "RSA_EMSA_PSS_SHA2_256_SALT_32", false},
		{"pss512", "ike:rsa/pss-sha512", pkitest.RSA2048, pkitest.RSA2048, "RSA_EMSA_PSS_SHA2_512_SALT_64", false},
		{"p256", "pubkey", pkitest.P256, pkitest.P256, "", true},
		{"p384", "pubkey", pkitest.P384, pkitest.P384, "", true},
		{"p521", "pubkey", pkitest.P521, pkitest.P521, "", true},
		{"p256rsa", "pubkey", pkitest.P256, pkitest.RSA2048, "", true},
		{"ed25519", "pubkey", pkitest.Ed25519, pkitest.Ed25519, "", false},
		{"ed25519rsa", "pubkey", pkitest.Ed25519, pkitest.RSA2048, "", false},
		{"ed448", "pubkey", pkitest.Ed448, pkitest.Ed448, "", false},
		{"ed448rsa", "pubkey", pkitest.Ed448, pkitest.RSA2048, "", false},
	}
	duos := make([]duo, len(kinds))
	for i, k := range kinds {
		duos[i] = issued(t, k.name, k.ca, k.key)
	}
	sites := func(old, left bool) (list []site, names []string, f files) {
		f = files{}
		for i, k := range kinds {
			if old && !k.old {
				continue
			}
			d, mine, mineID, otherID := duos[i], duos[i].left, "l.", "r."
			if !left {
				mine, mineID, otherID = d.right, "r.", "l."
			}
			f = f.and(owned(k.name, mine))
			f["x509ca/"+k.name+".pem"] = d.ca.PEM()
			names = append(names, k.name)
			list = append(list, site{name: k.name,
				local:  fmt.Sprintf("auth = %s\ncerts = %s.pem\nid = %s%s.example.org", k.auth, k.name, mineID, k.name),
				remote: fmt.Sprintf("auth = %s\nid = %s%s.example.org", k.auth, otherID, k.name),
			})
		}
		return list, names, f
	}
	for _, old := range []bool{false, true} {
		name, charon := "rfc7427", ""
		if old {
			name, charon = "fixed", "signature_authentication = no\n"
		}
		t.Run(name, func(t *testing.T) {
			across(t, settings{middle: lab.Bridge, charon: charon}, func(t *testing.T, p *path) {
				left, right := p.ends(false)
				ls, names, lf := sites(old, true)
				rs, _, rf := sites(old, false)
				p.give(setting{lf, left.with("", ls...)}, setting{rf, right.with("", rs...)})
				for i, n := range names {
					m := p.mark()
					l, r := p.reach(t, n)
					if l.RemoteID != "r."+n+".example.org" || r.RemoteID != "l."+n+".example.org" || r.Name != n {
						t.Errorf("%s: left has %s, right %s with %s", n, l.RemoteID, r.Name, r.RemoteID)
					}
					if scheme := kinds[i].scheme; scheme != "" && !old {
						ll, rl := m.since()
						if !strings.Contains(ll+rl, scheme) {
							t.Errorf("%s: no %s in the logs\n%s\n%s", n, scheme, ll, rl)
						}
					}
				}
				p.facts["keys"] = strings.Join(names, ",")
			})
		})
	}
}
