package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"adit/conf"
	"adit/internal/config"
	"adit/internal/gateway"
	"adit/internal/users"
	"adit/vici"
)

// plan answers adit's own command `plan`: what another command would change, given
// its name as `command` and its body as the section `body`. Nothing is changed. The
// answer has `change` (none, add, change or remove); of a connection also
// `differences`, `children` and the numbers of IKE SAs that would be closed or kept.
func (c *controller) plan(ctx context.Context, req *vici.Request) (*conf.Section, error) {
	body := conf.New("") // a tree of its own, for the paths in messages
	if sub := req.Msg.Sub("body"); sub != nil {
		for e := range sub.All() {
			if e.Section != nil {
				body.Attach(e.Section)
			} else {
				body.SetValue(e.Value)
			}
		}
	}
	v, out := gateway.Unchanged, reply(nil)
	var err error
	one := func(next gateway.Verdict) {
		if next != gateway.Unchanged {
			v = next
		}
	}
	gone := func(names []string, name string) {
		if slices.Contains(names, name) {
			v = gateway.Removed
		}
	}
	switch command := req.Msg.Text("command"); command {
	case "load-conn", "unload-conn":
		return c.planConn(ctx, command, body)
	case "load-shared":
		s, e := c.opt.Decode.Secret(body)
		if err = e; err == nil {
			v = c.g.PlanSecret(s)
			s.Key.Zero()
		}
	case "load-users":
		list, _, count, e := config.DecodeUsers(body)
		if err = e; err == nil {
			v = c.g.PlanUsers(list, count)
			users.Zero(list)
		}
	case "load-key":
		k, e := config.DecodeKey(body)
		if err = e; err == nil {
			v = c.g.PlanKey(k)
			out.Set("id", k.ID)
		}
	case "load-cert":
		certs, e := config.DecodeCert(body)
		err = e
		for _, cert := range certs {
			one(c.g.PlanCert(cert))
		}
	case "load-authority":
		for s := range body.Sections() {
			a, e := config.DecodeAuthority(s)
			if e != nil {
				return reply(e), nil
			}
			one(c.g.PlanAuthority(a))
		}
	case "load-pool":
		for s := range body.Sections() {
			p, e := config.DecodePool(s)
			if e == nil {
				var next gateway.Verdict
				next, e = c.g.PlanPool(p)
				one(next)
			}
			if e != nil {
				return reply(e), nil
			}
		}
	case "unload-shared":
		gone(c.g.SecretIDs(), body.Text("id"))
	case "unload-key":
		gone(c.g.KeyIDs(), body.Text("id"))
	case "unload-pool":
		for _, p := range c.g.Pools() {
			gone([]string{p.Name}, body.Text("name"))
		}
	case "unload-authority":
		for _, a := range c.g.Authorities() {
			gone([]string{a.Name}, body.Text("name"))
		}
	case "retain-certs":
		keep, e := hashes(body)
		if err = e; err == nil {
			if list := c.g.RetainCerts(keep, true); len(list) > 0 {
				v = gateway.Removed
				out.SetList("certs", list...)
			}
		}
	default:
		err = fmt.Errorf("there is no plan for the command '%.32s'", command)
	}
	if err != nil {
		return reply(err), nil
	}
	out.Set("change", string(v))
	return out, nil
}

func (c *controller) planConn(ctx context.Context, command string, body *conf.Section) (*conf.Section, error) {
	if command == "unload-conn" {
		p, err := c.g.PlanUnload(ctx, body.Text("name"))
		if err != nil {
			return reply(err), nil
		}
		return planBody(p), nil
	}
	out := reply(errors.New("missing connection"))
	n := 0
	for s := range body.Sections() {
		p, err := c.opt.Decode.Conn(s.Name, s)
		var plan gateway.Plan
		if err == nil {
			plan, err = c.g.PlanConn(ctx, p)
		}
		if n++; err == nil && n > 1 {
			err = errors.New("only one connection can be planned at a time")
		}
		if err != nil {
			return reply(err), nil
		}
		out = planBody(plan)
	}
	return out, nil
}

// planBody is the answer about a connection.
func planBody(p gateway.Plan) *conf.Section {
	m := reply(nil)
	m.Set("change", string(p.Verdict))
	m.Set("name", p.Name)
	setNumbers(m, "closes-ike", p.ClosesIKE)
	setNumbers(m, "keeps-ike", p.KeepsIKE)
	if len(p.Differences) > 0 {
		list := m.Add("differences")
		for i, d := range p.Differences {
			e := list.Add(strconv.Itoa(i))
			e.Set("option", d.Path)
			e.Set("old", d.Old)
			e.Set("new", d.New)
		}
	}
	if len(p.Children) > 0 {
		list := m.Add("children")
		for _, c := range p.Children {
			e := list.Add(c.Name)
			e.Set("change", string(c.Verdict))
			e.Set("stands-now", c.StandsNow)
			e.Set("stands-then", c.StandsThen)
			setYes(e, "starts", c.Starts)
			setNumbers(e, "closes-child", c.ClosesChild)
			setNumbers(e, "keeps-child", c.KeepsChild)
		}
	}
	return m
}

func setNumbers(m *conf.Section, key string, numbers []uint32) {
	if len(numbers) == 0 {
		return
	}
	list := make([]string, len(numbers))
	for i, n := range numbers {
		list[i] = strconv.FormatUint(uint64(n), 10)
	}
	m.SetList(key, list...)
}

// retainCerts answers adit's own command `retain-certs`: all loaded certificates,
// CRLs and public keys go but those whose SHA-256 is listed as `sha256`. VICI has no
// command that unloads a certificate.
func (c *controller) retainCerts(_ context.Context, req *vici.Request) (*conf.Section, error) {
	keep, err := hashes(req.Msg)
	if err != nil {
		return reply(err), nil
	}
	out := reply(nil)
	out.SetList("certs", c.g.RetainCerts(keep, false)...)
	return out, nil
}

// limitHashes bounds the list of retain-certs.
const limitHashes = 65536

func hashes(m *conf.Section) (map[[sha256.Size]byte]bool, error) {
	v, ok := m.Get("sha256")
	if !ok || !v.IsList || len(v.List) > limitHashes {
		return nil, errors.New("missing list sha256 of what is to stay")
	}
	out := make(map[[sha256.Size]byte]bool, len(v.List))
	for _, text := range v.List {
		b, err := hex.DecodeString(text)
		if err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("'%.80s' is no SHA-256", text)
		}
		out[[sha256.Size]byte(b)] = true
	}
	return out, nil
}
