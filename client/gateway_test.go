package client_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"adit/client"
	"adit/conf"
	"adit/dataplane/userspace"
	"adit/ike"
	"adit/ike/ikev2"
	"adit/internal/config"
	"adit/internal/conn"
	"adit/internal/gateway"
	"adit/pki/pkitest"
	"adit/tun/netstack"
)

// office is a gateway in this process, on a port of the loopback, with one host behind it
// that serves pages and names.
type office struct {
	t       testing.TB
	ca      *pkitest.Entity
	own     *pkitest.Entity
	host    *netstack.Stack
	plane   *userspace.Plane
	gw      *gateway.Gateway
	sockets conn.Conn
	port    uint16
	log     lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const page = "this page is inside\n"

var (
	inside4 = netip.MustParseAddr("10.2.0.2")
	inside6 = netip.MustParseAddr("fd02::2")
)

// newOffice starts it; lines are further ones of the connection, ts what clients may reach.
func newOffice(t testing.TB, ts, lines string) *office {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	o := &office{t: t, ca: pkitest.NewCA(t, pkitest.Spec{Name: "Office CA"})}
	o.own = o.ca.Issue(pkitest.Spec{Name: "vpn.example.org", DNS: []string{"vpn.example.org"}, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	var err error
	o.host, err = netstack.New([]netip.Addr{inside4, inside6}, 1400)
	must(err)
	o.listen(conn.Options{AnyPort: true})
	daemon, err := config.LoadDaemon("")
	must(err)
	daemon.Port, daemon.NATPort = o.sockets.Ports().IKE, o.sockets.Ports().NATT
	root, err := conf.ParseBytes("office.conf", []byte(fmt.Sprintf(`connections { rw {
		%s
		pools = v4, v6
		local { auth = pubkey
			id = vpn.example.org
			certs = 0s%s }
		remote { auth = eap-mschapv2
			eap_id = %%any }
		children { net { local_ts = %s } } }
	cert : connections.rw {
		remote { auth = pubkey
			id = *@example.org
			eap_id = } }
	}
	pools { v4 { addrs = 10.3.0.0/24
			dns = 10.2.0.2
			25 = corp.example }
		v6 { addrs = fd03::/120
			dns = fd02::2 } }
	secrets { eap-a { id = alice
		secret = "Tweedle dee & dum" } }
	`, lines, base64.StdEncoding.EncodeToString(o.own.Cert.DER()), ts)))
	must(err)
	m, err := config.Decode(root, daemon)
	must(err)
	m.Certs = append(m.Certs, config.Cert{Kind: config.CertX509, Flag: "CA", DER: o.ca.Cert.DER()})
	m.Keys = append(m.Keys, config.Key{ID: "own", Signer: o.own.Key})
	o.gw, err = gateway.New(gateway.Options{Daemon: daemon, Dataplane: o.plane, Transport: gateway.Sockets{Conn: o.sockets},
		Log: slog.New(slog.NewTextHandler(&o.log, nil)), Versions: []ike.Version{ikev2.Version}, ForceEncap: true})
	must(err)
	o.gw.Start()
	must(o.plane.Start())
	must(o.gw.Load(m))
	o.serve()
	t.Cleanup(func() {
		o.gw.Shutdown()
		o.plane.Close()
		o.sockets.Close()
		o.host.Close()
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", o.log.String())
		}
	})
	return o
}

func (o *office) listen(opt conn.Options) {
	opt.NoRaw = true
	var err error
	if o.sockets, err = conn.Listen(opt); err != nil {
		o.t.Fatal(err)
	}
	o.port = o.sockets.Ports().NATT
	o.plane, err = userspace.New(userspace.Config{Tun: o.host, Conn: o.sockets, IKE: func(p *conn.Packet) {
		if p.Kind == conn.IKE {
			o.gw.Datagram(ike.Datagram{Local: p.Local, Remote: p.Remote, Data: p.Buf})
		}
	}})
	if err != nil {
		o.t.Fatal(err)
	}
}

// serve has the host behind answer HTTP and DNS.
func (o *office) serve() {
	for _, a := range []netip.Addr{inside4, inside6} {
		ln, err := o.host.Listen(netip.AddrPortFrom(a, 80))
		if err != nil {
			o.t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, page) })}
		go srv.Serve(ln)
		o.t.Cleanup(func() { srv.Close() })
		pc, err := o.host.ListenUDP(netip.AddrPortFrom(a, 53))
		if err != nil {
			o.t.Fatal(err)
		}
		go answerNames(pc)
		o.t.Cleanup(func() { pc.Close() })
	}
}

// answerNames knows the one name intranet.corp.example.
func answerNames(pc net.PacketConn) {
	b := make([]byte, 2048)
	for {
		n, from, err := pc.ReadFrom(b)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
		h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type, TTL: 60}
		switch {
		case strings.ToLower(q.Name.String()) != "intranet.corp.example.":
			m.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeA:
			m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: inside4.As4()}}}
		case q.Type == dnsmessage.TypeAAAA:
			m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AAAAResource{AAAA: inside6.As16()}}}
		}
		if out, err := m.Pack(); err == nil {
			pc.WriteTo(out, from)
		}
	}
}

// options are alice's.
func (o *office) options() client.Options {
	return client.Options{Gateway: fmt.Sprintf("127.0.0.1:%d", o.port), GatewayID: "vpn.example.org", User: "alice", CAs: [][]byte{o.ca.Cert.DER()},
		Password: func(context.Context) ([]byte, error) { return []byte("Tweedle dee & dum"), nil }, Timeout: 20 * time.Second}
}

func (o *office) connect(opt client.Options) *client.Tunnel {
	o.t.Helper()
	t, err := client.Connect(context.Background(), opt)
	if err != nil {
		o.t.Fatalf("%v (%v)", err, errors.Unwrap(err))
	}
	o.t.Cleanup(func() { t.Close() })
	return t
}

// get fetches a page through a tunnel.
func get(t testing.TB, tun *client.Tunnel, url string) (string, error) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DialContext: tun.DialContext, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	r, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return string(b), err
}
