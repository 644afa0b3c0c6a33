package interop_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
	"adit/pki/pkitest"
)

// ipsecMounts is the script that puts a starter's files in their places, in a mount
// namespace.
const ipsecMounts = `unset STRONGSWAN_CONF SWANCTL_DIR; d="$1" && shift && mount --bind "$d/run" /run && mount --bind "$d/etc/ipsec.conf" /etc/ipsec.conf &&
mount --bind "$d/etc/ipsec.secrets" /etc/ipsec.secrets && mount --bind "$d/etc/ipsec.d" /etc/ipsec.d && mount --bind "$d/etc/strongswan.conf" /etc/strongswan.conf && exec "$@"`

const starterConf = `charon {
	load = random nonce x509 openssl pem pkcs1 pkcs8 pubkey constraints revocation aes sha1 sha2 hmac gcm kdf drbg curve25519 stroke kernel-libipsec kernel-netlink socket-default updown
	plugins {
		kernel-libipsec {
			allow_peer_ts = yes
		}
	}
	retransmit_timeout = 1
}
`

// importedConf has two networks of one office, and a branch with certificates.
const importedConf = `config setup
	uniqueids=yes

conn %%default
	keyexchange=ikev2
	ike=aes256gcm16-prfsha384-x25519!
	esp=aes256gcm16-x25519!
	ikelifetime=60m
	keylife=20m
	rekeymargin=3m
	mobike=no
	auto=start

# written on the other side's machine: right is here
conn office
	left=%[2]v
	leftid=@office.right.example.org
	leftsubnet=%[4]v
	right=%[1]v
	rightid=@office.left.example.org
	rightsubnet=%[3]v
	authby=secret

conn office-more	# their second network
	also=office
	leftsubnet=10.12.1.0/24
	rightsubnet=10.11.1.0/24

conn branch
	left=%[1]v
	leftcert=branchCert.pem
	leftid=@l.branch.example.org
	leftsubnet=10.11.2.0/24
	right=%[2]v
	rightid=@r.branch.example.org
	rightsubnet=10.12.2.0/24
`

const importedSecrets = `@office.left.example.org @office.right.example.org : PSK "iu5Ree3aeQu6oof0ohVa"
: ECDSA branchKey.pem
`

// A strongSwan that is driven by ipsec.conf has tunnels up. It is stopped, its files are
// imported, adit is started with what came out, and the same tunnels are there.
func TestImportedConfiguration(t *testing.T) {
	t.Parallel()
	slots <- struct{}{}
	defer func() { <-slots }()
	if _, err := os.Stat("/usr/lib/ipsec/charon"); err != nil {
		t.Fatalf("strongSwan's starter is not installed (run scripts/setup.sh): %v", err)
	}
	l := lab.ForTest(t, labName(), lab.Options{Middle: lab.Bridge, Logf: func(string, ...any) {}})
	for node, addrs := range map[string][]string{lab.Left: {"10.11.1.1", "10.11.2.1"}, lab.Right: {"10.12.1.1", "10.12.2.1"}} {
		for _, a := range addrs {
			if out, err := l.Exec(5*time.Second, node, "ip", "addr", "add", a+"/32", "dev", "lo"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
	}
	branch := issued(t, "branch", pkitest.P256, pkitest.P256)
	dir := filepath.Join(l.Dir, "root")
	if err := os.MkdirAll(filepath.Join(dir, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "etc"), files{
		"ipsec.conf": []byte(fmt.Sprintf(importedConf, l.L.Wan4, l.R.Wan4, l.L.Inner4, l.R.Inner4)), "ipsec.secrets": []byte(importedSecrets), "strongswan.conf": []byte(starterConf),
		"ipsec.d/certs/branchCert.pem": branch.left.PEM(), "ipsec.d/private/branchKey.pem": branch.left.KeyPEM(), "ipsec.d/cacerts/ca.pem": branch.ca.PEM(),
		"ipsec.d/crls/branch.crl": branch.ca.CRL(pkitest.List{}),
	})
	within := func(args ...string) []string {
		return append([]string{"unshare", "-m", "sh", "-c", ipsecMounts, "sh", dir}, args...)
	}

	right, err := peer.StrongSwan(l, lab.Right, peer.StrongSwanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(right.Dir(), "swanctl"), files{"x509/branch.pem": branch.right.PEM(), "x509ca/branch.pem": branch.ca.PEM(), "private/branch.pem": branch.right.KeyPEM()})
	if err := right.Start(); err != nil {
		t.Fatal(err)
	}
	if err := right.Load(importedPeer(l)); err != nil {
		t.Fatal(err)
	}

	old, err := l.Start(lab.Left, nil, within("ipsec", "start", "--nofork")...)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Kill()
	before := tunnels(t, l, right, old)
	if err := old.Stop(10 * time.Second); err != nil {
		t.Errorf("%v\n%s", err, old.Log())
	}
	if err := lab.Poll(5*time.Second, func() (bool, error) {
		sas, err := right.SAs()
		return len(sas) == 0, err
	}); err != nil {
		t.Fatalf("the peer still has the tunnels of before: %v", err)
	}
	bin, err := peer.Build(false)
	if err != nil {
		t.Fatal(err)
	}
	etc := filepath.Join(dir, "swanctl")
	out, err := l.Exec(10*time.Second, lab.Left, within(bin, "import", "-o", etc, "--copy", "--strict", "/etc/ipsec.conf")...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	now, err := l.Start(lab.Left, nil, within(bin, "run", "--config", filepath.Join(etc, "swanctl.conf"))...)
	if err != nil {
		t.Fatal(err)
	}
	defer now.Kill()
	after := tunnels(t, l, right, now)
	if !slices.Equal(before, after) {
		t.Errorf("with ipsec.conf there are\n%s\nimported\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	if err := now.Stop(10 * time.Second); err != nil {
		t.Errorf("%v\n%s", err, now.Log())
	}
	if t.Failed() {
		b, _ := os.ReadFile(filepath.Join(etc, "swanctl.conf"))
		t.Logf("imported:\n%s\n%s", out, b)
	}
}

// importedPeer is the other side's configuration.
func importedPeer(l *lab.Lab) string {
	conn := func(name, local, remote, children string) string {
		return fmt.Sprintf("%s {\nversion = 2\nproposals = aes256gcm16-prfsha384-x25519\nlocal_addrs = %v\nlocal {\n%s\n}\nremote {\n%s\n}\nchildren {\n%s}\n}\n", name, l.R.Wan4, local, remote, children)
	}
	child := func(name, local, remote string) string {
		return fmt.Sprintf("%s {\nlocal_ts = %s\nremote_ts = %s\nesp_proposals = aes256gcm16-x25519\n}\n", name, local, remote)
	}
	return "connections {\n" +
		conn("office", "auth = psk\nid = office.right.example.org", "auth = psk\nid = office.left.example.org",
			child("net", l.R.Inner4.String(), l.L.Inner4.String())+child("more", "10.12.1.0/24", "10.11.1.0/24")) +
		conn("branch", "auth = pubkey\ncerts = branch.pem\nid = r.branch.example.org", "auth = pubkey\nid = l.branch.example.org", child("branch", "10.12.2.0/24", "10.11.2.0/24")) +
		"}\nsecrets {\nike-1 {\nid-1 = office.left.example.org\nsecret = \"iu5Ree3aeQu6oof0ohVa\"\n}\n}\n"
}

// tunnels waits for all tunnels, sends a ping through each, and returns what the peer
// sees of them that is the same every time.
func tunnels(t *testing.T, l *lab.Lab, right peer.Gateway, here *lab.Proc) (all []string) {
	t.Helper()
	fail := func(err error, what string) {
		t.Helper()
		t.Fatalf("%s: %v\nhere:\n%s\nthe peer:\n%s", what, err, here.Log(), right.Log())
	}
	var sas []peer.SA
	for _, child := range []string{"net", "more", "branch"} {
		if err := lab.Poll(15*time.Second, func() (bool, error) {
			var err error
			sas, err = right.SAs()
			return len(peer.Installed(sas, child)) == 1, err
		}); err != nil {
			fail(err, child)
		}
	}
	for _, p := range []struct {
		node, from string
		to         netip.Addr
	}{{lab.LeftHost, "", l.R.Host4}, {lab.Left, "10.11.1.1", netip.MustParseAddr("10.12.1.1")}, {lab.Left, "10.11.2.1", netip.MustParseAddr("10.12.2.1")}} {
		o := lab.PingOptions{Timeout: 300 * time.Millisecond}
		if p.from != "" {
			o.Source = netip.MustParseAddr(p.from)
		}
		if err := lab.Poll(10*time.Second, func() (bool, error) {
			got, err := l.Ping(p.node, p.to, o)
			return got.Received > 0, err
		}); err != nil {
			fail(err, fmt.Sprintf("ping from %q to %v", p.from, p.to))
		}
	}
	for _, s := range sas {
		all = append(all, fmt.Sprintf("%s %s %s[%s] %s[%s] %s/%s/%s", s.Name, s.State, s.LocalHost, s.LocalID, s.RemoteHost, s.RemoteID, s.Encryption, s.PRF, s.KeyExchange))
		for _, c := range s.Children {
			all = append(all, fmt.Sprintf("%s %s %s %s %s %v === %v", s.Name, c.Name, c.State, c.Mode, c.Encryption, c.LocalTS, c.RemoteTS))
		}
	}
	slices.Sort(all)
	return all
}
