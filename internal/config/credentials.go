package config

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"adit/conf"
	"adit/pki"
	"adit/suite"
)

// Limits of a configuration's credentials.
const (
	limitFiles = 10000 // of one directory
	limitCerts = 65536
	limitKeys  = 10000
)

// directories are those beside swanctl.conf with certificates and the like, in the
// order in which swanctl loads them.
var directories = []struct {
	name string
	kind CertKind
	flag string
}{
	{"x509", CertX509, "NONE"}, {"x509ca", CertX509, "CA"}, {"x509ocsp", CertX509, "OCSP"}, {"x509aa", CertX509, "AA"},
	{"x509ac", CertAC, "NONE"}, {"x509crl", CertCRL, "NONE"}, {"pubkey", CertPubkey, "NONE"},
}

// credentials loads the directories beside swanctl.conf as swanctl does. A file that
// cannot be read is a warning: the others count.
func (d *decoder) credentials(m *Model) {
	for _, dir := range directories {
		d.eachFile(dir.name, func(pos conf.Pos, b []byte) error {
			certs, err := decodeCerts(dir.kind, dir.flag, b)
			for _, c := range certs {
				if len(m.Certs) == limitCerts {
					return fmt.Errorf("more than %d certificates", limitCerts)
				}
				c.Pos = pos
				m.Certs = append(m.Certs, c)
			}
			return err
		})
	}
	for _, dir := range keyDirs {
		d.eachFile(dir, func(pos conf.Pos, b []byte) error {
			if len(m.Keys) == limitKeys {
				return fmt.Errorf("more than %d private keys", limitKeys)
			}
			return d.loadKeys(m, dir, pos, b)
		})
	}
	d.acme(m)
	for _, p := range d.phrases {
		if !p.used {
			d.warn(p.pos, fmt.Sprintf("%s: there is no file %s in %s", p.path, p.file, filepath.Join(d.dir, p.dir)))
		}
		for _, s := range p.secrets {
			s.Zero()
		}
	}
}

// eachFile calls load for every file of a directory in the order of the names.
func (d *decoder) eachFile(dir string, load func(conf.Pos, []byte) error) {
	quoted := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(filepath.Join(d.dir, dir))
	names, err := d.files.Glob(quoted + "/*")
	if err != nil {
		d.warn(conf.Pos{}, fmt.Sprintf("%s: %v", filepath.Join(d.dir, dir), err))
		return
	}
	for i, name := range names {
		pos := conf.Pos{File: name, Line: 1}
		if i == limitFiles {
			d.warn(pos, fmt.Sprintf("more than %d files in the directory: this and all others are not read", limitFiles))
			return
		}
		b, err := readCredential(d.files, name)
		if err == nil {
			err = load(pos, b)
		}
		if err != nil {
			d.warn(pos, "not loaded: "+strings.TrimPrefix(strings.TrimPrefix(bare(err).Error(), name+": "), "open "+name+": "))
		}
	}
}

// loadKeys loads a private key, or what a PKCS#12 file has, trying the passphrases
// of the file in their order.
func (d *decoder) loadKeys(m *Model, dir string, pos conf.Pos, b []byte) error {
	defer suite.Key(b).Zero()
	phrases := []string{""}
	for i := range d.phrases {
		if p := &d.phrases[i]; p.dir == dir && strings.EqualFold(p.file, filepath.Base(pos.File)) {
			p.used = true
			for _, s := range p.secrets {
				phrases = append(phrases, string(s))
			}
		}
	}
	var err error
	for _, phrase := range phrases {
		if dir == "pkcs12" {
			err = loadPKCS12(m, pos, b, phrase)
		} else {
			err = loadKey(m, dir, pos, b, phrase)
		}
		if !errors.Is(err, pki.ErrPassphrase) {
			break
		}
	}
	if errors.Is(err, pki.ErrPassphrase) {
		if len(phrases) > 1 {
			return errors.New("the passphrase is wrong")
		}
		return fmt.Errorf("it is encrypted, and there is no section secrets.%s* with file = %s", dir, filepath.Base(pos.File))
	}
	return err
}

func loadKey(m *Model, dir string, pos conf.Pos, b []byte, phrase string) error {
	signer, err := pki.ParsePrivateKey(b, func() string { return phrase })
	if err != nil {
		return err
	}
	_, isRSA := signer.(*rsa.PrivateKey)
	_, isECDSA := signer.(*ecdsa.PrivateKey)
	if dir == "rsa" && !isRSA || dir == "ecdsa" && !isECDSA {
		return fmt.Errorf("this is no %s key: it belongs into %s", strings.ToUpper(dir), "private")
	}
	return addKey(m, Key{Signer: signer, Pos: pos})
}

func loadPKCS12(m *Model, pos conf.Pos, b []byte, phrase string) error {
	signer, leaf, more, err := pki.ParsePKCS12(b, phrase)
	if err != nil {
		return err
	}
	for _, c := range append([]*pki.Certificate{leaf}, more...) {
		m.Certs = append(m.Certs, Cert{Kind: CertX509, Flag: flagOf(c, "NONE"), DER: c.DER(), Pos: pos})
	}
	return addKey(m, Key{Signer: signer, Pos: pos})
}

// addKey names a key and adds it, once.
func addKey(m *Model, k Key) error {
	id, err := pki.KeyID(k.Signer.Public())
	if err != nil {
		return err
	}
	k.ID = hex.EncodeToString(id[:])
	for _, old := range m.Keys {
		if old.ID == k.ID {
			return nil
		}
	}
	m.Keys = append(m.Keys, k)
	return nil
}

// flagOf is CA for a CA's certificate that is loaded on its own, as in strongSwan,
// whatever it was loaded as.
func flagOf(c *pki.Certificate, flag string) string {
	if c.IsCA() {
		return "CA"
	}
	return flag
}

// decodeCerts reads what a file or a VICI message has: every certificate of it. A CA
// certificate that stands first is a trust anchor, as in strongSwan; those behind
// another are intermediates, unless all are loaded as authorities.
func decodeCerts(kind CertKind, flag string, b []byte) ([]Cert, error) {
	switch kind {
	case CertX509:
		certs, err := pki.ParseCertificates(b)
		if err != nil {
			return nil, err
		}
		out := make([]Cert, 0, len(certs))
		for i, c := range certs {
			f := flag
			if i == 0 {
				f = flagOf(c, flag)
			}
			if f == "CA" && !c.IsCA() {
				return out, fmt.Errorf("ca certificate lacks CA basic constraint, rejected: %s", c.Subject())
			}
			out = append(out, Cert{Kind: kind, Flag: f, DER: c.DER()})
		}
		return out, nil
	case CertCRL:
		crl, err := pki.ParseCRL(b)
		if err != nil {
			return nil, err
		}
		return []Cert{{Kind: kind, Flag: "NONE", DER: crl.DER()}}, nil
	case CertPubkey:
		key, err := pki.ParsePublicKey(b)
		if err != nil {
			return nil, err
		}
		return []Cert{{Kind: kind, Flag: "NONE", DER: key.SPKI}}, nil
	}
	return nil, fmt.Errorf("adit does not support %s", map[CertKind]string{CertAC: "attribute certificates", CertOCSP: "loading OCSP responses"}[kind])
}

// legacyKinds are the types of certificates of old clients.
var legacyKinds = map[string]struct {
	kind CertKind
	flag string
}{"x509": {CertX509, "NONE"}, "x509ca": {CertX509, "CA"}, "x509ocsp": {CertX509, "OCSP"}, "x509aa": {CertX509, "AA"},
	"x509ac": {CertAC, "NONE"}, "x509crl": {CertCRL, "NONE"}, "pubkey": {CertPubkey, "NONE"}}

// ParseCertKind reads type and flag as VICI's commands about certificates have them:
// ANY, X509 with a flag, the other kinds, and the old names of both. Empty kind or
// flag is any.
func ParseCertKind(typ, flag string) (CertKind, string, error) {
	switch kind := CertKind(strings.ToUpper(typ)); kind {
	case "", "ANY":
		return "", "", nil
	case CertX509:
		switch f := strings.ToUpper(flag); f {
		case "", "ANY":
			return kind, "", nil
		case "NONE", "CA", "AA", "OCSP":
			return kind, f, nil
		}
		return "", "", fmt.Errorf("invalid certificate flag '%.64s'", flag)
	case CertCRL, CertAC, CertPubkey, CertOCSP:
		return kind, "", nil
	}
	if l, ok := legacyKinds[strings.ToLower(typ)]; ok {
		return l.kind, l.flag, nil
	}
	return "", "", fmt.Errorf("invalid certificate type '%.64s'", typ)
}

// DecodeCert decodes the body of VICI's load-cert: the certificates in it.
func DecodeCert(body *conf.Section) ([]Cert, error) {
	typ, flag := body.Text("type"), body.Text("flag")
	if typ == "" {
		return nil, errors.New("certificate type missing")
	}
	if strings.EqualFold(typ, "X509") && flag == "" {
		flag = "NONE"
	}
	kind, flag, err := ParseCertKind(typ, flag)
	if err == nil && kind == "" {
		err = fmt.Errorf("invalid certificate type '%.64s'", typ)
	}
	if err != nil {
		return nil, err
	}
	data := body.Text("data")
	switch {
	case data == "":
		return nil, errors.New("certificate data missing")
	case len(data) > limitCredential:
		return nil, fmt.Errorf("certificate data of more than %d bytes", limitCredential)
	}
	certs, err := decodeCerts(kind, flag, []byte(data))
	if err != nil {
		return nil, fmt.Errorf("parsing %s certificate failed: %w", kind, bare(err))
	}
	return certs, nil
}

// DecodeKey decodes the body of VICI's load-key: one private key in the clear.
func DecodeKey(body *conf.Section) (Key, error) {
	typ := strings.ToUpper(body.Text("type"))
	switch typ {
	case "":
		return Key{}, errors.New("key type missing")
	case "ANY", "RSA", "ECDSA", "ED25519", "ED448":
	default:
		return Key{}, fmt.Errorf("invalid key type: %.64s", body.Text("type"))
	}
	data := []byte(body.Text("data"))
	defer suite.Key(data).Zero()
	switch {
	case len(data) == 0:
		return Key{}, errors.New("key data missing")
	case len(data) > limitCredential:
		return Key{}, fmt.Errorf("key data of more than %d bytes", limitCredential)
	}
	var m Model
	dir := "private"
	if typ == "RSA" || typ == "ECDSA" {
		dir = strings.ToLower(typ)
	}
	if err := loadKey(&m, dir, conf.Pos{}, data, ""); err != nil {
		return Key{}, fmt.Errorf("parsing %s private key failed: %w", typ, bare(err))
	}
	return m.Keys[0], nil
}
