package gateway

import (
	"net/netip"

	"adit/ike"
	"adit/internal/updown"
)

// pathfinder is a Host that knows by which device our own packets to a peer leave.
type pathfinder interface {
	DeviceTo(local, remote netip.Addr) (string, error)
}

// newScripts makes what runs the commands of `updown`. What they print, or how they
// fail, becomes a remark as the engine makes them: the log has it, and control-log.
func (g *Gateway) newScripts() *updown.Runner {
	o := updown.Options{Report: func(n ike.Note) { g.bus.publish(n) }}
	if h, ok := g.opt.Host.(pathfinder); ok {
		o.Device = func(local, remote netip.Addr) string {
			device, _ := h.DeviceTo(local, remote)
			return device
		}
	}
	return updown.New(o)
}
