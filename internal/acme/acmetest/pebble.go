// Package acmetest runs Pebble, the ACME server of Let's Encrypt for tests, with a
// resolver that knows the names of a test.
//
// Start with [Build] and [Config]. Pebble is built once, of one version, into the user's
// cache; it is no dependency of the module.
package acmetest

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Version is that of Pebble.
const Version = "v2.10.3"

// Build builds Pebble, unless that was done before, and returns the program's path.
func Build() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "adit-test-pebble-"+Version)
	path := filepath.Join(dir, "pebble")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil { // two packages' tests at once
		return "", err
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	cmd := exec.Command("go", "install", "github.com/letsencrypt/pebble/v2/cmd/pebble@"+Version)
	cmd.Dir = dir // of no module
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-trimpath", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building Pebble %s: %w\n%s", Version, err, out)
	}
	return path, nil
}

// Config says how Pebble is run.
type Config struct {
	Listen, Manage    string // HOST:PORT of the directory and of the roots
	HTTPPort, TLSPort int    // where it looks for answers to challenges
	Cert, Key         string // files, of its own certificate
	Validity          time.Duration
	EAB               map[string]string // key identifiers and MAC keys: then nobody else is taken
	Blocked           []string          // names that it does not issue for
}

// Write writes the configuration file.
func (c Config) Write(path string) error {
	p := map[string]any{
		"listenAddress": c.Listen, "managementListenAddress": c.Manage, "certificate": c.Cert, "privateKey": c.Key,
		"httpPort": c.HTTPPort, "tlsPort": c.TLSPort, "domainBlocklist": c.Blocked, "keyAlgorithm": "ecdsa",
		"profiles": map[string]any{"default": map[string]any{"description": "of the tests", "validityPeriod": max(int64(c.Validity/time.Second), 1)}},
	}
	if len(c.EAB) > 0 {
		p["externalAccountBindingRequired"], p["externalAccountMACKeys"] = true, c.EAB
	}
	b, err := json.Marshal(map[string]any{"pebble": p})
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// Env is what Pebble's environment has beside: it does not wait before it validates,
// and validates each time.
func Env() []string {
	return []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=10", "PEBBLE_AUTHZREUSE=0"}
}

// Args are its arguments.
func Args(config, resolver string) []string {
	return []string{"-config", config, "-dnsserver", resolver}
}

// Dial is net.Dialer's DialContext, or one that dials elsewhere.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// client believes whoever answers: of a test, nobody else does.
func client(d Dial) *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: d, DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
}

// Root is the root that the running Pebble has made for itself, in PEM.
func Root(d Dial, manage string) ([]byte, error) {
	resp, err := client(d).Get("https://" + manage + "/roots/0")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return b, err
}

// RenewNow has Pebble say that a certificate (PEM) is to be renewed at once, as
// authorities do that are about to revoke it.
func RenewNow(d Dial, manage string, cert []byte) error {
	body, err := json.Marshal(map[string]string{"certificate": string(cert),
		"ariResponse": fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q},"explanationURL":"https://example.org/why"}`,
			time.Now().Add(-2*time.Hour).UTC().Format(time.RFC3339), time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))})
	if err != nil {
		return err
	}
	resp, err := client(d).Post("https://"+manage+"/set-renewal-info/", "application/json", strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	return nil
}

// Resolve answers queries over TCP, which Pebble uses, for A with the addresses of these
// names, for other types with nothing, and for all other names with NXDOMAIN, until ln
// is closed.
func Resolve(ln net.Listener, names map[string]netip.Addr) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			for answer(c, names) == nil {
			}
		}()
	}
}

func answer(c net.Conn, names map[string]netip.Addr) error {
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return err
	}
	b := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil || len(m.Questions) != 1 {
		return errors.New("no query")
	}
	q := m.Questions[0]
	a, ok := names[strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))]
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	switch {
	case !ok:
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: a.As4()}}}
	}
	out, err := m.AppendPack([]byte{0, 0})
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint16(out, uint16(len(out)-2))
	_, err = c.Write(out)
	return err
}
