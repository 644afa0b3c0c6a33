package gateway_test

import (
	"bytes"
	"context"
	"math/big"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/ikev1"
	"adit/ike/ikev2"
	"adit/internal/config"
	"adit/internal/gateway"
	"adit/pki"
	"adit/pki/pkitest"
	"adit/suite"
)

// certified is a pair of gateways that prove themselves by certificates: the left one is
// the client.
type certified struct {
	left, right     *end
	ca, client, gw  *pkitest.Entity
	ofLeft, ofRight string // the connections
	want            []change
}

// certify makes one whose client proves itself by auth, with certificates that say where
// their status is to be had.
func certify(t *testing.T, auth, version string, ocsp []string, changes ...change) *certified {
	t.Helper()
	c := &certified{want: changes}
	l := newLab(t)
	c.left, c.right = l.end("left", leftAddr, changes...), l.end("right", rightAddr, changes...)
	c.ca = pkitest.NewCA(t, pkitest.Spec{Name: "CA", Key: pkitest.P256})
	c.client = c.ca.Issue(pkitest.Spec{Name: "client", DNS: []string{"client.example"}, Key: pkitest.P256, OCSP: ocsp})
	c.gw = c.ca.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}, Key: pkitest.P256})
	text := func(s, local, localID, remote, remoteID string) string {
		s = strings.Replace(s, "keyingtries = 0\n proposals = aes128gcm16-prfsha256-x25519", "keyingtries = 0\n version = "+version+"\n dpd_delay = 5s\n proposals = "+map[string]string{"1": "aes128-sha256-ecp256", "2": "aes128gcm16-prfsha256-x25519"}[version], 1)
		s = strings.ReplaceAll(s, "esp_proposals = aes128gcm16", "dpd_action = restart\n esp_proposals = aes128gcm16")
		s = strings.Replace(s, "local { auth = psk", "local { auth = "+local+"\n id = "+localID, 1)
		return strings.Replace(s, "remote { auth = psk", "remote { auth = "+remote+"\n id = "+remoteID, 1)
	}
	c.ofRight = text(connection("gw", rightAddr, leftAddr, "net:"+rightNet), "pubkey", "gw.example", auth, "client.example")
	c.ofLeft = text(connection("gw", leftAddr, rightAddr, "net:"+leftNet), auth, "client.example", "pubkey", "gw.example")
	c.give(t, c.right, c.gw, c.ofRight)
	c.give(t, c.left, c.client, c.ofLeft)
	return c
}

func (c *certified) give(t *testing.T, e *end, own *pkitest.Entity, conn string) {
	t.Helper()
	for _, err := range []error{
		e.gw.LoadCert(config.Cert{Kind: config.CertX509, Flag: "CA", DER: c.ca.Cert.DER()}),
		e.gw.LoadCert(config.Cert{Kind: config.CertX509, Flag: "NONE", DER: own.Cert.DER()}),
		e.gw.LoadKey(config.Key{Signer: own.Key}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	e.load(conn)
}

// lists loads a CRL into the right gateway, and has it act.
func (c *certified) lists(t *testing.T, l pkitest.List) {
	t.Helper()
	if err := c.right.gw.LoadCert(config.Cert{Kind: config.CertCRL, Flag: "NONE", DER: c.ca.CRL(l)}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
}

const thrownOut = "terminated: the peer's certificate is revoked"

// Whoever's certificate is revoked while connected is thrown out, with a DELETE and the
// reason, at the next CRL that says so, also after the IKE SA was rekeyed; others stay.
func TestRevokedWhileConnected(t *testing.T) {
	for _, how := range []struct{ auth, version string }{{"pubkey", "2"}, {"eap-tls", "2"}, {"pubkey", "1"}} {
		bubble(t, func(t *testing.T) {
			c := certify(t, how.auth, how.version, nil, func(o *gateway.Options) { o.Versions = []ike.Version{ikev2.Version, ikev1.Version} })
			left, right := c.left, c.right
			defer right.gw.Shutdown()
			defer left.gw.Shutdown()
			if err := left.gw.Initiate(within(time.Minute), "gw", "net"); err != nil {
				t.Fatal(how, err, right.notes())
			}
			if how.version == "2" {
				if n, err := left.gw.Rekey(t.Context(), ike.Rekey{IKE: "gw"}); n != 1 || err != nil {
					t.Fatal(n, err)
				}
			}
			time.Sleep(2 * time.Second)
			c.lists(t, pkitest.List{Number: 1})
			right.gw.FlushCerts("")
			time.Sleep(2*time.Second + 11*time.Minute) // and two looks of the clock
			if down := downs(right); len(down) != 0 || len(right.children()) != 1 {
				t.Fatalf("%v: nobody is revoked, and %v went", how, down)
			}
			other := c.ca.Issue(pkitest.Spec{Name: "other", DNS: []string{"other.example"}, Key: pkitest.P256})
			c.lists(t, pkitest.List{Number: 2, Revoked: []*pki.Certificate{other.Cert}})
			if down := downs(right); len(down) != 0 {
				t.Fatalf("%v: somebody else is revoked, and %v went", how, down)
			}
			c.lists(t, pkitest.List{Number: 3, Revoked: []*pki.Certificate{other.Cert, c.client.Cert}})
			if down := downs(right); !slices.Equal(down, []string{thrownOut}) {
				t.Fatalf("%v: the client is revoked: %v", how, down)
			}
			if down := downs(left); !slices.Equal(down, []string{"deleted by the peer"}) {
				t.Errorf("%v: the client was told: %v", how, down)
			}
			right.expect(0, 0, 0)
		})
	}
}

// answering fetches from the responder of the moment.
type answering struct {
	atomic.Pointer[pkitest.Responder]
}

func (a *answering) Fetch(_ context.Context, r pki.FetchRequest) ([]byte, error) {
	w := httptest.NewRecorder()
	a.Load().ServeHTTP(w, httptest.NewRequest(r.Method, r.URL, bytes.NewReader(r.Body)))
	return w.Body.Bytes(), nil
}

// The same where only OCSP tells: when the answer that let the peer in is too old, the
// responder is asked again.
func TestRevokedByOCSPWhileConnected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		from := &answering{}
		c := certify(t, "eap-tls", "2", []string{"http://192.0.2.9/ocsp"}, func(o *gateway.Options) { o.Fetcher = from })
		answers := func(status int, life time.Duration) {
			from.Store(&pkitest.Responder{CA: c.ca, ClaimCA: true, NextUpdate: time.Now().Add(life), Status: func(*big.Int) int { return status }})
		}
		answers(pkitest.Good, 20*time.Minute)
		defer c.right.gw.Shutdown()
		defer c.left.gw.Shutdown()
		if err := c.left.gw.Initiate(within(time.Minute), "gw", "net"); err != nil {
			t.Fatal(err, c.right.notes())
		}
		if from.Load().Requests.Load() != 1 {
			t.Fatal("the responder was not asked")
		}
		answers(pkitest.Revoked, time.Hour)
		time.Sleep(15 * time.Minute)
		if down := downs(c.right); len(down) != 0 {
			t.Fatalf("the answer is good for five more minutes, and %v went", down)
		}
		time.Sleep(11 * time.Minute)
		if down := downs(c.right); len(down) == 0 || down[0] != thrownOut {
			t.Fatalf("the client is revoked: %v", down)
		}
		c.right.expect(0, 0, 0)
	})
}

// A gateway that was restarted takes the ticket of a client, looks at its certificate as
// if it had come with it, and goes on looking.
func TestRevokedClientDoesNotResume(t *testing.T) {
	for _, revoked := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			c := certify(t, "pubkey", "2", nil, func(o *gateway.Options) {
				o.Daemon.Habits.ResumeSessions, o.TicketSecret = true, suite.Key("a secret of the tickets, kept")
			})
			defer c.left.gw.Shutdown()
			if err := c.left.gw.Initiate(within(time.Minute), "gw", "net"); err != nil {
				t.Fatal(err)
			}
			lost := c.right
			lost.mu.Lock()
			lost.mute = true
			lost.mu.Unlock()
			lost.gw.Shutdown()
			c.right = c.left.lab.end("right", rightAddr, c.want...)
			defer c.right.gw.Shutdown()
			c.give(t, c.right, c.gw, c.ofRight)
			list := pkitest.List{Number: 1}
			if revoked {
				list.Revoked = []*pki.Certificate{c.client.Cert}
			}
			c.lists(t, list)
			time.Sleep(5 * time.Minute) // until the client notices
			if got := len(c.right.children()); got != map[bool]int{false: 1, true: 0}[revoked] {
				t.Fatalf("revoked %v: %d Child SAs\n%v", revoked, got, c.right.notes())
			}
			resumed := slices.ContainsFunc(c.right.notes(), func(s string) bool { return strings.Contains(s, "resumes its session") })
			refused := slices.ContainsFunc(c.right.notes(), func(s string) bool {
				return strings.Contains(s, "would not be let in today") && strings.Contains(s, "revoked")
			})
			if resumed == revoked || refused != revoked {
				t.Errorf("revoked %v: resumed %v, refused %v: %q", revoked, resumed, refused, c.right.notes())
			}
			if revoked {
				return
			}
			c.lists(t, pkitest.List{Number: 2, Revoked: []*pki.Certificate{c.client.Cert}})
			if down := downs(c.right); !slices.Equal(down, []string{thrownOut}) {
				t.Errorf("it is revoked after it has resumed: %v", down)
			}
		})
	}
}

// notes are the remarks and refusals of an end.
func (e *end) notes() (list []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.events {
		switch ev := ev.(type) {
		case ike.Note:
			list = append(list, ev.Text)
		case *ike.Rejection:
			list = append(list, ev.Error())
		}
	}
	return list
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
