package gateway

import (
	"context"
	"errors"
	"fmt"

	"adit/ike"
)

// ErrBusy is returned when a bounded queue of the gateway is full.
var ErrBusy = errors.New("the gateway is too busy")

// ErrNotRunning is returned before Start and once Shutdown has begun.
var ErrNotRunning = errors.New("the gateway is not running")

// errBug is the outcome of work that panicked.
var errBug = errors.New("internal error")

// ErrNotFound is wrapped by errors about configurations that are not loaded.
var ErrNotFound = errors.New("not found")

// Initiate brings up the child (with its IKE SA), or with an empty child only the
// IKE SA of the connection, and waits for the end of it or of ctx. With an empty
// conn the first connection that has such a child is meant.
func (g *Gateway) Initiate(ctx context.Context, conn, child string) error {
	peer, err := g.inv.find(conn, child)
	if err != nil {
		return err
	}
	done, err := g.await(ctx, func(id ike.CommandID) ike.Command {
		return ike.Initiate{ID: id, Peer: peer, Child: child}
	})
	if err != nil {
		return err
	}
	return done.Err
}

// Terminate closes the SAs that t selects and waits; it returns how many there were, 0 with no error.
func (g *Gateway) Terminate(ctx context.Context, t ike.Terminate) (matched int, err error) {
	done, err := g.await(ctx, func(id ike.CommandID) ike.Command { t.ID = id; return t })
	if err != nil {
		return 0, err
	}
	if done.Matched == 0 {
		return 0, nil
	}
	return done.Matched, done.Err
}

// Rekey starts the replacement of the SAs that r selects, without waiting for
// its end; it returns how many there are.
func (g *Gateway) Rekey(ctx context.Context, r ike.Rekey) (matched int, err error) {
	done, err := g.await(ctx, func(id ike.CommandID) ike.Command { r.ID = id; return r })
	if err == nil && done.Matched > 0 {
		err = done.Err
	}
	return done.Matched, err
}

// Redirect sends the peers of the IKE SAs that r selects to another gateway, without
// waiting for them to go; it returns how many IKE SAs there are.
func (g *Gateway) Redirect(ctx context.Context, r ike.Redirect) (matched int, err error) {
	done, err := g.await(ctx, func(id ike.CommandID) ike.Command { r.ID = id; return r })
	if err == nil && done.Matched > 0 {
		err = done.Err
	}
	return done.Matched, err
}

// AddressesChanged tells that the host's addresses, links or routes are, or may be,
// others than before, or that it was suspended (MOBIKE, RFC 4555).
func (g *Gateway) AddressesChanged(ctx context.Context, c ike.AddressesChanged) error {
	if !g.isRunning() {
		return ErrNotRunning
	}
	return g.shard.deliver(ctx, c)
}

// await sends a command and waits for its CommandDone.
func (g *Gateway) await(ctx context.Context, build func(ike.CommandID) ike.Command) (ike.CommandDone, error) {
	if !g.isRunning() {
		return ike.CommandDone{}, ErrNotRunning
	}
	id := ike.CommandID(g.lastCommand.Add(1))
	ch := make(chan ike.CommandDone, 1)
	g.waitMu.Lock()
	g.waiting[id] = ch
	g.waitMu.Unlock()
	defer func() {
		g.waitMu.Lock()
		delete(g.waiting, id)
		g.waitMu.Unlock()
	}()
	if err := g.shard.deliver(ctx, build(id)); err != nil {
		return ike.CommandDone{}, err
	}
	select {
	case d := <-ch:
		return d, nil
	case <-g.shard.ended:
		return ike.CommandDone{}, ErrNotRunning
	case <-ctx.Done():
		return ike.CommandDone{}, ctx.Err()
	}
}

func notFound(kind, name string) error {
	return fmt.Errorf("%s config '%s' %w", kind, name, ErrNotFound)
}
