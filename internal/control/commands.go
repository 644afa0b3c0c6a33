package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/internal/gateway"
	"adit/vici"
)

func addCounters(m *conf.Section, counters map[string]uint64) {
	for _, name := range slices.Sorted(maps.Keys(counters)) {
		m.Setf(name, "%d", counters[name])
	}
}

// timed gives an action strongSwan's timeout: 0 waits for the end, a positive
// number that many milliseconds, a negative one not at all.
func timed(ctx context.Context, req *vici.Request) (_ context.Context, cancel func(), ms int) {
	ms, _ = strconv.Atoi(req.Msg.Text("timeout"))
	if ms > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
		return ctx, cancel, ms
	}
	return ctx, func() {}, ms
}

// limitFollow is how many log lines wait for a client that reads slowly; more are lost to it.
const limitFollow = 256

// follow streams the log lines of an action to the client that asked for it.
// concerns says which lines those are. Events come on the gateway's thread, which
// must not wait for a client: a thread of the action's own writes them.
func (c *controller) follow(req *vici.Request, concerns func(gateway.Record) bool) (stop func()) {
	level := 1 // what is usual; -1 is silent, 4 has everything
	if n, err := strconv.Atoi(req.Msg.Text("loglevel")); err == nil {
		level = n
	}
	lines := make(chan gateway.Record, limitFollow)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for r := range lines {
			if req.Emit("control-log", recordBody(r)) != nil {
				return // the client is gone; the action goes on
			}
		}
	}()
	var mu sync.Mutex
	closed := false
	cancel := c.g.Subscribe(func(e ike.Event) {
		r, ok := gateway.Describe(e)
		if !ok || r.Level > level || !concerns(r) {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if closed {
			return
		}
		select {
		case lines <- r:
		default:
		}
	})
	return func() {
		cancel()
		mu.Lock()
		closed = true
		close(lines)
		mu.Unlock()
		<-done
	}
}

func (c *controller) initiate(ctx context.Context, req *vici.Request) (*conf.Section, error) {
	child, conn := req.Msg.Text("child"), req.Msg.Text("ike")
	if child == "" && conn == "" {
		return reply(errors.New("missing configuration name")), nil
	}
	kind, name := "CHILD_SA", child
	if child == "" {
		kind, name = "IKE_SA", conn
	}
	if req.Msg.Text("init-limits") == "yes" && c.g.HalfOpenLimited(ctx) {
		return reply(fmt.Errorf("establishing %s '%s' not possible at the moment due to limits", kind, name)), nil
	}
	ctx, cancel, ms := timed(ctx, req)
	defer cancel()
	if ms < 0 && !slices.ContainsFunc(c.g.Conns(), func(p *ike.Peer) bool {
		return (conn == "" || p.Name == conn) && (child == "" || p.Child(child) != nil)
	}) {
		return reply(fmt.Errorf("%s config '%s' not found", kind, name)), nil
	}
	if ms < 0 {
		go func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			_ = c.g.Initiate(ctx, conn, child) // the outcome is in the log
		}()
		return reply(nil), nil
	}
	owner := conn
	if owner == "" {
		owner = c.connOf(child)
	}
	defer c.follow(req, func(r gateway.Record) bool { return r.Name == owner || r.Name == "" })()
	err := c.g.Initiate(ctx, conn, child)
	switch {
	case err == nil:
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("%s '%s' not established after %dms", kind, name, ms)
	case errors.Is(err, gateway.ErrNotFound):
		err = fmt.Errorf("%s config '%s' not found", kind, name)
	default:
		err = fmt.Errorf("establishing %s '%s' failed: %w", kind, name, err)
	}
	return reply(err), nil
}

func (c *controller) connOf(child string) string {
	for _, p := range c.g.Conns() {
		if p.Child(child) != nil {
			return p.Name
		}
	}
	return ""
}

func (c *controller) terminate(ctx context.Context, req *vici.Request) (*conf.Section, error) {
	m := req.Msg
	t := ike.Terminate{IKE: m.Text("ike"), Child: m.Text("child"), IKEID: number(m, "ike-id"), ChildID: number(m, "child-id"),
		Force: m.Text("force") == "yes"}
	if t.IKE == "" && t.Child == "" && t.IKEID == 0 && t.ChildID == 0 {
		return reply(errors.New("missing terminate selector")), nil
	}
	ctx, cancel, ms := timed(ctx, req)
	defer cancel()
	defer c.follow(req, func(r gateway.Record) bool {
		return (t.IKE == "" || r.Name == t.IKE) && (t.IKEID == 0 || r.ID == t.IKEID)
	})()
	matched, err := c.matches(ctx, t)
	none := errors.New("no matching SAs to terminate found")
	switch {
	case err != nil:
		return terminated(matched, 0, err), nil
	case ms < 0 && matched > 0:
		go func() { _, _ = c.g.Terminate(context.WithoutCancel(ctx), t) }() // the outcome is in the log
		return terminated(matched, matched, nil), nil
	}
	done, err := c.close(ctx, t, ms)
	switch {
	case err == nil && done == 0:
		matched, err = 0, none
	case !errors.Is(err, context.DeadlineExceeded):
		matched = max(matched, done)
	case matched == 1:
		err = errors.New("terminating SA failed")
	default:
		err = errors.New("not all matching SAs could be terminated")
	}
	return terminated(matched, done, err), nil
}

// forceGrace is how long closing without the peer's answer may take.
const forceGrace = 5 * time.Second

// close closes what t selects. Without any SA it does so, too: an initiation may wait to
// be tried again. With force and a timeout the peer has that long to answer; only then it
// is done without.
func (c *controller) close(ctx context.Context, t ike.Terminate, ms int) (done int, err error) {
	force := t.Force && t.Child == "" && t.ChildID == 0 // it means IKE SAs only
	if ms > 0 {
		t.Force = false
	}
	done, err = c.g.Terminate(ctx, t)
	if force && ms > 0 && errors.Is(err, context.DeadlineExceeded) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forceGrace)
		defer cancel()
		t.Force = true
		done, err = c.g.Terminate(ctx, t)
	}
	return done, err
}

func terminated(matched, done int, err error) *conf.Section {
	out := conf.New("")
	out.Set("success", map[bool]string{true: "yes", false: "no"}[err == nil])
	out.Setf("matches", "%d", matched)
	out.Setf("terminated", "%d", done)
	if err != nil {
		out.Set("errmsg", oneLine(err.Error()))
	}
	return out
}

// matches counts the SAs that t selects.
func (c *controller) matches(ctx context.Context, t ike.Terminate) (n int, err error) {
	err = c.g.EachSA(ctx, gateway.Listed{Name: t.IKE, ID: t.IKEID}, func(sa ike.SAInfo) error {
		if t.Child == "" && t.ChildID == 0 {
			n++
		} else {
			for _, ch := range sa.Children {
				if (t.Child == "" || t.Child == ch.Name) && (t.ChildID == 0 || t.ChildID == ch.ID) {
					n++
				}
			}
		}
		return nil
	})
	return n, err
}

func (c *controller) rekey(ctx context.Context, req *vici.Request) (*conf.Section, error) {
	m := req.Msg
	r := ike.Rekey{IKE: m.Text("ike"), Child: m.Text("child"), IKEID: number(m, "ike-id"), ChildID: number(m, "child-id"),
		Reauth: m.Text("reauth") == "yes"}
	if r.IKE == "" && r.Child == "" && r.IKEID == 0 && r.ChildID == 0 {
		return reply(errors.New("missing rekey selector")), nil
	}
	matched, err := c.g.Rekey(ctx, r)
	if err == nil && matched == 0 {
		err = errors.New("no matching SAs to rekey found")
	}
	out := conf.New("") // the count stands before the error's text
	out.Set("success", map[bool]string{true: "yes", false: "no"}[err == nil])
	out.Setf("matches", "%d", matched)
	if err != nil {
		out.Set("errmsg", oneLine(err.Error()))
	}
	return out, nil
}

// loadConn loads all connections of the message, or with one wrong value none of them.
func (c *controller) loadConn(_ context.Context, req *vici.Request) (*conf.Section, error) {
	var peers []*ike.Peer
	for body := range req.Msg.Sections() {
		p, err := c.opt.Decode.Conn(body.Name, body)
		if err != nil {
			return reply(err), nil // swanctl says which connection it was loading
		}
		peers = append(peers, p)
	}
	return reply(c.g.LoadConns(peers)), nil
}

func (c *controller) unloadConn(_ context.Context, req *vici.Request) (*conf.Section, error) {
	name := req.Msg.Text("name")
	if name == "" {
		return reply(errors.New("unload: missing connection name")), nil
	}
	err := c.g.UnloadConn(name)
	if errors.Is(err, gateway.ErrNotFound) {
		err = fmt.Errorf("unload: connection '%s' not found", name)
	}
	return reply(err), nil
}
