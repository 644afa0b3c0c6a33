package tunnel

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"adit/conf"
	cost "adit/internal/bench"
	"adit/interop/lab"
	"adit/interop/peer"
	"adit/suite"
	"adit/vici"
)

// contender is a way for packets to get from host to host.
type contender struct {
	name string // for the command line, tables and files
	what string // for people
	// find looks for what it needs and says why it can't take part, and fetches or
	// builds what may be. It returns its version.
	find func(ctx context.Context, o *Options) (string, error)
	// start brings its tunnel up in a lab.
	start func(ctx context.Context, l *lab.Lab, o *Options) (*running, error)
}

// running is a contender whose tunnel is up.
type running struct {
	pids   []int // of both gateways, where there are any
	cipher string
	logs   func() string // what the gateways said, for an error
	storm  *cost.Beside  // of set-ups at the right gateway, if one is asked for
}

// errMissing marks a contender that isn't installed.
var errMissing = errors.New("not installed")

// contenders are all that are known, in the order of tables.
func contenders() []*contender {
	list := []*contender{
		{"plain", "forwarding without a tunnel", nil, startPlain},
		{"adit", "adit, ESP in UDP", aditVersion, startAdit("auto", "auto")},
		{"adit-go", "adit with Go's AES-GCM", aditGoVersion, startAdit("auto", "go")},
		{"adit-raw", "adit, raw ESP", aditVersion, startAdit("no", "auto")},
		{"adit-other", "another adit", otherVersion, startOther},
		{"wireguard-go", "wireguard-go", findWireGuard, startWireGuard},
		{"libipsec", "strongSwan kernel-libipsec", findStrongSwan, startStrongSwan},
		{"openvpn", "OpenVPN without DCO", findOpenVPN, startOpenVPN},
		{"secgw", "DPDK ipsec-secgw", findSecgw, startSecgw},
	}
	return list
}

// DefaultContenders are measured when nothing else is said.
var DefaultContenders = []string{"plain", "adit", "adit-go", "wireguard-go", "libipsec", "openvpn", "secgw"}

// startPlain gives the gateways the routes that they otherwise lack.
func startPlain(_ context.Context, l *lab.Lab, _ *Options) (*running, error) {
	for _, r := range [][]string{{lab.Left, l.R.Inner4.String(), l.R.Wan4.String()}, {lab.Right, l.L.Inner4.String(), l.L.Wan4.String()}} {
		if _, err := l.Exec(commandTimeout, r[0], "ip", "route", "add", r[1], "via", r[2]); err != nil {
			return nil, err
		}
	}
	return &running{}, nil
}

const (
	commandTimeout = 10 * time.Second
	setupTimeout   = 30 * time.Second
)

// site is a gateway's swanctl.conf, the same for adit and strongSwan: one tunnel with
// selectors of both networks, AES-256-GCM, a replay window, no rekeying within a
// measurement.
func site(me, other lab.Addresses, key, encap, esp string) string {
	return fmt.Sprintf(`connections {
  bench {
    version = 2
    local_addrs = %[1]v
    remote_addrs = %[2]v
    proposals = aes256gcm16-prfsha384-x25519
    rekey_time = 0
    dpd_delay = 0%[6]s
    local {
      auth = psk
      id = %[1]v
    }
    remote {
      auth = psk
      id = %[2]v
    }
    children {
      net {
        local_ts = %[3]v
        remote_ts = %[4]v
        esp_proposals = %[7]s
        replay_window = 4096
        rekey_time = 0
        life_time = 0
      }
    }
  }
}
secrets {
  ike-1 {
    id-1 = %[1]v
    id-2 = %[2]v
    secret = 0x%[5]s
  }
}
`, me.Wan4, other.Wan4, me.Inner4, other.Inner4, key, encap, esp)
}

// sites are the texts of both gateways with a new key.
func sites(l *lab.Lab, encap, esp string) (left, right string) {
	b := make([]byte, 32)
	rand.Read(b)
	key := hex.EncodeToString(b)
	return site(l.L, l.R, key, encap, esp), site(l.R, l.L, key, encap, esp)
}

func aditVersion(_ context.Context, o *Options) (string, error) {
	out, err := exec.Command(o.Binary, "version").Output()
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return first, err
}

// otherVersion is that of the adit given by an option.
func otherVersion(ctx context.Context, o *Options) (string, error) {
	if o.Other == "" {
		return "", errors.New("no --other-adit is given")
	}
	return aditVersion(ctx, &Options{Binary: o.Other})
}

func startOther(ctx context.Context, l *lab.Lab, o *Options) (*running, error) {
	other := *o
	other.Binary = o.Other
	return startAdit("auto", "auto")(ctx, l, &other)
}

// aditGoVersion leaves out what would be measured twice.
func aditGoVersion(ctx context.Context, o *Options) (string, error) {
	if suite.AESGCM() == "go" {
		return "", errors.New("adit has no other code for AES-GCM on this machine")
	}
	return aditVersion(ctx, o)
}

// startAdit runs the real thing in both gateways and sets the tunnel up by IKEv2.
func startAdit(encap, aesGCM string) func(context.Context, *lab.Lab, *Options) (*running, error) {
	return func(ctx context.Context, l *lab.Lab, o *Options) (*running, error) {
		left, right := sites(l, "\n    encap = "+encap, "aes256gcm16-x25519-esn")
		r := &running{logs: func() string { return "" }}
		if o.storms() {
			var err error
			if r.storm, err = cost.NewBeside(l); err != nil {
				return r, err
			}
			right = strings.Replace(right, "connections {\n", "connections {\n  "+r.storm.Connection(l), 1)
			right = strings.Replace(right, "secrets {\n", "secrets {\n  "+r.storm.Secret(), 1)
		}
		var uris []string
		for _, g := range []struct{ node, text string }{{lab.Right, right}, {lab.Left, left}} {
			p, uri, err := runAdit(ctx, l, o, g.node, g.text, aesGCM)
			if p != nil {
				before := r.logs
				r.pids, r.logs = append(r.pids, p.PID()), func() string { return before() + p.Log() }
			}
			if err != nil {
				return r, err
			}
			uris = append(uris, uri)
		}
		msg := conf.New("")
		msg.Set("child", "net")
		msg.Set("timeout", "10000")
		res, err := command(ctx, uris[1], "initiate", msg)
		if err != nil {
			return r, err
		}
		if res.Text("success") != "yes" {
			return r, errors.New(res.Text("errmsg"))
		}
		r.cipher = "AES-256-GCM (" + aditCipher(r.logs()) + ")"
		return r, nil
	}
}

func runAdit(ctx context.Context, l *lab.Lab, o *Options, node, text, aesGCM string) (*lab.Proc, string, error) {
	file, settings := filepath.Join(l.Dir, node+".conf"), filepath.Join(l.Dir, "strongswan.conf")
	if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), os.WriteFile(settings, []byte(o.settings()), 0o600)); err != nil {
		return nil, "", err
	}
	uri := "unix://" + filepath.Join(l.Dir, node+".vici")
	p, err := l.Start(node, []string{"STRONGSWAN_CONF=" + settings}, o.Binary, "run", "--config", file, "--vici", uri, "--aes-gcm", aesGCM)
	if err != nil {
		return nil, "", err
	}
	return p, uri, lab.Poll(setupTimeout, func() (bool, error) {
		select {
		case <-p.Done():
			return false, errors.New("adit ended")
		case <-ctx.Done():
			return false, ctx.Err()
		default:
		}
		conns, err := command(ctx, uri, "get-conns", nil)
		if err != nil {
			return false, nil
		}
		v, _ := conns.Get("conns")
		return len(v.List) > 0, nil
	})
}

// command asks a gateway over VICI; events of the log are passed over.
func command(ctx context.Context, uri, name string, msg *conf.Section) (*conf.Section, error) {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	c, err := vici.Dial(ctx, uri)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Call(ctx, name, msg)
}

// strongSwanPlugins are the usual ones without those that watch or run scripts.
const strongSwanPlugins = "random nonce openssl pem pkcs1 pkcs8 pubkey x509 constraints " +
	"aes sha1 sha2 hmac gcm kdf curve25519 vici kernel-libipsec kernel-netlink socket-default"

func findStrongSwan(context.Context, *Options) (string, error) {
	for _, f := range []string{"/usr/sbin/charon-systemd", "/usr/sbin/swanctl", "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so"} {
		if _, err := os.Stat(f); err != nil {
			return "", fmt.Errorf("%w: %s (Debian: charon-systemd, strongswan-swanctl, libcharon-extra-plugins)", errMissing, f)
		}
	}
	return debianVersion("strongSwan ", "charon-systemd"), nil
}

// debianVersion is the version of a package, or that it is unknown.
func debianVersion(name, pkg string) string {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", pkg).Output()
	if err != nil {
		return name + "(version unknown)"
	}
	return name + strings.TrimSpace(string(out))
}

func startStrongSwan(_ context.Context, l *lab.Lab, _ *Options) (*running, error) {
	// kernel-libipsec has no extended sequence numbers.
	left, right := sites(l, "", "aes256gcm16-x25519")
	r := &running{cipher: "AES-256-GCM", logs: func() string { return "" }}
	var last peer.Gateway
	for _, g := range []struct{ node, text string }{{lab.Right, right}, {lab.Left, left}} {
		s, err := peer.StrongSwan(l, g.node, peer.StrongSwanOptions{Plugins: strongSwanPlugins})
		if err != nil {
			return r, err
		}
		before := r.logs
		r.logs = func() string { return before() + s.Log() }
		if err := s.Start(); err != nil {
			return r, err
		}
		r.pids = append(r.pids, s.PID())
		if err := s.Load(g.text); err != nil {
			return r, err
		}
		last = s
	}
	return r, last.Initiate("net")
}

var computedBy = regexp.MustCompile(`AES-GCM is computed by ([a-z0-9-]+)`)

// aditCipher names the code for AES-GCM that the gateways chose, by their logs.
func aditCipher(log string) string {
	if m := computedBy.FindStringSubmatch(log); m != nil {
		return m[1]
	}
	return "unknown code"
}
