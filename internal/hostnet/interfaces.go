package hostnet

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Interfaces says by which interfaces of the host IKE is spoken
// (charon.interfaces_use, charon.interfaces_ignore). It looks at the host's addresses
// at most once in interfacesAge, so that a flood does not make it busy.
type Interfaces struct {
	use, ignore []string
	list        func() (map[string][]netip.Addr, error) // addresses by interface

	mu    sync.Mutex
	until time.Time
	known map[netip.Addr]bool // whether the address is on a usable interface
}

// interfacesAge is how old the addresses may be that an answer rests on.
const interfacesAge = time.Second

// NewInterfaces makes the choice: use alone if it is not empty, else all but ignore.
// Nil is the choice of all.
func NewInterfaces(use, ignore []string) *Interfaces {
	if len(use)+len(ignore) == 0 {
		return nil
	}
	return &Interfaces{use: use, ignore: ignore, list: hostAddresses}
}

// Usable reports whether the address is on an interface that may be used. An
// address that no interface has is not.
func (s *Interfaces) Usable(a netip.Addr) bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.After(s.until) {
		s.until = now.Add(interfacesAge)
		if list, err := s.list(); err == nil { // else what was true a moment ago
			s.known = map[netip.Addr]bool{}
			for name, addrs := range list {
				ok := slices.Contains(s.use, name) || len(s.use) == 0 && !slices.Contains(s.ignore, name)
				for _, a := range addrs {
					s.known[a] = s.known[a] || ok
				}
			}
		}
	}
	return s.known[a.Unmap().WithZone("")]
}

func hostAddresses() (map[string][]netip.Addr, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	out := map[string][]netip.Addr{}
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil {
			continue // it has just gone
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				out[l.Name] = append(out[l.Name], p.Addr().Unmap())
			}
		}
	}
	return out, nil
}
