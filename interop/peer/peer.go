package peer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"adit/interop/lab"
)

// Gateway is an IKE daemon in one node of a lab. Names of connections and children
// are those of the loaded configuration.
type Gateway interface {
	// Start starts the daemon and returns when its VICI socket answers.
	Start() error
	// Load replaces the daemon's configuration by conf, the text of a
	// swanctl.conf, with `swanctl --load-all`.
	Load(conf string) error
	// Initiate sets up a child and its IKE SA; the error holds the daemon's log of
	// the attempt.
	Initiate(child string) error
	// Terminate ends an IKE SA by name without waiting for the peer.
	Terminate(ike string) error
	// TerminateChild ends a child by name.
	TerminateChild(child string) error
	// RekeyChild and RekeyIKE ask for a rekey and return when it is under way: poll
	// SAs for the new SPIs.
	RekeyChild(child string) error
	RekeyIKE(ike string) error
	// SAs lists the IKE SAs with their children.
	SAs() ([]SA, error)
	// Swanctl runs swanctl with these arguments against the daemon.
	Swanctl(args ...string) (string, error)
	// Stream starts a swanctl that does not end by itself: --monitor-sa, --log. What it
	// printed so far is the program's log.
	Stream(args ...string) (*lab.Proc, error)
	// Signal sends the daemon a signal: SIGHUP, say.
	Signal(syscall.Signal) error
	// Stop ends the daemon with SIGTERM; the error tells how it ended if not well.
	Stop() error
	// Kill9 ends it with SIGKILL: nothing that it did to the host is undone.
	Kill9()
	// Log is all that the daemon has said since it was first started.
	Log() string
	// PID is the daemon's process id, 0 if it does not run.
	PID() int
	// Name says what this is and its version: "strongSwan 5.9.8", "adit …".
	Name() string
	// Dir is where the daemon's files are: its swanctl/x509, swanctl/private and so
	// on may be filled before Load.
	Dir() string
}

const (
	startTimeout = 10 * time.Second
	stopTimeout  = 10 * time.Second
	callTimeout  = 20 * time.Second
	// initiateSeconds is how long an initiation may take, for swanctl.
	initiateSeconds = "15"
)

// daemon is what all peers have in common: a directory, a socket and swanctl.
type daemon struct {
	lab     *lab.Lab
	node    string
	dir     string
	env     []string
	argv    []string
	extra   func() string // further log, of files
	version func(*daemon) string
	proc    *lab.Proc
	logs    []string // of earlier processes
}

// swanctlDirs are the directories that swanctl looks into and complains about.
var swanctlDirs = []string{"x509", "x509ca", "x509ocsp", "x509aa", "x509ac", "x509crl", "pubkey",
	"private", "rsa", "ecdsa", "bliss", "pkcs8", "pkcs12"}

func newDaemon(l *lab.Lab, node, kind string) (*daemon, error) {
	d := &daemon{lab: l, node: node, dir: filepath.Join(l.Dir, node+"-"+kind)}
	for _, sub := range swanctlDirs {
		if err := os.MkdirAll(filepath.Join(d.dir, "swanctl", sub), 0o700); err != nil {
			return nil, err
		}
	}
	d.env = []string{"STRONGSWAN_CONF=" + d.path("strongswan.conf"), "SWANCTL_DIR=" + d.path("swanctl")}
	return d, nil
}

func (d *daemon) path(name string) string { return filepath.Join(d.dir, name) }

// uri is the VICI socket's address. The lab's directory is short, so that it fits
// the 108 octets of a Unix socket.
func (d *daemon) uri() string { return "unix://" + d.path("vici") }

func (d *daemon) Dir() string { return d.dir }

func (d *daemon) Start() error {
	if d.proc != nil {
		select {
		case <-d.proc.Done():
		default:
			return errors.New("already running")
		}
		d.logs = append(d.logs, d.proc.Log())
	}
	p, err := d.lab.Start(d.node, d.env, d.argv...)
	if err != nil {
		return err
	}
	d.proc = p
	err = lab.Poll(startTimeout, func() (bool, error) {
		select {
		case <-p.Done():
			return false, errors.New("the daemon ended")
		default:
		}
		if _, err := os.Stat(d.path("vici")); err != nil {
			return false, nil
		}
		_, err := d.Swanctl("--stats")
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("starting %s in %s: %w\n%s", d.argv[0], d.node, err, d.Log())
	}
	return nil
}

func (d *daemon) Swanctl(args ...string) (string, error) {
	if len(args) == 0 {
		return "", errors.New("swanctl without arguments")
	}
	cmd := append([]string{"swanctl", args[0], "--uri", d.uri()}, args[1:]...)
	return d.lab.ExecEnv(callTimeout, d.node, d.env, cmd...)
}

func (d *daemon) Stream(args ...string) (*lab.Proc, error) {
	if len(args) == 0 {
		return nil, errors.New("swanctl without arguments")
	}
	// Else swanctl's lines would wait in its buffer until that is full.
	cmd := append([]string{"stdbuf", "-oL", "swanctl", args[0], "--uri", d.uri()}, args[1:]...)
	return d.lab.Start(d.node, d.env, cmd...)
}

func (d *daemon) writeConf(conf string) error {
	return os.WriteFile(d.path("swanctl/swanctl.conf"), []byte(conf), 0o600)
}

func (d *daemon) Load(conf string) error {
	if err := d.writeConf(conf); err != nil {
		return err
	}
	out, err := d.Swanctl("--load-all", "--noprompt", "--clear")
	if err != nil {
		return fmt.Errorf("%w\n%s", err, d.Log())
	}
	// swanctl ends with 0 when it could not read the file, or not load all of it.
	if strings.Contains(out, "failed") || strings.Contains(out, "invalid config") {
		return fmt.Errorf("load-all: %s", out)
	}
	return nil
}

func (d *daemon) Initiate(child string) error {
	_, err := d.Swanctl("--initiate", "--child", child, "--timeout", initiateSeconds)
	return err
}

func (d *daemon) Terminate(ike string) error {
	_, err := d.Swanctl("--terminate", "--ike", ike, "--force", "--timeout", "1")
	return err
}

func (d *daemon) TerminateChild(child string) error {
	_, err := d.Swanctl("--terminate", "--child", child, "--timeout", "5")
	return err
}

func (d *daemon) RekeyChild(child string) error {
	_, err := d.Swanctl("--rekey", "--child", child)
	return err
}

func (d *daemon) RekeyIKE(ike string) error {
	_, err := d.Swanctl("--rekey", "--ike", ike)
	return err
}

func (d *daemon) SAs() ([]SA, error) {
	out, err := d.Swanctl("--list-sas", "--pretty")
	if err != nil {
		return nil, err
	}
	return ParseSAs(out)
}

func (d *daemon) Signal(s syscall.Signal) error {
	if d.proc == nil {
		return os.ErrProcessDone
	}
	return d.proc.Signal(s)
}

func (d *daemon) Stop() error {
	if d.proc == nil {
		return nil
	}
	return d.proc.Stop(stopTimeout)
}

func (d *daemon) Kill9() {
	if d.proc != nil {
		d.proc.Kill()
	}
}

func (d *daemon) PID() int {
	if d.proc == nil {
		return 0
	}
	select {
	case <-d.proc.Done():
		return 0
	default:
		return d.proc.PID()
	}
}

func (d *daemon) Log() string {
	s := strings.Join(d.logs, "")
	if d.proc != nil {
		s += d.proc.Log()
	}
	if d.extra != nil {
		s += d.extra()
	}
	return s
}

func (d *daemon) Name() string { return d.version(d) }
