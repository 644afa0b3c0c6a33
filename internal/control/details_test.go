package control_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/internal/config"
	"adit/internal/conn"
	"adit/internal/explain"
	"adit/internal/gateway"
	"adit/pki"
	"adit/pki/pkitest"
	"adit/vici"
)

// told is what one side tells of a refusal: reason/detail and the first option.
type told struct{ what, option string }

// setUp is one side of a case, with the zero value for what is usual.
type setUp struct {
	remote            string // address
	ike, esp, ts      string // ts: "local remote"
	local, rem        string // lines of the sections local and remote
	extra, child      string // lines of the connection and of the child
	key               string
	prepare           func(s *side)
	refuses           told
	withoutConnection bool
}

func (u setUp) load(s *side, here, there, id, peerID string, ts [2]string) {
	def := func(v *string, usual string) {
		if *v == "" {
			*v = usual
		}
	}
	def(&u.remote, there)
	def(&u.ike, "aes128gcm16-prfsha256-x25519")
	def(&u.esp, "aes128gcm16")
	def(&u.ts, ts[0]+" "+ts[1])
	def(&u.local, "auth = psk\nid = "+id)
	def(&u.rem, "auth = psk\nid = "+peerID)
	def(&u.key, "a secret that is long enough")
	l, r, _ := strings.Cut(u.ts, " ")
	s.ok("load-shared", "id = ike-1\ntype = IKE\ndata = \""+u.key+"\"\nowners = a.example, b.example\n")
	if u.prepare != nil {
		u.prepare(s)
	}
	if !u.withoutConnection {
		s.ok("load-conn", fmt.Sprintf("gw {\nversion = 2\nlocal_addrs = %s\nremote_addrs = %s\nproposals = %s\n%s\nlocal {\n%s\n}\nremote {\n%s\n}\nchildren {\nnet {\nlocal_ts = %s\nremote_ts = %s\nesp_proposals = %s\n%s\n}\n}\n}\n",
			here, u.remote, u.ike, u.extra, u.local, u.rem, l, r, u.esp, u.child))
	}
}

const (
	pubkeyA = "auth = pubkey\nid = a.example"
	pubkeyB = "auth = pubkey\nid = b.example"
)

// certified loads a certificate with its key, and what the peer is believed by.
func certified(own *pkitest.Entity, more ...func(s *side)) func(s *side) {
	return func(s *side) {
		if own != nil {
			s.want("", "load-cert", "type", "X509", "flag", "NONE", "data", string(own.PEM()))
			s.want("", "load-key", "type", "any", "data", string(own.KeyPEM()))
		}
		for _, f := range more {
			f(s)
		}
	}
}

func believes(ca *pkitest.Entity) func(s *side) {
	return func(s *side) { s.want("", "load-cert", "type", "X509", "flag", "CA", "data", string(ca.PEM())) }
}

func knows(kind, pem string) func(s *side) {
	return func(s *side) { s.want("", "load-cert", "type", kind, "flag", "NONE", "data", pem) }
}

// quickly has peers be given up within a moment.
func quickly(s *side) {
	d, err := config.LoadDaemon("")
	if err != nil {
		s.t.Fatal(err)
	}
	d.Retransmit = ike.Retransmit{Timeout: 150 * time.Millisecond, Base: 1, Tries: 2}
	d.HalfOpenTimeout = 600 * time.Millisecond
	if err := s.gw.Retune(s.t.Context(), d); err != nil {
		s.t.Fatal(err)
	}
}

// Every case of a refusal says what it is and which option to look at, on the side
// that refuses and on the one that is refused, and says the same in the log, as an
// alert and in explain.
func TestEachDetail(t *testing.T) {
	ca, other := pkitest.NewCA(t, pkitest.Spec{Name: "CA"}), pkitest.NewCA(t, pkitest.Spec{Name: "other CA"})
	leaf := func(by *pkitest.Entity, id string, s pkitest.Spec) *pkitest.Entity {
		s.Name, s.DNS = id, []string{id}
		return by.Issue(s)
	}
	a, b := leaf(ca, "a.example", pkitest.Spec{}), leaf(ca, "b.example", pkitest.Spec{})
	year := 365 * 24 * time.Hour
	now := time.Now()
	byPeer := told{"authentication/", "connections.gw.local.certs"}
	certs := func(left, right setUp) [2]setUp {
		if left.local == "" {
			left.local = pubkeyA
		}
		if left.rem == "" {
			left.rem = pubkeyB
		}
		if right.rem == "" {
			right.rem = pubkeyA
		}
		right.local = pubkeyB
		if left.prepare == nil {
			left.prepare = certified(a, believes(ca))
		}
		if right.prepare == nil {
			right.prepare = certified(b, believes(ca))
		}
		if left.refuses == (told{}) {
			left.refuses = byPeer
		}
		return [2]setUp{left, right}
	}
	refusedCert := func(left *pkitest.Entity, detail ike.Detail, option string) [2]setUp {
		return certs(setUp{prepare: certified(left, believes(ca))}, setUp{refuses: told{"authentication/" + string(detail), option}})
	}
	for name, c := range map[string][2]setUp{
		"proposal": {{refuses: told{"proposal/", "connections.gw.proposals"}}, {ike: "aes256-sha256-x25519", refuses: told{"proposal/transform", "connections.gw.proposals"}}},
		"group":    {{refuses: told{"proposal/", "connections.gw.proposals"}}, {ike: "aes128gcm16-prfsha256-modp2048", refuses: told{"proposal/key-exchange", "connections.gw.proposals"}}},
		"esp proposal": {{refuses: told{"proposal/", "connections.gw.children.net.esp_proposals"}},
			{esp: "aes256-sha256", refuses: told{"proposal/transform", "connections.gw.children.net.esp_proposals"}}},
		"mode":      {{refuses: told{"proposal/", "connections.gw.children.net.esp_proposals"}}, {child: "mode = transport", refuses: told{"proposal/mode", "connections.gw.children.net.mode"}}},
		"local ts":  {{refuses: told{"selectors/", "connections.gw.children.net.local_ts"}}, {ts: "10.9.0.0/24 10.1.0.0/24", refuses: told{"selectors/local-ts", "connections.gw.children.net.local_ts"}}},
		"remote ts": {{refuses: told{"selectors/", "connections.gw.children.net.local_ts"}}, {ts: "10.2.0.0/24 10.9.0.0/24", refuses: told{"selectors/remote-ts", "connections.gw.children.net.remote_ts"}}},
		"key":       {{refuses: told{"authentication/", "secrets.ike*.secret"}}, {key: "another secret that is long enough", refuses: told{"authentication/shared-key", "secrets.ike*.secret"}}},
		"no key of ours": {{local: "auth = psk\nid = c.example", rem: "auth = psk\nid = d.example", refuses: told{"authentication/no-shared-key", "secrets.ike*"}},
			{}},
		"no key of theirs": {{local: "auth = psk\nid = a.example", rem: "auth = psk\nid = d.example", refuses: told{"authentication/", "secrets.ike*.secret"}},
			{local: "auth = psk\nid = d.example", rem: "auth = psk\nid = a.example", prepare: func(s *side) {
				s.want("", "unload-shared", "id", "ike-1")
			}, refuses: told{"authentication/no-shared-key", "secrets.ike*"}}},
		"unknown id": {{local: "auth = psk\nid = c.example", refuses: told{"authentication/", "secrets.ike*.secret"}},
			{refuses: told{"identity/", "connections.gw.remote.id"}}},
		"other id": {{rem: "auth = psk\nid = *.other.example", refuses: told{"identity/remote-id", "connections.gw.remote.id"}},
			{refuses: told{"authentication/", "secrets.ike*.secret"}}},
		"no connection": {{refuses: told{"proposal/", "connections.gw.proposals"}}, {remote: "198.51.100.1", refuses: told{"address/", "connections.gw.remote_addrs"}}},
		"silent":        {{remote: "192.0.2.99", prepare: quickly, refuses: told{"no-answer/silent", "connections.gw.remote_addrs"}}, {}},
		"no family":     {{remote: "2001:db8::1", refuses: told{"address/no-local-address", "connections.gw.local_addrs"}}, {}},
		"no target":     {{remote: "%any", refuses: told{"address/no-target", "connections.gw.remote_addrs"}}, {}},
		"no pool":       {{extra: "vips = 0.0.0.0", refuses: told{"addresses/", "connections.gw.vips"}}, {refuses: told{"addresses/no-pool", "connections.gw.pools"}}},
		"empty pool": {{extra: "vips = ::", refuses: told{"addresses/", "connections.gw.vips"}}, {extra: "pools = v4",
			prepare: func(s *side) { s.ok("load-pool", "v4 {\naddrs = 10.3.0.0/24\n}\n") }, refuses: told{"addresses/pool", "pools.v4.addrs"}}},
		"unasked": {{refuses: told{"addresses/", "connections.gw.vips"}}, {extra: "pools = v4",
			prepare: func(s *side) { s.ok("load-pool", "v4 {\naddrs = 10.3.0.0/24\n}\n") }, refuses: told{"addresses/unasked", "connections.gw.pools"}}},
		"no signature": certs(setUp{prepare: believes(ca), refuses: told{"authentication/no-signature", "connections.gw.local.certs"}}, setUp{}),
		"method":       certs(setUp{}, setUp{rem: "auth = psk\nid = a.example", refuses: told{"authentication/method", "connections.gw.remote.auth"}}),
		"untrusted":    refusedCert(leaf(other, "a.example", pkitest.Spec{}), ike.DetailUntrusted, "connections.gw.remote.cacerts"),
		"expired":      refusedCert(leaf(ca, "a.example", pkitest.Spec{NotBefore: now.Add(-year), NotAfter: now.Add(-time.Hour)}), ike.DetailExpired, ""),
		"not yet":      refusedCert(leaf(ca, "a.example", pkitest.Spec{NotBefore: now.Add(time.Hour), NotAfter: now.Add(year)}), ike.DetailNotYetValid, ""),
		"weak": certs(setUp{}, setUp{rem: "auth = ecdsa-384\nid = a.example",
			refuses: told{"authentication/weak", "connections.gw.remote.auth"}}),
		"no certificate": certs(setUp{extra: "send_cert = never"}, setUp{refuses: told{"authentication/no-certificate", "connections.gw.remote.certs"}}),
		"signature": certs(setUp{extra: "send_cert = never"}, setUp{prepare: certified(b, believes(ca), knows("X509", string(leaf(ca, "a.example", pkitest.Spec{}).PEM()))),
			refuses: told{"authentication/signature", "connections.gw.remote.certs"}}),
		"revoked": certs(setUp{}, setUp{prepare: certified(b, believes(ca), knows("X509_CRL", string(ca.CRL(pkitest.List{Revoked: []*pki.Certificate{a.Cert}})))),
			refuses: told{"authentication/revoked", ""}}),
		"no revocation": certs(setUp{}, setUp{rem: pubkeyA + "\nrevocation = strict", refuses: told{"authentication/no-revocation", "connections.gw.remote.revocation"}}),
		"constraint":    certs(setUp{}, setUp{rem: pubkeyA + "\ncert_policy = 1.2.3.4", refuses: told{"authentication/constraint", "connections.gw.remote.cacerts"}}),
		"eap": certs(setUp{local: "auth = eap-mschapv2\nid = a.example\neap_id = alice", prepare: certified(nil, believes(ca), func(s *side) {
			s.ok("load-shared", "type = EAP\nid = eap\ndata = wonderland\nowners = alice\n")
		}), refuses: told{"authentication/eap", "secrets.eap*.secret"}},
			setUp{rem: "auth = eap-mschapv2\nid = a.example\neap_id = %any", prepare: certified(b, believes(ca), func(s *side) {
				s.ok("load-shared", "type = EAP\nid = eap\ndata = looking-glass\nowners = alice\n")
			}), refuses: told{"authentication/eap", "secrets.eap*.secret"}}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wire := conn.NewNetwork()
			left, right := newSide(t, wire, "192.0.2.1"), newSide(t, wire, "192.0.2.2")
			c[0].load(left, "192.0.2.1", "192.0.2.2", "a.example", "b.example", [2]string{"10.1.0.0/24", "10.2.0.0/24"})
			c[1].load(right, "192.0.2.2", "192.0.2.1", "b.example", "a.example", [2]string{"10.2.0.0/24", "10.1.0.0/24"})
			refusals(t, left, right, c[0].refuses, c[1].refuses)
		})
	}
	t.Run("silent on 4500", func(t *testing.T) {
		t.Parallel()
		wire := conn.NewNetwork()
		left, right := newSide(t, wire, "192.0.2.1"), newSide(t, wire, "192.0.2.2")
		setUp{prepare: quickly}.load(left, "192.0.2.1", "192.0.2.2", "a.example", "b.example", [2]string{"10.1.0.0/24", "10.2.0.0/24"})
		setUp{prepare: quickly}.load(right, "192.0.2.2", "192.0.2.1", "b.example", "a.example", [2]string{"10.2.0.0/24", "10.1.0.0/24"})
		wire.SetFilter(func(d *conn.Datagram) bool { return d.Dst.Port() != 4500 })
		refusals(t, left, right, told{"no-answer/silent-4500", ""}, told{"no-answer/half-open", ""})
	})
}

// witness keeps the first refusal of a side and the alerts.
type witness struct {
	records chan *ike.Rejection
	alerts  chan *conf.Section
}

// witness follows a side until the test ends.
func (s *side) witness(ctx context.Context) witness {
	w := witness{make(chan *ike.Rejection, 64), make(chan *conf.Section, 64)}
	cancel := s.gw.Subscribe(func(e ike.Event) {
		if r, ok := e.(*ike.Rejection); ok {
			w.records <- r
		}
	})
	c, err := vici.Dial(ctx, s.uri)
	if err != nil {
		s.t.Fatal(err)
	}
	var listening sync.WaitGroup
	listening.Go(func() {
		for e := range c.Listen(ctx, "alert") {
			if e.Body != nil && e.Body.Text("reason") != "" {
				w.alerts <- e.Body
			}
		}
	})
	s.t.Cleanup(func() {
		cancel()
		_ = c.Close()
		listening.Wait()
	})
	return w
}

// refusals initiates and compares what both sides tell, empty: that side has nothing to tell.
func refusals(t *testing.T, left, right *side, l, r told) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	sides, wants := []*side{left, right}, []told{l, r}
	seen := []witness{left.witness(ctx), right.witness(ctx)}
	for _, s := range sides { // the clients register
		for !s.srv.Wanted("alert") && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
	}
	if err := left.gw.Initiate(ctx, "gw", "net"); err == nil {
		t.Fatal("it came up")
	}
	for i, s := range sides {
		if wants[i] == (told{}) {
			continue
		}
		var rec *ike.Rejection
		select {
		case rec = <-seen[i].records:
		case <-ctx.Done():
			t.Fatal("no refusal")
		}
		option := ""
		if len(rec.Options) > 0 {
			option = rec.Options[0]
		}
		if got := (told{string(rec.Reason) + "/" + string(rec.Detail), option}); got != wants[i] {
			t.Errorf("side %d tells %+v, want %+v: %v", i, got, wants[i], rec)
		}
		log, _ := gateway.Describe(rec)
		var attrs []string
		for _, a := range log.Attrs {
			if a.Value.Kind() == slog.KindString {
				attrs = append(attrs, a.Key+"="+a.Value.String())
			}
		}
		if !slices.Equal(attrs, facts(rec)) {
			t.Errorf("the log has\n%q\nthe record\n%q", attrs, facts(rec))
		}
		select {
		case alert := <-seen[i].alerts:
			sameAs(t, "alert", rec, fieldsOf(alert))
			if alert.Text("type") == "" || alert.Text("type") == "internal" {
				t.Errorf("alert of type %q", alert.Text("type"))
			}
		case <-ctx.Done():
			t.Error("no alert")
		}
		x := s.explain(ctx, "gw")
		if len(x.Records) == 0 {
			t.Errorf("explain has no record: %+v", x)
			continue
		}
		sameAs(t, "explain", rec, x.Records[0].Fields)
		if x.State == explain.Up || x.Verdict == "" || len(x.Changes) == 0 {
			t.Errorf("%+v", x)
		}
		t.Logf("side %d:\n%s", i, x.Text(80))
	}
}
