package vici

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"sync"
	"time"

	"adit/conf"
)

// Errors of a client.
var (
	// ErrUnknownCommand means that the server does not know the command.
	ErrUnknownCommand = errors.New("vici: unknown command")
	// ErrUnknownEvent means that the server does not know the event, or that it was not
	// registered for.
	ErrUnknownEvent = errors.New("vici: unknown event")
)

// Client is a connection to a server. Its methods may be called from several goroutines and
// take turns. When a call ends early, by its context or an error of the connection, the
// connection is closed, since what follows on it could not be told apart.
type Client struct {
	mu   sync.Mutex
	conn net.Conn
	r    *bufio.Reader
}

// Event is an event that a server sent.
type Event struct {
	Name string
	Body *conf.Section
}

// Dial connects to "unix:///path" or "tcp://host:port".
func Dial(ctx context.Context, uri string) (*Client, error) {
	network, address, err := parseURI(uri)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("vici: %w", err)
	}
	return NewClient(conn), nil
}

// NewClient returns a client on a connection, which it owns.
func NewClient(conn net.Conn) *Client {
	return &Client{conn: conn, r: bufio.NewReader(conn)}
}

// Close hangs up.
func (c *Client) Close() error { return c.conn.Close() }

// Call sends a command and returns the answer. msg may be nil.
func (c *Client) Call(ctx context.Context, cmd string, msg *conf.Section) (*conf.Section, error) {
	var reply *conf.Section
	err := c.exclusive(ctx, func() (err error) {
		reply, err = c.call(cmd, msg, nil)
		return err
	})
	return reply, err
}

// Stream sends a command whose result comes as events of the given name, hands each to each, and
// returns the answer that ends them. An error of each ends the call and is returned.
func (c *Client) Stream(ctx context.Context, cmd, event string, msg *conf.Section, each func(*conf.Section) error) (*conf.Section, error) {
	var reply *conf.Section
	err := c.exclusive(ctx, func() error {
		if err := c.register(EventRegister, event, nil); err != nil {
			return err
		}
		var err error
		reply, err = c.call(cmd, msg, func(e Event) error {
			if e.Name != event {
				return nil
			}
			return each(e.Body)
		})
		if err != nil && !errors.Is(err, ErrUnknownCommand) {
			return err
		}
		return errors.Join(err, c.register(EventUnregister, event, nil))
	})
	return reply, err
}

// Listen registers for events and yields them until ctx ends, the connection breaks, or the loop
// is left; then the client is closed. The last thing it yields is the error that ended it. The
// client can be used for nothing else meanwhile.
func (c *Client) Listen(ctx context.Context, events ...string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		left := false
		deliver := func(e Event) error {
			if left = !yield(e, nil); left {
				return context.Canceled
			}
			return nil
		}
		err := c.exclusive(ctx, func() error {
			for _, name := range events {
				if err := c.register(EventRegister, name, deliver); err != nil {
					return err
				}
			}
			for {
				if _, err := c.answer(deliver, EventNotify); err != nil {
					return err
				}
			}
		})
		c.Close()
		if !left {
			yield(Event{}, err)
		}
	}
}

// exclusive runs f with the connection to itself. The end of ctx interrupts it.
func (c *Client) exclusive(ctx context.Context, f func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	undo := context.AfterFunc(ctx, func() { c.conn.SetDeadline(time.Unix(1, 0)) })
	err := f()
	interrupted := !undo()
	switch {
	case interrupted && err != nil:
		c.conn.Close()
		return context.Cause(ctx)
	case interrupted: // done just before; the deadline is of no use to the next call
		c.conn.Close()
	case err != nil && !errors.Is(err, ErrUnknownCommand) && !errors.Is(err, ErrUnknownEvent):
		c.conn.Close()
	}
	return err
}

func (c *Client) call(cmd string, msg *conf.Section, each func(Event) error) (*conf.Section, error) {
	body, err := Marshal(msg)
	if err != nil {
		return nil, err
	}
	if err := c.send(Packet{Type: CmdRequest, Name: cmd, Body: body}); err != nil {
		return nil, err
	}
	p, err := c.answer(each, CmdResponse, CmdUnknown)
	if err != nil {
		return nil, err
	}
	if p.Type == CmdUnknown {
		return nil, fmt.Errorf("%w: %s", ErrUnknownCommand, cmd)
	}
	return Unmarshal(p.Body)
}

// register sends a registration or its end; events that come in between go to each.
func (c *Client) register(t PacketType, event string, each func(Event) error) error {
	if err := c.send(Packet{Type: t, Name: event}); err != nil {
		return err
	}
	p, err := c.answer(each, EventConfirm, EventUnknown)
	if err == nil && p.Type == EventUnknown {
		err = fmt.Errorf("%w: %s", ErrUnknownEvent, event)
	}
	return err
}

func (c *Client) send(p Packet) error {
	frame, err := p.AppendFrame(nil)
	if err == nil {
		_, err = c.conn.Write(frame)
	}
	return err
}

// answer reads until a packet of one of the wanted types, handing events to each.
func (c *Client) answer(each func(Event) error, want ...PacketType) (Packet, error) {
	for {
		p, err := ReadPacket(c.r)
		if err != nil {
			return Packet{}, fmt.Errorf("vici: connection lost: %w", err)
		}
		if p.Type == EventNotify && each != nil {
			body, err := Unmarshal(p.Body)
			if err == nil {
				err = each(Event{p.Name, body})
			}
			if err != nil {
				return Packet{}, err
			}
		}
		for _, t := range want {
			if p.Type == t {
				return p, nil
			}
		}
		if p.Type != EventNotify {
			return Packet{}, malformed("%v instead of an answer", p.Type)
		}
	}
}
