package ikev2_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"adit/eap"
	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
	"adit/suite/sig"
)

// credentials answer what a host asks about keys and passwords: with real
// signatures and real methods of EAP, but with bare keys instead of certificates.
type credentials struct {
	own       map[ike.Identity]crypto.Signer
	trusted   map[ike.Identity][]crypto.PublicKey
	passwords map[string]string // of EAP identities
	groups    map[string][]string
	sessions  map[uint64]eap.Session
	peers     map[uint64]*ike.Peer // which connection a session went on with
	lifetime  time.Duration

	asked map[string]int
	// change lets a test spoil an answer.
	change   func(q ike.Question, v any, err error) (any, error)
	begun    map[uint64]bool
	ended    map[uint64]bool
	authReqs []ike.SignAuth
}

func newCredentials() *credentials {
	return &credentials{own: map[ike.Identity]crypto.Signer{}, trusted: map[ike.Identity][]crypto.PublicKey{}, passwords: map[string]string{}, groups: map[string][]string{},
		sessions: map[uint64]eap.Session{}, peers: map[uint64]*ike.Peer{}, asked: map[string]int{}, begun: map[uint64]bool{}, ended: map[uint64]bool{}}
}

var rsaOnce = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func newKey(t testing.TB, kind string) crypto.Signer {
	t.Helper()
	var k crypto.Signer
	var err error
	switch kind {
	case "ed25519":
		_, k, err = ed25519.GenerateKey(rand.Reader)
	case "ecdsa":
		k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ecdsa384":
		k, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "rsa":
		k = rsaOnce()
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// introduce gives a host a key and lets another one trust it.
func introduce(owner, other *host, name string, key crypto.Signer) {
	owner.creds.own[id(name)] = key
	other.creds.trusted[id(name)] = append(other.creds.trusted[id(name)], key.Public())
}

// answer answers a question about credentials.
func (c *credentials) answer(q ike.Question) (v any, err error) {
	switch q := q.(type) {
	case ike.SignAuth:
		c.asked["sign"]++
		c.authReqs = append(c.authReqs, q)
		v, err = c.sign(q)
	case ike.VerifyAuth:
		c.asked["verify"]++
		v, err = c.verify(q)
	case ike.EAPRound:
		c.asked["eap"]++
		v, err = c.eap(q)
	case ike.LeaseAddresses:
		v = &ike.Lease{}
	case ike.StillTrusted:
		c.asked["still"]++
	default:
		return nil, errors.New("unknown question")
	}
	if c.change != nil {
		v, err = c.change(q, v, err)
	}
	return v, err
}

func (c *credentials) sign(q ike.SignAuth) (any, error) {
	key := c.own[q.ID]
	if key == nil {
		return nil, errors.New("no private key for " + q.ID.String())
	}
	var hashes []sig.Hash
	for _, h := range q.Hashes {
		hashes = append(hashes, sig.Hash(h))
	}
	if q.Hashes != nil && hashes == nil {
		hashes = []sig.Hash{}
	}
	list := sig.Choose(key.Public(), hashes, nil)
	if len(list) == 0 {
		return nil, errors.New("no common signature scheme")
	}
	data, err := sig.Sign(key, list[0], q.Octets)
	if err != nil {
		return nil, err
	}
	s := &ike.Signature{Method: wire.AuthMethod(list[0].Method), Data: data}
	if q.Requested || q.Peer.SendCert == ike.SendAlways {
		der, _ := x509.MarshalPKIXPublicKey(key.Public())
		s.Certs = []ike.CertPayload{{Encoding: wire.CertRawPublicKey, Data: der}}
	}
	return s, nil
}

func (c *credentials) verify(q ike.VerifyAuth) (any, error) {
	for _, pub := range c.trusted[q.ID] {
		if _, err := sig.Verify(pub, uint8(q.Method), q.Data, q.Octets, nil); err != nil {
			continue
		}
		der, _ := x509.MarshalPKIXPublicKey(pub)
		v := &ike.Verdict{Why: make([]string, len(q.Peers)), Subject: q.ID.String()}
		for i, p := range q.Peers {
			r := p.Remote[q.Round]
			if len(r.Pubkeys) > 0 && !slices.ContainsFunc(r.Pubkeys, func(b []byte) bool { return string(b) == string(der) }) {
				v.Why[i] = "its pubkeys do not hold the peer's key"
			}
			if cs, err := sig.ParseConstraints(strings.Join(r.Constraints, "-")); len(r.Constraints) > 0 && (err != nil || cs.CheckKey(pub) != nil) {
				v.Why[i] = "its auth constraints refuse the key"
			}
		}
		return v, nil
	}
	return nil, errors.New("no trusted key of " + q.ID.String() + " made this signature")
}

func (c *credentials) eap(q ike.EAPRound) (any, error) {
	c.begun[q.Session] = true
	x := c.sessions[q.Session]
	if x == nil {
		var err error
		if q.Server {
			x, err = eap.NewServer(c.serverConfig(q))
		} else {
			r := q.Peer.Local[q.Round]
			name := q.LocalID.String()
			if !r.EAPID.IsAny() {
				name = r.EAPID.String()
			}
			methods := []eap.Type{eap.TypeMSCHAPv2}
			if !q.MutualOnly {
				methods = append(methods, eap.TypeMD5)
			}
			x, err = eap.NewPeer(eap.PeerConfig{Identity: name, Secret: eap.Secret{Password: suite.Key(c.passwords[name])}, Methods: methods})
		}
		if err != nil {
			return nil, err
		}
		c.sessions[q.Session] = x
	}
	c.peers[q.Session] = q.Peer
	step, err := x.Next(q.Message)
	a := &ike.EAPAnswer{Message: step.Out, Done: step.Done, Success: step.Success, MSK: step.MSK, Identity: step.Identity, Groups: c.groups[step.Identity], Mutual: step.Method == eap.TypeMSCHAPv2}
	if err != nil {
		a.Done, a.Success, a.Why = true, false, err.Error()
	}
	if a.Success {
		a.Method = "EAP_" + step.Method.String()
		a.Lifetime = c.lifetime
	}
	return a, nil
}

func (c *credentials) serverConfig(q ike.EAPRound) eap.ServerConfig {
	r := q.Peer.Remote[q.Round]
	methods := []eap.Type{eap.TypeMSCHAPv2}
	if r.EAP == ike.EAPMD5 {
		methods = []eap.Type{eap.TypeMD5}
	}
	return eap.ServerConfig{Methods: methods, AskIdentity: r.EAPAsk, Identity: q.RemoteID.String(), Secret: func(name string) (eap.Secret, bool) {
		p, ok := c.passwords[name]
		return eap.Secret{Password: suite.Key(p)}, ok
	}}
}

func (c *credentials) end(session uint64) {
	c.ended[session] = true
	if x := c.sessions[session]; x != nil {
		x.Close()
	}
	delete(c.sessions, session)
}

// balanced checks that every conversation of EAP was ended.
func (c *credentials) balanced(t testing.TB, who string) {
	t.Helper()
	for s := range c.begun {
		if !c.ended[s] {
			t.Errorf("%s: a conversation of EAP was never ended", who)
		}
	}
}
