package interop_test

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
	"adit/pki/pkitest"
	"adit/radius/radiustest"
)

// The RADIUS server is the host behind the right gateway; the one before it, by
// preference, is a neighbour that does not exist.
const (
	radiusServer = "10.2.0.2"
	radiusSecret = "a secret of the RADIUS server"
	aaaID        = "aaa.example.org"
	atOnce       = 20
)

// All logins come from one address, and strongSwan blocks a thread for each initiation.
const crowd = `block_threshold = 100
cookie_threshold_ip = 100
cookie_threshold = 100
threads = 40
`

// radiusServers are of the gateway alone: a client that accounts would talk to them outside.
const radiusServers = `plugins {
	eap-radius {
		class_group = yes
		retransmit_timeout = 0.4
		retransmit_base = 1
		retransmit_tries = 2
		sockets = 4
		accounting = yes
		accounting_send_class = yes
		dae {
			enable = yes
			secret = ` + radiusSecret + `
		}
		servers {
			dead {
				address = 10.2.0.9
				secret = whatever it would have been
				preference = 10
			}
			live {
				address = ` + radiusServer + `
				secret = ` + radiusSecret + `
			}
		}
	}
}
`

// radiusLogins are what a gateway leaves to FreeRADIUS.
var radiusLogins = []login{
	{name: "mschapv2", client: "auth = eap-mschapv2\neap_id = alice", server: "auth = eap-radius\neap_id = %any", eapID: "alice"},
	{name: "bare", client: "auth = eap-mschapv2\neap_id = alice", server: "auth = eap-radius", eapID: "alice"},
	{name: "md5", client: "auth = eap-md5\neap_id = alice", server: "auth = eap-radius\neap_id = %any", eapID: "alice"},
	{name: "tls", client: "auth = eap-tls\ncerts = client.pem\naaa_id = " + aaaID, server: "auth = eap-radius\neap_id = %any"},
	{name: "ttls", client: "auth = eap-ttls\neap_id = alice\naaa_id = " + aaaID, server: "auth = eap-radius\neap_id = %any", eapID: "alice"},
	{name: "timed", client: "auth = eap-mschapv2\neap_id = carol", server: "auth = eap-radius\neap_id = %any", eapID: "carol",
		extra: "rekey_time = 1h\nover_time = 10s\nrand_time = 0s\n"},
	{name: "staff", client: "auth = eap-mschapv2\neap_id = alice", server: "auth = eap-radius\neap_id = %any\ngroups = staff, board", eapID: "alice"},
}

// EAP passed through to FreeRADIUS: methods, the Class as group, fail-over, refusals
// with their reasons, many at once.
func TestRADIUS(t *testing.T) {
	t.Parallel()
	among(t, []pair{{strongSwan, adit}, {adit, adit}}, settings{middle: lab.Bridge, charon: crowd, right: radiusServers}, func(t *testing.T, p *path) {
		ca := pkitest.NewCA(t, pkitest.Spec{Name: "RADIUS CA", Key: pkitest.RSA2048})
		aaa := ca.Issue(pkitest.Spec{Name: aaaID, DNS: []string{aaaID}, Key: pkitest.RSA2048, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		cfg := radiustest.Config{Accounting: true, Namespace: p.NS(lab.RightHost), Listen: netip.MustParseAddrPort(radiusServer + ":1812"), Secret: radiusSecret,
			DefaultEAP: "mschapv2", Users: []radiustest.User{
				{Name: "alice", Password: "Tweedle dee", Reply: []string{`Class = "staff"`}},
				{Name: "bob", Password: "Tweedle dum", Reply: []string{`Class = "guests"`}},
				{Name: "carol", Password: "Snark", Reply: []string{"Session-Timeout = 600"}},
				{Name: "dora", Password: "Jabberwock", Reply: []string{"Framed-IP-Address = 10.3.7.77", "Acct-Interim-Interval = 1", `Class = "staff"`}},
			}}
		for i := range atOnce {
			cfg.Users = append(cfg.Users, radiustest.User{Name: fmt.Sprintf("user%d", i), Password: fmt.Sprintf("secret of %d", i)})
		}
		dir := t.TempDir()
		cfg.CertFile, cfg.KeyFile = aaa.WriteFiles(dir, "aaa")
		cfg.CAFile, _ = ca.WriteFiles(dir, "ca")
		server := radiustest.Start(t, cfg)

		p.giveRADIUS(t, ca)
		begin := time.Now()
		for _, g := range radiusLogins {
			t.Run(g.name, func(t *testing.T) { p.logsIn(t, g) })
			if g.name == "mschapv2" && time.Since(begin) < 800*time.Millisecond {
				t.Errorf("the first login took only %v: the dead server was not asked", time.Since(begin))
			}
		}
		p.facts["logins"] = fmt.Sprintf("%d in %v", len(radiusLogins), time.Since(begin).Round(100*time.Millisecond))
		t.Run("guest", func(t *testing.T) { p.says(t, p.right, p.refusedLogin(t, "guest"), "groups") })
		t.Run("wrong", func(t *testing.T) {
			p.says(t, p.right, p.refusedLogin(t, "wrong"), "RADIUS server live", "mallory")
		})
		t.Run("session_timeout", func(t *testing.T) {
			// A Session-Timeout becomes AUTH_LIFETIME (RFC 4478).
			left, _ := p.established(t, "timed")
			if n, err := strconv.Atoi(left.Fields["reauth-time"]); err != nil || n < 500 || n > 600 {
				t.Errorf("the client authenticates again in %q s, want somewhat less than 600", left.Fields["reauth-time"])
			}
			p.down(t, "timed")
		})
		t.Run("accounting", func(t *testing.T) { p.accounted(t, server) })
		t.Run("at_once", func(t *testing.T) { p.manyAtOnce(t) })
		server.Stop()
		cfg.TLSMax = "1.3"
		server = radiustest.Start(t, cfg)
		for _, g := range radiusLogins {
			if g.name == "tls" || g.name == "ttls" {
				t.Run(g.name+"13", func(t *testing.T) { p.logsIn(t, g) })
			}
		}
		// What answers now signs with another secret, or does not answer at all.
		server.Stop()
		cfg.Secret = "another secret than before"
		radiustest.Start(t, cfg)
		t.Run("other_secret", func(t *testing.T) {
			p.says(t, p.right, p.refusedLogin(t, "mschapv2"), "no answer", "server live", "server dead")
		})
	})
}

// giveRADIUS loads the connections of TestRADIUS.
func (p *path) giveRADIUS(t *testing.T, ca *pkitest.Entity) {
	t.Helper()
	wrong := login{name: "wrong", client: "auth = eap-mschapv2\neap_id = mallory", server: "auth = eap-radius\neap_id = %any"}
	guest := login{name: "guest", client: "auth = eap-mschapv2\neap_id = bob", server: "auth = eap-radius\neap_id = %any\ngroups = staff, board"}
	gateway := ca.Issue(pkitest.Spec{Name: rightID, DNS: []string{rightID}})
	client := ca.Issue(pkitest.Spec{Name: "client", Emails: []string{clientID("tls")}, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	l, r := p.ends(false)
	var ls, rs []site
	for _, g := range append(radiusLogins, wrong, guest) {
		left, right := g.both()
		ls, rs = append(ls, left), append(rs, right)
	}
	dora, doras := login{name: "framed", client: "auth = eap-mschapv2\neap_id = dora", server: "auth = eap-radius\neap_id = %any\ngroups = staff",
		extra: "vips = 0.0.0.0\n", ofExtra: "pools = radius\n"}.both()
	dora.localTS, doras.remoteTS = "dynamic", "dynamic"
	ls, rs = append(ls, dora), append(rs, doras)
	secrets := []string{"alice", "Tweedle dee", "bob", "Tweedle dum", "carol", "Snark", "dora", "Jabberwock", "mallory", "guessed"}
	for i := range atOnce {
		secrets = append(secrets, fmt.Sprintf("user%d", i), fmt.Sprintf("secret of %d", i))
		ls = append(ls, site{name: fmt.Sprintf("many%d", i), remote: "auth = pubkey\nid = " + rightID, extra: "vips = 0.0.0.0\n", localTS: "dynamic",
			local: fmt.Sprintf("auth = eap-mschapv2\nid = user%d@many.example.org\neap_id = user%d", i, i)})
	}
	rs = append(rs, site{name: "many", local: "auth = pubkey\nid = " + rightID, remote: "auth = eap-radius\nid = *@many.example.org\neap_id = %any",
		extra: "pools = many\n", remoteTS: "dynamic"})
	p.give(
		setting{trusted(ca).and(owned("client", client)), l.with("secrets {\n"+users(secrets...)+"}", ls...)},
		setting{trusted(ca).and(owned("gateway", gateway)), r.with("pools {\nmany {\naddrs = 10.3.0.0/24\n}\n}\n", rs...)},
	)
}

// manyAtOnce logs twenty users in at the same time.
func (p *path) manyAtOnce(t *testing.T) {
	begin := time.Now()
	var wg sync.WaitGroup
	errs := make([]error, atOnce)
	for i := range atOnce {
		wg.Go(func() { errs[i] = p.left.Initiate(fmt.Sprintf("many%d", i)) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("user%d: %v", i, err)
		}
	}
	p.facts["at once"] = fmt.Sprintf("%d in %v", atOnce, time.Since(begin).Round(100*time.Millisecond))
	s := peer.Established(p.sas(p.right), "many")
	vips, ids := map[string]bool{}, map[string]bool{}
	for _, sa := range s {
		ids[sa.Fields["remote-eap-id"]] = true
		for _, a := range sa.RemoteVIPs {
			vips[a] = true
		}
	}
	if len(s) != atOnce || len(vips) != atOnce || len(ids) != atOnce {
		t.Errorf("%d IKE SAs, %d users, addresses %v", len(s), len(ids), vips)
	}
	for i := range atOnce {
		if err := p.left.Terminate(fmt.Sprintf("many%d", i)); err != nil {
			t.Error(err)
		}
	}
	p.gone(t)
}
