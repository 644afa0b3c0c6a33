package peer

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"

	"adit/interop/lab"
)

// charon is the daemon of Debian's package charon-systemd; it needs no systemd.
const charon = "/usr/sbin/charon-systemd"

// defaultPlugins are what a strongSwan here loads: kernel-libipsec before
// kernel-netlink, so that ESP is done in user space; x509 before openssl, which knows
// no certificate policies.
const defaultPlugins = "random nonce x509 openssl pem pkcs1 pkcs7 pkcs8 pkcs12 rc2 md5 pubkey sshkey constraints revocation curl " +
	"aes sha1 sha2 hmac gcm ccm ctr cmac xcbc chapoly kdf curve25519 drbg counters " +
	"vici kernel-libipsec kernel-netlink socket-default updown attr " +
	"xauth-generic eap-identity eap-mschapv2 eap-md5 eap-gtc eap-tls eap-ttls eap-radius"

// swanctlPlugins are what the tool swanctl needs. All that Debian has take it longer to
// load than what it is then asked.
const swanctlPlugins = "pem pkcs1 pkcs7 pkcs8 pkcs12 rc2 x509 revocation constraints pubkey sshkey openssl random"

// StrongSwanOptions are settings of strongswan.conf.
type StrongSwanOptions struct {
	Plugins string // instead of the usual list
	Extra   string // further lines of the section charon-systemd
	Verbose int    // log level; 0 means 1
}

// StrongSwan prepares Debian's strongSwan in a node of a lab. It is not started.
// A missing package is an error.
func StrongSwan(l *lab.Lab, node string, o StrongSwanOptions) (Gateway, error) {
	for _, bin := range []string{charon, "/usr/sbin/swanctl", "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so",
		"/usr/lib/ipsec/plugins/libstrongswan-eap-mschapv2.so"} {
		if _, err := os.Stat(bin); err != nil {
			return nil, fmt.Errorf("strongSwan is not installed (run scripts/setup.sh): %w", err)
		}
	}
	d, err := newDaemon(l, node, "charon")
	if err != nil {
		return nil, err
	}
	if o.Plugins == "" {
		o.Plugins = defaultPlugins
	}
	if o.Verbose == 0 {
		o.Verbose = 1
	}
	conf := fmt.Sprintf(`charon-systemd {
	load = %s
	filelog {
		log {
			path = %s
			default = %d
			flush_line = yes
			append = yes
		}
	}
	plugins {
		vici {
			socket = %s
		}
		kernel-libipsec {
			allow_peer_ts = yes
		}
	}
	%s
}
swanctl {
	socket = %s
	load = %s
}
`, o.Plugins, d.path("charon.log"), o.Verbose, d.uri(), o.Extra, d.uri(), swanctlPlugins)
	if err := os.WriteFile(d.path("strongswan.conf"), []byte(conf), 0o600); err != nil {
		return nil, err
	}
	d.argv = []string{charon}
	d.extra = func() string {
		b, _ := os.ReadFile(d.path("charon.log"))
		return string(b)
	}
	d.version = func(*daemon) string { return strongSwanVersion() }
	return d, nil
}

var strongSwanVersion = sync.OnceValue(func() string {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", "charon-systemd").Output()
	if err != nil {
		return "strongSwan (version unknown)"
	}
	return "strongSwan " + strings.TrimSpace(string(out))
})
