package ipsecconf

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// sided is the setting of a keyword of one side.
func (c *conn) sided(side, key string) (string, *Line) { return c.text(side + key) }

// addresses translates left and right: where IKE is spoken.
func (c *conn) addresses() {
	if list, l := c.hosts(c.local); l != nil && len(list) > 0 {
		c.put(c.top, pathConn, "local_addrs", strings.Join(list, ", "), l)
	}
	list, l := c.hosts(c.remote)
	if v, any := c.word(c.remote + "allowany"); any != nil {
		if b, err := yes(v); err == nil && b && len(list) > 0 {
			list = append(list, "0.0.0.0/0", "::/0")
		}
	}
	if l != nil && len(list) > 0 {
		c.must(c.top, pathConn, "remote_addrs", strings.Join(list, ", "), l)
	}
	c.line(c.local + "allowany")
	c.copied(c.local+"ikeport", c.top, pathConn, "local_port")
	c.copied(c.remote+"ikeport", c.top, pathConn, "remote_port")
}

// hosts are the addresses of a side; none stands for any.
func (c *conn) hosts(side string) ([]string, *Line) {
	v, l := c.sided(side, "")
	if l == nil {
		return nil, nil
	}
	if c.im.dialect == Libreswan && (strings.HasPrefix(v, "%group") || strings.HasPrefix(v, "%opportunistic")) {
		c.bad(l, noOE)
		return nil, l
	}
	var out []string
	for _, part := range splitList(v) {
		name, special := strings.CutPrefix(part, "%")
		switch {
		case !special:
			out = append(out, part)
		case part == "%any" || part == "%defaultroute":
		case part == "%any4":
			out = append(out, "0.0.0.0/0")
		case part == "%any6":
			out = append(out, "::/0")
		case c.im.dialect == Libreswan:
			c.drop(l, changed, "the address of an interface cannot be named: the system chooses it")
		default: // strongSwan: as with allowany
			out = append(out, name)
			if side == c.remote {
				out = append(out, "0.0.0.0/0", "::/0")
			}
		}
	}
	if len(out) == 1 && (out[0] == "0.0.0.0" || out[0] == "::" && c.im.dialect == Libreswan) {
		return nil, l
	}
	return out, l
}

// host is the only address or name of a side, or empty.
func (c *conn) host(side string) string {
	l := c.set[side]
	if l == nil || strings.ContainsAny(l.Value, ",/ ") || l.Value == "0.0.0.0" || l.Value == "::" {
		return ""
	}
	if name, ok := strings.CutPrefix(l.Value, "%"); ok {
		if c.im.dialect == Libreswan || strings.HasPrefix(name, "any") || name == "defaultroute" {
			return ""
		}
		return name
	}
	return l.Value
}

func isV6(text string) bool {
	a, err := netip.ParseAddr(text)
	return err == nil && a.Is6()
}

// pools translates virtual addresses: those that we ask for and those that we give.
func (c *conn) pools() {
	if c.im.dialect == Libreswan {
		c.swanPools()
		return
	}
	if v, l := c.sided(c.local, "sourceip"); l != nil {
		var vips []string
		for _, part := range splitList(v) {
			switch strings.TrimSuffix(strings.TrimSuffix(part, "4"), "6") {
			case "%config", "%cfg", "%modeconfig", "%modecfg":
				any := "0.0.0.0"
				if strings.HasSuffix(part, "6") || !strings.HasSuffix(part, "4") && (isV6(c.host(c.remote)) || isV6(c.host(c.local))) {
					any = "::"
				}
				vips = append(vips, any)
			default:
				vips = append(vips, part)
			}
		}
		c.put(c.top, pathConn, "vips", strings.Join(vips, ", "), l)
	}
	if l := c.line(c.local + "dns"); l != nil {
		c.drop(l, changed, "adit asks for name servers with every virtual address, and tells them in the log")
	}
	dns, dnsLine := c.sided(c.remote, "dns")
	if v, l := c.sided(c.remote, "sourceip"); l != nil {
		var names []string
		for i, part := range splitList(v) {
			if name := c.poolOf(part, dns, i, l); name != "" {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			c.put(c.top, pathConn, "pools", strings.Join(names, ", "), l)
		}
	} else {
		c.drop(dnsLine, moot, "name servers are told to those who get an address")
	}
}

// poolOf is the name of the pool for one item of rightsourceip.
func (c *conn) poolOf(part, dns string, i int, l *Line) string {
	name, special := strings.CutPrefix(part, "%")
	if special {
		switch strings.TrimRight(name, "46") {
		case "config", "cfg", "modeconfig", "modecfg":
			c.drop(l, refused, "adit gives addresses out of pools, and none that the peer chooses")
		case "dhcp":
			c.drop(l, refused, "adit fetches no addresses by DHCP")
		default:
			c.drop(l, changed, "strongSwan has pool "+clip(name)+" elsewhere (a database or RADIUS): write it into pools")
			return cleanName(name)
		}
		return ""
	}
	attrs := []attribute{{"addrs", part}}
	if dns != "" {
		attrs = append(attrs, attribute{"dns", strings.Join(splitList(dns), ", ")})
	}
	return c.im.pool(c, i, attrs, l)
}

// swanPools is pools for Libreswan.
func (c *conn) swanPools() {
	for _, side := range []string{c.local, c.remote} {
		if l := c.line(side + "sourceip"); l != nil && side == c.local {
			c.drop(l, moot, "adit takes an own address inside of local_ts as the source")
		}
	}
	v, l := c.word(c.local + "modecfgclient")
	if b, err := yes(v); l != nil && err == nil && b {
		any := "0.0.0.0"
		if isV6(c.host(c.remote)) {
			any = "::"
		}
		c.put(c.top, pathConn, "vips", any, l)
	}
	for _, key := range []string{c.remote + "modecfgclient", c.local + "modecfgserver", c.remote + "modecfgserver"} {
		c.line(key)
	}
	var attrs []attribute
	var lines []*Line
	for _, a := range []struct{ key, option string }{{"modecfgdns", "dns"}, {"modecfgdomains", "25"}, {"modecfgbanner", "28672"}} {
		v, l := c.text(a.key)
		if l == nil {
			continue
		}
		lines = append(lines, l)
		if a.key != "modecfgbanner" {
			v = strings.Join(strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' }), ", ")
		}
		attrs = append(attrs, attribute{a.option, v})
	}
	v, l = c.sided(c.remote, "addresspool")
	if l == nil {
		for _, l := range lines {
			c.drop(l, moot, "it is told to those who get an address, and there is no address pool")
		}
		return
	}
	var names []string
	for i, part := range strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' }) {
		if name := c.im.pool(c, i, append([]attribute{{"addrs", part}}, attrs...), l); name != "" {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		c.put(c.top, pathConn, "pools", strings.Join(names, ", "), l)
	}
}

// certificates translates what is sent and asked for.
func (c *conn) certificates() {
	if v, l := c.word(c.local + "sendcert"); l != nil {
		switch v {
		case "never", "no":
			c.put(c.top, pathConn, "send_cert", "never", l)
		case "always", "yes", "alwayssend":
			c.put(c.top, pathConn, "send_cert", "always", l)
		case "ifasked", "sendifasked":
			c.put(c.top, pathConn, "send_cert", "ifasked", l)
		default:
			c.drop(l, refused, fmt.Sprintf("%q is none of never, always and ifasked", clip(v)))
		}
	}
	if v, l := c.word(c.remote + "sendcert"); l != nil {
		switch {
		case (v == "never" || v == "no") && c.im.dialect == StrongSwan:
			c.put(c.top, pathConn, "send_certreq", "no", l)
		case c.im.dialect == Libreswan:
			c.drop(l, moot, "the peer decides when it sends its certificate")
		}
	}
}

// certFile is the name in x509 of a certificate of ipsec.conf, and notes where it is
// copied from.
func (c *conn) certFile(text string, l *Line) string {
	if c.im.dialect == Libreswan {
		name := cleanName(text) + ".pem"
		c.im.copies.nss(text, name)
		l.mark(changed, "the certificate lies in NSS: it must be exported to x509/"+name+", its key to private")
		return name
	}
	if strings.HasPrefix(text, "%") {
		c.bad(l, "adit does not support tokens")
		return ""
	}
	from := text
	if !filepath.IsAbs(from) {
		from = filepath.Join(c.im.dir, "certs", text)
	}
	return c.im.copies.file(from, "x509", false)
}
