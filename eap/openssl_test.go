package eap

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// TestRFC5216_2_3_KeysAgainstOpenSSL compares our keys of TLS 1.2 with those that
// OpenSSL exports, with the extended master secret and without it, as with
// strongSwan.
func TestRFC5216_2_3_KeysAgainstOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		if os.Geteuid() != 0 {
			t.Skip("openssl isn't there")
		}
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert := selfSigned(t)[0]
	der, err := x509.MarshalECPrivateKey(cert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certFile := file("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))
	keyFile := file("key.pem", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	for name, sign := range map[string]string{"extended master secret": "", "as strongSwan": "-"} {
		conf := file("openssl.cnf", []byte("openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nOptions = "+sign+"ExtendedMasterSecret\n"))
		for typ, label := range map[Type]string{TypeTLS: "client EAP encryption", TypeTTLS: "ttls keying material"} {
			t.Run(name+" "+typ.String(), func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				cmd := exec.CommandContext(ctx, openssl, "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-tls1_2", "-cert", certFile, "-key", keyFile,
					"-keymatexport", label, "-keymatexportlen", "128")
				cmd.Env = append(os.Environ(), "OPENSSL_CONF="+conf)
				hello := compareWithOpenSSL(t, cmd, typ)
				// The empty extension 23 of its ServerHello.
				if bytes.Contains(hello, []byte{0, 23, 0, 0}) != (sign == "") {
					t.Errorf("the handshake isn't what was asked for: %x", hello)
				}
			})
		}
	}
}

// compareWithOpenSSL runs our client against s_server, compares the keys and returns
// the ServerHello.
func compareWithOpenSSL(t *testing.T, cmd *exec.Cmd, typ Type) (hello []byte) {
	t.Helper()
	stdin, err := cmd.StdinPipe() // s_server ends with its input
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	defer stdin.Close()
	lines := bufio.NewScanner(stdout)
	said := ""
	until := func(re string) string {
		for lines.Scan() {
			said += lines.Text() + "\n"
			if m := regexp.MustCompile(re).FindStringSubmatch(lines.Text()); m != nil {
				return m[1]
			}
		}
		t.Fatalf("s_server never said %q:\n%s", re, said)
		return ""
	}
	conn, err := net.DialTimeout("tcp", until(`^ACCEPT (.*)$`), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	tun := testTLS(t, tls.VersionTLS12).clientTunnel(typ, "")
	defer tun.close()
	out, err := tun.exchange(nil)
	for buf := make([]byte, 4096); err == nil && !tun.established; {
		if _, err = conn.Write(out); err != nil {
			break
		}
		var n int
		if n, err = conn.Read(buf); err == nil {
			hello = append(hello, buf[:n]...)
			out, err = tun.exchange(buf[:n])
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	var ours tlsKeys
	if err := ours.derive(tun); err != nil {
		t.Fatal(err)
	}
	theirs := until(`Keying material: ([0-9A-F]{256})$`)
	if !bytes.Equal(append(bytes.Clone(ours.msk), ours.emsk...), unhex(t, theirs)) {
		t.Errorf("ours %x %x, theirs %s", []byte(ours.msk), []byte(ours.emsk), theirs)
	}
	return hello[:min(len(hello), 5+int(hello[3])<<8+int(hello[4]))] // the first record
}
