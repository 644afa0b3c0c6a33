package interop_test

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
	"adit/pki/pkitest"
)

// site is one connection of an end whose authentication is spelled out. Its child
// has its name.
type site struct {
	name          string
	local, remote string // lines of the sections
	rounds        string // further sections local-… and remote-…
	extra, child  string // further lines of the connection and of the child
	localTS       string // instead of the end's own
	remoteTS      string
}

// with is the text of an end's configuration with these connections; top are the
// sections beside them (secrets, authorities, pools). Addresses, proposals and
// selectors are c's.
func (c conn) with(top string, sites ...site) string {
	var b strings.Builder
	b.WriteString("connections {\n")
	for _, s := range sites {
		localTS, remoteTS := c.localTS, c.remoteTS
		if s.localTS != "" {
			localTS = s.localTS
		}
		if s.remoteTS != "" {
			remoteTS = s.remoteTS
		}
		fmt.Fprintf(&b, "%s {\nversion = %s\nlocal_addrs = %s\nremote_addrs = %s\nproposals = %s\n%s\n", s.name, cmp.Or(c.version, "2"), c.local, c.remote, cmp.Or(c.ike, "aes128gcm16-prfsha256-x25519"), c.extra+s.extra)
		fmt.Fprintf(&b, "local {\n%s\n}\nremote {\n%s\n}\n%s\n", s.local, s.remote, s.rounds)
		fmt.Fprintf(&b, "children {\n%s {\nlocal_ts = %s\nremote_ts = %s\nesp_proposals = %s\n%s\n}\n}\n}\n", s.name, localTS, remoteTS, cmp.Or(c.esp, "aes128gcm16"), s.child)
	}
	return b.String() + "}\n" + top + "\n"
}

// files are credentials by their names under the swanctl directory: "x509/gw.pem".
type files map[string][]byte

// and are the files of both.
func (f files) and(o files) files {
	all := maps.Clone(f)
	maps.Copy(all, o)
	return all
}

// owned are an entity's own files: its certificate alone and its private key.
func owned(name string, e *pkitest.Entity) files {
	return files{"x509/" + name + ".pem": e.PEM(), "private/" + name + ".pem": e.KeyPEM()}
}

// trusted are certificates of authorities.
func trusted(cas ...*pkitest.Entity) files {
	f := files{}
	for i, ca := range cas {
		f[fmt.Sprintf("x509ca/ca%d.pem", i)] = ca.PEM()
	}
	return f
}

// store makes these the only credential files of a daemon; they count from its next
// load on.
func (p *path) store(g peer.Gateway, f files) {
	p.t.Helper()
	base := filepath.Join(g.Dir(), "swanctl")
	old, err := filepath.Glob(filepath.Join(base, "*", "*"))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil {
			p.t.Fatal(err)
		}
	}
	for name, b := range f {
		if err := os.WriteFile(filepath.Join(base, name), b, 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
}

// setting is what a daemon is given: its files and its configuration.
type setting struct {
	files files
	conf  string
}

// give stores and loads both ends' settings.
func (p *path) give(left, right setting) {
	p.t.Helper()
	p.store(p.left, left.files)
	p.store(p.right, right.files)
	var wg sync.WaitGroup
	var errs [2]error
	wg.Go(func() { errs[0] = p.left.Load(left.conf) })
	wg.Go(func() { errs[1] = p.right.Load(right.conf) })
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			p.t.Fatalf("loading %s: %v\n%s", []string{"left", "right"}[i], err, []string{left.conf, right.conf}[i])
		}
	}
}

// logs remembers how long both daemons' logs are, to look at what comes after.
type logs struct {
	p           *path
	left, right int
}

func (p *path) mark() logs { return logs{p, len(p.left.Log()), len(p.right.Log())} }

// since are both logs since the mark.
func (m logs) since() (left, right string) {
	return m.p.left.Log()[m.left:], m.p.right.Log()[m.right:]
}

// established initiates a child from the left and returns the IKE SA of that name at
// the left, and the only one at the right, whatever connection that chose.
func (p *path) established(t *testing.T, child string) (left, right peer.SA) {
	t.Helper()
	m := p.mark()
	if err := p.left.Initiate(child); err != nil {
		l, r := m.since()
		t.Fatalf("initiating %s: %v\nleft:\n%s\nright:\n%s", child, err, l, r)
	}
	ls, rs := peer.Established(p.sas(p.left), child), p.sas(p.right)
	if len(ls) != 1 || len(peer.Installed(ls, child)) != 1 {
		t.Fatalf("left has %+v", p.sas(p.left))
	}
	if len(rs) != 1 || rs[0].State != "ESTABLISHED" {
		t.Fatalf("right has %+v", rs)
	}
	return ls[0], rs[0]
}

// reach sets up a child, proves that it carries packets, and takes it down; it
// returns the SAs as they were.
func (p *path) reach(t *testing.T, child string) (left, right peer.SA) {
	t.Helper()
	left, right = p.established(t, child)
	_, host := p.hosts(p.v6)
	if err := p.WaitPing(lab.LeftHost, host, 5*time.Second); err != nil {
		t.Fatalf("%s: %v", child, err)
	}
	p.down(t, child)
	return left, right
}

// down ends an IKE SA from the left and waits until neither end has any.
func (p *path) down(t *testing.T, name string) {
	t.Helper()
	if err := p.left.Terminate(name); err != nil {
		t.Fatal(err)
	}
	p.gone(t)
}

func (p *path) gone(t *testing.T) {
	t.Helper()
	var l, r []peer.SA
	err := lab.Poll(p.patience, func() (bool, error) {
		l, r = p.sas(p.left), p.sas(p.right)
		return len(l) == 0 && len(r) == 0, nil
	})
	if err != nil {
		t.Fatalf("SAs remain: left %+v, right %+v", l, r)
	}
}

// refused initiates what must fail with AUTHENTICATION_FAILED, or as notify says in
// strongSwan's short form, and leave nothing. It returns both logs of the attempt.
func (p *path) refused(t *testing.T, child string, notify ...string) (left, right string) {
	t.Helper()
	m := p.mark()
	err := p.left.Initiate(child)
	left, right = m.since()
	if err == nil {
		t.Fatalf("%s was set up\nleft:\n%s\nright:\n%s", child, left, right)
	}
	want := "AUTH_FAILED"
	if len(notify) > 0 {
		want = notify[0]
	}
	if all := left + right; !strings.Contains(all, want) && !strings.Contains(all, strings.Replace(want, "AUTH_FAILED", "AUTHENTICATION_FAILED", 1)) {
		t.Errorf("%s: no %s in the logs\nleft:\n%s\nright:\n%s", child, want, left, right)
	}
	p.gone(t)
	return m.since()
}

// says demands words in a log; only adit's words are ours to demand.
func (p *path) says(t *testing.T, g peer.Gateway, log string, words ...string) {
	t.Helper()
	if !strings.HasPrefix(g.Name(), "adit") {
		return
	}
	for _, w := range words {
		if !strings.Contains(log, w) {
			t.Errorf("no %q in adit's log:\n%s", w, log)
		}
	}
}

// end is one end's part of a trial.
type end struct {
	files         files
	local, remote string // lines of the sections
	rounds        string // further sections local-… and remote-…
	extra, child  string // further lines of the connection and of the child
	top           string // sections beside the connections
}

// trial is one set-up with credentials of its own, between daemons that keep
// running.
type trial struct {
	name        string
	left, right end
	// refused says that nothing must come up; why is what adit's log must say then,
	// at whichever end adit refuses.
	refused           bool
	notify            string // in place of AUTH_FAILED
	whyLeft, whyRight []string
	// leftAdit says that strongSwan can't be at the left.
	leftAdit bool
	// strongSwanTakes says that strongSwan at the right does not refuse.
	strongSwanTakes bool
	// check looks at the IKE SAs as both ends list them.
	check func(t *testing.T, left, right peer.SA)
}

// tries runs trials one after the other over one path.
func (p *path) tries(trials []trial) {
	l, r := p.ends(p.v6)
	whole := p.t
	for _, c := range trials {
		if c.leftAdit && !strings.HasPrefix(p.left.Name(), "adit") {
			continue
		}
		whole.Run(c.name, func(t *testing.T) {
			p.t = t
			defer func() { p.t = whole }()
			one := func(k conn, e end) setting {
				return setting{e.files, k.with(e.top, site{name: "net", local: e.local, remote: e.remote, rounds: e.rounds, extra: e.extra, child: e.child})}
			}
			p.give(one(l, c.left), one(r, c.right))
			if !c.refused || c.strongSwanTakes && !strings.HasPrefix(p.right.Name(), "adit") {
				left, right := p.reach(t, "net")
				if c.check != nil {
					c.check(t, left, right)
				}
				return
			}
			notify := []string{}
			if c.notify != "" {
				notify = append(notify, c.notify)
			}
			left, right := p.refused(t, "net", notify...)
			p.says(t, p.left, left, c.whyLeft...)
			p.says(t, p.right, right, c.whyRight...)
		})
	}
}
