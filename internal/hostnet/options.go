package hostnet

import (
	"fmt"
	"math/bits"
)

// defaultProtocol is not assigned to any routing daemon in iproute2's table.
const defaultProtocol = 173

// complete fills in the defaults and checks the rest.
func (o *Options) complete() error {
	setInt := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	setInt(&o.Table, 220)
	setInt(&o.Priority, 220)
	setInt(&o.SteerTable, 220000)
	setInt(&o.Protocol, defaultProtocol)
	if o.MarkMask == 0 {
		o.MarkMask = 0xff000000
	}
	if o.JournalDir == "" {
		o.JournalDir = "/run/adit"
	}
	if o.IKEPorts == nil {
		o.IKEPorts = []uint16{500, 4500}
	}
	width := bits.OnesCount32(o.MarkMask)
	if width < 4 || o.MarkMask>>bits.TrailingZeros32(o.MarkMask) != 1<<width-1 {
		return fmt.Errorf("hostnet: mark mask %#x is not one run of at least four bits", o.MarkMask)
	}
	if o.Protocol < 5 || o.Protocol > 255 {
		return fmt.Errorf("hostnet: route protocol %d is reserved or out of range", o.Protocol)
	}
	if o.Priority < 1 || o.Priority > 32765-stepPlace {
		return fmt.Errorf("hostnet: rule priority %d leaves no room before the main table's 32766", o.Priority)
	}
	for _, t := range []int{o.Table, o.SteerTable} {
		if t < 1 || t >= 252 && t <= 255 || t > 1<<31-MaxDevices {
			return fmt.Errorf("hostnet: routing table %d belongs to the kernel or is out of range", t)
		}
	}
	if o.Table >= o.SteerTable && o.Table < o.SteerTable+MaxDevices ||
		o.SteerTable < 256 && o.SteerTable+MaxDevices > 252 {
		return fmt.Errorf("hostnet: the steering tables from %d on overlap other tables", o.SteerTable)
	}
	return nil
}

// Values within MarkMask; markSteer+i leads to the table of device i.
const (
	markOwn    = 1 // our own sockets' packets: outside all policies
	markBypass = 2 // classified, belongs to no protect policy: the host's routing
	markInside = 3 // came in by one of our devices
	markSteer  = 4
)

func (o *Options) mark(value int) uint32 {
	return uint32(value) << bits.TrailingZeros32(o.MarkMask)
}

func (o *Options) ownMark() uint32 { return o.mark(markOwn) }

// steerable returns how many devices the mark has room for.
func (o *Options) steerable() int {
	return min(MaxDevices, 1<<bits.OnesCount32(o.MarkMask)-markSteer)
}
