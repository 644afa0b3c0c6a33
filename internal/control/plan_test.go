package control_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"adit/conf"
	"adit/internal/conn"
	"adit/pki/pkitest"
)

// planned asks what a command would change; raw bytes go in by kv.
func (s *side) planned(command string, body *conf.Section) *conf.Section {
	s.t.Helper()
	msg := conf.New("")
	msg.Set("command", command)
	if body != nil {
		to := msg.Add("body")
		for e := range body.All() {
			if e.Section != nil {
				to.Attach(e.Section)
			} else {
				to.SetValue(e.Value)
			}
		}
	}
	res, err := s.client.Call(s.t.Context(), "plan", msg)
	if err != nil {
		s.t.Fatal(err)
	}
	return res
}

func body(t *testing.T, text string) *conf.Section {
	t.Helper()
	m, err := conf.ParseBytes("request", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Every command that loads or unloads has a plan, which says what it would change and
// changes nothing; what it would refuse is refused in the same words.
func TestPlanCommand(t *testing.T) {
	s := newSide(t, conn.NewNetwork(), "192.0.2.1")
	root := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	sun := root.Issue(pkitest.Spec{Name: "sun"})
	blob := func(kv ...string) *conf.Section {
		m := conf.New("")
		for i := 0; i < len(kv); i += 2 {
			m.Set(kv[i], kv[i+1])
		}
		return m
	}
	authority := func(uri string) *conf.Section {
		m := conf.New("")
		a := m.Add("ca")
		a.Set("cacert", string(root.PEM()))
		a.SetList("crl_uris", uri)
		return m
	}
	secret := func(data string) *conf.Section {
		return body(t, "id = ike-1\ntype = IKE\ndata = \""+data+"\"\nowners = 192.0.2.1, 192.0.2.2\n")
	}
	gw := func(net string) *conf.Section { return body(t, connBody("192.0.2.1", "192.0.2.2", "10.1.0.0/24", net)) }
	for _, c := range []struct {
		load, unload  string
		first, second func() *conf.Section // the second has another content under the same name, nil if there is no name
		gone          *conf.Section
	}{
		{"load-conn", "unload-conn", func() *conf.Section { return gw("10.2.0.0/24") }, func() *conf.Section { return gw("10.3.0.0/24") }, blob("name", "gw")},
		{"load-shared", "unload-shared", func() *conf.Section { return secret("one") }, func() *conf.Section { return secret("two") }, blob("id", "ike-1")},
		{"load-key", "unload-key", func() *conf.Section { return blob("type", "any", "data", string(sun.KeyPEM())) }, nil, blob("id", keyID(t, sun))},
		{"load-authority", "unload-authority", func() *conf.Section { return authority("http://a.example/a") }, func() *conf.Section { return authority("http://a.example/b") }, blob("name", "ca")},
		{"load-pool", "unload-pool", func() *conf.Section { return body(t, "v4 {\n addrs = 10.9.0.0/24\n}\n") }, func() *conf.Section { return body(t, "v4 {\n addrs = 10.8.0.0/24\n}\n") }, blob("name", "v4")},
		{"load-cert", "retain-certs", func() *conf.Section { return blob("type", "X509", "flag", "NONE", "data", string(sun.PEM())) }, nil, func() *conf.Section {
			m := conf.New("")
			sum := sha256.Sum256(root.Cert.DER())
			m.SetList("sha256", hex.EncodeToString(sum[:]))
			return m
		}()},
	} {
		change := func(want, command string, b *conf.Section) {
			t.Helper()
			res := s.planned(command, b)
			if res.Text("success") != "yes" || res.Text("change") != want {
				t.Errorf("%s: %s", command, text(res))
			}
		}
		send := func(command string, b *conf.Section) {
			t.Helper()
			if res, err := s.client.Call(t.Context(), command, b); err != nil || res.Text("success") != "yes" {
				t.Fatalf("%s: %v %s", command, err, text(res))
			}
		}
		change("add", c.load, c.first())
		change("add", c.load, c.first()) // still
		send(c.load, c.first())
		change("none", c.load, c.first())
		if c.second != nil {
			change("change", c.load, c.second())
			change("none", c.load, c.first())
		}
		change("remove", c.unload, c.gone)
		send(c.unload, c.gone)
		change("add", c.load, c.first())
	}
	for _, c := range []struct{ command, text, want string }{
		{"", "", "there is no plan for the command ''"},
		{"initiate", "child = net\n", "there is no plan for the command 'initiate'"},
		{"load-conn", "", "missing connection"},
		{"load-conn", "gw {\n encap = perhaps\n}\n", "gw.encap: "},
		{"unload-conn", "name = none\n", "not found"},
		{"load-shared", "id = x\n", "shared key type missing"},
		{"load-pool", "x {\n addrs = y\n}\n", "no prefix"},
		{"retain-certs", "", "missing list sha256"},
		{"retain-certs", "sha256 = x\n", "missing list sha256"},
	} {
		if res := s.planned(c.command, body(t, c.text)); res.Text("success") != "no" || !strings.Contains(res.Text("errmsg"), c.want) {
			t.Errorf("%s: want %q, got %s", c.command, c.want, text(res))
		}
	}
	if res := s.planned("load-conn", nil); res.Text("success") != "no" {
		t.Errorf("without a body: %s", text(res))
	}
	if res, _ := s.call("get-conns", "", ""); text(res) != "conns = []\n" {
		t.Errorf("plans have loaded something: %s", text(res))
	}
}
