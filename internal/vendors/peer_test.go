package vendors_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"adit/eap"
	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// habits are in what a peer departs from RFC 7296, or is one of the ways that the
// RFC leaves open. The zero value is a plain peer.
type habits struct {
	// pairs are the pairs of selectors that it knows, its own side first, where a Child
	// SA may have one pair alone; nil: local × remote of the peer, as RFC 7296 §2.9 has it.
	pairs [][2]string
	// onePairOnly refuses an offer of more than one pair with TS_UNACCEPTABLE; without
	// it the first of its pairs that lies in the offer is granted.
	onePairOnly bool
	// whole refuses an offer that does not hold all of its selectors.
	whole bool
	// oneChild: a new Child SA takes the place of the one before, which is deleted.
	oneChild bool
	// refuseRekey answers adit's requests to rekey a Child SA; nil: by doing it.
	refuseRekey func(list []wire.Payload) *wire.Notify
	// refuseIKERekey is the same of the IKE SA.
	refuseIKERekey func(list []wire.Payload) *wire.Notify
	// deleteAfter: having answered a rekey of adit, it deletes the old Child SA itself
	// after this time; 0: it leaves that to who asked, as RFC 7296 §2.8 has it.
	deleteAfter time.Duration
	// initiatesBack makes an IKE SA of its own when it gets IKE_SA_INIT.
	initiatesBack bool
	// badHash: its NAT_DETECTION_SOURCE_IP fits no address; noNAT: it does not take part.
	badHash, noNAT bool
	// encap is set from what it makes of adit's NAT detection.
	encap bool
	// noIDr: as initiator it does not say whom it wants; wantID says whom, otherwise.
	noIDr  bool
	wantID ike.Identity
	// fragments: it announces RFC 7383 and sends messages over so many bytes in fragments.
	fragments int
	// firstNumber numbers the proposals of its IKE SA rekeys, 1 by RFC 7296 §3.3.1.
	firstNumber uint8
	// deletesRefused: it deletes an IKE SA that adit has refused.
	deletesRefused bool
	// denies: it does not believe adit's AUTH.
	denies bool
	// certRequest: it names authorities in a CERTREQ.
	certRequest bool
	// serverKey: adit proves itself with this key (by RSA), the peer by the shared key.
	serverKey *rsa.PrivateKey
	// maxCerts is how many certificates of one chain it takes; 0: any number. chain is how
	// many CERT payloads adit sends.
	maxCerts, chain int
	// hashes announces SIGNATURE_HASH_ALGORITHMS.
	hashes bool
	// native is how it comes as a remote client with a name and a password; nil: it is none.
	native *native
}

// peer is a scripted IKEv2 peer.
type peer struct {
	habits
	w             *world
	ike, esp      []suite.Proposal // in its own order, which counts
	id            ike.Identity     // zero: peerID
	local, remote []ipsec.Selector // its side first
	asked         *childSA         // of its IKE_AUTH
	sas           []*ikeSA
	refused       []wire.NotifyType // errors that adit answered with
	proposalSent  []*wire.SA        // of adit's Child SA requests
	kes           int               // KE payloads in adit's Child SA requests
	rekeys        int               // of Child SAs and IKE SAs, by either side
	fragmented    int               // messages of adit that came in fragments
	received      int               // messages of adit
	here          netip.Addr        // where it is; zero: peerAddr
	asleep        bool              // it hears nothing
}

// ikeSA is one IKE SA at the peer.
type ikeSA struct {
	p                 *peer
	at, to            netip.AddrPort
	initiator         bool
	spiI, spiR        uint64
	ni, nr            []byte
	kx                suite.KeyExchange
	request, response []byte // IKE_SA_INIT as on the wire, for AUTH
	sel               suite.Selected
	prf               suite.PRF
	d, pi, pr         suite.Key
	ci, cr            suite.Cipher
	sealed            uint64
	sendID, recvID    uint32
	last              [][]byte // the last answer
	flight            *exchange
	queue             []*exchange
	kids              []*childSA
	parts             map[uint16][]byte
	partInner         wire.PayloadType
	up, gone          bool
	fragments         bool
	secret            suite.Key // of AUTH; nil: the shared key
	session           eap.Session
	proven            bool             // adit has shown its certificate
	theirID           *wire.ID         // with it
	given             []wire.Attribute // CFG_REPLY
}

// exchange is a request of the peer.
type exchange struct {
	kind wire.ExchangeType
	list func() []wire.Payload // nil of it: there is no need any more
	then func(list []wire.Payload)
}

// childSA is a Child SA at the peer.
type childSA struct {
	spiIn, spiOut                    uint32
	inKey, outKey, inInteg, outInteg suite.Key
	local, remote                    []ipsec.Selector
	sel                              suite.Selected
	born                             time.Time
}

func random(n int) []byte { b := make([]byte, n); rand.Read(b); return b }

func random64() uint64 { return binary.BigEndian.Uint64(random(8)) | 1 }

// newSPI is as FortiOS makes them, from 0xe0000000 (strongSwan documentation, interop/fortinet).
func newSPI() uint32 { return binary.BigEndian.Uint32(random(4))>>4 | 0xe0000000 }

func (p *peer) live() (out []*ikeSA) {
	for _, s := range p.sas {
		if s.up && !s.gone {
			out = append(out, s)
		}
	}
	return out
}

func (p *peer) children() (out []*childSA) {
	for _, s := range p.live() {
		out = append(out, s.kids...)
	}
	return out
}

// first is the IKE SA that is up.
func (p *peer) first() *ikeSA {
	p.w.t.Helper()
	live := p.live()
	if len(live) == 0 {
		p.w.t.Fatalf("no IKE SA is up at the peer: notes %q, rejections %v", p.w.notes, p.w.rejections)
	}
	return live[0]
}

func (p *peer) identity() ike.Identity {
	if p.id == (ike.Identity{}) {
		return ike.Identity{Type: uint8(wire.IDFQDN), Data: peerID}
	}
	return p.id
}

// The codec between suite, ipsec and wire.

func saPayload(list []suite.Proposal, spi []byte, number uint8) *wire.SA {
	p := &wire.SA{}
	for i, x := range list {
		w := wire.Proposal{Number: number + uint8(i), Protocol: wire.ProtocolID(x.Protocol), SPI: spi}
		for _, t := range x.Transforms {
			w.Transforms = append(w.Transforms, wire.Transform{Type: uint8(t.Type), ID: uint16(t.ID), KeyLength: t.KeyBits})
		}
		p.Proposals = append(p.Proposals, w)
	}
	return p
}

func offered(p *wire.SA) []suite.Proposal {
	out := make([]suite.Proposal, len(p.Proposals))
	for i, w := range p.Proposals {
		out[i].Protocol = suite.Protocol(w.Protocol)
		for _, t := range w.Transforms {
			out[i].Transforms = append(out[i].Transforms, suite.Transform{Type: suite.TransformType(t.Type), ID: suite.TransformID(t.ID), KeyBits: t.KeyLength})
		}
	}
	return out
}

func tsPayload(kind wire.PayloadType, list []ipsec.Selector) *wire.TS {
	p := &wire.TS{Kind: kind}
	for _, s := range list {
		t := wire.TrafficSelector{Type: wire.TSIPv4AddrRange, Protocol: s.Proto, StartPort: s.PortFrom, EndPort: s.PortTo, Start: s.From, End: s.To}
		if s.From.Is6() {
			t.Type = wire.TSIPv6AddrRange
		}
		p.Selectors = append(p.Selectors, t)
	}
	return p
}

func fromTS(p *wire.TS) (out []ipsec.Selector) {
	for _, t := range p.Selectors {
		out = append(out, ipsec.Selector{Proto: t.Protocol, From: t.Start, To: t.End, PortFrom: t.StartPort, PortTo: t.EndPort})
	}
	return out
}

func notify(t wire.NotifyType, data []byte) *wire.Notify {
	return &wire.Notify{NotifyType: t, Data: data}
}

func spi4(x uint32) []byte { return binary.BigEndian.AppendUint32(nil, x) }
func spi8(x uint64) []byte { return binary.BigEndian.AppendUint64(nil, x) }

func errorIn(list []wire.Payload) wire.NotifyType {
	for _, x := range list {
		if n, ok := x.(*wire.Notify); ok && n.NotifyType.IsError() {
			return n.NotifyType
		}
	}
	return 0
}

// firstGroup is the key exchange that the first proposal with one prefers.
func firstGroup(list []suite.Proposal) suite.TransformID {
	for _, p := range list {
		if t, ok := p.First(suite.TypeKE); ok {
			return t.ID
		}
	}
	return suite.KENone
}

func withoutKE(list []suite.Proposal) (out []suite.Proposal) {
	for _, p := range list {
		out = append(out, p.WithoutKE())
	}
	return out
}

// Keys (RFC 7296 §2.14).

func (s *ikeSA) derive(sel suite.Selected, skeyseed func(f suite.PRF) suite.Key) {
	f, err := suite.NewPRF(sel.PRF)
	if err != nil {
		s.p.w.t.Fatal(err)
	}
	s.sel, s.prf = sel, f
	enc, integ, err := sel.KeyLengths()
	if err != nil {
		s.p.w.t.Fatal(err)
	}
	seed := slices.Concat(s.ni, s.nr, spi8(s.spiI), spi8(s.spiR))
	n := f.KeyLen()
	all := f.Plus(skeyseed(f), seed, 3*n+2*integ+2*enc)
	cut := func(n int) suite.Key { k := all[:n:n]; all = all[n:]; return k }
	s.d = cut(n)
	ai, ar, ei, er := cut(integ), cut(integ), cut(enc), cut(enc)
	s.pi, s.pr = cut(n), cut(n)
	if s.ci, err = suite.NewCipher(sel.Encr, sel.Integ, ei, ai); err == nil {
		s.cr, err = suite.NewCipher(sel.Encr, sel.Integ, er, ar)
	}
	if err != nil {
		s.p.w.t.Fatal(err)
	}
}

// keys are those of a Child SA (RFC 7296 §2.17); asked: the peer sent the request.
func (s *ikeSA) keys(c *childSA, asked bool, shared suite.Key, ni, nr []byte) {
	enc, integ, err := c.sel.KeyLengths()
	if err != nil {
		s.p.w.t.Fatal(err)
	}
	all := s.prf.Plus(s.d, slices.Concat(shared, ni, nr), 2*(enc+integ))
	cut := func(n int) suite.Key { k := all[:n:n]; all = all[n:]; return k }
	ei, ii, er, ir := cut(enc), cut(integ), cut(enc), cut(integ)
	if c.outKey, c.outInteg, c.inKey, c.inInteg = ei, ii, er, ir; !asked {
		c.inKey, c.inInteg, c.outKey, c.outInteg = ei, ii, er, ir
	}
	c.born = s.p.w.now
	s.kids = append(s.kids, c)
}

// AUTH by the shared key (RFC 7296 §2.15).
func (s *ikeSA) auth(id *wire.ID, ofInitiator bool) *wire.Auth {
	message, nonce, key := s.request, s.nr, s.pi
	if !ofInitiator {
		message, nonce, key = s.response, s.ni, s.pr
	}
	secret := sharedPSK
	if s.secret != nil {
		secret = s.secret
	}
	return &wire.Auth{Method: wire.AuthSharedKey, Data: s.prf.Sum(s.prf.Sum(secret, []byte("Key Pad for IKEv2")), message, nonce, s.prf.Sum(key, id.AppendSigned(nil)))}
}

// signFor answers adit's question for a signature, by what the peer has announced.
func (p *peer) signFor(q ike.SignAuth) any {
	if p.serverKey == nil {
		return nil
	}
	s := &ike.Signature{Method: wire.AuthRSASignature}
	if q.Requested || q.Peer.SendCert == ike.SendAlways {
		s.Certs = []ike.CertPayload{{Encoding: wire.CertX509Signature, Data: []byte("stands for the server's certificate")}}
		for range p.chain - 1 {
			s.Certs = append(s.Certs, ike.CertPayload{Encoding: wire.CertX509Signature, Data: []byte("stands for an intermediate CA")})
		}
	}
	sum := sha1.Sum(q.Octets)
	hash, digest := crypto.SHA1, sum[:]
	if q.Hashes != nil {
		sum := sha256.Sum256(q.Octets)
		hash, digest = crypto.SHA256, sum[:]
		s.Method = wire.AuthDigitalSignature
	}
	data, err := rsa.SignPKCS1v15(nil, p.serverKey, hash, digest)
	if err != nil {
		p.w.t.Fatal(err)
	}
	if s.Method == wire.AuthDigitalSignature {
		data = append(append([]byte{byte(len(rsaSHA256))}, rsaSHA256...), data...)
	}
	s.Data = data
	return s
}

// rsaSHA256 is sha256WithRSAEncryption as an AlgorithmIdentifier (RFC 7427 appendix A.1.2).
var rsaSHA256 = []byte{0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00}

// believes checks adit's AUTH.
func (s *ikeSA) believes(list []wire.Payload, kind wire.PayloadType) bool {
	id := wire.FindID(list, kind)
	auth, ok := wire.First[*wire.Auth](list)
	if id == nil || !ok || s.p.denies {
		return false
	}
	byInitiator := kind == wire.PayloadIDi
	if s.p.serverKey == nil {
		return slices.Equal(auth.Data, s.auth(id, byInitiator).Data)
	}
	shown := 0
	for _, p := range list {
		if _, ok := p.(*wire.Cert); ok {
			shown++
		}
	}
	if shown == 0 || byInitiator && s.p.maxCerts == 0 || s.p.maxCerts > 0 && shown > s.p.maxCerts {
		return false // Windows and Apple have no other way to the server's key
	}
	octets := slices.Concat(s.response, s.ni, s.prf.Sum(s.pr, id.AppendSigned(nil)))
	if byInitiator {
		octets = slices.Concat(s.request, s.nr, s.prf.Sum(s.pi, id.AppendSigned(nil)))
	}
	if auth.Method == wire.AuthDigitalSignature {
		sum := sha256.Sum256(octets)
		return len(auth.Data) > 16 && rsa.VerifyPKCS1v15(&s.p.serverKey.PublicKey, crypto.SHA256, sum[:], auth.Data[16:]) == nil
	}
	sum := sha1.Sum(octets)
	return rsa.VerifyPKCS1v15(&s.p.serverKey.PublicKey, crypto.SHA1, sum[:], auth.Data) == nil
}
