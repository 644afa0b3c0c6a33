package hostnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// Names are what the host's resolver shall do while a tunnel is up.
type Names struct {
	Device  string       // of the tunnel
	Servers []netip.Addr // that are reached by it
	Domains []string     // names below them are the servers' to answer, and are searched
	// All has every name asked of these servers, and no other server asked, instead of those
	// below Domains alone.
	All bool
	// File is the resolv.conf to be used where there is no systemd-resolved.
	File string
}

// NamesBy is who sees to the names.
type NamesBy string

// The ways to change a host's resolver.
const (
	ByResolved NamesBy = "systemd-resolved"
	ByFile     NamesBy = "resolv.conf"
)

// SetNames hands name servers to systemd-resolved, where it runs, and otherwise writes
// them into resolv.conf, as what replaces the former SetNames. Close takes them back;
// after a crash systemd-resolved has forgotten them with the device, and the next New
// puts the file in order. In a file nothing can be said of single domains: all names are
// asked of the first server that answers.
func (n *Net) SetNames(ctx context.Context, w Names) (NamesBy, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.done {
		return "", ErrClosed
	}
	if err := w.validate(); err != nil {
		return "", err
	}
	if err := n.dropNames(ctx); err != nil {
		return "", err
	}
	err := tellResolved(ctx, w)
	if err == nil {
		n.resolved = w.Device
		return ByResolved, nil
	}
	if !errors.Is(err, errNoResolved) {
		return "", err
	}
	if !slices.Contains(n.jr.state.Resolvers, w.File) {
		n.jr.state.Resolvers = append(n.jr.state.Resolvers, w.File)
		if err := n.jr.write(); err != nil {
			return "", err
		}
	}
	n.named = &w
	return ByFile, n.writeServers(w.File)
}

// DropNames takes back what SetNames did.
func (n *Net) DropNames(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.done {
		return ErrClosed
	}
	return n.dropNames(ctx)
}

// KeepNames writes the file of SetNames again if somebody else has written it meanwhile,
// as DHCP clients do.
func (n *Net) KeepNames() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.done || n.named == nil {
		return nil
	}
	return n.writeServers(n.named.File)
}

func (n *Net) dropNames(ctx context.Context) error {
	var errs []error
	if n.resolved != "" {
		errs = append(errs, revertResolved(ctx, n.resolved))
		n.resolved = ""
	}
	if w := n.named; w != nil {
		n.named = nil
		errs = append(errs, n.writeServers(w.File))
	}
	return errors.Join(errs...)
}

func (w *Names) validate() error {
	if err := checkDeviceName(w.Device); err != nil {
		return err
	}
	if len(w.Servers) == 0 || len(w.Servers) > maxServers || len(w.Domains) > maxDomains {
		return fmt.Errorf("hostnet: %d name servers and %d domains, need 1 to %d and at most %d", len(w.Servers), len(w.Domains), maxServers, maxDomains)
	}
	for _, a := range w.Servers {
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
			return fmt.Errorf("hostnet: %v can't be a name server", a)
		}
	}
	for _, d := range w.Domains {
		for _, c := range []byte(d) {
			if c <= ' ' || c > '~' || c == '#' || c == ';' {
				return fmt.Errorf("hostnet: %q is no domain", d)
			}
		}
	}
	return nil
}

const (
	// maxDomains bounds the domains of one SetNames.
	maxDomains = 64
	// resolvedWait bounds a call of systemd-resolved.
	resolvedWait = 5 * time.Second
)

// errNoResolved: no systemd-resolved runs here.
var errNoResolved = errors.New("hostnet: systemd-resolved does not run")

const (
	resolvedName = "org.freedesktop.resolve1"
	resolvedPath = "/org/freedesktop/resolve1"
)

// resolvedServer and resolvedDomain are the elements of SetLinkDNS and SetLinkDomains
// (org.freedesktop.resolve1(5)).
type resolvedServer struct {
	Family  int32
	Address []byte
}

type resolvedDomain struct {
	Name        string
	RoutingOnly bool
}

// callResolved calls methods on its manager, one after the other.
func callResolved(ctx context.Context, calls func(call func(method string, args ...any) error) error) error {
	ctx, cancel := context.WithTimeout(ctx, resolvedWait)
	defer cancel()
	bus, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return errNoResolved
	}
	defer bus.Close()
	var there bool
	// Who is not there is not to be started: it would not be what names are looked up by.
	if err := bus.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, resolvedName).Store(&there); err != nil || !there {
		return errNoResolved
	}
	o := bus.Object(resolvedName, resolvedPath)
	return calls(func(method string, args ...any) error {
		if err := o.CallWithContext(ctx, resolvedName+".Manager."+method, dbus.FlagNoAutoStart, args...).Err; err != nil {
			return fmt.Errorf("hostnet: systemd-resolved: %s: %w", method, err)
		}
		return nil
	})
}

// tellResolved gives the servers to the tunnel's link.
func tellResolved(ctx context.Context, w Names) error {
	return callResolved(ctx, func(call func(string, ...any) error) error {
		link, err := net.InterfaceByName(w.Device)
		if err != nil {
			return fmt.Errorf("hostnet: device %s: %w", w.Device, err)
		}
		var servers []resolvedServer
		for _, a := range w.Servers {
			f := int32(unix.AF_INET)
			if a.Is6() {
				f = unix.AF_INET6
			}
			servers = append(servers, resolvedServer{f, a.AsSlice()})
		}
		domains := []resolvedDomain{}
		if w.All {
			domains = append(domains, resolvedDomain{".", true}) // "~.": before all other links
		}
		for _, d := range w.Domains {
			domains = append(domains, resolvedDomain{d, false})
		}
		index := int32(link.Index)
		return errors.Join(call("SetLinkDNS", index, servers), call("SetLinkDomains", index, domains), call("SetLinkDefaultRoute", index, w.All))
	})
}

// revertResolved takes a link's settings back; a link or resolver that is gone has none.
func revertResolved(ctx context.Context, device string) error {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return nil
	}
	err = callResolved(ctx, func(call func(string, ...any) error) error { return call("RevertLink", int32(link.Index)) })
	if errors.Is(err, errNoResolved) {
		return nil
	}
	return err
}
