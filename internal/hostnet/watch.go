package hostnet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// EventKind says what an Event is about.
type EventKind uint8

const (
	// EventAddress: an address came (Gone false) or went.
	EventAddress EventKind = iota + 1
	// EventLink: a link came, changed (up, down, renamed) or went.
	EventLink
	// EventRoute: a route came or went. Our own routes aren't reported.
	EventRoute
	// EventGuard: our nftables table was removed by somebody ("nft flush
	// ruleset"): nothing holds clear traffic back until Refresh is called.
	EventGuard
	// EventOverrun: events were lost; look at everything again.
	EventOverrun
)

// Event is one change on the host. Fields that don't belong to its kind are zero.
type Event struct {
	Kind EventKind
	Gone bool
	// Link is the interface's index, Name its name if the event tells it.
	Link int
	Name string
	// Up: the link is administratively up and has a carrier.
	Up bool
	// Prefix is the address with its prefix length, or the route's destination.
	Prefix netip.Prefix
	// Table is the route's table.
	Table int
}

// watchGroups are the rtnetlink multicast groups that Watch joins, and routeGroups
// those for routes, ours among them by thousands.
var (
	watchGroups = []uint{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR}
	routeGroups = []uint{unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE}
)

// watchBuffer is the length of the event channel; what doesn't fit becomes an
// EventOverrun.
const watchBuffer = 256

func watch(ctx context.Context, protocol int, routes bool) (<-chan Event, error) {
	groups := watchGroups
	if routes {
		groups = slices.Concat(watchGroups, routeGroups)
	}
	route, err := nl.Subscribe(unix.NETLINK_ROUTE, groups...)
	if err != nil {
		return nil, fmt.Errorf("hostnet: watching links and addresses: %w", err)
	}
	guard, err := nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		route.Close()
		return nil, fmt.Errorf("hostnet: watching nftables: %w", err)
	}
	w := &watcher{ctx: ctx, events: make(chan Event, watchBuffer), protocol: uint8(protocol)}
	w.run(reader{route, w.routeEvent}, reader{guard, guardEvent})
	return w.events, nil
}

// WatchLinks is Net's Watch for those who hold nothing of the host and have no
// privileges: of addresses, links and routes, but not of the guard.
func WatchLinks(ctx context.Context) (<-chan Event, error) {
	route, err := nl.Subscribe(unix.NETLINK_ROUTE, slices.Concat(watchGroups, routeGroups)...)
	if err != nil {
		return nil, fmt.Errorf("hostnet: watching links and addresses: %w", err)
	}
	w := &watcher{ctx: ctx, events: make(chan Event, watchBuffer), protocol: defaultProtocol}
	w.run(reader{route, w.routeEvent})
	return w.events, nil
}

// reader is a socket and what its messages mean.
type reader struct {
	*nl.NetlinkSocket
	parse func(typ uint16, body []byte) (Event, bool)
}

// run reads until ctx ends, then closes the sockets and the events.
func (w *watcher) run(list ...reader) {
	var readers sync.WaitGroup
	for _, r := range list {
		readers.Go(func() { w.read(r.NetlinkSocket, r.parse) })
	}
	go func() {
		<-w.ctx.Done()
		for _, r := range list {
			r.Close()
		}
		readers.Wait()
		close(w.events)
	}()
}

type watcher struct {
	ctx      context.Context
	events   chan Event
	protocol uint8
}

// read turns a socket's messages into events until the socket is closed.
func (w *watcher) read(s *nl.NetlinkSocket, parse func(typ uint16, body []byte) (Event, bool)) {
	for w.ctx.Err() == nil {
		msgs, from, err := s.Receive()
		lost := errors.Is(err, unix.ENOBUFS)
		switch {
		case lost:
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return
		case from.Pid != 0:
			continue // only the kernel is believed
		}
		for _, m := range msgs {
			if ev, ok := parse(m.Header.Type, m.Data); ok && !lost {
				select {
				case w.events <- ev:
				default:
					lost = true
				}
			}
		}
		if lost {
			select {
			case w.events <- Event{Kind: EventOverrun}:
			case <-w.ctx.Done():
			}
		}
	}
}

func (w *watcher) routeEvent(typ uint16, b []byte) (Event, bool) {
	switch typ {
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return addressEvent(b, typ == unix.RTM_DELADDR)
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return linkEvent(b, typ == unix.RTM_DELLINK)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if ev, protocol, ok := routeEvent(b, typ == unix.RTM_DELROUTE); ok && protocol != w.protocol {
			return ev, true
		}
	}
	return Event{}, false
}

// attributes returns the attributes after a header of the given length.
func attributes(b []byte, header int) map[uint16][]byte {
	if len(b) < header {
		return nil
	}
	list, err := nl.ParseRouteAttr(b[header:])
	if err != nil {
		return nil
	}
	m := make(map[uint16][]byte, len(list))
	for _, a := range list {
		m[a.Attr.Type] = a.Value
	}
	return m
}

func addressEvent(b []byte, gone bool) (Event, bool) {
	at := attributes(b, unix.SizeofIfAddrmsg)
	value := at[unix.IFA_LOCAL] // with a point-to-point peer, IFA_ADDRESS is the peer's
	if value == nil {
		value = at[unix.IFA_ADDRESS]
	}
	addr, ok := netip.AddrFromSlice(value)
	if !ok {
		return Event{}, false
	}
	return Event{Kind: EventAddress, Gone: gone, Link: int(binary.NativeEndian.Uint32(b[4:])),
		Prefix: netip.PrefixFrom(addr, int(b[1])), Name: text(at[unix.IFA_LABEL])}, true
}

func linkEvent(b []byte, gone bool) (Event, bool) {
	at := attributes(b, unix.SizeofIfInfomsg)
	if at == nil {
		return Event{}, false
	}
	flags := binary.NativeEndian.Uint32(b[8:])
	return Event{Kind: EventLink, Gone: gone, Link: int(binary.NativeEndian.Uint32(b[4:])),
		Name: text(at[unix.IFLA_IFNAME]), Up: flags&unix.IFF_UP != 0 && flags&unix.IFF_LOWER_UP != 0}, true
}

func routeEvent(b []byte, gone bool) (Event, uint8, bool) {
	at := attributes(b, unix.SizeofRtMsg)
	if at == nil || b[7] == unix.RTN_LOCAL || b[7] == unix.RTN_BROADCAST || b[7] == unix.RTN_MULTICAST {
		return Event{}, 0, false
	}
	dst := netip.IPv4Unspecified()
	if b[0] == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	if a, ok := netip.AddrFromSlice(at[unix.RTA_DST]); ok {
		dst = a
	}
	ev := Event{Kind: EventRoute, Gone: gone, Table: int(b[4]), Prefix: netip.PrefixFrom(dst, int(b[1]))}
	if v := at[unix.RTA_TABLE]; len(v) == 4 {
		ev.Table = int(binary.NativeEndian.Uint32(v))
	}
	if v := at[unix.RTA_OIF]; len(v) == 4 {
		ev.Link = int(binary.NativeEndian.Uint32(v))
	}
	return ev, b[5], true
}

// guardEvent reports the removal of our table.
func guardEvent(typ uint16, b []byte) (Event, bool) {
	if typ != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELTABLE {
		return Event{}, false
	}
	at := attributes(b, 4) // struct nfgenmsg
	if at == nil || b[0] != unix.NFPROTO_INET || text(at[unix.NFTA_TABLE_NAME]) != tableName {
		return Event{}, false
	}
	return Event{Kind: EventGuard, Gone: true}, true
}

func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }
