package control

import (
	"context"
	"errors"
	"fmt"

	"adit/conf"
	"adit/internal/gateway"
	"adit/ipsec"
	"adit/vici"
)

func (c *controller) install(_ context.Context, req *vici.Request) (*conf.Section, error) {
	child := req.Msg.Text("child")
	if child == "" {
		return reply(errors.New("missing configuration name")), nil
	}
	err := c.g.Install(req.Msg.Text("ike"), child)
	if errors.Is(err, gateway.ErrNotFound) {
		err = errors.New("configuration name not found")
	} else if err != nil {
		err = fmt.Errorf("installing policy '%s' failed: %w", child, err)
	}
	return reply(err), nil
}

func (c *controller) uninstall(_ context.Context, req *vici.Request) (*conf.Section, error) {
	child := req.Msg.Text("child")
	if child == "" {
		return reply(errors.New("missing configuration name")), nil
	}
	return reply(c.g.Uninstall(req.Msg.Text("ike"), child)), nil
}

// listPolicies streams one list-policy event for every trap, bypass and discard policy
// of the kinds that are asked for; traps come first, as in strongSwan, whose keys count
// by being there.
func (c *controller) listPolicies(_ context.Context, req *vici.Request) (*conf.Section, error) {
	m := req.Msg
	wanted := func(a ipsec.Action) bool {
		_, ok := m.Get(map[ipsec.Action]string{ipsec.Protect: "trap", ipsec.Bypass: "pass", ipsec.Discard: "drop"}[a])
		return ok
	}
	child, conn := m.Text("child"), m.Text("ike")
	all := c.g.Policies()
	for _, traps := range []bool{true, false} {
		for i := range all {
			p := all[i]
			if traps { // the last one first
				p = all[len(all)-1-i]
			}
			if traps != (p.Action == ipsec.Protect) || !wanted(p.Action) || child != "" && child != p.Child || conn != "" && conn != p.Conn {
				continue
			}
			if err := req.Emit("list-policy", describePolicy(p)); err != nil {
				return nil, err
			}
		}
	}
	return conf.New(""), nil
}

func describePolicy(p gateway.StandingPolicy) *conf.Section {
	m := conf.New("")
	s := m.Add(p.Conn + "/" + p.Child)
	s.Set("child", p.Child)
	if p.Action == ipsec.Protect {
		s.Setf("reqid", "%d", p.ReqID)
	}
	s.Set("ike", p.Conn)
	s.Set("mode", modeName(p.Action, p.Mode))
	s.SetList("local-ts", texts(p.Local)...)
	s.SetList("remote-ts", texts(p.Remote)...)
	return m
}

// modeName is strongSwan's word for what a child does with packets.
func modeName(a ipsec.Action, m ipsec.Mode) string {
	switch a {
	case ipsec.Bypass:
		return "PASS"
	case ipsec.Discard:
		return "DROP"
	}
	return m.String()
}
