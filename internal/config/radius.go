package config

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"adit/conf"
	"adit/suite"
)

// limitRADIUS bounds the servers, limitNAS the length of a NAS-Identifier (RFC 2865 §5.32).
const (
	limitRADIUS = 32
	limitNAS    = 253
)

// radiusOptions are the values of plugins.eap-radius and of a section of its
// servers: what a server does not say holds for all.
var radiusOptions = []option[RADIUSServer]{
	{name: "address", note: "address or host name of a server in `servers`", set: into(func(r *RADIUSServer) *string { return &r.Address }, serverOf)},
	{name: "server", note: "the same, of the only one", set: into(func(r *RADIUSServer) *string { return &r.Address }, serverOf)},
	{name: "secret", note: "shared with the server; under 16 bytes: a warning", set: into(func(r *RADIUSServer) *suite.Key { return &r.Secret }, func(v conf.Value) (suite.Key, error) {
		text, err := v.One()
		if err == nil && len(text) > limitSecretBytes {
			err = v.Errorf("a secret of more than %d bytes", limitSecretBytes)
		}
		return suite.Key(text), err
	})},
	{name: "port", def: "1812", set: into(func(r *RADIUSServer) *uint16 { return &r.AuthPort }, fixedPort)},
	{name: "auth_port", def: "1812", note: "the same", set: into(func(r *RADIUSServer) *uint16 { return &r.AuthPort }, fixedPort)},
	{name: "source", note: "own address; default: the system’s choice", set: into(func(r *RADIUSServer) *netip.Addr { return &r.Source }, func(v conf.Value) (netip.Addr, error) {
		a, err := netip.ParseAddr(v.Text)
		if err != nil || v.IsList {
			return a, v.Errorf("%q is no address", v.Text)
		}
		return a, nil
	})},
	{name: "nas_identifier", def: "adit", set: into(func(r *RADIUSServer) *string { return &r.NASIdentifier }, func(v conf.Value) (string, error) {
		text, err := v.One()
		if err == nil && len(text) > limitNAS {
			err = v.Errorf("longer than %d bytes", limitNAS)
		}
		return text, err
	})},
	{name: "preference", def: "0", note: "servers with a higher number are asked first", set: into(func(r *RADIUSServer) *int { return &r.Preference }, func(v conf.Value) (int, error) {
		n, err := v.Int(-1000000, 1000000)
		return int(n), err
	})},
	{name: "sockets", def: "1", note: "each carries 256 requests at once", set: into(func(r *RADIUSServer) *int { return &r.Sockets }, func(v conf.Value) (int, error) {
		n, err := v.Uint(1024)
		return int(n), err
	})},
	{name: "retransmit_timeout", def: "2.0", note: "seconds", set: into(func(r *RADIUSServer) *time.Duration { return &r.Timeout }, decimalSeconds)},
	{name: "retransmit_base", def: "1.4", set: into(func(r *RADIUSServer) *float64 { return &r.Base }, baseOf)},
	{name: "retransmit_tries", def: "4", set: into(func(r *RADIUSServer) *int { return &r.Tries }, func(v conf.Value) (int, error) {
		n, err := v.Uint(100)
		return int(n), err
	})},
	// The Class of an Access-Accept is always the groups: nothing else asks for it.
	{name: "class_group", def: "no", state: Accepted, note: "the Class of an Access-Accept is always what `groups` are compared with"},
	{name: "acct_port", def: "1813", set: into(func(r *RADIUSServer) *uint16 { return &r.AcctPort }, fixedPort)},
	{name: "eap_start", def: "no", state: Idle, off: []string{"no"}, note: "the name of the peer is always asked for first"},
	{name: "filter_id", def: "no", state: Idle, off: []string{"no"}, note: "groups come of the Class attribute alone"},
	{name: "id_prefix", state: Idle, note: "names go to the server as the peer gave them"},
	{name: "station_id_with_port", def: "yes", state: Accepted, note: "Called- and Calling-Station-Id are addresses without ports"},
	{name: "close_all_on_timeout", def: "no", state: Idle, off: []string{"no"}, note: "a server that does not answer ends the attempt alone"},
	{name: "load", state: Accepted, note: "RADIUS is asked where a connection has auth = eap-radius"},
}

// accountingOptions are those of plugins.eap-radius that hold for all servers.
var accountingOptions = []option[Accounting]{
	{name: "accounting", def: "no", note: "sends Start, Stop and interim updates (RFC 2866) for clients: who came by EAP or XAUTH, or has a virtual address; Accounting-On and -Off for the gateway", set: into(func(a *Accounting) *bool { return &a.On }, boolOf)},
	{name: "accounting_close_on_timeout", def: "yes", note: "closes a client’s IKE SA if nobody answers an interim update, as strongSwan does ([RADIUS is down](eap.md#when-radius-is-down))", set: into(func(a *Accounting) *bool { return &a.KeepOnTimeout }, notOf)},
	{name: "accounting_interval", def: "0s", note: "of interim updates, where the server sends no Acct-Interim-Interval; 0: none", set: into(func(a *Accounting) *time.Duration { return &a.Interval }, durationOf)},
	{name: "accounting_requires_vip", def: "no", note: "no accounting for clients without a virtual address", set: into(func(a *Accounting) *bool { return &a.NeedsVIP }, boolOf)},
	{name: "accounting_send_class", def: "no", note: "repeats the Class of the Access-Accept", set: into(func(a *Accounting) *bool { return &a.SendClass }, boolOf)},
	{name: "dae.enable", def: "no", note: "takes Disconnect- and CoA-Requests of the server (RFC 5176)", set: into(func(a *Accounting) *bool { return &a.DAE }, boolOf)},
	{name: "dae.listen", def: "0.0.0.0", note: "the address for these", set: into(func(a *Accounting) *netip.Addr { return &a.DAEListen }, func(v conf.Value) (netip.Addr, error) {
		a, err := netip.ParseAddr(v.Text)
		if err != nil || v.IsList {
			return a, v.Errorf("%q is no address", v.Text)
		}
		return a, nil
	})},
	{name: "dae.port", def: "3799", set: into(func(a *Accounting) *uint16 { return &a.DAEPort }, fixedPort)},
	{name: "dae.secret", note: "shared with whoever sends them", set: into(func(a *Accounting) *suite.Key { return &a.DAESecret }, func(v conf.Value) (suite.Key, error) {
		text, err := v.One()
		if err == nil && len(text) > limitSecretBytes {
			err = v.Errorf("a secret of more than %d bytes", limitSecretBytes)
		}
		return suite.Key(text), err
	})},
	{name: "dae.event_timestamp", state: Own, def: "yes", note: "`no` takes requests without Event-Timestamp, too, which whoever saw one can repeat later", set: into(func(a *Accounting) *bool { return &a.DAEAnyTime }, notOf)},
}

// RADIUSPool is the pool of the addresses that a RADIUS server gives its users, unless
// a pool of that name is configured.
const RADIUSPool = "radius"

// baseOf reads the base of an exponential back-off.
func baseOf(v conf.Value) (float64, error) {
	f, err := strconv.ParseFloat(v.Text, 64)
	if err != nil || !(f >= 1 && f <= 100) { // NaN is neither
		return 0, v.Errorf("expected a number from 1 to 100, not %q", v.Text)
	}
	return f, nil
}

func serverOf(v conf.Value) (string, error) {
	if _, err := netip.ParseAddr(v.Text); v.IsList || err != nil && !hostName(v.Text) {
		return "", v.Errorf("%q is no address and no host name", v.Text)
	}
	return v.Text, nil
}

// decodeRADIUS decodes plugins.eap-radius: one server in it, or several in
// sections of `servers`.
func (d *decoder) decodeRADIUS(dm *Daemon, s *conf.Section) {
	all := RADIUSServer{Name: "primary", AuthPort: 1812, AcctPort: 1813, NASIdentifier: "adit", Timeout: 2 * time.Second, Base: 1.4, Tries: 4, Pos: s.Pos}
	known := slices.Concat(names(radiusOptions), names(accountingOptions))
	for v := range s.Values() {
		if o := lookup(accountingOptions, v.Key); o != nil {
			apply(d, &dm.Accounting, o, v)
		} else if o := lookup(radiusOptions, v.Key); o != nil {
			apply(d, &all, o, v)
		} else {
			d.failf(v.Pos, "%s: unknown option%s", v.Path(), didYouMean(v.Key, known))
		}
	}
	for v := range s.Sub("dae").Values() {
		if o := lookup(accountingOptions, "dae."+v.Key); o != nil {
			apply(d, &dm.Accounting, o, v)
		} else {
			d.failf(v.Pos, "%s: unknown option%s", v.Path(), didYouMean("dae."+v.Key, known))
		}
	}
	if a := dm.Accounting; a.DAE && len(a.DAESecret) == 0 {
		d.failf(s.Pos, "%s.dae: the secret is missing", s.Path())
	}
	var servers []RADIUSServer
	for sub := range s.Sub("servers").Sections() {
		if len(servers) == limitRADIUS {
			d.failf(sub.Pos, "%s: more than %d servers", sub.Path(), limitRADIUS)
			break
		}
		r := all
		r.Name, r.Pos, r.Address = sub.Name, sub.Pos, ""
		values(d, sub, &r, radiusOptions)
		servers = append(servers, d.checkRADIUS(sub, r)...)
	}
	if all.Address != "" {
		servers = append(servers, d.checkRADIUS(s, all)...)
	}
	if len(servers) > 0 {
		dm.RADIUS = servers
	}
	for sub := range s.Sections() {
		if sub.Name != "servers" && sub.Name != "dae" && sub.Len() > 0 { // Debian's files have them empty
			d.warn(sub.Pos, sub.Path()+" has no effect: adit does not read it")
		}
	}
}

func (d *decoder) checkRADIUS(s *conf.Section, r RADIUSServer) []RADIUSServer {
	switch {
	case r.Address == "":
		d.failf(s.Pos, "%s: the server's address is missing", s.Path())
	case len(r.Secret) == 0:
		d.failf(s.Pos, "%s: the server's secret is missing", s.Path())
	default:
		if len(r.Secret) < weakSecret {
			d.warn(s.Pos, s.Path()+": a secret of "+strconv.Itoa(len(r.Secret))+" bytes: who sees the packets can try all (RFC 2865 §3: 16 bytes or more)")
		}
		r.Sockets = cmp.Or(r.Sockets, 1)
		return []RADIUSServer{r}
	}
	return nil
}

// decodeAttributes decodes what every peer is told with its address, besides its
// pool's attributes: dns1, dns2, nbns1, nbns2 and plugins.attr.
func (d *decoder) decodeAttributes(dm *Daemon, s *conf.Section) {
	for _, name := range []string{"dns1", "dns2", "nbns1", "nbns2"} {
		if v, ok := s.Get(name); ok {
			v.Key = name[:len(name)-1]
			d.fail(d.attributes(&dm.Attributes, v))
		}
	}
	for v := range s.Sub("plugins").Sub("attr").Values() {
		if v.Key != "load" {
			d.fail(d.attributes(&dm.Attributes, v))
		}
	}
}
