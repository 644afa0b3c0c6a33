package profile

import (
	"slices"
	"strings"

	"adit/conf"
	"adit/pki"
)

// pemPair is the user's certificate and private key.
func (p *Profile) pemPair() (cert, key []byte, err error) {
	key, err = pki.KeyPEM(p.Key)
	return p.Cert.PEM(), key, err
}

// swanctl writes a swanctl.conf with one connection, and the files that go beside it:
// for strongSwan, `adit run` and `adit connect`, with this
// authority, if any, and these proposals.
func (p *Profile) swanctl(ca *pki.Certificate, ike, esp []string) ([]File, error) {
	root := conf.New("")
	c := root.Add("connections").Add(section(p.Name))
	c.Set("version", "2")
	c.SetList("remote_addrs", p.Gateway)
	c.SetList("vips", "0.0.0.0", "::")
	c.SetList("proposals", ike...)
	local, remote := c.Add("local"), c.Add("remote")
	local.Set("id", p.User)
	files := []File{{Name: "swanctl.conf", Type: "text/plain; charset=utf-8", Secret: p.Password != ""}}
	if p.withCert() {
		cert, key, err := p.pemPair()
		if err != nil {
			return nil, err
		}
		local.Set("auth", map[bool]string{false: "pubkey", true: "eap-tls"}[p.EAPTLS])
		local.SetList("certs", "user.pem")
		files = append(files, File{Name: "x509/user.pem", Type: "application/x-pem-file", Data: cert}, File{Name: "private/user.key", Type: "application/x-pem-file", Data: key, Secret: true})
	} else {
		local.Set("auth", "eap-mschapv2")
		local.Set("eap_id", p.User)
	}
	remote.Set("auth", "pubkey")
	remote.Set("id", p.RemoteID)
	if ca != nil {
		remote.SetList("cacerts", "gateway-ca.pem")
		files = append(files, File{Name: "x509ca/gateway-ca.pem", Type: "application/x-pem-file", Data: ca.PEM()})
	}
	child := c.Add("children").Add(section(p.Name))
	ts := []string{"0.0.0.0/0", "::/0"}
	if len(p.Subnets) > 0 {
		ts = nil
		for _, x := range p.Subnets {
			ts = append(ts, x.String())
		}
	}
	child.SetList("remote_ts", ts...)
	child.SetList("esp_proposals", esp...)
	if p.Password != "" && !p.withCert() {
		s := root.Add("secrets").Add("eap-user")
		s.Set("id", p.User)
		s.Set("secret", p.Password)
	}
	files[0].Data = []byte(root.Format(nil))
	return files, nil
}

// classic are those proposals that strongSwan before 6.0 reads, which knows no
// additional key exchanges (RFC 9370) and no ML-KEM; all if there is no other.
func classic(list []string) []string {
	rest := slices.DeleteFunc(slices.Clone(list), func(k string) bool {
		return strings.Contains(k, "mlkem") || strings.Contains(k, "-ke1_")
	})
	if len(rest) == 0 {
		return list
	}
	return rest
}

// section is a name as a section's.
func section(name string) string {
	ok := func(r rune) rune {
		if r < 128 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_", r)) {
			return r
		}
		return '-'
	}
	return strings.Map(ok, name)
}
