package config

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/mail"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"adit/conf"
	"adit/pki"
	"adit/suite"
)

// Limits of adit.acme.
const (
	limitACME        = 64
	limitACMEDomains = 100
)

// Challenges of ACME by which the gateway proves that a name is its own: a file that its
// web server has (RFC 8555 §8.3), or a certificate that its TLS server shows (RFC 8737).
const (
	ChallengeHTTP = "http-01"
	ChallengeALPN = "tls-alpn-01"
)

// LetsEncrypt is the directory that is asked where none is given.
const LetsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// ACME is a certificate that the gateway gets from an authority by ACME (RFC 8555), and
// renews: a section of `adit.acme`.
type ACME struct {
	Name      string
	Domains   []string
	Directory string
	Email     string
	CACert    string // file with the authority of the server's own certificate, empty: the system's
	Challenge string
	Listen    string // where challenges are answered
	Key       string // kind, as `adit pki --key` names it
	Profile   string // of the authority's, empty: its default
	EABKeyID  string // external account binding (RFC 8555 §7.3.4), empty: none
	EABKey    suite.Key
	AgreeTOS  bool
	Pos       conf.Pos
}

// acmeOptions are the values of a section of adit.acme.
var acmeOptions = []option[ACME]{
	{name: "domains", state: Own, note: "names that clients connect to", set: func(_ *decoder, a *ACME, v conf.Value) error {
		for _, n := range v.Strings() {
			if !hostName(n) || !strings.Contains(n, ".") {
				return v.Errorf("%q is no full name of a host (ACME's challenges over HTTP and TLS know no wildcards)", n)
			}
			a.Domains = append(a.Domains, strings.ToLower(n))
		}
		return nil
	}},
	{name: "directory", state: Own, def: LetsEncrypt, note: "URL of the authority’s directory", set: into(func(a *ACME) *string { return &a.Directory }, func(v conf.Value) (string, error) {
		text, err := v.One()
		if u, e := url.Parse(text); err == nil && (e != nil || u.Scheme != "https" || u.Host == "") {
			err = v.Errorf("%q is no https URL", text) // RFC 8555 §6.1
		}
		return text, err
	})},
	{name: "agree_tos", state: Own, def: "no", note: "you agree to the authority’s terms of service; the log tells where they are", set: into(func(a *ACME) *bool { return &a.AgreeTOS }, boolOf)},
	{name: "email", state: Own, note: "address for the authority to write to", set: into(func(a *ACME) *string { return &a.Email }, func(v conf.Value) (string, error) {
		text, err := v.One()
		if m, e := mail.ParseAddress(text); err == nil && (e != nil || m.Address != text) {
			err = v.Errorf("%q is no e-mail address", text)
		}
		return text, err
	})},
	{name: "challenge", state: Own, def: ChallengeHTTP, note: "how the names are proved: `http-01` or `tls-alpn-01`", set: into(func(a *ACME) *string { return &a.Challenge },
		oneOf([]string{ChallengeHTTP, ChallengeALPN}, []string{ChallengeHTTP, ChallengeALPN}))},
	{name: "listen", state: Own, note: "`[HOST]:PORT` where challenges are answered, open only meanwhile; the authority comes to port 80 or 443. Default: `:80`, with tls-alpn-01 `:443`", set: into(func(a *ACME) *string { return &a.Listen }, func(v conf.Value) (string, error) {
		text, err := v.One()
		if _, port, e := net.SplitHostPort(text); err == nil {
			if n, e2 := strconv.ParseUint(port, 10, 16); e != nil || e2 != nil || n == 0 {
				err = v.Errorf("%q is not [HOST]:PORT", text)
			}
		}
		return text, err
	})},
	{name: "key", state: Own, def: "rsa2048", note: "kind of key: `rsa2048`, `rsa3072`, `ecdsa256`, `ecdsa384`; all clients take RSA. Each certificate has a new key", set: into(func(a *ACME) *string { return &a.Key },
		oneOf([]string{"rsa2048", "rsa3072", "ecdsa256", "ecdsa384"}, []string{"rsa2048", "rsa3072", "ecdsa256", "ecdsa384"}))},
	{name: "cacert", state: Own, note: "file with the authority of the ACME server’s own certificate; default: the system’s", set: into(func(a *ACME) *string { return &a.CACert }, absoluteOf)},
	{name: "profile", state: Own, note: "one of the authority’s profiles of certificates", set: into(func(a *ACME) *string { return &a.Profile }, conf.Value.One)},
	{name: "eab_kid", state: Own, note: "key identifier of an account at the authority that ours is bound to (RFC 8555 §7.3.4)", set: into(func(a *ACME) *string { return &a.EABKeyID }, conf.Value.One)},
	{name: "eab_key", state: Own, note: "its MAC key in Base64", set: into(func(a *ACME) *suite.Key { return &a.EABKey }, func(v conf.Value) (suite.Key, error) {
		text, err := v.One()
		if err != nil {
			return nil, err
		}
		key, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(text), "="))
		if err != nil || len(key) == 0 || len(key) > limitSecretBytes {
			return nil, v.Errorf("expected Base64 of a key") // not what it is
		}
		return key, nil
	})},
}

// decodeACME decodes the section adit.acme.
func (d *decoder) decodeACME(dm *Daemon, s *conf.Section) {
	if s == nil {
		return
	}
	for c := range d.only(s, "certificate") {
		a := ACME{Name: c.Name, Directory: LetsEncrypt, Challenge: ChallengeHTTP, Key: "rsa2048", Pos: c.Pos}
		values(d, c, &a, acmeOptions)
		sections(d, c, nil, func(*conf.Section) bool { return false })
		slices.Sort(a.Domains)
		a.Domains = slices.Compact(a.Domains)
		a.Listen = cmp.Or(a.Listen, map[string]string{ChallengeHTTP: ":80", ChallengeALPN: ":443"}[a.Challenge])
		switch {
		case strings.Trim(a.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" || len(a.Name) > 128:
			d.failf(c.Pos, "%s: its name is a file's, too: letters, digits, - and _", c.Path())
		case len(a.Domains) == 0:
			d.failf(c.Pos, "%s: domains is missing", c.Path())
		case len(a.Domains) > limitACMEDomains:
			d.failf(c.Pos, "%s: more than %d domains", c.Path(), limitACMEDomains)
		case (a.EABKeyID == "") != (len(a.EABKey) == 0):
			d.failf(c.Pos, "%s: eab_kid and eab_key belong together", c.Path())
		case len(dm.ACME) == limitACME:
			d.failf(c.Pos, "%s: more than %d certificates", c.Path(), limitACME)
			return
		}
		dm.ACME = append(dm.ACME, a)
	}
}

// StateDir is the directory of what must outlive a restart: the one given, else
// systemd's StateDirectory, else /var/lib/adit.
func StateDir(dir string) string {
	systemd, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	return cmp.Or(dir, systemd, "/var/lib/adit")
}

// ACMEDir is the directory of the certificates that the gateway gets by ACME: of each
// section NAME.pem with the private key, the certificate and those above it.
func (dm *Daemon) ACMEDir() string { return filepath.Join(StateDir(dm.StateDir), "acme") }

// acme reads the certificates that the gateway gets by ACME, for whoever wants to know
// what it proves itself with. The gateway itself loads them when it gets them.
func (d *decoder) acme(m *Model) {
	for _, a := range d.daemon.ACME {
		pos := conf.Pos{File: filepath.Join(d.daemon.ACMEDir(), a.Name+".pem"), Line: 1}
		b, err := readCredential(d.files, pos.File)
		if errors.Is(err, fs.ErrNotExist) {
			d.warn(a.Pos, fmt.Sprintf("adit.acme.%s: there is no certificate yet: adit run gets it, or adit pki acme", a.Name))
			continue
		}
		if err == nil {
			err = addACME(m, pos, b)
		}
		if err != nil {
			d.warn(pos, "not loaded: "+strings.TrimPrefix(strings.TrimPrefix(bare(err).Error(), pos.File+": "), "open "+pos.File+": "))
		}
	}
}

func addACME(m *Model, pos conf.Pos, b []byte) error {
	defer suite.Key(b).Zero()
	certs, err := pki.ParseCertificates(b)
	if err != nil {
		return err
	}
	signer, err := pki.ParsePrivateKey(b, nil)
	if err != nil {
		return err
	}
	for _, c := range certs {
		m.Certs = append(m.Certs, Cert{Kind: CertX509, Flag: "NONE", DER: c.DER(), Pos: pos, Kept: true})
	}
	return addKey(m, Key{Signer: signer, Pos: pos, Kept: true})
}
