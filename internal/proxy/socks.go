package proxy

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// Values of RFC 1928.
const (
	socksVersion  = 5
	noAuth        = 0
	noneOfThese   = 0xff
	connect       = 1
	associate     = 3
	typeIPv4      = 1
	typeName      = 3
	typeIPv6      = 4
	replyOK       = 0
	replyFailed   = 1
	replyNoHost   = 4
	replyBadWish  = 7
	replyBadType  = 8
	headerReserve = 2 // RSV of a UDP datagram, before FRAG
)

var (
	errVersion = errors.New("this is no SOCKS5")
	errMethods = errors.New("the client insists on an authentication, and there is none")
	errType    = errors.New("unknown type of address")
	errName    = errors.New("an empty name")
)

// socks serves one client.
func (s *Server) socks(ctx context.Context, c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(greeting))
	in := bufio.NewReaderSize(c, 512)
	if err := greet(in, c); err != nil {
		return err
	}
	wish, to, err := readRequest(in)
	switch {
	case errors.Is(err, errType):
		_, _ = c.Write(reply(replyBadType, netip.AddrPort{}))
		return err
	case err != nil:
		return err
	}
	_ = c.SetDeadline(time.Time{})
	switch wish {
	case connect:
		return s.relay(ctx, c, to, in, func(up net.Conn, err error) error {
			code, at := byte(replyOK), netip.AddrPort{}
			if err != nil {
				code = replyNoHost
			} else if a, e := netip.ParseAddrPort(up.LocalAddr().String()); e == nil {
				at = a
			}
			_, err = c.Write(reply(code, at))
			return err
		})
	case associate:
		return s.associate(ctx, c, in)
	}
	_, _ = c.Write(reply(replyBadWish, netip.AddrPort{}))
	return fmt.Errorf("the client asks for command %d, which there is not", wish)
}

// greet agrees on no authentication (RFC 1928 §3).
func greet(in io.Reader, out io.Writer) error {
	var b [257]byte
	if _, err := io.ReadFull(in, b[:2]); err != nil {
		return err
	}
	if b[0] != socksVersion {
		return errVersion
	}
	n := int(b[1])
	if _, err := io.ReadFull(in, b[:n]); err != nil {
		return err
	}
	for _, m := range b[:n] {
		if m == noAuth {
			_, err := out.Write([]byte{socksVersion, noAuth})
			return err
		}
	}
	_, _ = out.Write([]byte{socksVersion, noneOfThese})
	return errMethods
}

// readRequest reads what the client wants and where (RFC 1928 §4).
func readRequest(in io.Reader) (wish byte, to string, err error) {
	var b [3]byte
	if _, err := io.ReadFull(in, b[:]); err != nil {
		return 0, "", err
	}
	if b[0] != socksVersion {
		return 0, "", errVersion
	}
	to, err = readAddress(in)
	return b[1], to, err
}

// readAddress reads type, address and port as "host:port" (RFC 1928 §5).
func readAddress(in io.Reader) (string, error) {
	var b [257]byte
	if _, err := io.ReadFull(in, b[:1]); err != nil {
		return "", err
	}
	n := 0
	typ := b[0]
	switch typ {
	case typeIPv4:
		n = 4
	case typeIPv6:
		n = 16
	case typeName:
		if _, err := io.ReadFull(in, b[:1]); err != nil {
			return "", err
		}
		if n = int(b[0]); n == 0 {
			return "", errName
		}
	default:
		return "", errType
	}
	if _, err := io.ReadFull(in, b[:n+2]); err != nil {
		return "", err
	}
	host := string(b[:n])
	if typ != typeName {
		a, _ := netip.AddrFromSlice(b[:n])
		host = a.Unmap().String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(b[n:])))), nil
}

// appendAddress writes type, address and port.
func appendAddress(b []byte, at netip.AddrPort) []byte {
	a := at.Addr().Unmap()
	switch {
	case !a.IsValid():
		b = append(b, typeIPv4, 0, 0, 0, 0)
	case a.Is4():
		b = append(append(b, typeIPv4), a.AsSlice()...)
	default:
		b = append(append(b, typeIPv6), a.AsSlice()...)
	}
	return binary.BigEndian.AppendUint16(b, at.Port())
}

func reply(code byte, at netip.AddrPort) []byte {
	return appendAddress([]byte{socksVersion, code, 0}, at)
}

// association is a UDP ASSOCIATE (RFC 1928 §7): datagrams of one client, and a connection
// for each of its destinations.
type association struct {
	s      *Server
	ctx    context.Context
	pc     *net.UDPConn
	client netip.Addr // who has the TCP connection

	mu    sync.Mutex
	from  netip.AddrPort // where its datagrams come from
	conns map[string]net.Conn
	all   sync.WaitGroup
}

// associate serves datagrams until the client closes the connection by which it asked.
func (s *Server) associate(ctx context.Context, c net.Conn, in io.Reader) error {
	local, err1 := netip.ParseAddrPort(c.LocalAddr().String())
	remote, err2 := netip.ParseAddrPort(c.RemoteAddr().String())
	if err := errors.Join(err1, err2); err != nil {
		_, _ = c.Write(reply(replyFailed, netip.AddrPort{}))
		return err
	}
	pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local.Addr(), 0)))
	if err != nil {
		_, _ = c.Write(reply(replyFailed, netip.AddrPort{}))
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &association{s: s, ctx: ctx, pc: pc, client: remote.Addr().Unmap(), conns: map[string]net.Conn{}}
	a.all.Go(a.run)
	defer a.all.Wait()
	defer a.close(cancel)
	if _, err := c.Write(reply(replyOK, pc.LocalAddr().(*net.UDPAddr).AddrPort())); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, in)
	return nil
}

func (a *association) close(cancel context.CancelFunc) {
	cancel()
	a.pc.Close()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.conns {
		c.Close()
	}
}

// run takes the client's datagrams; those of others, and fragments, are dropped.
func (a *association) run() {
	b := make([]byte, maxDatagram)
	for {
		n, from, err := a.pc.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		to, data, ok := splitDatagram(b[:n])
		if !ok || from.Addr() != a.client {
			continue
		}
		a.mu.Lock()
		a.from = from
		a.mu.Unlock()
		if c := a.reach(to); c != nil {
			_ = c.SetReadDeadline(time.Now().Add(idleUDP))
			_, _ = c.Write(data)
		}
	}
}

// splitDatagram takes the header off; false for what is no datagram, or a fragment.
func splitDatagram(b []byte) (to string, data []byte, ok bool) {
	if len(b) < headerReserve+1 || b[headerReserve] != 0 {
		return "", nil, false
	}
	r := &sliceReader{b[headerReserve+1:]}
	to, err := readAddress(r)
	return to, r.rest, err == nil
}

type sliceReader struct{ rest []byte }

func (r *sliceReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// reach is the connection to a destination, nil if there can be none.
func (a *association) reach(to string) net.Conn {
	a.mu.Lock()
	c, n := a.conns[to], len(a.conns)
	a.mu.Unlock()
	if c != nil || n >= limitAssociated {
		return c
	}
	c, err := a.s.dial(a.ctx, "udp", to)
	if err != nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ctx.Err() != nil {
		c.Close()
		return nil
	}
	a.conns[to] = c
	a.all.Go(func() { a.answers(to, c) })
	return c
}

// answers hands back what a destination sends, until it has been silent for long.
func (a *association) answers(to string, c net.Conn) {
	defer func() {
		c.Close()
		a.mu.Lock()
		delete(a.conns, to)
		a.mu.Unlock()
	}()
	at, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return
	}
	b := make([]byte, maxDatagram)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		a.mu.Lock()
		from := a.from
		a.mu.Unlock()
		_, _ = a.pc.WriteToUDPAddrPort(append(appendAddress([]byte{0, 0, 0}, at), b[:n]...), from)
	}
}
