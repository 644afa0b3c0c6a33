package ipsecconf_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"adit/conf"
	"adit/internal/ipsecconf"
)

var update = flag.Bool("update", false, "write the expected outputs anew")

// refuse stands for adit's decoder, so that the expected outputs do not depend on what
// adit supports at the time. The corpora are shown to the real one.
func refuse(key, value string) string {
	if key == "version" && value == "1" || key == "mark_in" || key == "ah_proposals" || key == "xauth_id" || key == "auth" && value == "xauth" {
		return "refused in this test"
	}
	return ""
}

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		w, g := strings.Split(string(want), "\n"), strings.Split(got, "\n")
		for i := range min(len(w), len(g)) {
			if w[i] != g[i] {
				t.Errorf("%s:%d:\n got %s\nwant %s", name, i+1, g[i], w[i])
				break
			}
		}
		t.Errorf("%s: %d lines, want %d (go test -update shows the difference)", name, len(g), len(w))
	}
}

// Both dialects with every keyword: the output stands beside the source.
func TestDialects(t *testing.T) {
	for _, d := range []ipsecconf.Dialect{ipsecconf.StrongSwan, ipsecconf.Libreswan} {
		name := "testdata/" + d.String()
		r, err := ipsecconf.Import(name+".conf", ipsecconf.WithRefusals(ipsecconf.Options{Secrets: name + ".secrets", Dir: "/etc/ipsec.d",
			Own: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, refuse))
		if err != nil {
			t.Fatal(err)
		}
		if r.Dialect != d {
			t.Errorf("%s: taken for %s", name, r.Dialect)
		}
		var b strings.Builder
		b.WriteString(r.Config + "\n" + r.Secrets)
		for _, c := range r.Copies {
			fmt.Fprintln(&b, "# to do:", c)
		}
		for _, f := range slices.Sorted(func(yield func(string) bool) {
			for k := range r.Files {
				if !yield(k) {
					return
				}
			}
		}) {
			fmt.Fprintf(&b, "# file %s: %s\n", f, strings.ReplaceAll(strings.TrimSpace(r.Files[f]), "\n", " "))
		}
		fmt.Fprintf(&b, "# %+v, secrets %+v\n", r.Count, r.SecretCount)
		golden(t, name+".golden", b.String())
	}
}

// Every keyword of the table stands in the test's file of its dialect, and those that
// no code translates come out as the table says.
func TestEveryKeyword(t *testing.T) {
	words := map[string]string{ipsecconf.FateLeftOut: "LEFT OUT", ipsecconf.FateByHand: "CHANGED", ipsecconf.FateRefused: "NOT TRANSLATED"}
	for _, k := range ipsecconf.Keywords() {
		var probes []string
		switch k.Place {
		case ipsecconf.InSetup:
			probes = []string{"config setup\n\t%s=1\n"}
		case ipsecconf.InConn:
			probes = []string{"conn a\n\tright=192.0.2.9\n\tauto=add\n\t%s=1\n"}
		case ipsecconf.InSide:
			probes = []string{"conn a\n\tright=192.0.2.9\n\tauto=add\n\tleft%s=1\n", "conn a\n\tright=192.0.2.9\n\tauto=add\n\tright%s=1\n"}
		case ipsecconf.InCA:
			probes = []string{"ca a\n\tcacert=x\n\tauto=add\n\t%s=1\n"}
		}
		for _, d := range []ipsecconf.Dialect{ipsecconf.StrongSwan, ipsecconf.Libreswan} {
			if d == ipsecconf.StrongSwan && !k.StrongSwan || d == ipsecconf.Libreswan && !k.Libreswan {
				continue
			}
			for _, probe := range probes {
				r, err := ipsecconf.Import("c", ipsecconf.Options{Files: conf.MapFiles{"c": fmt.Sprintf(probe, k.Name)}, Dialect: d})
				if err != nil {
					t.Errorf("%s %s: %v", d, k.Name, err)
					continue
				}
				got := ""
				for _, m := range r.Remarks {
					if strings.Contains(m.Line, k.Name+"=") {
						got = m.Word + ": " + m.Text
					}
				}
				if word := words[k.Fate]; word != "" && !strings.HasPrefix(got, word) {
					t.Errorf("%s %s: the table says %q, but it came out as %q", d, k.Name, k.Fate, got)
				}
				if k.Fate == ipsecconf.FateTranslated && (strings.Contains(got, "unknown keyword") || strings.Contains(got, " knows it") || strings.Contains(got, "no effect in this connection") && k.Name != "dpdtimeout") {
					if !slices.Contains(depends, k.Name) {
						t.Errorf("%s %s: the table says that it is translated, but: %s", d, k.Name, got)
					}
				}
			}
		}
	}
}

// depends are keywords that mean something only together with others.
var depends = []string{"aaa_identity", "eap_identity", "xauth_identity", "me_peerid", "marginbytes", "marginpackets", "ikev1-dpdtimeout", "dpdaction",
	"username", "xauthusername", "autheap", "xauthclient", "xauthserver", "id2", "cert2", "ca2", "groups2", "pfs", "esn", "phase2", "sourceip", "dns", "allowany",
	"modecfgclient", "modecfgserver", "addresspool", "hostaddrfamily", "clientaddrfamily", "rekeyfuzz", "rekeymargin", "margintime", "reauth", "xauth", "phase2alg", "ikev2", "certpolicy", "groups", "ca", "connalias", "authby", "hostaccess"}

// All that the source has as comments is in the output once, in order.
func TestCommentsStay(t *testing.T) {
	const text = `# one
config setup
	uniqueids=no # two
# three
conn %default
	# four
	keyingtries=1 # five

# six
conn a # seven
	# eight
	right=192.0.2.9 # nine
	# ten
	mark=1 # eleven
	auto=add
conn b
	also=a # twelve
	# thirteen
	rightsubnet=10.0.0.0/8 # fourteen
	mark=
	auto=add
# fifteen
`
	r, err := ipsecconf.Import("c", ipsecconf.Options{Files: conf.MapFiles{"c": text}})
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, word := range strings.Fields("one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen") {
		if n := strings.Count(r.Config, "# "+word+"\n"); n != 1 {
			t.Errorf("%q stands there %d times:\n%s", word, n, r.Config)
		}
		at = max(at, strings.Index(r.Config, "# "+word+"\n"))
	}
}

// Values that mislead, and what they become.
func TestValues(t *testing.T) {
	for _, c := range []struct {
		dialect   ipsecconf.Dialect
		text      string
		want, not string
	}{
		{ipsecconf.StrongSwan, "ike=aes256-sha256-modp2048", "proposals = aes256-sha256-modp2048, default", ""},
		{ipsecconf.StrongSwan, "ike=aes256-sha256-modp2048!", "proposals = aes256-sha256-modp2048\n", ""},
		{ipsecconf.StrongSwan, "ike=des-md5-modp1024,aes128-des-sha256-modp2048,3des-md5-modp1024!", "proposals = aes128-sha256-modp2048, 3des-md5-modp1024\n", ""},
		{ipsecconf.StrongSwan, "ike=des-md5-modp1024!", "NOT TRANSLATED c:1: conn a", ""},
		{ipsecconf.Libreswan, "ike=aes-sha1;modp2048", "proposals = aes256-aes128-sha1-modp2048\n", ""},
		{ipsecconf.Libreswan, "ike=aes_gcm_c-256-sha2_512-dh20", "proposals = aes256gcm16-prfsha512-ecp384\n", ""},
		{ipsecconf.Libreswan, "pfs=no\n\tesp=aes_gcm128-null", "esp_proposals = aes128gcm16\n", ""},
		{ipsecconf.Libreswan, "ike=aes256-sha2;dh31\n\tesp=chacha20_poly1305", "esp_proposals = chacha20poly1305-curve25519\n", ""},
		{ipsecconf.Libreswan, "esp=aes_ccm_a128-null;none", "esp_proposals = aes128ccm8\n", ""},
		{ipsecconf.StrongSwan, "ikelifetime=1h\n\tmargintime=10m\n\trekeyfuzz=50%\n\treauth=no", "rekey_time = 50m\n\t\tover_time = 10m\n\t\trand_time = 5m\n", "reauth_time"},
		{ipsecconf.StrongSwan, "lifetime=10m\n\tmargintime=1m", "life_time = 10m\n\t\t\t\trekey_time = 9m\n\t\t\t\trand_time = 1m\n", ""},
		{ipsecconf.StrongSwan, "lifetime=5m", "rekey_time = 270s", ""},
		{ipsecconf.StrongSwan, "rekey=no", "rekey_time = 0\n", "life_time"},
		{ipsecconf.StrongSwan, "authby=psk", "auth = psk\n\t\t\tid = 192.0.2.9\n", ""},
		{ipsecconf.StrongSwan, "rightid=%any", "id = %any\n", ""},
		{ipsecconf.StrongSwan, "leftprotoport=tcp/%any\n\trightprotoport=6/22", "remote_ts = dynamic[6/22]\n", ""},
		{ipsecconf.StrongSwan, "rightsubnet=10.0.0.0/255.255.0.0,%dynamic[udp]", "remote_ts = 10.0.0.0/16, dynamic[udp]\n", ""},
		{ipsecconf.StrongSwan, "rightsourceip=%dhcp", "NOT TRANSLATED c:2: rightsourceip=%dhcp", "pools ="},
		{ipsecconf.StrongSwan, "rightsourceip=%config", "NOT TRANSLATED c:2: rightsourceip=%config", "pools ="},
		{ipsecconf.StrongSwan, "leftsourceip=%config4,%config6", "vips = 0.0.0.0, ::\n", ""},
		{ipsecconf.StrongSwan, "rightca=\"C=CH, O=x\"", "ca_id = C=CH, O=x\n", ""},
		{ipsecconf.StrongSwan, "leftid=\"C=CH, O=Größe # 1\"", `id = "C=CH, O=Größe # 1"`, ""},
		{ipsecconf.StrongSwan, "leftid=@#0102", `id = "@#0102"`, ""},
		{ipsecconf.StrongSwan, "leftcert=/a/b.pem,c.pem", "certs = b.pem, c.pem\n", ""},
		{ipsecconf.StrongSwan, "dpddelay=10s", "LEFT OUT c:2: dpddelay=10s", "dpd_delay"},
		{ipsecconf.StrongSwan, "dpdaction=clear", "dpd_delay = 30s", ""},
		{ipsecconf.Libreswan, "leftid=@[a b]", "id = keyid:a b\n", ""},
		{ipsecconf.Libreswan, "leftid=C=CA/O=x/CN=y", "id = C=CA, O=x, CN=y\n", ""},
		{ipsecconf.Libreswan, "keyexchange=ikev1", "NOT TRANSLATED c:1: conn a", ""},
		{ipsecconf.Libreswan, "authby=secret,rsasig", "auth = any\n", ""},
		{ipsecconf.Libreswan, "leftsubnet=vhost:%priv", "NOT TRANSLATED c:1: conn a", ""},
		{ipsecconf.Libreswan, "rightsubnet=10.0.0.0/8/tcp/22", "remote_ts = 10.0.0.0/8[tcp/22]\n", ""},
	} {
		text := "conn a\n\t" + c.text + "\n\tright=192.0.2.9\n\tauto=add\n"
		o := ipsecconf.Options{Files: conf.MapFiles{"c": text}, Dialect: c.dialect}
		r, err := ipsecconf.Import("c", ipsecconf.WithRefusals(o, refuse))
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if !strings.Contains(r.Config, c.want) || c.not != "" && strings.Contains(r.Config, c.not) {
			t.Errorf("%s %q: no %q, or %q, in\n%s", c.dialect, c.text, c.want, c.not, r.Config)
		}
		if r, err = ipsecconf.Import("c", o); err != nil {
			t.Fatal(err)
		}
		decodes(t, c.text, r)
	}
}

// Which side is local: the one with an own address.
func TestSides(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fd00::1")}
	for text, local := range map[string]string{
		"left=192.0.2.1\n\tright=192.0.2.2": "192.0.2.1", "left=192.0.2.2\n\tright=192.0.2.1": "192.0.2.1",
		"left=192.0.2.3\n\tright=192.0.2.4": "192.0.2.3", "left=198.51.100.1\n\tright=fd00::1": "fd00::1", "left=%any\n\tright=192.0.2.1": "192.0.2.1",
		"left=peer.example\n\tright=me.example": "me.example",
	} {
		r, err := ipsecconf.Import("c", ipsecconf.Options{Files: conf.MapFiles{"c": "conn a\n\t" + text + "\n\tauto=add\n"}, Own: own, OwnNames: []string{"me.example"}})
		if err != nil || !strings.Contains(r.Config, "local_addrs = "+local+"\n") {
			t.Errorf("%q: local isn't %s: %v\n%s", text, local, err, r.Config)
		}
	}
}

// What cannot be read is refused with its position, and limits hold.
func TestErrors(t *testing.T) {
	many := strings.Repeat("conn %default\n\tright=a\n", 3) + strings.Repeat("x", 0)
	for text, want := range map[string]string{
		"foo=bar\n":                        "c:1: foo stands outside of any section",
		"conn a\n\tright\n":                `c:2: expected a section`,
		"conn a\n\n\tleftid=\"abc\n":       "c:3: a string in quotes is not closed",
		"conn\n":                           "c:1: expected one name after conn",
		"conn a b\n":                       "c:1: expected one name after conn",
		"config nothing\n":                 "c:1: expected config setup",
		"include c\n":                      "files include one another more than",
		"include\n":                        "c:1: include without a file",
		"conn " + strings.Repeat("x", 300): "c:1: a name of more than 200 bytes",
		"conn a\n\tright=\x00\n":           "NUL",
		"# " + strings.Repeat("x", 70_000): "c:1: a line of more than",
	} {
		_, err := ipsecconf.Import("c", ipsecconf.Options{Files: conf.MapFiles{"c": text}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: error %v, want %q", text, err, want)
		}
	}
	var b strings.Builder
	b.WriteString(many)
	for i := range 2000 {
		fmt.Fprintf(&b, "conn c%d\n\talso=c%d\n\tleft%d=x\n\tauto=add\n", i, i+1, i)
	}
	if _, err := ipsecconf.Import("c", ipsecconf.Options{Files: conf.MapFiles{"c": b.String()}}); err != nil && !strings.Contains(err.Error(), "more than") {
		t.Errorf("a long chain: %v", err)
	}
	r, err := ipsecconf.Import("c", ipsecconf.Options{Dialect: ipsecconf.Libreswan, Files: conf.MapFiles{"c": "conn a\n\tright=192.0.2.9\n\tauto=add\n\tleftsubnets=" +
		strings.Repeat("10.0.0.0/8,", 300) + "\n\trightsubnets=" + strings.Repeat("10.0.0.0/8,", 300) + "\n"}})
	if err != nil || !strings.Contains(r.Config, "more than 1024 pairs of subnets") {
		t.Errorf("many pairs: %v", err)
	}
}

// A secret that adit cannot read is not written.
func TestBadSecrets(t *testing.T) {
	for text, want := range map[string]string{
		": PSK 0xyz\n": "hexadecimal", "a : EAP 0s!!\n": "Base64", "a : NTLM 0x01\n": "16 bytes", ": PSK \"\"\n": "there is no secret", "asn1dn:#zz : PSK abc\n": "hexadecimal", ": PSK\n": "there is no secret",
	} {
		r, err := ipsecconf.Import("c", ipsecconf.Options{Files: conf.MapFiles{"c": "", "s": text}, Secrets: "s"})
		if err != nil || r.SecretCount.Refused != 1 || !strings.Contains(r.Secrets, "NOT TRANSLATED s:1: ") || !strings.Contains(r.Secrets, want) {
			t.Errorf("%q: %v\n%+v", text, err, r)
			continue
		}
		decodes(t, text, r)
	}
}

// No secret is in a remark or a mark.
func TestSecretsStaySecret(t *testing.T) {
	for _, d := range []string{"strongswan", "libreswan"} {
		r, err := ipsecconf.Import("testdata/"+d+".conf", ipsecconf.Options{Secrets: "testdata/" + d + ".secrets"})
		if err != nil {
			t.Fatal(err)
		}
		said := fmt.Sprint(r.Remarks) + r.Config
		for _, secret := range []string{"with a hash", "00112233", "MTIzNDU2", "no hexadecimal", "Ar3et", "quoted", "a passphrase", "p12 passphrase", "1234", "correct horse", "another secret", "0x01"} {
			if strings.Contains(said, secret) && !(secret == "1234" && d == "libreswan") {
				t.Errorf("%s: %q is told", d, secret)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"testdata/strongswan.conf", "testdata/libreswan.conf"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b), "conn x\n\tright=a\n")
	}
	f.Add("include /inc\nconn a\n\talso=x\n\talso=a\n\tleftsubnets={a b}\n\tleftrsasigkey=0sAwEAAQ==\n", "conn x\n\talso=a\n")
	f.Fuzz(func(t *testing.T, text, other string) {
		if len(text)+len(other) > 1<<14 {
			return
		}
		for _, d := range []ipsecconf.Dialect{ipsecconf.Auto, ipsecconf.StrongSwan, ipsecconf.Libreswan} {
			o := ipsecconf.Options{Files: conf.MapFiles{"/main": text, "/inc": other}, Dialect: d, All: true}
			if _, err := ipsecconf.Parse(o.Files, "/main", d); err != nil {
				if !strings.HasPrefix(err.Error(), "/") {
					t.Errorf("error without a position: %v", err)
				}
				continue
			}
			r, err := ipsecconf.Import("/main", o)
			if err != nil {
				continue
			}
			decodes(t, "fuzz", r)
		}
	})
}

func FuzzParseSecrets(f *testing.F) {
	for _, name := range []string{"testdata/strongswan.secrets", "testdata/libreswan.secrets"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<14 {
			return
		}
		files := conf.MapFiles{"/s": text, "/c": ""}
		if err := ipsecconf.ParseSecrets(files, "/s"); err != nil {
			if !strings.HasPrefix(err.Error(), "/") {
				t.Errorf("error without a position: %v", err)
			}
			return
		}
		r, err := ipsecconf.Import("/c", ipsecconf.Options{Files: files, Secrets: "/s"})
		if err != nil {
			t.Fatal(err)
		}
		decodes(t, "fuzz", r)
	})
}
