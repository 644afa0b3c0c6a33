package interop_test

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
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
		name, auth       string
		key, ca          pkitest.KeyKind
		pss              bool   // the authority signs with RSASSA-PSS
		scheme, old, rsa string // of AUTH: by RFC 7427, by the methods of before, with rsa_pss = yes
	}{
		{"rsa", "pubkey", pkitest.RSA2048, pkitest.RSA2048, false, "RSA_EMSA_PKCS1_SHA2_256", "RSA_EMSA_PKCS1_SHA1", "RSA_EMSA_PSS_SHA2_256_SALT_32"},
		{"rsa3072", "rsa-3072", pkitest.RSA3072, pkitest.RSA3072, true, "RSA_EMSA_PKCS1_SHA2_", "RSA_EMSA_PKCS1_SHA1", "RSA_EMSA_PSS_SHA2_"},
		{"rsa-sha512", "pubkey-ike:rsa-sha512", pkitest.RSA2048, pkitest.RSA2048, false, "RSA_EMSA_PKCS1_SHA2_512", "", ""},
		{"pss", "pubkey-ike:rsa/pss-sha256", pkitest.RSA2048, pkitest.RSA2048, true, "RSA_EMSA_PSS_SHA2_256_SALT_32", "", ""},
		{"pss512", "ike:rsa/pss-sha512", pkitest.RSA2048, pkitest.RSA2048, false, "RSA_EMSA_PSS_SHA2_512_SALT_64", "", ""},
		{"p256", "pubkey", pkitest.P256, pkitest.P256, false, "ECDSA_WITH_SHA256_DER", "ECDSA-256", ""},
		{"p384", "pubkey", pkitest.P384, pkitest.P384, false, "ECDSA_WITH_SHA384_DER", "ECDSA-384", ""},
		{"p521", "pubkey", pkitest.P521, pkitest.P521, false, "ECDSA_WITH_SHA512_DER", "ECDSA-521", ""},
		{"p256rsa", "pubkey", pkitest.P256, pkitest.RSA2048, false, "ECDSA_WITH_SHA256_DER", "ECDSA-256", ""},
		{"ed25519", "pubkey", pkitest.Ed25519, pkitest.Ed25519, false, "ED25519", "", ""},
		{"ed25519rsa", "pubkey", pkitest.Ed25519, pkitest.RSA2048, false, "ED25519", "", ""},
		{"ed448", "pubkey", pkitest.Ed448, pkitest.Ed448, false, "ED448", "", ""},
		{"ed448rsa", "pubkey", pkitest.Ed448, pkitest.RSA2048, false, "ED448", "", ""},
	}
	duos := make([]duo, len(kinds))
	for i, k := range kinds {
		duos[i] = issued(t, k.name, k.ca, k.key)
		if k.pss {
			for _, e := range []**pkitest.Entity{&duos[i].left, &duos[i].right} {
				*e = duos[i].ca.Issue(pkitest.Spec{Name: "PSS " + k.name, DNS: (*e).Cert.X509.DNSNames, Key: k.key, PSS: true})
			}
		}
	}
	const modern, fixed, pss = 0, 1, 2
	run := func(p *path, variant int) {
		t := p.t
		left, right := p.ends(false)
		var ls, rs []site
		lf, rf := files{}, files{}
		var names []string
		scheme := map[string]string{}
		for i, k := range kinds {
			want := [...]string{k.scheme, k.old, k.rsa}[variant]
			if want == "" {
				continue
			}
			names, scheme[k.name] = append(names, k.name), want
			one := func(f files, e *pkitest.Entity, id, peerID string) site {
				maps.Copy(f, owned(k.name, e))
				f["x509ca/"+k.name+".pem"] = duos[i].ca.PEM()
				return site{name: k.name,
					local:  fmt.Sprintf("auth = %s\ncerts = %s.pem\nid = %s.%s.example.org", k.auth, k.name, id, k.name),
					remote: fmt.Sprintf("auth = %s\nid = %s.%s.example.org", k.auth, peerID, k.name)}
			}
			ls, rs = append(ls, one(lf, duos[i].left, "l", "r")), append(rs, one(rf, duos[i].right, "r", "l"))
		}
		p.give(setting{lf, left.with("", ls...)}, setting{rf, right.with("", rs...)})
		for _, n := range names {
			m := p.mark()
			l, r := p.reach(t, n)
			if l.RemoteID != "r."+n+".example.org" || r.RemoteID != "l."+n+".example.org" || r.Name != n {
				t.Errorf("%s: left has %s, right %s with %s", n, l.RemoteID, r.Name, r.RemoteID)
			}
			ll, rl := m.since()
			p.says(t, p.left, ll, scheme[n])
			p.says(t, p.right, rl, scheme[n])
		}
		p.facts["keys"] = strings.Join(names, ",")
	}
	t.Run("rfc7427", func(t *testing.T) {
		across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) { run(p, modern) })
	})
	t.Run("rsa_pss", func(t *testing.T) {
		across(t, settings{middle: lab.Bridge, charon: "rsa_pss = yes\n"}, func(t *testing.T, p *path) { run(p, pss) })
	})
	const off = "signature_authentication = no\n"
	t.Run("fixed", func(t *testing.T) {
		across(t, settings{middle: lab.Bridge, charon: off}, func(t *testing.T, p *path) { run(p, fixed) })
	})
	t.Run("peer_without_rfc7427", func(t *testing.T) {
		among(t, []pair{{adit, strongSwan}, {strongSwan, adit}}, settings{middle: lab.Bridge, strongSwan: off}, func(t *testing.T, p *path) { run(p, fixed) })
	})
}

// Of several certificates for an identity that one is taken whose authority the peer
// asks for (RFC 7296 §3.7).
func TestCertRequest(t *testing.T) {
	t.Parallel()
	one, two := pkitest.NewCA(t, pkitest.Spec{Name: "CA one"}), pkitest.NewCA(t, pkitest.Spec{Name: "CA two"})
	cas := []*pkitest.Entity{one, two}
	twice := func(id string) files {
		return owned("a", leaf(one, id, pkitest.Spec{})).and(owned("b", leaf(two, id, pkitest.Spec{}))).and(trusted(cas...))
	}
	lf, rf := twice(leftID), twice(rightID)
	var trials []trial
	for i, ca := range cas {
		// strongSwan asks for all that it knows as responder, so that is one here.
		c := usual(fmt.Sprint("initiator has two, asked for ", i), one, leaf(ca, rightID, pkitest.Spec{}), "", "", ca)
		c.left.files, c.left.local = lf, "auth = pubkey\nid = "+leftID
		trials = append(trials, c)
		c = usual(fmt.Sprint("responder has two, asked for ", i), leaf(one, leftID, pkitest.Spec{}), one, fmt.Sprintf("cacerts = ca%d.pem", i), "", cas...)
		c.right.files, c.right.local = rf, "auth = pubkey\nid = "+rightID
		trials = append(trials, c)
	}
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) { p.tries(trials) })
}

// Raw public keys on both sides, without any certificate (strongSwan's pubkeys).
// Two adits also send theirs (RFC 7670 §3).
func TestRawPublicKeys(t *testing.T) {
	t.Parallel()
	var trials []trial
	for _, kind := range []pkitest.KeyKind{pkitest.RSA2048, pkitest.P256, pkitest.P384, pkitest.Ed25519, pkitest.Ed448} {
		left := pkitest.NewSelfSigned(t, pkitest.Spec{Key: kind})
		right := pkitest.NewSelfSigned(t, pkitest.Spec{Key: kind})
		other := pkitest.NewSelfSigned(t, pkitest.Spec{Key: kind})
		side := func(mine, peer *pkitest.Entity, id, peerID string) end {
			return end{files: files{"private/mine.pem": mine.KeyPEM(), "pubkey/mine.pem": mine.PublicPEM(), "pubkey/peer.pem": peer.PublicPEM()},
				local: "auth = pubkey\npubkeys = mine.pem\nid = " + id, remote: "auth = pubkey\npubkeys = peer.pem\nid = " + peerID,
				extra: "send_cert = always\n"}
		}
		trials = append(trials, trial{name: string(kind), left: side(left, right, leftID, rightID), right: side(right, left, rightID, leftID), check: shows(leftID, rightID)})
		if kind == pkitest.P256 {
			trials = append(trials,
				trial{name: "another key", left: side(left, right, leftID, rightID), right: side(right, other, rightID, leftID)}.refusedAtRight("raw public key"),
				trial{name: "responder's another key", left: side(left, other, leftID, rightID), right: side(right, left, rightID, leftID)}.refusedAtLeft("raw public key"))
		}
	}
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		p.tries(trials)
		if !strings.HasPrefix(p.left.Name(), "adit") {
			return
		}
		l, r := p.ends(false)
		one := trials[0]
		p.give(setting{one.left.files, l.with("", site{name: "net", local: one.left.local, remote: one.left.remote, extra: one.left.extra})},
			setting{one.right.files, r.with("", site{name: "net", local: one.right.local, remote: one.right.remote, extra: one.right.extra})})
		out, err := p.left.Swanctl("--initiate", "--child", "net")
		if err != nil || !strings.Contains(out, "IDi CERT ") {
			t.Errorf("no CERT in IKE_AUTH: %v\n%s", err, out)
		}
	})
}

// Both ends know the root alone; the intermediates come from a fullchain.pem (adit
// reads every certificate of it) or from strongSwan's x509ca, and by the peer.
func TestCertChains(t *testing.T) {
	t.Parallel()
	root := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	sub := root.IssueCA(pkitest.Spec{Name: "intermediate"})
	subsub := sub.IssueCA(pkitest.Spec{Name: "issuing", Key: pkitest.P384})
	other := root.IssueCA(pkitest.Spec{Name: "other intermediate"})
	left := subsub.Issue(pkitest.Spec{Name: "left", DNS: []string{leftID}})
	right := other.Issue(pkitest.Spec{Name: "right", DNS: []string{rightID}})
	leftSubs := files{"x509ca/sub.pem": sub.PEM(), "x509ca/subsub.pem": subsub.PEM()}
	rightSubs := files{"x509ca/other.pem": other.PEM()}
	side := func(e *pkitest.Entity, id, peerID, more string, f files) end {
		return end{files: files{"x509/chain.pem": e.ChainPEM(), "private/key.pem": e.KeyPEM(), "x509ca/root.pem": root.PEM()}.and(f),
			local: "auth = pubkey\ncerts = chain.pem\nid = " + id, remote: "auth = pubkey\nid = " + peerID + "\n" + more}
	}
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		// strongSwan reads the first certificate of a file alone.
		unlessAdit := func(g peer.Gateway, f files) files {
			if strings.HasPrefix(g.Name(), "adit") {
				return nil
			}
			return f
		}
		bare := side(left, leftID, rightID, "", nil)
		bare.files["x509/chain.pem"] = left.PEM()
		p.tries([]trial{
			{name: "fullchain", left: side(left, leftID, rightID, "", unlessAdit(p.left, leftSubs)), right: side(right, rightID, leftID, "", unlessAdit(p.right, rightSubs)), check: shows(leftID, rightID)},
			{name: "x509ca", left: side(left, leftID, rightID, "", leftSubs), right: side(right, rightID, leftID, "", rightSubs), check: shows(leftID, rightID)},
			{name: "cacerts is an intermediate", left: side(left, leftID, rightID, "", leftSubs), right: side(right, rightID, leftID, "cacerts = sub.pem", rightSubs.and(files{"x509ca/sub.pem": sub.PEM()}))},
			trial{name: "another intermediate", left: side(left, leftID, rightID, "", leftSubs), right: side(right, rightID, leftID, "cacerts = other.pem", rightSubs)}.
				refusedAtRight("not issued by a CA that is asked for"),
			trial{name: "no intermediate", left: bare, right: side(right, rightID, leftID, "", rightSubs)}.refusedAtRight("no trusted issuer"),
		})
	})
}

// A chain with keys of 4096 bits passes a path of 1280 octets, in IKE's own
// fragments (RFC 7383), and in those of 576 octets where that is set.
func TestLargeChain(t *testing.T) {
	t.Parallel()
	key := func() *rsa.PrivateKey {
		k, err := rsa.GenerateKey(rand.Reader, 4096)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	root := pkitest.NewCA(t, pkitest.Spec{Name: "root", Signer: key()})
	sub := root.IssueCA(pkitest.Spec{Name: "intermediate", Signer: key()})
	k := key() // who owns it does not matter here
	left := sub.Issue(pkitest.Spec{Name: "left", DNS: []string{leftID}, Signer: k})
	right := sub.Issue(pkitest.Spec{Name: "right", DNS: []string{rightID}, Signer: k})
	side := func(e *pkitest.Entity, id, peerID string) end {
		return end{files: files{"x509/chain.pem": e.ChainPEM(), "private/key.pem": e.KeyPEM(), "x509ca/root.pem": root.PEM(), "x509ca/sub.pem": sub.PEM()},
			local: "auth = pubkey\ncerts = chain.pem\nid = " + id, remote: "auth = pubkey\nid = " + peerID}
	}
	for _, c := range []struct {
		name  string
		limit int // fragment_size, 0: the default
		v6    bool
	}{{"1280", 0, false}, {"1280_v6", 0, true}, {"576", 576, false}} {
		t.Run(c.name, func(t *testing.T) {
			s := settings{middle: lab.Bridge, mtu: 1280}
			if c.limit != 0 {
				s.charon = fmt.Sprintf("fragment_size = %d\n", c.limit)
			}
			across(t, s, func(t *testing.T, p *path) {
				p.v6 = c.v6
				p.tries([]trial{{name: "chain", left: side(left, leftID, rightID), right: side(right, rightID, leftID)}})
				limit := cmp.Or(c.limit, 1280)
				next := 20 + 8 + 4 + 16 // the type of the first payload, behind IP, UDP and the non-ESP marker
				if c.v6 {
					next += 20
				}
				fragments := 0
				p.outside.Count(func(k *lab.Packet) bool {
					if k.Class == lab.ClassFragment || k.Class == lab.ClassIKE && k.Len > limit {
						t.Errorf("a packet of %d octets, class %d", k.Len, k.Class)
					}
					if k.Class == lab.ClassIKE && len(k.Bytes) > next && k.DstPort == 4500 && k.Bytes[next] == 53 {
						fragments++
					}
					return false
				})
				if fragments < 4 {
					t.Errorf("%d IKE fragments", fragments)
				}
				p.facts["fragments"] = fmt.Sprint(fragments)
			})
		})
	}
}

// Two rounds of either side (RFC 4739), and methods that differ between the sides.
func TestAuthRounds(t *testing.T) {
	t.Parallel()
	d := issued(t, "rounds", pkitest.P256, pkitest.P256)
	second := d.ca.Issue(pkitest.Spec{Name: "left again", DNS: []string{"again.example.org"}, Key: pkitest.RSA2048})
	psk := func(key string) string {
		return "secrets {\nike-x {\nid-1 = " + leftID + "\nid-2 = " + rightID + "\nsecret = \"" + key + "\"\n}\n}\n"
	}
	const lid, rid = "l.rounds.example.org", "r.rounds.example.org"
	round := func(which, auth, id string) string { return which + " {\nauth = " + auth + "\nid = " + id + "\n}\n" }
	start := func(leftRounds, rightRounds, key string) (left, right end) {
		left, right = d.ends("id = "+lid, "id = "+rid, "id = "+rid, "id = "+lid)
		left.files = left.files.and(owned("again", second))
		left.rounds, right.rounds, left.top, right.top = leftRounds, rightRounds, psk("a key"), psk(key)
		return left, right
	}
	var trials []trial
	add := func(name, leftRounds, rightRounds, key string, edit func(trial) trial) {
		l, r := start(leftRounds, rightRounds, key)
		c := trial{name: name, left: l, right: r}
		if edit != nil {
			c = edit(c)
		}
		trials = append(trials, c)
	}
	again := "local-2 {\nauth = pubkey\ncerts = again.pem\nid = again.example.org\n}\n"
	add("certificate, then key", round("local-2", "psk", leftID)+round("remote-2", "psk", rightID), round("local-2", "psk", rightID)+round("remote-2", "psk", leftID), "a key", nil)
	add("initiator alone", again, round("remote-2", "pubkey", "again.example.org"), "a key", nil)
	add("second key differs", round("local-2", "psk", leftID)+round("remote-2", "psk", rightID), round("local-2", "psk", rightID)+round("remote-2", "psk", leftID), "another key",
		func(c trial) trial { return c.refusedAtRight("shared keys differ") })
	add("second certificate is not who", again, round("remote-2", "pubkey", "somebody.example.org"), "a key",
		func(c trial) trial { return c.refusedAtRight("again.example.org") })
	add("second round missing", "", round("remote-2", "psk", leftID), "a key", func(c trial) trial { return c.refusedAtRight("rounds of authentication") })
	add("round too many", again, "", "a key", func(c trial) trial { return c.refusedAtRight("rounds of authentication") })

	mixed := func(name string, left, right string) trial {
		l, r := d.ends(left, right, right, left)
		l.top, r.top = psk("a key"), psk("a key")
		return trial{name: name, left: l, right: r}
	}
	trials = append(trials,
		mixed("key, answered by certificate", "auth = psk\nid = "+leftID, "id = "+rid),
		mixed("certificate, answered by key", "id = "+lid, "auth = psk\nid = "+rightID))
	for i := range trials[len(trials)-2:] { // the shared key is of the two names in use
		c := &trials[len(trials)-2+i]
		c.left.top = strings.NewReplacer("id-2 = "+rightID, "id-2 = "+map[int]string{0: rid, 1: rightID}[i], "id-1 = "+leftID, "id-1 = "+map[int]string{0: leftID, 1: lid}[i]).Replace(c.left.top)
		c.right.top = c.left.top
	}
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) { p.tries(trials) })
}

// Rekeys and reauthentications of SAs that certificates proved, from either side.
func TestCertReauthentication(t *testing.T) {
	t.Parallel()
	d := issued(t, "reauth", pkitest.P256, pkitest.Ed25519)
	l, r := d.ends("id = l.reauth.example.org", "id = r.reauth.example.org", "id = r.reauth.example.org", "id = l.reauth.example.org")
	across(t, settings{middle: lab.Bridge, charon: "make_before_break = yes\n"}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		p.give(setting{l.files, left.with("", site{name: "gw", local: l.local, remote: l.remote})},
			setting{r.files, right.with("", site{name: "gw", local: r.local, remote: r.remote})})
		was, _ := p.established(t, "gw")
		for _, g := range []peer.Gateway{p.left, p.right} {
			if _, err := g.Swanctl("--rekey", "--ike", "gw", "--reauth"); err != nil {
				t.Fatal(err)
			}
			p.wait("another IKE SA with a child", p.left, func(s []peer.SA) bool {
				e := peer.Established(s, "gw")
				return len(s) == 1 && len(e) == 1 && e[0].InitiatorSPI != was.InitiatorSPI && len(peer.Installed(s, "gw")) == 1
			})
			was = p.sas(p.left)[0]
			if err := p.WaitPing(lab.LeftHost, p.R.Host4, 5*time.Second); err != nil {
				t.Error(err)
			}
		}
	})
}
