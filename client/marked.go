package client

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"adit/internal/hostnet"
)

// markedResolver looks names up while the kill switch of an instance that died stands: its
// questions carry our mark and leave from one port, at which the guard lets answers in.
type markedResolver struct {
	net.Resolver
	mark uint32
	port uint16
}

// uplinks is where systemd-resolved names the servers that it asks; its own address in
// resolv.conf leads to a program whose questions do not get out.
const uplinks = "/run/systemd/resolve/resolv.conf"

func newMarkedResolver(n *hostnet.Net) (*markedResolver, error) {
	r := &markedResolver{}
	r.mark, _ = n.Mark()
	pc, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		return nil, err
	}
	r.port = uint16(pc.LocalAddr().(*net.UDPAddr).Port)
	pc.Close()
	r.Resolver = net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, server string) (net.Conn, error) {
		if host, _, err := net.SplitHostPort(server); err == nil {
			if a, err := netip.ParseAddr(host); err == nil && a.IsLoopback() {
				if up := firstServer(uplinks); up != "" {
					server = net.JoinHostPort(up, "53")
				}
			}
		}
		if strings.HasPrefix(network, "tcp") {
			return nil, errors.New("client: no name server by TCP while the kill switch stands")
		}
		d := net.Dialer{LocalAddr: &net.UDPAddr{Port: int(r.port)}, Control: r.control}
		return d.DialContext(ctx, network, server)
	}}
	return r, nil
}

func (r *markedResolver) control(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(r.mark)) }); e != nil {
		return e
	}
	return err
}

// lookUp asks for one family after the other, since there is one port.
func (r *markedResolver) lookUp(ctx context.Context, host string) ([]netip.Addr, error) {
	list, err := r.LookupNetIP(ctx, "ip4", host)
	more, err6 := r.LookupNetIP(ctx, "ip6", host)
	if list = append(list, more...); len(list) > 0 {
		return list, nil
	}
	return nil, errors.Join(err, err6)
}

// firstServer is the first name server of a resolv.conf.
func firstServer(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			return f[1]
		}
	}
	return ""
}
