package sim

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"

	"adit/eap"
	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
	"adit/suite/sig"
)

// credentials model what a gateway does with keys, passwords and addresses. The
// signatures and methods of EAP are real; instead of certificates there are bare
// keys (RFC 7670) and lists of who trusts which.
type credentials struct {
	own       map[ike.Identity]crypto.Signer
	trusted   map[ike.Identity][]crypto.PublicKey
	passwords map[string]string // by identity inside EAP
	pools     map[string]netip.Prefix

	// Of this life of the host.
	sessions map[uint64]*session
	leases   map[uint64]leased
	returned map[uint64]bool // leases that the engine is done with
	// proved counts, by the peer's identity, what was found good. No IKE SA may come
	// up that wants such a proof and has none.
	proved map[ike.Identity]int
	users  map[uint64]int // the same by password of XAUTH, by the SA's Instance
}

// session is one conversation of EAP.
type session struct {
	eap.Session
	server bool
}

func newCredentials() *credentials {
	c := &credentials{own: map[ike.Identity]crypto.Signer{}, trusted: map[ike.Identity][]crypto.PublicKey{}, passwords: map[string]string{}, pools: map[string]netip.Prefix{}}
	c.reborn()
	return c
}

// reborn forgets what a host forgets that is killed.
func (c *credentials) reborn() {
	for _, x := range c.sessions {
		x.Close()
	}
	c.sessions, c.proved, c.users = map[uint64]*session{}, map[ike.Identity]int{}, map[uint64]int{}
	c.leases, c.returned = map[uint64]leased{}, map[uint64]bool{}
}

// addKey makes a private key for an identity of a host; those named trust it.
func (h *Host) addKey(id ike.Identity, kind string, trusters []*Host) error {
	var key crypto.Signer
	var err error
	switch kind {
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "ecdsa":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		return fmt.Errorf("unknown kind of key %q", kind)
	}
	if err != nil {
		return err
	}
	h.creds.own[id] = key
	for _, t := range trusters {
		t.creds.trusted[id] = append(t.creds.trusted[id], key.Public())
	}
	return nil
}

// prove answers the questions about credentials; known is false for all others.
func (h *Host) prove(q ike.Question) (v any, err error, known bool) {
	c := h.creds
	switch q := q.(type) {
	case ike.SignAuth:
		v, err = c.sign(q)
	case ike.VerifyAuth:
		v, err = c.verify(q)
	case ike.SignerKinds:
		list := []wire.V1Auth{}
		if k := c.own[q.ID]; k != nil {
			list = append(list, wire.V1Auth(sig.V1Method(k.Public())))
		}
		v = list
	case ike.XAuth:
		v = h.xauth(q)
	case ike.EAPRound:
		v, err = h.eap(q)
	case ike.StillTrusted:
	case ike.LeaseAddresses:
		v, err = h.lease(q)
	case ike.AssumeAddresses:
		h.w.tracef("%s: takes the addresses %v", h.Name, q.Addrs)
	default:
		return nil, nil, false
	}
	return v, err, true
}

func (c *credentials) sign(q ike.SignAuth) (any, error) {
	key := c.own[q.ID]
	if key == nil {
		return nil, errors.New("no private key of " + q.ID.String())
	}
	if q.V1 != 0 {
		data, err := sig.SignV1(key, uint16(q.V1), q.Octets)
		return &ike.Signature{Data: data}, err
	}
	var hashes []sig.Hash
	if q.Hashes != nil {
		hashes = []sig.Hash{}
	}
	for _, n := range q.Hashes {
		hashes = append(hashes, sig.Hash(n))
	}
	list := sig.Choose(key.Public(), hashes, nil)
	if len(list) == 0 {
		return nil, errors.New("no signature scheme that both know")
	}
	data, err := sig.Sign(key, list[0], q.Octets)
	if err != nil {
		return nil, err
	}
	s := &ike.Signature{Method: wire.AuthMethod(list[0].Method), Data: data}
	if q.Requested {
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return nil, err
		}
		s.Certs = []ike.CertPayload{{Encoding: wire.CertRawPublicKey, Data: der}}
	}
	return s, nil
}

func (c *credentials) verify(q ike.VerifyAuth) (any, error) {
	for _, pub := range c.trusted[q.ID] {
		var err error
		if q.V1 != 0 {
			err = sig.VerifyV1(pub, uint16(q.V1), q.Data, q.Octets)
		} else {
			_, err = sig.Verify(pub, uint8(q.Method), q.Data, q.Octets, nil)
		}
		if err == nil {
			c.proved[q.ID]++
			return &ike.Verdict{Why: make([]string, len(q.Peers)), Subject: q.ID.String()}, nil
		}
	}
	return nil, errors.New("no trusted key of " + q.ID.String() + " made the signature")
}

// xauth gives the password of a user, or says whether it is right.
func (h *Host) xauth(q ike.XAuth) *ike.XAuthAnswer {
	password, known := h.creds.passwords[q.User]
	if !q.Server {
		return &ike.XAuthAnswer{Password: suite.Key(password)}
	}
	a := &ike.XAuthAnswer{Success: known && string(q.Password) == password, Why: "the password is wrong"}
	if a.Success {
		h.creds.users[q.SA]++
		h.w.tracef("%s: %s has given the password", h.Name, q.User)
	}
	return a
}

func (h *Host) eap(q ike.EAPRound) (any, error) {
	c := h.creds
	x := c.sessions[q.Session]
	if x == nil {
		y, err := c.begin(q)
		if err != nil {
			return nil, err
		}
		x = &session{y, q.Server}
		c.sessions[q.Session] = x
	}
	step, err := x.Next(q.Message)
	a := &ike.EAPAnswer{Message: step.Out, Done: step.Done, Success: step.Success, MSK: step.MSK, Identity: step.Identity, Mutual: step.Method == eap.TypeMSCHAPv2}
	if err != nil {
		a.Done, a.Success, a.Why = true, false, err.Error()
	}
	if a.Success {
		a.Method = "EAP_" + step.Method.String()
		c.proved[q.RemoteID]++
		h.w.tracef("%s: %s has succeeded with %s", h.Name, a.Method, a.Identity)
	}
	return a, nil
}

func (c *credentials) begin(q ike.EAPRound) (eap.Session, error) {
	methods := func(r *ike.AuthRound) []eap.Type {
		if r.EAP == ike.EAPMD5 && !q.MutualOnly {
			return []eap.Type{eap.TypeMD5}
		}
		return []eap.Type{eap.TypeMSCHAPv2}
	}
	if q.Server {
		r := &q.Peer.Remote[q.Round]
		return eap.NewServer(eap.ServerConfig{Methods: methods(r), AskIdentity: r.EAPAsk, Identity: q.RemoteID.String(), Secret: func(name string) (eap.Secret, bool) {
			p, ok := c.passwords[name]
			return eap.Secret{Password: suite.Key(p)}, ok
		}})
	}
	r := &q.Peer.Local[q.Round]
	name := q.LocalID.String()
	if !r.EAPID.IsAny() {
		name = r.EAPID.String()
	}
	return eap.NewPeer(eap.PeerConfig{Identity: name, Secret: eap.Secret{Password: suite.Key(c.passwords[name])}, Methods: methods(r)})
}

// leased is an address and whose it is.
type leased struct {
	addr netip.Addr
	id   string
}

// lease gives the lowest address of the connection's first pool that no other
// identity has. The engine may be done with it before it is asked for here.
func (h *Host) lease(q ike.LeaseAddresses) (any, error) {
	c := h.creds
	if _, dup := c.leases[q.Lease]; dup {
		h.w.violate("leases", "%s: one lease is asked for twice", h.Name)
	}
	if c.returned[q.Lease] {
		return nil, errors.New("given back already")
	}
	for _, name := range q.Peer.Pools {
		pool, ok := c.pools[name]
		if !ok {
			continue
		}
		taken := map[netip.Addr]bool{}
		for _, l := range c.leases {
			if l.id != q.ID {
				taken[l.addr] = true
			}
		}
		for a := pool.Addr().Next(); pool.Contains(a); a = a.Next() {
			if !taken[a] {
				c.leases[q.Lease] = leased{a, q.ID}
				h.w.tracef("%s: leases %v to %s", h.Name, a, q.ID)
				return &ike.Lease{Addrs: []netip.Addr{a}}, nil
			}
		}
	}
	return nil, errors.New("no address is free")
}

// release takes back what the engine is done with.
func (h *Host) release(f ike.Effect) {
	switch f := f.(type) {
	case ike.EndEAP:
		if x := h.creds.sessions[f.Session]; x != nil {
			x.Close()
			delete(h.creds.sessions, f.Session)
		}
	case ike.ReleaseLease:
		h.creds.returned[f.Lease] = true
		if l, ok := h.creds.leases[f.Lease]; ok {
			h.w.tracef("%s: %v is given back", h.Name, l.addr)
			delete(h.creds.leases, f.Lease)
		}
	case ike.UndoAddresses:
		h.w.tracef("%s: gives the addresses of the peer back", h.Name)
	}
}

// checkProved wants a proof of the peer behind an IKE SA that comes up, from who
// checked it and not from the engine.
func (h *Host) checkProved(sa ike.SAInfo) {
	p := h.peer(sa.Name)
	if p == nil || len(p.Remote) == 0 {
		return
	}
	r := p.Remote[len(p.Remote)-1]
	if r.Method == ike.AuthXAuth {
		if h.creds.users[sa.Instance] == 0 {
			h.w.violate("authentication", "%s: %s came up, but nobody has given a password", h.Name, sa.Name)
		}
		return
	}
	if r.Method != ike.AuthPSK && (r.Method != ike.AuthEAP || !sa.Initiator) && h.creds.proved[sa.RemoteID] == 0 {
		h.w.violate("authentication", "%s: %s came up, but nobody has proved to be %s", h.Name, sa.Name, sa.RemoteID)
	}
}

// checkCredentials wants nothing left of conversations that are over.
func (h *Host) checkCredentials() {
	if h.engine != nil && h.engine.Stats().SAs == 0 && len(h.creds.sessions)+len(h.creds.leases) > 0 {
		h.w.violate("limits", "%s: %d conversations of EAP and %d leases are left without an IKE SA", h.Name, len(h.creds.sessions), len(h.creds.leases))
	}
}
