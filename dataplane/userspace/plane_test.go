package userspace_test

import (
	"bytes"
	"fmt"
	"testing"

	"adit/internal/conn"
	"adit/ipsec"
)

// TestForwarding sends packets through every combination of families, modes and
// encapsulations, both ways, and looks at what an observer outside sees.
func TestForwarding(t *testing.T) {
	for _, outer6 := range []bool{false, true} {
		for _, raw := range []bool{false, true} {
			for _, mode := range []ipsec.Mode{ipsec.ModeTunnel, ipsec.ModeTransport} {
				t.Run(fmt.Sprintf("outer6=%v/raw=%v/%s", outer6, raw, mode), func(t *testing.T) {
					l := newLab(t, nil)
					l.install(child{outer6: outer6, raw: raw, mode: mode})
					var wire []conn.Datagram
					l.net.SetTap(func(d conn.Datagram) {
						d.Payload = bytes.Clone(d.Payload)
						wire = append(wire, d)
					})
					a, b := hostA4, hostB4
					pairs := 2
					if mode == ipsec.ModeTransport {
						if a, b, pairs = addrA4, addrB4, 1; outer6 {
							a, b = addrA6, addrB6
						}
					}
					for range pairs {
						secret := []byte("nobody outside may read this")
						there, back := udp(a, b, 5, 6, secret), udp(b, a, 6, 5, secret)
						l.a.send(there)
						same(t, mode, l.b.receive(1)[0], there)
						l.b.send(back)
						same(t, mode, l.a.receive(1)[0], back)
						a, b = hostA6, hostB6
					}
					for _, d := range wire {
						if d.Raw != raw || d.Dst.Addr().Is6() != outer6 || bytes.Contains(d.Payload, []byte("outside")) {
							t.Fatalf("on the wire: %+v", d)
						}
					}
					if len(wire) != 2*pairs {
						t.Fatalf("%d datagrams on the wire", len(wire))
					}
					st, ok := l.a.plane.Query(ipsec.SARef{Child: 1, Dir: ipsec.Out})
					if !ok || st.Packets != uint64(pairs) || st.Seq != uint64(pairs) || !st.LastUse.Equal(l.now.Now()) {
						t.Fatalf("counters of the SA: %+v", st)
					}
					if d := dropsOf(l.a.plane); len(d) != 0 {
						t.Fatalf("drops %v", d)
					}
				})
			}
		}
	}
}

// same compares packets; transport mode makes the IPv4 header anew.
func same(t testing.TB, mode ipsec.Mode, got, want []byte) {
	t.Helper()
	if mode == ipsec.ModeTransport && got[0]>>4 == 4 && onesum(got[:20], 0) == 0 {
		got, want = got[20:], want[20:]
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("arrived\n%x, sent\n%x", got, want)
	}
}
