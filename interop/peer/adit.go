package peer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"adit/interop/lab"
)

// AditOptions choose how adit is run.
type AditOptions struct {
	// Config, if not empty, is the text of a configuration that adit is started
	// with (`adit run --config FILE`) and that SIGHUP reads again; see Rewrite.
	Config string
	// Race builds with the race detector (needs cgo and a C compiler).
	Race bool
	// Extra are further lines of the section charon of strongswan.conf.
	Extra string
	// Own are further lines of the section adit.
	Own string
	// Args are further arguments of `adit run`.
	Args []string
}

// AditGateway is adit in a node of a lab.
type AditGateway struct {
	*daemon
	Binary string
}

var _ Gateway = (*AditGateway)(nil)

// Adit builds ./cmd/adit (once a test run) and prepares it in a node of a lab. It
// is not started.
func Adit(l *lab.Lab, node string, o AditOptions) (*AditGateway, error) {
	bin, err := Build(o.Race)
	if err != nil {
		return nil, err
	}
	d, err := newDaemon(l, node, "adit")
	if err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(`charon {
	plugins {
		vici {
			socket = %[1]s
		}
	}
	%[2]s
}
adit {
	state_dir = %[4]s
	%[5]s
}
swanctl {
	socket = %[1]s
	load = %[3]s
}
`, d.uri(), o.Extra, swanctlPlugins, d.path("state"), o.Own)
	if err := os.WriteFile(d.path("strongswan.conf"), []byte(conf), 0o600); err != nil {
		return nil, err
	}
	d.argv = []string{bin, "run", "--vici", d.uri()}
	if o.Config != "" {
		if err := d.writeConf(o.Config); err != nil {
			return nil, err
		}
		d.argv = append(d.argv, "--config", d.path("swanctl/swanctl.conf"))
	}
	d.argv = append(d.argv, o.Args...)
	d.version = func(d *daemon) string {
		out, err := exec.Command(bin, "version").Output()
		if err != nil {
			return "adit (" + err.Error() + ")"
		}
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return first
	}
	return &AditGateway{d, bin}, nil
}

// Rewrite replaces the text of the configuration file; SIGHUP makes a gateway that
// was started with AditOptions.Config read it.
func (g *AditGateway) Rewrite(conf string) error { return g.writeConf(conf) }

// Command runs the adit binary with other arguments in the gateway's node, with
// its environment: `adit status --json --vici URI`, say.
func (g *AditGateway) Command(args ...string) (string, error) {
	return g.lab.ExecEnv(callTimeout, g.node, g.env, append([]string{g.Binary}, args...)...)
}

// Background starts what Command runs.
func (g *AditGateway) Background(args ...string) (*lab.Proc, error) {
	return g.lab.Start(g.node, g.env, append([]string{g.Binary}, args...)...)
}

// URI is the address of the gateway's VICI socket.
func (g *AditGateway) URI() string { return g.uri() }

type built struct {
	path string
	err  error
}

var builds = map[bool]func() built{
	false: sync.OnceValue(func() built { return build(false) }),
	true:  sync.OnceValue(func() built { return build(true) }),
}

// Build compiles ./cmd/adit once a process into a temporary directory and returns
// the path of the binary. [RemoveBuilds] removes it.
func Build(race bool) (string, error) {
	b := builds[race]()
	return b.path, b.err
}

var buildDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "adit-build-") })

// RemoveBuilds removes what [Build] made; for the end of TestMain.
func RemoveBuilds() {
	if dir, err := buildDir(); err == nil {
		os.RemoveAll(dir)
	}
}

func build(race bool) built {
	root, err := moduleRoot()
	if err != nil {
		return built{err: err}
	}
	dir, err := buildDir()
	if err != nil {
		return built{err: err}
	}
	out := filepath.Join(dir, "adit")
	args, cgo := []string{"build", "-trimpath", "-o", out}, "CGO_ENABLED=0"
	if race {
		out += "-race"
		args, cgo = []string{"build", "-race", "-o", out}, "CGO_ENABLED=1"
	}
	cmd := exec.Command("go", append(args, "./cmd/adit")...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), cgo)
	if msg, err := cmd.CombinedOutput(); err != nil {
		return built{err: fmt.Errorf("building ./cmd/adit: %w\n%s", err, msg)}
	}
	return built{path: out}
}

// moduleRoot is the nearest directory upwards that holds go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}
