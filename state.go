package adit

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"adit/internal/cluster"
	"adit/internal/config"
	"adit/suite"
)

// crashSecretLen is the length of the secret of crash detection in bytes.
const crashSecretLen = 32

// crashSecret reads, or makes, the secret that crash detection's tokens come of. It
// lies in the state directory with mode 0600 and is locked while the gateway runs: two
// gateways with one secret would tell the tokens of each other's tunnels (RFC 6290
// §9). Without it the secret is nil, and no tokens are made.
func crashSecret(dir string) (secret suite.Key, release func(), err error) {
	release = func() {}
	dir = config.StateDir(dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, release, err
	}
	path := filepath.Join(dir, "crash.key")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, release, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errors.New("another gateway uses it: give each an adit.state_dir of its own")
		}
		return nil, release, fmt.Errorf("%s: %w", path, err)
	}
	if secret, err = secretIn(f); err != nil {
		f.Close()
		return nil, release, fmt.Errorf("%s: %w", path, err)
	}
	return secret, func() { f.Close() }, nil
}

// leaseStore is what keeps the leases of addresses. It costs nothing before a
// connection gives any.
func leaseStore(d *config.Daemon, log *slog.Logger) *cluster.Store {
	l := d.Leases
	return cluster.New(cluster.Config{URL: l.NATS, Dir: cmp.Or(l.Dir, filepath.Join(config.StateDir(d.StateDir), "leases")), Credentials: l.Credentials,
		CA: l.CA, Bucket: l.Bucket, Gateway: l.Gateway, Replicas: l.Replicas, Log: log})
}

// ticketSecret is the secret of session tickets, which follows from that of crash detection.
func ticketSecret(secret suite.Key) suite.Key {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte("adit session tickets"))
	return m.Sum(nil)
}

// secretIn is the secret that the file holds. One that is cut short, by a crash while
// it was written, or that others could read, is made anew: old tokens fit no more then.
func secretIn(f *os.File) (suite.Key, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is no regular file")
	}
	secret := make(suite.Key, crashSecretLen)
	if n, _ := f.ReadAt(secret, 0); n == crashSecretLen && info.Size() == crashSecretLen && info.Mode().Perm()&0o077 == 0 {
		return secret, nil
	}
	rand.Read(secret)
	if err := errors.Join(f.Chmod(0o600), f.Truncate(0)); err != nil {
		return nil, err
	}
	if _, err := f.WriteAt(secret, 0); err != nil {
		return nil, err
	}
	return secret, f.Sync()
}
