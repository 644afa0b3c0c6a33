package bench

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
	"adit/vici"
)

// responder is the gateway that is measured.
type responder interface {
	pid() int
	uri() string // of its control socket
	log() string
	// profiled has the process write its profiles, where it can.
	profiled(dir string) error
}

// generous are settings of strongswan.conf for both: all initiators have a few
// addresses, so what defends against floods from one address is out of the way.
const generous = `
	cookie_threshold = 0
	cookie_threshold_ip = 0
	block_threshold = 0
	init_limit_half_open = 0
	half_open_timeout = 120
`

// charonOnly are what strongSwan's documentation advises for many IKE SAs.
const charonOnly = `
	dos_protection = no
	ikesa_table_size = 16384
	ikesa_table_segments = 16
	init_limit_job_load = 0
	filelog {
		log {
			default = 0
			flush_line = no
		}
	}
`

// charonPlugins are the usual ones of the lab without those that watch or run scripts.
const charonPlugins = "random nonce openssl pem pkcs1 pkcs8 pubkey x509 constraints " +
	"aes sha1 sha2 hmac gcm kdf curve25519 vici kernel-libipsec kernel-netlink socket-default"

// responderConf is the swanctl.conf of both. auth is the lines of both rounds.
func responderConf(l *lab.Lab, auth string, c *credentials) string {
	local, remote, secrets := "auth = psk", "auth = psk", fmt.Sprintf("ike-all {\n\t\tsecret = 0s%s\n\t}", base64.StdEncoding.EncodeToString(c.psk))
	if auth == "ecdsa" {
		local, remote, secrets = "auth = pubkey\n\t\t\tcerts = gateway.pem", "auth = pubkey\n\t\t\tcacerts = ca.pem", ""
	}
	return fmt.Sprintf(`connections {
	bench {
		version = 2
		local_addrs = %s
		remote_addrs = %%any
		proposals = %s
		rekey_time = 0
		reauth_time = 0
		dpd_delay = 0
		local {
			%s
			id = %s
		}
		remote {
			%s
			id = %%any
		}
		children {
			net {
				local_ts = %s
				remote_ts = %s
				esp_proposals = %s
				rekey_time = 0
				life_time = 0
			}
		}
	}
}
secrets {
	%s
}
`, l.R.Wan4, suites[auth].ike, local, gatewayID, remote, l.R.Inner4, innerNet, suites[auth].esp, secrets)
}

func startResponder(l *lab.Lab, o Options, auth, kind string, c *credentials) (responder, error) {
	conf := responderConf(l, auth, c)
	if kind == "charon" {
		return startCharon(l, conf, c)
	}
	return startAdit(l, o, conf, "charon {\n"+generous+"}\n", c)
}

type charonResponder struct{ peer.Gateway }

func (c charonResponder) pid() int              { return c.PID() }
func (c charonResponder) uri() string           { return "unix://" + filepath.Join(c.Gateway.Dir(), "vici") }
func (c charonResponder) log() string           { return c.Log() }
func (c charonResponder) profiled(string) error { return nil }

func startCharon(l *lab.Lab, conf string, c *credentials) (responder, error) {
	g, err := peer.StrongSwan(l, lab.Right, peer.StrongSwanOptions{Plugins: charonPlugins, Extra: generous + charonOnly})
	if err != nil {
		return nil, err
	}
	if err := c.write(filepath.Join(g.(interface{ Dir() string }).Dir(), "swanctl")); err != nil {
		return nil, err
	}
	if err := g.Start(); err != nil {
		return nil, err
	}
	return charonResponder{g}, g.Load(conf)
}

type aditResponder struct {
	proc   *lab.Proc
	socket string
}

func (a aditResponder) pid() int    { return a.proc.PID() }
func (a aditResponder) uri() string { return a.socket }
func (a aditResponder) log() string { return a.proc.Log() }

// responderDir is the directory of an adit responder's files.
func responderDir(l *lab.Lab) string { return filepath.Join(l.Dir, "adit") }

// startAdit runs the real thing: `adit run` as anybody would start it.
func startAdit(l *lab.Lab, o Options, conf, settings string, c *credentials) (responder, error) {
	dir := responderDir(l)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := c.write(dir); err != nil {
		return nil, err
	}
	files := map[string]string{"swanctl.conf": conf, "strongswan.conf": settings}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	uri := "unix://" + filepath.Join(dir, "vici")
	env := []string{"STRONGSWAN_CONF=" + filepath.Join(dir, "strongswan.conf"), "SWANCTL_DIR=" + dir}
	if o.ProfileDir != "" {
		env = append(env, "ADIT_UNSAFE_PROFILE="+o.ProfileDir)
	}
	p, err := l.Start(lab.Right, env, o.Binary, "run", "--config", filepath.Join(dir, "swanctl.conf"), "--vici", uri)
	if err != nil {
		return nil, err
	}
	err = lab.Poll(10*time.Second, func() (bool, error) {
		select {
		case <-p.Done():
			return false, fmt.Errorf("adit ended:\n%s", p.Log())
		default:
		}
		return loaded(uri) == nil, nil
	})
	return aditResponder{p, uri}, err
}

// loaded reports whether the gateway has its connection.
func loaded(uri string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := vici.Dial(ctx, uri)
	if err != nil {
		return err
	}
	defer c.Close()
	conns, err := c.Call(ctx, "get-conns", nil)
	if err != nil {
		return err
	}
	if v, _ := conns.Get("conns"); len(v.List) == 0 {
		return errors.New("no connection is loaded yet")
	}
	return nil
}

func (a aditResponder) profiled(dir string) error {
	if dir == "" {
		return nil
	}
	heap := filepath.Join(dir, "heap.pprof")
	_ = os.Remove(heap)
	if err := a.proc.Signal(syscall.SIGUSR2); err != nil {
		return err
	}
	return lab.Poll(20*time.Second, func() (bool, error) {
		_, err := os.Stat(heap)
		return err == nil, nil
	})
}
