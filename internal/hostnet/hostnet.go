package hostnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
)

// Options are fixed for the life of a Net; the zero value takes all defaults.
type Options struct {
	// Table is the routing table of the hinted routes (charon.routing_table);
	// default 220.
	Table int
	// Priority is the first of four for our ip rules (charon.routing_table_prio);
	// default 220.
	Priority int
	// SteerTable is the first of the per-device tables; device i has table
	// SteerTable+i. Default 220000.
	SteerTable int
	// Protocol is the route protocol number that tells our routes and rules from
	// others'; default 173.
	Protocol int
	// MarkMask are the bits of packet marks that are ours: one run of at least
	// four bits. Default 0xff000000.
	MarkMask uint32
	// JournalDir holds the journal; default /run/adit.
	JournalDir string
	// IKEPorts are our UDP ports, let in despite a policy between the gateways'
	// own addresses; default 500 and 4500.
	IKEPorts []uint16
	// GuardOff leaves the guard's drops out (the steering stays).
	GuardOff bool
}

// ErrAlreadyRunning is wrapped by New's error when another instance holds the
// network namespace.
var ErrAlreadyRunning = errors.New("hostnet: another adit runs in this network namespace")

// ErrClosed is returned after Close or Abandon.
var ErrClosed = errors.New("hostnet: closed")

// Net is our hold on one network namespace. Its methods may be called from
// several goroutines.
type Net struct {
	opt  Options
	mu   sync.Mutex
	lock *instanceLock
	jr   journal
	nft  *ruler
	fib  *fib
	last *State    // the State last applied but for members of crowds, for Refresh
	now  *standing // what Change starts from; nil: the whole State must be applied
	// apart are the policies that the nftables program has outside of crowds.
	apart map[string]bool
	addr  map[addressKey]int
	// servers are the name servers of ours, how often added, and order that in which they came.
	servers map[serverKey]int
	order   []serverKey
	// named is what SetNames wrote into a file, resolved the device that systemd-resolved has servers for.
	named    *Names
	resolved string
	done     bool
	// inherited: there was a guard when we came.
	inherited bool
}

// New takes the namespace (ErrAlreadyRunning if another instance has it),
// removes what a dead instance left of routes, rules and addresses, and keeps
// that instance's guard standing until the first Apply replaces it.
func New(o Options) (*Net, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	lock, err := acquireLock()
	if err != nil {
		return nil, err
	}
	n := &Net{opt: o, lock: lock, addr: map[addressKey]int{}, servers: map[serverKey]int{}}
	if err := n.open(); err != nil {
		lock.release()
		return nil, err
	}
	return n, nil
}

func (n *Net) open() error {
	var err error
	if n.jr, err = openJournal(n.opt.JournalDir); err != nil {
		return err
	}
	if n.fib, err = newFIB(&n.opt); err != nil {
		return err
	}
	stale := n.jr.state
	if err := n.fib.sweep(append(stale.Protocols, n.opt.Protocol, defaultProtocol)); err != nil {
		return fmt.Errorf("hostnet: removing stale routes: %w", err)
	}
	for _, a := range stale.Addresses {
		if err := delAddress(a); err != nil {
			return fmt.Errorf("hostnet: removing stale address %v: %w", a, err)
		}
	}
	if err := dropServers(stale.Resolvers); err != nil {
		return fmt.Errorf("hostnet: removing stale name servers: %w", err)
	}
	n.jr.state = journalState{Protocols: []int{n.opt.Protocol}}
	if err := n.jr.write(); err != nil {
		return err
	}
	if n.nft, err = newRuler(&n.opt); err != nil {
		return err
	}
	n.inherited = len(n.nft.have.bases) > 0
	return nil
}

// Mark returns the mark (value and mask) that our own sockets must carry
// (SO_MARK) for their packets to stay outside the policies.
func (n *Net) Mark() (value, mask uint32) { return n.opt.ownMark(), n.opt.MarkMask }

// Inherited reports whether the guard of an instance that died stood when this one came,
// and stands until the first Apply.
func (n *Net) Inherited() bool { return n.inherited }

// SetIKEPorts says by which UDP ports our sockets receive, where they were given by the
// kernel. It counts from the next Apply on.
func (n *Net) SetIKEPorts(ports ...uint16) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.opt.IKEPorts = ports
}

// Apply makes s true on the host: what is new is added, what is gone is removed.
// The guard and the steering change in one transaction, after stale routes went
// and before new ones come, so that no packet meets routes without the guard.
//
// An error of a single route (a device is missing or down) leaves the rest
// applied and the guard standing; Refresh tries again.
func (n *Net) Apply(s State) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.done {
		return ErrClosed
	}
	if err := s.validate(); err != nil {
		return err
	}
	s = s.clone()
	if err := n.apply(&s); err != nil {
		return err
	}
	return nil
}

// Refresh applies the last State again: to be called when addresses, links or
// routes of the host changed (see Watch), since connected subnets, source hints
// and devices depend on them.
func (n *Net) Refresh() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.done {
		return ErrClosed
	}
	if n.last == nil {
		return nil
	}
	return n.apply(n.whole())
}

func (n *Net) apply(s *State) error {
	h, err := readHost(s.Devices)
	if err != nil {
		return err
	}
	for _, l := range h.strays {
		if err := ignoreGone(group(l)); err != nil {
			return fmt.Errorf("hostnet: device %s: group %d: %w", l.Attrs().Name, deviceGroup, err)
		}
	}
	pl := makePlan(s, h, &n.opt, n.apart)
	n.unfold()
	if err := n.fib.removeStale(pl.routes, pl.rules); err != nil {
		return fmt.Errorf("hostnet: removing routes: %w", err)
	}
	if err := n.nft.install(pl); err != nil {
		return fmt.Errorf("hostnet: nftables: %w", err)
	}
	n.last, n.apart = s, map[string]bool{}
	for i, c := range pl.crowdOf {
		if c == nil && s.Policies[i].Group != "" {
			n.apart[s.Policies[i].ID] = true
		}
	}
	if err := n.fib.addMissing(pl.routes, pl.rules); err != nil {
		return fmt.Errorf("hostnet: adding routes: %w", err)
	}
	n.stand(pl)
	return nil
}

// Close removes all that is ours from the host and lets go of the namespace.
func (n *Net) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.done {
		return nil
	}
	n.done = true
	var errs []error
	errs = append(errs, n.dropNames(context.Background()), n.fib.sweep([]int{n.opt.Protocol}))
	for k := range n.addr {
		errs = append(errs, delAddress(k))
	}
	errs = append(errs, dropServers(n.jr.state.Resolvers), n.nft.remove(), n.jr.remove())
	n.fib.close()
	n.lock.release()
	return errors.Join(errs...)
}

// Abandon lets go of the namespace and leaves everything as it stands, like the
// death of the process: the guard keeps dropping until a new instance comes.
func (n *Net) Abandon() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.done {
		n.done = true
		n.fib.close()
		n.lock.release()
	}
}

// Count is a number of packets and their bytes.
type Count struct{ Packets, Bytes uint64 }

// PolicyCount is what the guard dropped under one policy: outbound about to
// leave in the clear (or to be discarded), and inbound that came in the clear.
type PolicyCount struct{ Out, In Count }

// Counters returns the guard's drops by policy ID, since the policy was first
// applied (counts survive Apply and the death of the process).
func (n *Net) Counters() (map[string]PolicyCount, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.done {
		return nil, ErrClosed
	}
	return n.nft.counters()
}

// AddAddress puts a virtual address on a device. Calls are counted: as many
// DelAddress calls take it away.
func (n *Net) AddAddress(device string, p netip.Prefix) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.done {
		return ErrClosed
	}
	k, err := newAddressKey(device, p)
	if err != nil {
		return err
	}
	if n.addr[k] > 0 {
		n.addr[k]++
		return nil
	}
	n.jr.state.Addresses = append(n.jr.state.Addresses, k)
	if err := n.jr.write(); err != nil {
		return err
	}
	if err := addAddress(k); err != nil {
		n.forgetAddress(k)
		return fmt.Errorf("hostnet: adding address %v: %w", k, err)
	}
	n.addr[k] = 1
	return nil
}

// DelAddress undoes one AddAddress; the last one removes the address. An address
// or device that vanished meanwhile is no error.
func (n *Net) DelAddress(device string, p netip.Prefix) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.done {
		return ErrClosed
	}
	k, err := newAddressKey(device, p)
	if err != nil {
		return err
	}
	switch n.addr[k] {
	case 0:
		return fmt.Errorf("hostnet: address %v is not one of ours", k)
	case 1:
		if err := delAddress(k); err != nil {
			return fmt.Errorf("hostnet: removing address %v: %w", k, err)
		}
		delete(n.addr, k)
		return n.forgetAddress(k)
	}
	n.addr[k]--
	return nil
}

func (n *Net) forgetAddress(k addressKey) error {
	kept := n.jr.state.Addresses[:0]
	for _, a := range n.jr.state.Addresses {
		if a != k {
			kept = append(kept, a)
		}
	}
	n.jr.state.Addresses = kept
	return n.jr.write()
}

// SetupDevice readies one of our TUN devices: sysctls (reverse-path filter, no
// IPv6 autoconfiguration), no link-local address, the group by which the guard knows
// it, the MTU, and up. Nothing global is changed.
func (n *Net) SetupDevice(device string, mtu int) error { return setupDevice(device, mtu) }

// Diagnose returns what is set on the host against a gateway's work, one
// sentence each, for the log; empty if nothing is wrong.
func (n *Net) Diagnose() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return diagnose(n.last)
}

// Watch reports changes of addresses, links and our guard, and of others' routes
// if they are wanted, until ctx ends; then the
// channel is closed. A reader that falls behind gets an EventOverrun instead of
// the events lost, and should look at everything again.
func (n *Net) Watch(ctx context.Context, routes bool) (<-chan Event, error) {
	return watch(ctx, n.opt.Protocol, routes)
}
