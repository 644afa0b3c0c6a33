package control

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"adit/conf"
	"adit/ike"
	"adit/vici"
)

// redirect sends peers of established IKE SAs to another gateway (RFC 5685).
func (c *controller) redirect(ctx context.Context, req *vici.Request) (*conf.Section, error) {
	r, err := readRedirect(req.Msg)
	if err != nil {
		return reply(err), nil
	}
	matched, err := c.g.Redirect(ctx, r)
	var rej *ike.Rejection
	switch {
	case err == nil && matched == 0:
		err = errors.New("no matching SAs to redirect found")
	case errors.As(err, &rej):
		err = errors.New("no matching SA can be redirected: " + rej.Difference)
	}
	out := conf.New("")
	out.Set("success", yesNo(err == nil))
	out.Setf("matches", "%d", matched)
	if err != nil {
		out.Set("errmsg", oneLine(err.Error()))
	}
	return out, nil
}

func readRedirect(m *conf.Section) (r ike.Redirect, err error) {
	text := m.Text("gateway")
	if text == "" {
		return r, errors.New("missing target gateway")
	}
	if r.Gateway, err = ike.ParseRedirectTarget(text); err != nil {
		return r, errors.New("unsupported gateway identity")
	}
	if text := m.Text("peer-ip"); text != "" {
		if r.From, r.To, err = addressRange(text); err != nil {
			return r, errors.New("invalid peer IP selector")
		}
	}
	id := m.Text("peer-id")
	if id != "" {
		if r.PeerID, err = ike.ParseIdentity(id); err != nil {
			return r, errors.New("invalid peer identity selector")
		}
	}
	r.IKE, r.IKEID = m.Text("ike"), number(m, "ike-id")
	if r.IKE == "" && r.IKEID == 0 && id == "" && !r.From.IsValid() {
		return r, errors.New("missing redirect selector")
	}
	return r, nil
}

// addressRange reads an address, a subnet in CIDR notation or a range from-to.
func addressRange(text string) (from, to netip.Addr, err error) {
	if a, b, ok := strings.Cut(text, "-"); ok {
		if from, err = netip.ParseAddr(strings.TrimSpace(a)); err == nil {
			to, err = netip.ParseAddr(strings.TrimSpace(b))
		}
		if err == nil && (from.BitLen() != to.BitLen() || to.Less(from)) {
			err = errors.New("not a range")
		}
		return from, to, err
	}
	if !strings.Contains(text, "/") {
		from, err = netip.ParseAddr(text)
		return from, from, err
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return from, to, err
	}
	from = p.Masked().Addr()
	last := from.AsSlice()
	for i := p.Bits(); i < from.BitLen(); i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	to, _ = netip.AddrFromSlice(last)
	return from, to, nil
}
