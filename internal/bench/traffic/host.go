package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/rpc"
	"time"
)

// The requests of a benchmark to its hosts, and the answers. Times are nanoseconds of
// the machine's monotonic clock, which all processes of the machine share.
type (
	// SendTCP opens streams to an address and sends until StopTCP.
	SendTCP struct {
		To      netip.AddrPort
		Streams int // 1 to [MaxStreams]
	}
	// Counted is what had arrived at a time.
	Counted struct{ Bytes, At int64 }

	// SendUDP sends datagrams of one size at a rate for a while. Trial tells one run
	// from the next: what is still under way of the last one isn't counted.
	SendUDP struct {
		To    netip.AddrPort
		Size  int           // octets of payload, from [MinDatagram] to [MaxDatagram]
		Rate  int           // datagrams a second
		Warm  time.Duration // at the beginning, sent and not counted
		For   time.Duration // after that
		Trial uint32
		// Trains has the kernel cut the datagrams of one call from one superpacket
		// (UDP_SEGMENT), as one application with much to send does.
		Trains bool
	}
	// Sent is what a sender of datagrams did after it was warm.
	Sent struct {
		Packets int64
		First   uint64 // number of the first that counts
		Took    int64
	}
	// CountUDP asks for the datagrams of a trial from a number on.
	CountUDP struct {
		Trial uint32
		First uint64
	}
	// Arrived are those datagrams, with the times of the first and the last, and the
	// number of all datagrams of whatever trial.
	Arrived struct{ Packets, FirstAt, LastAt, Ever int64 }

	// Ping sends datagrams to an echo, one at a time.
	Ping struct {
		To    netip.AddrPort
		For   time.Duration
		Pause time.Duration // between an answer and the next datagram
	}
	// Pongs are the round trips that were answered, in order.
	Pongs struct {
		Times []int64 // ns each
		Lost  int     // not answered within a second
	}

	// File is a file to be sent to an address, or to be written from one connection.
	File struct {
		Path string
		Addr netip.AddrPort
	}
	// Digest is a file's SHA-256 and length.
	Digest struct {
		SHA256 string // hexadecimal
		Bytes  int64
	}
)

// Limits of what a host is asked for.
const (
	MaxStreams  = 64
	MinDatagram = 16
	MaxDatagram = 1472
	MaxRate     = 20_000_000
	MaxFor      = 10 * time.Minute
	// maxPongs bounds the memory of one Ping.
	maxPongs = 1 << 20
)

// Host is a host's side of the conversation. Its methods may be called at once; they
// end early with their context, after which the Host is closed and of no more use.
type Host struct{ c *rpc.Client }

// Dial reaches a host at its socket, waiting for it to appear.
func Dial(ctx context.Context, socket string) (*Host, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", socket)
		if err == nil {
			return &Host{rpc.NewClient(conn)}, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no host answers at %s: %w", socket, err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// Close ends the conversation; the host's process ends, too.
func (h *Host) Close() { _ = h.c.Close() }

func call[T any](ctx context.Context, h *Host, method string, args any) (out T, err error) {
	done := h.c.Go("Host."+method, args, &out, make(chan *rpc.Call, 1)).Done
	select {
	case <-ctx.Done():
		h.Close()
		<-done
		return out, ctx.Err()
	case c := <-done:
		if c.Error != nil {
			return out, fmt.Errorf("%s: %w", method, c.Error)
		}
		return out, nil
	}
}

// ListenTCP has the host take TCP streams at an address and count what they bring.
func (h *Host) ListenTCP(ctx context.Context, at netip.AddrPort) error {
	_, err := call[bool](ctx, h, "ListenTCP", at)
	return err
}

// ReceivedTCP is what all streams have brought so far.
func (h *Host) ReceivedTCP(ctx context.Context) (Counted, error) {
	return call[Counted](ctx, h, "ReceivedTCP", false)
}

// StartTCP begins to send.
func (h *Host) StartTCP(ctx context.Context, s SendTCP) error {
	_, err := call[bool](ctx, h, "StartTCP", s)
	return err
}

// StopTCP ends all streams that StartTCP began.
func (h *Host) StopTCP(ctx context.Context) error {
	_, err := call[bool](ctx, h, "StopTCP", false)
	return err
}

// ListenUDP has the host count datagrams that arrive at an address.
func (h *Host) ListenUDP(ctx context.Context, at netip.AddrPort) error {
	_, err := call[bool](ctx, h, "ListenUDP", at)
	return err
}

// SendUDP sends datagrams and returns when it has.
func (h *Host) SendUDP(ctx context.Context, s SendUDP) (Sent, error) {
	return call[Sent](ctx, h, "SendUDP", s)
}

// CountUDP is what has arrived of a trial.
func (h *Host) CountUDP(ctx context.Context, c CountUDP) (Arrived, error) {
	return call[Arrived](ctx, h, "CountUDP", c)
}

// Echo has the host send back every datagram that arrives at an address.
func (h *Host) Echo(ctx context.Context, at netip.AddrPort) error {
	_, err := call[bool](ctx, h, "Echo", at)
	return err
}

// Ping measures round trips.
func (h *Host) Ping(ctx context.Context, p Ping) (Pongs, error) {
	return call[Pongs](ctx, h, "Ping", p)
}

// ExpectFile has the host wait for one connection and write what it brings.
func (h *Host) ExpectFile(ctx context.Context, f File) error {
	_, err := call[bool](ctx, h, "ExpectFile", f)
	return err
}

// SendFile sends a file over one connection.
func (h *Host) SendFile(ctx context.Context, f File) error {
	_, err := call[bool](ctx, h, "SendFile", f)
	return err
}

// GotFile waits for the end of what ExpectFile began.
func (h *Host) GotFile(ctx context.Context) (Digest, error) {
	return call[Digest](ctx, h, "GotFile", false)
}

// Serve is the process of a host: it answers the one who connects to the socket and
// ends with the connection.
func Serve(ctx context.Context, socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	conn, err := l.Accept()
	if err != nil {
		return errors.Join(ctx.Err(), err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	srv := rpc.NewServer()
	s := &service{}
	defer s.close()
	if err := srv.RegisterName("Host", s); err != nil {
		return err
	}
	srv.ServeConn(conn)
	return nil
}
