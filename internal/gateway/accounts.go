package gateway

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"adit/ike"
	"adit/internal/config"
	"adit/ipsec"
	"adit/radius"
)

// accounts are the sessions of clients: what a RADIUS server that let them in said of
// them, and what it is told of them (RFC 2866). Safe for concurrent use; nothing here
// waits for others.
type accounts struct {
	g      *Gateway
	cfg    config.Accounting
	mu     sync.Mutex
	admit  map[uint64]*admitted // accepted, their IKE SA is not up yet; by its Instance
	all    map[uint64]*account  // by the Instance of the IKE SA
	owner  map[uint32]*account  // by Child SA
	client *radius.Client       // nil: no accounting
	queue  chan *statement
	lost   int       // statements that found no place, since the last line about it
	told   time.Time // when that was
}

// admitted is what a server said of a client that it let in.
type admitted struct {
	at       time.Time
	user     string
	class    [][]byte
	framed   []netip.Addr
	interim  time.Duration
	calling  string
	nas      netip.Addr
	identity string
}

// account is one client's session.
type account struct {
	admitted
	sa       ike.SAInfo
	session  string // Acct-Session-Id
	began    time.Time
	started  bool    // the servers have been told
	updating bool    // an interim update waits, or is under way
	done     traffic // of Child SAs that are gone, less what was another session's before
	children map[uint32]bool
	next     time.Time // of the next interim update; zero: none
	expires  time.Time // a CoA-Request's Session-Timeout; zero: none
	cause    uint32    // why it is being ended, if we end it
}

// traffic counts both directions, in is from the client. Sums may pass through what
// would be less than 0: they come round.
type traffic struct{ in, out ipsec.SAStats }

func (t *traffic) less(in, out ipsec.SAStats) {
	t.in.Bytes -= in.Bytes
	t.in.Packets -= in.Packets
	t.out.Bytes -= out.Bytes
	t.out.Packets -= out.Packets
}

func (t *traffic) add(in, out ipsec.SAStats) {
	t.in.Bytes += in.Bytes
	t.in.Packets += in.Packets
	t.out.Bytes += out.Bytes
	t.out.Packets += out.Packets
}

// statement is an Accounting-Request to be sent.
type statement struct {
	packet  *radius.Packet
	interim bool
	sa      ike.SAInfo
	user    string
}

func (a *accounts) init(g *Gateway) {
	a.g, a.cfg = g, g.opt.Daemon.Accounting
	a.admit, a.all, a.owner = map[uint64]*admitted{}, map[uint64]*account{}, map[uint32]*account{}
	a.queue = make(chan *statement, limitStatements)
	if !a.cfg.On || len(g.opt.Daemon.RADIUS) == 0 {
		return
	}
	cfg := g.radiusConfig()
	for i, s := range g.opt.Daemon.RADIUS {
		cfg.Servers[i].Port = cmp.Or(s.AcctPort, radius.DefaultAcctPort)
	}
	a.client, _ = radius.NewClient(cfg) // the same servers as for authentication, which tells what is wrong
}

// accepted notes what a server said of a client. What never becomes an IKE SA is
// forgotten again.
func (a *accounts) accepted(instance uint64, local, remote netip.AddrPort, step *radius.Step) {
	x := &admitted{at: time.Now(), user: step.UserName, class: step.Class, interim: step.InterimInterval,
		calling: remote.String(), nas: local.Addr(), identity: step.Identity}
	for _, f := range []netip.Addr{step.Framed4, step.Framed6} {
		if f.IsValid() {
			x.framed = append(x.framed, f)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.admit == nil {
		a.admit = map[uint64]*admitted{}
	}
	for k, old := range a.admit {
		if time.Since(old.at) > admitLife {
			delete(a.admit, k)
		}
	}
	if len(a.admit) < limitConversations {
		a.admit[instance] = x
	}
}

// framed is the address of a family that a server gave to the client of an IKE SA.
func (a *accounts) framed(instance uint64, six bool) (addr netip.Addr, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := a.admit[instance]
	if up := a.all[instance]; x == nil && up != nil { // IKEv1 gives addresses when the IKE SA is up
		x = &up.admitted
	}
	if x == nil {
		return addr, false
	}
	for _, f := range x.framed {
		if f.Is6() == six {
			return f, true
		}
	}
	return addr, true
}

// event follows the IKE SAs and Child SAs of clients.
func (a *accounts) event(e ike.Event) {
	switch e := e.(type) {
	case ike.IKEUp:
		a.up(e.SA)
	case ike.IKERekeyed:
		a.with(e.New.Instance, func(x *account) { x.sa = e.New })
	case ike.Moved:
		a.with(e.SA.Instance, func(x *account) { x.sa = e.SA })
	case ike.Addressed:
		a.up(e.SA)
	case ike.ChildUp:
		a.up(e.SA)
		a.with(e.SA.Instance, func(x *account) { a.own(x, e.Child.ID) })
	case ike.ChildPassed: // before IKEUp, that one has it
		a.with(e.SA.Instance, func(x *account) { a.own(x, e.Child.ID) })
	case ike.ChildRekeyed:
		a.with(e.SA.Instance, func(x *account) { a.own(x, e.New.ID) })
	case ike.IKEDown:
		a.down(e.SA, e.Reason)
	}
}

func (a *accounts) with(instance uint64, f func(*account)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if x := a.all[instance]; x != nil {
		f(x)
	}
}

// own makes a Child SA one of this session. What passed while it was another one's is
// counted there.
func (a *accounts) own(x *account, child uint32) {
	if old := a.owner[child]; old != nil && old != x {
		in, out := a.g.Query(child)
		old.done.add(in, out)
		x.done.less(in, out)
		delete(old.children, child)
	}
	x.children[child] = true
	a.owner[child] = x
}

// childGone takes the last counters of a Child SA that is removed.
func (a *accounts) childGone(child uint32, in, out ipsec.SAStats) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if x := a.owner[child]; x != nil {
		x.done.add(in, out)
		delete(x.children, child)
		delete(a.owner, child)
	}
}

// up begins the session of a client, and tells the servers of it as soon as it has the
// addresses that it will have: in IKEv1 these come later.
func (a *accounts) up(sa ike.SAInfo) {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := a.all[sa.Instance]
	if x == nil {
		ok := a.admit[sa.Instance]
		delete(a.admit, sa.Instance)
		if ok == nil {
			ok = a.ours(sa)
		}
		if ok == nil || len(a.all) >= limitAccounts {
			return
		}
		x = &account{admitted: *ok, children: map[uint32]bool{}, session: fmt.Sprintf("%x-%016x", time.Now().Unix(), sa.Instance)}
		a.all[sa.Instance] = x
	}
	x.sa = sa
	comes := sa.Version == 1 && len(sa.Children) == 0
	for _, c := range sa.Children {
		if old := a.owner[c.ID]; old != nil && old != x && len(old.sa.RemoteVIPs) > 0 {
			comes = true
		}
		a.own(x, c.ID)
	}
	if x.started || (comes || a.cfg.NeedsVIP) && len(sa.RemoteVIPs) == 0 {
		return
	}
	now := time.Now()
	x.started, x.began = true, now
	x.interim = cmp.Or(x.interim, a.cfg.Interval)
	if x.interim > 0 {
		x.interim = max(x.interim, leastInterim)
		x.next = now.Add(x.interim)
	}
	a.tell(x, radius.AcctStart, 0, now)
}

// ours is the session of a client that we let in by ourselves: who came by a name, or
// has a virtual address. A site has neither, and no session. Deviates: strongSwan
// accounts for sites, too.
func (a *accounts) ours(sa ike.SAInfo) *admitted {
	user := sa.RemoteEAPID
	if user == "" && len(sa.RemoteVIPs) > 0 {
		user = sa.RemoteID.String()
	}
	if user == "" || sa.Initiator || a.client == nil && !a.cfg.DAE {
		return nil
	}
	return &admitted{user: user, identity: user, calling: sa.Remote.String(), nas: sa.Local.Addr()}
}

func (a *accounts) down(sa ike.SAInfo, reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := a.all[sa.Instance]
	if x == nil {
		return
	}
	delete(a.all, sa.Instance)
	if x.started {
		a.tell(x, radius.AcctStop, cmp.Or(x.cause, terminateCause(reason)), time.Now())
	}
	for c := range x.children {
		delete(a.owner, c)
	}
}

// terminateCause is the Acct-Terminate-Cause of what the engine says when an IKE SA goes.
func terminateCause(reason string) uint32 {
	for _, c := range []struct {
		word  string
		cause uint32
	}{
		{"deleted by the peer", radius.CauseUserRequest}, {"peer does not answer", radius.CauseLostCarrier},
		{"the peer has lost it", radius.CauseLostCarrier}, {"replaced by a new IKE SA", radius.CauseUserRequest},
		{"replaced", radius.CauseNASRequest}, {"reauthentication", radius.CauseNASRequest}, {"redirected", radius.CauseNASRequest},
		{"its only Child SA was inactive", radius.CauseIdleTimeout}, {"lifetime expired", radius.CauseSessionTimeout},
		{"terminated", radius.CauseAdminReset}, {"shutting down", radius.CauseAdminReboot},
	} {
		if strings.HasPrefix(reason, c.word) {
			return c.cause
		}
	}
	return radius.CauseNASError
}

// request is the beginning of every Accounting-Request.
func request(status uint32, session string, now time.Time) *radius.Packet {
	p := &radius.Packet{Code: radius.AccountingRequest}
	p.AddUint32(radius.TypeAcctStatusType, status)
	p.AddString(radius.TypeAcctSessionID, session)
	p.AddUint32(radius.TypeEventTimestamp, uint32(now.Unix()))
	return p
}

// announce tells the servers that accounting begins or ends here (RFC 2866 §2.1, §5.1):
// no session of before lives any more.
func (a *accounts) announce(ctx context.Context, status uint32, wait time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	_, err := a.client.Exchange(ctx, request(status, fmt.Sprintf("%x", a.g.started.Unix()), time.Now()), nil)
	if err != nil && status == radius.AcctOn && a.g.pool.ctx.Err() == nil {
		a.g.bus.publish(ike.Note{Level: 1, Text: fmt.Sprintf("RADIUS accounting: nobody was told of our start: %v", err)})
	}
}

// tell queues an Accounting-Request. The caller holds mu.
func (a *accounts) tell(x *account, status, cause uint32, now time.Time) {
	if a.client == nil {
		return
	}
	p := request(status, x.session, now)
	p.AddString(radius.TypeUserName, cut(x.user))
	p.AddUint32(radius.TypeNASPortType, radius.NASPortTypeVirtual)
	p.AddUint32(radius.TypeServiceType, radius.ServiceTypeFramed)
	p.AddUint32(radius.TypeNASPort, x.sa.ID)
	p.AddString(radius.TypeNASPortID, cut(x.sa.Name))
	if n := x.nas.Unmap(); n.Is4() {
		p.Add(radius.TypeNASIPAddress, n.AsSlice())
	} else {
		p.Add(radius.TypeNASIPv6Address, n.AsSlice())
	}
	p.AddString(radius.TypeCalledStationID, x.sa.Local.String())
	p.AddString(radius.TypeCallingStationID, x.sa.Remote.String())
	for _, v := range x.sa.RemoteVIPs {
		if v.Is4() {
			p.Add(radius.TypeFramedIPAddress, v.AsSlice())
		} else {
			p.Add(radius.TypeFramedIPv6Address, v.AsSlice())
		}
	}
	if a.cfg.SendClass {
		for _, c := range x.class {
			p.Add(radius.TypeClass, c)
		}
	}
	if status != radius.AcctStart {
		t := x.done
		for c := range x.children {
			t.add(a.g.Query(c))
		}
		p.AddUint32(radius.TypeAcctInputOctets, uint32(t.in.Bytes))
		p.AddUint32(radius.TypeAcctInputGigawords, uint32(t.in.Bytes>>32))
		p.AddUint32(radius.TypeAcctOutputOctets, uint32(t.out.Bytes))
		p.AddUint32(radius.TypeAcctOutputGigawords, uint32(t.out.Bytes>>32))
		p.AddUint32(radius.TypeAcctInputPackets, uint32(t.in.Packets))
		p.AddUint32(radius.TypeAcctOutputPackets, uint32(t.out.Packets))
		p.AddUint32(radius.TypeAcctSessionTime, uint32(now.Sub(x.began)/time.Second))
	}
	if status == radius.AcctStop {
		p.AddUint32(radius.TypeAcctTerminateCause, cause)
	}
	select {
	case a.queue <- &statement{packet: p, interim: status == radius.AcctInterimUpdate, sa: x.sa, user: x.user}:
	default:
		x.updating = false
		a.lost++
		if now.Sub(a.told) >= accountQuiet {
			text := fmt.Sprintf("RADIUS accounting: too much waits for the servers; %d statements are lost, the last of %s", a.lost, x.user)
			a.lost, a.told = 0, now
			a.g.bus.publish(ike.Note{SAKey: ike.SAKey{Name: x.sa.Name, ID: x.sa.ID}, Level: 1, Text: text})
		}
	}
}

func cut(s string) string { return s[:min(len(s), radius.MaxValue)] }

// run sends what is queued, so many at a time, and has the time pass for sessions. The
// first thing that servers hear is Accounting-On: later, it would end what has begun.
func (a *accounts) run(ctx context.Context) {
	var senders sync.WaitGroup
	if a.client != nil {
		senders.Go(func() {
			a.announce(ctx, radius.AcctOn, accountTimeout)
			for range accountSenders {
				senders.Go(func() { a.sender(ctx) })
			}
		})
	}
	defer senders.Wait()
	if len(a.g.opt.Daemon.RADIUS) == 0 {
		return
	}
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-t.C:
			a.pass(ctx, now)
		}
	}
}

func (a *accounts) sender(ctx context.Context) {
	for {
		select {
		case s := <-a.queue:
			a.send(ctx, s)
		case <-ctx.Done():
			return
		}
	}
}

// pass sends interim updates that are due, and ends sessions whose time is over.
func (a *accounts) pass(ctx context.Context, now time.Time) {
	var over []uint32
	a.mu.Lock()
	for _, x := range a.all {
		if !x.next.IsZero() && !now.Before(x.next) {
			if x.next = now.Add(x.interim); !x.updating { // a server that is dead for long gets one, not all
				x.updating = true
				a.tell(x, radius.AcctInterimUpdate, 0, now)
			}
		}
		if !x.expires.IsZero() && !now.Before(x.expires) {
			x.expires, x.cause = time.Time{}, radius.CauseSessionTimeout
			over = append(over, x.sa.ID)
		}
	}
	a.mu.Unlock()
	for _, id := range over {
		_ = a.g.shard.deliver(ctx, ike.Terminate{IKEID: id})
	}
}

func (a *accounts) send(ctx context.Context, s *statement) {
	ctx, cancel := context.WithTimeout(ctx, accountTimeout)
	defer cancel()
	_, err := a.client.Exchange(ctx, s.packet, nil)
	if s.interim {
		a.with(s.sa.Instance, func(x *account) { x.updating = false })
	}
	if err == nil {
		return
	}
	if a.g.pool.ctx.Err() != nil { // we are closing, and ask once more then
		select {
		case a.queue <- s:
		default:
		}
		return
	}
	text := fmt.Sprintf("RADIUS accounting of %s: %v", s.user, err)
	if s.interim && !a.cfg.KeepOnTimeout {
		text += "; the IKE SA is closed (accounting_close_on_timeout)"
		a.with(s.sa.Instance, func(x *account) { x.cause = radius.CauseNASError })
		_ = a.g.shard.deliver(ctx, ike.Terminate{IKEID: s.sa.ID})
	}
	a.g.bus.publish(ike.Note{SAKey: ike.SAKey{Name: s.sa.Name, ID: s.sa.ID}, Level: 1, Text: text})
}

// close sends what is still queued, for a short time: the ends of sessions, and ours.
func (a *accounts) close() {
	if a.client == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), accountGrace)
	defer cancel()
	var senders sync.WaitGroup
	for range accountSenders {
		senders.Go(func() {
			for {
				select {
				case s := <-a.queue:
					_, _ = a.client.Exchange(ctx, s.packet, nil)
				default:
					return
				}
			}
		})
	}
	senders.Wait()
	a.announce(ctx, radius.AcctOff, accountGrace)
	_ = a.client.Close()
}

// find are the sessions that all of a request's identification attributes fit (RFC 5176 §3).
func (a *accounts) find(p *radius.Packet) (list []uint64, named bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range []radius.Type{radius.TypeUserName, radius.TypeAcctSessionID, radius.TypeFramedIPAddress, radius.TypeFramedIPv6Address, radius.TypeCallingStationID} {
		if _, ok := p.Get(t); ok {
			named = true
		}
	}
	for _, instance := range slices.Sorted(maps.Keys(a.all)) {
		if named && a.all[instance].fits(p) {
			list = append(list, instance)
		}
	}
	return list, named
}

func (x *account) fits(p *radius.Packet) bool {
	for _, at := range p.Attributes {
		switch v := string(at.Value); at.Type {
		case radius.TypeUserName:
			if v != x.user && v != x.identity {
				return false
			}
		case radius.TypeAcctSessionID:
			if v != x.session {
				return false
			}
		case radius.TypeCallingStationID:
			if v != x.sa.Remote.String() && v != x.calling {
				return false
			}
		case radius.TypeFramedIPAddress, radius.TypeFramedIPv6Address:
			if a, ok := netip.AddrFromSlice(at.Value); !ok || !slices.Contains(x.sa.RemoteVIPs, a) {
				return false
			}
		}
	}
	return true
}
