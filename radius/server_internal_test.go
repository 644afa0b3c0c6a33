package radius

import (
	"context"
	"net"
	"testing"
	"time"
)

// Sockets, and with them source ports and the server's address, don't last for ever;
// an old one goes when its last request is done.
func TestOldSocketsRetire(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	hold, held := make(chan bool, 1), make(chan bool, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, MaxPacket)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			p, err := Parse(buf[:n])
			if err != nil {
				t.Error(err)
				continue
			}
			b, err := SealResponse(&Packet{Code: AccessAccept, Identifier: p.Identifier}, &p.Authenticator, []byte("s"))
			if err != nil {
				t.Error(err)
			}
			if _, ok := p.Get(TypeState); ok {
				go func() {
					held <- true
					<-hold
					conn.WriteToUDPAddrPort(b, from)
				}()
				continue
			}
			conn.WriteToUDPAddrPort(b, from)
		}
	}()
	c, err := NewClient(Config{Servers: []ServerConfig{{Address: "127.0.0.1", Secret: Key("s"), Timeout: 10 * time.Second,
		Port: uint16(conn.LocalAddr().(*net.UDPAddr).Port)}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { c.Close(); conn.Close(); <-done }()
	s := c.servers[0]
	exchange := func(attrs ...Attribute) {
		if _, err := c.Exchange(context.Background(), &Packet{Code: AccessRequest, Attributes: attrs}, nil); err != nil {
			t.Error(err)
		}
	}
	sockets := func() (ks []*socket) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return append(ks, s.sockets...)
	}
	slow := make(chan struct{})
	go func() {
		exchange(Attribute{TypeState, nil})
		close(slow)
	}()
	<-held
	old := sockets()[0]
	s.mu.Lock()
	old.born = old.born.Add(-2 * socketLife)
	s.mu.Unlock()
	exchange()
	if ks := sockets(); len(ks) != 2 || ks[0] != old {
		t.Fatalf("%d sockets", len(ks))
	}
	hold <- true
	<-slow
	for end := time.Now().Add(5 * time.Second); len(sockets()) != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the old socket stays")
		}
	}
	if sockets()[0] == old {
		t.Error("the new socket went")
	}
}
