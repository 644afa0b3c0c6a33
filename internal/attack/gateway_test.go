package attack_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"adit/conf"
	"adit/dataplane/userspace"
	"adit/ike"
	"adit/ike/ikev2"
	"adit/internal/config"
	"adit/internal/conn"
	"adit/internal/control"
	"adit/internal/gateway"
	"adit/tun"
	"adit/vici"
)

// whole is a gateway with everything that belongs to it but the host.
type whole struct {
	t      *testing.T
	inside *tun.Memory
	plane  *userspace.Plane
	gw     *gateway.Gateway
	uri    string
}

func newWhole(t *testing.T, network *conn.Network, addr netip.Addr) *whole {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	h, err := network.Host(addr)
	check(err)
	sockets, err := h.Listen(conn.Options{})
	check(err)
	w := &whole{t: t}
	inner, outer := tun.Pipe(1400)
	w.inside = outer
	w.plane, err = userspace.New(userspace.Config{Tun: inner, Conn: sockets, IKE: func(p *conn.Packet) {
		w.gw.Datagram(ike.Datagram{Local: p.Local, Remote: p.Remote, Data: p.Buf})
	}})
	check(err)
	daemon, err := config.LoadDaemon("")
	check(err)
	w.gw, err = gateway.New(gateway.Options{Daemon: daemon, Dataplane: w.plane, Transport: gateway.Sockets{Conn: sockets},
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Versions: []ike.Version{ikev2.Version}, ForceEncap: true})
	check(err)
	w.gw.Start()
	check(w.plane.Start())
	srv := vici.NewServer(vici.Options{})
	stop := control.Register(srv, w.gw, control.Options{Version: "1", Counters: func() map[string]uint64 { return nil }, Decode: control.Decoder{
		Conn:   func(name string, b *conf.Section) (*ike.Peer, error) { return config.DecodeConn(name, b, daemon) },
		Secret: config.DecodeSecret}})
	w.uri = "unix://" + filepath.Join(t.TempDir(), "vici")
	l, err := vici.Listen(w.uri)
	check(err)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		w.gw.Shutdown()
		stop()
		srv.Close()
		<-served
		w.plane.Close()
		sockets.Close()
		inner.Close()
		outer.Close()
	})
	return w
}

// call is one command of a client of its own.
func (w *whole) call(command string, msg *conf.Section) (*conf.Section, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	c, err := vici.Dial(ctx, w.uri)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Call(ctx, command, msg)
}

func (w *whole) ok(command, body string) {
	w.t.Helper()
	msg, err := conf.ParseBytes("request", []byte(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if res, err := w.call(command, msg); err != nil || res.Text("success") != "yes" {
		w.t.Fatalf("%s: %v %v", command, err, res)
	}
}

// passes sends packets until one arrives at the other side: memory networks lose
// what finds a queue full.
func passes(t *testing.T, from, to *whole, src, dst netip.Addr) {
	t.Helper()
	got := make(chan bool, 1)
	go func() {
		for {
			bufs, sizes := [][]byte{make([]byte, 2000)}, []int{0}
			n, err := to.inside.Read(bufs, sizes, 0)
			if err != nil || n > 0 && sizes[0] == 32 {
				got <- err == nil
				return
			}
		}
	}()
	for range 200 {
		if _, err := from.inside.Write([][]byte{ipv4(src, dst, 1)}, 0); err != nil {
			t.Fatal(err)
		}
		select {
		case ok := <-got:
			if !ok {
				t.Fatal("the device is closed")
			}
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatal("nothing passes the honest tunnel")
}

// The whole gateway under junk from the network and from clients at once: the
// tunnel of the honest peer passes packets all the time and answers commands.
func TestWholeGatewayUnderAttack(t *testing.T) {
	network := conn.NewNetwork()
	a, b := newWhole(t, network, victimAddr), newWhole(t, network, honestAddr)
	body := func(local, remote netip.Addr, lts, rts string) string {
		return fmt.Sprintf("gw {\n local_addrs = %s\n remote_addrs = %s\n local {\n auth = psk\n }\n remote {\n auth = psk\n id = %s\n }\n children {\n net {\n local_ts = %s\n remote_ts = %s\n }\n }\n}\n", local, remote, remote, lts, rts)
	}
	a.ok("load-conn", body(victimAddr, honestAddr, "10.1.0.0/16", "10.2.0.0/16"))
	b.ok("load-conn", body(honestAddr, victimAddr, "10.2.0.0/16", "10.1.0.0/16"))
	for _, w := range []*whole{a, b} {
		w.ok("load-shared", "id = k\ntype = IKE\ndata = \"a secret that is long enough\"\n")
	}
	b.ok("initiate", "child = net\ntimeout = 10000\n")
	passes(t, a, b, insideHost, honestNet)

	stop, done := make(chan struct{}), make(chan int, 1)
	go func() {
		n := 0
		defer func() { done <- n }()
		world := &world{t: t}
		p := &hostile{w: world, at: netip.AddrPortFrom(hostileAddr, 500), group: 31, spiI: 1, ni: random(32)}
		list := p.initPayloads()
		for ; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			p.spiI = random64()
			for port, data := range map[uint16][]byte{500: p.first(list...), 4500: append(make([]byte, 4), p.first(list...)...)} {
				network.Inject(conn.Datagram{Src: addr(n), Dst: netip.AddrPortFrom(victimAddr, port), Payload: data})
				mutated := bytes.Clone(data)
				mutated[random64()%uint64(len(data))] ^= byte(random64())
				network.Inject(conn.Datagram{Src: netip.AddrPortFrom(honestAddr, 500), Dst: netip.AddrPortFrom(victimAddr, port), Payload: mutated})
			}
			network.Inject(conn.Datagram{Src: addr(n), Dst: netip.AddrPortFrom(victimAddr, 4500), Payload: append(binary.BigEndian.AppendUint32(nil, uint32(random64())), random(100)...)})
			if n%20 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	// Clients that send every command what it does not expect.
	junk := func(key, value string) *conf.Section {
		s := conf.New("")
		s.Set(key, value)
		s.SetList("list", "a", value)
		s.Add("section").Set(key, value)
		return s
	}
	long := strings.Repeat("x", 60_000)
	for _, command := range []string{"version", "stats", "reload-settings", "initiate", "terminate", "rekey", "install", "uninstall", "list-sas", "list-conns", "get-conns",
		"load-conn", "unload-conn", "load-shared", "unload-shared", "get-shared", "get-keys", "load-cert", "load-key", "load-token", "load-authority", "load-pool", "redirect", "nonsense"} {
		for _, msg := range []*conf.Section{nil, junk("id", long), junk("child", "net\x00"), junk("ike-id", "-1"), junk("timeout", "99999999999999999999"), junk("type", "IKE")} {
			if command == "initiate" && msg != nil && msg.Text("child") == "" {
				msg.Set("timeout", "10")
			}
			if _, err := a.call(command, msg); err != nil && strings.Contains(err.Error(), "deadline") {
				t.Errorf("%s hangs: %v", command, err)
			}
		}
	}
	passes(t, a, b, insideHost, honestNet)
	passes(t, b, a, honestNet, insideHost)
	b.ok("rekey", "child = net\n")
	passes(t, a, b, insideHost, honestNet)
	close(stop)
	n := <-done
	all, err := a.gw.Stats(t.Context())
	st := all.Engine
	if err != nil || st.Bugs != 0 || st.HalfOpen > 30 || st.Established != 1 {
		t.Errorf("%+v", st)
	}
	if res, err := a.call("stats", nil); err != nil || res.Sub("ikesas") == nil {
		t.Errorf("%v %v", res, err)
	}
	c := a.plane.Counters()
	if c.Drops(userspace.InNoSA) == 0 || c.Drops(userspace.BatchPanic) != 0 || c.IKE == 0 {
		t.Errorf("%+v", c)
	}
	t.Logf("%d rounds of junk; %d IKE datagrams, %d unknown SPIs", n, c.IKE, c.Drops(userspace.InNoSA))
}
