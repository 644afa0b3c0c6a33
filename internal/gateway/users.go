package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"adit/eap"
	"adit/ike"
	"adit/internal/users"
)

// directory are the local users. Safe for concurrent use.
type directory struct {
	mu     sync.Mutex
	byName map[string]users.User
	coming []users.User // parts that have come and do not count yet
	part   int          // that is to come next
}

// limitClosing bounds how long the tunnels of users who are gone may take to close.
const limitClosing = 10 * time.Second

// SetUsers makes these the local users. Those who are gone are put out: their IKE SAs
// are closed.
func (g *Gateway) SetUsers(list []users.User) error {
	byName := make(map[string]users.User, len(list))
	for _, u := range list {
		byName[u.Name] = users.User{Name: u.Name, NT: slices.Clone(u.NT), Groups: u.Groups}
	}
	if len(byName) != len(list) || len(list) > users.MaxUsers {
		return fmt.Errorf("users of one name, or more than %d", users.MaxUsers)
	}
	d := &g.users
	d.mu.Lock()
	old := d.byName
	d.byName = byName
	d.mu.Unlock()
	gone := map[string]bool{}
	for name, u := range old {
		u.NT.Zero()
		if _, stays := byName[name]; !stays {
			gone[name] = true
		}
	}
	if len(gone) > 0 && g.isRunning() {
		return g.putOut(gone)
	}
	return nil
}

// AddUsers takes one part of a list of users; the one with a count (not -1) is the last,
// and all that came since part 0 are then the users.
func (g *Gateway) AddUsers(list []users.User, part, count int) error {
	d := &g.users
	d.mu.Lock()
	if part == 0 {
		users.Zero(d.coming)
		d.coming, d.part = nil, 0
	}
	switch {
	case part != d.part:
		d.mu.Unlock()
		users.Zero(list)
		return fmt.Errorf("part %d of the users came where part %d was to: begin with part 0", part, d.part)
	case len(d.coming)+len(list) > users.MaxUsers:
		d.mu.Unlock()
		users.Zero(list)
		return fmt.Errorf("more than %d users", users.MaxUsers)
	}
	d.coming = append(d.coming, list...)
	d.part++
	if count < 0 {
		d.mu.Unlock()
		return nil
	}
	all := d.coming
	d.coming, d.part = nil, 0
	d.mu.Unlock()
	defer users.Zero(all)
	if len(all) != count {
		return fmt.Errorf("%d users came where there were to be %d", len(all), count)
	}
	return g.SetUsers(all)
}

// PlanUsers says what AddUsers would do.
func (g *Gateway) PlanUsers(list []users.User, count int) Verdict {
	d := &g.users
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, u := range list {
		if !d.byName[u.Name].Equal(u) {
			if len(d.byName) == 0 {
				return Added
			}
			return Changed
		}
	}
	switch {
	case count == 0 && len(d.byName) > 0:
		return Removed
	case count >= 0 && count != len(d.byName):
		return Changed
	}
	return Unchanged
}

// find is a copy of the user of that name.
func (d *directory) find(name string) (users.User, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	u, ok := d.byName[name]
	u.NT = slices.Clone(u.NT)
	return u, ok
}

// groups are those of a user, nil if there is none of that name.
func (d *directory) groups(name string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.byName[name].Groups
}

// secretOf is the secret of an EAP identity: a local user's, else a section's.
func (g *Gateway) secretOf(identity string) (eap.Secret, bool) {
	if u, ok := g.users.find(identity); ok {
		return eap.Secret{NTHash: u.NT}, true
	}
	return g.inv.password(identity)
}

// putOut closes the IKE SAs of users who may not be here any more: those who came in by
// a password that we checked, and for whom no section has one either.
func (g *Gateway) putOut(gone map[string]bool) error {
	own := map[string]bool{} // connections whose users are ours
	for _, p := range g.Conns() {
		own[p.Name] = slices.ContainsFunc(p.Remote, func(r ike.AuthRound) bool {
			return r.Method == ike.AuthEAP && r.EAP != ike.EAPRadius && r.EAP != ike.EAPTLS || r.Method == ike.AuthXAuth && r.EAP == ike.EAPAny
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), limitClosing)
	defer cancel()
	sas, err := g.SAs(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, sa := range sas {
		if !gone[sa.RemoteEAPID] || !own[sa.Name] {
			continue
		}
		if s, ok := g.inv.password(sa.RemoteEAPID); ok {
			s.Password.Zero()
			s.NTHash.Zero()
			continue
		}
		g.bus.publish(ike.Note{SAKey: ike.SAKey{Name: sa.Name, ID: sa.ID}, Level: 1, Text: fmt.Sprintf("the user %.64q is not one any more: the IKE SA is closed", sa.RemoteEAPID)})
		errs = append(errs, g.shard.deliver(ctx, ike.Terminate{IKEID: sa.ID}))
	}
	return errors.Join(errs...)
}

// clear forgets all users.
func (d *directory) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, u := range d.byName {
		u.NT.Zero()
	}
	users.Zero(d.coming)
	d.byName, d.coming = nil, nil
}
