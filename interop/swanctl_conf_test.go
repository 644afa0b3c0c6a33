package interop_test

import (
	"fmt"
	"testing"

	"adit/pki/pkitest"
)

// fixture are the credentials of both ends.
type fixture struct {
	root, sub, left, right, lost *pkitest.Entity
	crl                          []byte
}

func newFixture(t *testing.T) fixture {
	root := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	sub := root.IssueCA(pkitest.Spec{Name: "sub", Key: pkitest.RSA2048})
	return fixture{root, sub, root.Issue(pkitest.Spec{Name: "left", DNS: []string{leftID}}), root.Issue(pkitest.Spec{Name: "right", DNS: []string{rightID}}),
		sub.Issue(pkitest.Spec{Name: "lost", Key: pkitest.RSA2048}), root.CRL(pkitest.List{})}
}

func (f fixture) of(e *pkitest.Entity) files {
	return owned("mine", e).and(files{"x509/lost.pem": f.lost.PEM(), "x509ca/root.pem": f.root.PEM(), "x509ca/sub.pem": f.sub.PEM(), "x509crl/root.crl": f.crl})
}

// leftConf is what the daemon under test is given; broken is put into connection gw.
func (c *console) leftConf(broken string) string {
	l := c.L
	r := c.R
	return fmt.Sprintf(`connections {
gw {
%[1]s
%[2]s
dpd_delay = 60s
local {
auth = psk
id = %[3]s
}
remote {
auth = psk
id = %[4]s
}
children {
net {
local_ts = %[5]v
remote_ts = %[6]v
esp_proposals = aes128gcm16-x25519, aes256-sha256
rekey_time = 1h
rekey_bytes = 1000000000
life_bytes = 2000000000
}
six {
local_ts = %[7]v
remote_ts = %[8]v
esp_proposals = aes128gcm16
}
elsewhere {
local_ts = 10.9.0.0/24
remote_ts = 10.8.0.0/24
esp_proposals = aes128gcm16
}
caught {
local_ts = %[5]v[tcp/7]
remote_ts = %[6]v[tcp]
esp_proposals = aes128gcm16
start_action = trap
priority = 7
}
}
}
shunts {
version = 0
remote_addrs = 127.0.0.1
children {
open {
mode = pass
local_ts = 10.1.0.0/24[udp/53]
remote_ts = 10.7.0.0/24
start_action = trap
}
shut {
mode = drop
local_ts = 10.1.0.0/24
remote_ts = 10.6.0.0/24
}
}
}
cert {
%[1]s
send_cert = always
local {
auth = pubkey
certs = mine.pem
id = %[3]s
}
remote {
auth = pubkey
id = %[4]s
cacerts = root.pem
}
children {
cert {
local_ts = %[7]v
remote_ts = %[8]v
esp_proposals = aes256-sha256
}
}
}
rw {
%[1]s
pools = v4, v6
local {
auth = psk
id = %[3]s
}
remote {
auth = psk
id = *@right.example.org
}
children {
rw {
local_ts = %[5]v
remote_ts = dynamic
esp_proposals = aes128gcm16
}
}
}
nobody {
%[1]s
local {
auth = psk
id = nobody@example.org
}
remote {
auth = psk
}
children {
nobody {
}
}
}
oldgroup {
version = 2
local_addrs = %[9]v
remote_addrs = %[10]v
proposals = aes128-sha256-ecp521
local {
auth = psk
id = %[3]s
}
remote {
auth = psk
id = %[4]s
}
children {
oldgroup {
}
}
}
old {
version = 1
aggressive = yes
remote_addrs = %%any6, 198.51.100.0/24
unique = replace
proposals = aes128-sha1-modp1024
local {
id = gw.example.org
auth = pubkey
certs = lost.pem
}
local-x {
xauth_id = "user name"
auth = xauth-generic
}
remote {
id = *.example.org
auth = pubkey
ca_id = "CN=root"
revocation = ifuri
cert_policy = 1.2.3.4
}
children {
old {
remote_ts = 10.44.0.0/16
dpd_action = trap
close_action = start
rekey_time = 0
rekey_packets = 1000000
}
}
}
odd {
ppk_id = carol
ppk_required = yes
remote_addrs = 198.51.100.7
local-b {
round = 2
auth = pubkey
certs = lost.pem
}
local-a {
round = 1
certs = mine.pem
}
remote {
groups = one, two
eap_id = %%any
id = %%any
auth = eap-radius
aaa_id = "CN=aaa"
}
children {
odd {
mode = transport
remote_ts = dynamic[gre]
}
}
}
silent {
version = 2
local_addrs = %[9]v
remote_addrs = 192.0.2.77
local {
auth = psk
}
remote {
auth = psk
}
children {
silent {
}
}
}
}
secrets {
ike-1 {
secret = "what all of them share"
}
eap-1 {
id = carol
secret = "what she knows"
}
}
authorities {
sub {
cacert = sub.pem
crl_uris = http://192.0.2.2/a, http://192.0.2.2/b
ocsp_uris = http://192.0.2.2/c
cert_uri_base = http://192.0.2.2/d/
}
}
`+pools, fmt.Sprintf("version = 2\nlocal_addrs = %v\nremote_addrs = %v\nproposals = aes128gcm16-prfsha256-x25519", l.Wan4, r.Wan4),
		broken, leftID, rightID, l.Inner4, r.Inner4, l.Inner6, r.Inner6, l.Wan4, r.Wan4)
}

func (c *console) rightConf() string {
	_, r := c.ends(false)
	ends := func(method, more string) (string, string) {
		return "auth = " + method + "\nid = " + rightID + more, "auth = " + method + "\nid = " + leftID
	}
	l, rem := ends("psk", "")
	cl, crem := ends("pubkey", "\ncerts = mine.pem")
	return r.with("secrets {\nike-1 {\nsecret = \"what all of them share\"\n}\n}\n",
		site{name: "gw", local: l, remote: rem, child: "esp_proposals = aes128gcm16-x25519\n}\nsix {\nlocal_ts = " + c.R.Inner6.String() + "\nremote_ts = " + c.L.Inner6.String() + "\nesp_proposals = aes128gcm16\n"},
		site{name: "cert", local: cl, remote: crem, localTS: c.R.Inner6.String(), remoteTS: c.L.Inner6.String(), child: "esp_proposals = aes256-sha256\n"},
		site{name: "rw", local: "auth = psk\nid = dave@right.example.org", remote: rem, extra: "vips = 0.0.0.0, ::\n", localTS: "dynamic", remoteTS: c.L.Inner4.String()})
}
