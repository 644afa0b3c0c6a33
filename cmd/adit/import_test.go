package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"adit/pki/pkitest"
)

// runImportCommand runs adit import and returns what it printed and its exit code.
func runImportCommand(t *testing.T, args ...string) (out, log string, code int) {
	t.Helper()
	cmd := importCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	var o, e bytes.Buffer
	cmd.SetOut(&o)
	cmd.SetErr(&e)
	cmd.SetArgs(args)
	err := cmd.Execute()
	var quiet exitCode
	switch {
	case errors.As(err, &quiet):
		code = int(quiet)
	case err != nil:
		code = 1
		e.WriteString(err.Error())
	}
	return o.String(), e.String(), code
}

// A directory is filled with what loads: connections, secrets that only root may read,
// certificates and keys.
func TestImportDirectory(t *testing.T) {
	dir := t.TempDir()
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "CA"})
	gw := ca.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}})
	for name, text := range map[string]string{
		"ipsec.conf":                "conn a\n\tkeyexchange=ikev2\n\tleft=192.0.2.1\n\tleftid=@gw.example\n\tleftcert=gw.pem\n\tright=192.0.2.2\n\trightid=@peer.example\n\trightsubnet=10.0.0.0/8\n\tauto=add\n",
		"ipsec.secrets":             ": RSA gw.key\ncarol : EAP \"a password of length\"\n",
		"ipsec.d/certs/gw.pem":      string(gw.PEM()),
		"ipsec.d/private/gw.key":    string(gw.KeyPEM()),
		"ipsec.d/cacerts/ca.pem":    string(ca.PEM()),
		"ipsec.d/cacerts/.ca.pem~":  "an editor's",
		"ipsec.d/cacerts/ca2.pem":   string(ca.PEM()),
		"changed/ipsec.conf":        "conn a\n\tkeyexchange=ikev2\n\tright=192.0.2.2\n\tleftfirewall=yes\n\tauto=add\n",
		"refused/ipsec.conf":        "conn a\n\tkeyexchange=ikev2\n\tright=192.0.2.2\n\tleftsubnett=10.0.0.0/8\n\tauto=add\n",
		"broken/ipsec.conf":         "conn a\n\tright\n",
		"out/conf.d/secrets.conf.x": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file, to := filepath.Join(dir, "ipsec.conf"), filepath.Join(dir, "out")
	_, log, code := runImportCommand(t, "-o", to, "--copy", "--own", "192.0.2.1", file)
	if code != 0 || !strings.Contains(log, "swanctl.conf is fine: 1 connections, 1 children, 1 secrets, 3 certificates, 1 private keys, 0 warnings") {
		t.Errorf("exit %d:\n%s", code, log)
	}
	for name, mode := range map[string]os.FileMode{"swanctl.conf": 0o644, "conf.d/secrets.conf": 0o600, "private/gw.key": 0o600, "x509/gw.pem": 0o644, "x509ca/ca2.pem": 0o644} {
		if fi, err := os.Stat(filepath.Join(to, name)); err != nil || fi.Mode() != mode {
			t.Errorf("%s: %v %v, want mode %v", name, fi, err, mode)
		}
	}
	before, err := os.ReadFile(filepath.Join(to, "swanctl.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if _, log, code := runImportCommand(t, "-o", to, "--own", "192.0.2.2", file); code != 1 || !strings.Contains(log, "exists") {
		t.Errorf("over existing files: exit %d:\n%s", code, log)
	}
	if now, err := os.ReadFile(filepath.Join(to, "swanctl.conf")); err != nil || !bytes.Equal(now, before) {
		t.Errorf("the existing file was changed: %v", err)
	}
	if _, log, code := runImportCommand(t, "-o", to, "--force", "--own", "192.0.2.2", file); code != 0 {
		t.Errorf("--force: exit %d:\n%s", code, log)
	}
	if now, err := os.ReadFile(filepath.Join(to, "swanctl.conf")); err != nil || !strings.Contains(string(now), "remote_addrs = 192.0.2.1") {
		t.Errorf("--own of the other side: %v\n%s", err, now)
	}
	out, _, code := runImportCommand(t, file)
	if code != 0 || !strings.Contains(out, "connections {") || strings.Contains(out, "password") {
		t.Errorf("standard output: exit %d\n%s", code, out)
	}
	if out, _, _ := runImportCommand(t, "--secrets", filepath.Join(dir, "ipsec.secrets"), file); !strings.Contains(out, "a password of length") {
		t.Errorf("--secrets: \n%s", out)
	}
	for _, c := range []struct {
		file string
		args []string
		code int
	}{{"changed", nil, 0}, {"changed", []string{"--strict"}, 2}, {"refused", nil, 2}, {"broken", nil, 1}, {"missing", nil, 1}, {"changed", []string{"--copy"}, 1}, {"changed", []string{"--dialect", "x"}, 1}} {
		if _, log, code := runImportCommand(t, append(c.args, "--own", "gw.example", filepath.Join(dir, c.file, "ipsec.conf"))...); code != c.code {
			t.Errorf("%s %q: exit %d, want %d\n%s", c.file, c.args, code, c.code, log)
		}
	}
}
