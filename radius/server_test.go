package radius_test

import (
	"bytes"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"adit/radius"
)

const secret = "s3cret"

// ask is one request as the scripted server sees it.
type ask struct {
	*radius.Packet
	raw  []byte
	n    int            // how many datagrams came before
	from netip.AddrPort // of the client
}

func (a *ask) reply(t testing.TB, code radius.Code, attrs ...radius.Attribute) []byte {
	return response(t, code, a.Identifier, &a.Authenticator, secret, attrs...)
}

func attr(t radius.Type, v string) radius.Attribute {
	return radius.Attribute{Type: t, Value: []byte(v)}
}

func eapAttr(b ...byte) radius.Attribute {
	return radius.Attribute{Type: radius.TypeEAPMessage, Value: b}
}

// aaa is an in-process server on loopback that answers what a script says. It checks
// that every request is as RFC 3579 and CVE-2024-3596 want it.
type aaa struct {
	conn  *net.UDPConn
	seen  atomic.Int64
	mu    sync.Mutex
	ports map[uint16]bool
}

func serve(t testing.TB, script func(*ask) [][]byte) *aaa {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadBuffer(4 << 20)
	s := &aaa{conn: conn, ports: map[uint16]bool{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			raw := bytes.Clone(buf[:n])
			p, err := radius.Parse(raw)
			if err != nil {
				t.Errorf("request: %v", err)
				continue
			}
			if p.Attributes[0].Type != radius.TypeMessageAuthenticator {
				t.Errorf("the first attribute is %v", p.Attributes[0].Type)
			}
			if err := radius.VerifyRequest(raw, []byte(secret)); err != nil {
				t.Errorf("request: %v", err)
			}
			s.mu.Lock()
			s.ports[from.Port()] = true
			s.mu.Unlock()
			a := &ask{Packet: p, raw: raw, n: int(s.seen.Add(1)) - 1, from: from}
			for _, b := range script(a) {
				conn.WriteToUDPAddrPort(b, from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return s
}

func (s *aaa) config(name string) radius.ServerConfig {
	a := s.conn.LocalAddr().(*net.UDPAddr)
	return radius.ServerConfig{Name: name, Address: "127.0.0.1", Port: uint16(a.Port), Secret: []byte(secret),
		Timeout: 100 * time.Millisecond, Base: 1.2, Tries: 4}
}

func newClient(t testing.TB, servers ...radius.ServerConfig) *radius.Client {
	t.Helper()
	return newClientWith(t, radius.Config{Servers: servers})
}

func newClientWith(t testing.TB, cfg radius.Config) *radius.Client {
	t.Helper()
	c, err := radius.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// silence is a port where nobody answers, without ICMP errors.
func silence(t testing.TB) *aaa {
	return serve(t, func(*ask) [][]byte { return nil })
}

func accessRequest() *radius.Packet {
	p := &radius.Packet{Code: radius.AccessRequest}
	p.AddString(radius.TypeUserName, "carol")
	p.AddEAP([]byte{2, 1, 0, 10, 1, 'c', 'a', 'r', 'o', 'l'})
	return p
}
