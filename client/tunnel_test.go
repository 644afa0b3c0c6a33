package client_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"adit/client"
	"adit/pki/pkitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const both = "10.2.0.0/24, fd02::/64"

// Pages by address and by name, of both families, and a listener inside that the host
// behind the gateway reaches: all in the process, with no privilege.
func TestDialAndListen(t *testing.T) {
	o := newOffice(t, both, "")
	tun := o.connect(o.options())
	p := tun.Progress()
	if p.State != client.Up || len(p.Addrs) != 2 || p.Full() || fmt.Sprint(p.Routes) != "[10.2.0.0/24 fd02::/64]" || fmt.Sprint(p.DNS, p.Domains) != "[10.2.0.2 fd02::2] [corp.example]" {
		t.Fatalf("%+v", p)
	}
	for _, url := range []string{"http://10.2.0.2/", "http://[fd02::2]/", "http://intranet.corp.example/", "http://intranet/"} {
		if got, err := get(t, tun, url); err != nil || got != page {
			t.Errorf("%s: %q %v", url, got, err)
		}
	}
	for _, url := range []string{"http://192.0.2.7/", "http://nowhere.corp.example/"} {
		if got, err := get(t, tun, url); err == nil {
			t.Errorf("%s: %q", url, got)
		}
	}
	if c, err := tun.DialContext(t.Context(), "tcp4", "intranet:80"); err != nil || !strings.HasPrefix(c.RemoteAddr().String(), "10.2.") {
		t.Errorf("%v %v", c, err)
	} else {
		c.Close()
	}
	ln, err := tun.Listen("tcp", ":8080")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprintf(c, "hello from the client\n")
		c.Close()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := o.host.Dial(ctx, "tcp", netip.MustParseAddrPort(ln.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "hello from the client\n" {
		t.Errorf("%q %v", line, err)
	}
	c.Close()
	wg.Wait()
	if err := tun.Close(); err != nil {
		t.Error(err)
	}
	<-tun.Done()
	if err := tun.Err(); err != nil {
		t.Error(err)
	}
	if _, err := tun.DialContext(t.Context(), "tcp", "10.2.0.2:80"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// Each way to fail says whose fault it is.
func TestFailures(t *testing.T) {
	o := newOffice(t, both, "")
	other := pkitest.NewCA(t, pkitest.Spec{Name: "Other CA"})
	deaf, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	for _, c := range []struct {
		name   string
		change func(*client.Options)
		kind   client.Kind
		says   string
	}{
		{"wrong password", func(p *client.Options) {
			p.Password = func(context.Context) ([]byte, error) { return []byte("wrong"), nil }
		}, client.Refused, "did not let alice in"},
		{"unknown user", func(p *client.Options) { p.User = "mallory" }, client.Refused, "did not let mallory in"},
		{"other CA", func(p *client.Options) { p.CAs = [][]byte{other.Cert.DER()} }, client.Untrusted, "no CA that is trusted"},
		{"other name", func(p *client.Options) { p.GatewayID = "bank.example" }, client.Refused, "its own name is not bank.example"},
		{"silent", func(p *client.Options) { p.Gateway, p.Timeout = deaf.LocalAddr().String(), time.Second }, client.Unreachable, "does not answer"},
		{"no name", func(p *client.Options) { p.Gateway = "nowhere.invalid" }, client.Unreachable, "has no address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			opt := o.options()
			c.change(&opt)
			_, err := client.Connect(t.Context(), opt)
			var e *client.Error
			if !errors.As(err, &e) || e.Kind != c.kind || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%T %+v %v", err, err, errors.Unwrap(err))
			}
		})
	}
	for _, bad := range []client.Options{{}, {Gateway: "a b", User: "x"}, {Gateway: "a", User: ""}, {Gateway: "a:99999", User: "x"}, {Gateway: "a", User: "x", Method: "eap-md4"}, {Gateway: "a", Method: client.EAPTLS},
		{Gateway: "a", User: "x", Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}} {
		if _, err := client.Connect(t.Context(), bad); err == nil {
			t.Errorf("%+v: accepted", bad)
		}
	}
}

// A certificate in the place of name and password.
func TestCertificate(t *testing.T) {
	o := newOffice(t, both, "")
	user := o.ca.Issue(pkitest.Spec{Name: "bob", Emails: []string{"bob@example.org"}, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	opt := o.options()
	opt.User, opt.Password, opt.Key, opt.Certificates = "bob@example.org", nil, user.Key, [][]byte{user.Cert.DER()}
	opt.Method = client.Certificate
	tun := o.connect(opt)
	if got, err := get(t, tun, "http://10.2.0.2/"); err != nil || got != page {
		t.Errorf("%q %v", got, err)
	}
}

// A profile is a swanctl.conf of one connection.
func TestProfile(t *testing.T) {
	o := newOffice(t, both, "")
	profile := func(text string) client.Options {
		file := filepath.Join(t.TempDir(), "work.conf")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return client.Options{Profile: file, Password: o.options().Password}
	}
	text := fmt.Sprintf(`connections { work { remote_addrs = 127.0.0.1
		remote_port = %d
		local { auth = eap-mschapv2
			id = alice }
		remote { auth = pubkey
			id = vpn.example.org
			cacerts = 0s%s }
		children { work { remote_ts = 10.2.0.2/32 } } } }`, o.port, base64.StdEncoding.EncodeToString(o.ca.Cert.DER()))
	tun := o.connect(profile(text))
	if got, err := get(t, tun, "http://10.2.0.2/"); err != nil || got != page {
		t.Errorf("%q %v", got, err)
	}
	if p := tun.Progress(); fmt.Sprint(p.Routes) != "[10.2.0.2/32]" {
		t.Errorf("%+v", p)
	}
	for _, bad := range []string{"", "connections { }", "connections { a { } \n b { } }", strings.Replace(text, "remote_addrs = 127.0.0.1", "", 1), strings.Replace(text, "children {", "kids {", 1)} {
		if _, err := client.Connect(t.Context(), profile(bad)); err == nil {
			t.Errorf("accepted: %s", bad)
		}
	}
}
