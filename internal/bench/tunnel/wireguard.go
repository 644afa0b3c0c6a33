package tunnel

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"adit/interop/lab"
)

const (
	wireGuardModule = "golang.zx2c4.com/wireguard"
	// wireGuardVersion is what is built where no program is given: the one that the
	// figures of this project were taken with.
	wireGuardVersion = "v0.0.0-20260522210424-ecfc5a8d5446"
	buildTimeout     = 5 * time.Minute
)

// findWireGuard builds wireguard-go from the module proxy into the user's cache, once.
func findWireGuard(ctx context.Context, o *Options) (string, error) {
	if o.WireGuard != "" {
		_, err := os.Stat(o.WireGuard)
		return "wireguard-go (" + o.WireGuard + ")", err
	}
	dir := filepath.Join(cacheDir(), "wireguard-"+wireGuardVersion)
	o.WireGuard = filepath.Join(dir, "wireguard")
	version := "wireguard-go " + wireGuardVersion
	if _, err := os.Stat(o.WireGuard); err == nil {
		return version, nil
	}
	if _, err := exec.LookPath("go"); err != nil {
		return "", fmt.Errorf("%w: there is no go to build it with; name a program with --wireguard-go", errMissing)
	}
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	// The directory that we were started in doesn't matter.
	cmd := exec.CommandContext(ctx, "go", "install", wireGuardModule+"@"+wireGuardVersion)
	cmd.Dir, cmd.Env = os.TempDir(), append(os.Environ(), "GOBIN="+dir, "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", wireGuardModule, err, lastLines(string(out), 5))
	}
	return version, nil
}

// cacheDir keeps programs that were built.
func cacheDir() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "adit-bench")
}

const (
	wireGuardPort = 51820
	wireGuardLink = "wg0"
)

// startWireGuard runs it in both gateways. Its control socket has a fixed directory for
// the whole machine, so each process gets a /run of its own, in the mount namespace that
// `ip netns exec` made; nothing of it is left when the process ends.
func startWireGuard(ctx context.Context, l *lab.Lab, o *Options) (*running, error) {
	ends := []*wireGuard{{node: lab.Left, me: l.L, other: l.R}, {node: lab.Right, me: l.R, other: l.L}}
	r := &running{cipher: "ChaCha20-Poly1305"}
	r.logs = func() (s string) {
		for _, e := range ends {
			if e.proc != nil {
				s += e.proc.Log()
			}
		}
		return s
	}
	for _, e := range ends {
		var err error
		if e.key, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return r, err
		}
		if e.proc, err = l.Start(e.node, []string{"LOG_LEVEL=error"}, "sh", "-c", `mount -t tmpfs adit-bench /run && exec "$0" -f `+wireGuardLink, o.WireGuard); err != nil {
			return r, err
		}
		r.pids = append(r.pids, e.proc.PID())
	}
	for i, e := range ends {
		if err := e.configure(ctx, ends[1-i].key.PublicKey()); err != nil {
			return r, fmt.Errorf("configuring wireguard-go in %s: %w", e.node, err)
		}
		for _, c := range [][]string{
			{"link", "set", wireGuardLink, "mtu", "1420", "up"}, // its default: 1500 outside
			{"route", "add", e.other.Inner4.String(), "dev", wireGuardLink},
		} {
			if _, err := l.Exec(commandTimeout, e.node, append([]string{"ip"}, c...)...); err != nil {
				return r, err
			}
		}
	}
	return r, nil
}

type wireGuard struct {
	node      string
	me, other lab.Addresses
	key       *ecdh.PrivateKey
	proc      *lab.Proc
}

// configure speaks the cross-platform user space protocol (wireguard.com/xplatform).
func (w *wireGuard) configure(ctx context.Context, peer *ecdh.PublicKey) error {
	path := fmt.Sprintf("/proc/%d/root/run/wireguard/%s.sock", w.proc.PID(), wireGuardLink)
	var conn net.Conn
	err := lab.Poll(setupTimeout, func() (bool, error) {
		select {
		case <-w.proc.Done():
			return false, errors.New("wireguard-go ended")
		case <-ctx.Done():
			return false, ctx.Err()
		default:
		}
		var err error
		conn, err = net.DialTimeout("unix", path, commandTimeout)
		return err == nil, nil
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(commandTimeout))
	if _, err := fmt.Fprintf(conn, "set=1\nprivate_key=%s\nlisten_port=%d\nreplace_peers=true\npublic_key=%s\nendpoint=%s\nreplace_allowed_ips=true\nallowed_ip=%s\n\n",
		hex.EncodeToString(w.key.Bytes()), wireGuardPort, hex.EncodeToString(peer.Bytes()),
		netip.AddrPortFrom(w.other.Wan4, wireGuardPort), w.other.Inner4); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if strings.TrimSpace(answer) != "errno=0" {
		return fmt.Errorf("the answer is %q", answer)
	}
	return nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
