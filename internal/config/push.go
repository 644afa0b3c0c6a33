package config

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"adit/conf"
	"adit/suite"
)

// Step is one VICI command that loads a part of a configuration. What names the
// part for people ("connection gw").
type Step struct {
	Command string
	Body    *conf.Section
	What    string
	Pos     conf.Pos
}

// Push is a configuration in terms of VICI: the commands that load it, in order,
// with everything that files have in their bodies, so that a daemon which may not
// read those files can be given it. The bodies are those that `swanctl --load-all`
// sends.
type Push struct {
	Model *Model
	Steps []Step
}

// LoadPush reads a configuration as Load does and makes the commands that load it. If
// anything in it is wrong there are none.
func LoadPush(path string, daemon Daemon) (*Push, error) {
	root, d, m, err := load(path, daemon)
	if err != nil {
		return nil, err
	}
	p := &pusher{d: d, m: m}
	p.credentials()
	sub := func(name string) *conf.Section {
		if s := root.Sub(name); s != nil {
			return s
		}
		return conf.New(name)
	}
	for s := range sub("secrets").Sections() {
		p.shared(s)
	}
	if len(m.Users) > 0 {
		p.steps = append(p.steps, UserSteps(m.Users)...)
	}
	for _, part := range []struct {
		name, what, command string
		value               func(*conf.Section, conf.Value) error
	}{
		{"authorities", "authority", "load-authority", p.authorityValue},
		{"pools", "pool", "load-pool", p.poolValue},
		{"connections", "connection", "load-conn", p.connValue},
	} {
		for s := range sub(part.name).Sections() {
			body := conf.New("")
			p.copySection(body.Add(s.Name), s, part.value)
			p.step(part.command, part.what+" "+s.Name, s.Pos, body)
		}
	}
	if err := errors.Join(p.errs...); err != nil {
		return nil, err
	}
	return &Push{m, p.steps}, nil
}

type pusher struct {
	d     *decoder
	m     *Model
	steps []Step
	errs  []error
}

func (p *pusher) step(command, what string, pos conf.Pos, body *conf.Section) {
	p.steps = append(p.steps, Step{command, body, what, pos})
}

// credentials are the files of the directories beside swanctl.conf that could be
// read: of certificates as they are, of keys in the clear.
func (p *pusher) credentials() {
	sent := map[string]bool{}
	for _, c := range p.m.Certs {
		dir := filepath.Base(filepath.Dir(c.Pos.File))
		i := slices.IndexFunc(directories, func(k struct {
			name string
			kind CertKind
			flag string
		}) bool {
			return k.name == dir
		})
		if i < 0 || sent[c.Pos.File] || c.Kept {
			continue // of a PKCS#12 file, below; sent with its file; or had by the gateway already
		}
		sent[c.Pos.File] = true
		b, err := readCredential(p.d.files, c.Pos.File)
		if err != nil {
			p.errs = append(p.errs, err)
			continue
		}
		p.cert(directories[i].kind, directories[i].flag, b, c.Pos)
	}
	for _, k := range p.m.Keys {
		if k.Kept {
			continue
		}
		dir := filepath.Base(filepath.Dir(k.Pos.File))
		typ := dir
		if dir == "private" || dir == "pkcs8" {
			typ = "any"
		}
		var b []byte
		var err error
		if dir == "pkcs12" || slices.ContainsFunc(p.d.phrases, func(f passphrase) bool {
			return f.dir == dir && strings.EqualFold(f.file, filepath.Base(k.Pos.File))
		}) {
			for _, c := range p.m.Certs {
				if dir == "pkcs12" && c.Pos.File == k.Pos.File {
					p.cert(CertX509, "NONE", c.DER, c.Pos)
				}
			}
			typ, b, err = keyDER(k.Signer)
		} else {
			b, err = readCredential(p.d.files, k.Pos.File)
		}
		if err != nil {
			p.errs = append(p.errs, conf.Errorf(k.Pos, "%v", err))
			continue
		}
		body := conf.New("")
		body.Set("type", typ)
		body.Set("data", string(b))
		suite.Key(b).Zero()
		p.step("load-key", "key "+filepath.Base(k.Pos.File), k.Pos, body)
	}
}

func (p *pusher) cert(kind CertKind, flag string, b []byte, pos conf.Pos) {
	body := conf.New("")
	body.Set("type", string(kind))
	if kind == CertX509 {
		body.Set("flag", flag)
	}
	body.Set("data", string(b))
	p.step("load-cert", "certificate "+filepath.Base(pos.File), pos, body)
}

// keyDER encodes a private key in the clear, in the form of its kind, and says VICI's name of it.
func keyDER(signer any) (typ string, der []byte, err error) {
	switch k := signer.(type) {
	case *rsa.PrivateKey:
		return "RSA", x509.MarshalPKCS1PrivateKey(k), nil
	case *ecdsa.PrivateKey:
		der, err = x509.MarshalECPrivateKey(k)
		return "ECDSA", der, err
	case ed25519.PrivateKey:
		der, err = x509.MarshalPKCS8PrivateKey(k)
		return "ED25519", der, err
	case interface{ Seed() []byte }: // Ed448
		seed, err := asn1.Marshal(k.Seed())
		if err != nil {
			return "", nil, err
		}
		der, err = asn1.Marshal(struct { // RFC 8410 §7
			Version   int
			Algorithm pkix.AlgorithmIdentifier
			Key       []byte
		}{0, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 101, 113}}, seed})
		return "ED448", der, err
	}
	return "", nil, fmt.Errorf("a private key of type %T cannot be sent", signer)
}

// shared makes the command of a shared secret; other sections of secrets open files.
func (p *pusher) shared(s *conf.Section) {
	kinds := []string{"eap", "xauth", "ntlm", "ike", "ppk"}
	i := slices.IndexFunc(kinds, func(k string) bool { return strings.HasPrefix(s.Name, k) })
	if i < 0 {
		return
	}
	body := conf.New("")
	body.Set("id", s.Name)
	body.Set("type", kinds[i])
	v, _ := s.Get("secret")
	key, err := secretBytes(v)
	if err != nil {
		p.errs = append(p.errs, err)
		return
	}
	body.Set("data", string(key))
	var owners []string
	for v := range s.Values() {
		if strings.HasPrefix(v.Key, "id") {
			owners = append(owners, v.Text)
		}
	}
	body.SetList("owners", owners...)
	p.step("load-shared", "secret "+s.Name, s.Pos, body)
}

// copySection copies a section into a message, value by value.
func (p *pusher) copySection(to, from *conf.Section, value func(*conf.Section, conf.Value) error) {
	for v := range from.Values() {
		if err := value(to, v); err != nil {
			p.errs = append(p.errs, err)
		}
	}
	for s := range from.Sections() {
		if list := map[bool]string{true: "certs", false: "cacerts"}[strings.HasPrefix(s.Name, "cert")]; strings.HasPrefix(s.Name, "cert") || strings.HasPrefix(s.Name, "cacert") {
			if v, ok := s.Get("file"); ok && strings.Count(from.Path(), ".") == 2 {
				p.file(to, list, v) // the bytes, since the daemon may not read the file
				continue
			}
		}
		p.copySection(to.Add(s.Name), s, value)
	}
}

// file adds the content of a file to a list.
func (p *pusher) file(to *conf.Section, list string, v conf.Value) {
	b, err := readCredential(p.d.files, v.Text)
	if err != nil {
		p.errs = append(p.errs, v.Errorf("%v", err))
		return
	}
	old, _ := to.Get(list)
	to.SetList(list, append(slices.Clone(old.List), string(b))...)
}

var listKeys = []string{"local_addrs", "remote_addrs", "proposals", "esp_proposals", "ah_proposals", "local_ts", "remote_ts", "vips", "pools", "groups", "cert_policy"}

func (p *pusher) connValue(to *conf.Section, v conf.Value) error {
	dirs := map[string]string{"certs": "x509", "cacerts": "x509ca", "pubkeys": "pubkey"}
	switch key := strings.ToLower(v.Key); {
	case slices.Contains(listKeys, key):
		to.SetList(v.Key, v.Strings()...)
	case dirs[key] != "":
		var list []string
		for _, text := range v.Strings() {
			b, _, err := p.d.credential(text, dirs[key])
			if err != nil {
				return v.Errorf("%v", err)
			}
			list = append(list, string(b))
		}
		to.SetList(v.Key, list...)
	default:
		to.Set(v.Key, v.Text)
	}
	return nil
}

func (p *pusher) authorityValue(to *conf.Section, v conf.Value) error {
	switch v.Key {
	case "cacert", "file":
		b, _, err := p.d.credential(v.Text, "x509ca")
		if err != nil {
			return v.Errorf("%v", err)
		}
		to.Set("cacert", string(b))
	case "crl_uris", "ocsp_uris":
		to.SetList(v.Key, v.Strings()...)
	default:
		to.Set(v.Key, v.Text)
	}
	return nil
}

func (p *pusher) poolValue(to *conf.Section, v conf.Value) error {
	if v.Key == "addrs" {
		to.Set(v.Key, v.Text)
	} else {
		to.SetList(v.Key, v.Strings()...)
	}
	return nil
}
