package control

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"

	"adit/conf"
	"adit/ike"
	"adit/ike/wire"
	"adit/vici"
)

// counter is one of strongSwan's counters of IKE events, in its order.
type counter int

const (
	countRekeyInit counter = iota
	countRekeyResp
	countChildRekey
	countInvalid
	countInvalidSPI
	countInit // and the next three: responses in, requests out, responses out
)

const (
	countAuth  = countInit + 4
	countChild = countAuth + 4
	countInfo  = countChild + 4
	counterMax = countInfo + 4
)

var counterNames = [counterMax]string{"ike-rekey-init", "ike-rekey-resp", "child-rekey", "invalid", "invalid-spi",
	"ike-init-in-req", "ike-init-in-resp", "ike-init-out-req", "ike-init-out-resp",
	"ike-auth-in-req", "ike-auth-in-resp", "ike-auth-out-req", "ike-auth-out-resp",
	"create-child-in-req", "create-child-in-resp", "create-child-out-req", "create-child-out-resp",
	"info-in-req", "info-in-resp", "info-out-req", "info-out-resp"}

// limitCounted bounds the connections that are counted apart; what happens to more of
// them is in the global counters only. A connection has counters once something has
// happened to it, and keeps them when it is unloaded, until they are reset.
const limitCounted = 65536

// counters count what the engine tells, in all and by connection.
type counters struct {
	mu    sync.Mutex
	all   [counterMax]uint64
	conns map[string]*[counterMax]uint64
}

// take counts an event. It is called on the gateway's thread.
func (n *counters) take(e ike.Event) {
	switch e := e.(type) {
	case ike.Message:
		if c, ok := messageCounter(e); ok {
			n.add(c, e.Name, 1)
		}
	case ike.IKERekeyed:
		if e.New.Initiator {
			n.add(countRekeyInit, e.Old.Name, 1)
		} else {
			n.add(countRekeyResp, e.Old.Name, 1)
		}
	case ike.ChildRekeyed:
		n.add(countChildRekey, e.SA.Name, 1)
	case ike.Dropped:
		switch e.Reason {
		case ike.DropUnknownSPI:
			n.add(countInvalidSPI, "", e.Count)
		case ike.DropMalformed, ike.DropIntegrity, ike.DropUnprotected, ike.DropVersion:
			n.add(countInvalid, "", e.Count)
		}
	case *ike.Rejection:
		if !e.ByPeer && (e.Reason == ike.ReasonSyntax || e.Reason == ike.ReasonCritical) {
			n.add(countInvalid, e.Name, 1)
		}
	}
}

// messageCounter is the counter of a message: each is counted once, however many
// fragments it has and however often it is repeated.
func messageCounter(m ike.Message) (counter, bool) {
	if !m.Whole || m.Retransmit > 0 {
		return 0, false
	}
	c, ok := map[wire.ExchangeType]counter{wire.ExchangeIKESAInit: countInit, wire.ExchangeIKEAuth: countAuth,
		wire.ExchangeCreateChildSA: countChild, wire.ExchangeInformational: countInfo}[m.Exchange]
	if m.Out {
		c += 2
	}
	if m.Response {
		c++
	}
	return c, ok
}

func (n *counters) add(c counter, conn string, times uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all[c] += times
	if conn == "" {
		return
	}
	of := n.conns[conn]
	if of == nil {
		if len(n.conns) >= limitCounted {
			return
		}
		if n.conns == nil {
			n.conns = map[string]*[counterMax]uint64{}
		}
		of = new([counterMax]uint64)
		n.conns[conn] = of
	}
	of[c] += times
}

// read is a copy of the counters of a connection, or the global ones.
func (n *counters) read(conn string) ([counterMax]uint64, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if conn == "" {
		return n.all, true
	}
	if of := n.conns[conn]; of != nil {
		return *of, true
	}
	return [counterMax]uint64{}, false
}

func (n *counters) names() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.conns))
}

// reset forgets the counters of a connection, or zeroes the global ones.
func (n *counters) reset(conn string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if conn == "" {
		n.all = [counterMax]uint64{}
	}
	delete(n.conns, conn)
}

func (n *counters) resetAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = nil // not the global ones, as in strongSwan
}

func (c *controller) getCounters(_ context.Context, req *vici.Request) (*conf.Section, error) {
	m := conf.New("")
	list := m.Add("counters")
	add := func(conn string) bool {
		values, ok := c.counted.read(conn)
		if ok {
			s := list.Add(conn)
			for i, v := range values {
				s.Set(counterNames[i], strconv.FormatUint(v, 10))
			}
		}
		return ok
	}
	var err error
	if req.Msg.Text("all") == "yes" {
		for _, conn := range c.counted.names() {
			add(conn)
		}
	} else if !add(req.Msg.Text("name")) {
		err = errors.New("no counters found for this connection")
	}
	for v := range reply(err).Values() {
		m.SetValue(v)
	}
	return m, nil
}

func (c *controller) resetCounters(_ context.Context, req *vici.Request) (*conf.Section, error) {
	if req.Msg.Text("all") == "yes" {
		c.counted.resetAll()
	} else {
		c.counted.reset(req.Msg.Text("name"))
	}
	return reply(nil), nil
}
