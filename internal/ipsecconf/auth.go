package ipsecconf

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// round is one authentication of one side.
type round struct {
	name   string // of the section
	method string
	line   *Line
	suffix string // 2 for leftauth2 and its like
}

// authenticate translates who proves what to whom.
func (c *conn) authenticate() {
	for _, local := range []bool{true, false} {
		for _, r := range c.rounds(local) {
			c.round(local, r)
		}
	}
	c.line("xauth")
}

// rounds are the authentications of a side, in their order.
func (c *conn) rounds(local bool) []round {
	side, name := c.remote, "remote"
	if local {
		side, name = c.local, "local"
	}
	if c.im.dialect == Libreswan {
		return c.swanRounds(local, side, name)
	}
	first := round{name: name, method: "pubkey"}
	by, byLine := c.word("authby")
	first.line = byLine
	xauth := false
	switch by {
	case "", "pubkey", "rsasig", "ecdsasig", "rsa", "ecdsa":
	case "psk", "secret":
		first.method = "psk"
	case "xauthpsk":
		first.method, xauth = "psk", true
	case "xauthrsasig":
		xauth = true
	case "never":
		c.drop(byLine, refused, "only a passthrough or drop connection has no authentication")
	default:
		c.drop(byLine, refused, fmt.Sprintf("%q is no authentication", clip(by)))
		c.fail("authby=" + clip(by))
	}
	if v, l := c.word(side + "auth"); l != nil {
		first.method, first.line = swanctlAuth(v), l
	}
	out := []round{first}
	if role, _ := c.word("xauth"); xauth && local == (role != "server") {
		out = append(out, round{name: name + "-xauth", method: "xauth", line: byLine})
	}
	if v, l := c.word(side + "auth2"); l != nil {
		out = append(out, round{name: name + "-2", method: swanctlAuth(v), line: l, suffix: "2"})
	}
	return out
}

func swanctlAuth(v string) string {
	if v == "secret" {
		return "psk"
	}
	return v
}

// swanRounds is rounds for Libreswan.
func (c *conn) swanRounds(local bool, side, name string) []round {
	r := round{name: name, method: "pubkey"}
	by, byLine := c.word("authby")
	v, l := c.word(side + "auth")
	if l != nil {
		by, r.line = v, l
	} else {
		r.line = byLine
	}
	var methods []string
	for _, w := range strings.FieldsFunc(by, func(r rune) bool { return r == ',' || r == '|' || r == ' ' }) {
		m := "pubkey"
		switch {
		case w == "secret" || w == "psk":
			m = "psk"
		case w == "null":
			m = "null"
		case w == "never":
			m = "never"
		case w == "eaponly" || w == "eap":
			m = "eap"
			if e, _ := c.word(side + "autheap"); e != "" {
				m += "-" + e
			}
		case w == "rsasig", w == "rsa", w == "ecdsa", w == "ecdsasig", w == "eddsa", w == "pubkey", w == "cert":
		case strings.HasPrefix(w, "rsa-") || strings.HasPrefix(w, "ecdsa-"):
			c.drop(r.line, changed, "the hash is left to the two sides: "+w)
		default:
			c.bad(r.line, fmt.Sprintf("%q is no authentication", clip(w)))
		}
		if !slices.Contains(methods, m) {
			methods = append(methods, m)
		}
	}
	c.line(side + "autheap")
	if len(methods) > 0 {
		r.method = methods[0]
	}
	if len(methods) > 1 {
		methods = slices.DeleteFunc(methods, func(m string) bool { return m == "null" || m == "never" })
		switch {
		case len(methods) == 0:
		case local:
			r.method = methods[0]
			c.drop(r.line, changed, "this side proves itself by "+r.method+" only")
		default:
			r.method = methods[0]
			if len(methods) > 1 {
				r.method = "any"
			}
			c.drop(r.line, changed, "the peer may prove itself by "+r.method)
		}
	}
	switch r.method {
	case "null":
		c.bad(r.line, "adit has no NULL authentication (RFC 7619): anybody could be the peer")
	case "never":
		c.bad(r.line, "only a passthrough or drop connection has no authentication")
	}
	out := []round{r}
	xc, _ := c.word(side + "xauthclient")
	c.line(side + "xauthserver")
	xs, _ := c.word(map[bool]string{true: c.remote, false: c.local}[local] + "xauthserver")
	if a, err := yes(xc); err == nil && a && c.version != "2" {
		out = append(out, round{name: name + "-xauth", method: "xauth"})
	} else if b, err := yes(xs); err == nil && b && c.version != "2" {
		out = append(out, round{name: name + "-xauth", method: "xauth"})
	}
	return out
}

// round writes one section local* or remote*.
func (c *conn) round(local bool, r round) {
	side := c.remote
	if local {
		side = c.local
	}
	at, path := c.top.section(r.name), []string{r.name}
	c.must(at, path, "auth", r.method, r.line)
	eap, xauth := strings.HasPrefix(r.method, "eap"), strings.HasPrefix(r.method, "xauth")
	if r.name == "local-xauth" || r.name == "remote-xauth" {
		c.names(local, side, at, path, false, true)
		return
	}
	certs := c.certs(local, side, r, at, path)
	c.identity(local, side, r, certs, at, path)
	c.names(local, side, at, path, eap, xauth)
	if local {
		c.notOurs(side, r.suffix)
		return
	}
	c.constraints(side, r, at, path)
}

// names writes the identities inside of EAP and XAUTH.
func (c *conn) names(local bool, side string, at *node, path []string, eap, xauth bool) {
	if v, l := c.text("eap_identity"); l != nil && eap {
		if v == "%identity" {
			v = "%any"
		}
		c.put(at, path, "eap_id", v, l)
	}
	if v, l := c.text("aaa_identity"); l != nil && eap {
		c.put(at, path, "aaa_id", v, l)
	}
	if v, l := c.text("xauth_identity"); l != nil && xauth {
		c.put(at, path, "xauth_id", v, l)
	}
	if v, l := c.text(side + "username"); l != nil && local && (eap || xauth) {
		c.put(at, path, map[bool]string{true: "eap_id", false: "xauth_id"}[eap], v, l)
	}
}

// certs writes certificates and raw keys; it reports whether there is a certificate.
func (c *conn) certs(local bool, side string, r round, at *node, path []string) bool {
	has := false
	if v, l := c.sided(side, "cert"+r.suffix); l != nil {
		var files []string
		list := []string{v}
		if c.im.dialect == StrongSwan {
			list = splitList(v)
		}
		for _, part := range list {
			if f := c.certFile(part, l); f != "" {
				files = append(files, f)
			}
		}
		if len(files) > 0 && r.method != "psk" {
			c.put(at, path, "certs", strings.Join(files, ", "), l)
			has = true
		} else if len(files) > 0 {
			c.drop(l, moot, "a pre-shared key needs no certificate")
		}
	}
	if r.suffix != "" {
		return has
	}
	for _, key := range []string{"sigkey", "ecdsakey", "pubkey"} {
		if v, l := c.sided(side, key); l != nil && v != "%cert" {
			c.rawKey(local, v, r, l, at, path)
		}
	}
	c.line(side + "ckaid")
	if l := c.set[side+"ckaid"]; l != nil {
		k, _ := lookup("conn", l.Key)
		c.drop(l, changed, k.Note)
	}
	return has
}

// rawKey writes a raw public key: of a file, or of the line itself.
func (c *conn) rawKey(local bool, v string, r round, l *Line, at *node, path []string) {
	if r.method != "pubkey" && r.method != "any" {
		c.drop(l, moot, "auth = "+r.method+" needs no key")
		return
	}
	name := ""
	switch {
	case strings.HasPrefix(v, "%"):
		c.bad(l, noDNSKeys)
		return
	case strings.HasPrefix(v, "0x"), strings.HasPrefix(v, "0s"), strings.HasPrefix(v, "dns:0"), strings.HasPrefix(v, "ssh:0"):
		file, text, err := rawKey(v)
		if err != nil {
			c.bad(l, err.Error())
			return
		}
		name = file
		c.im.files["pubkey/"+file] = text
	case c.im.dialect == Libreswan:
		c.bad(l, "a key begins with 0s or 0x")
		return
	default:
		from := v
		if !filepath.IsAbs(from) {
			from = filepath.Join(c.im.dir, "certs", v)
		}
		name = c.im.copies.file(from, "pubkey", false)
	}
	if local && c.im.dialect == Libreswan {
		c.drop(l, changed, "the private key lies in NSS, which gives no raw key away: put a new one into private, and its public key to the peers")
	}
	c.put(at, path, "pubkeys", name, l)
}

// identity writes id where it isn't what adit takes anyhow.
func (c *conn) identity(local bool, side string, r round, certs bool, at *node, path []string) {
	v, l := c.sided(side, "id"+r.suffix)
	if l == nil && r.suffix != "" && local {
		v, l = c.sided(side, "id")
	}
	if l == nil {
		host := c.host(side)
		if certs || host == "" || r.suffix != "" || local && isAddr(host) || r.method == "any" && !local {
			return
		}
		c.put(at, path, "id", host, c.line(side))
		return
	}
	if c.im.dialect == Libreswan {
		var ok bool
		if v, ok = c.swanID(v, l); !ok {
			return
		}
	} else if id, loose := strings.CutPrefix(v, "%"); loose && v != "%any" && v != "%any6" {
		v = id
		if !local {
			c.drop(l, changed, "the peer must say that it is "+clip(id)+": a certificate that has that name besides isn't enough")
		}
	}
	c.must(at, path, "id", v, l)
}

func isAddr(text string) bool {
	return normal(text) == text && (isV6(text) || strings.Count(text, ".") == 3 && strings.Trim(text, "0123456789.") == "")
}

// swanID translates Libreswan's forms of identities; false if nothing is to be written.
func (c *conn) swanID(v string, l *Line) (string, bool) {
	switch {
	case v == "%fromcert" || v == "%none" || v == "":
		return "", false // the certificate's subject, or whoever has a certificate
	case v == "%any":
		return "%any", true
	case v == "%null":
		c.bad(l, "adit has no NULL identity (RFC 7619)")
		return "", false
	case strings.HasPrefix(v, "%"):
		c.bad(l, fmt.Sprintf("%q is no identity that is known here", clip(v)))
		return "", false
	case strings.HasPrefix(v, "@["):
		return "keyid:" + strings.TrimSuffix(v[2:], "]"), true
	case strings.HasPrefix(v, "@~"):
		return "asn1dn:#" + v[2:], true
	case strings.HasPrefix(v, "@"):
		return v, true
	case strings.Contains(v, "=") && strings.Contains(v, "/") && !strings.Contains(v, ","):
		return strings.ReplaceAll(strings.Trim(v, "/"), "/", ", "), true
	case !isAddr(v) && !strings.ContainsAny(v, "=@"):
		c.drop(l, changed, "Libreswan looks up the address of a name without @; here it is the name itself")
	}
	return v, true
}

// notOurs drops constraints that are for the peer, on our own side.
func (c *conn) notOurs(side, suffix string) {
	for _, key := range []string{"ca", "groups", "certpolicy"} {
		if suffix == "2" && key == "certpolicy" {
			continue
		}
		if l := c.line(side + key + suffix); l != nil {
			c.drop(l, moot, "on the own side it constrains nothing")
		}
	}
}

// constraints writes what the peer's certificate must be.
func (c *conn) constraints(side string, r round, at *node, path []string) {
	if v, l := c.sided(side, "ca"+r.suffix); l != nil {
		switch {
		case v == "%same" && c.im.dialect == StrongSwan && c.set[c.local+"ca"+r.suffix] == nil:
			c.drop(l, moot, "without "+c.local+"ca it says nothing")
		case v == "%same":
			c.drop(l, changed, "every CA in x509ca is trusted: put only that of the own certificate there, or name it in cacerts")
		case v == "%any" || v == "":
		default:
			c.must(at, path, "ca_id", v, l)
		}
	}
	if v, l := c.sided(side, "groups"+r.suffix); l != nil {
		c.must(at, path, "groups", strings.Join(splitList(v), ", "), l)
	}
	if v, l := c.sided(side, "certpolicy"); l != nil && r.suffix == "" {
		c.must(at, path, "cert_policy", strings.Join(splitList(v), ", "), l)
	}
	if !strings.HasPrefix(r.method, "psk") && !strings.HasPrefix(r.method, "xauth") {
		if policy, ok := c.im.revocation(); ok {
			c.put(at, path, "revocation", policy, nil)
		}
	}
}
