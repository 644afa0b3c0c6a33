package gateway

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"adit/ike"
	"adit/internal/hostnet"
)

// MOBIKE needs to hear of every change by which a path may come or go. addressSettles is
// how long a burst may last before it is answered: a tunnel waits for it. Routes alone
// may change all the time, where a routing daemon runs: they have to wait for routesRest.
const (
	addressSettles = 30 * time.Millisecond
	routesRest     = 500 * time.Millisecond
)

// Follow tells the gateway what becomes of the host's addresses, links and routes, of
// which events tell, and when it was suspended. addresses are those that peers may be
// told of. It runs until ctx ends and the events with it.
func (g *Gateway) Follow(ctx context.Context, events <-chan hostnet.Event, addresses func() ([]netip.Addr, error)) {
	tell := func(c ike.AddressesChanged) {
		var err error
		if c.Own, err = addresses(); err != nil {
			g.opt.Log.Warn("MOBIKE: " + err.Error())
			return
		}
		_ = g.AddressesChanged(ctx, c) // it ends, if that fails
	}
	tell(ike.AddressesChanged{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for first := range events {
			links := gather(ctx, first, events)
			tell(ike.AddressesChanged{Links: links})
		}
	})
	watch.Go(func() {
		hostnet.Slept(ctx, func(d time.Duration) {
			g.opt.Log.Info("the host was suspended: all peers are asked", "for", d.Round(time.Second).String())
			tell(ike.AddressesChanged{Slept: true})
		})
	})
	watch.Wait()
}

// gather waits for the end of a burst; links: it was of more than routes.
func gather(ctx context.Context, first hostnet.Event, events <-chan hostnet.Event) (links bool) {
	isLink := func(e hostnet.Event) bool {
		return e.Kind == hostnet.EventAddress || e.Kind == hostnet.EventLink || e.Kind == hostnet.EventOverrun
	}
	began := time.Now()
	links = isLink(first)
	settle := time.NewTimer(addressSettles)
	defer settle.Stop()
	for {
		select {
		case <-ctx.Done():
			return links
		case <-settle.C:
			if !links && time.Since(began) < routesRest {
				settle.Reset(routesRest - time.Since(began))
				began = began.Add(-routesRest)
				continue
			}
			return links
		case e, ok := <-events:
			if !ok {
				return links
			}
			if !links && isLink(e) {
				links = true
				settle.Reset(addressSettles)
			}
		}
	}
}
