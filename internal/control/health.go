package control

import (
	"context"

	"adit/conf"
	"adit/internal/gateway"
	"adit/vici"
)

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// health is a command of adit's own: every thread and how long it has owed an answer,
// and what becomes of the log's targets. It does not go through any of the threads.
func (c *controller) health(context.Context, *vici.Request) (*conf.Section, error) {
	m := conf.New("")
	parts := c.g.Health()
	m.Set("healthy", yesNo(gateway.Healthy(parts)))
	list := m.Add("parts")
	for _, p := range parts {
		s := list.Add(p.Name)
		s.Set("ok", yesNo(p.OK()))
		s.Setf("silent-ms", "%d", p.Silent.Milliseconds())
	}
	if c.opt.ACME != nil {
		acmeBody(m, c.opt.ACME.Statuses())
	}
	if c.opt.Logs != nil {
		logs := m.Add("logs")
		for _, t := range c.opt.Logs.Targets() {
			s := logs.Add(t.Name)
			s.Setf("waiting", "%d", t.Waiting)
			s.Setf("lost", "%d", t.Lost)
			if t.Stalled > 0 {
				s.Setf("stalled-ms", "%d", t.Stalled.Milliseconds())
			}
			if t.Err != "" {
				s.Set("error", t.Err)
			}
		}
	}
	return m, nil
}
