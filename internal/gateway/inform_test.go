package gateway_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"adit/conf"
	"adit/internal/config"
	"adit/ipsec"
)

// Inject records what the gateway sends itself.
func (e *end) Inject(r ipsec.SARef, b []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.injected = append(e.injected, injected{r, b})
	return nil
}

type injected struct {
	ref    ipsec.SARef
	packet []byte
}

// inform is a DHCPINFORM from an address, as Windows sends it.
func inform(from string) []byte {
	b := make([]byte, 28+240)
	b[0], b[9] = 0x45, 17
	copy(b[12:], netip.MustParseAddr(from).AsSlice())
	copy(b[16:], []byte{255, 255, 255, 255})
	b[28], b[29], b[30] = 1, 8, 6
	copy(b[28+236:], []byte{99, 130, 83, 99, 53, 1, 8})
	b = append(b, 53, 1, 8, 55, 3, 6, 15, 249, 255)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[20:], 68)
	binary.BigEndian.PutUint16(b[22:], 67)
	binary.BigEndian.PutUint16(b[24:], uint16(len(b)-20))
	return b
}

// A client's DHCPINFORM is answered with the networks of its Child SA and the name servers
// of its pool; one from an address that is not the client's is not.
func TestInformIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := newLab(t)
		left, right := l.end("left", leftAddr), l.end("right", rightAddr)
		defer right.gw.Shutdown()
		defer left.gw.Shutdown()
		give := func(e *end, text string) {
			root, err := conf.ParseBytes("test.conf", []byte(text+"secrets { ike { secret = \"a secret that is long enough\" } }\n"))
			if err != nil {
				t.Fatal(err)
			}
			daemon, _ := config.LoadDaemon("")
			m, err := config.Decode(root, daemon)
			if err == nil {
				err = e.gw.Load(m)
			}
			if err != nil {
				t.Fatal(err)
			}
			e.settle()
		}
		give(left, "connections { c {\n local_addrs = 192.0.2.1\n remote_addrs = 192.0.2.2\n vips = 0.0.0.0\n local { auth = psk\n }\n remote { auth = psk\n }\n children { c { remote_ts = 10.2.0.0/16, 10.9.0.0/24\n } }\n } }\n")
		give(right, "connections { c {\n local_addrs = 192.0.2.2\n pools = p\n local { auth = psk\n }\n remote { auth = psk\n }\n children { c { local_ts = 10.2.0.0/16, 10.9.0.0/24\n } }\n } }\n"+
			"pools { p {\n addrs = 10.3.0.0/24\n dns = 10.2.0.53\n 25 = corp.example\n } }\n")
		if err := left.gw.Initiate(within(time.Minute), "", "c"); err != nil {
			t.Fatal(err)
		}
		right.settle()
		sas, err := right.gw.SAs(within(time.Second))
		if err != nil || len(sas) != 1 || len(sas[0].RemoteVIPs) != 1 || len(sas[0].Children) != 1 {
			t.Fatalf("%+v %v", sas, err)
		}
		ref := ipsec.SARef{Child: sas[0].Children[0].ID, Dir: ipsec.In}
		right.emit(ipsec.Inform{Ref: ref, Packet: inform("10.3.0.9")})
		right.emit(ipsec.Inform{Ref: ipsec.SARef{Child: 999}, Packet: inform("10.3.0.1")})
		right.emit(ipsec.Inform{Ref: ref, Packet: []byte("no DHCP at all")})
		right.settle()
		if len(right.injected) != 0 {
			t.Fatalf("answered: %x", right.injected)
		}
		right.emit(ipsec.Inform{Ref: ref, Packet: inform(sas[0].RemoteVIPs[0].String())})
		right.settle()
		if len(right.injected) != 1 || right.injected[0].ref != (ipsec.SARef{Child: ref.Child, Dir: ipsec.Out}) {
			t.Fatalf("%+v", right.injected)
		}
		for what, option := range map[string][]byte{
			"routes": {249, 15, 16, 10, 2, 10, 2, 0, 1, 24, 10, 9, 0, 10, 2, 0, 1},
			"DNS":    {6, 4, 10, 2, 0, 53}, "domain": append([]byte{15, 12}, "corp.example"...),
		} {
			if !bytes.Contains(right.injected[0].packet, option) {
				t.Errorf("no %s in %x", what, right.injected[0].packet)
			}
		}
	})
}
