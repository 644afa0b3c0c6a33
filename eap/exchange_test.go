package eap_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"testing"
	"time"

	"adit/eap"
	"adit/suite"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pki is one authority and what it issued.
type pki struct {
	pool           *x509.CertPool
	server, client tls.Certificate
	big            tls.Certificate // a server's chain of several kilobytes
	stranger       tls.Certificate // of another authority
}

func newPKI() *pki {
	root, rootKey := issue("root", nil, nil, nil)
	other, otherKey := issue("other root", nil, nil, nil)
	p := &pki{pool: x509.NewCertPool()}
	p.pool.AddCert(root)
	leaf := func(name string, ca *x509.Certificate, key *ecdsa.PrivateKey, pad []string) tls.Certificate {
		c, k := issue(name, ca, key, pad)
		return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: k}
	}
	p.server = leaf("vpn.example", root, rootKey, nil)
	p.client = leaf("carol@example", root, rootKey, nil)
	p.stranger = leaf("carol@example", other, otherKey, nil)
	var pad []string
	for i := range 300 {
		pad = append(pad, fmt.Sprintf("name-%d.with.a.long.suffix.example", i))
	}
	p.big = leaf("vpn.example", root, rootKey, pad)
	return p
}

var testPKI = newPKI()

func issue(name string, ca *x509.Certificate, caKey *ecdsa.PrivateKey, pad []string) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, DNSNames: pad,
	}
	if ca == nil {
		tmpl.IsCA, tmpl.KeyUsage = true, x509.KeyUsageCertSign
		ca, caKey = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca, &key.PublicKey, caKey)
	if err != nil {
		panic(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return c, key
}

// verify is a VerifyPeer: the chain leads to the root and the name is the identity.
func (p *pki) verify(identity string, chain [][]byte) error {
	c, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return err
	}
	if _, err := c.Verify(x509.VerifyOptions{Roots: p.pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return err
	}
	if c.Subject.CommonName != identity {
		return fmt.Errorf("certificate is of %q, not of %q", c.Subject.CommonName, identity)
	}
	return nil
}

func secrets(identity string) (eap.Secret, bool) {
	switch identity {
	case "carol@example", `DOMAIN\carol`:
		return eap.Secret{Password: suite.Key("Ar3etTnp")}, true
	case "hashed":
		return eap.Secret{NTHash: suite.Key("\x44\xeb\xba\x8d\x53\x12\xb8\xd6\x11\x47\x44\x11\xf5\x69\x89\xae")}, true // clientPass
	}
	return eap.Secret{}, false
}

func serverConfig(methods ...eap.Type) eap.ServerConfig {
	return eap.ServerConfig{
		Methods: methods, AskIdentity: true, Secret: secrets,
		TLS: &eap.TLSConfig{Certificates: []tls.Certificate{testPKI.server}, ClientCAs: testPKI.pool, VerifyPeer: testPKI.verify},
	}
}

func peerConfig(methods ...eap.Type) eap.PeerConfig {
	return eap.PeerConfig{
		Identity: "carol@example", Secret: eap.Secret{Password: suite.Key("Ar3etTnp")}, Methods: methods, ServerID: "vpn.example",
		TLS: &eap.TLSConfig{Certificates: []tls.Certificate{testPKI.client}, VerifyPeer: testPKI.verify},
	}
}

func mustServer(t testing.TB, cfg eap.ServerConfig) eap.Session {
	t.Helper()
	s, err := eap.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func mustPeer(t testing.TB, cfg eap.PeerConfig) eap.Session {
	t.Helper()
	s, err := eap.NewPeer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// outcome is how an exchange ended on either side, with all packets, the server's
// first.
type outcome struct {
	server, peer       eap.Step
	serverErr, peerErr error
	packets            [][]byte
}

// converse lets them talk until either is done; alter may change a packet on its
// way.
func converse(t testing.TB, server, peer eap.Session, alter func(n int, pkt []byte) []byte) (o outcome) {
	t.Helper()
	var in []byte
	pass := func(pkt []byte) []byte {
		o.packets = append(o.packets, bytes.Clone(pkt))
		if alter != nil {
			return alter(len(o.packets)-1, pkt)
		}
		return pkt
	}
	for range 400 {
		if !o.server.Done {
			o.server, o.serverErr = server.Next(in)
		}
		if o.server.Out == nil {
			return o
		}
		o.peer, o.peerErr = peer.Next(pass(o.server.Out))
		if o.peer.Done || o.peer.Out == nil {
			return o
		}
		if o.server.Done {
			return o
		}
		in = pass(o.peer.Out)
	}
	t.Fatal("the exchange doesn't end")
	return o
}

func (o outcome) wantSuccess(t *testing.T, identity string, method eap.Type) {
	t.Helper()
	if o.serverErr != nil || o.peerErr != nil {
		t.Fatalf("server: %v; peer: %v", o.serverErr, o.peerErr)
	}
	if !o.server.Done || !o.server.Success || !o.peer.Done || !o.peer.Success {
		t.Fatalf("not successful: %+v, %+v", o.server, o.peer)
	}
	if o.server.Identity != identity || o.server.Method != method || o.peer.Method != method {
		t.Fatalf("server says %q by %v, peer %v; want %q by %v", o.server.Identity, o.server.Method, o.peer.Method, identity, method)
	}
	if !bytes.Equal(o.server.MSK, o.peer.MSK) || !bytes.Equal(o.server.EMSK, o.peer.EMSK) {
		t.Fatal("the keys differ")
	}
	want := 0
	if method.DerivesKey() {
		want = 64
	}
	if len(o.server.MSK) != want || want > 0 && bytes.Equal(o.server.MSK, make([]byte, want)) {
		t.Fatalf("MSK of %d bytes", len(o.server.MSK))
	}
}

// wantFailure checks that neither side believes in success and that the server's
// reason is serverWant, the peer's peerWant (nil: not looked at).
func (o outcome) wantFailure(t *testing.T, serverWant, peerWant error) {
	t.Helper()
	if o.server.Success || o.peer.Success || o.server.MSK != nil || o.peer.MSK != nil {
		t.Fatalf("success: server %v, peer %v", o.server.Success, o.peer.Success)
	}
	if serverWant != nil && !errors.Is(o.serverErr, serverWant) {
		t.Errorf("server: %v, want %v", o.serverErr, serverWant)
	}
	if peerWant != nil && !errors.Is(o.peerErr, peerWant) {
		t.Errorf("peer: %v, want %v", o.peerErr, peerWant)
	}
}

func run(t *testing.T, s eap.ServerConfig, p eap.PeerConfig) outcome {
	t.Helper()
	return converse(t, mustServer(t, s), mustPeer(t, p), nil)
}

func TestRFC3748_EveryMethodBothSides(t *testing.T) {
	for _, m := range []eap.Type{eap.TypeMD5, eap.TypeGTC, eap.TypeMSCHAPv2, eap.TypeTLS, eap.TypeTTLS} {
		t.Run(m.String(), func(t *testing.T) {
			run(t, serverConfig(m), peerConfig(m)).wantSuccess(t, "carol@example", m)
		})
		t.Run(m.String()+" identity known before", func(t *testing.T) {
			s := serverConfig(m)
			s.AskIdentity, s.Identity = false, "carol@example"
			run(t, s, peerConfig(m)).wantSuccess(t, "carol@example", m)
		})
	}
}

func TestRFC2759_NTHashSecretsAndDomains(t *testing.T) {
	p := peerConfig(eap.TypeMSCHAPv2)
	p.Identity, p.Secret = "hashed", eap.Secret{Password: suite.Key("clientPass")}
	run(t, serverConfig(eap.TypeMSCHAPv2), p).wantSuccess(t, "hashed", eap.TypeMSCHAPv2)
	p.Secret, _ = secrets("hashed")
	run(t, serverConfig(eap.TypeMSCHAPv2), p).wantSuccess(t, "hashed", eap.TypeMSCHAPv2)
	p = peerConfig(eap.TypeMSCHAPv2)
	p.Identity = `DOMAIN\carol`
	run(t, serverConfig(eap.TypeMSCHAPv2), p).wantSuccess(t, `DOMAIN\carol`, eap.TypeMSCHAPv2)
	p = peerConfig(eap.TypeGTC)
	p.Identity, p.Secret = "hashed", eap.Secret{Password: suite.Key("clientPass")}
	run(t, serverConfig(eap.TypeGTC), p).wantSuccess(t, "hashed", eap.TypeGTC)
}

func TestPasswordWrongOrIdentityUnknown(t *testing.T) {
	for _, m := range []eap.Type{eap.TypeMD5, eap.TypeGTC, eap.TypeMSCHAPv2, eap.TypeTTLS} {
		t.Run(m.String(), func(t *testing.T) {
			p := peerConfig(m)
			p.Secret.Password = suite.Key("wrong")
			wrong := run(t, serverConfig(m), p)
			wrong.wantFailure(t, eap.ErrPassword, nil)
			p = peerConfig(m)
			p.Identity = "marol@example"
			unknown := run(t, serverConfig(m), p)
			unknown.wantFailure(t, eap.ErrUnknownIdentity, nil)
			if errors.Is(unknown.serverErr, eap.ErrPassword) || len(wrong.packets) != len(unknown.packets) {
				t.Errorf("%d packets after a wrong password, %d for an unknown identity", len(wrong.packets), len(unknown.packets))
			}
			for i := range wrong.packets {
				if m != eap.TypeTTLS && len(wrong.packets[i])-len(p.Secret.Password) > len(unknown.packets[i]) {
					t.Errorf("packet %d differs in length", i)
				}
			}
		})
	}
}

// The server knows why before the peer's last answer, which may never come.
func TestServerTellsWhyWithItsLastWord(t *testing.T) {
	for _, c := range []struct {
		m    eap.Type
		want error
	}{{eap.TypeMSCHAPv2, eap.ErrPassword}, {eap.TypeTTLS, eap.ErrPassword}, {eap.TypeTLS, eap.ErrTLS}} {
		p := peerConfig(c.m)
		p.Secret.Password = suite.Key("wrong")
		p.TLS.Certificates = []tls.Certificate{testPKI.stranger}
		server, peer := mustServer(t, serverConfig(c.m)), mustPeer(t, p)
		step, err := server.Next(nil)
		for err == nil && step.Failing == nil {
			if step, err = peer.Next(step.Out); err == nil {
				step, err = server.Next(step.Out)
			}
		}
		if err != nil || step.Done || step.Out == nil || !errors.Is(step.Failing, c.want) {
			t.Errorf("%v: %+v, %v", c.m, step, err)
		}
	}
}

func TestTLSVersionsAndFragments(t *testing.T) {
	for _, m := range []eap.Type{eap.TypeTLS, eap.TypeTTLS} {
		for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, size := range []int{0, 100, 16384} {
				for _, big := range []bool{false, true} {
					if big && size == 100 {
						continue // beyond the number of rounds, see below
					}
					t.Run(fmt.Sprintf("%v %s fragments %d big %v", m, tls.VersionName(v), size, big), func(t *testing.T) {
						s, p := serverConfig(m), peerConfig(m)
						s.TLS.FragmentSize, p.TLS.FragmentSize, p.TLS.MaxVersion, p.TLS.MinVersion = size, size, v, v
						if big {
							s.TLS.Certificates = []tls.Certificate{testPKI.big}
						}
						run(t, s, p).wantSuccess(t, "carol@example", m)
					})
				}
			}
		}
	}
}

func TestRFC5281_Phase2(t *testing.T) {
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s, p := serverConfig(eap.TypeTTLS), peerConfig(eap.TypeTTLS)
		s.TLS.MaxVersion = v
		p.AnonymousIdentity = "anonymous@example"
		for _, inner := range []eap.Type{eap.TypeMD5, eap.TypeGTC, eap.TypeMSCHAPv2} {
			s.Tunnelled, p.Tunnelled = []eap.Type{inner}, []eap.Type{inner}
			run(t, s, p).wantSuccess(t, "carol@example", eap.TypeTTLS)
		}
		// By default MD5 is done, too, which is all that strongSwan's server offers.
		s.Tunnelled, p.Tunnelled = []eap.Type{eap.TypeMD5}, nil
		run(t, s, p).wantSuccess(t, "carol@example", eap.TypeTTLS)
		// A Nak inside.
		s.Tunnelled, p.Tunnelled = []eap.Type{eap.TypeMSCHAPv2, eap.TypeGTC}, []eap.Type{eap.TypeGTC}
		run(t, s, p).wantSuccess(t, "carol@example", eap.TypeTTLS)
		for _, phase2 := range []eap.Phase2{eap.Phase2MSCHAPv2, eap.Phase2PAP} {
			p.Phase2 = phase2
			run(t, s, p).wantSuccess(t, "carol@example", eap.TypeTTLS)
			bad := p
			bad.Secret.Password = suite.Key("wrong")
			run(t, s, bad).wantFailure(t, eap.ErrPassword, eap.ErrFailure)
			bad = p
			bad.Identity = "marol@example"
			run(t, s, bad).wantFailure(t, eap.ErrUnknownIdentity, eap.ErrFailure)
			refusing := s
			refusing.Tunnelled = []eap.Type{eap.TypeMD5}
			run(t, refusing, p).wantFailure(t, eap.ErrMethods, eap.ErrFailure)
		}
	}
}

// CVE-2023-26463: a certificate that isn't trusted, or is somebody else's, ends the
// exchange, though its key signed the handshake.
func TestCVE_2023_26463_CertificatesRefused(t *testing.T) {
	for _, m := range []eap.Type{eap.TypeTLS, eap.TypeTTLS} {
		for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(fmt.Sprintf("%v %s", m, tls.VersionName(v)), func(t *testing.T) {
				s, p := serverConfig(m), peerConfig(m)
				s.TLS.MaxVersion = v
				p.ServerID = "other.example"
				run(t, s, p).wantFailure(t, eap.ErrTLS, eap.ErrTLS)
				if m == eap.TypeTTLS {
					return
				}
				p = peerConfig(m)
				p.TLS.Certificates = []tls.Certificate{testPKI.stranger}
				run(t, s, p).wantFailure(t, eap.ErrTLS, eap.ErrTLS)
				p = peerConfig(m)
				p.Identity = "dave@example" // with carol's certificate
				run(t, s, p).wantFailure(t, eap.ErrTLS, eap.ErrTLS)
			})
		}
	}
}

func TestRFC3748_5_3_Nak(t *testing.T) {
	s := serverConfig(eap.TypeMD5, eap.TypeTLS, eap.TypeMSCHAPv2, eap.TypeGTC)
	run(t, s, peerConfig(eap.TypeGTC, eap.TypeMSCHAPv2)).wantSuccess(t, "carol@example", eap.TypeMSCHAPv2)
	run(t, serverConfig(eap.TypeMD5), peerConfig(eap.TypeMSCHAPv2)).wantFailure(t, eap.ErrMethods, eap.ErrFailure)
	// The peer doesn't take a method that wasn't allowed to it.
	run(t, serverConfig(eap.TypeGTC), peerConfig(eap.TypeTLS)).wantFailure(t, eap.ErrMethods, eap.ErrFailure)
}

func TestConfigRefused(t *testing.T) {
	for name, change := range map[string]func(*eap.ServerConfig, *eap.PeerConfig){
		"no method":            func(s *eap.ServerConfig, p *eap.PeerConfig) { s.Methods, p.Methods = nil, nil },
		"Identity as a method": func(s *eap.ServerConfig, p *eap.PeerConfig) { s.Methods[0], p.Methods[0] = 1, 1 },
		"no TLS":               func(s *eap.ServerConfig, p *eap.PeerConfig) { s.TLS, p.TLS = nil, nil },
		"nothing verified":     func(s *eap.ServerConfig, p *eap.PeerConfig) { s.TLS.VerifyPeer, p.TLS.VerifyPeer = nil, nil },
		"no certificate":       func(s *eap.ServerConfig, p *eap.PeerConfig) { s.TLS.Certificates, p.TLS.Certificates = nil, nil },
		"tiny fragments":       func(s *eap.ServerConfig, p *eap.PeerConfig) { s.TLS.FragmentSize, p.TLS.FragmentSize = 99, 99 },
		"old TLS": func(s *eap.ServerConfig, p *eap.PeerConfig) {
			s.TLS.MinVersion, p.TLS.MinVersion = tls.VersionTLS11, tls.VersionTLS11
		},
	} {
		s, p := serverConfig(eap.TypeTLS), peerConfig(eap.TypeTLS)
		change(&s, &p)
		if _, err := eap.NewServer(s); !errors.Is(err, eap.ErrConfig) {
			t.Errorf("%s: server: %v", name, err)
		}
		if _, err := eap.NewPeer(p); !errors.Is(err, eap.ErrConfig) {
			t.Errorf("%s: peer: %v", name, err)
		}
	}
	p := peerConfig(eap.TypeTTLS)
	p.Secret = eap.Secret{}
	if _, err := eap.NewPeer(p); !errors.Is(err, eap.ErrConfig) {
		t.Errorf("TTLS without a password: %v", err)
	}
	s := serverConfig(eap.TypeMSCHAPv2)
	s.Secret = nil
	if _, err := eap.NewServer(s); !errors.Is(err, eap.ErrConfig) {
		t.Errorf("MSCHAPv2 without secrets: %v", err)
	}
}
