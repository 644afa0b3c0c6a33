package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"adit/interop/lab"
)

// strongSwan 6.1 has ML-KEM and RFC 9370, and is newer than the Debian that the tests
// run on: it is unpacked from Debian's sid into a directory of its own and runs there
// by chroot. Nothing of the host changes. The directory is kept between runs, outside of
// the repository, in $ADIT_PEERS or else /var/cache/adit/peers; to have newer packages
// remove it.

// newerPackages are what the daemon needs, and the programs that scripts of packages
// which are not installed would want.
var newerPackages = []string{"charon-systemd", "libcharon-extra-plugins", "libcharon-extauth-plugins", "libstrongswan-standard-plugins",
	"libstrongswan-extra-plugins", "dash", "libc-bin", "debianutils", "mount", "coreutils"}

// newerPlugins is defaultPlugins without what 6.1 no longer has.
const newerPlugins = "random nonce x509 openssl pem pkcs1 pkcs8 pubkey constraints revocation hmac kdf drbg counters " +
	"vici kernel-libipsec kernel-netlink socket-default updown attr"

const fetchTimeout = 4 * time.Minute

// NewerStrongSwan prepares strongSwan 6.1 or later in a node of a lab. It is not started.
// An error tells why it cannot be had.
func NewerStrongSwan(l *lab.Lab, node string, o StrongSwanOptions) (Gateway, error) {
	root, err := newerRoot()
	if err != nil {
		return nil, fmt.Errorf("strongSwan 6.1 of Debian sid can't be had (no network? set ADIT_PEERS to a directory that has it): %w", err)
	}
	if o.Plugins == "" {
		o.Plugins = newerPlugins
	}
	g, err := StrongSwan(l, node, o)
	if err != nil {
		return nil, err
	}
	d := g.(*daemon)
	// The mounts are the process's own and go with it.
	d.argv = []string{"unshare", "-m", "--propagation", "private", "sh", "-ec",
		`for d in dev proc sys tmp run; do mount --rbind /$d "$0/$d"; done; exec chroot "$0" ` + charon, root}
	d.version = func(*daemon) string {
		b, err := os.ReadFile(filepath.Join(root, "version"))
		if err != nil {
			return "strongSwan (version unknown)"
		}
		return "strongSwan " + strings.TrimSpace(string(b))
	}
	return d, nil
}

// newerRoot is the directory with strongSwan 6.1, made if it is not there.
var newerRoot = sync.OnceValues(func() (string, error) {
	base := os.Getenv("ADIT_PEERS")
	if base == "" {
		base = "/var/cache/adit/peers"
	}
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	lock, err := os.Create(filepath.Join(base, "lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	root := filepath.Join(base, "strongswan-sid")
	if _, err := os.Stat(filepath.Join(root, "version")); err == nil {
		return root, nil
	}
	if err := os.RemoveAll(root); err != nil {
		return "", err
	}
	fetched, err := os.MkdirTemp(base, "fetch")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fetched)
	if err := fetchNewer(fetched); err != nil {
		return "", err
	}
	return root, unpackNewer(fetched, root)
})

// fetchNewer downloads the packages and all that they need, whatever the host has.
func fetchNewer(dir string) error {
	for _, sub := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	sources := "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: sid\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
	for name, text := range map[string]string{"sid.sources": sources, "status": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	apt := func(args ...string) error {
		all := []string{"-q", "-o", "Dir::Etc::sourcelist=" + filepath.Join(dir, "sid.sources"), "-o", "Dir::Etc::sourceparts=/dev/null",
			"-o", "Dir::State::lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache=" + dir, "-o", "Dir::Cache::archives=" + filepath.Join(dir, "archives"),
			"-o", "Dir::State::Status=" + filepath.Join(dir, "status"), "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"}
		return command("apt-get", append(all, args...)...)
	}
	if err := apt("update"); err != nil {
		return err
	}
	return apt(append([]string{"--yes", "--download-only", "--no-install-recommends", "install"}, newerPackages...)...)
}

// unpackNewer makes the directory of packages; the file version in it says that it is
// whole, and what it holds.
func unpackNewer(fetched, root string) error {
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(root, "usr", link), 0o755); err != nil {
			return err
		}
		if err := os.Symlink("usr/"+link, filepath.Join(root, link)); err != nil {
			return err
		}
	}
	debs, err := filepath.Glob(filepath.Join(fetched, "archives", "*.deb"))
	if err != nil || len(debs) == 0 {
		return errors.New("apt-get downloaded nothing")
	}
	version := ""
	for _, deb := range debs {
		if err := command("sh", "-c", `dpkg-deb --fsys-tarfile "$0" | tar -x --keep-directory-symlink -C "$1"`, deb, root); err != nil {
			return err
		}
		if name, rest, _ := strings.Cut(filepath.Base(deb), "_"); name == "charon-systemd" {
			version, _, _ = strings.Cut(rest, "_")
		}
	}
	for _, d := range []string{"dev", "proc", "sys", "tmp", "run"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(root, "version"), []byte(version+"\n"), 0o644)
}

func command(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		if len(out) > 2000 {
			out = out[len(out)-2000:]
		}
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}
