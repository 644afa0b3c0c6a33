package gateway

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"adit/eap"
	"adit/ike"
	"adit/internal/config"
	"adit/pki/pkitest"
	"adit/radius"
	"adit/suite"
)

// examinee is a gateway without engine and host: what EAP needs.
func examinee(t *testing.T, servers ...config.RADIUSServer) *Gateway {
	t.Helper()
	g := &Gateway{}
	g.opt.Daemon.RADIUS = servers
	g.inv.init()
	g.leases.init()
	g.trust.init(nil)
	g.conversations.init(g)
	t.Cleanup(g.conversations.close)
	return g
}

func (g *Gateway) secret(t *testing.T, kind config.SecretKind, key []byte, owners ...string) {
	t.Helper()
	s := config.Secret{ID: fmt.Sprint(kind, owners), Kind: kind, Key: key}
	for _, o := range owners {
		s.Owners = append(s.Owners, ident(t, o))
	}
	if err := g.LoadSecret(s); err != nil {
		t.Fatal(err)
	}
}

// dialogue is a client and an authenticator with one conversation.
type dialogue struct {
	client, server *Gateway
	local, remote  ike.AuthRound // the client's local round, the authenticator's remote one
	mutual         bool          // EAP alone
	session        uint64
	claim          ike.Identity  // what the client calls itself; zero: clientName
	gateway        *ike.Identity // what the gateway calls itself; nil: gatewayName
	packets        [][]byte      // as they went to and fro
}

const (
	clientName  = "client.example"
	gatewayName = "gw.example"
)

func (d *dialogue) questions() (client, server ike.EAPRound) {
	a, b := netip.MustParseAddrPort("192.0.2.1:4500"), netip.MustParseAddrPort("192.0.2.2:4500")
	gw := []ike.AuthRound{{Method: ike.AuthPubkey}}
	d.local.Method, d.remote.Method = ike.AuthEAP, ike.AuthEAP
	client = ike.EAPRound{Session: d.session, Peer: &ike.Peer{Name: "c", Local: []ike.AuthRound{d.local}, Remote: gw},
		LocalID: fqdn(clientName), RemoteID: fqdn(gatewayName), Local: a, Remote: b, MutualOnly: d.mutual}
	server = ike.EAPRound{Session: d.session, Server: true, Peer: &ike.Peer{Name: "s", Local: gw, Remote: []ike.AuthRound{d.remote}},
		LocalID: fqdn(gatewayName), RemoteID: fqdn(clientName), Local: b, Remote: a, MutualOnly: d.mutual}
	if d.claim != (ike.Identity{}) {
		server.RemoteID = d.claim
	}
	if d.gateway != nil {
		client.RemoteID = *d.gateway
	}
	return client, server
}

// run lets them talk until the authenticator is done, and returns what both think.
func (d *dialogue) run(t *testing.T) (client, server *ike.EAPAnswer) {
	t.Helper()
	if d.session == 0 {
		d.session = ike.RandomUint64()
	}
	qc, qs := d.questions()
	ctx := context.Background()
	failed := func(err error) *ike.EAPAnswer { return &ike.EAPAnswer{Done: true, Why: err.Error()} }
	for range 64 {
		a, err := d.server.conversations.next(ctx, qs)
		if server = a; err != nil {
			return client, failed(err)
		}
		if server.Message != nil {
			d.packets = append(d.packets, server.Message)
			qc.Message = server.Message
			if client, err = d.client.conversations.next(ctx, qc); err != nil {
				client = failed(err)
			}
		}
		if server.Done || client.Message == nil {
			return client, server
		}
		d.packets = append(d.packets, client.Message)
		qs.Message = client.Message
	}
	t.Fatal("they talk without an end")
	return nil, nil
}

// agree demands success with one MSK on both sides, or none where the method has none.
func (d *dialogue) agree(t *testing.T, method, identity string, keyed bool) *ike.EAPAnswer {
	t.Helper()
	c, s := d.run(t)
	if !c.Success || !s.Success || !bytes.Equal(c.MSK, s.MSK) || keyed != (len(s.MSK) == 64) || s.Identity != identity || !strings.HasPrefix(s.Method, method) {
		t.Fatalf("client %+v\nserver %+v", c, s)
	}
	d.client.conversations.end(d.session)
	d.server.conversations.end(d.session)
	if len(d.client.conversations.open)+len(d.server.conversations.open) != 0 {
		t.Error("the conversation was not forgotten")
	}
	return s
}

// fails demands a failure whose reason at the authenticator has these words.
func (d *dialogue) fails(t *testing.T, words ...string) {
	t.Helper()
	c, s := d.run(t)
	if s.Success || c != nil && c.Success || len(s.MSK) != 0 {
		t.Fatalf("client %+v\nserver %+v", c, s)
	}
	for _, w := range words {
		if !strings.Contains(s.Why+" "+s.Identity, w) {
			t.Errorf("no %q in the reason %q of %q", w, s.Why, s.Identity)
		}
	}
}

// schools are a client and a gateway that know a user and each other's certificates.
func schools(t *testing.T, servers ...config.RADIUSServer) (client, server *Gateway) {
	t.Helper()
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "Test CA"})
	load := func(g *Gateway, name string) {
		e := ca.Issue(pkitest.Spec{Name: name, DNS: []string{name}})
		for _, c := range []config.Cert{{Kind: config.CertX509, Flag: "CA", DER: ca.Cert.DER()}, {Kind: config.CertX509, Flag: "NONE", DER: e.Cert.DER()}} {
			if err := g.trust.load(c, FromVICI); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.trust.loadKey(config.Key{Signer: e.Key}, FromVICI); err != nil {
			t.Fatal(err)
		}
		g.secret(t, config.SecretEAP, []byte("swordfish"), "alice")
	}
	client, server = examinee(t), examinee(t, servers...)
	load(client, clientName)
	load(server, gatewayName)
	return client, server
}

func alice(m ike.EAPMethod) ike.AuthRound { return ike.AuthRound{EAP: m, EAPID: fqdn("alice")} }
func asking(m ike.EAPMethod) ike.AuthRound {
	return ike.AuthRound{EAP: m, EAPAsk: true}
}

func TestEAPMethods(t *testing.T) {
	client, server := schools(t)
	for _, c := range []struct {
		client, server ike.EAPMethod
		method, who    string
		keyed          bool
	}{
		{ike.EAPMSCHAPv2, ike.EAPMSCHAPv2, "EAP_MSCHAPV2", "alice", true},
		{ike.EAPMD5, ike.EAPMD5, "EAP_MD5", "alice", false},
		{ike.EAPGTC, ike.EAPGTC, "EAP_GTC", "alice", false},
		{ike.EAPTLS, ike.EAPTLS, "EAP_TLS", "alice", true},
		{ike.EAPTTLS, ike.EAPTTLS, "EAP_TTLS", "alice", true},
		{ike.EAPAny, ike.EAPMSCHAPv2, "EAP_MSCHAPV2", "alice", true},
		{ike.EAPMD5, ike.EAPDynamic, "EAP_MD5", "alice", false},
		{ike.EAPTTLS, ike.EAPDynamic, "EAP_TTLS", "alice", true},
		{ike.EAPMSCHAPv2, ike.EAPIdentity, "EAP_MSCHAPV2", "alice", true},
	} {
		t.Run(string(c.client)+"+"+string(c.server), func(t *testing.T) {
			local := alice(c.client)
			if c.client == ike.EAPTLS {
				local.EAPID, c.who = ike.Identity{}, clientName
			}
			d := &dialogue{client: client, server: server, local: local, remote: asking(c.server)}
			s := d.agree(t, c.method, c.who, c.keyed)
			if tunnel := c.method == "EAP_TLS" || c.method == "EAP_TTLS"; s.Mutual != tunnel {
				t.Errorf("mutual: %v", s.Mutual)
			}
		})
	}
}

// Without eap_id the identity is IDi; a configured one is not asked for, either.
func TestEAPIdentityUnasked(t *testing.T) {
	client, server := schools(t)
	d := &dialogue{client: client, server: server, local: alice(ike.EAPMSCHAPv2), remote: ike.AuthRound{EAP: ike.EAPMSCHAPv2, EAPID: fqdn("alice")}}
	d.agree(t, "EAP_MSCHAPV2", "alice", true)
	for _, g := range []*Gateway{client, server} {
		g.secret(t, config.SecretEAP, []byte("of the IKE identity"), clientName)
	}
	d = &dialogue{client: client, server: server, local: ike.AuthRound{EAP: ike.EAPMSCHAPv2}, remote: ike.AuthRound{EAP: ike.EAPMSCHAPv2}}
	d.agree(t, "EAP_MSCHAPV2", clientName, true)
	for _, p := range d.packets {
		if len(p) > 4 && eap.Type(p[4]) == eap.TypeIdentity {
			t.Error("the identity was asked for")
		}
	}
}

// A user's NT hash is as good as the password, at either side (RFC 2759 §8.3).
func TestEAPWithNTHashes(t *testing.T) {
	hash, _ := hex.DecodeString("8846f7eaee8fb117ad06bdd830b7586c") // of "password"
	for _, hashed := range []string{"client", "server"} {
		client, server := examinee(t), examinee(t)
		if hashed == "client" {
			client.secret(t, config.SecretNTLM, bytes.Clone(hash), "carol")
			server.secret(t, config.SecretEAP, []byte("password"), "carol")
		} else {
			client.secret(t, config.SecretEAP, []byte("password"), "carol")
			server.secret(t, config.SecretNTLM, bytes.Clone(hash), "carol")
		}
		d := &dialogue{client: client, server: server, local: ike.AuthRound{EAP: ike.EAPMSCHAPv2, EAPID: fqdn("carol")}, remote: asking(ike.EAPMSCHAPv2)}
		d.agree(t, "EAP_MSCHAPV2", "carol", true)
	}
}

// Refusals say why to the log alone: the packets of a wrong password and of an unknown
// user have the same lengths.
func TestEAPRefusals(t *testing.T) {
	client, server := schools(t)
	client.secret(t, config.SecretEAP, []byte("guessed"), "mallory", "nobody1")
	server.secret(t, config.SecretEAP, []byte("the real one"), "mallory")
	as := func(name string, m ike.EAPMethod) ike.AuthRound { return ike.AuthRound{EAP: m, EAPID: fqdn(name)} }
	for _, m := range []ike.EAPMethod{ike.EAPMSCHAPv2, ike.EAPMD5, ike.EAPTTLS} {
		wrong := &dialogue{client: client, server: server, local: as("mallory", m), remote: asking(m)}
		wrong.fails(t, "wrong password", "mallory")
		unknown := &dialogue{client: client, server: server, local: as("nobody1", m), remote: asking(m)}
		unknown.fails(t, "unknown identity", "nobody1")
		if a, b := lengths(wrong.packets), lengths(unknown.packets); a != b && m != ike.EAPTTLS { // ECDSA's signatures vary
			t.Errorf("%s: a wrong password %s, an unknown user %s", m, a, b)
		}
	}
	for _, c := range []struct {
		local, remote ike.AuthRound
		words         []string
	}{
		{alice(ike.EAPMD5), asking(ike.EAPTLS), []string{"the peer wants [MD5]"}},
		{alice(ike.EAPGTC), asking(ike.EAPDynamic), []string{"the peer wants [GTC]"}}, // shown to nobody unless named by both
	} {
		d := &dialogue{client: client, server: server, local: c.local, remote: c.remote}
		d.fails(t, c.words...)
	}
	// The reason is known before the client has gone.
	d := &dialogue{client: client, server: server, local: as("mallory", ike.EAPMSCHAPv2), remote: asking(ike.EAPMSCHAPv2), session: 1}
	_, q := d.questions()
	stranger := examinee(t)
	stranger.secret(t, config.SecretEAP, []byte("guessed"), "mallory")
	qc, _ := d.questions()
	var last *ike.EAPAnswer
	for range 3 {
		last, _ = server.conversations.next(context.Background(), q)
		qc.Message = last.Message
		if a, err := stranger.conversations.next(context.Background(), qc); err == nil {
			q.Message = a.Message
		}
	}
	if last.Done || !strings.Contains(last.Why, "wrong password") {
		t.Errorf("while the failure is on its way: %+v", last)
	}
}

func lengths(packets [][]byte) string {
	var b strings.Builder
	for _, p := range packets {
		fmt.Fprintf(&b, "%d ", len(p))
	}
	return b.String()
}

// Certificates inside TLS prove identities: the client's that of eap_id, the server's
// that of aaa_id or IDr, and both need a trusted authority.
func TestEAPCertificates(t *testing.T) {
	client, server := schools(t)
	strangers, _ := schools(t) // of another CA of the same name
	d := &dialogue{client: client, server: server, local: ike.AuthRound{EAP: ike.EAPTLS, EAPID: fqdn("alice")}, remote: asking(ike.EAPTLS)}
	d.fails(t, "is not one of alice")
	d = &dialogue{client: client, server: server, local: ike.AuthRound{EAP: ike.EAPTLS, AAAID: fqdn("aaa.example")}, remote: asking(ike.EAPTLS)}
	if c, s := d.run(t); s.Success || c.Success || !strings.Contains(c.Why+s.Why, "certificate") {
		t.Errorf("a server with another name: client %+v, server %+v", c, s)
	}
	d = &dialogue{client: strangers, server: server, local: ike.AuthRound{EAP: ike.EAPTLS}, remote: asking(ike.EAPTLS)}
	if c, s := d.run(t); s.Success || c.Success {
		t.Errorf("without a common CA: client %+v, server %+v", c, s)
	}
	d = &dialogue{client: strangers, server: server, local: alice(ike.EAPTTLS), remote: asking(ike.EAPTTLS)}
	if c, s := d.run(t); s.Success || c.Success {
		t.Errorf("TTLS with a server nobody trusts: client %+v, server %+v", c, s)
	}
	for _, p := range d.packets {
		if bytes.Contains(p, []byte("swordfish")) {
			t.Error("the password left us")
		}
	}
}

// An identity that a client claims is never a pattern: a certificate of anybody's would
// be good for it.
func TestEAPClaimsAreNoPatterns(t *testing.T) {
	client, server := schools(t)
	for _, claim := range []string{"%any", "*", "0.0.0.0", "::", "*.example", "@*", "0.0.0.0/0", "192.0.2.1-192.0.2.9"} {
		id := ike.Identity{Type: ike.IDFQDN, Data: claim} // as it may stand on the wire
		for _, asked := range []bool{true, false} {
			d := &dialogue{client: client, server: server, local: ike.AuthRound{EAP: ike.EAPTLS, EAPID: id}, remote: ike.AuthRound{EAP: ike.EAPTLS, EAPAsk: asked}}
			if !asked {
				d.claim = id
			}
			if _, s := d.run(t); s.Success {
				t.Errorf("%q was accepted as %q", claim, s.Identity)
			}
		}
	}
}

// A gateway that calls itself by the very pattern that the client expects is not one of
// those: any certificate of the CA would do.
func TestRFC5998_GatewayNamedByAPattern(t *testing.T) {
	client, server := schools(t)
	for _, name := range []ike.Identity{{}, fqdn("*"), fqdn("*.example"), ident(t, "*.example"), ident(t, "C=*, O=adit")} {
		d := &dialogue{client: client, server: server, local: ike.AuthRound{EAP: ike.EAPTLS}, remote: asking(ike.EAPTLS), mutual: true, gateway: &name}
		if c, _ := d.run(t); c != nil && c.Success {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// RFC 5998 §4: where EAP alone proves the responder, methods that don't are not even
// begun, at either side.
func TestRFC5998_4_MutualOnly(t *testing.T) {
	client, server := schools(t)
	for _, m := range []ike.EAPMethod{ike.EAPMSCHAPv2, ike.EAPMD5, ike.EAPGTC} {
		d := &dialogue{client: client, server: server, local: alice(m), remote: asking(m), mutual: true, session: 1}
		qc, qs := d.questions()
		if a, err := server.conversations.next(context.Background(), qs); err == nil {
			t.Errorf("%s as authenticator: %+v", m, a)
		}
		qc.Message = []byte{1, 1, 0, 5, byte(eap.TypeIdentity)}
		if a, err := client.conversations.next(context.Background(), qc); err == nil {
			t.Errorf("%s as client: %+v", m, a)
		}
	}
	d := &dialogue{client: client, server: server, local: ike.AuthRound{EAP: ike.EAPTLS}, remote: asking(ike.EAPDynamic), mutual: true}
	if s := d.agree(t, "EAP_TLS", clientName, true); !s.Mutual {
		t.Error("TLS proves both")
	}
}

// What cannot begin says so: no secret, no certificate, no server.
func TestEAPThatCannotBegin(t *testing.T) {
	bare := examinee(t)
	for _, c := range []struct {
		round  ike.AuthRound
		server bool
		words  string
	}{
		{alice(ike.EAPMSCHAPv2), false, "no secret for the EAP identity alice"},
		{ike.AuthRound{EAP: ike.EAPTLS}, false, "nor a certificate"},
		{asking(ike.EAPTLS), true, "no certificate"},
		{asking(ike.EAPRadius), true, "no RADIUS server"},
		{asking("aka"), true, "cannot be done"},
	} {
		d := &dialogue{local: c.round, remote: c.round, session: 7}
		q, qs := d.questions()
		if c.server {
			q = qs
		} else {
			q.Message = []byte{1, 1, 0, 5, byte(eap.TypeIdentity)}
		}
		if _, err := bare.conversations.next(context.Background(), q); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%+v: %v, want %q", c.round.EAP, err, c.words)
		}
	}
	if len(bare.conversations.open) != 0 {
		t.Error("what never began is kept")
	}
}

// Conversations are bounded, and an ended one takes no more packets.
func TestConversationsAreBounded(t *testing.T) {
	client, server := schools(t)
	d := &dialogue{client: client, server: server, local: alice(ike.EAPMD5), remote: asking(ike.EAPMD5)}
	for i := range uint64(limitConversations) {
		server.conversations.open[1<<32+i] = &conversation{}
	}
	d.fails(t, "more than")
	clear(server.conversations.open)
	d.session = 5
	_, q := d.questions()
	a, err := server.conversations.next(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	v := server.conversations.open[5]
	v.end()
	q.Message = []byte{2, a.Message[1], 0, 10, byte(eap.TypeIdentity), 'a', 'l', 'i', 'c', 'e'}
	if _, err := server.conversations.next(context.Background(), q); err == nil {
		t.Error("an ended conversation went on")
	}
	server.conversations.close()
	if len(server.conversations.open) != 0 {
		t.Error("conversations are left")
	}
}

// aaa is a RADIUS server on loopback that has our own EAP machine inside.
type aaa struct {
	keyless bool // sends no MSK
	method  eap.Type
}

const sharedSecret = "the secret of the RADIUS server"

// start runs it and says how it is asked.
func (a aaa) start(t *testing.T, name string) config.RADIUSServer {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		sessions := map[string]eap.Session{}
		b := make([]byte, radius.MaxPacket)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if reply := a.answer(sessions, b[:n]); reply != nil {
				_, _ = conn.WriteToUDPAddrPort(reply, from)
			}
		}
	}()
	return config.RADIUSServer{Name: name, Address: "127.0.0.1", AuthPort: uint16(conn.LocalAddr().(*net.UDPAddr).Port), Secret: suite.Key(sharedSecret),
		NASIdentifier: "adit", Timeout: 200 * time.Millisecond, Base: 1, Tries: 2, Sockets: 1}
}

func (a aaa) answer(sessions map[string]eap.Session, b []byte) []byte {
	p, err := radius.Parse(b)
	if err != nil || radius.VerifyRequest(b, []byte(sharedSecret)) != nil {
		return nil
	}
	packet, _ := p.EAP()
	state, known := p.Get(radius.TypeState)
	s := sessions[string(state)]
	if !known {
		user, _ := p.Get(radius.TypeUserName)
		state = fmt.Appendf(nil, "session %d", len(sessions))
		s, err = eap.NewServer(eap.ServerConfig{Methods: []eap.Type{a.method}, Identity: string(user), Secret: func(id string) (eap.Secret, bool) {
			return eap.Secret{Password: suite.Key("swordfish")}, id == "alice"
		}})
		if err != nil {
			return nil
		}
		sessions[string(state)], packet = s, nil
	}
	if s == nil {
		return nil
	}
	step, err := s.Next(packet)
	r := &radius.Packet{Code: radius.AccessChallenge, Identifier: p.Identifier}
	r.Add(radius.TypeState, state)
	switch {
	case err != nil:
		r.Code = radius.AccessReject
		r.AddString(radius.TypeReplyMessage, "go away")
	case step.Done:
		r.Code = radius.AccessAccept
		r.AddString(radius.TypeClass, "staff")
		r.AddUint32(radius.TypeSessionTimeout, 3600)
		if len(step.MSK) > 0 && !a.keyless {
			r.AddMSK(step.MSK, &p.Authenticator, []byte(sharedSecret))
		}
	}
	r.AddEAP(step.Out)
	out, err := radius.SealResponse(r, &p.Authenticator, []byte(sharedSecret))
	if err != nil {
		return nil
	}
	return out
}

// A RADIUS server's word, key, groups and time limit come through; without a key where
// the method has one the login is refused, and so it is without an answer.
func TestEAPThroughRADIUS(t *testing.T) {
	for _, c := range []struct {
		name   string
		server aaa
		client ike.AuthRound
		keyed  bool
		words  []string // of a failure
	}{
		{"mschapv2", aaa{method: eap.TypeMSCHAPv2}, alice(ike.EAPMSCHAPv2), true, nil},
		{"md5", aaa{method: eap.TypeMD5}, alice(ike.EAPMD5), false, nil},
		{"unknown", aaa{method: eap.TypeMSCHAPv2}, ike.AuthRound{EAP: ike.EAPMSCHAPv2, EAPID: fqdn("mallory")}, false, []string{"RADIUS server one", "go away", "mallory"}},
		{"keyless", aaa{method: eap.TypeMSCHAPv2, keyless: true}, alice(ike.EAPMSCHAPv2), false, []string{"RADIUS server one", "sent no key", "alice"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, server := schools(t, c.server.start(t, "one"))
			client.secret(t, config.SecretEAP, []byte("guessed"), "mallory")
			d := &dialogue{client: client, server: server, local: c.client, remote: asking(ike.EAPRadius)}
			if c.words != nil {
				d.fails(t, c.words...)
				return
			}
			s := d.agree(t, "EAP_"+strings.ToUpper(string(c.client.EAP))+" by RADIUS server one", "alice", c.keyed)
			if len(s.Groups) != 1 || s.Groups[0] != "staff" || s.Lifetime != time.Hour {
				t.Errorf("%+v", s)
			}
		})
	}
	t.Run("silent", func(t *testing.T) {
		one := aaa{method: eap.TypeMD5}.start(t, "one")
		one.Secret = suite.Key("not the server's secret")
		client, server := schools(t, one)
		d := &dialogue{client: client, server: server, local: alice(ike.EAPMD5), remote: asking(ike.EAPRadius)}
		d.fails(t, "no answer", "one", "alice")
	})
	t.Run("failover", func(t *testing.T) {
		one := aaa{method: eap.TypeMD5}.start(t, "one")
		one.Secret, one.Preference = suite.Key("not the server's secret"), 10
		client, server := schools(t, one, aaa{method: eap.TypeMD5}.start(t, "two"))
		d := &dialogue{client: client, server: server, local: alice(ike.EAPMD5), remote: asking(ike.EAPRadius)}
		d.agree(t, "EAP_MD5 by RADIUS server two", "alice", false)
	})
}

// An end that overtakes the round which it ends leaves nothing behind: neither the
// conversation nor its key.
func TestEndBeforeTheRound(t *testing.T) {
	c := &conversations{g: &Gateway{}, open: map[uint64]*conversation{}}
	q := ike.EAPRound{Session: 7, Server: true, Peer: &ike.Peer{Remote: []ike.AuthRound{{Method: ike.AuthEAP, EAP: ike.EAPMSCHAPv2}}}}
	v, err := c.expect(q.Session)
	if err != nil {
		t.Fatal(err)
	}
	v.msk = []byte{1, 2, 3}
	key := v.msk
	c.forget(q.Session).end()
	if a, err := c.round(context.Background(), v, q); err == nil {
		t.Fatalf("a round after the end: %+v", a)
	}
	if len(c.open) != 0 || key[0]+key[1]+key[2] != 0 {
		t.Fatalf("left behind: %d conversations, key %v", len(c.open), []byte(key))
	}
}

// What a peer gave us and has gone before the kernel was asked does not stay.
func TestAddressesGivenUpMeanwhile(t *testing.T) {
	v := &virtualAddresses{held: map[uint64]assumed{}}
	p := assumed{addrs: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/32")}}
	v.expect(1)
	if done := v.forget(1); len(done.addrs) != 0 {
		t.Fatalf("%v", done)
	}
	if v.keep(1, p) || len(v.held) != 0 {
		t.Fatal("kept after the end")
	}
	v.expect(2)
	if !v.keep(2, p) || len(v.forget(2).addrs) != 1 {
		t.Fatal("not kept")
	}
}

// next is expect and round in one.
func (c *conversations) next(ctx context.Context, q ike.EAPRound) (*ike.EAPAnswer, error) {
	v, err := c.expect(q.Session)
	if err != nil {
		return nil, err
	}
	return c.round(ctx, v, q)
}
