package vendors_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"

	"adit/eap"
	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// native is how a client of an operating system logs in: EAP-MSCHAPv2, or EAP-TLS if it
// has a card, against a server that shows a certificate, and a CFG_REQUEST.
type native struct {
	user, password string
	card           *tls.Certificate
	silent         bool // it goes without a word when TLS has failed
	// hello goes along with IKE_SA_INIT: vendor IDs and notifies.
	hello []wire.Payload
	// order composes the first IKE_AUTH request as the maker does: all that is not SA,
	// TSi and TSr comes from here.
	order func(idi, idr *wire.ID, cp *wire.CP, child []wire.Payload) []wire.Payload
	asks  []wire.AttributeType
}

// office is what the gateway has for remote clients: users and addresses. Here it is a
// server of eap for each conversation and a pool that remembers who had which address.
type office struct {
	talks map[uint64]eap.Session
	had   map[string]netip.Addr
	used  map[netip.Addr]uint64 // by the lease's number
	wants [][]wire.Attribute    // CFG_REQUESTs
	moved []ike.UpdateChild
	cards *cards // that are let in by EAP-TLS
}

// cards are certificates as both ends of EAP-TLS have them. What adit thinks of a chain is
// told elsewhere; here the leaf is the one of its owner.
type cards struct {
	server tls.Certificate
	owners map[string][]byte // the leaf by identity
}

const (
	nativeUser     = "alice"
	nativePassword = "dJ3vQx8LmT0wZk5RbY7sNcPf"
)

var officeDNS = netip.MustParseAddr("10.1.0.53")

func (o *office) eapRound(q ike.EAPRound) *ike.EAPAnswer {
	s := o.talks[q.Session]
	if s == nil {
		var err error
		cfg := eap.ServerConfig{Methods: []eap.Type{eap.TypeMSCHAPv2}, AskIdentity: q.Peer.Remote[q.Round].EAPAsk, Identity: q.RemoteID.Data,
			Secret: func(id string) (eap.Secret, bool) {
				return eap.Secret{Password: suite.Key(nativePassword)}, id == nativeUser
			}}
		if q.Peer.Remote[q.Round].EAP == ike.EAPTLS {
			cfg.Methods, cfg.TLS = []eap.Type{eap.TypeTLS}, o.cards.serves()
		}
		s, err = eap.NewServer(cfg)
		if err != nil {
			return &ike.EAPAnswer{Done: true, Why: err.Error()}
		}
		if o.talks == nil {
			o.talks = map[uint64]eap.Session{}
		}
		o.talks[q.Session] = s
	}
	step, err := s.Next(q.Message)
	a := &ike.EAPAnswer{Message: step.Out, Done: step.Done || err != nil, Success: step.Success, MSK: step.MSK, Method: map[bool]string{false: "EAP_MSCHAPV2", true: "EAP_TLS"}[q.Peer.Remote[q.Round].EAP == ike.EAPTLS], Identity: step.Identity}
	switch {
	case err != nil:
		a.Why = err.Error()
	case step.Failing != nil:
		a.Why = step.Failing.Error()
	}
	return a
}

func (c *cards) serves() *eap.TLSConfig {
	return &eap.TLSConfig{Certificates: []tls.Certificate{c.server}, VerifyPeer: func(identity string, chain [][]byte) error {
		if len(chain) == 0 || !bytes.Equal(chain[0], c.owners[identity]) {
			return fmt.Errorf("not the certificate of %q", identity)
		}
		return nil
	}}
}

func (o *office) hangUp(session uint64) {
	if s := o.talks[session]; s != nil {
		s.Close()
	}
	delete(o.talks, session)
}

func (o *office) lease(q ike.LeaseAddresses) *ike.Lease {
	if o.used == nil {
		o.had, o.used = map[string]netip.Addr{}, map[netip.Addr]uint64{}
	}
	o.wants = append(o.wants, q.Request)
	a, ok := o.had[q.ID]
	if _, busy := o.used[a]; !ok || busy {
		for a = netip.MustParseAddr("10.9.0.1"); o.used[a] != 0; a = a.Next() {
		}
		o.had[q.ID] = a
	}
	o.used[a] = q.Lease
	return &ike.Lease{Addrs: []netip.Addr{a}, Attributes: []wire.Attribute{{Type: wire.InternalIP4DNS, Value: officeDNS.AsSlice()}}}
}

func (o *office) takeBack(lease uint64) {
	for a, l := range o.used {
		if l == lease {
			delete(o.used, a)
		}
	}
}

func (p *peer) address() netip.Addr {
	if p.here.IsValid() {
		return p.here
	}
	return peerAddr
}

// logIn is IKE_AUTH of a native client. All of them go on at port 4500: with MOBIKE the
// NAT may yet come (RFC 4555 §3.3).
func (s *ikeSA) logIn() {
	n := s.p.native
	s.at, s.to = netip.AddrPortFrom(s.at.Addr(), 4500), netip.AddrPortFrom(s.to.Addr(), 4500)
	var err error
	cfg := eap.PeerConfig{Identity: n.user, Secret: eap.Secret{Password: suite.Key(n.password)}, Methods: []eap.Type{eap.TypeMSCHAPv2}}
	if n.card != nil {
		server := s.p.w.cards.server.Certificate[0]
		cfg.Methods, cfg.TLS = []eap.Type{eap.TypeTLS}, &eap.TLSConfig{Certificates: []tls.Certificate{*n.card}, MaxVersion: tls.VersionTLS12, VerifyPeer: func(_ string, chain [][]byte) error {
			if !bytes.Equal(chain[0], server) {
				return errors.New("another server")
			}
			return nil
		}}
	}
	if s.session, err = eap.NewPeer(cfg); err != nil {
		s.p.w.t.Fatal(err)
	}
	id := s.p.identity()
	idi := &wire.ID{Kind: wire.PayloadIDi, IDType: wire.IDType(id.Type), Data: []byte(id.Data)}
	idr := &wire.ID{Kind: wire.PayloadIDr, IDType: wire.IDFQDN, Data: []byte(aditID)}
	cp := &wire.CP{CFGType: wire.CFGRequest}
	for _, a := range n.asks {
		cp.Attributes = append(cp.Attributes, wire.Attribute{Type: a})
	}
	s.ask(&exchange{wire.ExchangeIKEAuth, func() []wire.Payload {
		return n.order(idi, idr, cp, s.childPayloads(s.newKid(), withoutKE(s.p.esp)))
	}, func(list []wire.Payload) { s.eapStep(idi, list) }})
}

// eapStep takes adit's part of the conversation.
func (s *ikeSA) eapStep(idi *wire.ID, list []wire.Payload) {
	if !s.proven { // the certificate comes before the first EAP packet
		if !s.believes(list, wire.PayloadIDr) {
			s.gone = true
			return
		}
		s.proven, s.theirID = true, wire.FindID(list, wire.PayloadIDr)
	}
	in, ok := wire.First[*wire.EAP](list)
	if !ok {
		s.gone = true
		return
	}
	step, err := s.session.Next(in.Raw)
	switch {
	case s.p.native.silent && isAlert(in.Raw):
		s.gone = true
	case err != nil || step.Done && !step.Success:
		s.gone = true
	case step.Done:
		s.secret = step.MSK
		s.ask(&exchange{wire.ExchangeIKEAuth, func() []wire.Payload { return []wire.Payload{s.auth(idi, true)} }, s.loggedIn})
	default:
		s.ask(&exchange{wire.ExchangeIKEAuth, func() []wire.Payload { return []wire.Payload{&wire.EAP{Raw: step.Out}} },
			func(list []wire.Payload) { s.eapStep(idi, list) }})
	}
}

// isAlert reports whether an EAP-TLS packet begins with an alert (RFC 5216 §3.1, RFC 5246 §6.2.1).
func isAlert(b []byte) bool {
	at := 6
	if len(b) > 5 && b[5]&0x80 != 0 { // with the length of the whole
		at += 4
	}
	return len(b) > at && eap.Type(b[4]) == eap.TypeTLS && b[at] == 21
}

// loggedIn takes the last answer: AUTH by the key that EAP made, CFG_REPLY, the Child SA.
func (s *ikeSA) loggedIn(list []wire.Payload) {
	auth, ok := wire.First[*wire.Auth](list)
	if !ok || !bytes.Equal(auth.Data, s.auth(s.theirID, false).Data) {
		s.gone = true
		return
	}
	if cp, ok := wire.First[*wire.CP](list); ok && cp.CFGType == wire.CFGReply {
		s.given = cp.Attributes
	}
	s.up = true
	s.made(s.p.asked, withoutKE(s.p.esp), nil, s.ni, list)
}

// got is the first attribute of a type in CFG_REPLY, as an address.
func (s *ikeSA) got(t wire.AttributeType) (a netip.Addr) {
	for _, x := range s.given {
		if x.Type == t {
			a, _ = netip.AddrFromSlice(x.Value)
			return a
		}
	}
	return a
}

// roam moves the client and tells adit so (RFC 4555 §3.5).
func (s *ikeSA) roam(to netip.Addr) {
	s.p.here = to
	s.at = netip.AddrPortFrom(to, 4500)
	s.ask(&exchange{wire.ExchangeInformational, func() []wire.Payload {
		return []wire.Payload{notify(wire.UpdateSAAddresses, nil),
			notify(wire.NATDetectionSourceIP, natHash(s.spiI, s.spiR, s.at)), notify(wire.NATDetectionDestinationIP, natHash(s.spiI, s.spiR, s.to))}
	}, func([]wire.Payload) {}})
}

// probe asks whether adit is there; then is told by the answer.
func (s *ikeSA) probe(then func()) {
	s.ask(&exchange{wire.ExchangeInformational, func() []wire.Payload { return []wire.Payload{} }, func([]wire.Payload) { then() }})
}
