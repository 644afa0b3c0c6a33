package config

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"

	"adit/conf"
	"adit/pki"
)

// limitURIs bounds the URIs of one authority, limitURI the length of each.
const (
	limitURIs = 16
	limitURI  = 2048
)

// authorityOptions are the values of an authority, all that strongSwan 6 knows.
var authorityOptions = []option[Authority]{
	{name: "cacert", note: "a file in `x509ca` or with an absolute name: this CA is trusted", set: func(d *decoder, a *Authority, v conf.Value) error {
		b, name, err := []byte(v.Text), "certificate", error(nil)
		if !d.blobs {
			b, name, err = d.credential(v.Text, "x509ca")
		}
		if err = a.setCA(v, b, err); err != nil {
			err = fmt.Errorf("%w (%s)", err, name)
		}
		return err
	}},
	{name: "file", note: "the same by an absolute name", set: func(d *decoder, a *Authority, v conf.Value) error {
		if !filepath.IsAbs(v.Text) {
			return v.Errorf("%q is no absolute path", v.Text)
		}
		b, err := readCredential(d.files, v.Text)
		return a.setCA(v, b, err)
	}},
	{name: "crl_uris", note: "where its CRLs are, besides what certificates say; only `http` is fetched: the answers are signed", set: func(d *decoder, a *Authority, v conf.Value) (err error) {
		a.CRLURIs, err = d.uris(v)
		return err
	}},
	{name: "ocsp_uris", note: "where its OCSP responders are", set: func(d *decoder, a *Authority, v conf.Value) (err error) {
		a.OCSPURIs, err = d.uris(v)
		return err
	}},
	{name: "cert_uri_base", state: Idle, note: "adit sends certificates, not their hash and URL", set: into(func(a *Authority) *string { return &a.CertURIBase }, conf.Value.One)},
	{name: "handle", note: noToken}, {name: "slot", note: noToken}, {name: "module", note: noToken},
}

// noToken is why certificates on tokens are refused.
const noToken = "adit does not support tokens: give a file"

// decodeAuthority decodes one authority: the certificate of a CA, and where its
// revocation status is to be had.
func (d *decoder) decodeAuthority(s *conf.Section) Authority {
	a := Authority{Name: s.Name, Pos: s.Pos}
	values(d, s, &a, authorityOptions)
	sections(d, s, nil, func(*conf.Section) bool { return false })
	if a.CACert == nil && len(d.errs) == 0 {
		d.failf(s.Pos, "CA certificate missing: %s", s.Name)
	}
	return a
}

// setCA takes the CA certificate that was read.
func (a *Authority) setCA(v conf.Value, b []byte, err error) error {
	if err == nil {
		a.CACert, err = caCert(b)
	}
	if err != nil {
		return v.Errorf("%v", err)
	}
	return nil
}

// caCert is the first certificate of a file, which must be a CA's.
func caCert(b []byte) ([]byte, error) {
	certs, err := pki.ParseCertificates(b)
	switch {
	case err != nil:
		return nil, bare(err)
	case !certs[0].IsCA():
		return nil, fmt.Errorf("%s is no CA certificate: it lacks the basic constraint", certs[0].Subject())
	}
	return certs[0].DER(), nil
}

func (d *decoder) uris(v conf.Value) ([]string, error) {
	list := slices.Clone(v.Strings())
	if len(list) > limitURIs {
		return nil, v.Errorf("more than %d URIs", limitURIs)
	}
	for _, text := range list {
		u, err := url.Parse(text)
		if err != nil || u.Scheme == "" || len(text) > limitURI {
			return nil, v.Errorf("%.80q is no URI", text)
		}
		if u.Scheme != "http" {
			d.warn(v.Pos, v.Path()+": adit fetches by http only, and not "+u.Scheme+": the answers are signed themselves")
		}
	}
	return list, nil
}

// DecodeAuthority decodes one section of the body of VICI's load-authority.
func DecodeAuthority(s *conf.Section) (Authority, error) {
	d := &decoder{blobs: true}
	a := d.decodeAuthority(s)
	return a, d.err()
}
