package gateway_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/internal/config"
	"adit/pki"
	"adit/pki/pkitest"
)

// Whoever's certificate is revoked while connected is thrown out, with a DELETE and the
// reason, at the next CRL that says so, also after the IKE SA was rekeyed; others stay.
func TestRevokedWhileConnected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		left, right := pair(t)
		defer right.gw.Shutdown()
		defer left.gw.Shutdown()
		ca := pkitest.NewCA(t, pkitest.Spec{Name: "CA", Key: pkitest.P256})
		client := ca.Issue(pkitest.Spec{Name: "client", DNS: []string{"client.example"}, Key: pkitest.P256})
		gw := ca.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}, Key: pkitest.P256})
		for e, own := range map[*end]*pkitest.Entity{left: client, right: gw} {
			for _, err := range []error{
				e.gw.LoadCert(config.Cert{Kind: config.CertX509, Flag: "CA", DER: ca.Cert.DER()}),
				e.gw.LoadCert(config.Cert{Kind: config.CertX509, Flag: "NONE", DER: own.Cert.DER()}),
				e.gw.LoadKey(config.Key{Signer: own.Key}),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		byKey := func(s, local, remote string) string {
			s = strings.Replace(s, "local { auth = psk", "local { auth = pubkey\n id = "+local, 1)
			return strings.Replace(s, "remote { auth = psk", "remote { auth = pubkey\n id = "+remote, 1)
		}
		right.load(byKey(connection("gw", rightAddr, leftAddr, "net:"+rightNet), "gw.example", "client.example"))
		left.load(byKey(connection("gw", leftAddr, rightAddr, "net:"+leftNet), "client.example", "gw.example"))
		if err := left.gw.Initiate(t.Context(), "gw", "net"); err != nil {
			t.Fatal(err)
		}
		if n, err := left.gw.Rekey(t.Context(), ike.Rekey{IKE: "gw"}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		crl := func(l pkitest.List) {
			t.Helper()
			if err := right.gw.LoadCert(config.Cert{Kind: config.CertCRL, Flag: "NONE", DER: ca.CRL(l)}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
		}
		time.Sleep(2 * time.Second)
		crl(pkitest.List{Number: 1})
		right.gw.FlushCerts("")
		time.Sleep(2*time.Second + 11*time.Minute) // and two looks of the clock
		if down := downs(right); len(down) != 0 || len(right.children()) != 1 {
			t.Fatalf("nobody is revoked, and %v went", down)
		}
		other := ca.Issue(pkitest.Spec{Name: "other", DNS: []string{"other.example"}, Key: pkitest.P256})
		crl(pkitest.List{Number: 2, Revoked: []*pki.Certificate{other.Cert}})
		if down := downs(right); len(down) != 0 {
			t.Fatalf("somebody else is revoked, and %v went", down)
		}
		crl(pkitest.List{Number: 3, Revoked: []*pki.Certificate{other.Cert, client.Cert}})
		if down := downs(right); !slices.Equal(down, []string{"terminated: the peer's certificate is revoked"}) {
			t.Fatalf("the client is revoked: %v", down)
		}
		if down := downs(left); !slices.Equal(down, []string{"deleted by the peer"}) {
			t.Errorf("the client was told: %v", down)
		}
		right.expect(0, 0, 0)
	})
}

// downs are the reasons with which IKE SAs of an end went.
func downs(e *end) (list []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.events {
		if d, ok := ev.(ike.IKEDown); ok {
			list = append(list, d.Reason)
		}
	}
	return list
}
