package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"adit/conf"
	"adit/pki/pkitest"
	"adit/vici"
)

// recorder is a VICI daemon that notes what it is sent.
type recorder struct {
	mu   sync.Mutex
	sent []string
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.sent
	r.sent = nil
	return out
}

// listen makes the recorder answer; keys, conns and so on are what it says is loaded.
func (r *recorder) listen(t *testing.T, uri string) {
	srv := vici.NewServer(vici.Options{})
	loaded := map[string][2]string{"get-conns": {"conns", "old-conn"}, "get-keys": {"keys", "00112233445566778899aabbccddeeff00112233"},
		"get-shared": {"keys", "ike-old"}, "get-authorities": {"authorities", "old-authority"}, "get-pools": {"", "old-pool"}}
	for _, name := range []string{"load-cert", "load-key", "load-shared", "load-authority", "load-pool", "load-conn",
		"unload-key", "unload-shared", "unload-authority", "unload-pool", "unload-conn", "get-conns", "get-keys", "get-shared", "get-authorities", "get-pools", "get-certs"} {
		srv.Handle(name, func(_ context.Context, req *vici.Request) (*conf.Section, error) {
			m := conf.New("")
			if was, ok := loaded[name]; ok {
				if was[0] == "" {
					m.Add(was[1])
				} else {
					m.SetList(was[0], was[1])
				}
				return m, nil
			}
			var b strings.Builder
			dump(&b, req.Msg, "")
			r.mu.Lock()
			r.sent = append(r.sent, name+"\n"+b.String())
			r.mu.Unlock()
			m.Set("success", "yes")
			if name == "load-key" {
				m.Set("id", "1")
			}
			return m, nil
		})
	}
	l, err := vici.Listen(uri)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
}

func dump(b *strings.Builder, s *conf.Section, indent string) {
	for e := range s.All() {
		switch {
		case e.Section != nil:
			fmt.Fprintf(b, "%s%s {\n", indent, e.Section.Name)
			dump(b, e.Section, indent+" ")
			fmt.Fprintf(b, "%s}\n", indent)
		case e.Value.IsList:
			fmt.Fprintf(b, "%s%s = %q\n", indent, e.Value.Key, e.Value.List)
		default:
			fmt.Fprintf(b, "%s%s = %q\n", indent, e.Value.Key, e.Value.Text)
		}
	}
}

// `adit reload` sends to a daemon just what `swanctl --load-all` sends it for the
// same directory: the same commands with the same bodies, byte for byte.
func TestReloadSendsWhatSwanctlSends(t *testing.T) {
	if _, err := exec.LookPath("swanctl"); err != nil {
		t.Fatal("the Debian package strongswan-swanctl is needed: ", err)
	}
	dir := t.TempDir()
	write := fullDirectory(t, dir)
	uri := "unix://" + filepath.Join(dir, "vici")
	rec := &recorder{}
	rec.listen(t, uri)

	cmd := exec.Command("swanctl", "--load-all", "--noprompt", "--uri", uri)
	cmd.Env = append(os.Environ(), "SWANCTL_DIR="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("swanctl: %v\n%s", err, out)
	}
	want := rec.take()
	if out, code := program([]string{"SWANCTL_DIR=" + dir}, "reload", "--vici", uri); code != 0 {
		t.Fatalf("adit reload: %d\n%s", code, out)
	}
	got := rec.take()
	slices.Sort(want)
	slices.Sort(got)
	for _, s := range want {
		if !slices.Contains(got, s) {
			t.Errorf("swanctl sends and adit does not: %.300s", s)
		}
	}
	for _, s := range got {
		if !slices.Contains(want, s) {
			t.Errorf("adit sends and swanctl does not: %.300s", s)
		}
	}
	if len(want) < 17 {
		t.Errorf("swanctl sent only %d commands", len(want))
	}
	// With an error in the file nothing is sent.
	write("conf.d/bad.conf", []byte("connections {\n gw {\n  encap = perhaps\n }\n}\n"))
	out, code := program([]string{"SWANCTL_DIR=" + dir}, "reload", "--vici", uri)
	if sent := rec.take(); code != 1 || len(sent) > 0 || !strings.Contains(out, "conf.d/bad.conf:3: ") {
		t.Errorf("code %d, sent %d: %s", code, len(sent), out)
	}
}

// fullDirectory fills a directory with something of everything that is loaded. The
// function that it returns writes a file there.
func fullDirectory(t *testing.T, dir string) (write func(name string, b []byte)) {
	t.Helper()
	write = func(name string, b []byte) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "ca"})
	sun := ca.Issue(pkitest.Spec{Name: "sun.example", DNS: []string{"sun.example"}, Key: pkitest.P256})
	moon := ca.Issue(pkitest.Spec{Name: "moon.example", DNS: []string{"moon.example"}, Key: pkitest.RSA2048})
	write("x509/sun.pem", sun.PEM())
	write("x509/moon.der", moon.Cert.DER())
	write("x509ca/ca.pem", ca.PEM())
	write("x509crl/ca.crl", ca.CRL(pkitest.List{}))
	write("pubkey/moon.pem", moon.PublicPEM())
	write("private/sun.pem", sun.KeyPEM())
	write("rsa/mars.pem", ca.Issue(pkitest.Spec{Name: "mars", Key: pkitest.RSA2048}).KeyPEM())
	write("plain.pem", moon.KeyPEM())
	encrypt(t, filepath.Join(dir, "plain.pem"), filepath.Join(dir, "private/moon.pem"))
	write("swanctl.conf", []byte(`
include conf.d/*.conf
connections {
  gw {
    remote_addrs = 192.0.2.1, gw.example
    proposals = aes128-sha256-ecp256 , default
    unique = replace
    pools = v4
    local {
      certs = sun.pem, /`+strings.TrimPrefix(dir, "/")+`/x509/moon.der
      id = "C=CH, O=a, CN=b"
    }
    remote-1 {
      auth = pubkey
      cacerts = ca.pem
      pubkeys = moon.pem
      groups = a, b
    }
    children {
      net {
        local_ts = 10.1.0.0/24,10.2.0.0/24[tcp/80]
        esp_proposals = aes128gcm16
        start_action = trap|start
      }
      other {
      }
    }
  }
}
pools {
  v4 {
    addrs = 10.9.0.0/24
    dns = 10.1.0.1, 10.1.0.2
  }
}
authorities {
  ca {
    cacert = ca.pem
    crl_uris = http://a.example/a.crl, http://b.example/b.crl
  }
}
`))
	write("conf.d/secrets.conf", []byte("secrets {\n ike-1 {\n id-a = a.example\n id-b = 192.0.2.1\n secret = 0sv+NkxY9LLZvwj4qCC2o/gGrWDF2d21jL\n }\n eap-x {\n id = alice\n secret = \"with blanks, and commas\"\n }\n"+
		" ike-hex {\n secret = 0x45a30759df97dc26a15b88ff\n }\n private-moon {\n file = moon.pem\n secret = passphrase\n }\n}\n"))
	return write
}

// What a gateway has read itself is the same to it when it is sent: all sources
// come to the same connections, credentials and pools.
func TestReloadOfWhatWasReadChangesNothing(t *testing.T) {
	s := newSpace(t, "f")
	write := fullDirectory(t, s.dir)
	_, notes := s.gateway("--config", filepath.Join(s.dir, "swanctl.conf"))
	s.expect(notes, "READY=1")
	s.must("adit plan", "nothing would change: 1 connection loaded just so")
	s.must("swanctl --load-all --noprompt", "loaded connection 'gw'")
	s.must("adit plan", "nothing would change: 1 connection loaded just so")
	if err := os.Remove(filepath.Join(s.dir, "x509crl/ca.crl")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.dir, "rsa/mars.pem")); err != nil {
		t.Fatal(err)
	}
	write("conf.d/secrets.conf", []byte("secrets {\n ike-1 {\n secret = 0sv+NkxY9LLZvwj4qCC2o/gGrWDF2d21jL\n }\n private-moon {\n file = moon.pem\n secret = passphrase\n }\n}\n"))
	out := s.must("adit reload", "~ secret ike-1\n", "- secret eap-x\n", "- secret ike-hex\n", "- key ", "- certificates that are not in the directories any more\n", "5 changed, ")
	if strings.Contains(out, "connection") {
		t.Errorf("connections are touched:\n%s", out)
	}
	s.must("adit plan", "nothing would change: 1 connection loaded just so")
}

func encrypt(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", from, "-out", to, "-passout", "pass:passphrase").CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
}

// What `adit plan` says is what `adit reload` does; what is not touched loses no packet.
func TestPlanAndReload(t *testing.T) {
	a, b := newSpace(t, "p"), newSpace(t, "q")
	join(a, b)
	for s, addr := range map[space]string{a: "10.1.0.1/24", b: "10.2.0.1/24"} {
		s.run("ip", "addr", "add", addr, "dev", "lo")
	}
	right := func(child string) string {
		return strings.Replace(site("192.0.2.2", "192.0.2.1", "10.2.0.0/24", "10.1.0.0/24", ""), "children {", "children {\n"+child, 1)
	}
	left := func(more, other string) string {
		return strings.Replace(site("192.0.2.1", "192.0.2.2", "10.1.0.0/24", "10.2.0.0/24", "start_action = start"), "children {", "children {\n"+more, 1) + other
	}
	two := "two {\n local_ts = 10.3.0.0/24\n remote_ts = 10.4.0.0/24\n start_action = start\n}\n"
	_, notes := b.gateway("--config", b.file("swanctl.conf", right("two {\n local_ts = 10.4.0.0/24\n remote_ts = 10.3.0.0/24\n}\n")))
	b.expect(notes, "READY=1")
	_, notes = a.gateway("--config", a.file("swanctl.conf", left(two, "")))
	a.expect(notes, "READY=1")
	eventually(t, "both children are up", func() bool { out, _ := a.tool("swanctl", "--list-sas"); return strings.Count(out, "INSTALLED") == 2 })

	a.must("adit plan", "nothing would change: 1 connection loaded just so")
	a.must("adit reload", "0 changed, ")

	before := childIDs(t, a)
	ping := a.command("ping", "-q", "-i", "0.005", "-c", "400", "-I", "10.1.0.1", "10.2.0.1")
	lines := make(chan string, 1)
	go func() {
		out, _ := ping.CombinedOutput()
		lines <- string(out)
	}()
	time.Sleep(200 * time.Millisecond)
	other := "connections {\n new {\n remote_addrs = 192.0.2.99\n local {\n auth = psk\n }\n remote {\n auth = psk\n }\n children {\n far {\n remote_ts = 10.99.0.0/24\n start_action = trap\n }\n }\n }\n}\n"
	changed := strings.Replace(left(strings.Replace(two, "10.4.0.0/24", "10.4.0.0/25", 1), other), "q7HkTz0pVn3xWbYc5e", "p7HkTz0pVn3xWbYc5e", 1)
	a.file("swanctl.conf", changed)
	out, err := a.tool("adit", "plan")
	if code := err.(*exec.ExitError).ExitCode(); code != 2 {
		t.Errorf("plan: %d", code)
	}
	for _, want := range []string{"~ secret ike-1\n", "~ connection gw\n", "    children.two.remote_ts: 10.4.0.0/24 -> 10.4.0.0/25\n", "    IKE SA 1 stays, and has the old settings until it is rekeyed\n",
		"    ~ child two\n        Child SA " + before["two"] + " is closed\n        it is started\n", "+ connection new\n", "    + child far\n        without an SA: none, then trap\n", "0 connections not touched\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("plan says no %q:\n%s", want, out)
		}
	}
	var js struct {
		Changes []map[string]any `json:"changes"`
	}
	asJSON, _ := a.tool("adit", "plan", "--json")
	if err := json.Unmarshal([]byte(asJSON), &js); err != nil || len(js.Changes) != 3 {
		t.Errorf("%v: %s", err, asJSON)
	}
	for _, line := range strings.Split(out, "\n") {
		if len(line) > 80 {
			t.Errorf("longer than 80: %s", line)
		}
	}
	if now := childIDs(t, a); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("the plan changed something: %v, %v", before, now)
	}
	a.must("adit reload", "~ secret ike-1", "~ connection gw", "+ connection new", "3 changed, 0 unchanged")
	eventually(t, "two is another", func() bool { now := childIDs(t, a); return now["two"] != "" && now["two"] != before["two"] })
	if now := childIDs(t, a); now["net"] != before["net"] {
		t.Errorf("net was %s and is %s", before["net"], now["net"])
	}
	a.must("adit plan", "nothing would change: 2 connections loaded just so")
	if out := <-lines; !strings.Contains(out, "400 received, 0% packet loss") {
		t.Errorf("pings through the child that is the same:\n%s", out)
	}

	// What vanished is unloaded; a refusal by the gateway changes nothing.
	a.file("swanctl.conf", left("", ""))
	a.must("adit reload", "- connection new", "~ connection gw", "~ secret ike-1")
	if now := childIDs(t, a); now["net"] != before["net"] || now["two"] != "" {
		t.Errorf("children %v, were %v", now, before)
	}
	a.file("swanctl.conf", left("", "connections {\n gw {\n children {\n net {\n mark_in = 4\n }\n }\n }\n}\n"))
	a.refused("adit reload", "swanctl.conf:", "marks cannot work")
	a.must("swanctl --list-conns", "net: TUNNEL")
}

func childIDs(t *testing.T, s space) map[string]string {
	t.Helper()
	out, err := s.tool("adit", "status", "--json")
	if err != nil {
		t.Fatal(err, out)
	}
	var st struct {
		SAs []struct {
			Children map[string]struct{ Name, Uniqueid, State string } `json:"child-sas"`
		} `json:"sas"`
	}
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for _, sa := range st.SAs {
		for _, c := range sa.Children {
			if c.State == "INSTALLED" {
				ids[c.Name] = c.Uniqueid
			}
		}
	}
	return ids
}
