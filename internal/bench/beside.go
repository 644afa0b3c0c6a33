package bench

import (
	"context"
	"encoding/base64"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"adit/interop/lab"
)

// Beside is a storm of set-ups, with a pre-shared key, at a gateway that is measured for
// something else meanwhile, or afterwards for what so many SAs cost it.
type Beside struct {
	creds *credentials
	s     *storm
}

// NewBeside prepares a storm in a lab whose gateways do not run yet.
func NewBeside(l *lab.Lab) (*Beside, error) {
	c, err := newCredentials("psk", 0)
	if err != nil {
		return nil, err
	}
	return &Beside{creds: c}, addSources(l)
}

// Settings are those of strongswan.conf that a gateway needs to let a storm in.
const Settings = "charon {\n" + generous + "}\n"

// Connection and Secret are what the right gateway's swanctl.conf has beside others.
func (b *Beside) Connection(l *lab.Lab) string {
	return fmt.Sprintf(`storm {
    version = 2
    local_addrs = %s
    remote_addrs = %%any
    proposals = %s
    rekey_time = 0
    dpd_delay = 0
    local {
      auth = psk
      id = %s
    }
    remote {
      auth = psk
      id = %%any
    }
    children {
      storm {
        local_ts = %s
        remote_ts = %s
        esp_proposals = %s
        rekey_time = 0
        life_time = 0
      }
    }
  }
`, l.R.Wan4, suites["psk"].ike, gatewayID, l.R.Inner4, innerNet, suites["psk"].esp)
}

// Secret is the key of that connection.
func (b *Beside) Secret() string {
	return fmt.Sprintf("ike-storm {\n    id-1 = %s\n    secret = 0s%s\n  }\n", gatewayID, base64.StdEncoding.EncodeToString(b.creds.psk))
}

// Begin opens the initiators' sockets; the gateways run by now.
func (b *Beside) Begin(l *lab.Lab, n, parallel int) (err error) {
	b.s, err = openStorm(l, "psk", b.creds, n, parallel)
	return err
}

// Run makes all set-ups, on a thread of the lowest priority: initiators are other
// machines' otherwise.
func (b *Beside) Run(ctx context.Context) error {
	runtime.LockOSThread() // never unlocked: the priority goes away with the thread
	if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19); err != nil {
		return err
	}
	return b.s.run(ctx)
}

// Up is the number of set-ups that are done, after Run.
func (b *Beside) Up() int { return b.s.up }

// End closes the sockets, if they were opened.
func (b *Beside) End() {
	if b.s != nil {
		b.s.close()
	}
}
