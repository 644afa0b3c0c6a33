package ikev2

import (
	"net/netip"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// Phases lists the names of all phases, in order.
func Phases() (out []string) {
	for p := range phases {
		out = append(out, p.String())
	}
	return out
}

// RuleFor reports whether a message is taken in the phase of that number.
func RuleFor(p int, x wire.ExchangeType, response bool) bool {
	return findRule(phase(p), x, response) != nil
}

// RuleCount is the length of the rule table.
func RuleCount() int { return len(rules) }

// SkipMessageIDs moves both windows of an IKE SA on.
func SkipMessageIDs(x ike.SA, send, recv uint32) {
	s := x.(*sa)
	s.win.sendID, s.win.recvID, s.win.response = send, recv, nil
}

// LimitMessageID is where an IKE SA is rekeyed.
const LimitMessageID = limitMessageID

// KeysSpent reports whether the keys of an IKE SA are gone.
func KeysSpent(x ike.SA) bool {
	k := x.(*sa).keys
	return k == nil || k.d == nil && k.setupKeys == nil && k.in == nil && k.out == nil
}

// SetupKeysSpent reports whether the keys are gone that only a set-up needs, SK_pi and SK_pr among them.
func SetupKeysSpent(x ike.SA) bool { return x.(*sa).keys.setupKeys == nil }

// Derive derives the keys of an IKE SA as IKE_SA_INIT does, in the order of RFC
// 7296 §2.14; then a Child SA's without and with key exchange (§2.17), and the
// SKEYSEED of a rekey (§2.18).
func Derive(sel suite.Selected, shared, sharedNew suite.Key, ni, nr []byte, spiI, spiR uint64) (ike, child, childKE, rekey []byte, err error) {
	prf, err := suite.NewPRF(sel.PRF)
	if err != nil {
		return
	}
	k, err := deriveIKE(sel, prf.Sum(prf.NonceKey(ni, nr), shared), ni, nr, spiI, spiR)
	if err != nil {
		return
	}
	for _, part := range []suite.Key{k.d, k.ai, k.ar, k.ei, k.er, k.pi, k.pr} {
		ike = append(ike, part...)
	}
	for i, with := range []suite.Key{nil, sharedNew} {
		c, err := k.deriveChild(sel, secrets{first: with}, ni, nr)
		if err != nil {
			return nil, nil, nil, nil, err
		}
		for _, part := range []suite.Key{c.encI, c.intI, c.encR, c.intR} {
			if i == 0 {
				child = append(child, part...)
			} else {
				childKE = append(childKE, part...)
			}
		}
	}
	return ike, child, childKE, k.rekeySeed(secrets{first: sharedNew}, ni, nr), nil
}

// SealAndOpenFragments protects a chain of about n bytes with the algorithms of
// p, in messages of at most room bytes, and opens them again.
func SealAndOpenFragments(p suite.Proposal, n, room int) (sizes []int, whole bool, err error) {
	sel, err := suite.Accept([]suite.Proposal{p}, p, suite.SelectOptions{})
	if err != nil {
		return nil, false, err
	}
	keys := func(initiator bool) (*ikeKeys, error) {
		k, err := deriveIKE(sel, make(suite.Key, 32), make([]byte, 32), make([]byte, 32), 1, 2)
		if err != nil {
			return nil, err
		}
		return k, k.arm(sel, initiator)
	}
	seal, err := keys(true)
	if err != nil {
		return nil, false, err
	}
	open, err := keys(false)
	if err != nil {
		return nil, false, err
	}
	payloads := []wire.Payload{&wire.VendorID{Data: make([]byte, n)}}
	h := wire.Header{SPIi: 1, SPIr: 2, Version: wire.IKEv2, Exchange: wire.ExchangeInformational, Flags: wire.FlagInitiator, MessageID: 7}
	list, err := seal.sealAll(h, payloads, room)
	if err != nil {
		return nil, false, err
	}
	var first wire.PayloadType
	var text []byte
	for i, b := range list {
		sizes = append(sizes, len(b))
		msg, err := wire.ParseMessage(b)
		if err != nil {
			return sizes, false, err
		}
		part, ok, err := open.open(msg, false)
		if !ok || err != nil {
			return sizes, false, err
		}
		if i == 0 {
			first = msg.Encrypted.FirstInner
		}
		text = append(text, part...)
	}
	back, err := wire.ParsePayloads(first, text)
	return sizes, err == nil && len(back) == 1 && len(back[0].(*wire.VendorID).Data) == n, err
}

// FloodFragments makes half-open IKE SAs at e, each from an address of its own,
// and sends all fragments but the last of a message into each. It returns how
// many bytes are held then, and how many fragments were refused.
func FloodFragments(t testing.TB, e *ike.Engine, now time.Time, sas, fragments, size int) (held int, refused uint64) {
	props, err := suite.ParseProposals(suite.IKE, []string{"aes128-sha256-x25519"})
	if err != nil {
		t.Fatal(err)
	}
	before := e.Stats().Dropped[ike.DropFragment]
	for i := range sas {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 500)
		to := netip.MustParseAddrPort("192.0.2.2:500")
		kx, err := suite.NewKeyExchange(suite.KECurve25519)
		if err != nil {
			t.Fatal(err)
		}
		ni := make([]byte, 32)
		ni[0], ni[1] = byte(i), byte(i>>8)
		h := wire.Header{SPIi: uint64(i) + 1, Version: wire.IKEv2, Exchange: wire.ExchangeIKESAInit, Flags: wire.FlagInitiator}
		first := wire.AppendMessage(nil, h, []wire.Payload{toWire(props, nil), &wire.KE{Group: uint16(suite.KECurve25519), Data: kx.Public()},
			&wire.Nonce{Data: ni}, notify(wire.FragmentationSupported, nil)})
		e.Datagram(now, ike.Datagram{Local: to, Remote: from, Data: first})
		var answer *wire.Message
		for _, f := range e.Take() {
			if s, ok := f.(ike.Send); ok {
				answer, _ = wire.ParseMessage(s.Data)
			}
		}
		if answer == nil || answer.Header.SPIr == 0 {
			t.Fatalf("half-open IKE SA %d was refused", i)
		}
		ke, _ := wire.First[*wire.KE](answer.Payloads)
		nr, _ := wire.First[*wire.Nonce](answer.Payloads)
		shared, err := kx.Shared(ke.Data)
		if err != nil {
			t.Fatal(err)
		}
		sel, _ := suite.Accept(props, props[0], suite.SelectOptions{})
		prf, _ := suite.NewPRF(sel.PRF)
		k, err := deriveIKE(sel, prf.Sum(prf.NonceKey(ni, nr.Data), shared), ni, nr.Data, h.SPIi, answer.Header.SPIr)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.arm(sel, true); err != nil {
			t.Fatal(err)
		}
		h = wire.Header{SPIi: h.SPIi, SPIr: answer.Header.SPIr, Version: wire.IKEv2, Exchange: wire.ExchangeIKEAuth, Flags: wire.FlagInitiator, MessageID: 1}
		for n := range fragments {
			x := wire.Encrypted{Type: wire.PayloadSKF, FragmentNumber: uint16(n + 1), TotalFragments: uint16(fragments + 1)}
			if n == 0 {
				x.FirstInner = wire.PayloadIDi
			}
			e.Datagram(now, ike.Datagram{Local: to, Remote: from, Data: k.sealText(h, x, make([]byte, size))})
			e.Take()
		}
	}
	st := e.Stats()
	return st.FragmentBytes, st.Dropped[ike.DropFragment] - before
}

// AllowRedirect acts as if the peer had announced REDIRECT_SUPPORTED.
func AllowRedirect(x ike.SA) { x.(*sa).peerCaps.redirect = true }

// PPKKeys derives what RFC 9867 has derived of SK_d and a PPK: all keys of an IKE SA after
// IKE_INTERMEDIATE, the PPK Confirmations of there and of CREATE_CHILD_SA, a Child SA's keys and the SKEYSEED of a rekey.
func PPKKeys(sel suite.Selected, d, ppk, shared suite.Key, ni, nr []byte, spiI, spiR uint64) (ike, confirm, child, rekey []byte, err error) {
	prf, err := suite.NewPRF(sel.PRF)
	if err != nil {
		return
	}
	old := &ikeKeys{prf: prf, d: d}
	k, err := deriveIKE(sel, old.ppkSeed(ppk, d), ni, nr, spiI, spiR)
	if err != nil {
		return
	}
	for _, part := range []suite.Key{k.d, k.ai, k.ar, k.ei, k.er, k.pi, k.pr} {
		ike = append(ike, part...)
	}
	s := &sa{spiI: spiI, spiR: spiR, keys: old}
	c, err := old.deriveChild(sel, secrets{first: shared, ppk: ppk}, ni, nr)
	if err != nil {
		return
	}
	for _, part := range []suite.Key{c.encI, c.intI, c.encR, c.intR} {
		child = append(child, part...)
	}
	return ike, append(s.confirmPPK(ppk, ni, nr), s.confirmPPK(ppk, ni)...), child, old.rekeySeed(secrets{first: shared, ppk: ppk}, ni, nr), nil
}

// ResumeKeys is SKEYSEED of a resumed IKE SA, and the initiator's AUTH in it with SK_pi pi.
func ResumeKeys(sel suite.Selected, d, pi suite.Key, ni, nr, message []byte, id *wire.ID) (seed, auth []byte, err error) {
	prf, err := suite.NewPRF(sel.PRF)
	if err != nil {
		return nil, nil, err
	}
	seed, err = resumeSeed(sel, d, ni, nr)
	return seed, (&ikeKeys{prf: prf, setupKeys: &setupKeys{pi: pi}}).resumeAuth(message, nr, id, true), err
}
