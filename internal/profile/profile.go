// Package profile writes what a device needs to connect: an Apple configuration
// profile, a PowerShell script, strongSwan's profile for Android, a keyfile of
// NetworkManager, and swanctl.conf for strongSwan and adit.
//
// It owns these formats and what each system can do. All comes from a connection that
// the gateway has loaded ([Of]); the package must not know users' files, the authority
// or how a profile gets to its device.
//
// Start with [Profile] and [Profile.For].
package profile

import (
	"cmp"
	"crypto"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strings"
	"unicode"

	"adit/pki"
	"adit/suite"
)

// Profile is one person's way to one connection of a gateway.
type Profile struct {
	Name     string // of the connection, for people
	Gateway  string // host name or address to connect to
	RemoteID string // who the gateway must prove to be

	User     string
	Password string // empty: the device asks for it

	// With a certificate: its key, the passphrase for PKCS#12, and whether the gateway
	// asks for it in EAP-TLS rather than in IKE.
	Cert       *pki.Certificate
	Key        crypto.Signer
	Passphrase string
	EAPTLS     bool

	// CA is the authority of the gateway's certificate; nil: one that systems know.
	CA *pki.Certificate
	// Root is that one, for clients that do not look into the system; may be nil.
	Root *pki.Certificate
	// Issuer is the common name of who issued the gateway's certificate, and Unasked
	// says that the gateway sends it also to who does not ask for it.
	Issuer  string
	Unasked bool

	// Subnets are reached through the tunnel; none: everything is.
	Subnets []netip.Prefix
	Domains []string // that the tunnel's name servers know

	IKE, ESP []suite.Proposal // that the gateway takes

	OnDemand bool // Apple: the tunnel comes up by itself
}

// File is a file of a profile.
type File struct {
	Name   string // may have one directory
	Type   string // media type
	Data   []byte
	Secret bool // it has a password or a key
}

// Systems that profiles are for, in the order of listings.
var Systems = []string{"ios", "macos", "windows", "android", "strongswan", "networkmanager", "adit"}

// For writes the profile for a system, one of Systems.
func (p *Profile) For(system string) ([]File, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	switch system {
	case "ios", "macos":
		return p.apple(system == "macos")
	case "windows":
		return p.windows()
	case "android":
		return p.android()
	case "networkmanager":
		return p.networkManager()
	case "strongswan":
		return p.swanctl(cmp.Or(p.CA, p.Root), classic(keywords(p.IKE)), classic(keywords(p.ESP)))
	case "adit":
		return p.swanctl(p.CA, keywords(p.IKE), keywords(p.ESP))
	}
	return nil, fmt.Errorf("no profiles for %q: use one of %s", system, strings.Join(Systems, ", "))
}

// withCert says whether the user has a certificate instead of a password.
func (p *Profile) withCert() bool { return p.Cert != nil }

// check refuses what no format could carry. Names and passwords come from files and
// command lines, and end in scripts that run as administrator: each format quotes them,
// and control characters are refused for all.
func (p *Profile) check() error {
	for what, s := range map[string]string{"name": p.Name, "gateway": p.Gateway, "remote identity": p.RemoteID, "user": p.User} {
		if s == "" || len(s) > 253 {
			return fmt.Errorf("the %s of the profile has %d characters instead of 1 to 253", what, len(s))
		}
	}
	for what, s := range map[string]string{"name": p.Name, "gateway": p.Gateway, "remote identity": p.RemoteID, "user": p.User, "password": p.Password, "passphrase": p.Passphrase, "domain": strings.Join(p.Domains, "")} {
		if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return fmt.Errorf("the %s of the profile has a character that cannot be printed", what)
		}
	}
	if p.withCert() && (p.Key == nil || p.Passphrase == "") {
		return fmt.Errorf("the certificate of %s comes without key or passphrase", p.User)
	}
	return nil
}

// fileName is a name for files made of the connection's and the user's.
func (p *Profile) fileName(ext string) string {
	safe := func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_.@", r) {
			return r
		}
		return '-'
	}
	return strings.TrimLeft(strings.Map(safe, p.Name+"-"+p.User), ".-") + ext
}

// uuid names a part of the profile: the same each time, so that a profile that is
// installed again replaces itself (RFC 9562 §5.8).
func (p *Profile) uuid(part string) string {
	h := sha256.Sum256([]byte(strings.Join([]string{"adit profile", p.Gateway, p.Name, p.User, part}, "\x00")))
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// pkcs12 is the user's certificate with key and authority.
func (p *Profile) pkcs12(legacy bool) ([]byte, error) {
	var cas []*pki.Certificate
	if p.CA != nil {
		cas = append(cas, p.CA)
	}
	return pki.EncodePKCS12(p.Key, p.Cert, cas, p.Passphrase, legacy)
}

// Probe says whether the system can use the connection at all, without the user's
// password or certificate.
func (p *Profile) Probe(system string) ([]File, error) {
	q := *p
	q.Cert, q.Key, q.Password = nil, nil, ""
	return q.For(system)
}
