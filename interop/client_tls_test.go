package interop_test

import (
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/proxy"

	"adit/interop/lab"
	"adit/pki/pkitest"
)

// card writes the certificate of a user where the client may read it.
func (l *clientLab) card(name string) []string {
	l.t.Helper()
	e := l.ends.ca.Issue(pkitest.Spec{Name: name, Emails: []string{clientID(name)}, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	cert, key := filepath.Join(l.Dir, name+".pem"), filepath.Join(l.Dir, name+".key")
	l.must(os.WriteFile(cert, e.PEM(), 0o644))
	l.must(os.WriteFile(key, e.KeyPEM(), 0o600))
	l.must(os.Chown(key, 65534, 65534))
	return []string{"--cert", cert, "--key", key, "--method", "eap-tls"}
}

// byCard is the gateway's configuration for EAP-TLS, with one address to give.
func (l *clientLab) byCard() {
	l.t.Helper()
	l.must(l.gateway.Load(fmt.Sprintf(`connections {
	rw {
		pools = v4
		local {
			auth = pubkey
			certs = gateway.pem
			id = %s
		}
		remote {
			auth = eap-tls
			eap_id = %%any
		}
		children {
			net {
				local_ts = 10.2.0.0/24
			}
		}
	}
}
pools {
	v4 {
		addrs = 10.3.0.7-10.3.0.7
		dns = %s
		25 = corp.example
	}
}
`, rightID, l.R.Host4)))
}

// command is `adit connect` of somebody with a certificate and without any privilege.
func (l *clientLab) command(args ...string) []string {
	return append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", l.bin, "connect", l.R.Wan4.String(), "--id", rightID, "--ca", l.ca}, args...)
}

// A user with a certificate comes in by EAP-TLS without any privilege; the machine's
// address changes under a download, which goes on. Then what the user is told when there
// is no address left, and when the gateway's certificate has expired.
func TestClientWithCertificate(t *testing.T) {
	for _, k := range []kind{strongSwan, adit} {
		t.Run(string(k), func(t *testing.T) {
			l := newClientLab(t, k, lab.Bridge, "10.2.0.0/24")
			l.byCard()
			p, err := l.Start(lab.Left, nil, l.command(append(l.card("alice"), "--socks", "127.0.0.1:1080")...)...)
			l.must(err)
			l.says(p, "through the tunnel: 10.2.0.0/24")
			defer func() {
				if t.Failed() {
					t.Log(p.Log())
				}
			}()
			socks, err := proxy.SOCKS5("tcp", "127.0.0.1:1080", nil, dialFunc(l.near))
			l.must(err)
			l.moves(socks)
			if c := l.outside.Counts(); c.Clear != 0 || c.ESP() == 0 {
				t.Errorf("outside: %+v", c)
			}
			l.refuses("no address left", 1, append(l.card("bob"), "--socks", "127.0.0.1:1081"))
			l.must(p.Stop(10 * time.Second))

			old := l.ends.ca.Issue(pkitest.Spec{Name: rightID, DNS: []string{rightID}, NotBefore: time.Now().AddDate(-2, 0, 0), NotAfter: time.Now().AddDate(-1, 0, 0)})
			(&path{Lab: l.Lab, t: t}).store(l.gateway, trusted(l.ends.ca).and(owned("gateway", old)))
			l.byCard()
			l.refuses("could not prove that it is the gateway: its certificate has expired", 5, append(l.card("carol"), "--socks", "127.0.0.1:1082"))
		})
	}
}

// refuses demands that a client ends with these words and this exit code.
func (l *clientLab) refuses(says string, code int, args []string) {
	l.t.Helper()
	out, err := l.Exec(20*time.Second, lab.Left, l.command(args...)...)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("exit status %d", code)) || !strings.Contains(out+err.Error(), says) {
		l.t.Errorf("want %q and exit code %d: %v\n%s", says, code, err, out)
	}
}

// moves gives the client's machine another address while bytes come through the tunnel.
func (l *clientLab) moves(socks proxy.Dialer) {
	l.t.Helper()
	var ln net.Listener
	l.must(lab.InNS(l.NS(lab.RightHost), func() (err error) { ln, err = net.Listen("tcp", "10.2.0.2:8088"); return err }))
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for b := make([]byte, 1000); ; time.Sleep(2 * time.Millisecond) {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}()
	c, err := socks.Dial("tcp", "10.2.0.2:8088")
	l.must(err)
	defer c.Close()
	read := func(what string, n int64) {
		l.t.Helper()
		c.SetReadDeadline(time.Now().Add(15 * time.Second))
		_, err := io.CopyN(io.Discard, c, n)
		if err != nil {
			l.t.Fatalf("%s: %v", what, err)
		}
	}
	read("before the move", 50_000)
	if out, err := l.Exec(5*time.Second, lab.Left, "sh", "-c", fmt.Sprintf("ip addr del %[2]s/24 dev %[1]s && ip addr add 192.0.2.77/24 dev %[1]s", lab.Wan, l.L.Wan4)); err != nil {
		l.t.Fatal(out, err)
	}
	read("after the move", 200_000) // more than what was on the way
	if s, err := l.gateway.SAs(); err != nil || len(s) != 1 || s[0].RemoteHost != "192.0.2.77" {
		l.t.Errorf("the gateway has %+v %v", s, err)
	}
}
