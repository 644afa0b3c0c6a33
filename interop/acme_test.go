package interop_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"adit/internal/acme/acmetest"
	"adit/interop/lab"
	"adit/interop/peer"
	"adit/pki/pkitest"
)

const acmeDomain = "vpn.example.org"

// A gateway gets its certificate from an ACME authority beside the client (Pebble), and a
// new one while a tunnel carries packets, none of which is lost. While there is none the
// reason is told; clients have nothing but the authority's root.
func TestACME(t *testing.T) {
	for _, ends := range pairs() {
		if ends.responder != adit || ends.initiator == adit {
			continue // it is about our certificate, and one client will do
		}
		t.Run(ends.String(), func(t *testing.T) {
			own := filepath.Join(t.TempDir(), "own.pem") // the root of the ACME server's own certificate
			runOne(t, ends, settings{middle: lab.Bridge, own: fmt.Sprintf("acme {\nvpn {\ndomains = %s\ndirectory = https://192.0.2.1:14000/dir\ncacert = %s\nagree_tos = yes\n}\n}\n", acmeDomain, own)},
				func(t *testing.T, p *path) { p.acme(t, own) })
		})
	}
}

// pebble starts an ACME server at the left, to which acmeDomain is the right gateway,
// and returns its root.
func (p *path) pebble(t *testing.T, own string) (root []byte) {
	t.Helper()
	bin, err := acmetest.Build()
	if err != nil {
		t.Fatal(err)
	}
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "the ACME server's own CA"})
	if err := os.WriteFile(own, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := p.L.Wan4.String()
	c := acmetest.Config{Listen: addr + ":14000", Manage: addr + ":15000", HTTPPort: 80, TLSPort: 443, Validity: 90 * 24 * time.Hour}
	c.Cert, c.Key = ca.Issue(pkitest.Spec{Name: "pebble", IPs: []string{addr}, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}).WriteFiles(t.TempDir(), "pebble")
	file := filepath.Join(t.TempDir(), "pebble.json")
	if err := c.Write(file); err != nil {
		t.Fatal(err)
	}
	var dns net.Listener
	if err := lab.InNS(p.NS(lab.Left), func() (err error) {
		dns, err = net.Listen("tcp", addr+":53")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	go acmetest.Resolve(dns, map[string]netip.Addr{acmeDomain: p.R.Wan4})
	if _, err := p.Start(lab.Left, acmetest.Env(), append([]string{bin}, acmetest.Args(file, dns.Addr().String())...)...); err != nil {
		t.Fatal(err)
	}
	if err := lab.Poll(10*time.Second, func() (bool, error) {
		root, err = acmetest.Root(p.fromLeft, c.Manage)
		return err == nil, nil
	}); err != nil {
		t.Fatalf("Pebble: %v", err)
	}
	return root
}

// fromLeft dials from the left gateway.
func (p *path) fromLeft(ctx context.Context, network, addr string) (c net.Conn, err error) {
	err = lab.InNS(p.NS(lab.Left), func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

var acmeSerial = regexp.MustCompile(`^vpn: serial number ([0-9a-f]+), until \S+, renewal at `)

func (p *path) acme(t *testing.T, own string) {
	gw := p.right.(*peer.AditGateway)
	command := func(args ...string) (string, error) { return gw.Command(append(args, "--vici", gw.URI())...) }
	get := func() string {
		t.Helper()
		out, err := command("pki", "acme")
		m := acmeSerial.FindStringSubmatch(out)
		if err != nil || m == nil {
			t.Fatalf("adit pki acme: %v %s", err, out)
		}
		return m[1]
	}
	l, r := p.ends(false)
	client := site{name: "alice", local: "auth = eap-mschapv2\nid = " + clientID("alice") + "\neap_id = alice", remote: "auth = pubkey\nid = " + acmeDomain}
	gateway := site{name: "rw", local: "auth = pubkey\nid = " + acmeDomain, remote: "auth = eap-mschapv2\neap_id = %any"}
	secrets := "secrets {\n" + users("alice", "Tweedle dee & dum") + "}"
	other := pkitest.NewCA(t, pkitest.Spec{Name: "another root"}) // without any CA the client asks for no certificate

	// No server yet: told by the log, to the client that comes, by check and health.
	p.give(setting{trusted(other), l.with(secrets, client)}, setting{conf: r.with(secrets, gateway)})
	const why = "own.pem: no such file or directory"
	p.says(t, p.right, p.right.Log(), "no certificate could be had: ", why)
	p.says(t, p.right, p.refusedLogin(t, "alice"), "no private key with a certificate for "+acmeDomain, why)
	for _, args := range [][]string{{"check", gw.Dir() + "/swanctl/swanctl.conf"}, {"health"}, {"explain", "rw"}} {
		if out, err := command(args...); !strings.Contains(out, why) {
			t.Errorf("adit %s does not tell: %v\n%s", args[0], err, out)
		}
	}
	root := p.pebble(t, own)
	first := get()
	p.give(setting{files{"x509ca/root.pem": root}, l.with(secrets, client)}, setting{conf: r.with(secrets, gateway)})
	old, _ := p.established(t, "alice")
	flow, err := p.StartFlow(lab.Flow{From: lab.LeftHost, To: lab.RightHost, Src: p.L.Host4, Dst: p.R.Host4, Rate: 500})
	if err != nil {
		t.Fatal(err)
	}
	if again := get(); again != first {
		t.Errorf("what was not due was renewed: %s, then %s", first, again)
	}
	kept, err := os.ReadFile(filepath.Join(gw.Dir(), "state/acme/vpn.pem"))
	if err != nil {
		t.Fatal(err)
	}
	_, cert, _ := strings.Cut(string(kept), "-----END PRIVATE KEY-----\n")
	if err := acmetest.RenewNow(p.fromLeft, p.L.Wan4.String()+":15000", []byte(cert)); err != nil {
		t.Fatal(err)
	}
	second := get()
	if second == first {
		t.Error("the authority wanted the certificate renewed, and it is the same")
	}
	// Loading by others unloads nothing of it.
	if err := p.right.Load(r.with(secrets, gateway)); err != nil {
		t.Fatal(err)
	}
	if out, err := command("reload", gw.Dir()+"/swanctl/swanctl.conf"); err != nil || !strings.Contains(out, "0 changed") {
		t.Errorf("adit reload: %v\n%s", err, out)
	}
	if err := p.right.Signal(1); err != nil {
		t.Fatal(err)
	}
	// The one that the next client sees is the only one with a key.
	out, err := p.right.Swanctl("--list-certs", "--type", "x509")
	if err != nil || strings.Count(out, "has private key") != 1 || !strings.Contains(strings.ReplaceAll(out, ":", ""), second) || strings.Contains(strings.ReplaceAll(out, ":", ""), first) {
		t.Errorf("after the renewal from %s to %s: %v\n%s", first, second, err, out)
	}
	if got := flow.Stop(); got.Lost() != 0 || got.Sent < 50 {
		t.Errorf("while the certificate was renewed: %v", got)
	}
	if now := peer.Established(p.sas(p.left), "alice"); len(now) != 1 || now[0].InitiatorSPI != old.InitiatorSPI {
		t.Errorf("the tunnel is another one: %+v", now)
	}
	p.down(t, "alice")
	p.established(t, "alice")
	p.pings(false)
	p.facts["serials"] = first + ", " + second
}
