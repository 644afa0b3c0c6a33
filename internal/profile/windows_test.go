package profile_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/internal/profile"
	"adit/pki"
)

// parameters are those of Microsoft's cmdlets that the scripts use, with the values
// that they take (learn.microsoft.com, modules VpnClient and PKI); nil: any.
var parameters = map[string]map[string][]string{
	"Add-VpnConnection": {"Name": nil, "ServerAddress": nil, "TunnelType": {"Pptp", "L2tp", "Sstp", "Ikev2", "Automatic"},
		"AuthenticationMethod": {"Pap", "Chap", "MSChapv2", "Eap", "MachineCertificate"}, "EncryptionLevel": {"NoEncryption", "Optional", "Required", "Maximum", "Custom"},
		"DnsSuffix": nil, "EapConfigXmlStream": nil, "RememberCredential": {}, "SplitTunneling": {}, "Force": {}},
	"Set-VpnConnectionIPsecConfiguration": {"ConnectionName": nil, "Force": {},
		"EncryptionMethod":                 {"DES", "DES3", "AES128", "AES192", "AES256", "GCMAES128", "GCMAES256"},
		"IntegrityCheckMethod":             {"MD5", "SHA1", "SHA256", "SHA384"},
		"DHGroup":                          {"None", "Group1", "Group2", "Group14", "ECP256", "ECP384", "Group24"},
		"CipherTransformConstants":         {"DES", "DES3", "AES128", "AES192", "AES256", "GCMAES128", "GCMAES192", "GCMAES256", "None"},
		"AuthenticationTransformConstants": {"MD596", "SHA196", "SHA256128", "GCMAES128", "GCMAES192", "GCMAES256", "None"},
		"PfsGroup":                         {"None", "PFS1", "PFS2", "PFS2048", "ECP256", "ECP384", "PFSMM", "PFS24"}},
	"Add-VpnConnectionRoute": {"ConnectionName": nil, "DestinationPrefix": nil},
	"Get-VpnConnection":      {"Name": nil, "ErrorAction": {"SilentlyContinue"}},
	"Remove-VpnConnection":   {"Name": nil, "Force": {}},
	"Import-Certificate":     {"FilePath": nil, "CertStoreLocation": {`Cert:\LocalMachine\Root`}},
	"Import-PfxCertificate":  {"FilePath": nil, "Password": nil, "CertStoreLocation": {`Cert:\LocalMachine\My`, `Cert:\CurrentUser\My`}},
	"ConvertTo-SecureString": {"String": nil, "AsPlainText": {}, "Force": {}},
	"New-EapConfiguration":   {"Tls": {}, "UserCertificate": {}},
	"Remove-Item":            {"Path": nil}, "Out-Null": {}, "Write-Host": {"": nil}, "Join-Path": {"": nil},
}

// words are the commands of a script that has only what the scripts here have: words,
// variables, verbatim strings and the punctuation that separates commands. Anything
// else is an error: a name that got out of its quotes would be.
func words(script string) (commands [][]string, err error) {
	var now []string
	end := func() {
		if len(now) > 0 {
			commands = append(commands, now)
		}
		now = nil
	}
	r := []rune(script)
	for i := 0; i < len(r); {
		switch c := r[i]; {
		case c == '\'':
			var s strings.Builder
			for i++; ; i++ {
				if i >= len(r) {
					return nil, fmt.Errorf("a string does not end")
				}
				if strings.ContainsRune("'\u2018\u2019\u201a\u201b", r[i]) {
					if i+1 < len(r) && strings.ContainsRune("'\u2018\u2019\u201a\u201b", r[i+1]) {
						s.WriteRune(r[i])
						i++
						continue
					}
					break
				}
				s.WriteRune(r[i])
			}
			i++
			now = append(now, "'"+s.String())
		case c == '#':
			for i < len(r) && r[i] != '\n' {
				i++
			}
		case strings.ContainsRune("\r\n;|{}()=+,", c):
			end()
			i++
		case c == ' ':
			i++
		case c == '"' || c == '`' || c == '&':
			return nil, fmt.Errorf("%q outside of a string", c)
		default:
			j := i
			for j < len(r) && !strings.ContainsRune(" \r\n;|{}()=+,'\"`&", r[j]) {
				j++
			}
			now, i = append(now, string(r[i:j])), j
		}
	}
	end()
	return commands, nil
}

// Scripts have only known commands, parameters and values, and what they are given
// stays in its quotes.
func TestWindows(t *testing.T) {
	parse := treeSitter(t)
	each(t, "windows", func(t *testing.T, v variant, p *profile.Profile, files []profile.File) {
		for _, name := range []string{"it's ’a’ $(calc) `n \"name\" ; Write-Host x"} {
			p.Name = name
			files, err := p.For("windows")
			if err != nil || len(files) != 1 {
				t.Fatal(err)
			}
			script := strings.TrimPrefix(string(files[0].Data), "\ufeff")
			commands, err := words(script)
			if err != nil {
				t.Fatalf("%v\n%s", err, script)
			}
			checkScript(t, v, p, script, commands)
			if parse != nil {
				if err := parse(files[0].Data); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	})
	if parse != nil && parse([]byte("Add-VpnConnection -Name 'a' b' {")) == nil {
		t.Error("the parser finds no errors")
	}
}

func checkScript(t *testing.T, v variant, p *profile.Profile, script string, commands [][]string) {
	t.Helper()
	seen := map[string]int{}
	var texts []string
	for _, c := range commands {
		for _, w := range c {
			if s, ok := strings.CutPrefix(w, "'"); ok {
				texts = append(texts, s)
			}
		}
		known, ok := parameters[c[0]]
		if !ok {
			continue // variables, methods, keywords
		}
		seen[c[0]]++
		for i := 1; i < len(c); i++ {
			param, ok := strings.CutPrefix(c[i], "-")
			if !ok {
				if _, positional := known[""]; !positional && i > 0 && !strings.HasPrefix(c[i-1], "-") {
					t.Errorf("%s: %q belongs to no parameter", c[0], c[i])
				}
				continue
			}
			values, ok := known[param]
			if !ok {
				t.Errorf("%s has no parameter %s", c[0], param)
			}
			if len(values) > 0 && (i+1 >= len(c) || !slices.Contains(values, c[i+1])) {
				t.Errorf("%s -%s: %q, possible are %q", c[0], param, c[i+1:], values)
			}
		}
	}
	if !slices.Contains(texts, p.Name) || !slices.Contains(texts, "vpn.example.org") || !slices.Contains(texts, "10.2.0.0/24") || !slices.Contains(texts, "fd02::/64") {
		t.Errorf("name, gateway or routes are missing in %q", texts)
	}
	if seen["Add-VpnConnection"] != 1 || seen["Set-VpnConnectionIPsecConfiguration"] != 1 || seen["Add-VpnConnectionRoute"] != 2 || seen["Import-Certificate"] != 1 || (seen["Import-PfxCertificate"] == 1) != v.cert {
		t.Errorf("commands: %v\n%s", seen, script)
	}
	certs := 0
	for _, s := range texts {
		if der, err := base64.StdEncoding.DecodeString(s); err == nil {
			if c, err := pki.NewCertificate(der); err == nil && c.IsCA() {
				certs++
			} else if _, leaf, _, err := pki.ParsePKCS12(der, p.Passphrase); err == nil && leaf.Equal(p.Cert) {
				certs++
			}
		}
	}
	if want := map[bool]int{false: 1, true: 2}[v.cert]; certs != want {
		t.Errorf("%d certificates, want %d", certs, want)
	}
	if p.Password != "" && strings.Contains(script, p.Password) {
		t.Error("the password is in the script")
	}
}

// treeSitter is a parser of PowerShell, nil where node and npm are missing or no
// registry answers: then the words alone are looked at.
func treeSitter(t *testing.T) func(script []byte) error {
	t.Helper()
	node, err := exec.LookPath("node")
	npm, err2 := exec.LookPath("npm")
	if err != nil || err2 != nil {
		t.Log("node and npm are not installed: the scripts are read by our own reader alone")
		return nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "adit-test-powershell-0.26.4")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "web-tree-sitter")); err != nil {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(npm, "install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "tree-sitter-powershell@0.26.4", "web-tree-sitter@0.27.2")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Logf("tree-sitter could not be installed: the scripts are read by our own reader alone: %v\n%s", err, out)
			return nil
		}
	}
	return func(script []byte) error {
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, node, "testdata/parse.cjs", dir)
		cmd.Stdin = bytes.NewReader(script)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			return err
		}
		defer func() {
			cancel()
			_ = cmd.Wait()
		}()
		found := false
		lines := bufio.NewScanner(out)
		for lines.Scan() && lines.Text() != "end" {
			var c []string
			if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
				return fmt.Errorf("tree-sitter: %.300s", lines.Text())
			}
			if _, ok := parameters[c[0]]; !ok {
				return fmt.Errorf("a command that is none of ours: %q", c)
			}
			found = found || c[0] == "Add-VpnConnection"
		}
		if !found {
			return fmt.Errorf("no Add-VpnConnection was found (%v)", lines.Err())
		}
		return nil
	}
}
