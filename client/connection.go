package client

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"adit/conf"
	"adit/ike"
	"adit/internal/config"
	"adit/internal/conn"
	"adit/pki"
	"adit/suite"
)

// connection is what will be loaded: a swanctl.conf of one connection with one child.
type connection struct {
	tree        *conf.Section
	dir         string // of the profile, empty: there is none
	name, child string
	hosts       []string // that lead to the gateway
	port        uint16
	id          string // that the gateway must have
	user        string // whose password is needed, empty: none is
	systemCAs   bool
}

// newConnection makes it out of the options, or out of the profile.
func newConnection(o *Options) (*connection, error) {
	if o.Profile != "" {
		return readProfile(o)
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	host, port, err := o.split()
	if err != nil {
		return nil, err
	}
	c := &connection{tree: conf.New(""), name: "client", child: "net", hosts: []string{host}, port: port}
	s := c.tree.Add("connections").Add(c.name)
	local, remote := s.Add("local"), s.Add("remote")
	local.Set("auth", string(o.method()))
	if o.User != "" {
		local.Set("id", o.User)
		if o.method() != Certificate {
			local.Set("eap_id", o.User)
		}
	}
	remote.Set("auth", "pubkey")
	remote.Set("id", host)
	if o.GatewayID != "" {
		remote.Set("id", o.GatewayID)
	}
	inline(remote, "cacerts", o.CAs)
	if len(o.Subnets) > 0 {
		var list []string
		for _, p := range o.Subnets {
			list = append(list, p.String())
		}
		s.Add("children").Add(c.child).SetList("remote_ts", list...)
	} else {
		s.Add("children").Add(c.child)
	}
	c.complete(s, o)
	return c, nil
}

// inline puts certificates into the tree as they are.
func inline(s *conf.Section, key string, list [][]byte) {
	var text []string
	for _, der := range list {
		text = append(text, "0s"+base64.StdEncoding.EncodeToString(der))
	}
	if len(text) > 0 {
		s.SetList(key, text...)
	}
}

// maxProfile bounds a profile in bytes.
const maxProfile = 4 << 20

// readProfile takes the one connection of a file.
func readProfile(o *Options) (*connection, error) {
	if fi, err := os.Stat(o.Profile); err == nil && fi.Size() > maxProfile {
		return nil, fmt.Errorf("client: %s has more than %d bytes", o.Profile, maxProfile)
	}
	tree, err := conf.ParseFile(o.Profile)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(filepath.Dir(o.Profile))
	if err != nil {
		return nil, err
	}
	c := &connection{tree: tree, dir: dir}
	one := func(of *conf.Section, what string) (*conf.Section, error) {
		var list []*conf.Section
		for s := range of.Sections() {
			list = append(list, s)
		}
		if len(list) != 1 {
			return nil, fmt.Errorf("client: %s has %d %s, a client's profile has one", o.Profile, len(list), what)
		}
		return list[0], nil
	}
	s, err := one(tree.Sub("connections"), "connections")
	if err != nil {
		return nil, err
	}
	child, err := one(s.Sub("children"), "children")
	if err != nil {
		return nil, err
	}
	c.name, c.child = s.Name, child.Name
	if v, ok := s.Get("remote_addrs"); ok {
		c.hosts = v.Strings()
	}
	if len(c.hosts) == 0 {
		return nil, fmt.Errorf("client: %s: connections.%s.remote_addrs names no gateway", o.Profile, c.name)
	}
	c.complete(s, o)
	return c, nil
}

// complete gives the connection what a client's has: addresses from the gateway, ESP in
// UDP whatever lies between, to be brought back whenever it is lost.
func (c *connection) complete(s *conf.Section, o *Options) {
	def := func(s *conf.Section, key string, items ...string) {
		if _, ok := s.Get(key); !ok {
			s.SetList(key, items...)
		}
	}
	set := func(s *conf.Section, key, text string) {
		if _, ok := s.Get(key); !ok {
			s.Set(key, text)
		}
	}
	set(s, "version", "2")
	def(s, "vips", "0.0.0.0", "::")
	set(s, "remote_port", strconv.Itoa(int(cmp.Or(c.port, conn.PortNATT))))
	set(s, "dpd_delay", "20s")
	s.Set("encap", "yes")
	s.Set("mobike", "yes")
	child := s.Add("children").Add(c.child)
	def(child, "remote_ts", "0.0.0.0/0", "::/0")
	child.Set("keep_up", "yes")
	local, remote := s.Sub("local"), s.Sub("remote")
	c.id = remote.Text("id")
	if m := local.Text("auth"); strings.HasPrefix(m, "eap") && m != string(EAPTLS) && c.tree.Sub("secrets").Len() == 0 {
		c.user = local.Text("eap_id")
		if c.user == "" {
			c.user = local.Text("id")
		}
	}
	if len(o.Certificates) > 0 && local != nil {
		inline(local, "certs", o.Certificates[:1])
	}
	if len(o.CAs) > 0 && remote != nil && o.Profile != "" {
		inline(remote, "cacerts", o.CAs)
	}
	if _, ok := remote.Get("cacerts"); !ok && len(o.CAs) == 0 {
		if _, ok := remote.Get("certs"); !ok {
			c.systemCAs = true
			set(s, "send_certreq", "no") // a request would name each of them
		}
	}
}

// model decodes the connection with the gateway's addresses and the user's secrets. The
// password is the model's from here on.
func (c *connection) model(o *Options, to []netip.Addr, password suite.Key, daemon config.Daemon) (*config.Model, error) {
	var list []string
	for _, a := range to {
		list = append(list, a.String())
	}
	c.tree.Sub("connections").Sub(c.name).SetList("remote_addrs", list...)
	m, err := c.decode(daemon)
	if err != nil {
		return nil, err
	}
	if len(password) > 0 {
		id, err := ike.ParseIdentity(c.user)
		if err != nil {
			return nil, fmt.Errorf("client: user %q: %w", c.user, err)
		}
		m.Secrets = append(m.Secrets, config.Secret{ID: "eap-client", Kind: config.SecretEAP, Key: password, Owners: []ike.Identity{id}})
	}
	if o.Key != nil {
		id, err := pki.KeyID(o.Key.Public())
		if err != nil {
			return nil, err
		}
		m.Keys = append(m.Keys, config.Key{ID: hex.EncodeToString(id[:]), Signer: o.Key})
	}
	for _, p := range m.Peers { // the CAs that are demanded are trusted, too
		for _, r := range p.Remote {
			for _, der := range r.CACerts {
				m.Certs = append(m.Certs, config.Cert{Kind: config.CertX509, Flag: "CA", DER: der})
			}
		}
	}
	for i, der := range o.Certificates {
		if i > 0 {
			m.Certs = append(m.Certs, config.Cert{Kind: config.CertX509, Flag: "NONE", DER: der})
		}
	}
	if c.systemCAs && !slices.ContainsFunc(m.Certs, func(x config.Cert) bool { return x.Flag == "CA" }) {
		roots, err := systemCAs()
		if err != nil {
			return nil, err
		}
		m.Certs = append(m.Certs, roots...)
	}
	return m, nil
}

func (c *connection) decode(daemon config.Daemon) (*config.Model, error) {
	if c.dir == "" {
		return config.Decode(c.tree, daemon)
	}
	return config.DecodeBeside(c.tree, c.dir, daemon)
}

// systemFiles are where distributions keep the CAs that they trust, in one file
// (crypto/x509 looks there, too, but does not give the certificates away).
var systemFiles = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem"}

// systemCAs are the CAs that the system trusts; $SSL_CERT_FILE names another file.
func systemCAs() (out []config.Cert, err error) {
	files := systemFiles
	if f := os.Getenv("SSL_CERT_FILE"); f != "" {
		files = []string{f}
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		certs, err := pki.ParseCertificates(b)
		if err != nil {
			return nil, fmt.Errorf("client: %s: %w", f, err)
		}
		for _, c := range certs {
			if c.IsCA() {
				out = append(out, config.Cert{Kind: config.CertX509, Flag: "CA", DER: c.DER()})
			}
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	return nil, errors.New("client: the system has no file of CA certificates: name the gateway's CA")
}

// LoadCertificates reads certificates from a file, PEM or DER, as DER.
func LoadCertificates(file string) (out [][]byte, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	certs, err := pki.ParseCertificates(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, c := range certs {
		out = append(out, c.DER())
	}
	return out, nil
}

// LoadKey reads a private key from a file, PEM or DER; passphrase is asked if it needs one.
func (o *Options) LoadKey(file string, passphrase func() string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	defer suite.Key(b).Zero()
	if o.Key, err = pki.ParsePrivateKey(b, passphrase); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// LoadPKCS12 takes key, certificate and what goes with it from a file; passphrase is asked
// if the empty one does not open it.
func (o *Options) LoadPKCS12(file string, passphrase func() string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	defer suite.Key(b).Zero()
	key, own, more, err := pki.ParsePKCS12(b, "")
	if errors.Is(err, pki.ErrPassphrase) {
		key, own, more, err = pki.ParsePKCS12(b, passphrase())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	o.Key, o.Certificates = key, [][]byte{own.DER()}
	for _, c := range more {
		// The CA that comes with the user's certificate is the gateway's, too, unless one is named.
		o.Certificates = append(o.Certificates, c.DER())
		if x, err := x509.ParseCertificate(c.DER()); err == nil && x.IsCA && len(o.CAs) == 0 && o.Profile == "" {
			o.CAs = append(o.CAs, c.DER())
		}
	}
	return nil
}

func zero(password []byte) { suite.Key(password).Zero() }

// secret asks for the password, if there is one to be asked for.
func (c *connection) secret(ctx context.Context, o *Options) (suite.Key, error) {
	if c.user == "" {
		return nil, nil
	}
	if o.Password == nil {
		return nil, fmt.Errorf("client: %s needs a password", c.user)
	}
	b, err := o.Password(ctx)
	if err != nil {
		return nil, err
	}
	defer zero(b)
	if len(b) == 0 {
		return nil, errors.New("client: the password is empty")
	}
	return slices.Clone(b), nil
}
