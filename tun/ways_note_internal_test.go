package tun

import (
	"bytes"
	"testing"

	"adit/tun/ring"
)

// noted are packets behind a virtio header: whole, short and odd ones.
func noted(change func(b []byte)) []byte {
	b := make([]byte, vnetHdrLen+100)
	p := b[vnetHdrLen:]
	p[0], p[3], p[8], p[9] = 0x45, 100, 64, protoUDP
	change(b)
	return b
}

func noted6(change func(b []byte)) []byte {
	return noted(func(b []byte) {
		p := b[vnetHdrLen:]
		p[0], p[5], p[6], p[9] = 0x60, 60, protoTCP, 0
		change(b)
	})
}

// TestNote: a reader counts as single what the program takes, and nothing else.
func TestNote(t *testing.T) {
	same := func([]byte) {}
	left := func(start uint16) func([]byte) {
		return func(b []byte) {
			h := vnetHdr{flags: vnetNeedsCsum, csumStart: start, csumOffset: 6}
			h.put(b)
		}
	}
	at := func(i int, v byte) func([]byte) { return func(b []byte) { b[vnetHdrLen+i] = v } }
	for name, c := range map[string]struct {
		packet []byte
		class  ring.Class
		single bool
	}{
		"UDP":                        {noted(same), ring.UDP, true},
		"TCP, IPv6":                  {noted6(same), ring.TCP, true},
		"checksum left":              {noted(left(20)), ring.UDP, true},
		"checksum left, IPv6":        {noted6(left(40)), ring.TCP, true},
		"checksum left within":       {noted(left(70)), ring.UDP, false},
		"checksum left within, IPv6": {noted6(left(90)), ring.TCP, false},
		"super":                      {noted(func(b []byte) { b[1] = gsoUDPL4 }), ring.UDP, false},
		"options":                    {noted(at(0, 0x46)), ring.UDP, false},
		"first fragment":             {noted(at(6, 0x20)), ring.UDP, false},
		"last fragment":              {noted(at(7, 1)), ring.UDP, false},
		"don't fragment":             {noted(at(6, 0x40)), ring.UDP, true},
		"fragment, IPv6":             {noted6(func(b []byte) { b[vnetHdrLen+6], b[vnetHdrLen+40] = 44, protoUDP }), ring.UDP, false},
		"ICMP":                       {noted(at(9, 1)), 0, false},
		"hop by hop":                 {noted6(at(6, 0)), 0, false},
		"largest":                    {append(noted(same), make([]byte, ring.Largest-100)...), ring.UDP, true},
		"larger":                     {append(noted(same), make([]byte, ring.Largest-99)...), ring.UDP, false},
		"short":                      {noted(same)[:vnetHdrLen+19], 0, false},
		"short, IPv6":                {noted6(same)[:vnetHdrLen+39], 0, false},
		"header only":                {noted(same)[:vnetHdrLen+20], ring.UDP, true},
		"less than a header":         {noted(same)[:vnetHdrLen-1], 0, false},
	} {
		w := &ways{after: 300}
		if class, single := w.note(c.packet); class != c.class || single != c.single || (w.single[c.class] == 1) != single {
			t.Errorf("%s: class %d, single %v, %v", name, class, single, w.single)
		}
	}
}

// FuzzNote: no bytes of the queue or the ring make the reader panic, and it completes only
// checksums that it can.
func FuzzNote(f *testing.F) {
	f.Add(noted(func([]byte) {}))
	f.Add(noted6(func([]byte) {}))
	f.Add(noted6(func(b []byte) { b[vnetHdrLen+6], b[vnetHdrLen+40] = 44, protoUDP }))
	f.Add(noted(func(b []byte) { b[vnetHdrLen+9] = protoTCP })[:vnetHdrLen+24])
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x65})
	f.Fuzz(func(t *testing.T, b []byte) {
		w := &ways{after: 300}
		class, single := w.note(b)
		if class&^ring.All != 0 || single && class == 0 {
			t.Fatalf("class %d, single %v", class, single)
		}
		if len(b) <= vnetHdrLen || len(b) > vnetHdrLen+ring.Largest {
			return
		}
		pkt := b[vnetHdrLen:]
		if single && b[0]&vnetNeedsCsum == 0 {
			// Of the same packet by the ring comes the same.
			before := bytes.Clone(pkt)
			var h vnetHdr
			h.partial(pkt)
			h.put(b)
			s, err := ParseSuper(b)
			if err != nil || len(s.Packet) != len(before) {
				t.Fatalf("%v, %+v", err, h)
			}
			at := int(h.csumStart + h.csumOffset)
			if h.flags == 0 && !bytes.Equal(before, s.Packet) || h.flags != 0 && (!bytes.Equal(before[:at], s.Packet[:at]) || !bytes.Equal(before[at+2:], s.Packet[at+2:])) {
				t.Fatalf("%x became %x", before, s.Packet)
			}
			return
		}
		var h vnetHdr
		h.partial(pkt)
	})
}
