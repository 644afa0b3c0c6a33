package ikev2_test

import (
	"fmt"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// again runs a scenario often: who has the lowest nonce is random.
const again = 12

func TestRFC7296_2_8_1_SimultaneousChildRekey(t *testing.T) {
	for i := range again {
		for _, esp := range []string{"aes128gcm16", "aes128gcm16-ecp384"} {
			p := mustUp(t, func(a, b *side) {
				a.child.Proposals = mustProposals(t, suite.ESP, esp)
				b.child.Proposals = a.child.Proposals
			})
			p.a.do(ike.Rekey{Child: "net"})
			p.b.do(ike.Rekey{Child: "net"})
			for range 20 {
				p.run(5 * time.Millisecond)
				p.flows()
			}
			p.run(time.Second)
			p.flows()
			p.run(70 * time.Second)
			p.up()
			for _, h := range []*host{p.a, p.b} {
				if len(eventsOf[ike.ChildDown](h)) != 0 || len(eventsOf[ike.ChildRekeyed](h)) != 1 {
					t.Errorf("run %d: %s: events", i, h.name)
				}
			}
			if t.Failed() {
				return
			}
		}
	}
}

// §2.8.1, second half: a's request is lost for so long that b's rekey is over
// before it arrives.
func TestRFC7296_2_8_1_LostRequest(t *testing.T) {
	for range again {
		p := mustUp(t, nil)
		lose := 1
		p.filter = func(from *host, d ike.Datagram) bool {
			if from == p.a && header(t, d).Exchange == wire.ExchangeCreateChildSA && !headerResponse(t, d) && lose > 0 {
				lose--
				return false
			}
			return true
		}
		p.a.do(ike.Rekey{Child: "net"})
		p.b.do(ike.Rekey{Child: "net"})
		for range 100 {
			p.run(100 * time.Millisecond)
			p.flows()
		}
		p.run(70 * time.Second)
		p.up()
		if len(eventsOf[ike.ChildDown](p.a))+len(eventsOf[ike.ChildDown](p.b)) != 0 {
			t.Error("a Child SA went down")
		}
		if t.Failed() {
			return
		}
	}
}

func headerResponse(t testing.TB, d ike.Datagram) bool {
	h := header(t, d)
	return h.Response()
}

// Every single message of a simultaneous rekey is lost in turn.
func TestRFC7296_2_8_1_LostMessages(t *testing.T) {
	for _, what := range []string{"child", "ike"} {
		for n := range 14 {
			for range 3 {
				t.Run(fmt.Sprint(what, n), func(t *testing.T) {
					p := mustUp(t, nil)
					count := 0
					p.filter = func(from *host, d ike.Datagram) bool {
						count++
						return count != n+1
					}
					for _, h := range []*host{p.a, p.b} {
						if what == "ike" {
							h.do(ike.Rekey{IKE: h.name})
						} else {
							h.do(ike.Rekey{Child: "net"})
						}
					}
					for range 150 {
						p.run(200 * time.Millisecond)
						p.flows()
					}
					p.run(100 * time.Second)
					p.up()
					for _, h := range []*host{p.a, p.b} {
						if len(eventsOf[ike.ChildDown](h))+len(eventsOf[ike.IKEDown](h)) != 0 {
							t.Errorf("%s went down", h.name)
						}
					}
				})
			}
		}
	}
}

func TestRFC7296_2_25_1_ChildRekeyAgainstDelete(t *testing.T) {
	for range again {
		p := mustUp(t, nil)
		p.a.do(ike.Rekey{Child: "net"})
		p.b.do(ike.Terminate{Child: "net"})
		p.run(100 * time.Second)
		if len(p.a.plane.sas)+len(p.b.plane.sas)+len(p.a.plane.pol)+len(p.b.plane.pol) != 0 {
			t.Errorf("left: %v %v", brief(p.a.e.SAs()), brief(p.b.e.SAs()))
		}
		if len(p.a.e.SAs()) != 1 || len(p.b.e.SAs()) != 1 {
			t.Error("the IKE SA did not survive")
		}
		p.a.initiate("net")
		p.run(time.Second)
		p.up()
	}
}

// CHILD_SA_NOT_FOUND: b has lost the Child SA; a makes it anew.
func TestRFC7296_2_25_1_ChildSANotFound(t *testing.T) {
	p := mustUp(t, nil)
	p.filter = func(from *host, d ike.Datagram) bool { return from != p.b || p.now.Sub(start) > 3*time.Second }
	p.b.do(ike.Terminate{Child: "net"})
	p.run(time.Second) // a never sees the first Delete
	p.filter = nil
	p.a.do(ike.Rekey{Child: "net"})
	p.run(30 * time.Second)
	if l := p.a.e.SAs(); len(l) != 1 {
		t.Fatal(brief(l))
	}
	p.a.initiate("net")
	p.run(10 * time.Second)
	p.up()
}

func TestRFC7296_2_8_2_SimultaneousIKERekey(t *testing.T) {
	for range again {
		p := mustUp(t, nil)
		p.a.do(ike.Rekey{IKE: "a"})
		p.b.do(ike.Rekey{IKE: "b"})
		p.run(100 * time.Second)
		p.up()
		for _, h := range []*host{p.a, p.b} {
			if len(eventsOf[ike.IKERekeyed](h)) != 1 || len(eventsOf[ike.IKEDown](h)) != 0 || h.e.Stats().Established != 1 {
				t.Errorf("%s: %v", h.name, h.trace())
			}
		}
		p.b.do(ike.Rekey{Child: "net"})
		p.run(10 * time.Second)
		p.up()
		p.a.do(ike.Terminate{IKE: "a"})
		p.run(time.Second)
		p.down()
		if t.Failed() {
			return
		}
	}
}

func TestRFC7296_2_25_2_IKERekeyAgainstOthers(t *testing.T) {
	for name, other := range map[string]func(p *pair){
		"child rekey":  func(p *pair) { p.b.do(ike.Rekey{Child: "net"}) },
		"child delete": func(p *pair) { p.b.do(ike.Terminate{Child: "net"}) },
		"close":        func(p *pair) { p.b.do(ike.Terminate{IKE: "b"}) },
		"new child":    func(p *pair) { p.b.initiate("second") },
	} {
		t.Run(name, func(t *testing.T) {
			for range 4 {
				p := newPair(t, func(a, b *side) {
					for i, s := range []*side{a, b} {
						c := *s.child
						c.Name = "second"
						lists := [2][]ipsec.Selector{{sel("10.3.0.0/16")}, {sel("10.4.0.0/16")}}
						c.Local, c.Remote = lists[i], lists[1-i]
						s.peer.Children = append(s.peer.Children, &c)
					}
				})
				dump(t, p)
				p.a.initiate("net")
				p.run(2 * time.Second)
				p.a.do(ike.Rekey{IKE: "a"})
				other(p)
				p.run(100 * time.Second)
				switch name {
				case "child rekey":
					p.up()
					if p.a.e.Stats().RekeysIKE+p.a.e.Stats().RekeysChild != 2 {
						t.Errorf("%+v", p.a.e.Stats())
					}
				case "new child":
					p.upN(2)
				case "child delete":
					if len(p.a.plane.sas)+len(p.b.plane.sas) != 0 || len(p.a.e.SAs()) != 1 || len(p.b.e.SAs()) != 1 {
						t.Errorf("%v %v", brief(p.a.e.SAs()), brief(p.b.e.SAs()))
					}
				case "close":
					p.down()
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}

// Both sides start at once: one IKE SA and one Child SA come of it, whoever is first.
func TestBothInitiateAtOnce(t *testing.T) {
	for _, unique := range []ike.UniquePolicy{ike.UniqueNo, ike.UniqueReplace, ike.UniqueKeep, ike.UniqueNever} {
		for _, lag := range []time.Duration{0, 5 * time.Millisecond, 12 * time.Millisecond, 25 * time.Millisecond, 35 * time.Millisecond, 60 * time.Millisecond} {
			for range 4 {
				p := newPair(t, func(a, b *side) { a.peer.Unique, b.peer.Unique = unique, unique })
				dump(t, p)
				p.a.initiate("net")
				p.run(lag)
				p.b.initiate("net")
				p.run(100 * time.Millisecond)
				for range 100 {
					p.run(20 * time.Millisecond)
					p.flows()
				}
				p.run(70 * time.Second)
				p.up()
				for _, h := range []*host{p.a, p.b} {
					if d := eventsOf[ike.CommandDone](h); len(d) != 1 || d[0].Err != nil {
						t.Errorf("%s: %+v", h.name, d)
					}
				}
				if t.Failed() {
					t.Fatalf("unique %v, lag %v", unique, lag)
				}
			}
		}
	}
}

// As before with two Child SAs on each side, so that CREATE_CHILD_SA crosses too.
func TestBothInitiateTwoChildrenAtOnce(t *testing.T) {
	for i := range 30 {
		p := newPair(t, func(a, b *side) {
			for i, s := range []*side{a, b} {
				c := *s.child
				c.Name = "second"
				lists := [2][]ipsec.Selector{{sel("10.3.0.0/16")}, {sel("10.4.0.0/16")}}
				c.Local, c.Remote = lists[i], lists[1-i]
				s.peer.Children = append(s.peer.Children, &c)
			}
		})
		dump(t, p)
		for _, h := range []*host{p.a, p.b} {
			h.initiate("net")
			h.initiate("second")
			p.run(time.Duration(i) * 2 * time.Millisecond)
		}
		p.run(100 * time.Second)
		p.upN(2)
		if t.Failed() {
			return
		}
	}
}

// A lost Delete of the old Child SA is repeated; nothing is black-holed meanwhile.
func TestRFC7296_2_8_LostDelete(t *testing.T) {
	p := mustUp(t, nil)
	lost := 0
	p.filter = func(from *host, d ike.Datagram) bool {
		if header(t, d).Exchange == wire.ExchangeInformational && lost < 3 {
			lost++
			return false
		}
		return true
	}
	p.a.do(ike.Rekey{Child: "net"})
	for range 400 {
		p.run(100 * time.Millisecond)
		p.flows()
	}
	p.run(60 * time.Second)
	p.up()
}
