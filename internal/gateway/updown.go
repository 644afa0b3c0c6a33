package gateway

import "adit/ike"

// remark publishes what a command of `updown` printed or how it failed. It is logged like
// a remark of the engine, and control-log shows it.
func (g *Gateway) remark(n ike.Note) { g.bus.publish(n) }
