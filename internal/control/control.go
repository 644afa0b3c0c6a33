package control

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"adit/conf"
	"adit/ike"
	"adit/internal/acme"
	"adit/internal/config"
	"adit/internal/gateway"
	"adit/internal/logging"
	"adit/vici"
)

// Options complete a gateway with what only the program knows.
type Options struct {
	Version string
	// Reload reads the configuration file again; nil where there is none.
	Reload func() error
	// Counters are the data plane's drop counters by reason; may be nil.
	Counters func() map[string]uint64
	// Logs is the program's log; nil where it has none of its own.
	Logs *logging.Hub
	// ConfigFile is the file that the program loads; empty: none.
	ConfigFile string
	// ACME keeps the certificates of adit.acme; may be nil.
	ACME *acme.Keeper
	// Decode knows the defaults of strongswan.conf for what VICI loads.
	Decode Decoder
}

// Decoder turns VICI bodies into connections and secrets.
type Decoder struct {
	Conn   func(name string, body *conf.Section) (*ike.Peer, error)
	Secret func(body *conf.Section) (config.Secret, error)
}

type controller struct {
	g   *gateway.Gateway
	srv *vici.Server
	opt Options

	counted counters
}

// Register makes the server answer for the gateway. The returned function ends
// the publishing of events.
func Register(srv *vici.Server, g *gateway.Gateway, o Options) (stop func()) {
	c := &controller{g: g, srv: srv, opt: o}
	for name, f := range map[string]func(context.Context, *vici.Request) (*conf.Section, error){
		"version": c.version, "stats": c.stats, "reload-settings": c.reloadSettings,
		"initiate": c.initiate, "terminate": c.terminate, "rekey": c.rekey, "redirect": c.redirect,
		"drain": c.drain, "undrain": c.undrain, "drain-state": c.drainState,
		"install": c.install, "uninstall": c.uninstall, "list-policies": c.listPolicies,
		"get-algorithms": c.getAlgorithms, "get-counters": c.getCounters, "reset-counters": c.resetCounters,
		"list-sas": c.listSAs, "list-conns": c.listConns, "get-conns": c.getConns,
		"load-conn": c.loadConn, "unload-conn": c.unloadConn,
		"load-shared": c.loadShared, "unload-shared": c.unloadShared, "get-shared": c.getShared,
		"load-cert": c.loadCert, "load-key": c.loadKey, "unload-key": c.unloadKey, "get-keys": c.getKeys, "load-token": c.loadToken,
		"clear-creds": c.clearCreds, "flush-certs": c.flushCerts, "list-certs": c.listCerts,
		"load-authority": c.loadAuthority, "unload-authority": c.unloadAuthority, "get-authorities": c.getAuthorities, "list-authorities": c.listAuthorities,
		"load-pool": c.loadPool, "unload-pool": c.unloadPool, "get-pools": c.getPools,
		"get-log": c.getLog, "set-log": c.setLog, "health": c.health,
		"load-users": c.loadUsers, "plan": c.plan, "retain-certs": c.retainCerts, "explain": c.explain, "renew-certs": c.renewCerts,
	} {
		srv.Handle(name, guarded(f))
	}
	for _, e := range []string{"log", "control-log", "list-sa", "list-policy", "list-conn", "list-cert", "list-authority",
		"ike-updown", "ike-rekey", "ike-update", "child-updown", "child-rekey", lineEvent, recentEvent, alertEvent, explainEvent} {
		srv.Event(e)
	}
	events := &events{c: c}
	ends := []func(){g.Subscribe(c.logEvent), g.Subscribe(c.counted.take), g.Subscribe(events.take), g.Subscribe(c.alert), c.followLog()}
	return func() {
		for _, end := range ends {
			end()
		}
	}
}

// guarded answers with an error where a handler panics: a bug in one command must
// not end the tunnels. An error that the client can be told is told.
func guarded(f vici.Handler) vici.Handler {
	return func(ctx context.Context, req *vici.Request) (m *conf.Section, err error) {
		defer func() {
			if v := recover(); v != nil {
				m, err = reply(fmt.Errorf("internal error in %s: %v", req.Name, v)), nil
			} else if err != nil && !errors.Is(err, vici.ErrGone) {
				m, err = reply(err), nil
			}
		}()
		return f(ctx, req)
	}
}

// logEvent publishes every record to the clients that registered for `log`.
func (c *controller) logEvent(e ike.Event) {
	if !c.srv.Wanted("log") {
		return
	}
	if r, ok := gateway.Describe(e); ok {
		_ = c.srv.Publish("log", recordBody(r)) // too long for VICI: then it is in the log only
	}
}

// recordBody is a log line as VICI's log and control-log events carry it.
func recordBody(r gateway.Record) *conf.Section {
	m := conf.New("")
	m.Set("group", r.Group)
	m.Setf("level", "%d", r.Level)
	m.Set("thread", "0")
	if r.Name != "" {
		m.Set("ikesa-name", r.Name)
		m.Setf("ikesa-uniqueid", "%d", r.ID)
	}
	m.Set("msg", oneLine(r.Text))
	return m
}

// oneLine is a text for people as swanctl prints it: what has a byte that is not printable
// ASCII it takes for binary data, and shows nothing of it. Mistakes stand on a line each.
func oneLine(text string) string {
	return strings.Map(func(c rune) rune {
		if c < 0x20 || c > 0x7e {
			return '?'
		}
		return c
	}, asciiOf.Replace(text))
}

var asciiOf = strings.NewReplacer("\n", "; ", "…", "...", "§", "section ", "’", "'")

// reply is the body that every action answers with.
func reply(err error) *conf.Section {
	m := conf.New("")
	if err == nil {
		m.Set("success", "yes")
	} else {
		m.Set("success", "no")
		m.Set("errmsg", oneLine(err.Error()))
	}
	return m
}

func (c *controller) version(context.Context, *vici.Request) (*conf.Section, error) {
	m := conf.New("")
	m.Set("daemon", "adit")
	m.Set("version", c.opt.Version)
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		m.Set("sysname", unix.ByteSliceToString(u.Sysname[:]))
		m.Set("release", unix.ByteSliceToString(u.Release[:]))
		m.Set("machine", unix.ByteSliceToString(u.Machine[:]))
	}
	return m, nil
}

func (c *controller) stats(ctx context.Context, _ *vici.Request) (*conf.Section, error) {
	s, err := c.g.Stats(ctx)
	if err != nil {
		return nil, err
	}
	m := conf.New("")
	up := m.Add("uptime")
	up.Set("running", duration(time.Since(c.g.Started())))
	up.Set("since", c.g.Started().Format("Jan 02 15:04:05 2006"))
	w := m.Add("workers")
	w.Setf("total", "%d", s.Workers)
	w.Setf("idle", "%d", s.WorkersIdle)
	priorities(w.Add("active"), s.Workers-s.WorkersIdle)
	priorities(m.Add("queues"), s.JobsWaiting)
	m.Setf("scheduled", "%d", s.JobsTotal)
	sas := m.Add("ikesas")
	sas.Setf("total", "%d", s.Engine.SAs)
	sas.Setf("half-open", "%d", s.Engine.HalfOpen)
	m.SetList("plugins", "adit")
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	b := m.Add("mem")
	b.Setf("total", "%d", mem.HeapAlloc)
	b.Setf("allocs", "%d", mem.Mallocs-mem.Frees)
	drops := m.Add("drops")
	drops.Setf("mailbox-full", "%d", s.DatagramsDropped)
	for _, r := range ike.DropReasons() {
		if n := s.Engine.Dropped[r]; n > 0 {
			drops.Setf("ike-"+r.String(), "%d", n)
		}
	}
	if c.opt.Counters != nil {
		addCounters(drops, c.opt.Counters())
	}
	return m, nil
}

// priorities fills strongSwan's four classes; adit has one.
func priorities(m *conf.Section, n int) {
	m.Set("critical", "0")
	m.Set("high", "0")
	m.Setf("medium", "%d", n)
	m.Set("low", "0")
}

// duration prints a span as strongSwan does: its largest sensible unit.
func duration(d time.Duration) string {
	n, unit := int64(d/time.Second), "second"
	switch {
	case d >= 48*time.Hour:
		n, unit = int64(d/(24*time.Hour)), "day"
	case d >= 2*time.Hour:
		n, unit = int64(d/time.Hour), "hour"
	case d >= 2*time.Minute:
		n, unit = int64(d/time.Minute), "minute"
	}
	if n != 1 {
		unit += "s"
	}
	return strconv.FormatInt(n, 10) + " " + unit
}

func (c *controller) reloadSettings(context.Context, *vici.Request) (*conf.Section, error) {
	if c.opt.Reload == nil {
		return reply(nil), nil
	}
	return reply(c.opt.Reload()), nil
}

// number reads a decimal key; absent or malformed is 0.
func number(m *conf.Section, key string) uint32 {
	n, _ := strconv.ParseUint(strings.TrimSpace(m.Text(key)), 10, 32)
	return uint32(n)
}
