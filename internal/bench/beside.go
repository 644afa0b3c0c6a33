package bench

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"adit/ike"
	"adit/ike/ikev2"
	"adit/interop/lab"
	"adit/ipsec"
	"adit/suite"
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

// FirstMessage is a whole IKE_SA_INIT request of an initiator of a storm.
func FirstMessage(l *lab.Lab) ([]byte, error) {
	e := ike.New(ike.Config{KeepAlive: -1}, ikev2.Version)
	proposals, err1 := suite.ParseProposals(suite.IKE, []string{suites["psk"].ike})
	children, err2 := suite.ParseProposals(suite.ESP, []string{suites["psk"].esp})
	id, err3 := initiatorID(0)
	gateway, err4 := ike.ParseIdentity(gatewayID)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	at := func(a netip.Addr) []ike.AddrSpec { return []ike.AddrSpec{{From: a, To: a}} }
	child := &ike.Child{Name: "net", Proposals: children, ReplayWindow: 32, Policies: true,
		Local:  []ipsec.Selector{prefixSelector(netip.PrefixFrom(inner(0), 32))},
		Remote: []ipsec.Selector{prefixSelector(l.R.Inner4)}}
	p := &ike.Peer{Name: "p", Version: 2, LocalAddrs: at(source(0)), RemoteAddrs: at(l.R.Wan4), Proposals: proposals, KeyingTries: 1,
		Local: []ike.AuthRound{{Method: ike.AuthPSK, ID: id}}, Remote: []ike.AuthRound{{Method: ike.AuthPSK, ID: gateway}}, Children: []*ike.Child{child}}
	now := time.Now()
	e.Do(now, ike.Initiate{ID: 1, Peer: p, Child: "net"})
	for range 8 { // the key exchange is a computation
		for _, f := range e.Take() {
			switch f := f.(type) {
			case ike.Send:
				return f.Datagram.Data, nil
			case ike.Compute:
				e.Done(now, ike.Result{Job: f.Job, Value: f.Run()})
			}
		}
	}
	return nil, errors.New("the initiator sent nothing")
}
