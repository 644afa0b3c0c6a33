package ca

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"adit/pki"
)

// CA is an authority that is open: locked until Close, so that two commands at a time
// come one after the other.
type CA struct {
	Identity
	dir  string
	lock *os.File
	now  func() time.Time
}

// Entry is a certificate that was issued.
type Entry struct {
	Serial   string // hexadecimal
	Kind     string
	Name     string
	NotAfter time.Time
	Revoked  time.Time // zero: it counts
	Reason   string    // of the revocation
}

// Files of the directory: the CA's key (mode 0600) and certificate, the list of what it
// issued (a certificate a line), and each certificate as issued/SERIAL.pem.
const (
	fileKey  = "ca.key"
	fileCert = "ca.pem"
	fileList = "list"
	dirCerts = "issued"
)

// maxEntries bounds the list.
const maxEntries = 1_000_000

// Reasons of revocation (RFC 5280 §5.3.1), by the words of the command line.
var Reasons = map[string]int{"unspecified": 0, "key-compromise": 1, "affiliation-changed": 3, "superseded": 4, "cessation": 5}

// ErrNone is wrapped where no authority lies in the directory.
var ErrNone = errors.New("there is no authority: make one with adit pki init")

// Init makes an authority in a directory, which holds none yet.
func Init(dir, name, kind string, days int) (*CA, error) {
	if days < 1 {
		return nil, fmt.Errorf("a lifetime of %d days", days)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	c, err := locked(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(filepath.Join(dir, fileKey)); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s has an authority already", dir)
	}
	if c.Identity, err = selfSigned(name, kind, days, c.now()); err == nil {
		var key []byte
		if key, err = c.KeyPEM(); err == nil {
			err = WriteFile(filepath.Join(dir, fileKey), key, 0o600)
			clear(key)
		}
	}
	if err == nil {
		err = WriteFile(filepath.Join(dir, fileCert), c.CertPEM(), 0o644)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Open opens the authority of a directory.
func Open(dir string) (*CA, error) {
	c, err := locked(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNone)
	}
	if err != nil {
		return nil, err
	}
	if err := c.read(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *CA) read() error {
	key, err := os.ReadFile(filepath.Join(c.dir, fileKey))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", c.dir, ErrNone)
	}
	if err != nil {
		return err
	}
	defer clear(key)
	if c.Key, err = pki.ParsePrivateKey(key, nil); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(c.dir, fileKey), err)
	}
	if c.Cert, err = readCert(filepath.Join(c.dir, fileCert)); err != nil {
		return err
	}
	if !c.Cert.Matches(c.Key) {
		return fmt.Errorf("%s: %s is not the key of %s", c.dir, fileKey, fileCert)
	}
	return nil
}

func readCert(name string) (*pki.Certificate, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	list, err := pki.ParseCertificates(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return list[0], nil
}

func locked(dir string) (*CA, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		d.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return &CA{dir: dir, lock: d, now: time.Now}, nil
}

// Close lets others in.
func (c *CA) Close() { _ = c.lock.Close() }

// Gateway issues a gateway's certificate with a new key; crl are URIs of the CRL, for
// others than our own gateways.
func (c *CA) Gateway(names []string, kind string, days int, crl []string) (Identity, error) {
	t, err := gatewayTemplate(names)
	if err != nil {
		return Identity{}, err
	}
	t.CRLDistributionPoints = crl
	return c.issue(t, KindGateway, names[0], kind, days)
}

// User issues a user's certificate with a new key: one for each device, so that one
// that is lost is revoked alone.
func (c *CA) User(name, kind string, days int, crl []string) (Identity, error) {
	t, err := userTemplate(name)
	if err != nil {
		return Identity{}, err
	}
	t.CRLDistributionPoints = crl
	return c.issue(t, KindUser, name, kind, days)
}

// Renew issues the latest certificate of a name anew, with a new key and the names,
// kind of key and lifetime that it had. The old one counts until it expires.
func (c *CA) Renew(name string) (Identity, string, error) {
	list, err := c.List()
	if err != nil {
		return Identity{}, "", err
	}
	for _, e := range slices.Backward(list) {
		if e.Name != name || !e.Revoked.IsZero() {
			continue
		}
		old, err := readCert(filepath.Join(c.dir, dirCerts, e.Serial+".pem"))
		if err != nil {
			return Identity{}, "", err
		}
		x := old.X509
		t := &x509.Certificate{Subject: x.Subject, KeyUsage: x.KeyUsage, ExtKeyUsage: x.ExtKeyUsage, UnknownExtKeyUsage: x.UnknownExtKeyUsage, BasicConstraintsValid: true,
			DNSNames: x.DNSNames, IPAddresses: x.IPAddresses, EmailAddresses: x.EmailAddresses, CRLDistributionPoints: x.CRLDistributionPoints}
		i, err := c.issue(t, e.Kind, e.Name, keyKind(old), int(x.NotAfter.Sub(x.NotBefore)/(24*time.Hour)))
		return i, e.Kind, err
	}
	return Identity{}, "", fmt.Errorf("%s: no certificate of that name counts", name)
}

func keyKind(c *pki.Certificate) string {
	switch k := c.PublicKey.(type) {
	case interface{ Size() int }: // RSA
		if k.Size() > 256 {
			return RSA3072
		}
		return RSA2048
	default:
		if len(c.X509.RawSubjectPublicKeyInfo) > 100 {
			return P384
		}
		return P256
	}
}

func (c *CA) issue(t *x509.Certificate, kind, name, key string, days int) (Identity, error) {
	switch {
	case days < 1 || days > maxLeafDays:
		return Identity{}, fmt.Errorf("a lifetime of %d days: 1 to %d are possible, since Apple refuses more", days, maxLeafDays)
	case c.now().AddDate(0, 0, days).After(c.Cert.X509.NotAfter):
		return Identity{}, fmt.Errorf("the authority itself ends on %s, before a certificate of %d days", c.Cert.X509.NotAfter.Format(time.DateOnly), days)
	}
	signer, err := NewKey(key)
	if err != nil {
		return Identity{}, err
	}
	t.SerialNumber = serial()
	lifetime(t, c.now(), days)
	i, err := sign(t, c.Cert.X509, signer, c.Key)
	if err != nil {
		return Identity{}, err
	}
	e := Entry{Serial: i.Cert.Serial(), Kind: kind, Name: name, NotAfter: i.Cert.X509.NotAfter}
	list, err := c.List()
	if err == nil && len(list) >= maxEntries {
		err = fmt.Errorf("more than %d certificates", maxEntries)
	}
	if err == nil {
		err = os.MkdirAll(filepath.Join(c.dir, dirCerts), 0o700)
	}
	if err == nil {
		err = WriteFile(filepath.Join(c.dir, dirCerts, e.Serial+".pem"), i.CertPEM(), 0o644)
	}
	if err == nil {
		err = c.write(append(list, e)) // before it is handed out: what counts can be revoked
	}
	return i, err
}

// Revoke takes back the certificates of a name, or the one of a serial number, that
// count; reason is one of Reasons.
func (c *CA) Revoke(what, reason string) (revoked []Entry, err error) {
	if _, ok := Reasons[reason]; !ok {
		return nil, fmt.Errorf("no reason %q", reason)
	}
	list, err := c.List()
	if err != nil {
		return nil, err
	}
	for i := range list {
		e := &list[i]
		if (e.Name == what || e.Serial == strings.ToLower(what)) && e.Revoked.IsZero() {
			e.Revoked, e.Reason = c.now().UTC().Truncate(time.Second), reason
			revoked = append(revoked, *e)
		}
	}
	if len(revoked) == 0 {
		return nil, fmt.Errorf("%s: no certificate of that name or serial number counts", what)
	}
	return revoked, c.write(list)
}

// CRL is the list of what is revoked (RFC 5280 §5), PEM, which counts for so many days.
func (c *CA) CRL(days int) ([]byte, error) {
	list, err := c.List()
	if err != nil {
		return nil, err
	}
	now := c.now().UTC().Truncate(time.Second)
	t := &x509.RevocationList{Number: big.NewInt(c.now().UnixMilli()), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.AddDate(0, 0, days)}
	for _, e := range list {
		if e.Revoked.IsZero() {
			continue
		}
		b, err := hex.DecodeString(e.Serial)
		if err != nil {
			return nil, err
		}
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: new(big.Int).SetBytes(b), RevocationTime: e.Revoked, ReasonCode: Reasons[e.Reason]})
	}
	der, err := x509.CreateRevocationList(rand.Reader, t, c.Cert.X509, c.Key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), nil
}

// List is what was issued, the oldest first.
func (c *CA) List() ([]Entry, error) {
	b, err := os.ReadFile(filepath.Join(c.dir, fileList))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := ParseList(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(c.dir, fileList), err)
	}
	return list, nil
}

// ParseList reads the list's text: SERIAL KIND NAME NOTAFTER REVOKED REASON, the last
// two - if it counts.
func ParseList(b []byte) (list []Entry, err error) {
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 6 || n > maxEntries {
			return nil, fmt.Errorf("line %d: %d words instead of 6, or too many lines", n, len(f))
		}
		e := Entry{Serial: f[0], Kind: f[1], Name: f[2]}
		if b, err := hex.DecodeString(e.Serial); err != nil || len(b) == 0 || len(b) > 20 {
			return nil, fmt.Errorf("line %d: the serial number", n)
		}
		if e.NotAfter, err = time.Parse(time.RFC3339, f[3]); err != nil {
			return nil, fmt.Errorf("line %d: the end", n)
		}
		if f[4] != "-" {
			if e.Revoked, err = time.Parse(time.RFC3339, f[4]); err != nil {
				return nil, fmt.Errorf("line %d: the time of revocation", n)
			}
			e.Reason = f[5]
		}
		list = append(list, e)
	}
	return list, nil
}

func (c *CA) write(list []Entry) error {
	var b strings.Builder
	for _, e := range list {
		revoked, reason := "-", "-"
		if !e.Revoked.IsZero() {
			revoked, reason = e.Revoked.Format(time.RFC3339), e.Reason
		}
		fmt.Fprintln(&b, e.Serial, e.Kind, e.Name, e.NotAfter.Format(time.RFC3339), revoked, reason)
	}
	return WriteFile(filepath.Join(c.dir, fileList), []byte(b.String()), 0o600)
}

// WriteFile replaces a file in one step, with its mode from the beginning.
func WriteFile(name string, b []byte, mode fs.FileMode) error {
	t, err := os.CreateTemp(filepath.Dir(name), ".adit-*")
	if err != nil {
		return err
	}
	defer os.Remove(t.Name())
	_, err = t.Write(b)
	if err = errors.Join(err, t.Chmod(mode), t.Sync(), t.Close()); err != nil {
		return err
	}
	return os.Rename(t.Name(), name)
}
