package radius_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/radius"
	"adit/radius/radiustest"
)

// namespace makes a network namespace of this test with loopback up.
func namespace(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: a network namespace needs root")
	}
	ns := fmt.Sprintf("rad%d", os.Getpid())
	for _, args := range [][]string{{"netns", "add", ns}, {"-n", ns, "link", "set", "lo", "up"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", ns).CombinedOutput(); err != nil {
			t.Errorf("ip netns del: %v: %s", err, out)
		}
	})
	return ns
}

// certificate writes a CA and an end entity of both purposes as PEM files, and
// returns the entity's for crypto/tls, too.
func certificate(t *testing.T) (ca, cert, key string, pair tls.Certificate) {
	t.Helper()
	issue := func(tmpl, parent *x509.Certificate, pub any, by *ecdsa.PrivateKey) []byte {
		tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, by)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	rootKey, leafKey := newKey(), newKey()
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootDER := issue(root, root, rootKey.Public(), rootKey)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "carol"}, DNSNames: []string{"aaa"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	leafDER := issue(leaf, root, leafKey.Public(), rootKey)
	pk, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("ca.pem", "CERTIFICATE", rootDER), write("cert.pem", "CERTIFICATE", leafDER), write("key.pem", "PRIVATE KEY", pk),
		tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: leafKey}
}

// md5Peer answers EAP-MD5 (RFC 3748 §5.4) with a password.
func md5Peer(password string) func(in []byte) []byte {
	return func(in []byte) []byte {
		if in[4] != 4 { // another method: Nak that wants MD5
			return []byte{2, in[1], 0, 6, 3, 4}
		}
		h := md5.New()
		h.Write(in[1:2])
		h.Write([]byte(password))
		h.Write(in[6 : 6+int(in[5])])
		return append([]byte{2, in[1], 0, 22, 4, 16}, h.Sum(nil)...)
	}
}

func identityOf(name string) []byte {
	return append([]byte{2, 0, 0, byte(5 + len(name)), 1}, name...)
}

// authenticate runs a peer through a relay to its end.
func authenticate(c *radius.Client, name string, peer func(in []byte) []byte) (radius.Step, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r := radius.NewRelay(radius.RelayConfig{Client: c, CalledStationID: "192.0.2.1[500]", CallingStationID: "192.0.2.2[500]"})
	for out := identityOf(name); ; {
		s, err := r.Next(ctx, out)
		if err != nil || s.Done {
			return s, err
		}
		out = peer(s.Out)
	}
}

func TestFreeRADIUS(t *testing.T) {
	ns := namespace(t)
	ca, cert, key, _ := certificate(t)
	addr := netip.MustParseAddrPort("127.0.0.1:1812")
	aaa := radiustest.Start(t, radiustest.Config{
		Namespace: ns, Listen: addr, Secret: secret,
		Users: []radiustest.User{
			{Name: "carol", Password: "Ar3etTnp", Reply: []string{"Framed-IP-Address = 10.3.0.7", `Class = "staff"`, "Session-Timeout = 3600",
				"Framed-IPv6-Address = fd00::7"}},
			{Name: "dave", Password: "W7R0g3do"},
		},
		CAFile: ca, CertFile: cert, KeyFile: key, TLSMax: "1.3",
	})
	config := radius.ServerConfig{Name: "aaa", Address: addr.Addr().String(), Secret: []byte(secret), NASIdentifier: "gw", Timeout: 5 * time.Second, Tries: 2}
	c := newClient(t, config)
	// The first request opens the socket, on this thread and so in the namespace; the
	// others use it from anywhere.
	in := func(name string, f func(t *testing.T) error) {
		t.Run(name, func(t *testing.T) {
			if err := lab.InNS(ns, func() error { return f(t) }); err != nil {
				t.Error(err)
			}
		})
	}

	in("MD5", func(t *testing.T) error {
		s, err := authenticate(c, "carol", md5Peer("Ar3etTnp"))
		if err != nil {
			return err
		}
		if !s.Success || !s.Keyless || s.Out[0] != 3 || s.Framed4.String() != "10.3.0.7" || s.Framed6.String() != "fd00::7" ||
			len(s.Class) != 1 || string(s.Class[0]) != "staff" || s.SessionTimeout != time.Hour {
			t.Errorf("%+v", s)
		}
		return nil
	})
	in("WrongPassword", func(t *testing.T) error {
		s, err := authenticate(c, "dave", md5Peer("wrong"))
		if err == nil && (s.Success || !errors.Is(s.Reason, radius.ErrRejected) || s.Out[0] != 4) {
			t.Errorf("%+v", s)
		}
		return err
	})
	in("UnknownUser", func(t *testing.T) error {
		s, err := authenticate(c, "mallory", md5Peer("x"))
		if err == nil && s.Success {
			t.Errorf("%+v", s)
		}
		return err
	})
	in("TLSIsOffered", func(t *testing.T) error {
		for _, method := range []byte{13, 21, 25} {
			var got []byte
			_, err := authenticate(c, "carol", func(in []byte) []byte {
				if in[4] == 4 {
					return []byte{2, in[1], 0, 6, 3, method}
				}
				got = bytes.Clone(in)
				return []byte{2, in[1], 0, 6, 3, 0} // none of them
			})
			if err != nil {
				return err
			}
			if len(got) < 6 || got[4] != method || got[5]&0x20 == 0 {
				t.Errorf("method %d: %x", method, got)
			}
		}
		return nil
	})
	t.Run("ManyAtOnce", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if s, err := authenticate(c, "dave", md5Peer("W7R0g3do")); err != nil || !s.Success {
					t.Errorf("%+v %v", s, err)
				}
			})
		}
		wg.Wait()
	})
	in("WrongSecret", func(t *testing.T) error {
		wrong := config
		wrong.Secret, wrong.Timeout, wrong.Tries = []byte("other"), 50*time.Millisecond, 2
		if s, err := authenticate(newClient(t, wrong), "dave", md5Peer("W7R0g3do")); !errors.Is(err, radius.ErrNoAnswer) {
			t.Errorf("%+v %v", s, err)
		}
		return nil
	})
	if st := c.Stats()[0]; st.Retransmits != 0 || st.NoMessageAuthenticator+st.BadAuthenticator+st.BadMessageAuthenticator+st.Malformed+st.Stray != 0 {
		t.Errorf("%+v", st)
	}
	aaa.Stop()
	in("Stopped", func(t *testing.T) error {
		gone := config
		gone.Timeout, gone.Tries = 20*time.Millisecond, 2
		if _, err := authenticate(newClient(t, gone), "dave", md5Peer("W7R0g3do")); !errors.Is(err, radius.ErrNoAnswer) {
			t.Error(err)
		}
		return nil
	})
}
