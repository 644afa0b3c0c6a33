package interop_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	xproxy "golang.org/x/net/proxy"

	"adit/interop/lab"
	"adit/interop/peer"
)

// clientLab is a lab with `adit connect` to the left and a gateway to the right, behind
// which a host serves a page and names.
type clientLab struct {
	*lab.Lab
	t       *testing.T
	gateway peer.Gateway
	bin, ca string
	ends    eapEnds
	outside *lab.Capture
}

const (
	insidePage = "this page is inside\n"
	alicesWord = "Tweedle dee & dum"
)

// newClientLab starts the gateway, which lets its clients reach ts.
func newClientLab(t *testing.T, k kind, middle lab.Middle, ts string) *clientLab {
	t.Helper()
	t.Parallel()
	slots <- struct{}{}
	t.Cleanup(func() { <-slots })
	l := &clientLab{Lab: lab.ForTest(t, labName(), lab.Options{Middle: middle, Logf: func(string, ...any) {}}), t: t}
	p := &path{Lab: l.Lab, t: t, facts: map[string]string{}}
	e := newEAPEnds(t)
	l.gateway = p.daemon(lab.Right, k, settings{}, "")
	l.ends = e
	p.store(l.gateway, trusted(e.ca).and(owned("gateway", e.gateway)))
	l.must(l.gateway.Load(fmt.Sprintf(`connections {
	rw {
		pools = v4, v6
		local {
			auth = pubkey
			certs = gateway.pem
			id = %s
		}
		remote {
			auth = eap-mschapv2
			eap_id = %%any
		}
		children {
			net {
				local_ts = %s
			}
		}
	}
}
pools {
	v4 {
		addrs = 10.3.0.16/28
		dns = %s
		25 = corp.example
	}
	v6 {
		addrs = fd03::10-fd03::1f
		dns = %s
	}
}
secrets {
	%s
}
`, rightID, ts, l.R.Host4, l.R.Host6, users("alice", alicesWord))))
	var err error
	l.bin, err = peer.Build(os.Getenv("ADIT_LONG") != "")
	l.must(err)
	l.must(os.Chmod(filepath.Dir(l.bin), 0o711)) // the client is another user
	l.must(os.Chmod(l.Dir, 0o711))
	l.ca = filepath.Join(l.Dir, "ca.pem")
	l.must(os.WriteFile(l.ca, e.ca.PEM(), 0o644))
	l.outside, err = l.CaptureOutside()
	l.must(err)
	l.serve()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", l.gateway.Log())
		}
	})
	return l
}

func (l *clientLab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// serve has the host behind the gateway answer HTTP and DNS.
func (l *clientLab) serve() {
	var ln net.Listener
	var pc net.PacketConn
	l.must(lab.InNS(l.NS(lab.RightHost), func() (err error) {
		if ln, err = net.Listen("tcp", "[::]:80"); err == nil {
			pc, err = net.ListenPacket("udp", "[::]:53")
		}
		return err
	}))
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, insidePage) })}
	go srv.Serve(ln)
	go l.answerNames(pc)
	l.t.Cleanup(func() {
		srv.Close()
		pc.Close()
	})
}

// answerNames knows the one name intranet.corp.example.
func (l *clientLab) answerNames(pc net.PacketConn) {
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
			m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: l.R.Host4.As4()}}}
		case q.Type == dnsmessage.TypeAAAA:
			m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AAAAResource{AAAA: l.R.Host6.As16()}}}
		}
		if out, err := m.Pack(); err == nil {
			pc.WriteTo(out, from)
		}
	}
}

// connect starts `adit connect`, as nobody or as root, and waits until it has said says.
func (l *clientLab) connect(root bool, says string, args ...string) *lab.Proc {
	l.t.Helper()
	cmd := []string{l.bin, "connect", "alice@" + l.R.Wan4.String(), "--id", rightID, "--ca", l.ca}
	if !root {
		cmd = append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"}, cmd...)
	}
	p, err := l.Start(lab.Left, []string{"ADIT_PASSWORD=" + alicesWord}, append(cmd, args...)...)
	l.must(err)
	l.says(p, says)
	return p
}

// says waits until a client has printed something.
func (l *clientLab) says(p *lab.Proc, text string) {
	l.t.Helper()
	if err := lab.Poll(20*time.Second, func() (bool, error) {
		select {
		case <-p.Done():
			return strings.Contains(p.Log(), text), fmt.Errorf("it has ended")
		default:
		}
		return strings.Contains(p.Log(), text), nil
	}); err != nil {
		l.t.Fatalf("the client does not say %q: %v\n%s", text, err, p.Log())
	}
}

// near connects from the client's machine, in the clear.
func (l *clientLab) near(_ context.Context, network, address string) (c net.Conn, err error) {
	err = lab.InNS(l.NS(lab.Left), func() error {
		c, err = net.DialTimeout(network, address, 5*time.Second)
		return err
	})
	return c, err
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

func (d dialFunc) Dial(network, address string) (net.Conn, error) {
	return d(context.Background(), network, address)
}

func (d dialFunc) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return d(ctx, network, address)
}

func (l *clientLab) fetch(what string, tr *http.Transport, url string) {
	l.t.Helper()
	tr.DisableKeepAlives = true
	c := http.Client{Transport: tr, Timeout: 10 * time.Second}
	r, err := c.Get(url)
	if err != nil {
		l.t.Errorf("%s: %v", what, err)
		return
	}
	defer r.Body.Close()
	if b, err := io.ReadAll(r.Body); err != nil || string(b) != insidePage {
		l.t.Errorf("%s: %q %v", what, b, err)
	}
}

// A user without any privilege fetches a page by SOCKS5, by the HTTP proxy and by a
// forwarded port, by name and by addresses of both families; behind a NAT with strongSwan.
func TestClientWithoutRoot(t *testing.T) {
	t.Parallel()
	for k, middle := range map[kind]lab.Middle{strongSwan: lab.NAT, adit: lab.Bridge} {
		t.Run(string(k), func(t *testing.T) {
			l := newClientLab(t, k, middle, "10.2.0.0/24, fd02::/64")
			p := l.connect(false, "leads to [fd02::2]:80", "--socks", "127.0.0.1:1080", "--http-proxy", "127.0.0.1:3128", "-L", "8080:intranet:80", "-L", "[::1]:8081:[fd02::2]:80")
			l.says(p, "through the tunnel: 10.2.0.0/24 fd02::/64")
			socks, err := xproxy.SOCKS5("tcp", "127.0.0.1:1080", nil, dialFunc(l.near))
			l.must(err)
			through := &http.Transport{DialContext: socks.(xproxy.ContextDialer).DialContext}
			for _, url := range []string{"http://10.2.0.2/", "http://[fd02::2]/", "http://intranet.corp.example/", "http://intranet/"} {
				l.fetch("SOCKS5, "+url, through, url)
			}
			l.fetch("HTTP proxy", &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: "127.0.0.1:3128"}), DialContext: l.near}, "http://intranet/")
			l.fetch("-L", &http.Transport{DialContext: l.near}, "http://127.0.0.1:8080/")
			l.fetch("-L with IPv6", &http.Transport{DialContext: l.near}, "http://[::1]:8081/")
			if out, err := l.Exec(5*time.Second, lab.Left, "sh", "-c", "ip -o addr; ip rule; nft list tables"); err != nil || strings.Contains(out, "10.3.0.") || strings.Contains(out, "adit") {
				t.Errorf("the host was changed: %s %v", out, err)
			}
			if c := l.outside.Counts(); c.Clear != 0 || c.ESP() == 0 {
				t.Errorf("outside: %+v", c)
			}
			if err := p.Stop(10 * time.Second); err != nil || !strings.Contains(p.Log(), "disconnected") {
				t.Errorf("%v\n%s", err, p.Log())
			}
			// Whose fault it is, by the exit code.
			for _, c := range []struct {
				word, id, says string
				code           int
			}{{"wrong", rightID, "did not let alice in", 3}, {alicesWord, "bank.example", "not bank.example", 3}} {
				out, err := l.ExecEnv(20*time.Second, lab.Left, []string{"ADIT_PASSWORD=" + c.word}, l.bin, "connect", "alice@"+l.R.Wan4.String(), "--id", c.id, "--ca", l.ca, "--socks", "127.0.0.1:1081")
				if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("exit status %d", c.code)) || !strings.Contains(out, c.says) {
					t.Errorf("%+v: %v", c, err)
				}
			}
		})
	}
}

// state is all of the client's machine that a tunnel changes.
// Link-local addresses are left out: the kernel adds them when it is ready.
func (l *clientLab) state(resolver string) string {
	l.t.Helper()
	out, err := l.Exec(5*time.Second, lab.Left, "sh", "-c", "ip -o addr | grep -v 'scope link'; ip -4 route show table all; ip -6 route show table all | grep -v -e expires -e fe80:: -e ff00::; ip rule; ip -6 rule; nft list ruleset; ls /run/adit/state-$(stat -Lc %i /proc/self/ns/net).json 2>&1 | sed 's/[0-9]*//g'; cat "+resolver)
	l.must(err)
	return out
}
