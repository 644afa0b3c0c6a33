package sim

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/ikev1"
	"adit/ike/ikev2"
	"adit/ipsec"
	"adit/suite"
)

// errScripted is what a step fails with that a script made fail.
var errScripted = errors.New("made to fail")

// Host is one gateway: an engine, and a model of what the driver does for it.
type Host struct {
	Name  string
	w     *World
	index int
	addrs []netip.Addr
	nat   *NAT

	// Configuration; kept over restarts.
	config ike.Config
	peers  []*ike.Peer
	psks   []psk
	ppks   map[string]string
	creds  *credentials
	trust  [][20]byte
	names  map[string][]netip.Addr

	engine *ike.Engine // nil: the host is down
	life   int         // counts restarts: what belongs to an earlier life is dropped
	plane  *plane
	wakeAt time.Time
	outbox []ike.Datagram
	ups    balance

	// What the script does to jobs.
	delays map[string]time.Duration // by compute, install, ask; spread is at random
	spread time.Duration
	fails  map[string]int
	noise  map[string]float64 // of failing

	lastInit *packet // the last IKE_SA_INIT request that came, for floods
	command  ike.CommandID
	waiting  map[ike.CommandID]string
}

type psk struct {
	local, remote ike.Identity
	key           string
}

// AddHost makes a host with its addresses; Boot starts it.
func (w *World) AddHost(name string, addrs ...netip.Addr) *Host {
	h := &Host{Name: name, w: w, index: len(w.hosts), addrs: addrs, names: map[string][]netip.Addr{}, creds: newCredentials(),
		delays: map[string]time.Duration{}, fails: map[string]int{}, noise: map[string]float64{}, waiting: map[ike.CommandID]string{}}
	h.config = ike.Config{Node: uint8(len(w.hosts) + 1), UnsafeExportKeys: true}
	w.hosts = append(w.hosts, h)
	return h
}

func (h *Host) has(a netip.Addr) bool { return slices.Contains(h.addrs, a) }

// Boot starts the host with nothing but its configuration, also after a kill.
func (h *Host) Boot() {
	h.life++
	h.wakeAt = time.Time{}
	h.ups = newBalance()
	h.plane = newPlane(h)
	before := h.creds.proved
	if h.creds.reborn(); h.config.ResumeSessions && before != nil {
		h.creds.proved = before // a ticket tells the next life of it
	}
	h.config.Peers = nil
	h.engine = ike.New(h.config, ikev2.Version, ikev1.Version)
	h.w.disturb()
	h.engine.Do(h.w.now, ike.AddressesChanged{Own: h.addrs})
	h.Load()
}

// Kill ends the host without a word.
func (h *Host) Kill() {
	h.life++
	h.engine = nil
	h.plane = nil
	h.ups = newBalance()
	h.outbox = nil
	h.w.disturb()
}

// Load gives the engine the configuration and does what it says on loading.
func (h *Host) Load() {
	h.input("load", func(now time.Time) { h.engine.Do(now, ike.Reload{Peers: slices.Clone(h.peers)}) })
	if h.trust != nil {
		h.engine.Do(h.w.now, ike.Trust{Authorities: h.trust})
	}
	h.plane.setTraps(h.peers)
	for _, p := range h.peers {
		for _, c := range p.Children {
			if c.Starts() {
				h.Do(ike.Initiate{Peer: p, Child: c.Name})
			}
		}
	}
}

// Do gives the engine a command.
func (h *Host) Do(c ike.Command) {
	if h.engine == nil {
		return
	}
	h.input("command", func(now time.Time) { h.engine.Do(now, c) })
}

// input runs one input of the engine and applies what comes of it.
func (h *Host) input(what string, f func(now time.Time)) {
	h.w.note("%s < %s", h.Name, what)
	f(h.w.now)
	h.drain()
	h.arm()
	h.checkTables()
	h.checkCredentials()
}

func (h *Host) drain() {
	for {
		list := h.engine.Take()
		if len(list) == 0 {
			break
		}
		for _, f := range list {
			h.apply(f)
		}
	}
	out := h.outbox
	h.outbox = nil
	for _, d := range out {
		p := &packet{from: h, src: d.Local, dst: d.Remote, data: slices.Clone(d.Data)}
		if len(d.Data) == 1 {
			p.text = "keepalive"
		} else {
			p.text = h.w.tap.sent(h, d)
		}
		h.w.transmit(p)
	}
}

// arm plans the engine's next wake.
func (h *Host) arm() {
	next := h.engine.NextWake()
	if next.Equal(h.wakeAt) || next.IsZero() {
		h.wakeAt = next
		return
	}
	h.wakeAt = next
	life := h.life
	h.w.after(next.Sub(h.w.now), func() {
		if h.life == life && h.wakeAt.Equal(next) {
			h.wakeAt = time.Time{}
			h.input("wake", func(now time.Time) { h.engine.Wake(now) })
		}
	})
}

// later answers a job after a delay, unless the host died meanwhile.
func (h *Host) later(kind string, job ike.JobID, answer func() (any, error)) {
	d := h.delays[kind]
	if h.spread > 0 && kind != "query" {
		d += h.w.span(h.spread)
	}
	fail := h.w.chance(h.noise[kind])
	if h.fails[kind] > 0 {
		h.fails[kind]--
		fail = true
	}
	life := h.life
	h.w.after(d, func() {
		if h.life != life {
			return
		}
		r := ike.Result{Job: job, Err: errScripted}
		if !fail {
			r.Value, r.Err = answer()
		}
		h.input("done "+kind, func(now time.Time) { h.engine.Done(now, r) })
	})
}

// apply does what the gateway does with an effect.
func (h *Host) apply(f ike.Effect) {
	switch f := f.(type) {
	case ike.Send:
		h.outbox = append(h.outbox, f.Datagram)
	case ike.InstallChild:
		h.install(f)
	case ike.ActivateChild:
		for _, p := range f.Policies {
			h.w.tracef("%s: outbound traffic of %s now by %s", h.Name, p.Name, h.plane.label(p.Out))
			h.plane.addPolicy(p)
		}
	case ike.RemoveChild:
		h.w.tracef("%s: remove %s%s", h.Name, h.plane.pair(f.Child), map[bool]string{true: " and its policy"}[len(f.Policies) > 0])
		h.plane.remove(f.Child, f.Policies)
	case ike.UpdateChild:
		h.w.tracef("%s: move %s to %s > %s", h.Name, h.plane.pair(f.Child), f.Update.Local, f.Update.Remote)
		h.plane.update(f.Child, f.Update)
	case ike.QueryChild:
		h.later("query", f.Job, func() (any, error) { return h.plane.stats(f.Child), nil })
	case ike.Compute:
		h.later("compute", f.Job, func() (any, error) { return f.Run(), nil })
	case ike.Ask:
		h.later("ask", f.Job, func() (any, error) { return h.answer(f.Question) })
	case ike.Emit:
		h.event(f.Event)
	case ike.EndEAP, ike.ReleaseLease, ike.UndoAddresses:
		h.release(f)
	case ike.ExportKeys:
		if f.IKE != nil {
			h.w.tap.learn(f.IKE)
		}
	default:
		h.w.violate("contract", "%s: unknown effect %T", h.Name, f)
	}
}

func (h *Host) install(f ike.InstallChild) {
	fail := h.w.chance(h.noise["install"])
	if h.fails["install"] > 0 {
		h.fails["install"]--
		fail = true
	}
	var err error
	if fail {
		err = errScripted
	} else {
		err = h.plane.install(f)
	}
	if err != nil {
		h.w.tracef("%s: install refused: %v", h.Name, err)
		f.In.EncKey.Zero()
		f.Out.EncKey.Zero()
	} else {
		h.w.tracef("%s: install %s%s", h.Name, h.plane.pair(f.In.Ref.Child), map[bool]string{false: ", inbound only in use", true: ""}[f.Activate])
	}
	h.later("install-answer", f.Job, func() (any, error) { return nil, err })
}

// answer answers a question from the host's tables.
func (h *Host) answer(q ike.Question) (any, error) {
	switch q := q.(type) {
	case ike.PSKLookup:
		var keys []suite.Key
		for _, p := range h.psks {
			if q.LocalID.Match(p.local) > 0 && q.RemoteID.Match(p.remote) > 0 {
				keys = append(keys, suite.Key(p.key))
			}
		}
		return keys, nil
	case ike.PPKLookup:
		return suite.Key(h.ppks[q.ID]), nil
	case ike.Resolve:
		var out []netip.Addr
		for _, n := range q.Hosts {
			out = append(out, h.names[n]...)
		}
		if len(out) == 0 {
			return nil, fmt.Errorf("no such name")
		}
		return out, nil
	case ike.Paths:
		list := make([]netip.Addr, len(q.Remotes))
		for i, r := range q.Remotes {
			for _, a := range h.addrs {
				if a.Is4() == r.Is4() && !list[i].IsValid() {
					list[i] = a
				}
			}
		}
		return list, nil
	case ike.SourceAddress:
		for _, a := range h.addrs {
			if a.Is4() == q.Remote.Is4() {
				return a, nil
			}
		}
		return netip.Addr{}, nil
	}
	if v, err, known := h.prove(q); known {
		return v, err
	}
	h.w.violate("contract", "%s: unknown question %T", h.Name, q)
	return nil, errScripted
}

// receive takes a datagram from the network.
func (h *Host) receive(p *packet) {
	if p.esp {
		h.plane.input(p)
		return
	}
	if len(p.data) == 1 {
		return // the driver takes NAT keepalives (RFC 3948 §2.3)
	}
	h.w.tap.received(h, p)
	var before string
	garbage := (p.corrupted || p.forged) && authenticated(p.data)
	if garbage {
		before = fingerprint(h.engine)
	}
	h.input("datagram", func(now time.Time) {
		h.engine.Datagram(now, ike.Datagram{Local: p.dst, Remote: p.src, Data: p.data})
	})
	if garbage {
		if now := fingerprint(h.engine); now != before {
			h.w.violate("unauthenticated input", "%s: a damaged message changed state\nbefore %s\nafter  %s", h.Name, before, now)
		}
	}
}

// dataplane tells the engine of something in the data plane, in an event of its own.
func (h *Host) dataplane(ev ipsec.Event) {
	life := h.life
	h.w.after(0, func() {
		if h.life == life {
			h.input("dataplane", func(now time.Time) { h.engine.Dataplane(now, ev) })
		}
	})
}
