package vici_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"adit/conf"
	"adit/vici"
)

// one is a listener that has one client, the other end of a pipe.
type one struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *one) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *one) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *one) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// FuzzServer: whatever a client sends, in whatever pieces, it is answered or hung up on, and
// another client of the same server is served as if nothing were.
func FuzzServer(f *testing.F) {
	version := cat([]byte{0, 0, 0, 6, 0, 4}, "echo")
	f.Add(version, uint8(3))
	f.Add(cat([]byte{0, 0, 0, 6, 3, 4}, "news", []byte{0, 0, 0, 6, 4, 4}, "news", version), uint8(1))
	f.Add(cat([]byte{0, 0, 0, 20, 0, 4}, "echo", []byte{1, 1}, "s", []byte{3, 1}, "k", []byte{0, 1}, "v", []byte{4, 1}, "l", []byte{6, 2}), uint8(7))
	f.Add([]byte{255, 255, 255, 255, 0}, uint8(2))
	f.Add([]byte{0, 0, 0, 0}, uint8(1))
	f.Add([]byte{0, 8, 0, 0, 7, 1}, uint8(0))
	f.Fuzz(func(t *testing.T, stream []byte, piece uint8) {
		s := vici.NewServer(vici.Options{})
		s.Handle("echo", func(_ context.Context, r *vici.Request) (*conf.Section, error) { return r.Msg, nil })
		s.Event("news")
		l := &one{conns: make(chan net.Conn), done: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		client := func() net.Conn {
			here, there := net.Pipe()
			l.conns <- there
			_ = here.SetDeadline(time.Now().Add(20 * time.Second))
			return here
		}
		hostile := client()
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = io.Copy(io.Discard, hostile)
		}()
		for rest := stream; len(rest) > 0; {
			n := min(len(rest), int(piece)+1)
			if _, err := hostile.Write(rest[:n]); err != nil {
				break // hung up on
			}
			rest = rest[n:]
		}
		other := vici.NewClient(client())
		body := conf.New("")
		body.Set("are", "you there?")
		if m, err := other.Call(t.Context(), "echo", body); err != nil || m.Text("are") != "you there?" {
			t.Errorf("another client is answered %v, %v", m, err)
		}
		other.Close()
		hostile.Close()
		<-read
		s.Close()
		<-served
	})
}
