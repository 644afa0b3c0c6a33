package ikev2_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/ikev2"
	"adit/ike/wire"
	"adit/suite"
)

// resuming is a crashing pair whose b gives tickets; config is b's, for restarts.
func resuming(t *testing.T, tweak func(a, b *side)) (p *pair, restart func(h *host), b *ike.Config) {
	p, restart = crashing(t, func(x, y *side) {
		for _, s := range []*side{x, y} {
			s.config.ResumeSessions, s.config.TicketSecret, s.config.UnsafeExportKeys = true, suite.Key("ticket secret of "+s.peer.Name), true
		}
		b = y.config
		if tweak != nil {
			tweak(x, y)
		}
	})
	return p, restart, b
}

// setups counts a's IKE_SA_INIT and IKE_SESSION_RESUME requests.
func setups(p *pair) (full, resumed int) {
	for _, d := range p.a.sent {
		switch h := header(p.t, d); {
		case h.Response():
		case h.Exchange == wire.ExchangeIKESAInit:
			full++
		case h.Exchange == wire.ExchangeIKESessionResume:
			resumed++
		}
	}
	return full, resumed
}

func counted(t *testing.T, p *pair, full, resumed int) {
	t.Helper()
	if f, r := setups(p); f != full || r != resumed {
		t.Errorf("%d full set-ups and %d resumptions, want %d and %d", f, r, full, resumed)
	}
}

// A restarted gateway resumes what it has lost, without a key exchange and without
// knowing the shared key any more; then it does so again by the next ticket. No
// two IKE SAs have a key in common, so that no IV can be repeated under one.
func TestRFC5723_Resume(t *testing.T) {
	p, restart, _ := resuming(t, nil)
	p.a.initiate("net")
	p.run(time.Second)
	p.up()
	p.a.psk, p.b.psk = nil, nil
	for i := range 3 {
		restart(p.b)
		p.orphaned(p.b)
		p.run(3 * time.Second) // losses in a row have a back-off
		p.up()
		counted(t, p, 1, i+1)
		sa := p.b.e.SAs()[0]
		if sa.RemoteID.String() != "a.example.org" || sa.LocalID.String() != "b.example.org" || sa.Name != "b" {
			t.Errorf("%+v", sa)
		}
		p.a.do(ike.Rekey{IKE: "a"}) // the new keys are good for more
		p.run(5 * time.Second)
		p.up()
	}
	seen := map[string]bool{}
	for _, k := range p.a.keys {
		if k.IKE == nil {
			continue
		}
		for _, key := range []suite.Key{k.IKE.SKei, k.IKE.SKer} {
			if seen[string(key)] {
				t.Error("a key comes twice")
			}
			seen[string(key)] = true
		}
	}
	if len(seen) != 2*7 {
		t.Errorf("%d keys", len(seen))
	}
}

// A ticket that is not taken leads to a full set-up at once.
func TestRFC5723_Nack(t *testing.T) {
	for name, change := range map[string]func(p *pair, b *ike.Config){
		"other secret": func(_ *pair, b *ike.Config) { b.TicketSecret = suite.Key("another") },
		"off":          func(_ *pair, b *ike.Config) { b.ResumeSessions = false },
		"other demands": func(p *pair, b *ike.Config) {
			q := *p.b.peer
			q.Remote = slices.Clone(q.Remote)
			q.Remote[0].CertPolicies = []string{"1.2.3"}
			b.Peers = []*ike.Peer{&q}
		},
		"other connection": func(p *pair, b *ike.Config) { q := *p.b.peer; q.Name = "c"; b.Peers = []*ike.Peer{&q} },
		"reauthentication": func(p *pair, b *ike.Config) {
			q := *p.b.peer
			q.ReauthTime = 10 * time.Second
			b.Peers = []*ike.Peer{&q}
			p.run(20 * time.Second)
		},
		"other algorithms":  func(_ *pair, b *ike.Config) { b.Peers = nil },
		"ticket of old age": func(p *pair, b *ike.Config) { p.run(3 * time.Hour) },
	} {
		p, restart, b := resuming(t, nil)
		p.a.initiate("net")
		p.run(time.Second)
		p.up()
		change(p, b)
		if name == "other algorithms" {
			q := *p.b.peer
			q.Proposals = mustProposals(t, suite.IKE, "aes256-sha256-x25519")
			b.Peers = []*ike.Peer{&q}
			restart(p.b)
			p.orphaned(p.b)
			p.run(5 * time.Second)
			if len(p.b.e.SAs()) != 0 {
				t.Errorf("%s: %v", name, brief(p.b.e.SAs()))
			}
			continue
		}
		restart(p.b)
		p.orphaned(p.b)
		p.run(2 * time.Second)
		p.up()
		want := 1
		if name == "ticket of old age" {
			want = 0 // its owner knows that as well
		}
		counted(t, p, 2, want)
		if n := p.b.e.Stats().Dropped[ike.DropTicket]; n != uint64(want) {
			t.Errorf("%s: %d tickets are counted as refused, want %d", name, n, want)
		}
	}
}

// An IKE SA that somebody ended is not resumed, and without the option nothing of it is sent.
func TestRFC5723_NotResumed(t *testing.T) {
	p, _, _ := resuming(t, nil)
	for range 2 {
		p.a.initiate("net")
		p.run(time.Second)
		p.up()
		p.a.do(ike.Terminate{IKE: "a"})
		p.run(time.Second)
	}
	counted(t, p, 2, 0)
	p, restart, _ := resuming(t, func(a, _ *side) { a.config.ResumeSessions = false })
	p.a.initiate("net")
	p.run(time.Second)
	restart(p.b)
	p.orphaned(p.b)
	p.run(time.Second)
	p.up()
	counted(t, p, 2, 0)
}

// What an attacker who saw it all sends again makes half-open IKE SAs that he cannot
// finish; and a ticket that was used is not taken another time, even with its keys.
func TestRFC5723_Replay(t *testing.T) {
	p, restart, _ := resuming(t, nil)
	p.a.initiate("net")
	p.run(time.Second)
	restart(p.b)
	var seen []ike.Datagram
	p.filter = func(from *host, d ike.Datagram) bool {
		if from == p.a {
			seen = append(seen, ike.Datagram{Local: d.Remote, Remote: d.Local, Data: slices.Clone(d.Data)})
		}
		return true
	}
	p.orphaned(p.b)
	p.run(time.Second)
	p.up()
	p.filter = nil
	before := p.b.e.SAs()[0]
	for _, d := range seen {
		if h := header(t, d); h.Exchange == wire.ExchangeIKESessionResume {
			d.Data[0] ^= 1 // another initiator SPI, or it would be a repetition
			p.b.e.Datagram(p.now, d)
			p.b.drain()
			if st := p.b.e.Stats(); st.HalfOpen != 0 || st.Dropped[ike.DropTicket] == 0 {
				t.Error("a used ticket was taken, or is not counted") // spent: TICKET_NACK
			}
			d.Data[0] ^= 1
		}
		p.b.e.Datagram(p.now, d)
	}
	p.run(60 * time.Second)
	if sas := p.b.e.SAs(); len(sas) != 1 || sas[0].SPIi != before.SPIi {
		t.Errorf("%v", brief(sas))
	}
	// A gateway that was restarted since does not know that it was used: keys are needed.
	restart(p.b)
	for _, d := range seen {
		p.b.e.Datagram(p.now, d)
		p.b.drain()
	}
	if st := p.b.e.Stats(); st.Established != 0 || st.HalfOpen > 1 {
		t.Errorf("%+v", st)
	}
}

// A gateway that has the ticket but not the keys, or the other way round, is found out.
func TestRFC5723_AuthChecked(t *testing.T) {
	for _, side := range []string{"a", "b"} {
		p, restart, _ := resuming(t, nil)
		p.a.initiate("net")
		p.run(time.Second)
		p.up()
		restart(p.b)
		resumed := false
		p.filter = func(from *host, d ike.Datagram) bool {
			msg, err := wire.ParseMessage(d.Data)
			if err == nil && from.name == side && msg.Header.Exchange == wire.ExchangeIKESessionResume && !resumed {
				// The nonce that is agreed on is another one at each side: so are all keys.
				resumed = true
				n, _ := wire.First[*wire.Nonce](msg.Payloads)
				n.Data[0] ^= 1
				p.seq++
				p.queue = append(p.queue, packet{p.now.Add(10 * time.Millisecond), p.seq, p.other(from), ike.Datagram{Local: d.Remote, Remote: d.Local, Data: wire.AppendMessage(nil, msg.Header, msg.Payloads)}})
				return false
			}
			return true
		}
		p.orphaned(p.b)
		p.run(2 * time.Second)
		if st := p.b.e.Stats(); st.Established != 0 || !resumed {
			t.Errorf("%s changed: %+v", side, st)
		}
		p.run(300 * time.Second) // the attempt fails, the next one is in full
		if full, _ := setups(p); full < 1 {
			t.Errorf("%s changed: no full set-up", side)
		}
	}
}

// Tickets that are no tickets: none of them is taken, none makes trouble.
func TestRFC5723_ForgedTickets(t *testing.T) {
	p, _, _ := resuming(t, nil)
	p.a.initiate("net")
	p.run(time.Second)
	for i, b := range [][]byte{nil, {1}, make([]byte, 21), []byte("\x01" + strings.Repeat("\xff", 400)), make([]byte, 5000)} {
		h := wire.Header{SPIi: uint64(100 + i), Version: wire.IKEv2, Exchange: wire.ExchangeIKESessionResume, Flags: wire.FlagInitiator}
		list := []wire.Payload{&wire.Nonce{Data: make([]byte, 32)}, &wire.Notify{NotifyType: wire.TicketOpaque, Data: b}}
		sa := p.b.e.SAs()[0]
		before := len(p.b.sent)
		p.b.e.Datagram(p.now, ike.Datagram{Local: sa.Local, Remote: sa.Remote, Data: wire.AppendMessage(nil, h, list)})
		p.b.drain()
		if len(p.b.sent) != before+1 || p.b.e.Stats().HalfOpen != 0 {
			t.Errorf("%d: %d answers", i, len(p.b.sent)-before)
			continue
		}
		msg, err := wire.ParseMessage(p.b.sent[before].Data)
		if err != nil || msg.Header.Exchange != wire.ExchangeIKESessionResume || wire.FindNotify(msg.Payloads, wire.TicketNack) == nil {
			t.Errorf("%d: %v %v", i, err, msg)
		}
	}
}

// The PPK of an IKE SA is in the keys of the one that is resumed of it. Who begins to insist
// on a PPK does not take a ticket of an IKE SA without, at either end.
func TestRFC5723_PPK(t *testing.T) {
	k := map[string]string{"carol": "the one"}
	for _, mode := range []ike.PPKIntermediate{ike.PPKIntermediatePrefer, ike.PPKIntermediateOff} {
		p, restart, _ := resuming(t, func(a, b *side) {
			a.peer.PPKID, a.peer.PPKRequired, b.peer.PPKRequired, a.peer.PPKIntermediate = "carol", true, true, mode
		})
		p.ppks(k, k)
		p.a.initiate("net")
		p.run(time.Second)
		p.up()
		restart(p.b)
		p.ppks(nil, nil) // it is not asked for again
		p.orphaned(p.b)
		p.run(3 * time.Second)
		p.up()
		counted(t, p, 1, 1)
		for _, h := range []*host{p.a, p.b} {
			if !h.e.SAs()[0].PPK {
				t.Errorf("%s does not list the PPK", h.name)
			}
			h.do(ike.Rekey{IKE: h.name})
			p.run(5 * time.Second)
			p.up()
		}
	}
	for _, end := range []string{"a", "b"} {
		p, restart, b := resuming(t, func(a, b *side) { a.peer.PPKID = "carol" })
		p.a.initiate("net")
		p.run(time.Second)
		p.up()
		if p.a.e.SAs()[0].PPK {
			t.Fatal("nobody has the secret")
		}
		p.ppks(k, k)
		full, resumed := 2, 1
		if end == "b" {
			q := *p.b.peer
			q.PPKRequired = true
			b.Peers = []*ike.Peer{&q}
		} else {
			resumed = 0
			p.a.peer.PPKRequired = true // of the ticket's own connection
		}
		restart(p.b)
		p.orphaned(p.b)
		p.run(3 * time.Second)
		p.up()
		counted(t, p, full, resumed)
		if !p.a.e.SAs()[0].PPK || !p.b.e.SAs()[0].PPK {
			t.Errorf("%s: no PPK", end)
		}
	}
}

// The formulas of RFC 5723 §5.1 and §4.3.3, computed a second time: SKEYSEED = prf(SK_d (old),
// "Resumption" | Ni | Nr), and AUTH = prf(SK_pi, message | Nr | prf(SK_pi, IDi')).
func TestRFC5723_KeyMaterial(t *testing.T) {
	sel := suite.Selected{PRF: suite.Transform{Type: suite.TypePRF, ID: suite.PRFHMACSHA2_256}}
	d, pi := bytes.Repeat([]byte{0xd1}, 32), bytes.Repeat([]byte{0xb1}, 32)
	ni, nr, message := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32), []byte("IKE_SESSION_RESUME as it was sent")
	id := &wire.ID{Kind: wire.PayloadIDi, IDType: 2, Data: []byte("a.example.org")}
	seed, auth, err := ikev2.ResumeKeys(sel, slices.Clone(d), slices.Clone(pi), ni, nr, message, id)
	if err != nil {
		t.Fatal(err)
	}
	if want := hmac256(d, []byte("Resumption"), ni, nr); !bytes.Equal(seed, want) {
		t.Errorf("SKEYSEED %x, want %x", seed, want)
	}
	rest := append([]byte{2, 0, 0, 0}, "a.example.org"...) // the ID payload without its generic header
	if want := hmac256(pi, message, nr, hmac256(pi, rest)); !bytes.Equal(auth, want) {
		t.Errorf("AUTH %x, want %x", auth, want)
	}
}
