package config

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"adit/conf"
	"adit/ike"
	"adit/pki"
)

// limitCredential is the largest file or blob of certificates or keys that is read.
const limitCredential = 4 << 20

// setCerts, setCACerts and setPubkeys read what certs, cacerts and pubkeys name:
// files in a directory beside swanctl.conf, or the bytes themselves after 0x or 0s,
// or, in a VICI message, always the bytes.
func (d *decoder) setCerts(a *authDraft, v conf.Value) error {
	return d.eachBlob(v, "x509", a.addCerts)
}

func (d *decoder) setCACerts(a *authDraft, v conf.Value) error {
	return d.eachBlob(v, "x509ca", a.addCACerts)
}

func (d *decoder) setPubkeys(a *authDraft, v conf.Value) error {
	return d.eachBlob(v, "pubkey", a.addPubkeys)
}

func (d *decoder) eachBlob(v conf.Value, dir string, add func([]byte) error) error {
	list := []string{v.Text} // a blob may have commas in it
	if v.IsList || !d.blobs {
		list = v.Strings()
	}
	if len(list) > limitRoundCerts {
		return v.Errorf("more than %d of them", limitRoundCerts)
	}
	for i, text := range list {
		name := fmt.Sprintf("number %d", i+1)
		b := []byte(text)
		if !d.blobs {
			var err error
			if b, name, err = d.credential(text, dir); err != nil {
				return v.Errorf("%v", err)
			}
		}
		if err := add(b); err != nil {
			return v.Errorf("%s: %v", name, err)
		}
	}
	return nil
}

// credential reads what a value of a file names, and says its name for messages.
func (d *decoder) credential(text, dir string) (b []byte, name string, err error) {
	if len(text) > 2 && (text[:2] == "0x" || text[:2] == "0s") {
		if text[1] == 'x' {
			b, err = hex.DecodeString(text[2:])
		} else {
			b, err = base64.StdEncoding.DecodeString(text[2:])
		}
		if err != nil {
			return nil, "", fmt.Errorf("%s is not followed by %s", text[:2], map[byte]string{'x': "hexadecimal digits", 's': "Base64"}[text[1]])
		}
		return b, text[:2] + "…", nil
	}
	name = text
	if !filepath.IsAbs(name) {
		if d.dir == "" {
			return nil, name, fmt.Errorf("%q: a file name must be absolute where there is no swanctl.conf to look beside", text)
		}
		name = filepath.Join(d.dir, dir, text)
	}
	b, err = readCredential(d.files, name)
	return b, name, err
}

// readCredential reads a file of bounded size. Its errors name the file.
func readCredential(files conf.Files, name string) ([]byte, error) {
	if files == nil {
		files = conf.OS
	}
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limitCredential+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	case len(b) > limitCredential:
		return nil, fmt.Errorf("%s: larger than %d bytes", name, limitCredential)
	case len(b) == 0:
		return nil, fmt.Errorf("%s: the file is empty", name)
	}
	return b, nil
}

// addCerts adds certificates. Of the remote side, authorities that stand behind the
// first one are left out: they would be accepted as the peer's own.
func (a *authDraft) addCerts(b []byte) error {
	certs, err := pki.ParseCertificates(b)
	if err != nil {
		return bare(err)
	}
	if !a.local {
		first := certs[0]
		certs = slices.DeleteFunc(certs, func(c *pki.Certificate) bool { return c != first && c.IsCA() })
	}
	return add(&a.Certs, certs)
}

func (a *authDraft) addCACerts(b []byte) error {
	certs, err := pki.ParseCertificates(b)
	if err != nil {
		return bare(err)
	}
	for _, c := range certs {
		if !c.IsCA() {
			return fmt.Errorf("%s is no CA certificate: it lacks the basic constraint", c.Subject())
		}
	}
	return add(&a.CACerts, certs)
}

func (a *authDraft) addPubkeys(b []byte) error {
	key, err := pki.ParsePublicKey(b)
	if err != nil {
		return bare(err)
	}
	if len(a.Pubkeys) == limitRoundCerts {
		return fmt.Errorf("more than %d public keys", limitRoundCerts)
	}
	a.Pubkeys = append(a.Pubkeys, key.SPKI)
	return nil
}

func add(to *[][]byte, certs []*pki.Certificate) error {
	for _, c := range certs {
		if len(*to) == limitRoundCerts {
			return fmt.Errorf("more than %d certificates", limitRoundCerts)
		}
		*to = append(*to, c.DER())
	}
	return nil
}

// bare takes the package's name off its errors, which follow a file's name here.
func bare(err error) error { return errors.New(strings.ReplaceAll(err.Error(), "pki: ", "")) }

// subject is the identity that a round without id has: the subject of its first certificate.
func (a *authDraft) subject() ike.Identity {
	if len(a.Certs) == 0 {
		return ike.Identity{}
	}
	c, err := pki.NewCertificate(a.Certs[0])
	if err != nil {
		return ike.Identity{}
	}
	id, _ := ike.DNIdentity(c.X509.RawSubject) // an empty name names nobody
	return id
}

// certOptions are the values of a section cert* or cacert*.
var certOptions = []option[conf.Value]{
	{name: "file", note: "an absolute name", set: func(_ *decoder, file *conf.Value, v conf.Value) error {
		*file = v
		return nil
	}},
	{name: "handle", note: noToken}, {name: "slot", note: noToken}, {name: "module", note: noToken},
}

// decodeCertSection decodes a section cert* or cacert*: a file, by its absolute path.
func (d *decoder) decodeCertSection(s *conf.Section, add func([]byte) error) {
	file := conf.Value{}
	before := len(d.errs)
	values(d, s, &file, certOptions)
	if len(d.errs) > before {
		return
	}
	sections(d, s, nil, func(*conf.Section) bool { return false })
	if file.Text == "" {
		d.failf(s.Pos, "%s: there is no file in it", s.Path())
		return
	}
	if !filepath.IsAbs(file.Text) {
		d.fail(file.Errorf("%q is no absolute path", file.Text))
		return
	}
	b, err := readCredential(d.files, file.Text)
	if err == nil {
		if err = add(b); err != nil {
			err = fmt.Errorf("%s: %w", file.Text, err)
		}
	}
	if err != nil {
		d.fail(file.Errorf("%v", err))
	}
}
