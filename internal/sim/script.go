package sim

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// Exec runs one command of a script:
//
//	net delay=10ms jitter=0 loss=0 dup=0 reorder=0 corrupt=0 mtu=0
//	host NAME ADDR...            a gateway
//	nat HOST ADDR|off [preserve] a NAT in front of it, also when it runs
//	address HOST ADDR...         other addresses, of which the host hears
//	engine HOST key=value...     settings of ike.Config
//	conn HOST NAME key=value...  a connection (setPeer lists the keys)
//	child HOST CONN NAME key=value...
//	psk HOST LOCAL REMOTE KEY    a shared key for two identities
//	key HOST ID KIND [TRUSTER...]   a private key (ed25519, ecdsa), and who trusts it
//	trust HOST NUMBER            an authority that CERTREQ names by that number
//	password HOST EAPID SECRET   a password for EAP
//	pool HOST NAME PREFIX        addresses for peers
//	name HOST NAME ADDR...       what a name resolves to there
//	sleep HOST                   it was suspended, and hears of it
//	boot HOST...                 starts hosts; start actions follow
//	reload HOST                  gives the engine the configuration again
//	up|down|kill-sa|rekey|reauth HOST CONN[/CHILD]
//	run DURATION
//	ping DURATION|off            traffic along every child both ways
//	send HOST CHILD              one packet
//	drop|hold|dup|corrupt FROM TO N TEXT...   the next N messages with TEXT in their summary
//	release [reversed]           lets go what is held
//	cut HOST HOST, heal
//	delay HOST compute|install-answer|ask DURATION, spread HOST DURATION
//	fail HOST compute|install|ask N, unreliable HOST KIND PROBABILITY
//	redirect HOST CONN GATEWAY   sends a peer to another gateway
//	drain HOST GATEWAY           refuses new peers, and sends them there
//	strip FROM TO N NOTIFY TEXT...   an attacker takes a notify out of the next N messages
//	ppk HOST ID SECRET           a post-quantum preshared key; a later one replaces it
//	kill HOST, restart HOST, rebind HOST, shutdown HOST
//	garbage HOST N               damaged copies of messages, random bytes
//	flood HOST N                 first messages with invented cookies from many addresses
//	forbid                       no IKE SA may come up
//	grace DURATION               how long an SA in use may lack its match
//	sas                          prints tables
//	rest DURATION [CONN[/CHILD]...]   heals, and waits until just these SAs are there
//	lossless                     stops the traffic; every packet so far must have arrived
func (w *World) Exec(line string) error {
	if i := strings.IndexByte(line, '#'); i >= 0 {
		line = line[:i]
	}
	f := strings.Fields(line)
	if len(f) == 0 {
		return nil
	}
	w.note("> %s", strings.Join(f, " "))
	for _, group := range []map[string]func([]string) error{w.topology(), w.trouble(), w.operations(), w.moves()} {
		if c := group[f[0]]; c != nil {
			var err error
			func() {
				defer func() {
					if v := recover(); v != nil {
						if _, bad := v.(argError); !bad {
							panic(v)
						}
						err = v.(argError)
					}
				}()
				err = c(f[1:])
			}()
			if err != nil {
				return fmt.Errorf("%s: %w", line, err)
			}
			return nil
		}
	}
	return fmt.Errorf("unknown command %q", f[0])
}

type argError string

// Error is the complaint.
func (e argError) Error() string { return string(e) }

func arg(a []string, i int) string {
	if i >= len(a) {
		panic(argError("argument missing"))
	}
	return a[i]
}

func duration(s string) time.Duration {
	if s == "off" || s == "0" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		panic(argError(err.Error()))
	}
	return d
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(argError(err.Error()))
	}
	return n
}

func fraction(s string) float64 {
	x, err := strconv.ParseFloat(s, 64)
	if err != nil {
		panic(argError(err.Error()))
	}
	return x
}

func address(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		panic(argError(err.Error()))
	}
	return a
}

func identity(s string) ike.Identity {
	id, err := ike.ParseIdentity(s)
	if err != nil {
		panic(argError(err.Error()))
	}
	return id
}

func (w *World) host(a []string, i int) *Host {
	h := w.Host(arg(a, i))
	if h == nil {
		panic(argError("no host " + a[i]))
	}
	return h
}

// topology holds the commands that describe hosts, network and configuration.
func (w *World) topology() map[string]func([]string) error {
	return map[string]func([]string) error{
		"net": func(a []string) error { return w.setNet(a) },
		"host": func(a []string) error {
			var addrs []netip.Addr
			for _, s := range a[1:] {
				addrs = append(addrs, address(s))
			}
			w.AddHost(arg(a, 0), addrs...)
			return nil
		},
		"nat": func(a []string) error {
			if h := w.host(a, 0); arg(a, 1) == "off" {
				h.nat = nil
			} else {
				h.nat = newNAT(address(a[1]), len(a) > 2)
			}
			w.disturb()
			return nil
		},
		"address": func(a []string) error {
			h := w.host(a, 0)
			h.addrs = nil
			for i := 1; i < len(a); i++ {
				h.addrs = append(h.addrs, address(a[i]))
			}
			w.disturb()
			h.Do(ike.AddressesChanged{Own: h.addrs, Links: true})
			return nil
		},
		"sleep": func(a []string) error {
			h := w.host(a, 0)
			h.Do(ike.AddressesChanged{Own: h.addrs, Slept: true})
			return nil
		},
		"engine": func(a []string) error { return w.host(a, 0).setEngine(a[1:]) },
		"conn":   func(a []string) error { return w.host(a, 0).setPeer(arg(a, 1), a[2:]) },
		"child":  func(a []string) error { return w.host(a, 0).setChild(arg(a, 1), arg(a, 2), a[3:]) },
		"psk": func(a []string) error {
			h := w.host(a, 0)
			h.psks = append(h.psks, psk{identity(arg(a, 1)), identity(arg(a, 2)), arg(a, 3)})
			return nil
		},
		"key": func(a []string) error {
			var trusters []*Host
			for i := 3; i < len(a); i++ {
				trusters = append(trusters, w.host(a, i))
			}
			return w.host(a, 0).addKey(identity(arg(a, 1)), arg(a, 2), trusters)
		},
		"trust": func(a []string) error {
			h := w.host(a, 0)
			h.trust = append(h.trust, [20]byte{byte(number(arg(a, 1)))})
			return nil
		},
		"password": func(a []string) error { w.host(a, 0).creds.passwords[arg(a, 1)] = arg(a, 2); return nil },
		"pool": func(a []string) error {
			p, err := netip.ParsePrefix(arg(a, 2))
			w.host(a, 0).creds.pools[arg(a, 1)] = p
			return err
		},
		"name": func(a []string) error {
			h := w.host(a, 0)
			h.names[arg(a, 1)] = nil
			for _, s := range a[2:] {
				h.names[a[1]] = append(h.names[a[1]], address(s))
			}
			return nil
		},
		"boot": func(a []string) error {
			w.AddFlows()
			for i := range a {
				w.host(a, i).Boot()
			}
			return nil
		},
		"reload": func(a []string) error { w.host(a, 0).Load(); return nil },
		"grace":  func(a []string) error { w.grace = duration(arg(a, 0)); return nil },
		"forbid": func([]string) error { w.forbid = true; return nil },
	}
}

// trouble holds the commands that make the world worse, and the one that heals it.
func (w *World) trouble() map[string]func([]string) error {
	onMessages := func(do string) func(a []string) error {
		return func(a []string) error {
			text := strings.Join(a[min(3, len(a)):], " ")
			w.rules = append(w.rules, &rule{from: w.Host(arg(a, 0)), to: w.Host(arg(a, 1)), left: number(arg(a, 2)), text: text, do: do})
			return nil
		}
	}
	return map[string]func([]string) error{
		"drop": onMessages("drop"), "hold": onMessages("hold"), "dup": onMessages("dup"), "corrupt": onMessages("corrupt"),
		"release": func(a []string) error {
			held := w.held
			w.held = nil
			for i := range held {
				p := held[i]
				if len(a) > 0 {
					p = held[len(held)-1-i]
				}
				w.after(w.net.Delay, func() { w.deliver(p) })
			}
			return nil
		},
		"cut": func(a []string) error {
			x, y := w.host(a, 0), w.host(a, 1)
			w.cut[[2]*Host{x, y}], w.cut[[2]*Host{y, x}] = true, true
			w.disturb()
			return nil
		},
		"heal":  func([]string) error { w.Heal(); return nil },
		"delay": func(a []string) error { w.host(a, 0).delays[arg(a, 1)] = duration(arg(a, 2)); return nil },
		"spread": func(a []string) error {
			w.host(a, 0).spread = duration(arg(a, 1))
			return nil
		},
		"fail": func(a []string) error { w.host(a, 0).fails[arg(a, 1)] += number(arg(a, 2)); return nil },
		"unreliable": func(a []string) error {
			w.host(a, 0).noise[arg(a, 1)] = fraction(arg(a, 2))
			return nil
		},
		"kill": func(a []string) error { w.host(a, 0).Kill(); return nil },
		"restart": func(a []string) error {
			h := w.host(a, 0)
			h.Kill()
			h.Boot()
			return nil
		},
		"rebind": func(a []string) error {
			w.host(a, 0).nat.rebind()
			w.disturb()
			return nil
		},
		"garbage": func(a []string) error { w.garbage(w.host(a, 0), number(arg(a, 1))); return nil },
		"flood":   func(a []string) error { return w.flood(w.host(a, 0), number(arg(a, 1))) },
	}
}

// operations holds what operators do, and the passing of time.
func (w *World) operations() map[string]func([]string) error {
	return map[string]func([]string) error{
		"run":  func(a []string) error { w.Run(duration(arg(a, 0)), nil); return nil },
		"ping": func(a []string) error { w.Ping(duration(arg(a, 0))); return nil },
		"send": func(a []string) error {
			h := w.host(a, 0)
			for _, f := range w.flows {
				for side := range 2 {
					if f.name == arg(a, 1) && f.hosts[side] == h {
						w.probe(f, side)
						return nil
					}
				}
			}
			return fmt.Errorf("no flow %s", a[1])
		},
		"up": func(a []string) error {
			h := w.host(a, 0)
			conn, child, _ := strings.Cut(arg(a, 1), "/")
			p := h.peer(conn)
			if p == nil {
				return fmt.Errorf("no connection %s", conn)
			}
			h.Do(ike.Initiate{ID: h.commandID("up " + a[1]), Peer: p, Child: child})
			return nil
		},
		"down":    func(a []string) error { return w.terminate(a, false) },
		"kill-sa": func(a []string) error { return w.terminate(a, true) },
		"rekey": func(a []string) error {
			h := w.host(a, 0)
			conn, child, _ := strings.Cut(arg(a, 1), "/")
			h.Do(ike.Rekey{ID: h.commandID("rekey " + a[1]), IKE: conn, Child: child})
			return nil
		},
		"reauth": func(a []string) error {
			h := w.host(a, 0)
			h.Do(ike.Rekey{ID: h.commandID("reauth " + arg(a, 1)), IKE: a[1], Reauth: true})
			return nil
		},
		"shutdown": func(a []string) error { w.host(a, 0).Do(ike.Shutdown{Grace: 3 * time.Second}); return nil },
		"sas":      func([]string) error { w.printSAs(); return nil },
		"rest": func(a []string) error {
			w.Quiesce(a[1:], duration(arg(a, 0)))
			return nil
		},
		"lossless": func([]string) error {
			w.Ping(0)
			w.Run(time.Second, nil)
			w.checkLosses()
			for _, f := range w.flows {
				if f.lost != [2]int{} || f.sent != f.came {
					w.violate("lossless", "%s: %v packets sent, %v arrived, %v lost", f.name, f.sent, f.came, f.lost)
				}
				w.tracef("%s: %v packets sent, %v arrived", f.name, f.sent, f.came)
			}
			return nil
		},
	}
}

func (h *Host) commandID(what string) ike.CommandID {
	if h.engine == nil {
		return 0
	}
	h.command++
	h.waiting[h.command] = what
	return h.command
}

func (h *Host) peer(name string) *ike.Peer {
	for _, p := range h.peers {
		if p.Name == name {
			return p
		}
	}
	return nil
}

func (w *World) terminate(a []string, force bool) error {
	h := w.host(a, 0)
	conn, child, _ := strings.Cut(arg(a, 1), "/")
	h.Do(ike.Terminate{ID: h.commandID("down " + a[1]), IKE: conn, Child: child, Force: force})
	return nil
}

func (w *World) printSAs() {
	for _, h := range w.hosts {
		if h.engine == nil {
			w.tracef("%s: is down", h.Name)
			continue
		}
		sas := h.engine.SAs()
		if len(sas) == 0 {
			w.tracef("%s: no IKE SA", h.Name)
		}
		for _, sa := range sas {
			w.tracef("%s: %s[%d] %s %s, %s...%s", h.Name, sa.Name, sa.ID, sa.State, role(sa), sa.Local, sa.Remote)
			for _, c := range sa.Children {
				w.tracef("%s:   %s{%d} %s in %s out %s, %s === %s", h.Name, c.Name, c.ID, c.State, w.tap.spi(c.SPIIn), w.tap.spi(c.SPIOut), list(c.LocalTS), list(c.RemoteTS))
			}
		}
	}
}

// garbage sends a host damaged messages of its IKE SAs and random bytes.
func (w *World) garbage(h *Host, n int) {
	if h.engine == nil {
		return
	}
	var peer *Host
	for _, x := range w.hosts {
		if x != h {
			peer = x
		}
	}
	sas := h.engine.SAs()
	for i := range n {
		data := make([]byte, 28+w.rng.IntN(200))
		for j := range data {
			data[j] = byte(w.rng.Uint32())
		}
		if len(sas) > 0 {
			sa := sas[i%len(sas)]
			flags := wire.Flags(w.rng.IntN(256)) &^ wire.FlagInitiator
			if !sa.Initiator {
				flags |= wire.FlagInitiator
			}
			hd := wire.Header{SPIi: sa.SPIi, SPIr: sa.SPIr, NextPayload: wire.PayloadSK, Version: wire.IKEv2, Exchange: wire.ExchangeIKEAuth + wire.ExchangeType(w.rng.IntN(3)),
				Flags: flags, MessageID: uint32(w.rng.IntN(4)), Length: uint32(len(data))}
			copy(data, hd.Append(nil))
			if len(data) > 36 { // an SK payload that fills the message
				data[28], data[29], data[30], data[31] = byte(w.rng.IntN(50)), 0, byte((len(data)-28)>>8), byte(len(data)-28)
			}
		}
		src := netip.AddrPortFrom(peer.addrs[0], 4500)
		p := &packet{from: peer, to: h, src: src, dst: netip.AddrPortFrom(h.addrs[0], 4500), data: data, forged: true, text: "garbage"}
		w.after(w.span(50*time.Millisecond), func() { w.deliver(p) })
	}
}

// flood sends copies of the last first message with other SPIs, from invented
// addresses, with invented cookies. None may be taken for genuine.
func (w *World) flood(h *Host, n int) error {
	if h.lastInit == nil || h.engine == nil {
		return nil // nothing to copy, nobody to flood
	}
	m, err := wire.ParseMessage(h.lastInit.data)
	if err != nil {
		return err
	}
	before := h.engine.Stats().HalfOpen
	for i := range n {
		hd := m.Header
		hd.SPIi = w.rng.Uint64() | 1
		cookie := make([]byte, 21)
		for j := range cookie {
			cookie[j] = byte(w.rng.Uint32())
		}
		cookie[0] = 1
		var list []wire.Payload
		list = append(list, &wire.Notify{NotifyType: wire.Cookie, Data: cookie})
		for _, p := range m.Payloads {
			if c, ok := p.(*wire.Notify); !ok || c.NotifyType != wire.Cookie {
				list = append(list, p)
			}
		}
		p := &packet{from: h.lastInit.from, to: h, src: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 500), dst: h.lastInit.dst,
			data: wire.AppendMessage(nil, hd, list), forged: true, text: "flood"}
		w.deliver(p)
	}
	s := h.engine.Stats()
	w.tracef("%s: after the flood %d half-open, %d cookies demanded", h.Name, s.HalfOpen, s.Cookies)
	limit := h.config.CookieThreshold
	if limit == 0 {
		limit = 30 // the engine's default
	}
	if s.HalfOpen > max(before, limit) {
		w.violate("cookies", "%s: %d half-open IKE SAs from a flood without cookies, threshold is %d", h.Name, s.HalfOpen, limit)
	}
	return nil
}

func (w *World) setNet(a []string) error {
	for _, kv := range a {
		k, v, _ := strings.Cut(kv, "=")
		switch k {
		case "delay":
			w.net.Delay = duration(v)
		case "jitter":
			w.net.Jitter = duration(v)
		case "loss":
			w.net.Loss = fraction(v)
		case "dup":
			w.net.Dup = fraction(v)
		case "reorder":
			w.net.Reorder = fraction(v)
		case "corrupt":
			w.net.Corrupt = fraction(v)
		case "mtu":
			w.net.MTU = number(v)
		default:
			return fmt.Errorf("unknown setting %q", k)
		}
	}
	return nil
}

func proposals(p suite.Protocol, v string) []suite.Proposal {
	list, err := suite.ParseProposals(p, strings.Split(v, ","))
	if err != nil {
		panic(argError(err.Error()))
	}
	return list
}

func selectors(v string) (out []ipsec.Selector) {
	for _, s := range strings.Split(v, ",") {
		sel, err := ipsec.ParseSelector(s)
		if err != nil {
			panic(argError(err.Error()))
		}
		out = append(out, sel)
	}
	return out
}
