package config_test

import (
	"bufio"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"adit/conf"
	"adit/internal/config"
)

// row finds an option of a table, also one that its beginning stands for.
func row(rows []config.Row, name string) *config.Row {
	for i := range rows {
		if rows[i].Name == name {
			return &rows[i]
		}
	}
	for i := range rows {
		if prefix, ok := strings.CutSuffix(rows[i].Name, "*"); ok && strings.HasPrefix(name, prefix) {
			return &rows[i]
		}
	}
	return nil
}

// Whatever strongSwan 6 has a name for is in the tables.
func TestEveryOptionOfStrongSwanIsKnown(t *testing.T) {
	tables := map[string][]config.Row{}
	for _, table := range config.Tables() {
		tables[table.Section] = table.Rows
	}
	places := []struct{ pattern, table string }{
		{`connections\.<conn>\.(?:local|remote)<suffix>\.(?:cert|cacert)<suffix>\.(.*)`, "connections.<name>.local*.cert*, remote*.cert*, remote*.cacert*"},
		{`connections\.<conn>\.(?:local|remote)<suffix>\.(.*)`, "connections.<name>.local*, remote*"},
		{`connections\.<conn>\.children\.<child>\.(.*)`, "connections.<name>.children.<name>"},
		{`connections\.<conn>\.(.*)`, "connections.<name>"},
		{`secrets\.(?:eap|xauth|ntlm|ike)<suffix>\.(.*)`, "secrets.ike*, eap*, xauth*, ntlm*"},
		{`secrets\.(?:private|rsa|ecdsa|pkcs8|pkcs12)<suffix>\.(.*)`, "secrets.private*, rsa*, ecdsa*, pkcs8*, pkcs12*"},
		{`secrets\.(.*)\..*`, "secrets"}, // ppk and token are refused as a whole
		{`pools\.<name>\.(.*)`, "pools.<name>"},
		{`authorities\.<name>\.(.*)`, "authorities.<name>"},
		{`charon\.(?:filelog|syslog)\.<[a-z]*>\.(.*)`, "charon.filelog.<name>, syslog.<facility>, journal"},
		{`charon-systemd\.journal\.(.*)`, "charon.filelog.<name>, syslog.<facility>, journal"},
		{`charon\.plugins\.eap-radius\.(.*)`, "charon.plugins.eap-radius, eap-radius.servers.<name>"},
		{`(?:charon|libstrongswan|libimcv|libtnccs)\.plugins\.(.*)`, "charon.plugins"},
		{`charon\.(.*)`, "charon"},
	}
	// Sections that decoders of their own read, and groups of the log.
	aside := regexp.MustCompile(`^charon\.(syslog\.identifier|plugins\.attr\.<attr>)$|\.<subsystem>$|cert<suffix>$|eap-radius\.(dae|forward|xauth)\.`)
	f, err := os.Open("testdata/strongswan-6.0.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
lines:
	for s := bufio.NewScanner(f); s.Scan(); {
		name := s.Text()
		if strings.HasPrefix(name, "#") || aside.MatchString(name) {
			continue
		}
		n++
		for _, p := range places {
			m := regexp.MustCompile("^" + p.pattern + "$").FindStringSubmatch(name)
			if m == nil {
				continue
			}
			option := strings.TrimSuffix(m[1], "<suffix>")
			if row(tables[p.table], option) == nil {
				t.Errorf("%s: %s is not in the table of %s", name, option, p.table)
			}
			continue lines
		}
		t.Errorf("%s belongs to no table", name)
	}
	if n < 400 {
		t.Fatalf("only %d options were read", n)
	}
}

// What is refused is refused by a message with file, line, name and the reason of the
// table, and values that ask for nothing are taken; what has no effect gives a warning.
func TestRefusedAndIdleOptionsSaySo(t *testing.T) {
	wrap := map[string]string{
		"connections.<name>":                                              "connections {\n gw {\n%\n }\n}\n",
		"connections.<name>.local*, remote*":                              "connections {\n gw { remote {\n%\n } }\n}\n",
		"connections.<name>.local*.cert*, remote*.cert*, remote*.cacert*": "connections {\n gw { remote { cert {\n%\n } } }\n}\n",
		"connections.<name>.children.<name>":                              "connections {\n gw { children { net {\n%\n } } }\n}\n",
		"authorities.<name>":                                              "authorities {\n a {\n%\n }\n}\n",
	}
	n := 0
	for _, table := range config.Tables() {
		text, ok := wrap[table.Section]
		if !ok {
			continue
		}
		for _, r := range table.Rows {
			if r.State != config.Refused && r.State != config.Idle {
				continue
			}
			n++
			word := "yes"
			if r.Name == "cert_uri_base" {
				word = "http://a/"
			}
			m, err := decode(t, strings.Replace(text, "%", r.Name+" = "+word, 1))
			note := strings.ReplaceAll(r.Note, "’", "'")
			switch {
			case r.State == config.Refused && (err == nil || !strings.Contains(err.Error(), "test.conf:3: ") || !strings.Contains(err.Error(), "."+r.Name+": "+note)):
				t.Errorf("%s: %s is refused by %v", table.Section, r.Name, err)
			case r.State == config.Idle && table.Section != "authorities.<name>" && (err != nil || !slices.ContainsFunc(m.Warnings, func(w config.Warning) bool {
				return w.Pos.Line == 3 && strings.HasSuffix(w.Text, "."+r.Name+" has no effect: "+note)
			})):
				t.Errorf("%s: %s: %v, %v", table.Section, r.Name, m, err)
			}
			for _, v := range r.Takes {
				if m, err := decode(t, strings.Replace(text, "%", r.Name+" = "+v, 1)); err != nil || len(m.Warnings) > 0 {
					t.Errorf("%s: %s = %s: %v, %v", table.Section, r.Name, v, m, err)
				}
			}
		}
	}
	if n < 15 {
		t.Errorf("only %d options", n)
	}
}

// Options of strongswan.conf that have no effect give a warning, those that nothing
// could change none.
func TestIdleSettingsSaySo(t *testing.T) {
	n := 0
	for _, table := range config.Tables() {
		if table.Section != "charon" && table.Section != "charon.plugins" {
			continue
		}
		for _, r := range table.Rows {
			if r.State != config.Idle && r.State != config.Accepted {
				continue
			}
			n++
			root := conf.New("")
			s := root
			words := strings.Split(table.Section+"."+strings.Replace(r.Name, "*", "x", 1), ".")
			for _, w := range words[:len(words)-1] {
				s = s.Add(w)
			}
			s.Set(words[len(words)-1], "something")
			d, err := config.DecodeDaemon(root)
			want := 0
			if r.State == config.Idle {
				want = 1
			}
			if err != nil || len(d.Warnings) != want || want == 1 && !strings.HasSuffix(d.Warnings[0].Text, "has no effect: "+strings.ReplaceAll(r.Note, "’", "'")) {
				t.Errorf("%s: %s: %v, %v", table.Section, r.Name, d.Warnings, err)
			}
		}
	}
	if n < 80 {
		t.Errorf("only %d options", n)
	}
}

// Debian's strongswan.conf has `load = yes` of every plugin that is installed: that is
// no wish for any of them.
func TestLoadOfPluginsIsNoWish(t *testing.T) {
	root := conf.New("")
	n := 0
	for _, table := range config.Tables() {
		if table.Section == "charon.plugins" {
			for _, r := range table.Rows {
				plugin, _, _ := strings.Cut(r.Name, ".")
				root.Add("charon").Add("plugins").Add(plugin).Set("load", "yes")
				n++
			}
		}
	}
	d, err := config.DecodeDaemon(root)
	if err != nil || len(d.Warnings) > 0 || n < 50 {
		t.Errorf("%d plugins: %v, %v", n, d.Warnings, err)
	}
	if d.ResolveFile != "/etc/resolv.conf" {
		t.Errorf("resolve writes to %q", d.ResolveFile)
	}
	if _, err := os.Stat("/etc/strongswan.d/charon"); err != nil {
		t.Skip("strongSwan is not installed")
	}
	if d, err := config.LoadDaemon("/etc/strongswan.conf"); err != nil || len(d.Warnings) > 0 {
		t.Errorf("as Debian has it: %v, %v", d.Warnings, err)
	}
}

// A file that says strongSwan's defaults aloud loads: nothing of it is refused.
func TestDefaultsSaidAloud(t *testing.T) {
	plain := regexp.MustCompile(`^[a-z0-9%]+s?$`)
	words := map[string]string{"over_time": "10%", "replay_window": "32", "encap": "no"} // those that are no literals, and strongSwan's own
	said := func(section string, skip ...string) string {
		var b strings.Builder
		for _, table := range config.Tables() {
			for _, r := range table.Rows {
				value := r.Default
				if w, ok := words[r.Name]; ok {
					value = w
				}
				if table.Section == section && r.State != config.Own && plain.MatchString(value) && value != "10%" && !slices.Contains(skip, r.Name) {
					b.WriteString(r.Name + " = " + value + "\n")
				}
			}
		}
		return b.String()
	}
	remote := said("connections.<name>.local*, remote*", "eap_id", "xauth_id", "aaa_id")
	text := "connections {\n gw {\n" + said("connections.<name>", "rand_time") + "remote_addrs = 192.0.2.1\n remote {\n" + remote + "}\n children {\n net {\n" + said("connections.<name>.children.<name>") + "}\n }\n }\n}\n"
	m, err := decode(t, text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if len(m.Warnings) != 0 || strings.Count(text, " = ") < 45 {
		t.Errorf("%v\n%s", m.Warnings, text)
	}
}
