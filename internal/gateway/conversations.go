package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"adit/eap"
	"adit/ike"
	"adit/internal/config"
	"adit/radius"
	"adit/suite"
)

// conversations are the EAP sessions under way, by the engine's number: with our own
// EAP machines, or relayed to a RADIUS server. Safe for concurrent use; the rounds of
// one conversation come one after the other.
type conversations struct {
	g       *Gateway
	mu      sync.Mutex
	open    map[uint64]*conversation
	radius  *radius.Client // nil: no server is configured
	failed  error          // why there is none
	asking  chan struct{}  // a token for every request to a server under way
	lockout lockout
}

// conversation is one of them.
type conversation struct {
	mu      sync.Mutex
	session eap.Session   // ours, or
	relay   *radius.Relay // a server's
	method  eap.Type      // that the peer answered with last
	claimed string        // who a client says it is, for logs
	// ctx is that of the round under way: what VerifyPeer looks up may take as long as
	// the round, and no round's context outlives it.
	ctx context.Context
	// msk was given to the engine. If the answer came too late for anybody to take it,
	// it is overwritten at the end all the same.
	msk   suite.Key
	ended bool
	// admitted: lockout has let it pass; struck: how it went has been counted.
	admitted, struck bool
}

func (c *conversations) init(g *Gateway) {
	c.g, c.open, c.asking = g, map[uint64]*conversation{}, make(chan struct{}, limitRADIUSAsks)
	c.lockout.identity, c.lockout.source = g.opt.Daemon.LockIdentity, g.opt.Daemon.LockSource
	d := &g.opt.Daemon
	if len(d.RADIUS) == 0 {
		c.failed = errors.New("no RADIUS server is configured (charon.plugins.eap-radius.servers)")
		return
	}
	c.radius, c.failed = radius.NewClient(g.radiusConfig())
}

// radiusConfig are the servers as they are configured.
func (g *Gateway) radiusConfig() radius.Config {
	cfg := radius.Config{Control: g.opt.Control, Lookup: g.opt.Resolver}
	for _, s := range g.opt.Daemon.RADIUS {
		cfg.Servers = append(cfg.Servers, radius.ServerConfig{Name: s.Name, Address: s.Address, Port: s.AuthPort, Secret: radius.Key(s.Secret),
			Source:        s.Source,
			NASIdentifier: s.NASIdentifier, Preference: s.Preference, Sockets: s.Sockets, Timeout: s.Timeout, Base: s.Base, Tries: s.Tries})
	}
	return cfg
}

// close ends every conversation.
func (c *conversations) close() {
	c.mu.Lock()
	open := c.open
	c.open = map[uint64]*conversation{}
	c.mu.Unlock()
	for _, v := range open {
		v.end()
	}
	if c.radius != nil {
		_ = c.radius.Close()
	}
}

// round carries one packet on. It may wait for others.
func (c *conversations) round(ctx context.Context, v *conversation, q ike.EAPRound) (*ike.EAPAnswer, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ended {
		return nil, errors.New("the EAP conversation was ended")
	}
	if v.session == nil && v.relay == nil {
		if err := c.begin(v, q); err != nil {
			v.ended = true
			c.forget(q.Session)
			return nil, err
		}
	}
	var err error
	v.ctx = ctx
	if len(q.Message) > 4 {
		if t := eap.Type(q.Message[4]); t != eap.TypeIdentity && t != eap.TypeNak && t != eap.TypeNotification {
			v.method = t
		}
	}
	if q.Server && len(q.Message) > 5 && eap.Code(q.Message[0]) == eap.CodeResponse && eap.Type(q.Message[4]) == eap.TypeIdentity {
		v.claimed = claimed(string(q.Message[5:]))
	}
	a := c.lockedOut(v, q)
	if a != nil {
		return a, nil
	}
	if v.relay != nil {
		a, err = c.relayed(ctx, v, q)
	} else {
		if a, err = v.local(q); err == nil && a.Success && q.Server && a.Method != methodName(eap.TypeTLS) {
			a.Groups = c.g.users.groups(a.Identity)
		}
	}
	if err != nil {
		return nil, err
	}
	c.judge(v, q, a)
	if v.msk = a.MSK; a.Done && !a.Success {
		a.Identity = v.claimed
	}
	return a, nil
}

// local asks our own machine.
func (v *conversation) local(q ike.EAPRound) (*ike.EAPAnswer, error) {
	step, err := v.session.Next(q.Message)
	a := &ike.EAPAnswer{Message: step.Out, Done: step.Done || err != nil, Success: step.Success && err == nil, Identity: step.Identity}
	switch {
	case err != nil:
		a.Why = err.Error()
	case step.Failing != nil:
		a.Why = step.Failing.Error()
	}
	if a.Success {
		a.MSK, a.Method, a.Mutual = step.MSK, methodName(step.Method), step.Method.Mutual()
		step.EMSK.Zero()
	}
	return a, nil
}

// relayed asks the RADIUS server. The peer's first packet is its identity, so a
// conversation begins with our own request for it.
func (c *conversations) relayed(ctx context.Context, v *conversation, q ike.EAPRound) (*ike.EAPAnswer, error) {
	if q.Message == nil {
		return &ike.EAPAnswer{Message: []byte{1, 0, 0, 5, byte(eap.TypeIdentity)}}, nil // RFC 3748 §5.1
	}
	done, err := c.mayAsk()
	if err != nil {
		return nil, err
	}
	step, err := v.relay.Next(ctx, q.Message)
	done()
	if err != nil {
		return &ike.EAPAnswer{Message: v.relay.Failure(), Done: true, Why: err.Error(), Detail: ike.DetailRADIUS}, nil
	}
	a := &ike.EAPAnswer{Message: step.Out, Done: step.Done, Success: step.Success, Identity: step.UserName, Lifetime: step.SessionTimeout}
	switch {
	case step.Success:
		a.MSK, a.Method, a.Mutual = []byte(step.MSK), methodName(v.method)+" by RADIUS server "+step.Server, v.method.Mutual()
		for _, class := range step.Class {
			a.Groups = append(a.Groups, string(class))
		}
		if step.Keyless && v.method.DerivesKey() {
			a.Success, a.Why = false, fmt.Sprintf("the RADIUS server %s accepted %s and sent no key (MS-MPPE-Send-Key, MS-MPPE-Recv-Key)", step.Server, v.method)
			a.Message = v.relay.Failure()
		}
		if a.Success {
			c.g.accounts.accepted(q.SA, q.Local, q.Remote, &step)
		}
	case step.Done:
		a.Why = fmt.Sprintf("RADIUS server %s: %v", step.Server, step.Reason)
		for _, text := range step.ReplyMessage[:min(len(step.ReplyMessage), 4)] {
			a.Why += fmt.Sprintf(", %.200q", text)
		}
	}
	return a, nil
}

// mayAsk takes a place among those who wait for a RADIUS server: who waits for a dead
// one must leave room for everybody else's questions.
func (c *conversations) mayAsk() (done func(), err error) {
	select {
	case c.asking <- struct{}{}:
		return func() { <-c.asking }, nil
	default:
		return nil, fmt.Errorf("%w: %d logins wait for RADIUS servers", ErrBusy, limitRADIUSAsks)
	}
}

func methodName(t eap.Type) string {
	return "EAP_" + strings.ToUpper(t.String())
}

// expect is the conversation of that number, entered if it is new. It is called in
// the order of the engine's effects: whatever is entered is ended later.
func (c *conversations) expect(session uint64) (*conversation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.open[session]
	switch {
	case v != nil:
		return v, nil
	case len(c.open) >= limitConversations:
		return nil, fmt.Errorf("more than %d EAP conversations at once", limitConversations)
	}
	v = &conversation{}
	c.open[session] = v
	return v, nil
}

// begin makes a conversation's machine, or its relay.
func (c *conversations) begin(v *conversation, q ike.EAPRound) (err error) {
	switch {
	case !q.Server:
		v.session, err = c.peer(v, q)
	case q.Peer.Remote[q.Round].EAP == ike.EAPRadius && constrained(&q.Peer.Remote[q.Round]):
		err = errConstrained
	case q.Peer.Remote[q.Round].EAP == ike.EAPRadius:
		if v.relay = c.relay(q); v.relay == nil {
			err = c.failed
		}
	default:
		v.session, err = c.server(v, q)
	}
	return err
}

func (c *conversations) forget(session uint64) *conversation {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.open[session]
	delete(c.open, session)
	return v
}

// end forgets a conversation.
func (c *conversations) end(session uint64) {
	if v := c.forget(session); v != nil {
		go v.end() // a round may be under way, which waits for others
	}
}

func (v *conversation) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ended = true; v.session != nil {
		v.session.Close()
	}
	v.msk.Zero()
}

func (c *conversations) relay(q ike.EAPRound) *radius.Relay {
	if c.radius == nil {
		return nil
	}
	return radius.NewRelay(radius.RelayConfig{Client: c.radius, Identity: q.RemoteID.String(), CalledStationID: q.Local.String(), CallingStationID: q.Remote.String(),
		NASAddress: q.Local.Addr(), NASPort: uint32(q.Session), NASPortID: q.Peer.Name})
}

// server makes our own authenticator.
func (c *conversations) server(v *conversation, q ike.EAPRound) (eap.Session, error) {
	r := &q.Peer.Remote[q.Round]
	cfg := eap.ServerConfig{AskIdentity: r.EAPAsk, Identity: r.EAPID.String(), ServerName: q.LocalID.String(), Secret: c.g.secretOf}
	if r.EAPID.IsPattern() || r.EAPID.IsAny() {
		cfg.Identity = q.RemoteID.String()
	}
	var err error
	if cfg.Methods, err = methods(r.EAP, true); err != nil {
		return nil, err
	}
	cfg.Methods = mutual(cfg.Methods, q)
	if constrained(r) {
		cfg.Methods = slices.DeleteFunc(cfg.Methods, func(t eap.Type) bool { return t != eap.TypeTLS })
	}
	if t := ttlsMethods[c.g.opt.Daemon.TTLSMethod]; t != 0 {
		cfg.Tunnelled = []eap.Type{t}
	}
	if len(cfg.Methods) == 0 && constrained(r) {
		return nil, errConstrained
	}
	if slices.ContainsFunc(cfg.Methods, tunnels) {
		if cfg.TLS, err = c.serverTLS(v, q, r); err != nil {
			// Without a certificate the other methods are left.
			rest := slices.DeleteFunc(cfg.Methods, tunnels)
			if cfg.Methods = rest; len(rest) == 0 {
				return nil, err
			}
		}
	}
	return eap.NewServer(cfg)
}

// ttlsMethods are the methods inside EAP-TTLS by the words of phase2_method.
var ttlsMethods = map[string]eap.Type{"md5": eap.TypeMD5, "mschapv2": eap.TypeMSCHAPv2, "gtc": eap.TypeGTC}

// fragment is the size of EAP packets with TLS, in bytes; 0: the method's own. Where the
// method is open, both settings hold.
func (c *conversations) fragment(m ike.EAPMethod) int {
	d := &c.g.opt.Daemon
	tls, ttls := cmp.Or(d.EAPTLSFragment, defaultEAPFragment), cmp.Or(d.EAPTTLSFragment, defaultEAPFragment)
	switch m {
	case ike.EAPTLS:
		return tls
	case ike.EAPTTLS:
		return ttls
	}
	return min(tls, ttls)
}

// defaultEAPFragment is strongSwan's, in bytes.
const defaultEAPFragment = 1024

// mutual leaves only the methods that prove both sides, where nothing but EAP does
// (RFC 5998 §4). None may be left, which then is the reason of a refusal.
func mutual(list []eap.Type, q ike.EAPRound) []eap.Type {
	if q.MutualOnly {
		list = slices.DeleteFunc(list, func(t eap.Type) bool { return !t.Mutual() })
	}
	return list
}

// constrained reports whether a round demands something of a certificate. A password
// does not fulfil that: methods that show none are then left out, so that the demand
// does not vanish with the peer's choice of another method.
func constrained(r *ike.AuthRound) bool {
	return len(r.Certs)+len(r.CACerts)+len(r.CertPolicies) > 0 || !r.CAID.IsAny()
}

var errConstrained = errors.New("certs, cacerts, ca_id and cert_policy can only be fulfilled by EAP-TLS here")

func tunnels(t eap.Type) bool { return t == eap.TypeTLS || t == eap.TypeTTLS }

func (c *conversations) serverTLS(v *conversation, q ike.EAPRound, r *ike.AuthRound) (*eap.TLSConfig, error) {
	var local *ike.AuthRound
	for i := range q.Peer.Local {
		if l := &q.Peer.Local[i]; l.Method == ike.AuthPubkey || local == nil {
			local = l
		}
	}
	certs := c.g.trust.tlsCertificates(q.LocalID, local)
	if len(certs) == 0 {
		return nil, fmt.Errorf("no certificate with a private key for the EAP-TLS server %s", q.LocalID)
	}
	return &eap.TLSConfig{Certificates: certs, FragmentSize: c.fragment(r.EAP), VerifyPeer: func(identity string, chain [][]byte) error {
		id, err := ike.ParseIdentity(identity)
		switch {
		case err != nil:
			return err
		case id.IsPattern(): // anybody's certificate would be one of %any
			return fmt.Errorf("the EAP identity %q is nobody's", identity)
		}
		if err := c.g.trust.chain(v.ctx, chain, id, r); err != nil {
			return err
		}
		c.g.standing.proved(q.SA, chain[:min(len(chain), limitProvers)], func(string) *ike.AuthRound { return r })
		return nil
	}}, nil
}

// peer makes the client of somebody else's authenticator.
func (c *conversations) peer(v *conversation, q ike.EAPRound) (eap.Session, error) {
	r := &q.Peer.Local[q.Round]
	cfg := eap.PeerConfig{Identity: q.LocalID.String()}
	if !r.EAPID.IsAny() {
		cfg.Identity = r.EAPID.String()
	}
	var err error
	if cfg.Methods, err = methods(r.EAP, false); err != nil {
		return nil, err
	}
	cfg.Methods = mutual(cfg.Methods, q)
	if q.MutualOnly && slices.ContainsFunc(q.Peer.Remote, func(r ike.AuthRound) bool { return constrained(&r) }) {
		cfg.Methods = slices.DeleteFunc(cfg.Methods, func(t eap.Type) bool { return !tunnels(t) })
	}
	secret, found := c.g.inv.password(cfg.Identity)
	cfg.Secret = secret
	if slices.ContainsFunc(cfg.Methods, tunnels) {
		server := r.AAAID
		if server.IsAny() {
			server = q.RemoteID
		}
		remote := &ike.AuthRound{Method: ike.AuthPubkey}
		for i := range q.Peer.Remote {
			if q.Peer.Remote[i].Method != ike.AuthPSK {
				remote = &q.Peer.Remote[i]
				break
			}
		}
		cfg.TLS = &eap.TLSConfig{Certificates: c.g.trust.tlsCertificates(q.LocalID, r), FragmentSize: c.fragment(r.EAP), VerifyPeer: func(_ string, chain [][]byte) error {
			if server.IsPattern() { // RFC 5998: what the gateway calls itself may be proved by this alone
				return fmt.Errorf("the server must be %s, which is nobody: set aaa_id", server)
			}
			return c.g.trust.chain(v.ctx, chain, server, remote)
		}}
	}
	cfg.Methods = slices.DeleteFunc(cfg.Methods, func(t eap.Type) bool {
		return t == eap.TypeTLS && len(cfg.TLS.Certificates) == 0 || t != eap.TypeTLS && !found
	})
	if len(cfg.Methods) == 0 {
		return nil, fmt.Errorf("no secret for the EAP identity %s (secrets.eap*), nor a certificate for EAP-TLS", cfg.Identity)
	}
	return eap.NewPeer(cfg)
}

// methods are those that an `auth = eap-…` allows, best first. GTC, which shows the
// password to the server, and MD5, which makes no key, must be named where we are the
// client; as server they close the list.
func methods(m ike.EAPMethod, server bool) ([]eap.Type, error) {
	switch m {
	case ike.EAPAny, ike.EAPDynamic, ike.EAPIdentity:
		list := []eap.Type{eap.TypeMSCHAPv2, eap.TypeTLS, eap.TypeTTLS}
		if !server {
			list = []eap.Type{eap.TypeTLS, eap.TypeTTLS, eap.TypeMSCHAPv2}
		}
		return append(list, eap.TypeMD5), nil
	case ike.EAPMD5:
		return []eap.Type{eap.TypeMD5}, nil
	case ike.EAPGTC:
		return []eap.Type{eap.TypeGTC}, nil
	case ike.EAPTLS:
		return []eap.Type{eap.TypeTLS}, nil
	case ike.EAPTTLS:
		return []eap.Type{eap.TypeTTLS}, nil
	case ike.EAPMSCHAPv2:
		return []eap.Type{eap.TypeMSCHAPv2}, nil
	}
	return nil, fmt.Errorf("EAP method %s cannot be done here", m)
}

// password finds the secret of an EAP identity: one whose owner it is, else one that
// is everybody's. The keys are copies.
func (v *inventory) password(identity string) (eap.Secret, bool) {
	id, err := ike.ParseIdentity(identity)
	v.mu.Lock()
	defer v.mu.Unlock()
	if s, ok := v.named(identity); ok {
		return s.eapSecret(), true
	}
	var found *secret
	best := 0
	for i := range v.secrets {
		s := &v.secrets[i]
		if s.Kind != config.SecretEAP && s.Kind != config.SecretNTLM {
			continue
		}
		m := 0
		if len(s.Owners) == 0 {
			m = 1
		}
		for _, o := range s.Owners {
			if err == nil {
				m = max(m, id.Match(o))
			}
		}
		if m > best {
			best, found = m, s
		}
	}
	if found == nil {
		return eap.Secret{}, false
	}
	return found.eapSecret(), true
}

// tlsCertificates are our certificates for an identity with their chains, as TLS
// takes them (which knows no Ed448).
func (t *trust) tlsCertificates(id ike.Identity, r *ike.AuthRound) (out []tls.Certificate) {
	if r == nil {
		return nil
	}
	for _, o := range t.owned(ike.SignAuth{ID: id}, r) {
		if o.cert == nil || o.cert.X509.PublicKey == nil {
			continue
		}
		c := tls.Certificate{Certificate: [][]byte{o.cert.DER()}, PrivateKey: o.signer, Leaf: o.cert.X509}
		for _, i := range o.chain {
			c.Certificate = append(c.Certificate, i.DER())
		}
		out = append(out, c)
	}
	return out
}
