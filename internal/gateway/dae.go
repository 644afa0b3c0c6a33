package gateway

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"adit/ike"
	"adit/internal/config"
	"adit/radius"
)

// dae carries out what a RADIUS server asks of us: Disconnect and CoA (RFC 5176).
type dae struct {
	g  *Gateway
	mu sync.Mutex
	// dropped are packets that were no request to be carried out, by reason, since the last line about it.
	dropped map[string]int
	last    time.Time
}

// run serves requests until ctx ends.
func (d *dae) run(ctx context.Context) {
	c := d.g.opt.Daemon.Accounting
	if !c.DAE {
		return
	}
	where := netip.AddrPortFrom(c.DAEListen, c.DAEPort)
	conn, err := (&net.ListenConfig{Control: d.g.opt.Control}).ListenPacket(ctx, "udp", where.String())
	if err != nil {
		d.g.bus.publish(ike.Note{Level: 1, Text: fmt.Sprintf("RADIUS: Disconnect and CoA are not served: %v", err)})
		return
	}
	radius.NewDAE(conn, radius.DAEConfig{Secret: radius.Key(c.DAESecret), AnyTime: c.DAEAnyTime, Handle: d.handle, Dropped: d.drop}).Serve(ctx)
}

// drop counts what is not answered; one line a while tells of it.
func (d *dae) drop(from netip.AddrPort, why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dropped == nil {
		d.dropped = map[string]int{}
	}
	d.dropped[why.Error()]++ // errors of the codec are sentinels
	if now := time.Now(); now.Sub(d.last) > daeQuiet {
		d.last = now
		for text, n := range d.dropped {
			d.g.bus.publish(ike.Note{Level: 1, Text: fmt.Sprintf("dropped %d requests of Disconnect or CoA: %s (last from %s)", n, text, from)})
		}
		clear(d.dropped)
	}
}

// dynamic are the attributes that say which session is meant, or nothing at all, in
// requests of dynamic authorization.
var dynamic = map[radius.Type]bool{
	radius.TypeUserName: true, radius.TypeAcctSessionID: true, radius.TypeFramedIPAddress: true, radius.TypeFramedIPv6Address: true,
	radius.TypeCallingStationID: true, radius.TypeCalledStationID: true, radius.TypeNASIPAddress: true, radius.TypeNASIPv6Address: true,
	radius.TypeNASIdentifier: true, radius.TypeNASPort: true, radius.TypeNASPortType: true, radius.TypeNASPortID: true,
	radius.TypeEventTimestamp: true, radius.TypeMessageAuthenticator: true, radius.TypeProxyState: true, radius.TypeAcctTerminateCause: true,
	radius.TypeReplyMessage: true, radius.TypeClass: true, radius.TypeState: true,
}

func nak(cause uint32) radius.Verdict { return radius.Verdict{Nak: true, ErrorCause: cause} }

func (d *dae) handle(ctx context.Context, p *radius.Packet) radius.Verdict {
	v, what := d.judge(ctx, p)
	text := "carried out"
	if v.Nak {
		text = fmt.Sprintf("refused, Error-Cause %d", v.ErrorCause)
	}
	d.g.bus.publish(ike.Note{Level: 1, Text: fmt.Sprintf("RADIUS %s for %s: %s", p.Code, what, text)})
	return v
}

func (d *dae) judge(ctx context.Context, p *radius.Packet) (radius.Verdict, string) {
	a := &d.g.accounts
	what := "nobody"
	if name, ok := p.Get(radius.TypeUserName); ok {
		what = fmt.Sprintf("%.100q", name)
	} else if id, ok := p.Get(radius.TypeAcctSessionID); ok {
		what = fmt.Sprintf("session %.100q", id)
	}
	if nas, ok := p.Get(radius.TypeNASIdentifier); ok && !d.isNAS(string(nas)) {
		return nak(radius.ErrorNASMismatch), what
	}
	var timeout time.Duration
	for _, at := range p.Attributes {
		switch {
		case dynamic[at.Type]:
		case at.Type == radius.TypeSessionTimeout && p.Code == radius.CoARequest && len(at.Value) == 4:
			timeout = time.Duration(binary.BigEndian.Uint32(at.Value)) * time.Second
		case at.Type == radius.TypeSessionTimeout && p.Code == radius.CoARequest:
			return nak(radius.ErrorInvalidAttributeValue), what
		default: // one that cannot be carried out: then nothing is (RFC 5176 §2.2)
			return nak(radius.ErrorUnsupportedAttribute), what
		}
	}
	list, named := a.find(p)
	switch {
	case !named || p.Code == radius.CoARequest && timeout == 0:
		return nak(radius.ErrorMissingAttribute), what
	case len(list) == 0:
		return nak(radius.ErrorSessionNotFound), what
	}
	for _, instance := range list {
		id := uint32(0)
		a.with(instance, func(x *account) {
			if p.Code == radius.CoARequest {
				x.expires = time.Now().Add(timeout)
			} else {
				id, x.cause = x.sa.ID, radius.CauseAdminReset
			}
		})
		if id != 0 && d.g.shard.deliver(ctx, ike.Terminate{IKEID: id}) != nil {
			return nak(radius.ErrorResources), what
		}
	}
	return radius.Verdict{}, what
}

// isNAS reports whether a NAS-Identifier is one that we tell a server.
func (d *dae) isNAS(name string) bool {
	return slices.ContainsFunc(d.g.opt.Daemon.RADIUS, func(s config.RADIUSServer) bool { return s.NASIdentifier == name })
}
