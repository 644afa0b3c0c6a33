package interop_test

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// scriptText writes down the environment of every call in a file of its own, whose names
// are in the order of the calls. Its argument is the directory.
const scriptText = `#!/bin/sh
f=$1/$(date +%s%N).$$
env > $f.part
mv $f.part $f.env
echo "noted $PLUTO_VERB"
`

// invocation is the environment of one call.
type invocation map[string]string

func (i invocation) String() string {
	return strings.Join([]string{i["PLUTO_CONNECTION"], i["PLUTO_VERB"], i["PLUTO_MY_CLIENT"], i["PLUTO_PEER_CLIENT"]}, " ")
}

// noted are the calls that a directory has, in their order.
func noted(t *testing.T, dir string) (out []invocation) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.env"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		i := invocation{}
		for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
			k, v, _ := strings.Cut(line, "=")
			i[k] = v
		}
		for _, k := range []string{"PWD", "OLDPWD", "SHLVL", "_"} { // the shell's own
			delete(i, k)
		}
		out = append(out, i)
	}
	return out
}

// scripted is one end with its script, and where that writes what.
type scripted struct {
	peer.Gateway
	kind   kind
	mode   string // of the child between the gateways themselves
	first  string // directory of the configuration that the SAs are made with
	second string // of the one that is loaded over it
	rules  string // what Debian's _updown asked iptables for
}

// A script sees the same under charon and under adit, at either end: networks of both
// families, host to host, ports, a client with virtual addresses and EAP. Rekeys run nothing, a
// reload does not change who runs at the end, and the instance outlives an IKE rekey.
func TestUpdown(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(debianUpdown); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen := map[string]map[kind][]invocation{"left": {}, "right": {}}
	rules := map[string]map[kind]string{"left": {}, "right": {}}
	t.Run("runs", func(t *testing.T) {
		among(t, []pair{{adit, strongSwan}, {strongSwan, adit}, {adit, adit}}, settings{middle: lab.Bridge, strongSwan: aroundItself}, func(t *testing.T, p *path) {
			ends := p.withScripts(t, pair{kind(kindOf(p.left)), kind(kindOf(p.right))})
			p.runScripts(t, ends)
			mu.Lock()
			defer mu.Unlock()
			for name, e := range ends {
				k := e.kind
				if e.mode == "transport" {
					k = adit2
				}
				seen[name][k] = noted(t, e.first)
				// The last script may not have come to its end.
				_ = lab.Poll(5*time.Second, func() (bool, error) {
					b, err := os.ReadFile(e.rules)
					rules[name][k] = string(b)
					return strings.Count(string(b), "tables -I ") == strings.Count(string(b), "tables -D "), err
				})
			}
		})
	})
	for name, by := range seen {
		if len(by) != 3 {
			t.Fatalf("only %d of three runs", len(by))
		}
		for _, k := range []kind{adit, adit2} {
			sameCalls(t, name, by[strongSwan], by[k])
			if a, b := normal(rules[name][strongSwan]), normal(rules[name][k]); a != b || len(a) < 100 {
				t.Errorf("%s: _updown asked for\n%s\nunder charon, for\n%s\nunder %s", name, a, b, k)
			}
		}
	}
}

// adit2 is adit with itself, and transport mode between the gateways.
const adit2 kind = "adit with adit"

// aroundItself keeps kernel-libipsec from sending IKE into its own tunnel, where that is
// between the gateways themselves.
const aroundItself = "plugins {\nkernel-netlink {\nfwmark = !0x42\n}\nsocket-default {\nfwmark = 0x42\n}\n}\n"

const debianUpdown = "/usr/lib/ipsec/_updown"

func kindOf(g peer.Gateway) string {
	if _, ours := g.(*peer.AditGateway); ours {
		return string(adit)
	}
	return string(strongSwan)
}

// normal takes out of iptables' arguments what differs between any two runs.
func normal(rules string) string {
	lines := strings.Split(regexp.MustCompile(`reqid \d+`).ReplaceAllString(strings.TrimSpace(rules), "reqid N"), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// withScripts loads connections whose children have scripts.
func (p *path) withScripts(t *testing.T, kinds pair) map[string]*scripted {
	t.Helper()
	// kernel-libipsec wants an address of its own in every local network.
	for node, addr := range map[string]string{lab.Left: "10.77.1.1/32", lab.Right: "10.77.2.6/32"} {
		// The outer address stands on another device, too: the one towards the peer counts.
		if out, err := p.Exec(5*time.Second, node, "ip", "addr", "add", map[string]netip.Addr{lab.Left: p.L.Wan4, lab.Right: p.R.Wan4}[node].String()+"/32", "dev", "lo"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if out, err := p.Exec(5*time.Second, node, "ip", "addr", "add", addr, "dev", "lo"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	ends := map[string]*scripted{"left": {Gateway: p.left, kind: kinds.initiator}, "right": {Gateway: p.right, kind: kinds.responder}}
	for name, e := range ends {
		e.mode = "tunnel" // kernel-libipsec has no transport mode
		if kinds == (pair{adit, adit}) {
			e.mode = "transport"
		}
		e.first, e.second, e.rules = filepath.Join(e.Dir(), "first"), filepath.Join(e.Dir(), "second"), filepath.Join(e.Dir(), "rules")
		bin := filepath.Join(e.Dir(), "bin")
		for _, dir := range []string{e.first, e.second, bin} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		// The machine has no iptables: what is compared is what it would have been asked for.
		// The script sets a PATH of its own.
		text, err := os.ReadFile(debianUpdown)
		if err != nil {
			t.Fatal(err)
		}
		rules := regexp.MustCompile(`(?m)^PATH=.*$`).ReplaceAllString(string(text), "PATH="+bin+":/bin:/usr/bin")
		for file, text := range map[string]string{"script": scriptText, "iptables": "#!/bin/sh\necho \"iptables $*\" >> " + e.rules + "\n",
			"ip6tables": "#!/bin/sh\necho \"ip6tables $*\" >> " + e.rules + "\n", "logger": "#!/bin/sh\n", "_updown": rules} {
			if err := os.WriteFile(filepath.Join(bin, file), []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Load(p.scriptConf(name == "left", e, e.first)); err != nil {
			t.Fatal(err)
		}
	}
	return ends
}

// scriptConf is an end's configuration whose scripts write into dir.
func (p *path) scriptConf(left bool, e *scripted, dir string) string {
	script := filepath.Join(e.Dir(), "bin/script") + " " + dir
	rules := filepath.Join(e.Dir(), "bin/_updown") + " iptables"
	l, r := p.L, p.R
	client, pool := "vips = 0.0.0.0, ::", ""
	ids := []string{leftID, rightID, "auth = eap\nid = alice@left.example.org\neap_id = carol", "auth = psk\nid = " + rightID}
	rw := []string{"dynamic", "10.2.0.0/24, fd02::/64"}
	if !left {
		l, r = r, l
		client, pool = "pools = v4, v6", pools
		ids = []string{rightID, leftID, ids[3], "auth = eap-mschapv2\nid = *@left.example.org\neap_id = %any"}
		rw = []string{rw[1], rw[0]}
	}
	web := []string{"10.77.1.0/24[tcp]", "10.77.2.5-10.77.2.9[tcp/80]"} // a range that is no network
	if !left {
		web = []string{web[1], web[0]}
	}
	head := fmt.Sprintf("version = 2\nlocal_addrs = %s\nremote_addrs = %s\nproposals = aes128gcm16-prfsha256-x25519\n", l.Wan4, r.Wan4)
	child := func(name, local, remote, extra string) string {
		return fmt.Sprintf("%s {\nlocal_ts = %s\nremote_ts = %s\nesp_proposals = aes128gcm16\n%s\n}\n", name, local, remote, extra)
	}
	return fmt.Sprintf(`connections {
gw {
%[1]s
local {
auth = psk
id = %[2]s
}
remote {
auth = psk
id = %[3]s
}
children {
%[4]s}
}
rw {
%[1]s%[5]s
local {
%[6]s
}
remote {
%[7]s
}
children {
%[8]s}
}
}
secrets {
ike-1 {
secret = "what both ends share, and long"
}
eap-1 {
id = carol
secret = "what she knows"
}
}
%[9]s`, head, ids[0], ids[1],
		child("net", fmt.Sprintf("%s, %s", l.Inner4, l.Inner6), fmt.Sprintf("%s, %s", r.Inner4, r.Inner6), "hostaccess = yes\nupdown = \""+script+"; "+rules+"\"")+
			child("host", "dynamic", "dynamic", "updown = "+script+"\nmode = "+e.mode)+
			child("web", web[0], web[1], "updown = "+script),
		client, ids[2], ids[3], child("rw", rw[0], rw[1], "updown = "+script), pool)
}

// runScripts brings everything up, rekeys and reloads it, and takes it down again.
func (p *path) runScripts(t *testing.T, ends map[string]*scripted) {
	count := func(n int, what string) {
		t.Helper()
		for name, e := range ends {
			if err := lab.Poll(10*time.Second, func() (bool, error) { return len(noted(t, e.first)) >= n, nil }); err != nil {
				t.Fatalf("%s, %s: %v of %d", what, name, noted(t, e.first), n)
			}
		}
	}
	// The calls: 2 for net, 1 each for host and web, 2 for rw.
	for i, name := range []string{"net", "host", "web", "rw"} {
		if err := p.left.Initiate(name); err != nil {
			t.Fatal(err)
		}
		count([]int{2, 3, 4, 6}[i], name+" up")
	}
	old := p.sas(p.left)
	was := peer.Installed(old, "net")[0]
	if err := p.left.RekeyChild("net"); err != nil {
		t.Fatal(err)
	}
	p.wait("the rekey of net", p.left, func(s []peer.SA) bool {
		c := peer.Installed(s, "net")
		return len(c) == 1 && c[0].SPIIn != was.SPIIn
	})
	if err := p.left.RekeyIKE("gw"); err != nil {
		t.Fatal(err)
	}
	p.wait("the rekey of gw", p.left, func(s []peer.SA) bool {
		e := peer.Established(s, "gw")
		return len(e) == 1 && e[0].InitiatorSPI != peer.Established(old, "gw")[0].InitiatorSPI && len(e[0].Children) >= 3
	})
	for name, e := range ends {
		if err := e.Load(p.scriptConf(name == "left", e, e.second)); err != nil {
			t.Fatal(err)
		}
	}
	for name, e := range ends {
		if n := noted(t, e.first); len(n) != 6 {
			t.Errorf("%s: after rekeys and a reload there were %v", name, n)
		}
	}
	for _, name := range []string{"gw", "rw"} {
		if err := p.left.Terminate(name); err != nil {
			t.Fatal(err)
		}
	}
	count(12, "all down")
	for name, e := range ends {
		calls := noted(t, e.first)
		if len(calls) != 12 || len(noted(t, e.second)) != 0 {
			t.Errorf("%s: %v, and of the other script %v", name, calls, noted(t, e.second))
		}
		if !strings.Contains(e.Log(), "updown: noted up-client-v6") {
			t.Errorf("%s: the log has not what the script printed", name)
		}
		if c := calls[4]; (c["PLUTO_XAUTH_ID"] == "carol") != (name == "right") || c["PLUTO_UDP_ENC"] != "4500" {
			t.Errorf("%s: the client's environment is %v", name, c)
		}
		if e.kind == adit {
			checkInstances(t, name, calls)
		}
	}
}

// checkInstances demands of adit's calls that up and down of one thing have the same
// instance and the same number of the child, and that the rekeyed IKE SA has another
// number.
func checkInstances(t *testing.T, name string, calls []invocation) {
	t.Helper()
	ups, instances := map[string]invocation{}, map[string]string{}
	for _, c := range calls {
		key := strings.Join([]string{c["ADIT_CHILD_ID"], c["PLUTO_MY_CLIENT"], c["PLUTO_PEER_CLIENT"]}, " ")
		up, known := ups[key]
		if strings.HasPrefix(c["PLUTO_VERB"], "up-") == known {
			t.Errorf("%s: %v out of turn", name, c)
			continue
		}
		if !known {
			ups[key] = c
			instances[c["ADIT_CONNECTION"]] = c["ADIT_INSTANCE"]
			continue
		}
		if len(c["ADIT_INSTANCE"]) != 16 || c["ADIT_INSTANCE"] != up["ADIT_INSTANCE"] || c["PLUTO_REQID"] != up["PLUTO_REQID"] || c["ADIT_INSTANCE"] != instances[c["ADIT_CONNECTION"]] {
			t.Errorf("%s: another instance: %q after %q", name, c, up)
		}
		if rekeyed := c["ADIT_CONNECTION"] == "gw"; rekeyed == (c["PLUTO_UNIQUEID"] == up["PLUTO_UNIQUEID"]) {
			t.Errorf("%s: numbers of the IKE SA at up and down: %s, %s", name, up["PLUTO_UNIQUEID"], c["PLUTO_UNIQUEID"])
		}
	}
	if instances["gw"] == instances["rw"] {
		t.Errorf("%s: two IKE SAs have one instance: %v", name, instances)
	}
}

// sameCalls compares the calls of the two daemons in one place, key by key.
func sameCalls(t *testing.T, name string, charon, ours []invocation) {
	t.Helper()
	index := func(list []invocation) map[string]invocation {
		m := map[string]invocation{}
		for _, i := range list {
			m[i.String()] = i
		}
		return m
	}
	a, b := index(charon), index(ours)
	if len(a) != 12 || !slices.Equal(slices.Sorted(maps.Keys(a)), slices.Sorted(maps.Keys(b))) {
		t.Errorf("%s: charon called\n%q\nadit\n%q", name, slices.Sorted(maps.Keys(a)), slices.Sorted(maps.Keys(b)))
		return
	}
	own := map[string]bool{"ADIT_INSTANCE": true, "ADIT_CONNECTION": true, "ADIT_CHILD": true, "ADIT_CHILD_ID": true}
	for call, x := range a {
		y := b[call]
		for k, v := range x {
			switch w, ok := y[k]; {
			case !ok:
				t.Errorf("%s, %s: %s=%s is missing under adit", name, call, k, v)
			case k == "PLUTO_UNIQUEID" || k == "PLUTO_REQID": // numbers of one daemon
				if w == "" || strings.Trim(w, "0123456789") != "" || w == "0" {
					t.Errorf("%s, %s: %s is %q under adit", name, call, k, w)
				}
			case v != w:
				t.Errorf("%s, %s: %s is %q under charon, %q under adit", name, call, k, v, w)
			}
		}
		for k, v := range y {
			if _, ok := x[k]; !ok && !own[k] {
				t.Errorf("%s, %s: charon has no %s=%s", name, call, k, v)
			}
		}
		for k := range own {
			if y[k] == "" {
				t.Errorf("%s, %s: no %s", name, call, k)
			}
		}
	}
}

// A slow script holds nothing up; a reauthentication runs the new child's before the old
// one's; what is up goes down before adit ends.
func TestUpdownEnds(t *testing.T) {
	t.Parallel()
	among(t, []pair{{adit, adit}}, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		dirs := map[peer.Gateway]string{p.left: filepath.Join(p.left.Dir(), "calls"), p.right: filepath.Join(p.right.Dir(), "calls")}
		for g, dir := range dirs {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(g.Dir(), "script"), []byte(scriptText), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		command := func(g peer.Gateway) string { return filepath.Join(g.Dir(), "script") + " " + dirs[g] }
		verbs := func(g peer.Gateway) (out []string) {
			for _, c := range noted(t, dirs[g]) {
				out = append(out, c["PLUTO_VERB"]+" "+c["ADIT_CHILD_ID"])
			}
			return out
		}
		has := func(g peer.Gateway, want ...string) {
			t.Helper()
			_ = lab.Poll(5*time.Second, func() (bool, error) { return len(verbs(g)) >= len(want), nil })
			if got := verbs(g); !slices.Equal(got, want) {
				t.Errorf("called %v, not %v", got, want)
			}
		}
		left, right := p.ends(false)
		left.child, right.child = "updown = sleep 1; "+command(p.left), "updown = "+command(p.right)
		p.load(left, right)
		begin := time.Now()
		p.up()
		l, r := p.hosts(false)
		for from, to := range map[string]netip.Addr{lab.LeftHost: r, lab.RightHost: l} {
			if err := p.WaitPing(from, to, 5*time.Second); err != nil {
				t.Error(err)
			}
		}
		if calls := verbs(p.left); len(calls) != 0 {
			t.Errorf("the tunnel was there only after %v, when a script of a second had ended: %v", time.Since(begin), calls)
		}
		has(p.right, "up-client 1")
		has(p.left, "up-client 1")
		if out, err := p.left.Swanctl("--rekey", "--ike", "gw", "--reauth"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		has(p.right, "up-client 1", "up-client 2", "down-client 1")
		if err := p.left.Stop(); err != nil {
			t.Error(err)
		}
		has(p.left, "up-client 1", "up-client 2", "down-client 1", "down-client 2")
		has(p.right, "up-client 1", "up-client 2", "down-client 1", "down-client 2")
	})
}
