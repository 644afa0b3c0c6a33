package vici

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"adit/conf"
)

// Request is a command that a client sent.
type Request struct {
	Name   string
	Msg    *conf.Section // never nil
	Client uint64        // a number that no other client of this server has had

	session *session
}

// Wants reports whether the client registered for an event, to save the work of preparing one.
func (r *Request) Wants(event string) bool {
	s := r.session.server
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.events[event][r.session]
}

// Emit sends an event to the client that made the request, if it registered for it. It waits
// while the client has too much to read and returns [ErrGone] when it is no longer there. It
// may be called from several goroutines, but not after the handler has returned.
func (r *Request) Emit(event string, body *conf.Section) error {
	if !r.Wants(event) {
		return r.session.gone()
	}
	packet, err := eventPacket(event, body)
	if err != nil {
		return err
	}
	if !r.session.out.put(packet) {
		return ErrGone
	}
	return nil
}

// session is one client. Three goroutines: one reads packets, one works on them in order, one
// writes what is queued; so a command that takes long neither hides that the client hangs up nor
// holds back events.
type session struct {
	server *Server
	id     uint64
	conn   net.Conn
	ctx    context.Context // of the handlers
	cancel context.CancelFunc
	out    *outbox
}

func (c *session) gone() error {
	if c.ctx.Err() != nil {
		return ErrGone
	}
	return nil
}

// run returns when the client is done with.
func (c *session) run() {
	packets := make(chan Packet)
	var wg sync.WaitGroup
	wg.Add(2)
	go func() {
		defer wg.Done()
		c.write()
	}()
	go func() {
		defer wg.Done()
		defer c.out.end() // what is queued is still written
		c.work(packets)
	}()
	c.read(packets)
	c.cancel()
	close(packets)
	wg.Wait()
}

// fail counts and reports why the client is hung up on.
func (c *session) fail(err error) {
	switch {
	case c.server.ctx.Err() != nil || errors.Is(err, net.ErrClosed) || err == ErrGone:
		return
	case errors.Is(err, ErrMalformed) || errors.Is(err, ErrTooLong):
		c.server.malformed.Add(1)
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.server.stalled.Add(1)
	}
	if f := c.server.opts.OnError; f != nil {
		f(c.id, err)
	}
}

func (c *session) read(packets chan<- Packet) {
	r := bufio.NewReader(c.conn)
	for {
		p, err := ReadPacket(r)
		if err != nil {
			if err != io.EOF && c.ctx.Err() == nil {
				c.fail(err)
			}
			return
		}
		select {
		case packets <- p:
		case <-c.ctx.Done():
			return
		}
	}
}

func (c *session) work(packets <-chan Packet) {
	defer c.server.forget(c)
	defer c.cancel()
	for p := range packets {
		if err := c.handle(p); err != nil {
			c.fail(err)
			c.cancel()
			c.conn.SetReadDeadline(time.Now()) // ends read
			for range packets {
			}
			return
		}
	}
}

// handle answers one packet. An error hangs up.
func (c *session) handle(p Packet) error {
	answer := Packet{Type: EventUnknown}
	switch p.Type {
	case CmdRequest:
		var err error
		if answer, err = c.command(p); err != nil {
			return err
		}
	case EventRegister, EventUnregister:
		if c.server.register(c, p.Name, p.Type == EventRegister) {
			answer.Type = EventConfirm
		}
	default:
		return malformed("%v from a client", p.Type)
	}
	frame, err := answer.AppendFrame(nil)
	if err != nil {
		return err
	}
	if !c.out.put(frame) {
		return ErrGone
	}
	return nil
}

func (c *session) command(p Packet) (Packet, error) {
	c.server.commands.Add(1)
	c.server.mu.RLock()
	h := c.server.handlers[p.Name]
	c.server.mu.RUnlock()
	if h == nil {
		return Packet{Type: CmdUnknown}, nil
	}
	msg, err := unmarshal(p.Body, false)
	if err != nil {
		return Packet{}, err
	}
	reply, err := h(c.ctx, &Request{Name: p.Name, Msg: msg, Client: c.id, session: c})
	if err != nil {
		return Packet{}, err
	}
	body, err := Marshal(reply)
	return Packet{Type: CmdResponse, Body: body}, err
}

// writeSize is how many bytes are given to the kernel at a time: small packets, of which a
// listing has thousands, go together. A packet of half a megabyte may take several reads of
// a slow client: each part that gets through starts the clock again.
const writeSize = 16 << 10

func (c *session) write() {
	defer c.conn.Close()
	var buf []byte
	for packets := c.out.take(); len(packets) > 0; packets = c.out.take() {
		for len(packets) > 0 {
			part := packets[0]
			if packets = packets[1:]; len(packets) > 0 && len(part)+len(packets[0]) <= writeSize {
				for buf = append(buf[:0], part...); len(packets) > 0 && len(buf)+len(packets[0]) <= writeSize; packets = packets[1:] {
					buf = append(buf, packets[0]...)
				}
				part = buf
			}
			if err := c.writeAll(part); err != nil {
				c.fail(err)
				c.out.end()
				return
			}
		}
	}
}

func (c *session) writeAll(b []byte) error {
	for len(b) > 0 {
		c.extend()
		n, err := c.conn.Write(b[:min(len(b), writeSize)])
		if b = b[n:]; err != nil {
			return err
		}
	}
	return nil
}

// extend gives the next write its time.
func (c *session) extend() {
	if c.server.ctx.Err() == nil {
		c.conn.SetWriteDeadline(time.Now().Add(c.server.opts.Stall))
	}
	if c.server.ctx.Err() != nil { // also if Close came in between
		c.conn.SetWriteDeadline(time.Now().Add(closeFlush))
	}
}
