package tun_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"adit/tun"
	"adit/tun/ring"
)

// sample is a packet, how it is sent, and what is to come of it.
type sample struct {
	name    string
	class   ring.Class
	packet  []byte
	partial bool   // the checksum is left to be completed
	send    []byte // with virtio and Ethernet header; nil: packet
	want    []byte // nil: the packet forwarded
	ring    bool
	off     bool // the ring is off afterwards
}

// bytesOf are packets of all kinds.
func bytesOf(l *ringLab) (list []sample) {
	add := func(s sample) { list = append(list, s) }
	lengths := []int{20, 21, 24, 27, 28, 29, 35, 36, 37, 39, 40, 41, 44, 47, 48, 49, 57, 58, 59, 60, 61, 64, 100, 577, 1000, 1499, 1500}
	for _, record := range []int{128, 256, 512, 768, 1024, 1280, 1408, 1536} {
		for d := -10; d <= 1; d++ {
			lengths = append(lengths, record+d)
		}
	}
	lengths = append(lengths, 1600, 4001, ringMTU)
	for _, size := range lengths {
		for _, v6 := range []bool{false, true} {
			for _, c := range []ring.Class{ring.UDP, ring.TCP} {
				if v6 && size < 40 {
					continue
				}
				p := l.packet(v6, c, size, nil)
				s := sample{name: fmt.Sprintf("%d bytes, v6 %v", size, v6), class: c, packet: p, ring: size <= ring.Largest, off: size > ring.Largest}
				add(s)
				if start, offset := sumOf(p); size >= start+offset+2 {
					s.name, s.partial = s.name+", partial", true
					add(s)
					s.name, s.partial = s.name+", wrong", false
					s.packet = bytes.Clone(p)
					s.packet[start+offset] ^= 0x10
					add(s)
				}
			}
		}
	}
	for _, v6 := range []bool{false, true} {
		for _, c := range []ring.Class{ring.UDP, ring.TCP} {
			single := func(name string, change func(p []byte)) {
				p := l.packet(v6, c, 200, nil)
				change(p)
				add(sample{name: fmt.Sprintf("%s, v6 %v", name, v6), class: c, packet: headerSummed(p), ring: true})
			}
			start, offset := sumOf(l.packet(v6, c, 200, nil))
			single("traffic class", func(p []byte) {
				if p[1] = 0xb8 | 3; v6 { // and a flow label
					p[0], p[1], p[2], p[3] = 0x6b, 0xb1, 0x23, 0x45
				}
			})
			single("last hop", func(p []byte) {
				if p[8] = 2; v6 {
					p[7], p[8] = 2, near6.As16()[0]
				}
			})
			single("checksum 0", func(p []byte) { p[start+offset], p[start+offset+1] = 0, 0 })
			if c == ring.UDP {
				single("none, where the pseudo header's sum would be ffff", func(p []byte) {
					p[start+offset], p[start+offset+1] = 0, 0
					low := map[bool]int{false: 14, true: 22}[v6]
					p[low], p[low+1] = 0, 0
					binary.BigEndian.PutUint16(p[low:], tun.Checksum(pseudoHeader(p)))
				})
			}
			single("checksum ffff", func(p []byte) { p[start+offset], p[start+offset+1] = 0xff, 0xff })
			single("complete, and the pseudo header's by chance", func(p []byte) {
				twice := partial(p)
				sum := binary.BigEndian.Uint16(twice[start+offset:])
				// With this much more in the payload the sum is what the field has.
				binary.BigEndian.PutUint16(twice[start+offset+10:], 0)
				more := uint32(tun.Checksum(twice[start:])) + uint32(^sum)
				more = more>>16 + more&0xffff
				binary.BigEndian.PutUint16(twice[start+offset+10:], uint16(more))
				if copy(p, summed(bytes.Clone(twice))); !bytes.Equal(p, twice) {
					l.t.Errorf("%x has another sum than %x", twice, p)
				}
			})
			p := l.packet(v6, c, 40+20, nil)
			add(sample{name: fmt.Sprintf("padding behind, v6 %v", v6), class: c, packet: p, send: append(append(l.header(0, 0, 0, 0, v6), p...), make([]byte, 13)...), want: forwarded(p), ring: true})
		}
	}
	for _, c := range []ring.Class{ring.UDP, ring.TCP} {
		p := l.packet(false, c, 200, []byte{1, 1, 1, 0}) // no operation, end of list
		add(sample{name: "options", class: c, packet: p, off: true})
		for name, flags := range map[string]uint16{"don't fragment": 0x4000, "first fragment": 0x2000, "fragment": 0x2010, "last fragment": 0x0010} {
			p := l.packet(false, c, 200, nil)
			binary.BigEndian.PutUint16(p[6:], flags)
			add(sample{name: name, class: c, packet: headerSummed(p), ring: flags == 0x4000, off: flags != 0x4000})
		}
		proto := l.packet(true, c, 100, nil)[6]
		for _, offset := range []byte{1, 0x40, 0x41} { // a first, a last and one between
			add(sample{name: "fragment of IPv6", class: c, packet: l.packet(true, c, 200, []byte{44, proto, 0, 0, offset, 1, 2, 3, 4}), off: true})
		}
		add(sample{name: "destination options", class: 0, packet: l.packet(true, c, 200, []byte{60, proto, 0, 1, 4, 0, 0, 0, 0})})
		add(sample{name: "routing header", class: 0, packet: l.packet(true, c, 200, []byte{43, proto, 2, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})})
	}
	for _, v6 := range []bool{false, true} {
		// A host's tunnel (VXLAN) leaves the inner packet's checksum to be completed.
		for _, outer := range []bool{false, true} {
			inner, p := l.packet(v6, ring.TCP, 100, nil), l.packet(v6, ring.UDP, 200, nil)
			start, offset := sumOf(p)
			at := len(p) - len(inner)
			copy(p[at:], inner)
			if p[start+offset], p[start+offset+1] = 0, 0; outer {
				summed(p)
			}
			left := bytes.Clone(p)
			copy(left[at:], partial(inner))
			in, field := sumOf(inner)
			add(sample{name: fmt.Sprintf("checksum within, outer %v, v6 %v", outer, v6), class: ring.UDP, packet: p, send: append(l.header(0, 0, at+in, field, v6), left...), off: true})
		}
		add(sample{name: fmt.Sprintf("SCTP, v6 %v", v6), packet: l.packet(v6, 0, 200, nil)})
	}
	return list
}

// TestRingBytes compares all that comes by either way with what was sent: by the queue,
// then by the ring where that is for it.
func TestRingBytes(t *testing.T) {
	withRing(t, func(l *ringLab) {
		list := bytesOf(l)
		on := map[ring.Class]bool{}
		fragment := map[ring.Class]sample{}
		for _, s := range list {
			if s.name == "fragment" {
				fragment[s.class] = s
			}
		}
		broken := func(c ring.Class) { // the row of single packets ends
			l.put(fragment[c].packet)
			l.expect("fragment", forwarded(fragment[c].packet))
			l.empty()
		}
		for _, warm := range []bool{false, true} {
			broken(ring.UDP)
			broken(ring.TCP)
			for _, s := range list {
				name := fmt.Sprintf("%s, class %d, warm %v", s.name, s.class, warm)
				for _, c := range []ring.Class{ring.UDP, ring.TCP} {
					switch {
					case warm && !on[c]:
						if n := l.warm(c); n != 256 {
							t.Errorf("before %s: %d packets of class %d came by the queue", name, n, c)
						}
						on[c] = true
					case !warm && s.class == c:
						broken(c)
					}
				}
				want := s.want
				if want == nil {
					want = forwarded(s.packet)
				}
				switch {
				case s.send != nil:
					l.write(s.send)
				case s.partial:
					l.putPartial(s.packet)
				default:
					l.put(s.packet)
				}
				if byRing := l.expect(name, want); byRing != (s.ring && warm) {
					t.Errorf("%s: by the ring %v", name, byRing)
				}
				l.empty()
				if s.off {
					on[s.class] = false
				}
				if t.Failed() {
					return
				}
			}
		}
		for c := range on {
			if !on[c] {
				l.warm(c)
			}
		}
		if s := l.dev.Stats(); s.RingFull != 0 || s.ReadMalformed != 0 {
			t.Errorf("%+v", s)
		}
	})
}
