package radius

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

func disconnect(id uint8, at time.Time) *Packet {
	p := &Packet{Code: DisconnectRequest, Identifier: id}
	p.AddString(TypeUserName, "alice")
	if !at.IsZero() {
		p.AddUint32(TypeEventTimestamp, uint32(at.Unix()))
	}
	return p
}

// A request is carried out once: a repeated one gets the same answer, as long as its time
// stamp is good; without a good one there is no answer at all (RFC 5176 §6.3).
func TestRFC5176_ReplayedRequest(t *testing.T) {
	secret := Key("0123456789abcdef")
	done := 0
	d := NewDAE(nil, DAEConfig{Secret: secret, Handle: func(context.Context, *Packet) Verdict { done++; return Verdict{} }})
	now := time.Now()
	b, err := SealAccounting(disconnect(1, now), secret, true)
	if err != nil {
		t.Fatal(err)
	}
	p, again, err := d.receive(now, b)
	if p == nil || again != nil || err != nil {
		t.Fatal(p, again, err)
	}
	if p, again, err := d.receive(now, b); p != nil || again != nil || err != nil {
		t.Fatalf("a request under way is taken twice: %v %v %v", p, again, err)
	}
	first := d.answer(context.Background(), p)
	if p, again, err := d.receive(now.Add(time.Minute), b); p != nil || string(again) != string(first) || err != nil {
		t.Fatalf("repeated: %v %x %v", p, again, err)
	}
	if _, _, err := d.receive(now.Add(daeWindow+2*time.Second), b); !errors.Is(err, ErrTimestamp) {
		t.Errorf("an old request: %v", err)
	}
	// One from the future is still known when its time comes.
	b, _ = SealAccounting(disconnect(2, now.Add(daeWindow-time.Second)), secret, false)
	if p, _, err = d.receive(now, b); p == nil || err != nil {
		t.Fatal(p, err)
	}
	d.answer(context.Background(), p)
	if p, again, err := d.receive(now.Add(2*daeWindow-3*time.Second), b); p != nil || again == nil || err != nil {
		t.Errorf("replayed later: %v %x %v", p, again, err)
	}
	if done != 2 {
		t.Errorf("carried out %d times", done)
	}
	for what, x := range map[string]struct {
		b    []byte
		want error
	}{
		"no time stamp":   {seal(t, disconnect(3, time.Time{}), secret), ErrNoTimestamp},
		"another secret":  {seal(t, disconnect(3, now), Key("0123456789abcdeX")), ErrAuthenticator},
		"a changed octet": {flip(seal(t, disconnect(3, now), secret), headerLen+3), ErrAuthenticator},
		"another code":    {seal(t, &Packet{Code: AccessRequest}, secret), ErrCode},
		"cut short":       {seal(t, disconnect(3, now), secret)[:30], ErrShort},
		"wrong signature": {wrongMessage(t, disconnect(3, now), secret), ErrMessageAuth},
	} {
		if _, _, err := d.receive(now, x.b); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", what, err, x.want)
		}
	}
}

func seal(t *testing.T, p *Packet, secret Key) []byte {
	b, err := SealAccounting(p, secret, true)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func flip(b []byte, at int) []byte { b[at] ^= 1; return b }

// wrongMessage has a good Request Authenticator over a wrong Message-Authenticator.
func wrongMessage(t *testing.T, p *Packet, secret Key) []byte {
	p.Attributes = append([]Attribute{{TypeMessageAuthenticator, make([]byte, 16)}}, p.Attributes...)
	b, err := SealAccounting(p, secret, false)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The number of answers that are remembered is bounded; then new requests are dropped,
// and taken again when the old answers have gone.
func TestDAEBounds(t *testing.T) {
	secret := Key("0123456789abcdef")
	d := NewDAE(nil, DAEConfig{Secret: secret, AnyTime: true, Handle: func(context.Context, *Packet) Verdict { return Verdict{} }})
	now := time.Now()
	for i := range daeAnswers {
		d.known[[16]byte{byte(i), byte(i >> 8), 1}] = &daeAnswer{until: now.Add(time.Minute)}
	}
	b := seal(t, disconnect(1, time.Time{}), secret)
	if _, _, err := d.receive(now, b); !errors.Is(err, ErrCrowded) {
		t.Errorf("beyond the bound: %v", err)
	}
	if p, _, err := d.receive(now.Add(2*time.Minute), b); p == nil || err != nil || len(d.known) != 1 {
		t.Errorf("later: %v %v, %d known", p, err, len(d.known))
	}
}

// The client's accounting side against answers that verify and those that don't.
func TestRFC2866_Accounting(t *testing.T) {
	secret := Key("0123456789abcdef")
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var wrong atomic.Int32
	go func() {
		buf := make([]byte, MaxPacket)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			p, err := Parse(buf[:n])
			if err != nil || p.Code != AccountingRequest || requestAuthenticator(buf[:n], secret) != p.Authenticator {
				wrong.Add(1)
				continue
			}
			a := &Packet{Code: AccountingResponse, Identifier: p.Identifier}
			forged, _ := SealResponse(a, &[16]byte{}, secret)
			_, _ = conn.WriteTo(forged, from)
			a.Code = AccessAccept
			other, _ := SealResponse(a, &p.Authenticator, secret)
			_, _ = conn.WriteTo(other, from)
			a.Code = AccountingResponse
			good, _ := SealResponse(a, &p.Authenticator, secret)
			_, _ = conn.WriteTo(good, from)
		}
	}()
	c, err := NewClient(Config{Servers: []ServerConfig{{Address: "127.0.0.1", Port: netip.MustParseAddrPort(conn.LocalAddr().String()).Port(), Secret: secret, NASIdentifier: "adit"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := &Packet{Code: AccountingRequest}
	p.AddUint32(TypeAcctStatusType, AcctStart)
	r, err := c.Exchange(context.Background(), p, nil)
	if err != nil || r.Code != AccountingResponse || wrong.Load() != 0 {
		t.Fatalf("%v %v, %d requests did not verify", r, err, wrong.Load())
	}
	if s := c.Stats()[0]; s.BadAuthenticator != 1 || s.Malformed != 1 {
		t.Errorf("%+v", s)
	}
}

// FuzzOpenRequest reaches what the Request Authenticator hides.
func FuzzOpenRequest(f *testing.F) {
	secret := Key("s")
	for _, p := range []*Packet{disconnect(1, time.Unix(1, 0)), {Code: CoARequest, Attributes: []Attribute{{TypeMessageAuthenticator, make([]byte, 16)}}}} {
		b, _ := p.Append(nil)
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		if b, err := trim(b); err == nil && sealed {
			clear(b[4:20])
			sum := requestAuthenticator(b, secret)
			copy(b[4:], sum[:])
		}
		if p, err := OpenRequest(b, secret); err == nil && p.Code != DisconnectRequest && p.Code != CoARequest {
			t.Fatalf("%v", p.Code)
		}
		_, _ = OpenAccountingResponse(b, 1, &[16]byte{}, secret)
		d := NewDAE(nil, DAEConfig{Secret: secret, Handle: func(context.Context, *Packet) Verdict { return Verdict{Nak: true} }})
		if p, _, err := d.receive(time.Unix(1, 0), b); err == nil {
			d.answer(context.Background(), p)
		}
	})
}
