package tunnel

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"adit/interop/lab"
)

func findOpenVPN(context.Context, *Options) (string, error) {
	path, err := exec.LookPath("openvpn")
	if err != nil {
		return "", fmt.Errorf("%w: openvpn (Debian: openvpn)", errMissing)
	}
	out, _ := exec.Command(path, "--version").Output() // its exit code is 1
	f := strings.Fields(string(out))
	if len(f) < 2 {
		return "OpenVPN (version unknown)", nil
	}
	return "OpenVPN " + f[1], nil
}

// startOpenVPN runs it point to point with TLS, both addresses fixed, its data channel
// in the process (no DCO).
func startOpenVPN(ctx context.Context, l *lab.Lab, _ *Options) (*running, error) {
	if err := certificates(l.Dir, "left", "right"); err != nil {
		return nil, err
	}
	const completed = "Initialization Sequence Completed"
	r := &running{cipher: "AES-256-GCM"}
	var procs []*lab.Proc
	r.logs = func() (s string) {
		for _, p := range procs {
			s += p.Log()
		}
		return s
	}
	ends := []struct {
		node, name, role, tunnel, peer string
		me, other                      lab.Addresses
	}{
		{lab.Left, "left", "--tls-server", "10.9.0.1", "10.9.0.2", l.L, l.R},
		{lab.Right, "right", "--tls-client", "10.9.0.2", "10.9.0.1", l.R, l.L},
	}
	for _, e := range ends {
		file := func(suffix string) string { return filepath.Join(l.Dir, e.name+suffix) }
		args := []string{"openvpn", "--dev", "tun0", "--dev-type", "tun", "--mode", "p2p", e.role, "--proto", "udp",
			"--local", e.me.Wan4.String(), "--remote", e.other.Wan4.String(), "--ifconfig", e.tunnel, e.peer,
			"--ca", filepath.Join(l.Dir, "ca.crt"), "--cert", file(".crt"), "--key", file(".key"),
			"--cipher", "AES-256-GCM", "--data-ciphers", "AES-256-GCM", "--disable-dco", "--verb", "3"}
		if e.role == "--tls-server" {
			args = append(args, "--dh", "none")
		}
		p, err := l.Start(e.node, nil, args...)
		if err != nil {
			return r, err
		}
		procs, r.pids = append(procs, p), append(r.pids, p.PID())
	}
	for i, e := range ends {
		err := lab.Poll(setupTimeout, func() (bool, error) {
			select {
			case <-procs[i].Done():
				return false, errors.New("openvpn ended")
			case <-ctx.Done():
				return false, ctx.Err()
			default:
			}
			return strings.Contains(procs[i].Log(), completed), nil
		})
		if err != nil {
			return r, err
		}
		if _, err := l.Exec(commandTimeout, e.node, "ip", "route", "add", e.other.Inner4.String(), "dev", "tun0"); err != nil {
			return r, err
		}
	}
	return r, nil
}

// certificates makes an authority and a certificate with P-256 keys for each name, as
// PEM files in a directory. The authority's key isn't kept.
func certificates(dir string, names ...string) error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign}
	ca, err := x509.CreateCertificate(rand.Reader, root, root, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	write := func(name, kind string, der []byte) error {
		return os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	}
	errs := []error{write("ca.crt", "CERTIFICATE", ca)}
	for i, name := range names {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		leaf := &x509.Certificate{SerialNumber: big.NewInt(int64(2 + i)), Subject: pkix.Name{CommonName: name}, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
		der, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), caKey)
		if err != nil {
			return err
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		errs = append(errs, write(name+".crt", "CERTIFICATE", der), write(name+".key", "PRIVATE KEY", private))
	}
	return errors.Join(errs...)
}
