package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"adit/conf"
	"adit/ike"
	"adit/internal/config"
	"adit/internal/gateway"
	"adit/pki"
	"adit/vici"
)

func (c *controller) loadShared(_ context.Context, req *vici.Request) (*conf.Section, error) {
	s, err := c.opt.Decode.Secret(req.Msg)
	if err == nil {
		err = c.g.LoadSecret(s)
	}
	return reply(err), nil
}

func (c *controller) unloadShared(_ context.Context, req *vici.Request) (*conf.Section, error) {
	id := req.Msg.Text("id")
	if id == "" {
		return reply(errors.New("unique identifier missing")), nil
	}
	return reply(c.g.UnloadSecret(id)), nil
}

func (c *controller) getShared(context.Context, *vici.Request) (*conf.Section, error) {
	return listOf("keys", c.g.SecretIDs()), nil
}

// loadUsers takes a part of the local users (adit's own). No command tells them or
// their hashes.
func (c *controller) loadUsers(_ context.Context, req *vici.Request) (*conf.Section, error) {
	list, part, count, err := config.DecodeUsers(req.Msg)
	if err == nil {
		err = c.g.AddUsers(list, part, count)
	}
	return reply(err), nil
}

func listOf(key string, items []string) *conf.Section {
	m := conf.New("")
	m.SetList(key, items...)
	return m
}

func (c *controller) loadCert(_ context.Context, req *vici.Request) (*conf.Section, error) {
	certs, err := config.DecodeCert(req.Msg)
	for _, cert := range certs {
		if err == nil {
			err = c.g.LoadCert(cert)
		}
	}
	return reply(err), nil
}

func (c *controller) loadKey(_ context.Context, req *vici.Request) (*conf.Section, error) {
	k, err := config.DecodeKey(req.Msg)
	if err == nil {
		err = c.g.LoadKey(k)
	}
	m := reply(err)
	if err == nil {
		m.Set("id", k.ID)
	}
	return m, nil
}

// loadToken refuses: adit has no PKCS#11.
func (c *controller) loadToken(_ context.Context, req *vici.Request) (*conf.Section, error) {
	if req.Msg.Text("handle") == "" {
		return reply(errors.New("keyid missing")), nil
	}
	return reply(errors.New("loading private key from token failed: adit does not support tokens yet")), nil
}

func (c *controller) unloadKey(_ context.Context, req *vici.Request) (*conf.Section, error) {
	id := req.Msg.Text("id")
	if id == "" {
		return reply(errors.New("key id missing")), nil
	}
	err := c.g.UnloadKey(id)
	if errors.Is(err, gateway.ErrNotFound) {
		err = errors.New("key not found")
	}
	return reply(err), nil
}

func (c *controller) getKeys(context.Context, *vici.Request) (*conf.Section, error) {
	return listOf("keys", c.g.KeyIDs()), nil
}

func (c *controller) clearCreds(context.Context, *vici.Request) (*conf.Section, error) {
	c.g.ClearCredentials()
	return reply(nil), nil
}

func (c *controller) flushCerts(_ context.Context, req *vici.Request) (*conf.Section, error) {
	kind, _, err := config.ParseCertKind(req.Msg.Text("type"), "")
	if err == nil {
		c.g.FlushCerts(string(kind))
	}
	return reply(err), nil
}

// listCerts streams one list-cert event for every certificate that type, flag and
// subject select.
func (c *controller) listCerts(_ context.Context, req *vici.Request) (*conf.Section, error) {
	kind, flag, err := config.ParseCertKind(req.Msg.Text("type"), req.Msg.Text("flag"))
	if err != nil {
		return reply(err), nil
	}
	wanted := ike.Identity{}
	if text := req.Msg.Text("subject"); text != "" {
		if wanted, err = ike.ParseIdentity(text); err != nil {
			return reply(err), nil
		}
	}
	all := c.g.Certificates()
	for _, group := range []struct {
		kind config.CertKind
		flag string
	}{{config.CertPubkey, ""}, {config.CertX509, "NONE"}, {config.CertX509, "CA"}, {config.CertX509, "AA"}, {config.CertX509, "OCSP"},
		{config.CertCRL, ""}, {config.CertOCSP, ""}} {
		if kind != "" && kind != group.kind || kind == config.CertX509 && flag != "" && flag != group.flag {
			continue
		}
		for _, l := range slices.Backward(all) { // as charon: the last that was loaded first
			if l.Kind != group.kind {
				continue
			}
			m, shown, names := describeCert(l)
			if group.flag != "" && shown != group.flag || !wanted.IsAny() && !named(names, wanted) {
				continue
			}
			if err := req.Emit("list-cert", m); err != nil {
				return nil, err
			}
		}
	}
	return conf.New(""), nil
}

// describeCert is the event of a certificate, its flag as strongSwan shows it, and
// whom it names.
func describeCert(l gateway.LoadedCert) (m *conf.Section, flag string, names []ike.Identity) {
	flag = l.Flag
	m = conf.New("")
	m.Set("type", string(l.Kind))
	switch l.Kind {
	case config.CertX509:
		if c, err := pki.NewCertificate(l.DER); err == nil {
			names = config.CertIdentities(c)
			if c.IsCA() {
				flag = "CA"
			}
		}
		m.Set("flag", flag)
	case config.CertPubkey:
		if k, err := pki.NewPublicKey(l.DER); err == nil {
			names = []ike.Identity{{Type: ike.IDKeyID, Data: string(k.KeyID[:])}}
		}
	}
	setYes(m, "has_privkey", l.HasKey)
	m.Set("data", string(l.DER))
	return m, flag, names
}

func named(names []ike.Identity, pattern ike.Identity) bool {
	for _, n := range names {
		if n.Match(pattern) != ike.MatchNone {
			return true
		}
	}
	return false
}

func (c *controller) loadAuthority(_ context.Context, req *vici.Request) (*conf.Section, error) {
	for body := range req.Msg.Sections() {
		a, err := config.DecodeAuthority(body)
		if err == nil {
			err = c.g.LoadAuthority(a)
		}
		if err != nil {
			return reply(err), nil
		}
	}
	return reply(nil), nil
}

func (c *controller) unloadAuthority(_ context.Context, req *vici.Request) (*conf.Section, error) {
	name := req.Msg.Text("name")
	if name == "" {
		return reply(errors.New("unload: missing authority name")), nil
	}
	err := c.g.UnloadAuthority(name)
	if errors.Is(err, gateway.ErrNotFound) {
		err = fmt.Errorf("unload: authority '%s' not found", name)
	}
	return reply(err), nil
}

func (c *controller) getAuthorities(context.Context, *vici.Request) (*conf.Section, error) {
	var names []string
	for _, a := range c.g.Authorities() {
		names = append(names, a.Name)
	}
	return listOf("authorities", names), nil
}

// listAuthorities streams one list-authority event for every loaded authority.
func (c *controller) listAuthorities(_ context.Context, req *vici.Request) (*conf.Section, error) {
	only := req.Msg.Text("name")
	for _, a := range c.g.Authorities() {
		if only != "" && only != a.Name {
			continue
		}
		m := conf.New("")
		s := m.Add(a.Name)
		for _, name := range subjects([][]byte{a.CACert}) {
			s.Set("cacert", name)
		}
		s.SetList("crl_uris", a.CRLURIs...)
		s.SetList("ocsp_uris", a.OCSPURIs...)
		if a.CertURIBase != "" {
			s.Set("cert_uri_base", a.CertURIBase)
		}
		if err := req.Emit("list-authority", m); err != nil {
			return nil, err
		}
	}
	return conf.New(""), nil
}

func (c *controller) loadPool(_ context.Context, req *vici.Request) (*conf.Section, error) {
	for body := range req.Msg.Sections() {
		p, err := config.DecodePool(body)
		if err == nil {
			err = c.g.LoadPool(p)
		}
		if err != nil {
			return reply(err), nil
		}
	}
	return reply(nil), nil
}

func (c *controller) unloadPool(_ context.Context, req *vici.Request) (*conf.Section, error) {
	name := req.Msg.Text("name")
	if name == "" {
		return reply(errors.New("missing pool name to unload")), nil
	}
	err := c.g.UnloadPool(name)
	if errors.Is(err, gateway.ErrNotFound) {
		err = fmt.Errorf("%s not found", name)
	}
	return reply(err), nil
}

func (c *controller) getPools(_ context.Context, req *vici.Request) (*conf.Section, error) {
	only, leases := req.Msg.Text("name"), req.Msg.Text("leases") == "yes"
	m := conf.New("")
	for _, p := range c.g.Pools() {
		if only != "" && only != p.Name {
			continue
		}
		s := m.Add(p.Name)
		s.Set("base", p.Base.String())
		s.Setf("size", "%d", p.Size)
		s.Setf("online", "%d", p.Online)
		s.Setf("offline", "%d", p.Offline)
		if !leases {
			continue
		}
		list := s.Add("leases")
		for i, l := range p.Leases {
			e := list.Add(strconv.Itoa(i))
			e.Set("address", l.Addr.String())
			e.Set("identity", l.Identity)
			e.Set("status", map[bool]string{true: "online", false: "offline"}[l.Online])
		}
	}
	return m, nil
}
