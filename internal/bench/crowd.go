package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"adit/internal/users"
	"adit/interop/lab"
	"adit/vici"
)

// CrowdOptions are those of `adit bench users`; the zero value of a field means its default.
type CrowdOptions struct {
	Out   io.Writer
	Users []int // how many, one measurement each (1, 1000, 10000)
	// Within is the time in which the most of them come; fewer come in less, at the same
	// rate. Zero: all at one instant.
	Within time.Duration
	// Wait is how long after the last has come the others are waited for (2 min).
	Wait time.Duration
	// Settle is as in Options, Packets how long packets are sent for each figure; 0: none are.
	Settle, Packets time.Duration
	Binary          string
	ProfileDir      string
	KeepLog         bool
}

func (o *CrowdOptions) complete() (err error) {
	if len(o.Users) == 0 {
		o.Users = []int{1, 1000, 10_000}
	}
	if o.Wait == 0 {
		o.Wait = 2 * time.Minute
	}
	if o.Settle == 0 {
		o.Settle = 5 * time.Second
	}
	for _, n := range o.Users {
		if n < 1 || n > MaxSAs {
			return fmt.Errorf("%d users: from 1 to %d are possible", n, MaxSAs)
		}
	}
	if o.Within < 0 || o.Within > time.Hour || o.Packets < 0 || o.Packets > time.Minute {
		return errors.New("users come within an hour, and packets for a minute at most")
	}
	if o.Binary == "" {
		o.Binary, err = os.Executable()
	}
	return err
}

// Crowd is one measurement of users.
type Crowd struct {
	Users, Up, Left, Lost int
	Why                   map[string]int // of those who did not come in, or were put out
	Within, Wall          time.Duration
	Times                 []time.Duration // of set-ups, sorted
	Repeated              uint64
	Drops                 map[string]int // what the gateway dropped, by reason
	CPU                   time.Duration  // of the gateway, for all set-ups
	Base, Resident        int64
	Leases, Routes        int
	Packets               []PacketCost
}

// Users measures a gateway whose users come by thousands, and prints what they met and
// what they cost. It needs root.
func Users(ctx context.Context, o CrowdOptions) error {
	if err := o.complete(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return lab.ErrNotRoot
	}
	var all []*Crowd
	most := slices.Max(o.Users)
	for _, n := range o.Users {
		c, err := oneCrowd(ctx, o, n, o.Within*time.Duration(n)/time.Duration(most))
		if err != nil {
			return fmt.Errorf("%d users: %w", n, err)
		}
		fmt.Fprint(o.Out, c)
		all = append(all, c)
	}
	printCrowds(o.Out, all)
	for _, c := range all {
		if c.Up < c.Users {
			return fmt.Errorf("%d of %d users were left out", c.Users-c.Up, c.Users)
		}
	}
	return nil
}

// usersConf is the gateway's swanctl.conf: what a company has for its people.
func usersConf(l *lab.Lab) string {
	return fmt.Sprintf(`connections {
	users {
		version = 2
		local_addrs = %s
		proposals = %s
		pools = users
		send_certreq = no
		local {
			auth = pubkey
			certs = gateway.pem
			id = %s
		}
		remote {
			auth = eap-mschapv2
			eap_id = %%any
		}
		children {
			net {
				local_ts = %s
				esp_proposals = %s
			}
		}
	}
}
pools {
	users {
		addrs = %s
		dns = %s
	}
}
`, l.R.Wan4, suites["eap"].ike, gatewayID, l.R.Inner4, suites["eap"].esp, crowdPool, l.R.Host4)
}

// oneCrowd is one measurement in namespaces of its own.
func oneCrowd(ctx context.Context, o CrowdOptions, n int, within time.Duration) (c *Crowd, err error) {
	ctx, cancel := context.WithTimeout(ctx, within+o.Wait+runTimeout)
	defer cancel()
	l, err := lab.New("buser", lab.Options{})
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := l.Close(); err == nil {
			err = e
		}
	}()
	creds, err := newCredentials("eap", 0)
	if err != nil {
		return nil, err
	}
	if err := writeUsers(l, creds, n); err != nil {
		return nil, err
	}
	settings := fmt.Sprintf("adit {\n\tstate_dir = %s\n}\n", filepath.Join(l.Dir, "state"))
	r, err := startAdit(l, Options{Binary: o.Binary, ProfileDir: o.ProfileDir}, usersConf(l), settings, creds)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil || o.KeepLog {
			fmt.Fprintf(o.Out, "--- log of adit\n%s\n---\n", lastLines(r.log(), 15))
		} else if c.Up < c.Users {
			fmt.Fprintf(o.Out, "--- warnings of adit\n%s\n---\n", lastLines(warnings(r.log()), 5))
		}
	}()
	st, err := newUsers(l, creds, n, within)
	if err != nil {
		return nil, err
	}
	defer st.close()
	c = &Crowd{Users: n, Within: within}
	return c, c.measure(ctx, l, r, st, o)
}

// warnings are those lines of a log.
func warnings(log string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// writeUsers writes the file that `adit user` writes.
func writeUsers(l *lab.Lab, creds *credentials, n int) error {
	dir := responderDir(l)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return users.Change(dir, func([]users.User) ([]users.User, error) {
		list := make([]users.User, n)
		for i := range list {
			list[i] = users.User{Name: initiatorName(i), NT: creds.ntHash(i)}
		}
		return list, nil
	})
}

// measure lets the users in, and sends packets.
func (c *Crowd) measure(ctx context.Context, l *lab.Lab, r responder, st *storm, o CrowdOptions) error {
	pid := r.pid()
	if err := quiet(ctx, pid); err != nil {
		return err
	}
	before, err := CPUTime(pid)
	if err != nil {
		return err
	}
	if c.Base, err = Resident(pid); err != nil {
		return err
	}
	if err := c.storm(ctx, st, o); err != nil {
		return err
	}
	if err := quiet(ctx, pid); err != nil {
		return err
	}
	after, err := CPUTime(pid)
	if err != nil {
		return err
	}
	c.CPU = after - before
	if c.Resident, err = settled(ctx, pid, o.Settle); err != nil {
		return err
	}
	if c.Drops, c.Leases, err = told(ctx, r.uri()); err != nil {
		return err
	}
	if _, full, err := datagrams(l.NS(lab.Right)); err != nil {
		return err
	} else if full > 0 {
		c.Drops["socket-full"] = full
	}
	if c.Routes, err = routes(l); err != nil {
		return err
	}
	if c.Up == c.Users && (c.Leases != c.Users || c.Routes != c.Users) {
		return fmt.Errorf("the gateway has %d leases and %d routes", c.Leases, c.Routes)
	}
	if o.Packets > 0 && c.Up == c.Users {
		if c.Packets, err = packets(ctx, l, pid, st, o.Packets); err != nil {
			return err
		}
	}
	return r.profiled(o.ProfileDir)
}

// storm has all users come, on threads of the lowest priority: clients are other machines'
// otherwise.
func (c *Crowd) storm(ctx context.Context, st *storm, o CrowdOptions) error {
	if err := priority(19); err != nil {
		return err
	}
	defer priority(0)
	ctx, cancel := context.WithTimeout(ctx, c.Within+o.Wait)
	defer cancel()
	start := time.Now()
	err := st.run(ctx)
	c.Wall, c.Repeated = time.Since(start), st.repeated()
	c.Up, c.Left, c.Lost, c.Why, c.Times = st.up-st.users.lost, st.users.left, st.users.lost, st.users.why, st.users.times()
	if errors.Is(err, context.DeadlineExceeded) {
		if n := c.Users - c.Up - c.Left; n > 0 {
			c.Why["still waiting"] += n
		}
		return nil
	}
	return err
}

// priority gives all threads of this process a nice value; new ones inherit it.
func priority(nice int) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		id, err := strconv.Atoi(t.Name())
		if err == nil {
			err = unix.Setpriority(unix.PRIO_PROCESS, id, nice)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// told is what the gateway tells of itself: what it dropped, and the leases online.
func told(ctx context.Context, uri string) (drops map[string]int, leases int, err error) {
	c, err := vici.Dial(ctx, uri)
	if err != nil {
		return nil, 0, err
	}
	defer c.Close()
	stats, err := c.Call(ctx, "stats", nil)
	if err != nil {
		return nil, 0, err
	}
	drops = map[string]int{}
	if d := stats.Sub("drops"); d != nil {
		for v := range d.Values() {
			if n, err := strconv.Atoi(d.Text(v.Key)); err == nil && n > 0 {
				drops[v.Key] = n
			}
		}
	}
	pools, err := c.Call(ctx, "get-pools", nil)
	if err != nil {
		return nil, 0, err
	}
	if p := pools.Sub("users"); p != nil {
		leases, _ = strconv.Atoi(p.Text("online"))
	}
	return drops, leases, nil
}

// String is one measurement in some lines.
func (c *Crowd) String() string {
	var b strings.Builder
	came := "all came in"
	if c.Up < c.Users {
		came = fmt.Sprintf("%d LEFT OUT, %d came in", c.Users-c.Up, c.Up)
	}
	fmt.Fprintf(&b, "%d users within %v: %s, the last after %.1f s\n", c.Users, c.Within, came, c.Wall.Seconds())
	if n := len(c.Times); n > 0 {
		q := func(x float64) float64 { return ms(c.Times[min(n-1, int(x*float64(n)))]) }
		fmt.Fprintf(&b, "  set-up: p50 %.1f ms, p99 %.1f ms, longest %.1f ms; %d messages repeated\n", q(0.5), q(0.99), q(1), c.Repeated)
	}
	for _, m := range []map[string]int{c.Why, c.Drops} {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			fmt.Fprintf(&b, "  %d times %s\n", m[k], k)
		}
	}
	fmt.Fprintf(&b, "  gateway: %.3f ms CPU a set-up, %.1f MB resident (%.1f before)\n", ms(c.CPU)/float64(max(c.Up, 1)), float64(c.Resident)/mega, float64(c.Base)/mega)
	for _, p := range c.Packets {
		fmt.Fprintf(&b, "  %s\n", p)
	}
	return b.String()
}
