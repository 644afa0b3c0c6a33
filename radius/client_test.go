package radius_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"adit/radius"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seal signs a response whose attributes are given as octets, with a Response
// Authenticator that is right and nothing else.
func (a *ask) seal(code radius.Code, id uint8, attrs []byte) []byte {
	b := append([]byte{byte(code), id, 0, 0}, a.Authenticator[:]...)
	b = append(b, attrs...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	sum := md5.Sum(append(bytes.Clone(b), secret...))
	copy(b[4:], sum[:])
	return b
}

// Whatever a forger sends before it, the server's own response is what counts; each
// forgery is dropped and counted.
func TestHostileResponsesNeverEndTheWaiting(t *testing.T) {
	accept := func(a *ask) []byte { return a.reply(t, radius.AccessAccept, attr(radius.TypeClass, "forged")) }
	for _, c := range []struct {
		name   string
		forge  func(a *ask) []byte
		counts func(s radius.ServerStats) uint64
	}{
		{"RFC2865_3_WrongResponseAuthenticator", func(a *ask) []byte { b := accept(a); b[4] ^= 1; return b },
			func(s radius.ServerStats) uint64 { return s.BadAuthenticator }},
		{"WrongSecret", func(a *ask) []byte {
			return response(t, radius.AccessAccept, a.Identifier, &a.Authenticator, "other")
		}, func(s radius.ServerStats) uint64 { return s.BadAuthenticator }},
		{"ReplayForAnotherRequest", func(a *ask) []byte {
			return response(t, radius.AccessAccept, a.Identifier, &[16]byte{1}, secret)
		}, func(s radius.ServerStats) uint64 { return s.BadAuthenticator }},
		// What the collision of CVE-2024-3596 gives an attacker: an Access-Accept (with
		// the rejection's octets in a Proxy-State) under a right Response Authenticator.
		{"CVE2024_3596_AcceptWithoutMessageAuthenticator", func(a *ask) []byte {
			return a.seal(radius.AccessAccept, a.Identifier, append([]byte{33, 18}, make([]byte, 16)...))
		}, func(s radius.ServerStats) uint64 { return s.NoMessageAuthenticator }},
		{"CVE2024_3596_RejectWithoutMessageAuthenticator", func(a *ask) []byte {
			return a.seal(radius.AccessReject, a.Identifier, nil)
		}, func(s radius.ServerStats) uint64 { return s.NoMessageAuthenticator }},
		{"CVE2024_3596_ChallengeWithoutMessageAuthenticator", func(a *ask) []byte {
			return a.seal(radius.AccessChallenge, a.Identifier, []byte{24, 3, 1})
		}, func(s radius.ServerStats) uint64 { return s.NoMessageAuthenticator }},
		{"RFC3579_3_2_WrongMessageAuthenticator", func(a *ask) []byte {
			return a.seal(radius.AccessAccept, a.Identifier, append([]byte{80, 18}, make([]byte, 16)...))
		}, func(s radius.ServerStats) uint64 { return s.BadMessageAuthenticator }},
		{"RFC3579_3_2_ShortMessageAuthenticator", func(a *ask) []byte {
			return a.seal(radius.AccessAccept, a.Identifier, []byte{80, 2})
		}, func(s radius.ServerStats) uint64 { return s.BadMessageAuthenticator }},
		{"RFC3579_3_3_TwoMessageAuthenticators", func(a *ask) []byte {
			// The second one is right for the packet as it is.
			b := append([]byte{2, a.Identifier, 0, 20 + 36}, a.Authenticator[:]...)
			b = append(append(b, 80, 18), make([]byte, 16)...)
			b = append(append(b, 80, 18), make([]byte, 16)...)
			h := hmac.New(md5.New, []byte(secret))
			h.Write(b)
			copy(b[40:], h.Sum(nil))
			return a.seal(radius.AccessAccept, a.Identifier, b[20:])
		}, func(s radius.ServerStats) uint64 { return s.BadMessageAuthenticator }},
		{"WrongIdentifier", func(a *ask) []byte { return a.seal(radius.AccessAccept, a.Identifier+1, nil) },
			func(s radius.ServerStats) uint64 { return s.Stray }},
		{"Reflected", func(a *ask) []byte { return a.raw },
			func(s radius.ServerStats) uint64 { return s.Malformed }},
		{"AccountingResponse", func(a *ask) []byte { return a.seal(radius.AccountingResponse, a.Identifier, nil) },
			func(s radius.ServerStats) uint64 { return s.Malformed }},
		{"LengthBeyondDatagram", func(a *ask) []byte { b := accept(a); b[3]++; return b },
			func(s radius.ServerStats) uint64 { return s.Malformed }},
		{"Huge", func(a *ask) []byte {
			b := a.seal(radius.AccessAccept, a.Identifier, bytes.Repeat([]byte{26, 255}, 9000))
			binary.BigEndian.PutUint16(b[2:], 9020)
			return b
		}, func(s radius.ServerStats) uint64 { return s.Malformed }},
		{"BrokenAttribute", func(a *ask) []byte { return a.seal(radius.AccessAccept, a.Identifier, []byte{80, 200}) },
			func(s radius.ServerStats) uint64 { return s.Malformed }},
		{"TooManyAttributes", func(a *ask) []byte {
			return a.seal(radius.AccessAccept, a.Identifier, bytes.Repeat([]byte{25, 2}, radius.MaxAttributes+1))
		}, func(s radius.ServerStats) uint64 { return s.Malformed }},
		{"Short", func(a *ask) []byte { return []byte{2, a.Identifier, 0} },
			func(s radius.ServerStats) uint64 { return s.Malformed }},
		{"Empty", func(a *ask) []byte { return nil },
			func(s radius.ServerStats) uint64 { return s.Malformed }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			srv := serve(t, func(a *ask) [][]byte {
				// The forgeries come first, to the first transmission alone; the server's
				// own word to the second one.
				if a.n == 0 {
					return [][]byte{c.forge(a), c.forge(a)}
				}
				return [][]byte{a.reply(t, radius.AccessReject)}
			})
			cl := newClient(t, srv.config("s"))
			r, err := cl.Exchange(context.Background(), accessRequest(), nil)
			if err != nil || r.Code != radius.AccessReject {
				t.Fatalf("%v %v", r, err)
			}
			st := cl.Stats()[0]
			if c.counts(st) < 2 || st.Rejects != 1 || st.Retransmits < 1 || st.Accepts != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

func TestResponsesFromElsewhereAreNotSeen(t *testing.T) {
	other, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	srv := serve(t, func(a *ask) [][]byte {
		if a.n == 0 { // even a right one: from another address and from another port
			other.WriteToUDPAddrPort(a.reply(t, radius.AccessAccept), a.from)
			return nil
		}
		return [][]byte{a.reply(t, radius.AccessReject)}
	})
	cl := newClient(t, srv.config("s"))
	if r, err := cl.Exchange(context.Background(), accessRequest(), nil); err != nil || r.Code != radius.AccessReject {
		t.Fatal(r, err)
	}
}

func TestRetransmissionsAreTheSameOctets(t *testing.T) {
	var mu sync.Mutex
	var got [][]byte
	srv := serve(t, func(a *ask) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		if got = append(got, a.raw); a.n < 2 {
			return nil
		}
		b := a.reply(t, radius.AccessAccept)
		return [][]byte{b, b} // the second is late for everybody
	})
	cfg := srv.config("s")
	cfg.NASIdentifier = "gw"
	cl := newClient(t, cfg)
	if _, err := cl.Exchange(context.Background(), accessRequest(), nil); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(got) != 3 || !bytes.Equal(got[0], got[1]) || !bytes.Equal(got[0], got[2]) {
		t.Errorf("%x", got)
	}
	if p, _ := radius.Parse(got[0]); string(p.All(radius.TypeNASIdentifier)[0]) != "gw" {
		t.Error("no NAS-Identifier")
	}
}

// strongSwan's default is one request a server at a time; here they all wait together.
func TestManyRequestsInFlight(t *testing.T) {
	const n = 600
	var mu sync.Mutex
	var held []*ask
	var srv *aaa
	ready := make(chan struct{})
	srv = serve(t, func(a *ask) [][]byte {
		<-ready
		mu.Lock()
		defer mu.Unlock()
		if held = append(held, a); len(held) < n {
			return nil // until all are in flight
		}
		for i := range held { // in the reverse order
			h := held[len(held)-1-i]
			name, _ := h.Get(radius.TypeUserName)
			srv.conn.WriteToUDPAddrPort(h.reply(t, radius.AccessAccept, radius.Attribute{Type: radius.TypeClass, Value: name}), h.from)
		}
		return nil
	})
	close(ready)
	cfg := srv.config("s")
	cfg.Timeout, cfg.Sockets = 10*time.Second, 4
	cl := newClient(t, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			p := &radius.Packet{Code: radius.AccessRequest}
			p.AddString(radius.TypeUserName, fmt.Sprint("user", i))
			r, err := cl.Exchange(ctx, p, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if c, _ := r.Get(radius.TypeClass); string(c) != fmt.Sprint("user", i) {
				t.Errorf("user%d got the answer of %s", i, c)
			}
		})
	}
	wg.Wait()
	st := cl.Stats()[0]
	if st.Requests != n || st.Retransmits != 0 || st.InFlight != 0 || st.Sockets != 3 {
		t.Errorf("%+v", st)
	}
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if len(srv.ports) != 3 {
		t.Errorf("ports %v", srv.ports)
	}
}

func TestBusyIsSaid(t *testing.T) {
	srv := silence(t)
	cfg := srv.config("s")
	cfg.Sockets, cfg.Timeout = 1, time.Minute
	cl := newClient(t, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 256 {
		wg.Go(func() {
			if _, err := cl.Exchange(ctx, accessRequest(), nil); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	for cl.Stats()[0].InFlight < 256 {
		time.Sleep(time.Millisecond)
	}
	if _, err := cl.Exchange(ctx, accessRequest(), nil); !errors.Is(err, radius.ErrBusy) {
		t.Error(err)
	}
	cancel()
	wg.Wait()
	if st := cl.Stats()[0]; st.InFlight != 0 || st.Dead {
		t.Errorf("%+v", st)
	}
}

func TestFailOverAndBack(t *testing.T) {
	var alive sync.Map
	script := func(name string) func(a *ask) [][]byte {
		return func(a *ask) [][]byte {
			if _, ok := alive.Load(name); !ok {
				return nil
			}
			return [][]byte{a.reply(t, radius.AccessAccept, attr(radius.TypeClass, name))}
		}
	}
	a, b := serve(t, script("a")), serve(t, script("b"))
	ca, cb := a.config("a"), b.config("b")
	ca.Preference, ca.Tries, ca.Timeout = 10, 2, 40*time.Millisecond
	cl := newClientWith(t, radius.Config{Servers: []radius.ServerConfig{cb, ca}, DeadTime: 600 * time.Millisecond})
	alive.Store("b", true)
	from := func(want string) {
		t.Helper()
		r, err := cl.Exchange(context.Background(), accessRequest(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Server.Name() != want {
			t.Fatalf("%s answered, want %s", r.Server.Name(), want)
		}
	}
	from("b")
	if n := a.seen.Load(); n != 2 {
		t.Errorf("the preferred server was asked %d times", n)
	}
	for range 5 {
		from("b")
	}
	if n := a.seen.Load(); n != 2 || !cl.Stats()[1].Dead {
		t.Errorf("a dead server was asked again: %d", n)
	}
	time.Sleep(650 * time.Millisecond)
	from("b") // tries the dead one with one transmission
	from("b")
	if n := a.seen.Load(); n != 3 {
		t.Errorf("%d transmissions after the trial", n)
	}
	alive.Store("a", true)
	time.Sleep(650 * time.Millisecond)
	from("a")
	from("a")
	if cl.Stats()[1].Dead {
		t.Error("still dead")
	}
	// A conversation stays where it is.
	alive.Delete("a")
	r, err := cl.Exchange(context.Background(), accessRequest(), nil)
	if err != nil {
		t.Fatal(err)
	}
	alive.Store("a", true)
	alive.Delete("b")
	if _, err := cl.Exchange(context.Background(), accessRequest(), r.Server); !errors.Is(err, radius.ErrNoAnswer) {
		t.Errorf("bound to %s: %v", r.Server.Name(), err)
	}
	alive.Delete("a")
	if _, err = cl.Exchange(context.Background(), accessRequest(), nil); !errors.Is(err, radius.ErrNoAnswer) {
		t.Error("nobody there:", err)
	}
}

func TestRefusedPortFailsOverAtOnce(t *testing.T) {
	gone, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	srv := serve(t, func(a *ask) [][]byte { return [][]byte{a.reply(t, radius.AccessAccept)} })
	cfg := srv.config("gone")
	cfg.Port, cfg.Preference, cfg.Timeout = uint16(gone.LocalAddr().(*net.UDPAddr).Port), 1, time.Minute
	gone.Close()
	cl := newClient(t, cfg, srv.config("there"))
	start := time.Now()
	r, err := cl.Exchange(context.Background(), accessRequest(), nil)
	if err != nil || r.Server.Name() != "there" || time.Since(start) > 5*time.Second {
		t.Fatal(r, err, time.Since(start))
	}
	// With nobody else to ask, an ICMP error ends nothing.
	cfg.Timeout, cfg.Tries, cfg.Base = 50*time.Millisecond, 2, 1
	alone := newClient(t, cfg)
	start = time.Now()
	if _, err = alone.Exchange(context.Background(), accessRequest(), nil); !errors.Is(err, radius.ErrNoAnswer) || time.Since(start) < 100*time.Millisecond {
		t.Fatal(err, time.Since(start))
	}
}

// One request found out that a server is dead: those that wait for it needn't.
func TestWaitingRequestsLeaveADeadServer(t *testing.T) {
	srv := serve(t, func(a *ask) [][]byte { return [][]byte{a.reply(t, radius.AccessAccept)} })
	quiet := silence(t)
	dead := quiet.config("dead")
	dead.Preference, dead.Timeout, dead.Base, dead.Tries = 1, 150*time.Millisecond, 1, 4
	cl := newClient(t, dead, srv.config("there"))
	first := make(chan error)
	go func() {
		_, err := cl.Exchange(context.Background(), accessRequest(), nil)
		first <- err
	}()
	for quiet.seen.Load() < 4 { // the last transmission
		time.Sleep(time.Millisecond)
	}
	if r, err := cl.Exchange(context.Background(), accessRequest(), nil); err != nil || r.Server.Name() != "there" {
		t.Error(r, err)
	}
	if n := quiet.seen.Load(); n > 7 {
		t.Errorf("the second request sent all of its %d transmissions", n-4)
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
}

// A server that answers others is alive, whatever it thinks of one peer's packet.
func TestOneUnansweredRequestIsNoDeath(t *testing.T) {
	srv := serve(t, func(a *ask) [][]byte {
		if _, ok := a.Get(radius.TypeState); ok {
			return nil
		}
		return [][]byte{a.reply(t, radius.AccessAccept)}
	})
	cl := newClient(t, srv.config("s"))
	res := make(chan error)
	go func() {
		p := accessRequest()
		p.AddString(radius.TypeState, "unloved")
		_, err := cl.Exchange(context.Background(), p, nil)
		res <- err
	}()
	for cl.Stats()[0].InFlight == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := cl.Exchange(context.Background(), accessRequest(), nil); err != nil {
		t.Error(err)
	}
	if err := <-res; !errors.Is(err, radius.ErrNoAnswer) || cl.Stats()[0].Dead {
		t.Error(err, cl.Stats())
	}
}

func TestSlowServerAnswersInTime(t *testing.T) {
	srv := serve(t, func(a *ask) [][]byte {
		if a.n == 0 { // the answer to the first transmission, after the second
			time.Sleep(150 * time.Millisecond)
			return [][]byte{a.reply(t, radius.AccessAccept)}
		}
		return nil
	})
	cl := newClient(t, srv.config("s"))
	if _, err := cl.Exchange(context.Background(), accessRequest(), nil); err != nil {
		t.Fatal(err)
	}
}

func TestContextAndClose(t *testing.T) {
	cfg := silence(t).config("s")
	cfg.Timeout = time.Minute
	cl := newClient(t, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := cl.Exchange(ctx, accessRequest(), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if cl.Stats()[0].Dead {
		t.Error("a cancelled request says nothing about the server")
	}
	res := make(chan error)
	go func() {
		_, err := cl.Exchange(context.Background(), accessRequest(), nil)
		res <- err
	}()
	for cl.Stats()[0].InFlight == 0 {
		time.Sleep(time.Millisecond)
	}
	cl.Close()
	if err := <-res; !errors.Is(err, radius.ErrClosed) {
		t.Error(err)
	}
	if _, err := cl.Exchange(context.Background(), accessRequest(), nil); !errors.Is(err, radius.ErrClosed) {
		t.Error(err)
	}
	cl.Close()
}

func TestHostNames(t *testing.T) {
	srv := serve(t, func(a *ask) [][]byte { return [][]byte{a.reply(t, radius.AccessAccept)} })
	bad, good := srv.config("bad"), srv.config("good")
	bad.Address, bad.Preference = "nowhere.example", 1
	good.Address, good.Source = "aaa.example", netip.MustParseAddr("127.0.0.9")
	marked := 0
	cl := newClientWith(t, radius.Config{Servers: []radius.ServerConfig{bad, good},
		Control: func(network, _ string, _ syscall.RawConn) error {
			if marked++; network != "udp4" {
				t.Error(network)
			}
			return nil
		},
		Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
			if host == "aaa.example" {
				return []netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("127.0.0.1")}, nil
			}
			return nil, errors.New("no such host")
		}})
	if r, err := cl.Exchange(context.Background(), accessRequest(), nil); err != nil || r.Server.Name() != "good" {
		t.Fatal(r, err)
	}
	if marked != 1 {
		t.Errorf("Control was called %d times", marked)
	}
}

// An administrator has to see why: the server answers, in vain.
func TestDroppedResponsesAreNamed(t *testing.T) {
	for want, forge := range map[error]func(a *ask) []byte{
		radius.ErrAuthenticator: func(a *ask) []byte { return response(t, radius.AccessAccept, a.Identifier, &a.Authenticator, "x") },
		radius.ErrNoMessageAuth: func(a *ask) []byte { return a.seal(radius.AccessAccept, a.Identifier, nil) },
	} {
		cfg := serve(t, func(a *ask) [][]byte { return [][]byte{forge(a)} }).config("s")
		cfg.Timeout, cfg.Tries = 50*time.Millisecond, 2
		if _, err := newClient(t, cfg).Exchange(context.Background(), accessRequest(), nil); !errors.Is(err, want) || !errors.Is(err, radius.ErrNoAnswer) {
			t.Errorf("%v, want %v", err, want)
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	cfg := radius.ServerConfig{Secret: radius.Key("shibboleth")}
	step := radius.Step{MSK: radius.Key("shibboleth")}
	js, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprintf("%v %+v %#v %s %x", cfg, step, cfg, step.MSK, cfg.Secret), string(js)} {
		if strings.Contains(s, "shib") || strings.Contains(s, "73686962") || !strings.Contains(s, "[key]") {
			t.Error(s)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	for name, cfg := range map[string]radius.Config{
		"no server":  {},
		"no secret":  {Servers: []radius.ServerConfig{{Address: "10.0.0.1"}}},
		"no address": {Servers: []radius.ServerConfig{{Secret: []byte("s")}}},
		"long name":  {Servers: []radius.ServerConfig{{Address: "a", Secret: []byte("s"), NASIdentifier: string(make([]byte, 254))}}},
		"too many":   {Servers: make([]radius.ServerConfig, radius.MaxServers+1)},
	} {
		if _, err := radius.NewClient(cfg); err == nil {
			t.Error(name, "accepted")
		}
	}
}
