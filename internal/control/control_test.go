package control_test

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

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

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// side is a gateway over memory with its control socket.
type side struct {
	t      *testing.T
	gw     *gateway.Gateway
	inner  *tun.Memory // what the host behind it sees
	client *vici.Client
	srv    *vici.Server
	uri    string
}

func newSide(t *testing.T, wire *conn.Network, addr string) *side {
	t.Helper()
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	h, err := wire.Host(netip.MustParseAddr(addr))
	fatal(err)
	sockets, err := h.Listen(conn.Options{})
	fatal(err)
	s := &side{t: t}
	var dev *tun.Memory
	dev, s.inner = tun.Pipe(1400)
	plane, err := userspace.New(userspace.Config{Tun: dev, Conn: sockets, IKE: func(p *conn.Packet) {
		s.gw.Datagram(ike.Datagram{Local: p.Local, Remote: p.Remote, Data: p.Buf})
	}})
	fatal(err)
	daemon, err := config.LoadDaemon("")
	fatal(err)
	s.gw, err = gateway.New(gateway.Options{Daemon: daemon, Dataplane: plane, Transport: gateway.Sockets{Conn: sockets},
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Versions: []ike.Version{ikev2.Version}, ForceEncap: true})
	fatal(err)
	s.gw.Start()
	fatal(plane.Start())
	srv := vici.NewServer(vici.Options{})
	s.srv = srv
	stop := control.Register(srv, s.gw, control.Options{Version: "1.2.3", Counters: func() map[string]uint64 { return map[string]uint64{"in-auth-failed": 7} },
		Decode: control.Decoder{
			Conn: func(name string, b *conf.Section) (*ike.Peer, error) {
				if name == "panic" {
					panic("a seeded bug")
				}
				return config.DecodeConn(name, b, daemon)
			},
			Secret: config.DecodeSecret,
		}})
	s.uri = "unix://" + filepath.Join(t.TempDir(), "vici")
	ln, err := vici.Listen(s.uri)
	fatal(err)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	s.client, err = vici.Dial(t.Context(), s.uri)
	fatal(err)
	t.Cleanup(func() {
		_ = s.client.Close()
		s.gw.Shutdown()
		stop()
		_ = srv.Close()
		<-served
		_ = plane.Close()
		_ = sockets.Close()
		_ = dev.Close()
		_ = s.inner.Close()
	})
	return s
}

// call sends a command with a body in the file grammar; events of that name are collected.
func (s *side) call(command, body, event string) (*conf.Section, []*conf.Section) {
	s.t.Helper()
	msg, err := conf.ParseBytes("request", []byte(body))
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	var events []*conf.Section
	var res *conf.Section
	if event == "" {
		res, err = s.client.Call(ctx, command, msg)
	} else {
		res, err = s.client.Stream(ctx, command, event, msg, func(e *conf.Section) error {
			events = append(events, e)
			return nil
		})
	}
	if err != nil {
		s.t.Fatalf("%s: %v", command, err)
	}
	return res, events
}

// ok is a command that succeeds, refused one that fails with the text given.
func (s *side) ok(command, body string) *conf.Section {
	s.t.Helper()
	res, _ := s.call(command, body, "")
	if res.Text("success") != "yes" {
		s.t.Fatalf("%s: %s", command, res.Text("errmsg"))
	}
	return res
}

func (s *side) refused(command, body, want string) *conf.Section {
	s.t.Helper()
	res, _ := s.call(command, body, "")
	if res.Text("success") != "no" || res.Text("errmsg") != want {
		s.t.Fatalf("%s: success = %s, errmsg = %q, want %q", command, res.Text("success"), res.Text("errmsg"), want)
	}
	return res
}

func connBody(local, remote, localTS, remoteTS string) string {
	return "gw {\n version = 2\n local_addrs = " + local + "\n remote_addrs = " + remote + "\n keyingtries = 0\n dpd_delay = 30s\n local {\n auth = psk\n id = " + local + "\n }\n remote {\n auth = psk\n id = " + remote +
		"\n }\n children {\n net {\n local_ts = " + localTS + "\n remote_ts = " + remoteTS + "\n dpd_action = trap\n }\n lan {\n mode = pass\n start_action = trap\n local_ts = 10.1.0.0/16\n remote_ts = 10.1.0.0/16\n }\n }\n }\n"
}

func sides(t *testing.T) (left, right *side, wire *conn.Network) {
	wire = conn.NewNetwork()
	left, right = newSide(t, wire, "192.0.2.1"), newSide(t, wire, "192.0.2.2")
	left.ok("load-conn", connBody("192.0.2.1", "192.0.2.2", "10.1.0.0/24", "10.2.0.0/24"))
	right.ok("load-conn", connBody("192.0.2.2", "192.0.2.1", "10.2.0.0/24", "10.1.0.0/24"))
	for _, s := range []*side{left, right} {
		s.ok("load-shared", "id = ike-1\ntype = IKE\ndata = \"a secret that is long enough\"\nowners = 192.0.2.1, 192.0.2.2\n")
	}
	return left, right, wire
}

func text(s *conf.Section) string {
	var b strings.Builder
	var show func(prefix string, s *conf.Section)
	show = func(prefix string, s *conf.Section) {
		for e := range s.All() {
			switch {
			case e.Section != nil:
				show(prefix+e.Section.Name+".", e.Section)
			case e.Value.IsList:
				b.WriteString(prefix + e.Value.Key + " = [" + strings.Join(e.Value.List, " ") + "]\n")
			default:
				b.WriteString(prefix + e.Value.Key + " = " + e.Value.Text + "\n")
			}
		}
	}
	show("", s)
	return b.String()
}

func contains(t *testing.T, got string, wants ...string) {
	t.Helper()
	for _, w := range wants {
		if !strings.Contains(got, w) {
			t.Errorf("no %q in\n%s", w, got)
		}
	}
}

func TestTunnelOverVICI(t *testing.T) {
	left, right, wire := sides(t)
	res, lines := left.call("initiate", "child = net\ntimeout = 10000\n", "control-log")
	if res.Text("success") != "yes" {
		t.Fatal(res.Text("errmsg"))
	}
	log := ""
	for _, l := range lines {
		log += l.Text("group") + " " + l.Text("ikesa-name") + " " + l.Text("msg") + "\n"
	}
	contains(t, log, "IKE gw IKE SA gw[1] established between 192.0.2.1[192.0.2.1] and 192.0.2.2[192.0.2.2]", "CHD gw Child SA net{1} is up")

	// One packet through the tunnel, so that there is something to count.
	packet := []byte{0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 253, 0, 0, 10, 1, 0, 2, 10, 2, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8}
	checksum(packet[:20])
	buf := append(make([]byte, 64), packet...)
	if _, err := left.inner.Write([][]byte{buf}, 64); err != nil {
		t.Fatal(err)
	}
	in, sizes := [][]byte{make([]byte, 2048)}, []int{0}
	if n, err := right.inner.Read(in, sizes, 0); err != nil || n != 1 || sizes[0] != len(packet) {
		t.Fatal(n, err, sizes)
	}
	_, sas := left.call("list-sas", "", "list-sa")
	if len(sas) != 1 {
		t.Fatalf("%d IKE SAs", len(sas))
	}
	contains(t, text(sas[0]), "gw.uniqueid = 1\n", "gw.version = 2\n", "gw.state = ESTABLISHED\n", "gw.local-host = 192.0.2.1\n", "gw.local-port = 4500\n", "gw.local-id = 192.0.2.1\n",
		"gw.remote-host = 192.0.2.2\n", "gw.initiator = yes\n", "gw.nat-fake = yes\n", "gw.nat-any = yes\n", "gw.encr-alg = AES_GCM_16\n", "gw.encr-keysize = ", "gw.prf-alg = PRF_HMAC_SHA2_", "gw.dh-group = CURVE_25519\n",
		"gw.established = 0\n", "gw.rekey-time = ", "gw.child-sas.net-1.name = net\n", "gw.child-sas.net-1.uniqueid = 1\n", "net-1.reqid = 1\n", "net-1.state = INSTALLED\n", "net-1.mode = TUNNEL\n",
		"net-1.protocol = ESP\n", "net-1.encap = yes\n", "net-1.encr-alg = AES_GCM_16\n", "net-1.bytes-out = 28\n", "net-1.packets-out = 1\n", "net-1.packets-in = 0\n", "net-1.use-out = 0\n",
		"net-1.life-time = ", "net-1.install-time = 0\n", "net-1.local-ts = [10.1.0.0/24]\n", "net-1.remote-ts = [10.2.0.0/24]\n")
	_, other := right.call("list-sas", "noblock = yes\n", "list-sa")
	contains(t, text(other[0]), "net-1.packets-in = 1\n", "net-1.bytes-in = 28\n")
	if strings.Contains(text(other[0]), "gw.initiator = ") {
		t.Error("the responder says that it is the initiator")
	}
	for filter, want := range map[string]int{"ike = gw\n": 1, "ike = other\n": 0, "ike-id = 1\n": 1, "ike-id = 9\n": 0, "child = other\n": 1, "child-id = 1\n": 1} {
		_, got := left.call("list-sas", filter, "list-sa")
		if len(got) != want {
			t.Errorf("list-sas with %q lists %d", filter, len(got))
		}
		if filter == "child = other\n" && strings.Contains(text(got[0]), "net-1") {
			t.Error("the filter lets other children through")
		}
	}

	if n := left.ok("rekey", "child = net\n").Text("matches"); n != "1" {
		t.Errorf("rekey: matches = %s", n)
	}
	left.refused("rekey", "child = other\n", "no matching SAs to rekey found")
	left.refused("rekey", "reauth = yes\n", "missing rekey selector")
	left.refused("terminate", "force = yes\n", "missing terminate selector")
	left.refused("terminate", "ike = other\n", "no matching SAs to terminate found")
	res = left.ok("terminate", "ike = gw\n")
	if res.Text("matches") != "1" || res.Text("terminated") != "1" {
		t.Errorf("terminate: %s", text(res))
	}
	left.refused("terminate", "ike = gw\ntimeout = -1\n", "no matching SAs to terminate found")
	// A peer that does not answer any more.
	left.ok("initiate", "child = net\ntimeout = 10000\n")
	wire.SetFilter(func(*conn.Datagram) bool { return false })
	res = left.refused("terminate", "ike = gw\ntimeout = 50\n", "terminating SA failed")
	if res.Text("matches") != "1" || res.Text("terminated") != "0" {
		t.Errorf("terminate: %s", text(res))
	}
	left.ok("terminate", "ike = gw\nforce = yes\n")
}

func checksum(h []byte) {
	sum := 0
	for i := 0; i < len(h); i += 2 {
		sum += int(h[i])<<8 | int(h[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	h[10], h[11] = byte(^sum>>8), byte(^sum)
}

func TestTexts(t *testing.T) {
	s := newSide(t, conn.NewNetwork(), "192.0.2.1")
	s.ok("load-conn", connBody("192.0.2.1", "192.0.2.2", "10.1.0.0/24", "10.2.0.0/24"))
	s.refused("initiate", "", "missing configuration name")
	s.refused("initiate", "child = other\n", "CHILD_SA config 'other' not found")
	s.refused("initiate", "ike = other\n", "IKE_SA config 'other' not found")
	s.refused("initiate", "child = net\nike = other\n", "CHILD_SA config 'net' not found")
	s.refused("initiate", "child = net\ntimeout = 50\n", "CHILD_SA 'net' not established after 50ms")
	s.refused("initiate", "child = none\ntimeout = -1\n", "CHILD_SA config 'none' not found")
	s.refused("initiate", "child = net\nike = none\ntimeout = -1\n", "CHILD_SA config 'net' not found")
	s.ok("initiate", "child = net\ntimeout = -1\n") // returns at once
	s.ok("terminate", "ike = gw\ntimeout = -1\n")
	s.refused("unload-conn", "", "unload: missing connection name")
	s.refused("unload-conn", "name = other\n", "unload: connection 'other' not found")
	s.refused("load-shared", "data = x\n", "shared key type missing")
	s.refused("load-shared", "type = what\n", "invalid shared key type: what")
	s.refused("load-shared", "type = ike\n", "shared key data missing")
	s.refused("load-shared", "type = ppk\n", "shared key data missing")
	s.refused("unload-shared", "", "unique identifier missing")
	// Errors of a connection name the option; nothing of it is loaded.
	res, _ := s.call("load-conn", "bad {\n versoin = 2\n local {\n auth = psk\n }\n remote {\n auth = psk\n }\n}\n", "")
	if got := res.Text("errmsg"); !strings.Contains(got, "bad.versoin: unknown option; did you mean version?") {
		t.Error(got)
	}
	// A bug in a command is that command's failure.
	s.refused("load-conn", "panic {\n}\n", "internal error in load-conn: a seeded bug")
	got, _ := s.call("get-conns", "", "")
	contains(t, text(got), "conns = [gw]\n")
	s.ok("unload-conn", "name = gw\n")
	s.ok("load-shared", "type = ike\nid = a\ndata = x\n")
	if got, _ = s.call("get-shared", "", ""); !strings.Contains(text(got), "keys = [a]") {
		t.Error(text(got))
	}
	s.ok("unload-shared", "id = a\n")
	s.ok("clear-creds", "")
	s.ok("reload-settings", "")
	for _, c := range []string{"get-keys", "get-authorities", "get-pools"} {
		s.call(c, "", "")
	}
}

func TestListings(t *testing.T) {
	s := newSide(t, conn.NewNetwork(), "192.0.2.1")
	s.ok("load-conn", strings.Replace(connBody("192.0.2.1", "192.0.2.2", "10.1.0.0/24", "dynamic[tcp/443]"), "dpd_action = trap", "dpd_action = trap\n close_action = trap|start", 1))
	s.ok("load-conn", "any {\n local {\n auth = psk\n }\n remote {\n auth = psk\n }\n remote_addrs = gw.example, 198.51.100.0/24, %any\n unique = replace\n rekey_time = 0\n reauth_time = 3h\n}\n")
	_, conns := s.call("list-conns", "", "list-conn")
	if len(conns) != 2 {
		t.Fatalf("%d connections", len(conns))
	}
	contains(t, text(conns[0]), "gw.local_addrs = [192.0.2.1]\n", "gw.remote_addrs = [192.0.2.2]\n", "gw.local_port = 500\n", "gw.version = IKEv2\n", "gw.reauth_time = 0\n", "gw.rekey_time = 14400\n",
		"gw.unique = UNIQUE_NO\n", "gw.dpd_delay = 30\n", "gw.local-1.class = pre-shared key\n", "gw.local-1.id = 192.0.2.1\n", "gw.remote-1.id = 192.0.2.2\n", "gw.children.net.mode = TUNNEL\n",
		"net.rekey_time = 3600\n", "net.rekey_bytes = 0\n", "net.dpd_action = trap\n", "net.close_action = trap | start\n", "net.local-ts = [10.1.0.0/24]\n", "net.remote-ts = [dynamic[tcp/443]]\n", "children.lan.mode = PASS\n")
	contains(t, text(conns[1]), "any.local_addrs = [%any]\n", "any.remote_addrs = [gw.example 198.51.100.0/24 %any]\n", "any.version = IKEv1/2\n", "any.reauth_time = 10800\n", "any.rekey_time = 0\n", "any.unique = UNIQUE_REPLACE\n")
	if _, only := s.call("list-conns", "ike = any\n", "list-conn"); len(only) != 1 {
		t.Errorf("%d connections of that name", len(only))
	}
	v, _ := s.call("version", "", "")
	contains(t, text(v), "daemon = adit\n", "version = 1.2.3\n", "sysname = Linux\n")
	st, _ := s.call("stats", "", "")
	contains(t, text(st), "uptime.running = ", "workers.total = ", "workers.active.critical = 0\n", "queues.medium = ", "scheduled = 0\n", "ikesas.total = 0\n", "ikesas.half-open = 0\n", "plugins = [adit]\n", "drops.in-auth-failed = 7\n", "drops.mailbox-full = 0\n")
}

// Every client may follow the log.
func TestLogEvents(t *testing.T) {
	left, _, _ := sides(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := vici.Dial(ctx, left.uri)
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	go func() {
		<-started
		_ = left.gw.Initiate(ctx, "gw", "net")
	}()
	time.AfterFunc(200*time.Millisecond, func() { close(started) })
	for e, err := range c.Listen(ctx, "log") {
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(e.Body.Text("msg"), "Child SA net{1} is up") {
			if e.Body.Text("group") != "CHD" || e.Body.Text("ikesa-name") != "gw" || e.Body.Text("ikesa-uniqueid") != "1" || e.Body.Text("level") != "0" {
				t.Error(text(e.Body))
			}
			return
		}
	}
}
