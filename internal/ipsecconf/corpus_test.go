package ipsecconf_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/internal/config"
	"adit/internal/ipsecconf"
)

// corpus is the directory with what strongSwan and Libreswan publish, fetched once
// by scripts/corpus.sh and kept in the user's cache.
func corpus(t *testing.T, name string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip("there is no directory for caches: ", err)
	}
	dir := filepath.Join(cache, "adit-corpus")
	if _, err := os.Stat(filepath.Join(dir, name, ".complete")); err != nil {
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, "../../scripts/corpus.sh", dir)
		cmd.WaitDelay = time.Second
		out, err := cmd.CombinedOutput()
		if _, e := os.Stat(filepath.Join(dir, name, ".complete")); e != nil {
			t.Skipf("the source package of %s cannot be fetched (offline?): %v\n%s", name, err, out)
		}
	}
	return filepath.Join(dir, name)
}

// elsewhere is the file system with the paths that Libreswan's tests have on their
// machines.
type elsewhere struct{ root string }

func (e elsewhere) at(name string) string {
	if rest, ok := strings.CutPrefix(name, "/testing/"); ok {
		return filepath.Join(e.root, "testing", rest)
	}
	if rest, ok := strings.CutPrefix(name, "/etc/ipsec.d/"); ok {
		return filepath.Join(e.root, "testing/baseconfigs/all/etc/ipsec.d", rest)
	}
	return name
}

func (e elsewhere) Open(name string) (io.ReadCloser, error) { return conf.OS.Open(e.at(name)) }
func (e elsewhere) Glob(p string) ([]string, error)         { return conf.OS.Glob(e.at(p)) }

// tally is what became of the lines of a corpus.
type tally struct {
	files, broken int
	count         ipsecconf.Count
	reasons       map[string]int
}

func (n *tally) add(c ipsecconf.Count) {
	n.count.Translated += c.Translated
	n.count.LeftOut += c.LeftOut
	n.count.Changed += c.Changed
	n.count.Refused += c.Refused
}

func (n *tally) report(t *testing.T, what string) {
	t.Helper()
	total := max(1, n.count.Total())
	share := func(x int) string { return fmt.Sprintf("%d (%.1f %%)", x, 100*float64(x)/float64(total)) }
	t.Logf("%s: %d files, %d refused with a position; %d lines: translated %s, left out %s, changed %s, not translated %s",
		what, n.files, n.broken, n.count.Total(), share(n.count.Translated), share(n.count.LeftOut), share(n.count.Changed), share(n.count.Refused))
	var list []string
	for r := range n.reasons {
		list = append(list, r)
	}
	sort.Slice(list, func(i, j int) bool { return n.reasons[list[i]] > n.reasons[list[j]] })
	for _, r := range list[:min(len(list), 12)] {
		t.Logf("  %5d %s", n.reasons[r], r)
	}
}

// sound imports one file and checks what must hold for any.
func sound(t *testing.T, name string, o ipsecconf.Options, n *tally) *ipsecconf.Result {
	t.Helper()
	n.files++
	r, err := ipsecconf.Import(name, o)
	if err != nil {
		var at *conf.Error
		if !errors.As(err, &at) || at.Pos.File == "" {
			t.Errorf("%s: error without a position: %v", name, err)
		}
		n.broken++
		n.reasons["file refused: "+at.Msg]++
		return nil
	}
	n.add(r.Count)
	for _, m := range r.Remarks {
		if m.Word == "NOT TRANSLATED" {
			n.reasons[clip(m.Text)]++
		}
		if m.Text == "" {
			t.Errorf("%s: %s %s without a reason", m.Pos, m.Word, m.Line)
		}
		if place := fmt.Sprintf("%s:%d: ", filepath.Base(m.Pos.File), m.Pos.Line); !m.Of && !strings.Contains(r.Config+r.Secrets, place) {
			t.Errorf("%s: %s %s is not marked in the output", m.Pos, m.Word, m.Line)
		}
	}
	raw, err := o.Files.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	b, err := io.ReadAll(raw)
	if err != nil {
		t.Fatal(err)
	}
	statements := 0
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"):
			if !strings.Contains(r.Config, line) {
				t.Errorf("%s: the comment %q is lost", name, line)
			}
		case line != "":
			statements++
		}
	}
	if !strings.Contains(string(b), "include") && statements != r.Count.Total() {
		t.Errorf("%s: %d statements, but %d are accounted for", name, statements, r.Count.Total())
	}
	decodes(t, name, r)
	return r
}

func clip(s string) string { return s[:min(len(s), 110)] }

// decodes checks that adit's own decoder takes the output, but for the files that
// must still be copied.
func decodes(t *testing.T, name string, r *ipsecconf.Result) *config.Model {
	t.Helper()
	root, err := conf.ParseBytes("swanctl.conf", []byte(r.Config+"\n"+r.Secrets))
	if err != nil {
		t.Errorf("%s: the output does not parse: %v\n%s", name, err, r.Config)
		return nil
	}
	m, err := config.Decode(withoutFiles(root), config.Daemon{})
	if err != nil {
		t.Errorf("%s: the output does not load: %v\n%s", name, err, r.Config)
	}
	return m
}

// withoutFiles is the tree without the options that name files.
func withoutFiles(s *conf.Section) *conf.Section {
	out := conf.New(s.Name)
	for e := range s.All() {
		switch {
		case e.Section != nil && e.Section.Name != "authorities":
			out.Attach(withoutFiles(e.Section))
		case e.Section == nil && e.Value.Key != "certs" && e.Value.Key != "pubkeys" && e.Value.Key != "cacerts":
			out.SetValue(e.Value)
		}
	}
	return out
}

// strongSwan's stroke scenarios: every file becomes something that loads, and of the
// lines of IKEv2 scenarios 95 % have a counterpart.
func TestStrongSwanCorpus(t *testing.T) {
	root := corpus(t, "strongswan")
	files, err := filepath.Glob(root + "/testing/tests/*/*/hosts/*/etc/ipsec.conf")
	if err != nil || len(files) < 200 {
		t.Fatalf("only %d files: %v", len(files), err)
	}
	all, v2 := tally{reasons: map[string]int{}}, tally{reasons: map[string]int{}}
	for _, f := range files {
		o := ipsecconf.Options{Files: conf.OS, Dialect: ipsecconf.StrongSwan}
		if s := strings.TrimSuffix(f, "conf") + "secrets"; exists(s) {
			o.Secrets = s
		}
		if r := sound(t, f, o, &all); r != nil && !strings.Contains(r.Config, "IKEv1") {
			v2.files++
			v2.add(r.Count)
		}
		if r, err := ipsecconf.Import(f, ipsecconf.Options{Files: conf.OS}); err == nil && r.Dialect != ipsecconf.StrongSwan && r.Count.Total() > 2 {
			t.Errorf("%s: taken for %s", f, r.Dialect)
		}
	}
	all.report(t, "all")
	v2.report(t, "IKEv2")
	if c := v2.count; (c.Translated+c.LeftOut+c.Changed)*100 < 95*c.Total() || v2.files < 100 {
		t.Errorf("of %d lines %d are not translated", c.Total(), c.Refused)
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// beyond finds what adit does not do at all in a configuration: IKEv1, opportunistic
// encryption, AH, interfaces of the kernel's IPsec.
var beyond = regexp.MustCompile(`NOT TRANSLATED.*(IKEv1|keyexchange=ikev1|ikev2=no|opportunistic|NULL|no AH|interface of the kernel)`)

// Libreswan's scenarios, with connections that only its commands would load.
func TestLibreswanCorpus(t *testing.T) {
	root := corpus(t, "libreswan")
	files, err := filepath.Glob(root + "/testing/pluto/*/*.conf")
	if err != nil {
		t.Fatal(err)
	}
	n, plain, lost := tally{reasons: map[string]int{}}, tally{reasons: map[string]int{}}, 0
	own := []netip.Addr{}
	for _, f := range files {
		base := filepath.Base(f)
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(base, ".") > 1 || !strings.Contains("\n"+string(b), "\nconn ") && !strings.Contains("\n"+string(b), "\nconfig setup") {
			continue // of strongSwan, or of another daemon
		}
		o := ipsecconf.Options{Files: elsewhere{root}, Dialect: ipsecconf.Libreswan, Own: own, All: true}
		if s := strings.TrimSuffix(f, "conf") + "secrets"; exists(s) {
			o.Secrets = s
		}
		if r := sound(t, f, o, &n); r != nil && !beyond.MatchString(r.Config) {
			plain.files++
			plain.add(r.Count)
		}
		if n.files%4 != 0 {
			continue // a sample is enough
		}
		if r, err := ipsecconf.Import(f, ipsecconf.Options{Files: elsewhere{root}}); err == nil && r.Dialect != ipsecconf.Libreswan {
			lost++
		}
	}
	n.report(t, "all")
	plain.report(t, "IKEv2 between known peers")
	if c := plain.count; c.Refused*100 > 10*c.Total() || plain.files < 500 {
		t.Errorf("%d files; of %d lines %d are not translated", plain.files, c.Total(), c.Refused)
	}
	t.Logf("of %d files %d are taken for strongSwan's with --dialect auto", n.files/4, lost)
	if n.files < 1000 || lost*4*20 > n.files {
		t.Errorf("%d files, %d not recognised", n.files, lost)
	}
}

// Scenarios that strongSwan has in both forms: what is imported of ipsec.conf means the
// same as its own swanctl.conf, in identities, authentication and selectors. Those that
// differ on purpose are named with the reason.
func TestSameScenario(t *testing.T) {
	root := filepath.Join(corpus(t, "strongswan"), "testing/tests")
	files, err := filepath.Glob(root + "/ikev2-stroke/*/hosts/*/etc/ipsec.conf")
	if err != nil {
		t.Fatal(err)
	}
	same, differ := 0, map[string]bool{}
	for _, f := range files {
		scenario := strings.Split(strings.TrimPrefix(f, root+"/ikev2-stroke/"), "/")
		name, host := scenario[0], scenario[2]
		twin := filepath.Join(root, "ikev2", name, "hosts", host, "etc/swanctl/swanctl.conf")
		b, err := os.ReadFile(twin)
		if err != nil {
			continue
		}
		tree, err := conf.ParseBytes("swanctl.conf", []byte(hosts.Replace(string(b))))
		if err != nil {
			continue
		}
		want, err := config.Decode(withoutFiles(tree), config.Daemon{})
		if err != nil {
			continue // what adit refuses of both
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		o := ipsecconf.Options{Files: conf.MapFiles{f: hosts.Replace(string(text))}, Dialect: ipsecconf.StrongSwan}
		if a, err := netip.ParseAddr(hosts.Replace("PH_IP_" + strings.ToUpper(host))); err == nil {
			o.Own = []netip.Addr{a}
		}
		r, err := ipsecconf.Import(f, o)
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		got := decodes(t, f, r)
		if got == nil {
			continue
		}
		g, w := meaning(got), meaning(want)
		if slices.Equal(g, w) {
			same++
			continue
		}
		if why := otherwise[name]; why == "" {
			t.Errorf("%s of %s: imported\n%s\nstrongSwan's own\n%s", name, host, strings.Join(g, "\n"), strings.Join(w, "\n"))
		}
		differ[name] = true
	}
	t.Logf("%d hosts mean the same; scenarios that differ on purpose: %d", same, len(differ))
	for name := range otherwise {
		if !differ[name] {
			t.Errorf("%s doesn't differ any more", name)
		}
	}
	if same < 50 {
		t.Errorf("only %d hosts were compared", same)
	}
}

// otherwise are scenarios that are not the same in the two forms.
var otherwise = map[string]string{
	"rw-eap-md5-rsa":         "ipsec.conf demands rightid=*@strongswan.org, swanctl.conf no id",
	"rw-eap-sim-id-radius":   "the same",
	"rw-eap-sim-radius":      "the same",
	"rw-eap-sim-only-radius": "ipsec.conf has rightauth=any, or none, swanctl.conf eap",
	"rw-eap-tls-only":        "ipsec.conf has leftauth=eap and rightauth=any, swanctl.conf eap-tls",
	"rw-eap-ttls-only":       "ipsec.conf has rightauth=any, swanctl.conf eap-ttls",
}

// hosts are the addresses that the test environment writes into the files.
var hosts = strings.NewReplacer("PH_IP_MOON1", "10.1.0.1", "PH_IP_SUN1", "10.2.0.1", "PH_IP_MOON", "192.168.0.1", "PH_IP_SUN", "192.168.0.2", "PH_IP_CAROL", "192.168.0.100",
	"PH_IP_DAVE", "192.168.0.200", "PH_IP_ALICE", "10.1.0.10", "PH_IP_VENUS", "10.1.0.20", "PH_IP_BOB", "10.2.0.10", "PH_IP_WINNETOU", "192.168.0.150")

// meaning is what two configurations must have in common, a line a child.
func meaning(m *config.Model) (out []string) {
	for _, p := range m.Peers {
		var b strings.Builder
		fmt.Fprintf(&b, "v%d remote %v vips %v pools %d", p.Version, p.RemoteAddrs, p.VIPs, len(p.Pools))
		for i, rounds := range [][]ike.AuthRound{p.Local, p.Remote} {
			for _, r := range rounds {
				if i == 0 && (r.ID.Type == ike.IDIPv4Addr || r.ID.Type == ike.IDIPv6Addr) {
					r.ID = ike.Identity{} // what it is without an id
				}
				fmt.Fprintf(&b, " [%v %v %v eap-id %v]", r.Method, r.EAP, r.ID, r.EAPID)
			}
		}
		for _, c := range p.Children {
			out = append(out, fmt.Sprintf("%s: %s === %s mode %v start %v", b.String(), c.Local, c.Remote, c.Mode, c.StartAction))
		}
	}
	sort.Strings(out)
	return out
}
