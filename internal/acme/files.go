package acme

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"adit/internal/ca"
	"adit/internal/config"
	"adit/pki"
)

// Files of the directory, all of mode 0600: NAME.pem with the private key, the
// certificate and those above it (one file, so that key and certificate are replaced
// in one step), NAME.json with the state, account-….key of each authority.

// maxFile bounds what is read.
const maxFile = 1 << 20

// maxChain bounds what an authority sends.
const maxChain = 10

// Identity is a certificate, behind it those above it, and the key.
type Identity struct {
	Chain []*pki.Certificate
	Key   crypto.Signer
}

func (k *Keeper) file(name, ext string) string { return filepath.Join(k.o.Dir, name+ext) }

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return b, err
}

// read is the certificate that there is, nil if there is none.
func (k *Keeper) read(name string) (*Identity, error) {
	path := k.file(name, ".pem")
	b, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer clear(b)
	key, err := pki.ParsePrivateKey(b, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	id, err := identity(b, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &id, nil
}

// identity is a chain in PEM with its key. A root at its end is left out: peers have it.
func identity(chain []byte, key crypto.Signer) (Identity, error) {
	certs, err := pki.ParseCertificates(chain)
	switch {
	case err != nil:
		return Identity{}, err
	case len(certs) > maxChain:
		return Identity{}, fmt.Errorf("a chain of %d certificates", len(certs))
	case !certs[0].Matches(key):
		return Identity{}, errors.New("the first certificate is not the key's")
	case certs[0].IsCA():
		return Identity{}, errors.New("the first certificate is an authority's")
	}
	for i, c := range certs[1:] {
		if !c.IsCA() {
			return Identity{}, fmt.Errorf("certificate %d is no authority's: %s", i+2, c.Subject())
		}
	}
	if last := certs[len(certs)-1]; len(certs) > 1 && last.SelfIssued() {
		certs = certs[:len(certs)-1]
	}
	return Identity{certs, key}, nil
}

func (k *Keeper) write(name string, id Identity) error {
	var b bytes.Buffer
	key, err := pki.KeyPEM(id.Key)
	if err != nil {
		return err
	}
	b.Write(key)
	clear(key)
	for _, c := range id.Chain {
		b.Write(c.PEM())
	}
	defer clear(b.Bytes())
	return k.writeFile(k.file(name, ".pem"), b.Bytes())
}

// writeFile replaces a file. What root writes into the directory of a gateway that has
// a user of its own belongs to that user.
func (k *Keeper) writeFile(path string, b []byte) error {
	if err := k.makeDir(); err != nil {
		return err
	}
	if err := ca.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	return ownAs(path, k.o.Dir)
}

func (k *Keeper) makeDir() error {
	if _, err := os.Stat(k.o.Dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(k.o.Dir, 0o700); err != nil {
		return err
	}
	return ownAs(k.o.Dir, filepath.Dir(k.o.Dir))
}

func ownAs(path, like string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	fi, err := os.Stat(like)
	if err != nil {
		return err
	}
	if s, ok := fi.Sys().(*syscall.Stat_t); ok && s.Uid != 0 {
		return os.Lchown(path, int(s.Uid), int(s.Gid))
	}
	return nil
}

// readState reads what was noted; what cannot be read was not.
func (k *Keeper) readState(name string) (st state) {
	b, err := readFile(k.file(name, ".json"))
	if err == nil && json.Unmarshal(b, &st) != nil {
		st = state{}
	}
	return st
}

func (k *Keeper) writeState(name string, st state) {
	path := k.file(name, ".json")
	b, err := json.MarshalIndent(st, "", "  ")
	if err == nil {
		b = append(b, '\n')
		if old, e := readFile(path); e == nil && bytes.Equal(old, b) {
			return
		}
		err = k.writeFile(path, b)
	}
	if err != nil {
		k.o.Log.Warn("the state of a certificate was not written: "+err.Error(), "certificate", name)
	}
}

// accountKey is the key of our account at an authority, made if there is none: fresh.
func (k *Keeper) accountKey(c config.ACME) (key crypto.Signer, fresh bool, err error) {
	sum := sha256.Sum256([]byte(c.Directory + "\n" + c.EABKeyID))
	path := k.file("account-"+hex.EncodeToString(sum[:8]), ".key")
	b, err := readFile(path)
	if err == nil {
		defer clear(b)
		if key, err = pki.ParsePrivateKey(b, nil); err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
		return key, false, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	if key, err = ca.NewKey(ca.P256); err != nil {
		return nil, false, err
	}
	pem, err := pki.KeyPEM(key)
	if err != nil {
		return nil, false, err
	}
	defer clear(pem)
	return key, true, k.writeFile(path, pem)
}
