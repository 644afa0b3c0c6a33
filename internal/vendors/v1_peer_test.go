package vendors_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"

	"adit/ike"
	"adit/ike/ikev1"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// oldPeer is a scripted peer of IKEv1: AES-128-CBC, SHA-1, a shared key. It computes its
// keys and hashes by itself.
type oldPeer struct {
	oldHabits
	w          *world
	group      suite.TransformID
	local, rem ipsec.Selector // its side first
	sa         *oldSA
	kids       []*oldChild
	notified   []wire.V1NotifyType // by adit
	deleted    [][]byte            // SPIs that adit has deleted
}

// oldHabits are in what a peer departs from the plain course.
type oldHabits struct {
	// first and later are vendor IDs beside message 1 or 2, and beside 3 or 4.
	first, later [][]byte
	// natD is the payload type of NAT detection, 0: none.
	natD wire.PayloadType
	// seconds and kilobytes are its lifetimes of phase 2, told by RESPONDER-LIFETIME where
	// shorter than what was offered.
	seconds, kilobytes uint32
	// commit sets the commit bit in message 2 of quick mode and says CONNECTED after 3.
	commit bool
	// wrongKey: it can't read message 5, and says so in the clear under message ID 0.
	wrongKey bool
	// deletesOld: having answered a rekey, it deletes the IPsec SAs of before at once.
	deletesOld bool
	// id is who it says it is.
	id wire.V1ID
}

type oldSA struct {
	at, to           netip.AddrPort
	cookies          [16]byte
	initiator        bool // the peer
	saBody           []byte
	ni, nr, gxi, gxr []byte
	kx               suite.KeyExchange
	skeyid, d, a     []byte
	block            cipher.Block
	iv               []byte
	ivs              map[uint32][]byte // of phase 2, by message ID
	up               bool
	qni, qnr         map[uint32][]byte // nonces of quick modes
}

type oldChild struct {
	in, out     uint32 // SPIs
	inKey       []byte // the cipher's
	lifeSeconds uint64
	lifeKB      uint64
}

// newOldWorld is newWorld for a peer of IKEv1.
func newOldWorld(t *testing.T, c conn, o *oldPeer) *world {
	t.Helper()
	cryptotest.SetGlobalRandom(t, 1)
	w := &world{t: t, now: epoch, old: o, sas: map[ipsec.SARef]ipsec.SAParams{}, pol: map[ipsec.PolicyID]ipsec.Policy{}}
	cfg := &ike.Peer{Name: "gw", Version: 1, RemoteAddrs: exactly(peerAddr), LocalAddrs: exactly(aditAddr), KeyingTries: 1,
		Proposals: proposals(t, suite.IKE, c.ike), Local: []ike.AuthRound{{ID: identity(t, aditID)}}, Remote: []ike.AuthRound{{ID: identity(t, peerID)}}}
	local, remote, _ := strings.Cut(c.children[0], " === ")
	cfg.Children = []*ike.Child{{Name: "net", Local: selectors(t, local), Remote: selectors(t, remote), ReplayWindow: 64, Policies: true, Proposals: proposals(t, suite.ESP, c.esp)}}
	if c.change != nil {
		c.change(cfg)
	}
	w.cfg = ike.Config{Shard: 1, Peers: []*ike.Peer{cfg}}
	w.cfg.AggressivePSK = true
	w.e = ike.New(w.cfg, ikev1.Version)
	o.w, o.local, o.rem = w, selectors(t, remote)[0], selectors(t, local)[0]
	if o.id.Type == 0 {
		o.id = wire.V1ID{Type: wire.IDFQDN, Data: []byte(peerID)}
	}
	return w
}

func (o *oldPeer) prf(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha1.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func (o *oldPeer) derive(shared []byte) {
	s := o.sa
	c := s.cookies[:]
	s.skeyid = o.prf(sharedPSK, s.ni, s.nr)
	s.d = o.prf(s.skeyid, shared, c, []byte{0})
	s.a = o.prf(s.skeyid, s.d, shared, c, []byte{1})
	e := o.prf(s.skeyid, s.a, shared, c, []byte{2})
	s.block, _ = aes.NewCipher(e[:16])
	h := sha1.Sum(slices.Concat(s.gxi, s.gxr))
	s.iv = h[:16]
}

// hash is HASH_I or HASH_R.
func (o *oldPeer) hash(byInitiator bool, id []byte) []byte {
	s := o.sa
	if byInitiator {
		return o.prf(s.skeyid, s.gxi, s.gxr, s.cookies[:], s.saBody, id)
	}
	return o.prf(s.skeyid, s.gxr, s.gxi, s.cookies[8:], s.cookies[:8], s.saBody, id)
}

func (o *oldPeer) natPayloads() (list []wire.V1Payload) {
	if o.natD == 0 {
		return nil
	}
	hash := func(a netip.AddrPort) wire.V1Payload {
		h := sha1.Sum(slices.Concat(o.sa.cookies[:], a.Addr().AsSlice(), binary.BigEndian.AppendUint16(nil, a.Port())))
		return wire.V1Payload{Type: o.natD, Body: h[:]}
	}
	return []wire.V1Payload{hash(o.sa.to), hash(o.sa.at)}
}

func vids(list [][]byte) (out []wire.V1Payload) {
	for _, b := range list {
		out = append(out, wire.V1Payload{Type: wire.PayloadV1VendorID, Body: b})
	}
	return out
}

func (o *oldPeer) header(x wire.ExchangeType, id uint32) wire.Header {
	h := wire.Header{Version: wire.IKEv1, Exchange: x, MessageID: id}
	h.SPIi, h.SPIr = binary.BigEndian.Uint64(o.sa.cookies[:8]), binary.BigEndian.Uint64(o.sa.cookies[8:])
	return h
}

func (o *oldPeer) send(b []byte) {
	o.w.fly(flight{at: o.w.now.Add(oneWay), toAdit: true, d: ike.Datagram{Local: o.sa.to, Remote: o.sa.at, Data: b}})
}

func (o *oldPeer) clear(x wire.ExchangeType, list ...wire.V1Payload) {
	o.send(wire.AppendV1Message(nil, o.header(x, 0), list))
}

// chain is the IV of an exchange of phase 2 at its beginning.
func (o *oldPeer) chain(id uint32) []byte {
	if iv := o.sa.ivs[id]; iv != nil {
		return iv
	}
	h := sha1.Sum(slices.Concat(o.sa.iv, binary.BigEndian.AppendUint32(nil, id)))
	return h[:16]
}

func (o *oldPeer) sealed(x wire.ExchangeType, id uint32, flags wire.Flags, list ...wire.V1Payload) {
	h := o.header(x, id)
	h.Flags = wire.FlagV1Encryption | flags
	b := wire.AppendV1Message(nil, h, list)
	for (len(b)-wire.HeaderLen)%16 != 0 {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint32(b[24:], uint32(len(b)))
	iv := o.sa.iv
	if id != 0 {
		iv = o.chain(id)
	}
	cipher.NewCBCEncrypter(o.sa.block, iv).CryptBlocks(b[wire.HeaderLen:], b[wire.HeaderLen:])
	if last := bytes.Clone(b[len(b)-16:]); id == 0 {
		o.sa.iv = last
	} else {
		o.sa.ivs[id] = last
	}
	o.send(b)
}

// hashed sends a message of phase 2 behind its HASH.
func (o *oldPeer) hashed(x wire.ExchangeType, id uint32, flags wire.Flags, before []byte, list ...wire.V1Payload) {
	_, rest := wire.AppendV1Chain(nil, list)
	hash := o.prf(o.sa.a, binary.BigEndian.AppendUint32(nil, id), before, rest)
	o.sealed(x, id, flags, append([]wire.V1Payload{{Type: wire.PayloadV1Hash, Body: hash}}, list...)...)
}

// open decrypts a message of adit.
func (o *oldPeer) open(h wire.Header, b []byte) []wire.V1Payload {
	text := bytes.Clone(b[wire.HeaderLen:])
	iv := o.sa.iv
	if h.MessageID != 0 {
		iv = o.chain(h.MessageID)
	}
	cipher.NewCBCDecrypter(o.sa.block, iv).CryptBlocks(text, text)
	list, used, err := wire.ParseV1Chain(h.NextPayload, text)
	if err != nil {
		return nil
	}
	if last := bytes.Clone(b[len(b)-16:]); h.MessageID == 0 {
		o.sa.iv = last
	} else {
		o.sa.ivs[h.MessageID] = last
		if list[0].Type == wire.PayloadV1Hash && h.Exchange == wire.ExchangeV1Informational {
			if !bytes.Equal(list[0].Body, o.prf(o.sa.a, binary.BigEndian.AppendUint32(nil, h.MessageID), text[len(list[0].Body)+4:used])) {
				o.w.t.Error("HASH(1) of adit's informational exchange is wrong")
			}
		}
	}
	return list
}

func get(list []wire.V1Payload, t wire.PayloadType) []byte {
	for _, p := range list {
		if p.Type == t {
			return p.Body
		}
	}
	return nil
}

// receive takes a message of adit. The same again gets the same answer.
func (o *oldPeer) receive(d ike.Datagram) {
	h, err := wire.ParseHeader(d.Data)
	if err != nil {
		return
	}
	if h.SPIr == 0 {
		o.sa = &oldSA{at: d.Local, to: d.Remote, ivs: map[uint32][]byte{}, qni: map[uint32][]byte{}, qnr: map[uint32][]byte{}}
		copy(o.sa.cookies[:], d.Data[:8])
		copy(o.sa.cookies[8:], random(8))
	}
	o.sa.at, o.sa.to = d.Local, d.Remote
	if h.Flags&wire.FlagV1Encryption == 0 {
		list, _, err := wire.ParseV1Chain(h.NextPayload, d.Data[wire.HeaderLen:])
		if err != nil {
			o.w.t.Fatal(err)
		}
		o.phase1(h, list)
		return
	}
	if o.wrongKey {
		n := wire.V1Notify{Protocol: wire.ProtocolIKE, Type: wire.V1PayloadMalformed}
		o.clear(wire.ExchangeV1Informational, n.Payload())
		return
	}
	list := o.open(h, d.Data)
	if list == nil {
		o.w.t.Fatalf("%v of adit can't be read", h.Exchange)
	}
	o.protected(h, list)
}

// chosen answers an offer by its first transform that is the peer's.
func (o *oldPeer) chosen(body []byte, ok func(*wire.V1Transform) bool) *wire.V1SA {
	p, err := wire.ParseV1SA(body)
	if err != nil {
		o.w.t.Fatal(err)
	}
	for _, x := range p.Proposals {
		for i := range x.Transforms {
			if ok(&x.Transforms[i]) {
				x.Transforms = x.Transforms[i : i+1]
				return &wire.V1SA{Situation: wire.V1SituationIdentityOnly, Proposals: []wire.V1Proposal{x}}
			}
		}
	}
	o.w.t.Fatal("adit offers nothing that the peer has")
	return nil
}

func (o *oldPeer) phase1(h wire.Header, list []wire.V1Payload) {
	s := o.sa
	switch {
	case get(list, wire.PayloadV1SA) != nil && !s.initiator: // message 1
		s.saBody = get(list, wire.PayloadV1SA)
		answer := o.chosen(s.saBody, func(t *wire.V1Transform) bool {
			e, _ := t.Attribute(wire.V1AttrEncryption)
			a, _ := t.Attribute(wire.V1AttrHash)
			g, _ := t.Attribute(wire.V1AttrGroup)
			k, _ := t.Attribute(wire.V1AttrKeyLength)
			return e == 7 && a == 2 && k == 128 && suite.TransformID(g) == o.group
		})
		o.clear(h.Exchange, append([]wire.V1Payload{answer.Payload()}, vids(o.first)...)...)
	case s.initiator: // message 2 of aggressive mode
		copy(s.cookies[:8], binary.BigEndian.AppendUint64(nil, h.SPIi))
		copy(s.cookies[8:], binary.BigEndian.AppendUint64(nil, h.SPIr))
		s.gxr, s.nr = get(list, wire.PayloadV1KE), get(list, wire.PayloadV1Nonce)
		shared, err := s.kx.Shared(s.gxr)
		if err != nil {
			o.w.t.Fatal(err)
		}
		o.derive(shared)
		if !bytes.Equal(get(list, wire.PayloadV1Hash), o.hash(false, get(list, wire.PayloadV1ID))) {
			o.w.t.Error("HASH_R is wrong")
		}
		s.up = true
		o.sealed(wire.ExchangeV1Aggressive, 0, 0, append([]wire.V1Payload{{Type: wire.PayloadV1Hash, Body: o.hash(true, o.id.Payload().Body)}}, o.natPayloads()...)...)
	default: // message 3
		s.gxi, s.ni, s.nr = get(list, wire.PayloadV1KE), get(list, wire.PayloadV1Nonce), random(20)
		public, shared, err := suite.RespondKeyExchange(o.group, s.gxi)
		if err != nil {
			o.w.t.Fatal(err)
		}
		s.gxr = public
		o.derive(shared)
		out := append([]wire.V1Payload{{Type: wire.PayloadV1KE, Body: public}, {Type: wire.PayloadV1Nonce, Body: s.nr}}, vids(o.later)...)
		o.clear(h.Exchange, append(out, o.natPayloads()...)...)
	}
}

// aggressive begins phase 1 from the peer's side, with one transform.
func (o *oldPeer) aggressive() {
	kx, err := suite.NewKeyExchange(o.group)
	if err != nil {
		o.w.t.Fatal(err)
	}
	o.sa = &oldSA{at: netip.AddrPortFrom(peerAddr, 500), to: netip.AddrPortFrom(aditAddr, 500), initiator: true, kx: kx, gxi: kx.Public(), ni: random(20),
		ivs: map[uint32][]byte{}, qni: map[uint32][]byte{}, qnr: map[uint32][]byte{}}
	copy(o.sa.cookies[:], random(8))
	p := wire.V1SA{Situation: wire.V1SituationIdentityOnly, Proposals: []wire.V1Proposal{{Number: 1, Protocol: wire.ProtocolIKE, Transforms: []wire.V1Transform{{Number: 1, ID: wire.V1KeyIKE,
		Attributes: []wire.V1Attribute{wire.Basic16(1, 7), wire.Basic16(14, 128), wire.Basic16(2, 2), wire.Basic16(3, 1), wire.Basic16(4, uint16(o.group)), wire.Basic16(11, 1), wire.Basic16(12, 28800)}}}}}}
	o.sa.saBody = p.Payload().Body
	o.clear(wire.ExchangeV1Aggressive, append([]wire.V1Payload{p.Payload(), {Type: wire.PayloadV1KE, Body: o.sa.gxi}, {Type: wire.PayloadV1Nonce, Body: o.sa.ni}, o.id.Payload()}, vids(o.first)...)...)
}

// children are what adit has installed, for comparison.
func (o *oldPeer) settled(t *testing.T, n int) {
	t.Helper()
	if st := o.w.e.Stats(); st.Established != 1 || len(o.w.sas) != 2*n || len(o.kids) != n {
		t.Errorf("adit has %d ISAKMP SAs and %d IPsec SAs, the peer %d pairs; %q %v", st.Established, len(o.w.sas), len(o.kids), o.w.notes, o.w.rejections)
	}
	for _, k := range o.kids {
		found := false
		for ref, sa := range o.w.sas {
			if ref.Dir == ipsec.Out && uint32(sa.SPI) == k.in && bytes.Equal(sa.EncKey, k.inKey) {
				found = true
			}
		}
		if !found {
			t.Errorf("adit doesn't send under SPI %08x with the peer's key", k.in)
		}
	}
}
