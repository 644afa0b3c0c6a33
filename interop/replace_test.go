package interop_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
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

// etcDaemon is a daemon that finds everything where packages put it: /etc/swanctl,
// /etc/strongswan.conf, /etc/strongswan.d and /run/charon.vici, in a mount namespace in
// which these are directories of the test.
type etcDaemon struct {
	*lab.Lab
	dir  string // has etc and run
	proc *lab.Proc
}

// mounts is the script that puts the directories in their places.
const mounts = `unset STRONGSWAN_CONF SWANCTL_DIR; d="$1" && shift && mount --bind "$d/run" /run && mount --bind "$d/etc/swanctl" /etc/swanctl && mount --bind "$d/etc/strongswan.d" /etc/strongswan.d &&
mount --bind "$d/etc/strongswan.conf" /etc/strongswan.conf && exec "$@"`

func (d *etcDaemon) within(args ...string) []string {
	return append([]string{"unshare", "-m", "sh", "-c", mounts, "sh", d.dir}, args...)
}

// swanctl is run as its users do, without a word about where things are.
func (d *etcDaemon) swanctl(args ...string) (string, error) {
	return d.Exec(20*time.Second, lab.Left, d.within(append([]string{"swanctl"}, args...)...)...)
}

// start starts a daemon and waits for its socket.
func (d *etcDaemon) start(t *testing.T, argv ...string) {
	t.Helper()
	var err error
	if d.proc, err = d.Start(lab.Left, nil, d.within(argv...)...); err != nil {
		t.Fatal(err)
	}
	if err := lab.Poll(10*time.Second, func() (bool, error) {
		select {
		case <-d.proc.Done():
			return false, fmt.Errorf("%s ended: %s", argv[0], d.proc.Log())
		default:
		}
		_, err := d.swanctl("--stats")
		return err == nil, nil
	}); err != nil {
		t.Fatalf("%v\n%s", err, d.proc.Log())
	}
}

// stop ends the daemon with SIGTERM, and no more.
func (d *etcDaemon) stop(t *testing.T) {
	t.Helper()
	if err := d.proc.Stop(10 * time.Second); err != nil {
		t.Errorf("%v\n%s", err, d.proc.Log())
	}
}

// sum is a checksum of all files below etc with their names and modes.
func (d *etcDaemon) sum(t *testing.T) string {
	t.Helper()
	h := sha256.New()
	root := filepath.Join(d.dir, "etc")
	n := 0
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %v %d\n", path, info.Mode(), info.ModTime().UnixNano())
		if e.IsDir() {
			return nil
		}
		n++
		b, err := os.ReadFile(path)
		h.Write(b)
		return err
	})
	if err != nil || n < 20 {
		t.Fatalf("%d files: %v", n, err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// replaced are the children with what proves that they carry packets.
var replaced = []struct {
	ike, child string
	from, to   string // a ping that only this child carries
}{
	{"office", "net4", "", ""}, {"office", "net6", "", ""}, {"office", "more", "10.11.1.1", "10.12.1.1"},
	{"branch", "branch", "10.11.2.1", "10.12.2.1"},
	{"rw", "rw", "10.11.3.1", ""},
	{"home", "home", "", "10.12.4.1"},
}

// A charon with several tunnels up is stopped, adit is started on the very same files,
// and every tunnel is there again, with the same names, selectors and identities; and
// back. The files are Debian's own with what people set in them.
func TestReplaceCharon(t *testing.T) {
	t.Parallel()
	slots <- struct{}{}
	defer func() { <-slots }()
	l := lab.ForTest(t, labName(), lab.Options{Middle: lab.Bridge, Logf: func(string, ...any) {}})
	for node, addrs := range map[string][]string{lab.Left: {"10.11.1.1", "10.11.2.1", "10.11.3.1"}, lab.Right: {"10.12.1.1", "10.12.2.1", "10.12.4.1"}} {
		for _, a := range addrs {
			if out, err := l.Exec(5*time.Second, node, "ip", "addr", "add", a+"/32", "dev", "lo"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
	}
	branch, rw, home := issued(t, "branch", pkitest.P256, pkitest.P256), issued(t, "rw", pkitest.RSA2048, pkitest.RSA2048), issued(t, "home", pkitest.P256, pkitest.RSA2048)
	bin, err := peer.Build(false)
	if err != nil {
		t.Fatal(err)
	}
	d := newEtc(t, l, branch, rw, home)
	right, err := peer.StrongSwan(l, lab.Right, peer.StrongSwanOptions{Extra: "retransmit_timeout = 1\nretransmit_base = 1\nretransmit_tries = 20\n"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(d.dir, "run/charon.log"))
			sas, _ := right.Swanctl("--list-sas")
			routes, _ := l.Exec(5*time.Second, lab.Right, "ip", "route", "show", "table", "220")
			t.Logf("left:\n%s\nright:\n%s%s%s", log, right.Log(), sas, routes)
		}
	}()
	write(t, filepath.Join(right.Dir(), "swanctl"), peerFiles(branch, rw, home))
	if err := right.Start(); err != nil {
		t.Fatal(err)
	}
	if err := right.Load(peerConf(l)); err != nil {
		t.Fatal(err)
	}

	sum := d.sum(t)
	var first []string
	var listed [2]string // by adit, which was told the file, or loaded by swanctl
	for _, step := range []struct {
		name string
		argv []string
		load bool // as the unit of charon-systemd does
	}{
		{"charon", []string{"/usr/sbin/charon-systemd"}, true},
		{"adit, told the file", []string{bin, "run", "--config", "/etc/swanctl/swanctl.conf"}, false},
		{"charon again", []string{"/usr/sbin/charon-systemd"}, true},
		{"adit, loaded by swanctl", []string{bin, "run"}, true},
	} {
		d.start(t, step.argv...)
		if step.load {
			if out, err := d.swanctl("--load-all", "--noprompt"); err != nil || strings.Contains(out, "failed") {
				t.Fatalf("%s: %v\n%s", step.name, err, out)
			}
		}
		up := d.up(t, right, step.name, strings.HasPrefix(step.name, "charon"))
		if first == nil {
			first = up
		} else if !slices.Equal(first, up) {
			t.Errorf("%s has\n%s\nnot as at first\n%s", step.name, strings.Join(up, "\n"), strings.Join(first, "\n"))
		}
		if !strings.HasPrefix(step.name, "charon") {
			listed[map[bool]int{true: 1}[step.load]] = d.listings(t)
		}
		d.stop(t)
		if now := d.sum(t); now != sum {
			t.Errorf("%s changed the files", step.name)
		}
	}
	if listed[0] != listed[1] {
		t.Errorf("from the file adit has\n%s\nfrom swanctl\n%s", listed[0], listed[1])
	}
	if log, err := os.ReadFile(filepath.Join(d.dir, "run/charon.log")); err != nil || !strings.Contains(string(log), "IKE_SA office[") || !strings.Contains(string(log), "adit is running") {
		t.Errorf("the log of strongswan.conf has not both daemons: %v\n%s", err, log)
	}
}

// listings are what was loaded, by line: the order of certificates says nothing.
func (d *etcDaemon) listings(t *testing.T) string {
	t.Helper()
	var lines []string
	for _, list := range []string{"--list-conns", "--list-certs", "--list-authorities", "--list-pools"} {
		out, err := d.swanctl(list, "--pretty")
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.Split(out, "\n")...)
	}
	if len(lines) < 200 {
		t.Fatalf("only %q", lines)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// up waits until every tunnel is up and carries pings, and returns what --list-sas says
// about them that is the same every time.
func (d *etcDaemon) up(t *testing.T, right peer.Gateway, who string, charon bool) (all []string) {
	t.Helper()
	var sas []peer.SA
	list := func() (err error) {
		out, err := d.swanctl("--list-sas", "--pretty")
		if err == nil {
			sas, err = peer.ParseSAs(out)
		}
		return err
	}
	wait := func(ike, child string) peer.SA {
		t.Helper()
		var found peer.SA
		if err := lab.Poll(15*time.Second, func() (bool, error) {
			if err := list(); err != nil {
				return false, err
			}
			i := slices.IndexFunc(sas, func(s peer.SA) bool { return s.Name == ike && len(peer.Installed([]peer.SA{s}, child)) == 1 })
			if i >= 0 {
				found = sas[i]
			}
			return i >= 0, nil
		}); err != nil {
			t.Fatalf("%s: %s of %s: %v\n%+v", who, child, ike, err, sas)
		}
		return found
	}
	if charon { // its data plane in user space has no traps
		if out, err := d.swanctl("--initiate", "--child", "branch", "--timeout", "10"); err != nil {
			t.Errorf("%s: %v\n%s", who, err, out)
		}
	}
	for _, r := range replaced {
		from, to := r.from, r.to
		node := lab.Left
		var sa peer.SA
		if r.child == "rw" {
			d.dialAgain(t, right)
		}
		if r.child != "branch" {
			sa = wait(r.ike, r.child)
		}
		switch r.child {
		case "net4":
			node, to = lab.LeftHost, d.R.Host4.String()
		case "net6":
			node, to = lab.LeftHost, d.R.Host6.String()
		case "rw":
			to = one(t, sa.RemoteVIPs)
		case "home":
			from = one(t, sa.LocalVIPs)
		}
		o := lab.PingOptions{Timeout: 300 * time.Millisecond}
		if from != "" {
			o.Source = netip.MustParseAddr(from)
		}
		if err := lab.Poll(10*time.Second, func() (bool, error) {
			got, err := d.Ping(node, netip.MustParseAddr(to), o)
			return got.Received > 0, err
		}); err != nil {
			t.Fatalf("%s: %s: from %q to %s: %v", who, r.child, from, to, err)
		}
		wait(r.ike, r.child)
	}
	if err := list(); err != nil {
		t.Fatal(err)
	}
	for _, s := range sas {
		all = append(all, fmt.Sprintf("%s %s IKEv%s %s %s[%s] %s[%s] eap=%s %s/%s/%s/%s vips %v %v", s.Name, s.State, s.Fields["version"], map[bool]string{true: "initiator", false: "responder"}[s.Initiator],
			s.LocalHost, s.LocalID, s.RemoteHost, s.RemoteID, s.Fields["remote-eap-id"], s.Encryption, s.Integrity, s.PRF, s.KeyExchange, s.LocalVIPs, s.RemoteVIPs))
		for _, c := range s.Children {
			all = append(all, fmt.Sprintf("%s %s %s %s %s/%s %v === %v", s.Name, c.Name, c.State, c.Mode, c.Encryption, c.Integrity, c.LocalTS, c.RemoteTS))
			if c.PacketsIn == 0 || c.PacketsOut == 0 {
				t.Errorf("%s: %s carried nothing: %+v", who, c.Name, c)
			}
		}
	}
	slices.Sort(all)
	return all
}

// dialAgain is what a user does whose client was refused, because it came in the moment
// when charon ran but swanctl had not loaded its connections yet. While the client still
// tries, it does nothing.
func (d *etcDaemon) dialAgain(t *testing.T, right peer.Gateway) {
	t.Helper()
	sas, err := right.SAs()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(sas, func(s peer.SA) bool { return s.Name == "laptop" }) {
		if err := right.Initiate("laptop"); err != nil {
			t.Fatal(err)
		}
	}
}

func one(t *testing.T, list []string) string {
	t.Helper()
	if len(list) != 1 {
		t.Fatalf("not one address: %v", list)
	}
	return list[0]
}

func write(t *testing.T, dir string, f files) {
	t.Helper()
	for name, b := range f {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// newEtc copies Debian's files and puts the connections among them.
func newEtc(t *testing.T, l *lab.Lab, branch, rw, home duo) *etcDaemon {
	t.Helper()
	d := &etcDaemon{Lab: l, dir: filepath.Join(l.Dir, "root")}
	etc := filepath.Join(d.dir, "etc")
	for _, dir := range []string{filepath.Join(d.dir, "run"), filepath.Join(etc, "swanctl/conf.d")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"x509", "x509ca", "x509ocsp", "x509aa", "x509ac", "x509crl", "pubkey", "private", "rsa", "ecdsa", "bliss", "pkcs8", "pkcs12"} {
		if err := os.MkdirAll(filepath.Join(etc, "swanctl", dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(filepath.Join(etc, "strongswan.d"), os.DirFS("/etc/strongswan.d")); err != nil {
		t.Fatal(err)
	}
	write(t, etc, files{
		"strongswan.conf":                          []byte(strongswanConf),
		"strongswan.d/charon/kernel-libipsec.conf": []byte("kernel-libipsec {\n\tallow_peer_ts = yes\n\tload = yes\n}\n"),
		"strongswan.d/charon-logging.conf":         []byte("charon {\n\tfilelog {\n\t\tcharon {\n\t\t\tpath = /run/charon.log\n\t\t\ttime_format = %b %e %T\n\t\t\tike_name = yes\n\t\t\tappend = yes\n\t\t\tdefault = 1\n\t\t\tflush_line = yes\n\t\t}\n\t}\n\tsyslog {\n\t\tdaemon {\n\t\t\tdefault = -1\n\t\t}\n\t}\n}\n"),
		"swanctl/swanctl.conf":                     []byte(fmt.Sprintf(officeConf, l.L.Wan4, l.R.Wan4, l.L.Inner4, l.R.Inner4, l.L.Inner6, l.R.Inner6)),
		"swanctl/conf.d/certificates.conf":         []byte(fmt.Sprintf(certConf, l.L.Wan4, l.R.Wan4)),
		"swanctl/conf.d/secrets.conf":              []byte(secretsConf),
		"swanctl/x509/branch.pem":                  branch.left.PEM(),
		"swanctl/x509/rw.pem":                      rw.left.PEM(),
		"swanctl/x509/home.der":                    home.left.Cert.X509.Raw,
		"swanctl/x509ca/branch.pem":                branch.ca.PEM(),
		"swanctl/x509ca/rw.pem":                    rw.ca.PEM(),
		"swanctl/x509ca/home.pem":                  home.ca.PEM(),
		"swanctl/x509crl/branch.crl":               branch.ca.CRL(pkitest.List{}),
		"swanctl/private/branch.pem":               branch.left.KeyPEM(),
		"swanctl/rsa/rw.pem":                       rw.left.KeyPEM(),
		"swanctl/pkcs8/home.pem":                   home.left.KeyPEM(),
	})
	return d
}

const strongswanConf = `# What Debian has, and what people set.
charon {
	load_modular = yes
	plugins {
		include strongswan.d/charon/*.conf
	}
	retransmit_timeout = 2.0
	retransmit_tries = 4
	half_open_timeout = 30
	keep_alive = 20s
	dns1 = 10.11.3.53
	install_virtual_ip = yes
	send_vendor_id = no
	multiple_authentication = yes
	make_before_break = no
	delete_rekeyed_delay = 3
}

include strongswan.d/*.conf
`

const officeConf = `# Two offices by a shared key.
connections {
	office {
		local_addrs  = %[1]v
		remote_addrs = %[2]v
		version = 2
		proposals = aes256gcm16-prfsha384-x25519, default
		dpd_delay = 30s
		local {
			auth = psk
			id = office.left.example.org
		}
		remote {
			auth = psk
			id = office.right.example.org
		}
		children {
			net4 {
				local_ts  = %[3]v
				remote_ts = %[4]v
				esp_proposals = aes256gcm16-x25519
				start_action = start
				dpd_action = restart
			}
			net6 {
				local_ts  = %[5]v
				remote_ts = %[6]v
				esp_proposals = default
				start_action = start
			}
			more {
				local_ts  = 10.11.1.0/24
				remote_ts = 10.12.1.0/24
				esp_proposals = aes128-sha256
				start_action = start
			}
		}
	}
}

include conf.d/*.conf
`

const certConf = `connections {
	branch {
		local_addrs  = %[1]v
		remote_addrs = %[2]v
		local {
			auth = pubkey
			certs = branch.pem
			id = l.branch.example.org
		}
		remote {
			auth = pubkey
			id = r.branch.example.org
			revocation = ifuri
		}
		children {
			branch {
				local_ts  = 10.11.2.0/24
				remote_ts = 10.12.2.0/24
				start_action = trap
			}
		}
	}
	rw {
		pools = clients
		send_cert = always
		local {
			auth = pubkey
			certs = rw.pem
			id = l.rw.example.org
		}
		remote {
			auth = eap-mschapv2
			eap_id = %%any
		}
		children {
			rw {
				local_ts = 10.11.3.0/24
			}
		}
		version = 2
	}
	home {
		remote_addrs = %[2]v
		vips = 0.0.0.0
		local {
			auth = pubkey
			certs = home.der
			id = l.home.example.org
		}
		remote {
			auth = pubkey
			id = r.home.example.org
		}
		children {
			home {
				remote_ts = 10.12.4.0/24
				start_action = start
			}
		}
		version = 2
	}
}

pools {
	clients {
		addrs = 10.3.0.0/24
		dns = 10.11.3.53
	}
}
`

const secretsConf = `secrets {
	ike-office {
		id-left  = office.left.example.org
		id-right = office.right.example.org
		secret = "iu5Ree3aeQu6oof0ohVa"
	}
	eap-carol {
		id = carol
		secret = 0sd2hhdCBzaGUga25vd3M=
	}
}
`

func peerFiles(branch, rw, home duo) files {
	return owned("branch", branch.right).and(owned("home", home.right)).and(files{"x509ca/branch.pem": branch.ca.PEM(), "x509ca/rw.pem": rw.ca.PEM(), "x509ca/home.pem": home.ca.PEM()})
}

// peerConf is the other end of all these; its client comes back by itself. Peer quirk
// (strongSwan 5.9): a child that is started again keeps its reqid, which another may have
// got meanwhile, and kernel-libipsec finds the SA by it: hence one of its own.
func peerConf(l *lab.Lab) string {
	conn := func(name, extra, local, remote, children string) string {
		return fmt.Sprintf("%s {\nversion = 2\nlocal_addrs = %v\nremote_addrs = %v\n%s\nlocal {\n%s\n}\nremote {\n%s\n}\nchildren {\n%s}\n}\n", name, l.R.Wan4, l.L.Wan4, extra, local, remote, children)
	}
	child := func(name, local, remote, extra string) string {
		if local != "" {
			local = "local_ts = " + local + "\n"
		}
		if remote != "" {
			remote = "remote_ts = " + remote + "\n"
		}
		return name + " {\n" + local + remote + extra + "}\n"
	}
	return "connections {\n" +
		conn("office", "proposals = aes256gcm16-prfsha384-x25519", "auth = psk\nid = office.right.example.org", "auth = psk\nid = office.left.example.org",
			child("net4", l.R.Inner4.String(), l.L.Inner4.String(), "esp_proposals = aes256gcm16-x25519\n")+child("net6", l.R.Inner6.String(), l.L.Inner6.String(), "")+child("more", "10.12.1.0/24", "10.11.1.0/24", "esp_proposals = aes128-sha256\n")) +
		conn("branch", "", "auth = pubkey\ncerts = branch.pem\nid = r.branch.example.org", "auth = pubkey\nid = l.branch.example.org", child("branch", "10.12.2.0/24", "10.11.2.0/24", "")) +
		conn("laptop", "vips = 0.0.0.0\nkeyingtries = 0", "auth = eap\nid = laptop\neap_id = carol", "auth = pubkey\nid = l.rw.example.org", child("laptop", "", "10.11.3.0/24", "start_action = start\nclose_action = start\nreqid = 4242\n")) +
		conn("home", "pools = homes", "auth = pubkey\ncerts = home.pem\nid = r.home.example.org", "auth = pubkey\nid = l.home.example.org", child("home", "10.12.4.0/24", "", "")) +
		"}\npools {\nhomes {\naddrs = 10.4.0.0/24\n}\n}\nsecrets {\nike-1 {\nid-1 = office.left.example.org\nsecret = \"iu5Ree3aeQu6oof0ohVa\"\n}\neap-1 {\nid = carol\nsecret = \"what she knows\"\n}\n}\n"
}
