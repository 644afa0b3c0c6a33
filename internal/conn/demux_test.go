package conn_test

import (
	"bytes"
	"testing"

	"adit/internal/conn"
)

func TestRFC3948_2_2_Demux(t *testing.T) {
	esp := []byte{0, 0, 1, 0, 0, 0, 0, 1, 9}
	cases := []struct {
		name    string
		payload []byte
		encap   bool
		kind    conn.Kind
		body    []byte
		ok      bool
	}{
		{"IKE on 500", []byte{1, 2, 3}, false, conn.IKE, []byte{1, 2, 3}, true},
		{"zeros on 500 are IKE's own", make([]byte, 30), false, conn.IKE, make([]byte, 30), true},
		{"keepalive byte on 500", []byte{0xff}, false, conn.IKE, []byte{0xff}, true},
		{"nothing on 500", nil, false, 0, nil, false},
		{"keepalive", []byte{0xff}, true, conn.Keepalive, []byte{0xff}, true},
		{"two bytes", []byte{0xff, 0xff}, true, 0, nil, false},
		{"another byte", []byte{0xfe}, true, 0, nil, false},
		{"nothing on 4500", nil, true, 0, nil, false},
		{"marker alone", make([]byte, 4), true, 0, nil, false},
		{"marker and IKE", append(make([]byte, 4), 5, 6, 7, 8), true, conn.IKE, []byte{5, 6, 7, 8}, true},
		{"ESP", esp, true, conn.ESP, esp, true},
		{"ESP without sequence number", esp[:7], true, 0, nil, false},
	}
	for _, c := range cases {
		kind, body, ok := conn.Demux(c.payload, c.encap)
		if kind != c.kind || !bytes.Equal(body, c.body) || ok != c.ok {
			t.Errorf("%s: %v %x %v", c.name, kind, body, ok)
		}
	}
}

func FuzzDemux(f *testing.F) {
	f.Add([]byte{0xff}, true)
	f.Add(make([]byte, 32), true)
	f.Add([]byte{1, 2, 3, 4, 0, 0, 0, 1}, true)
	f.Add([]byte("message"), false)
	f.Fuzz(func(t *testing.T, b []byte, encap bool) {
		kind, body, ok := conn.Demux(b, encap)
		if !ok {
			if kind != 0 || body != nil {
				t.Fatalf("refused with %v %x", kind, body)
			}
			return
		}
		if len(body) == 0 || !bytes.HasSuffix(b, body) {
			t.Fatalf("body %x of %x", body, b)
		}
		switch kind {
		case conn.ESP:
			if !encap || bytes.Equal(body[:4], make([]byte, 4)) {
				t.Fatalf("ESP: %x encap=%v", body, encap)
			}
		case conn.Keepalive:
			if !encap || len(b) != 1 {
				t.Fatalf("keepalive: %x encap=%v", b, encap)
			}
		case conn.IKE:
			if want := len(b); encap && len(body) != want-4 || !encap && len(body) != want {
				t.Fatalf("IKE: %x of %x encap=%v", body, b, encap)
			}
		default:
			t.Fatalf("kind %v", kind)
		}
	})
}
