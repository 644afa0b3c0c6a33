package tunnel

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"adit/interop/lab"
)

// findSecgw looks for DPDK's example: Debian has its source only; scripts/secgw.sh builds
// it into the user's cache.
func findSecgw(_ context.Context, o *Options) (string, error) {
	names := []string{o.Secgw}
	if o.Secgw == "" {
		names = []string{"dpdk-ipsec-secgw", "ipsec-secgw", filepath.Join(cacheDir(), "ipsec-secgw")}
	}
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err == nil {
			o.Secgw = path
			return debianVersion("ipsec-secgw with DPDK ", "dpdk"), nil
		}
	}
	return "", fmt.Errorf("%w: dpdk-ipsec-secgw (an example in DPDK's source: scripts/secgw.sh builds it, --secgw names it)", errMissing)
}

// startSecgw runs it on AF_PACKET sockets at both interfaces of each gateway, with fixed
// SAs and neighbours: it knows neither IKE nor ARP. Its lcores poll, one core each.
//
// It takes packets as a network card would show them: the hosts have to make their
// checksums and segments themselves. The kernel sees all packets, too; so that it doesn't
// answer or forward them, the gateways have neither an outside address nor forwarding.
func startSecgw(ctx context.Context, l *lab.Lab, o *Options) (*running, error) {
	var macs [4]string
	for i, n := range []struct{ node, link string }{{lab.LeftHost, lab.Eth0}, {lab.Left, lab.Wan}, {lab.Right, lab.Wan}, {lab.RightHost, lab.Eth0}} {
		out, err := l.Exec(commandTimeout, n.node, "ip", "link", "show", "dev", n.link)
		if err != nil {
			return nil, err
		}
		if m := etherAddress.FindStringSubmatch(out); m != nil {
			macs[i] = m[1]
		}
	}
	for _, c := range [][]string{
		{lab.LeftHost, "ethtool", "-K", lab.Eth0, "tx", "off", "tso", "off", "gso", "off"},
		{lab.RightHost, "ethtool", "-K", lab.Eth0, "tx", "off", "tso", "off", "gso", "off"},
		{lab.Left, "sysctl", "-qw", "net.ipv4.ip_forward=0"}, {lab.Right, "sysctl", "-qw", "net.ipv4.ip_forward=0"},
		{lab.Left, "ip", "-4", "addr", "flush", "dev", lab.Wan}, {lab.Right, "ip", "-4", "addr", "flush", "dev", lab.Wan},
	} {
		if _, err := l.Exec(commandTimeout, c[0], c[1:]...); err != nil {
			return nil, err
		}
	}
	keys := [2]string{secgwKey(), secgwKey()}
	ends := []struct {
		node, core, host, peer string // the last two: link-layer addresses
		me, other              lab.Addresses
		out, in                string // keys
		spiOut, spiIn          int
	}{
		{lab.Left, "0", macs[0], macs[2], l.L, l.R, keys[0], keys[1], 5, 6},
		{lab.Right, "1", macs[3], macs[1], l.R, l.L, keys[1], keys[0], 6, 5},
	}
	r := &running{cipher: "AES-256-GCM (intel-ipsec-mb), polls, hosts without offloads"}
	var procs []*lab.Proc
	r.logs = func() (s string) {
		for _, p := range procs {
			s += p.Log()
		}
		return s
	}
	for _, e := range ends {
		file := filepath.Join(l.Dir, e.node+".cfg")
		text := secgwConf(e.me.Wan4, e.other.Wan4, e.me.Inner4, e.other.Inner4, e.out, e.in, e.host, e.peer, e.spiOut, e.spiIn)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return r, err
		}
		// DPDK makes a directory in /run: one of its own, as for wireguard-go.
		p, err := l.Start(e.node, nil, "sh", "-c", `mount -t tmpfs adit-bench /run && exec "$0" "$@"`, o.Secgw,
			"--no-huge", "-m", "512", "--no-shconf", "--no-pci", "--no-telemetry", "-l", e.core,
			"--vdev", "net_af_packet0,iface="+lab.Lan, "--vdev", "net_af_packet1,iface="+lab.Wan, "--vdev", "crypto_aesni_gcm0",
			"--", "-p", "0x3", "-P", "-u", "0x2", "-l", "-w", "4096", "-e", "--config", "(0,0,"+e.core+"),(1,0,"+e.core+")", "-f", file)
		if err != nil {
			return r, err
		}
		procs, r.pids = append(procs, p), append(r.pids, p.PID())
	}
	for _, p := range procs {
		err := lab.Poll(setupTimeout, func() (bool, error) {
			select {
			case <-p.Done():
				return false, errors.New("ipsec-secgw ended")
			case <-ctx.Done():
				return false, ctx.Err()
			default:
			}
			return strings.Contains(p.Log(), "entering main loop"), nil
		})
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

var etherAddress = regexp.MustCompile(`link/ether ([0-9a-f:]{17})`)

// secgwKey is a key of AES-256-GCM with its salt, as its configuration has it.
func secgwKey() string {
	b := make([]byte, 36)
	rand.Read(b)
	var s []string
	for _, x := range b {
		s = append(s, hex.EncodeToString([]byte{x}))
	}
	return strings.Join(s, ":")
}

// secgwConf is the configuration of one gateway: port 0 is inside, port 1 outside.
func secgwConf(me, other netip.Addr, inside, beyond netip.Prefix, out, in, host, peer string, spiOut, spiIn int) string {
	return fmt.Sprintf(`sp ipv4 out esp protect %[9]d pri 1 dst %[4]v sport 0:65535 dport 0:65535
sp ipv4 in esp protect %[10]d pri 1 dst %[3]v sport 0:65535 dport 0:65535
sa out %[9]d aead_algo aes-256-gcm aead_key %[5]s mode ipv4-tunnel src %[1]v dst %[2]v
sa in %[10]d aead_algo aes-256-gcm aead_key %[6]s mode ipv4-tunnel src %[2]v dst %[1]v
rt ipv4 dst %[2]v/32 port 1
rt ipv4 dst %[3]v port 0
neigh port 0 %[7]s
neigh port 1 %[8]s
`, me, other, inside, beyond, out, in, host, peer, spiOut, spiIn)
}
