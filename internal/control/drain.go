package control

import (
	"context"
	"errors"
	"strconv"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/internal/gateway"
	"adit/vici"
)

// drain is a command of adit's own: the gateway refuses new peers and sends those that
// are there to the gateway `to`, `rate` of them a second; with `close` those that cannot
// be redirected are deleted. undrain ends it, drain-state tells how far it is.
func (c *controller) drain(ctx context.Context, req *vici.Request) (*conf.Section, error) {
	d := gateway.Drain{Close: req.Msg.Text("close") == "yes"}
	if text := req.Msg.Text("to"); text != "" {
		var err error
		if d.To, err = ike.ParseRedirectTarget(text); err != nil {
			return reply(errors.New("unsupported gateway identity")), nil
		}
	}
	if text := req.Msg.Text("rate"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return reply(errors.New("rate is no number of peers a second")), nil
		}
		d.Rate = n
	}
	return reply(c.g.Drain(ctx, d)), nil
}

func (c *controller) undrain(ctx context.Context, _ *vici.Request) (*conf.Section, error) {
	return reply(c.g.Undrain(ctx)), nil
}

func (c *controller) drainState(ctx context.Context, _ *vici.Request) (*conf.Section, error) {
	st, err := c.g.DrainState(ctx)
	if err != nil {
		return nil, err
	}
	m := reply(nil)
	m.Set("draining", yesNo(st.On))
	if st.On {
		m.Set("to", st.To.String())
		m.Setf("seconds", "%d", int(time.Since(st.Since).Seconds()))
	}
	for _, n := range []struct {
		key   string
		count int
	}{{"found", st.Found}, {"told", st.Told}, {"closed", st.Closed}, {"stay", st.Stay}, {"waiting", st.Waiting}, {"left", st.Left}, {"own", st.Own}} {
		m.Setf(n.key, "%d", n.count)
	}
	return m, nil
}
