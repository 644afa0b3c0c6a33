package ikev2_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// ways are set-ups that differ in how the two prove themselves.
var ways = []func(a, b *side){
	func(a, b *side) {},
	func(a, b *side) { by(a, b, ike.AuthPubkey, ike.AuthPubkey) },
	func(a, b *side) { by(a, b, ike.AuthPSK, ike.AuthPubkey) },
	func(a, b *side) { by(a, b, ike.AuthEAP, ike.AuthPubkey) },
	func(a, b *side) { by(a, b, ike.AuthEAP, ike.AuthEAP) },
	func(a, b *side) {
		by(a, b, ike.AuthPubkey, ike.AuthPubkey)
		a.peer.Local = append(a.peer.Local, ike.AuthRound{Method: ike.AuthEAP, ID: id("user@example.org")})
		b.peer.Remote = append(b.peer.Remote, ike.AuthRound{Method: ike.AuthEAP})
	},
	func(a, b *side) {
		by(a, b, ike.AuthPSK, ike.AuthPSK)
		for _, l := range []*[]ike.AuthRound{&a.peer.Local, &b.peer.Remote} {
			*l = append(*l, ike.AuthRound{Method: ike.AuthPubkey, ID: id("user@example.org")})
		}
		for _, l := range []*[]ike.AuthRound{&b.peer.Local, &a.peer.Remote} {
			*l = append(*l, ike.AuthRound{Method: ike.AuthPubkey, ID: id("b2.example.org")})
		}
	},
}

// meddler changes protected messages on their way as the bytes of a script say. It
// has the keys of the IKE SA, but none that proves anybody. It also is the oracle:
// it knows which AUTH payloads the true hosts made and which of them arrived.
type meddler struct {
	*mitm
	script  []byte
	seen    [2][][]wire.Payload // by sender
	genuine [2][][]byte
	arrived [2]map[string]bool // by receiver
}

func newMeddler(t testing.TB, way uint8, script []byte) *meddler {
	d := &meddler{script: script, arrived: [2]map[string]bool{{}, {}}}
	d.mitm = newMITM(t, ways[int(way)%len(ways)])
	credentialsFor(t, d.pair)
	d.change = d.meddle
	return d
}

func (d *meddler) next() byte {
	if len(d.script) == 0 {
		return 0
	}
	b := d.script[0]
	d.script = d.script[1:]
	return b
}

func authBytes(p wire.Payload) []byte {
	a, ok := p.(*wire.Auth)
	if !ok {
		return nil
	}
	return append([]byte{byte(a.Method)}, a.Data...)
}

func (d *meddler) meddle(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
	side := 0
	if from == d.b {
		side = 1
	}
	for _, x := range p {
		if b := authBytes(x); b != nil {
			d.genuine[side] = append(d.genuine[side], bytes.Clone(b))
		}
	}
	out := slices.Clone(p)
	for range 3 {
		out = d.step(side, out)
	}
	d.seen[side] = append(d.seen[side], p)
	for _, x := range out {
		if b := authBytes(x); b != nil && slices.ContainsFunc(d.genuine[side], func(g []byte) bool { return bytes.Equal(g, b) }) {
			d.arrived[1-side][string(b)] = true
		}
	}
	return out
}

func (d *meddler) step(side int, p []wire.Payload) []wire.Payload {
	op, arg := d.next(), int(d.next())
	at := 0
	if len(p) > 0 {
		at = arg % len(p)
	}
	older := func(side int) []wire.Payload {
		if len(d.seen[side]) == 0 {
			return nil
		}
		return d.seen[side][arg%len(d.seen[side])]
	}
	add := []wire.Payload{&wire.EAP{Raw: []byte{3, byte(arg), 0, 4}}, &wire.EAP{Raw: []byte{4, byte(arg), 0, 4}}, &wire.EAP{Raw: []byte{2, 1, 0, 6, 1, 'x'}},
		&wire.Notify{NotifyType: wire.AnotherAuthFollows}, &wire.Notify{NotifyType: wire.MultipleAuthSupported}, &wire.Notify{NotifyType: wire.EAPOnlyAuthentication},
		&wire.Auth{Method: wire.AuthNull}, &wire.Auth{Method: wire.AuthSharedKey, Data: make([]byte, 32)}, &wire.Auth{Method: wire.AuthDigitalSignature},
		&wire.ID{Kind: wire.PayloadIDr, IDType: wire.IDType(ike.IDFQDN), Data: []byte("b.example.org")}, &wire.ID{Kind: wire.PayloadIDi, IDType: wire.IDType(ike.IDFQDN), Data: []byte("a.example.org")},
		&wire.Notify{NotifyType: wire.NoProposalChosen}}
	switch op % 16 {
	case 7: // AUTH damaged
		if at = slices.IndexFunc(p, func(x wire.Payload) bool { return x.Type() == wire.PayloadAUTH }); at >= 0 {
			a := p[at].(*wire.Auth)
			p[at] = &wire.Auth{Method: a.Method, Data: append(bytes.Clone(a.Data[:min(len(a.Data), 16)]), make([]byte, 16)...)}
		}
	case 8: // one payload less
		if len(p) > 0 {
			return slices.Delete(p, at, at+1)
		}
	case 9: // one twice
		if len(p) > 0 {
			return append(p, p[at])
		}
	case 10: // one damaged
		if len(p) > 0 {
			switch x := p[at].(type) {
			case *wire.Auth:
				y := *x
				y.Data = bytes.Clone(x.Data)
				if len(y.Data) > 0 {
					y.Data[arg%len(y.Data)] ^= 1
				}
				p[at] = &y
			case *wire.EAP:
				y := &wire.EAP{Raw: bytes.Clone(x.Raw)}
				y.Raw[0] = byte(1 + arg%4)
				p[at] = y
			}
		}
	case 11: // an older message in its place
		if old := older(side); old != nil {
			return slices.Clone(old)
		}
	case 12: // with payloads of an older one of either side
		return append(p, older(arg&1)...)
	case 13:
		return append(p, add[arg%len(add)])
	case 14:
		return append([]wire.Payload{add[arg%len(add)]}, p...)
	case 15:
		return nil // an empty list, not a lost message
	}
	if p == nil {
		p = []wire.Payload{}
	}
	return p
}

// check wants, of each host that is up, that what proves the other one arrived.
func (d *meddler) check(t testing.TB) {
	t.Helper()
	for side, h := range []*host{d.a, d.b} {
		if len(eventsOf[ike.IKEUp](h)) == 0 {
			continue
		}
		want := len(h.peer.Remote)
		if side == 0 && h.peer.Remote[0].Method != ike.AuthEAP { // the key of EAP proves the responder once more
			for _, r := range h.peer.Local {
				if r.Method == ike.AuthEAP {
					want++
				}
			}
		}
		if got := len(d.arrived[side]); got < want {
			t.Errorf("%s is up, but only %d of %d proofs of its peer arrived", h.name, got, want)
		}
	}
	for _, h := range []*host{d.a, d.b} {
		if h.e.Stats().Bugs != 0 {
			t.Errorf("%s: an invariant failed", h.name)
		}
	}
}

func (d *meddler) play(t testing.TB) {
	d.a.initiate("net")
	d.run(3 * time.Second)
	d.check(t)
	for _, h := range []*host{d.a, d.b} {
		h.do(ike.Shutdown{Grace: time.Second})
	}
	d.run(400 * time.Second)
	d.check(t)
	d.down()
	for _, h := range []*host{d.a, d.b} {
		h.creds.balanced(t, h.name)
	}
}

// Never established without a verified AUTH, whatever comes in whatever order
// (CVE-2014-2338, CVE-2021-45079 and all of their kind).
func TestNeverUpWithoutProof(t *testing.T) {
	ups := 0
	for seed := range uint64(700) {
		rng := rand.New(rand.NewPCG(seed, 7))
		script := make([]byte, 60)
		for i := range script {
			script[i] = byte(rng.Uint32())
			if i%2 == 0 && rng.IntN(100) < 80 {
				script[i] = 0
			}
		}
		d := newMeddler(t, uint8(seed), script)
		d.play(t)
		ups += len(eventsOf[ike.IKEUp](d.b))
		if t.Failed() {
			t.Fatalf("seed %d\n%q\n%q", seed, d.a.trace(), d.b.trace())
		}
	}
	if ups < 30 || ups > 670 {
		t.Errorf("%d of 700 came up: the meddling is not what it should be", ups)
	}
}

func FuzzAuthSequence(f *testing.F) {
	for way := range ways {
		f.Add(uint8(way), []byte{})
		f.Add(uint8(way), []byte{0, 0, 0, 0, 0, 0, 13, 0})
		f.Add(uint8(way), []byte{8, 2, 0, 0, 0, 0, 14, 3, 12, 1})
	}
	f.Fuzz(func(t *testing.T, way uint8, script []byte) {
		newMeddler(t, way, script[:min(len(script), 200)]).play(t)
	})
}
