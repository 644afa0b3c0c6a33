package control

import (
	"context"
	"errors"
	"time"

	"adit/conf"
	"adit/internal/acme"
	"adit/vici"
)

// renewCerts is a command of adit's own: it has the certificates of adit.acme renewed
// that are due, with `force` all, or the one of `name` alone. It answers when that is done.
func (c *controller) renewCerts(ctx context.Context, req *vici.Request) (*conf.Section, error) {
	if c.opt.ACME == nil {
		return reply(errors.New("there is no section adit.acme in strongswan.conf")), nil
	}
	only, force := req.Msg.Text("name"), req.Msg.Text("force") == "yes"
	var list []acme.Status
	var errs []error
	for _, s := range c.opt.ACME.Statuses() {
		if only != "" && s.Name != only {
			continue
		}
		s, err := c.opt.ACME.Renew(ctx, s.Name, force)
		list = append(list, s)
		if err != nil {
			errs = append(errs, errors.New(s.Name+": "+err.Error()))
		}
	}
	if len(list) == 0 {
		errs = append(errs, errors.New("there is no such section in adit.acme of strongswan.conf"))
	}
	m := reply(errors.Join(errs...))
	acmeBody(m, list)
	return m, nil
}

// acmeBody adds how things are with certificates.
func acmeBody(m *conf.Section, list []acme.Status) {
	if len(list) == 0 {
		return
	}
	all := m.Add("certificates")
	for _, s := range list {
		e := all.Add(s.Name)
		e.SetList("domains", s.Domains...)
		at := func(key string, t time.Time) {
			if !t.IsZero() {
				e.Set(key, t.UTC().Format(time.RFC3339))
			}
		}
		if s.Serial != "" {
			e.Set("serial", s.Serial)
		}
		at("until", s.NotAfter)
		at("renewal", s.Renew)
		if !s.Failed.IsZero() {
			e.Set("error", s.Error)
			at("failed", s.Failed)
			at("next", s.Next)
		}
	}
}
