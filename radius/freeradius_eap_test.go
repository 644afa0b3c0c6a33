package radius_test

import (
	"bytes"
	"crypto/tls"
	"net/netip"
	"testing"
	"time"

	"adit/eap"
	"adit/interop/lab"
	"adit/radius"
	"adit/radius/radiustest"
	"adit/suite"
)

// runPeer runs our EAP peer against the server through a relay, and returns what both
// ends came to.
func runPeer(t *testing.T, c *radius.Client, cfg eap.PeerConfig) (s radius.Step, end eap.Step, err error) {
	t.Helper()
	p, err := eap.NewPeer(cfg)
	if err != nil {
		return s, end, err
	}
	defer p.Close()
	s, err = authenticate(c, cfg.Identity, func(in []byte) []byte {
		out, err := p.Next(in)
		if err != nil && out.Out == nil {
			t.Logf("the peer says: %v", err)
			return []byte{2, in[1], 0, 6, 3, 0} // Nak, so that the server ends it
		}
		return out.Out
	})
	if err != nil {
		return s, end, err
	}
	end, err = p.Next(s.Out)
	if err != nil {
		t.Logf("the peer says at the end: %v", err)
	}
	return s, end, nil
}

// The methods with keys, against FreeRADIUS: the MSK that the MS-MPPE attributes bring
// is the peer's.
func TestFreeRADIUSMethods(t *testing.T) {
	ns := namespace(t)
	ca, cert, key, pair := certificate(t)
	for _, v := range []struct {
		max  string
		tls  uint16
		port uint16
	}{{"1.2", tls.VersionTLS12, 1812}, {"1.3", tls.VersionTLS13, 1822}} {
		t.Run("TLS"+v.max, func(t *testing.T) {
			listen := netip.AddrPortFrom(netip.MustParseAddr("::1"), v.port)
			radiustest.Start(t, radiustest.Config{Namespace: ns, Listen: listen, Secret: secret, DefaultEAP: "mschapv2",
				Users:  []radiustest.User{{Name: "carol", Password: "Ar3etTnp", Reply: []string{`Class = "staff"`}}, {Name: "dave"}},
				CAFile: ca, CertFile: cert, KeyFile: key, TLSMax: v.max})
			c := newClient(t, radius.ServerConfig{Address: "::1", Port: v.port, Secret: []byte(secret), Timeout: 5 * time.Second, Tries: 2})
			tlsConfig := &eap.TLSConfig{Certificates: []tls.Certificate{pair}, MinVersion: v.tls, MaxVersion: v.tls,
				VerifyPeer: func(_ string, chain [][]byte) error {
					if !bytes.Equal(chain[0], pair.Certificate[0]) {
						t.Error("another certificate")
					}
					return nil
				}}
			password := func(p string) eap.Secret { return eap.Secret{Password: suite.Key(p)} }
			for _, m := range []struct {
				name string
				cfg  eap.PeerConfig
				ok   bool
			}{
				{"MSCHAPv2", eap.PeerConfig{Methods: []eap.Type{eap.TypeMSCHAPv2}, Secret: password("Ar3etTnp")}, true},
				{"MSCHAPv2WrongPassword", eap.PeerConfig{Methods: []eap.Type{eap.TypeMSCHAPv2}, Secret: password("wrong")}, false},
				{"TLS", eap.PeerConfig{Methods: []eap.Type{eap.TypeTLS}}, true},
				{"TTLSWithEAPMSCHAPv2", eap.PeerConfig{Methods: []eap.Type{eap.TypeTTLS}, Secret: password("Ar3etTnp")}, true},
				{"TTLSWithMSCHAPv2", eap.PeerConfig{Methods: []eap.Type{eap.TypeTTLS}, Phase2: eap.Phase2MSCHAPv2, Secret: password("Ar3etTnp")}, true},
				{"TTLSWithPAP", eap.PeerConfig{Methods: []eap.Type{eap.TypeTTLS}, Phase2: eap.Phase2PAP, Secret: password("Ar3etTnp")}, true},
				{"TTLSWrongPassword", eap.PeerConfig{Methods: []eap.Type{eap.TypeTTLS}, Phase2: eap.Phase2PAP, Secret: password("wrong")}, false},
			} {
				t.Run(m.name, func(t *testing.T) {
					m.cfg.Identity, m.cfg.TLS = "carol", tlsConfig
					var s radius.Step
					var end eap.Step
					err := lab.InNS(ns, func() (err error) { // no t.Fatal there: another goroutine
						s, end, err = runPeer(t, c, m.cfg)
						return err
					})
					if err != nil {
						t.Fatal(err)
					}
					if s.Success != m.ok || end.Success != m.ok {
						t.Fatalf("server's side %v (%v), peer's %v", s.Success, s.Reason, end.Success)
					}
					if m.ok && (len(s.MSK) != 64 || !bytes.Equal(s.MSK, end.MSK) || string(s.Class[0]) != "staff") {
						t.Errorf("MSK %x, the peer's %x", s.MSK, []byte(end.MSK))
					}
				})
			}
		})
	}
}
