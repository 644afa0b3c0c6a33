package updown

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
	"adit/ipsec"
)

// Bounds of what is done at once, waits, or is said. Options may set the first four.
const (
	limitAtOnce  = 8                      // commands that run at the same time
	limitWaiting = 1 << 16                // calls that wait; an up beyond is not run, and so has no down
	limitRun     = 30 * time.Second       // of one command
	limitDrain   = 10 * time.Second       // of all that is left when the gateway ends
	limitPairs   = 256                    // of selectors, and so calls, of one Child SA
	limitLines   = 64                     // of output of one call that are told
	limitLine    = 512                    // octets of each
	limitValue   = 4096                   // octets of an identity
	linger       = 500 * time.Millisecond // for output of what a command leaves running
)

// Options are what a Runner is made of; zero values mean the package's own bounds.
type Options struct {
	AtOnce, Waiting int
	Timeout, Drain  time.Duration
	// Report hears what the commands print and how they fail, on threads of the Runner or of
	// Event. It must not block nor call the Runner, but for Event. Nil: nobody does.
	Report func(ike.Note)
	// Device names the device by which packets from us to a peer leave, "" if none is
	// known. Nil, and where it knows none: the device that has our address.
	Device func(local, remote netip.Addr) string
	// Run runs a command with this environment and nothing else, hands its output over
	// line by line, and ends it when ctx ends; nil has /bin/sh do it.
	Run func(ctx context.Context, command string, env []string, line func(string)) error
}

// Runner runs the commands. Calls of Child SAs of the same connection, child and
// selectors run one after the other in the order of the events, others side by side.
// It is safe for concurrent use.
type Runner struct {
	opt       Options
	ctx, ups  context.Context // of every call; of those for up
	cancel    context.CancelFunc
	cancelUps context.CancelFunc

	mu       sync.Mutex
	closing  bool
	children map[uint32]*instance              // that are up and have a command, by number of the Child SA
	of       map[uint32]map[*instance]struct{} // the same by number of the IKE SA
	lanes    map[string]*lane
	ready    []*lane // with calls, and none of them running
	waiting  int     // calls in lanes
	workers  int
	refused  int // ups that were not run since that was last told
	lost     int // downs that could not be run before the end
	idle     chan struct{}
}

// instance is a Child SA with all that replace it by rekey: from its up to its down.
type instance struct {
	// What holds from up to down, whatever is reloaded, rekeyed or moved meanwhile.
	command string
	child   ike.ChildInfo // as it came up
	pairs   []pair
	up      ike.SAInfo
	lane    string

	// Set by the call for up, needed by the one for down; both are in one lane.
	device string
	ran    int // of pairs, how many

	// Guarded by Runner.mu.
	id      uint32     // of the Child SA now
	sa      ike.SAInfo // as it is now
	started bool       // the call for up has begun
	dropped bool       // neither of its calls is to run
}

// pair is one local selector with one remote one: what one call is for.
type pair struct{ local, remote ipsec.Selector }

// lane is a queue of calls that must not overtake each other.
type lane struct {
	key   string
	calls []call
}

type call struct {
	*instance
	isUp bool
	sa   ike.SAInfo
}

// New makes a Runner. It starts nothing before an event asks for it.
func New(o Options) *Runner {
	o.AtOnce, o.Waiting = cmp.Or(o.AtOnce, limitAtOnce), cmp.Or(o.Waiting, limitWaiting)
	o.Timeout, o.Drain = cmp.Or(o.Timeout, limitRun), cmp.Or(o.Drain, limitDrain)
	if o.Report == nil {
		o.Report = func(ike.Note) {}
	}
	if o.Run == nil {
		o.Run = shell
	}
	r := &Runner{opt: o, children: map[uint32]*instance{}, of: map[uint32]map[*instance]struct{}{}, lanes: map[string]*lane{}, idle: make(chan struct{}, 1)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.ups, r.cancelUps = context.WithCancel(r.ctx)
	return r
}

// Event takes an event of the engine, and queues the calls that follow from it. It never
// blocks. Rekeys of either kind run nothing, as with charon.
func (r *Runner) Event(e ike.Event) {
	switch e := e.(type) {
	case ike.ChildUp:
		if e.Child.Updown != "" {
			r.locked(func() { r.cameUp(e.SA, e.Child) })
		}
	case ike.ChildDown:
		r.locked(func() {
			if in := r.children[e.Child.ID]; in != nil {
				r.attach(in, e.SA)
				r.goesDown(in)
			}
		})
	case ike.ChildRekeyed:
		r.locked(func() { r.rekeyed(e) })
	case ike.IKERekeyed:
		r.locked(func() { r.follow(e.Old.ID, e.New) })
	case ike.Moved:
		r.locked(func() { r.follow(e.SA.ID, e.SA) })
	case ike.IKEDown:
		// Child SAs go before their IKE SA. Where an error of the engine keeps it from telling
		// so, this does.
		r.locked(func() {
			for _, in := range r.under(e.SA.ID) {
				r.goesDown(in)
			}
		})
	}
}

func (r *Runner) locked(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *Runner) cameUp(sa ike.SAInfo, c ike.ChildInfo) {
	if r.closing || r.children[c.ID] != nil {
		return
	}
	pairs := pairsOf(c)
	if len(pairs) == 0 {
		return
	}
	if r.waiting >= r.opt.Waiting {
		r.refused++
		if r.refused == 1 {
			r.opt.Report(note(sa, c, 1, fmt.Sprintf("updown: more than %d calls wait: the command is not run for this Child SA, nor for others until there is room", r.opt.Waiting)))
		}
		return
	}
	if len(pairs) > limitPairs {
		r.opt.Report(note(sa, c, 1, fmt.Sprintf("updown: %d pairs of selectors: the command is run for the first %d", len(pairs), limitPairs)))
		pairs = pairs[:limitPairs]
	}
	in := &instance{command: c.Updown, child: c, pairs: pairs, up: slim(sa), lane: laneOf(sa, c), id: c.ID}
	r.children[c.ID] = in
	r.attach(in, sa)
	r.queue(in, true)
}

// goesDown ends an instance. A down always finds room: it was reserved, as it were, by
// the up, and there are no more of them than Child SAs that had theirs queued.
func (r *Runner) goesDown(in *instance) {
	delete(r.children, in.id)
	r.detach(in)
	r.queue(in, false)
}

func (r *Runner) rekeyed(e ike.ChildRekeyed) {
	in := r.children[e.Old.ID]
	if in == nil || e.Old.ID == e.New.ID {
		return
	}
	r.attach(in, e.SA)
	if r.children[e.New.ID] != nil {
		// The replacement came up by itself before: it has its own down to come.
		r.goesDown(in)
		return
	}
	delete(r.children, in.id)
	in.id = e.New.ID
	r.children[in.id] = in
}

// follow moves all that belongs to an IKE SA to what it is now.
func (r *Runner) follow(id uint32, now ike.SAInfo) {
	for _, in := range r.under(id) {
		r.attach(in, now)
	}
}

// under are the instances of an IKE SA in the order of their Child SAs' numbers.
func (r *Runner) under(id uint32) []*instance {
	return slices.SortedFunc(maps.Keys(r.of[id]), func(a, b *instance) int { return cmp.Compare(a.id, b.id) })
}

func (r *Runner) attach(in *instance, sa ike.SAInfo) {
	r.detach(in)
	in.sa = slim(sa)
	if r.of[sa.ID] == nil {
		r.of[sa.ID] = map[*instance]struct{}{}
	}
	r.of[sa.ID][in] = struct{}{}
}

func (r *Runner) detach(in *instance) {
	delete(r.of[in.sa.ID], in)
	if len(r.of[in.sa.ID]) == 0 {
		delete(r.of, in.sa.ID)
	}
}

// slim leaves out what no call needs and what would keep much memory.
func slim(sa ike.SAInfo) ike.SAInfo {
	sa.Children, sa.Tasks = nil, nil
	return sa
}

// laneOf is equal for Child SAs whose commands are likely to touch the same things:
// one that replaces another after a reconnection or reauthentication.
func laneOf(sa ike.SAInfo, c ike.ChildInfo) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %q", sa.Name, c.Name)
	for _, s := range c.RemoteTS {
		fmt.Fprintf(&b, " %s", s)
	}
	return b.String()
}

// pairsOf are the local and remote selectors that go together, in charon's order.
func pairsOf(c ike.ChildInfo) (out []pair) {
	for _, l := range c.LocalTS {
		for _, r := range c.RemoteTS {
			if l.IsDynamic() || r.IsDynamic() || l.From.Is4() != r.From.Is4() || l.Proto != 0 && r.Proto != 0 && l.Proto != r.Proto {
				continue
			}
			out = append(out, pair{l, r})
		}
	}
	return out
}

// note is a remark that belongs to the Child SA.
func note(sa ike.SAInfo, c ike.ChildInfo, level int, text string) ike.Note {
	return ike.Note{SAKey: ike.SAKey{Name: sa.Name, ID: sa.ID, Child: c.Name, ChildID: c.ID}, Level: level, Text: text}
}
