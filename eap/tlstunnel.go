package eap

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"time"
)

// tlsTunnel drives one crypto/tls connection by steps. Conn blocks in Read, so it
// has a goroutine; but that goroutine and the session take turns and never run at
// once: exchange hands over the input and waits until Conn wants more of it. Thus
// the fields need no lock.
type tlsTunnel struct {
	typ  Type
	pipe *tlsPipe
	conn *tls.Conn
	// established: the handshake is complete; err is its end or that of the reads
	// after it.
	established bool
	err         error
	plain       []byte // decrypted and not yet taken
	started     bool
	closed      bool
}

func newTunnel(t Type, open func(*tlsPipe) *tls.Conn) *tlsTunnel {
	p := &tlsPipe{turn: make(chan struct{}), idle: make(chan struct{}), quit: make(chan struct{}), ended: make(chan struct{})}
	return &tlsTunnel{typ: t, pipe: p, conn: open(p)}
}

// exchange gives records to TLS and returns those that it sends. An error is the end
// of the tunnel; the records are then the alert about it, if any.
func (t *tlsTunnel) exchange(records []byte) (out []byte, err error) {
	if t.closed {
		return nil, fmt.Errorf("eap: %w", ErrOver)
	}
	t.pipe.in = append(t.pipe.in, records...)
	if !t.started {
		t.started = true
		go t.run()
	} else {
		select {
		case t.pipe.turn <- struct{}{}:
		case <-t.pipe.ended:
		}
	}
	select {
	case <-t.pipe.idle:
	case <-t.pipe.ended:
	}
	return t.pipe.take(), t.err
}

// run is the goroutine: the handshake, then reads until close or an error.
func (t *tlsTunnel) run() {
	defer close(t.pipe.ended)
	defer func() {
		if r := recover(); r != nil {
			t.err = fmt.Errorf("eap: %w: panic: %v", ErrTLS, r)
		}
	}()
	if err := t.conn.Handshake(); err != nil {
		t.err = fmt.Errorf("eap: %w: %w", ErrTLS, err)
		return
	}
	t.established = true
	buf := make([]byte, 4096)
	defer clear(buf)
	for {
		n, err := t.conn.Read(buf)
		t.plain = append(t.plain, buf[:n]...)
		if err != nil {
			t.err = fmt.Errorf("eap: %w: %w", ErrTLS, err)
			return
		}
	}
}

// write encrypts data and returns the records, behind those that were not taken
// yet.
func (t *tlsTunnel) write(data []byte) ([]byte, error) {
	if _, err := t.conn.Write(data); err != nil {
		return nil, fmt.Errorf("eap: %w: %w", ErrTLS, err)
	}
	return t.pipe.take(), nil
}

// read returns what was decrypted since the last call.
func (t *tlsTunnel) read() []byte {
	b := t.plain
	t.plain = nil
	return b
}

func (t *tlsTunnel) version() uint16 { return t.conn.ConnectionState().Version }

func (t *tlsTunnel) export(label string, context []byte, n int) ([]byte, error) {
	state := t.conn.ConnectionState()
	b, err := state.ExportKeyingMaterial(label, context, n)
	if err != nil {
		return nil, fmt.Errorf("eap: %w: %w", ErrTLS, err)
	}
	return b, nil
}

// close ends the goroutine and waits for its end.
func (t *tlsTunnel) close() {
	if t.closed {
		return
	}
	t.closed = true
	close(t.pipe.quit)
	if t.started {
		<-t.pipe.ended
	}
	clear(t.plain)
}

// tlsPipe is the net.Conn below crypto/tls: memory, and the place where turns
// change.
type tlsPipe struct {
	in, out    []byte
	turn, idle chan struct{} // to the goroutine, back to the session
	quit       chan struct{} // closed by close
	ended      chan struct{} // closed by the goroutine
}

func (p *tlsPipe) take() []byte {
	b := p.out
	p.out = nil
	return b
}

// Read hands the turn back when the input is used up.
func (p *tlsPipe) Read(b []byte) (int, error) {
	for len(p.in) == 0 {
		select {
		case p.idle <- struct{}{}:
		case <-p.quit:
			return 0, io.ErrClosedPipe
		}
		select {
		case <-p.turn:
		case <-p.quit:
			return 0, io.ErrClosedPipe
		}
	}
	n := copy(b, p.in)
	p.in = p.in[n:]
	return n, nil
}

func (p *tlsPipe) Write(b []byte) (int, error) {
	p.out = append(p.out, b...)
	return len(b), nil
}

func (p *tlsPipe) Close() error                     { return nil }
func (p *tlsPipe) LocalAddr() net.Addr              { return nil }
func (p *tlsPipe) RemoteAddr() net.Addr             { return nil }
func (p *tlsPipe) SetDeadline(time.Time) error      { return nil }
func (p *tlsPipe) SetReadDeadline(time.Time) error  { return nil }
func (p *tlsPipe) SetWriteDeadline(time.Time) error { return nil }
