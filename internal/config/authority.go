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

// decodeAuthority decodes one authority: the certificate of a CA, and where its
// revocation status is to be had.
func (d *decoder) decodeAuthority(s *conf.Section) Authority {
	a := Authority{Name: s.Name, Pos: s.Pos}
	cacert := func(v conf.Value, b []byte, err error) error {
		if err == nil {
			a.CACert, err = caCert(b)
		}
		if err != nil {
			return v.Errorf("%v", err)
		}
		return nil
	}
	for v := range s.Values() {
		var err error
		switch v.Key {
		case "cacert":
			b, name := []byte(v.Text), "certificate"
			if !d.blobs {
				b, name, err = d.credential(v.Text, "x509ca")
			}
			if err = cacert(v, b, err); err != nil {
				err = fmt.Errorf("%w (%s)", err, name)
			}
		case "file":
			if !filepath.IsAbs(v.Text) {
				err = v.Errorf("%q is no absolute path", v.Text)
				break
			}
			b, e := readCredential(d.files, v.Text)
			err = cacert(v, b, e)
		case "crl_uris":
			a.CRLURIs, err = d.uris(v)
		case "ocsp_uris":
			a.OCSPURIs, err = d.uris(v)
		case "cert_uri_base":
			a.CertURIBase, err = v.One()
			d.warn(v.Pos, v.Path()+" has no effect: adit sends certificates, not their hash and URL")
		case "handle", "slot", "module":
			err = v.Errorf("adit does not support tokens: give cacert or file")
		default:
			err = conf.Errorf(v.Pos, "%s: unknown option%s", v.Path(), didYouMean(v.Key, []string{"cacert", "file", "crl_uris", "ocsp_uris", "cert_uri_base"}))
		}
		d.fail(err)
	}
	sections(d, s, nil, func(*conf.Section) bool { return false })
	if a.CACert == nil && len(d.errs) == 0 {
		d.failf(s.Pos, "CA certificate missing: %s", s.Name)
	}
	return a
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
