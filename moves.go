package adit

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"adit/internal/gateway"
	"adit/internal/hostnet"
)

// watchAddresses tells the gateway what becomes of the host's addresses, links and routes,
// and when it was suspended (MOBIKE). The returned function ends it.
func (g *Gateway) watchAddresses(ctx context.Context, host *hostnet.Net, gw *gateway.Gateway, device string, usable *hostnet.Interfaces) (end func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	events, err := host.Watch(ctx, true)
	if err != nil {
		cancel()
		return nil, err
	}
	var watch sync.WaitGroup
	watch.Go(func() {
		gw.Follow(ctx, events, func() ([]netip.Addr, error) {
			list, err := hostnet.Addresses(device)
			return slices.DeleteFunc(list, func(a netip.Addr) bool { return !usable.Usable(a) }), err
		})
	})
	return func() {
		cancel()
		watch.Wait()
	}, nil
}
