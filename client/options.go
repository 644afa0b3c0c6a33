package client

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"adit/internal/conn"
)

// Method is how the user is proven.
type Method string

// The methods.
const (
	MSCHAPv2    Method = "eap-mschapv2" // name and password, the default
	EAPTLS      Method = "eap-tls"      // a certificate, inside EAP
	Certificate Method = "pubkey"       // a certificate, in IKE itself
)

// Options say where to go and who is there. Gateway and what Method needs are all that
// must be given, or Profile.
type Options struct {
	// Gateway is its host name or address, with a port if it listens elsewhere than at UDP
	// 4500. The name is looked up once: later changes are not believed.
	Gateway string
	// GatewayID is the identity that the gateway's certificate must have; empty: Gateway's host.
	GatewayID string
	// Method is how the user is proven; empty: MSCHAPv2, or by certificate where there is a Key
	// and no User.
	Method Method
	// User is the name for EAP, and the identity in IKE; empty with a certificate: its own.
	User string
	// Password is asked once, before anything is sent, if the method needs one. What it
	// returns is overwritten.
	Password func(ctx context.Context) ([]byte, error)
	// Key and Certificates (DER, the own one first) prove the user where Method says so.
	Key          crypto.Signer
	Certificates [][]byte
	// CAs (DER) are who may have signed the gateway's certificate; none: the system's.
	CAs [][]byte
	// Subnets are what shall go through the tunnel; none: all that the gateway lets in.
	Subnets []netip.Prefix
	// DNS replaces the name servers that the gateway tells.
	DNS []netip.Addr
	// Profile is the path of a swanctl.conf with one connection, in the place of all of the
	// above but Password, Key and Certificates; what it leaves open has the client's defaults.
	Profile string
	// Timeout bounds the first connection; 0: 30 s.
	Timeout time.Duration
	// Progress, if set, hears of every change; it must not block.
	Progress func(Progress)
	// Log receives what an operator would read; nil: nothing is logged.
	Log *slog.Logger
}

// State is where a connection stands.
type State int

// The states.
const (
	Connecting State = iota
	Up
	Lost // it was up, and is being set up again
	Down
)

// String is the state's name.
func (s State) String() string {
	return [...]string{"connecting", "connected", "lost", "down"}[s]
}

// Progress is what became of the connection.
type Progress struct {
	State   State
	Gateway netip.AddrPort // valid once its address is known
	// What the gateway gave, in the state Up: our addresses, what goes through the tunnel,
	// name servers and the domains that they know.
	Addrs   []netip.Addr
	Routes  []netip.Prefix
	DNS     []netip.Addr
	Domains []string
	Device  string // of the host, if it has one
	Why     string // for people: why it was lost
}

// Full reports whether everything of a family goes through the tunnel.
func (p Progress) Full() bool {
	for _, r := range p.Routes {
		if r.Bits() == 0 {
			return true
		}
	}
	return false
}

// Kind tells what to do about an Error.
type Kind int

// The kinds.
const (
	Failed      Kind = iota // anything else
	Refused                 // the gateway did not accept the user
	Unreachable             // no answer, no way, no such name
	Untrusted               // the gateway could not prove that it is the one
)

// Error is why there is no connection, for people.
type Error struct {
	Kind Kind
	Text string
	Err  error // with the details
}

func (e *Error) Error() string { return e.Text }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

const defaultTimeout = 30 * time.Second

// split takes Gateway apart.
func (o *Options) split() (host string, port uint16, err error) {
	host = o.Gateway
	if h, p, err := net.SplitHostPort(o.Gateway); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return "", 0, fmt.Errorf("client: gateway %q: %q is no port", o.Gateway, p)
		}
		host, port = h, uint16(n)
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if host == "" || strings.ContainsAny(host, " ,/%") {
		return "", 0, fmt.Errorf("client: gateway %q is neither a host name nor an address", o.Gateway)
	}
	return host, cmp.Or(port, conn.PortNATT), nil
}

func (o *Options) method() Method {
	switch {
	case o.Method != "":
		return o.Method
	case o.Key != nil && o.User == "":
		return Certificate
	}
	return MSCHAPv2
}

func (o *Options) validate() error {
	switch m := o.method(); m {
	case MSCHAPv2:
		if o.User == "" {
			return errors.New("client: no user: write user@gateway")
		}
	case EAPTLS, Certificate:
		if o.Key == nil || len(o.Certificates) == 0 {
			return fmt.Errorf("client: %s needs a certificate and its key", m)
		}
	default:
		return fmt.Errorf("client: no method %q: use %s, %s or %s", m, MSCHAPv2, EAPTLS, Certificate)
	}
	for _, p := range o.Subnets {
		if !p.IsValid() || p != p.Masked() {
			return fmt.Errorf("client: subnet %v has bits behind its prefix", p)
		}
	}
	return nil
}
