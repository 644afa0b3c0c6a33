package vici_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"adit/conf"
	"adit/vici"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a server on a Unix socket and returns the URI. The test's end closes it.
func serve(t *testing.T, opts vici.Options) (*vici.Server, string) {
	t.Helper()
	uri := "unix://" + filepath.Join(t.TempDir(), "vici")
	l, err := vici.Listen(uri)
	if err != nil {
		t.Fatal(err)
	}
	s := vici.NewServer(opts)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; !errors.Is(err, vici.ErrClosed) {
			t.Errorf("Serve ended with %v", err)
		}
	})
	s.Handle("echo", func(_ context.Context, r *vici.Request) (*conf.Section, error) { return r.Msg, nil })
	s.Handle("count", func(_ context.Context, r *vici.Request) (*conf.Section, error) {
		n, err := count(r.Msg)
		if err != nil {
			return nil, err
		}
		for i := range n {
			if err := r.Emit("counted", number(i)); err != nil {
				return nil, err
			}
		}
		return number(n), nil
	})
	s.Event("counted", "news")
	return s, uri
}

func number(n int) *conf.Section {
	s := conf.New("")
	s.Setf("n", "%d", n)
	return s
}

func count(s *conf.Section) (int, error) {
	v, _ := s.Get("n")
	n, err := v.Int(0, 1<<30)
	return int(n), err
}

func dial(t *testing.T, uri string) *vici.Client {
	t.Helper()
	c, err := vici.Dial(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestCall(t *testing.T) {
	s, uri := serve(t, vici.Options{})
	c := dial(t, uri)
	reply, err := c.Call(t.Context(), "echo", exampleTree())
	if err != nil || reply.Format(nil) != exampleTree().Format(nil) {
		t.Fatalf("answer %v, %v", reply, err)
	}
	if reply, err = c.Call(t.Context(), "echo", nil); err != nil || reply.Len() != 0 {
		t.Fatalf("answer %v, %v", reply, err)
	}
	if _, err := c.Call(t.Context(), "nonsense", nil); !errors.Is(err, vici.ErrUnknownCommand) {
		t.Errorf("unknown command: %v", err)
	}
	if _, err := c.Call(t.Context(), "echo", nil); err != nil { // the connection survives that
		t.Error(err)
	}
	big := conf.New("")
	for i := range 7 {
		big.Set(fmt.Sprint(i), strings.Repeat("x", vici.MaxValue))
	}
	if reply, err = c.Call(t.Context(), "echo", big); err != nil || reply.Len() != 7 {
		t.Errorf("large message: %v, %v", reply, err)
	}
	if st := s.Stats(); st.Commands != 5 || st.Clients != 1 || st.Accepted != 1 {
		t.Errorf("counters %+v", st)
	}
}

func TestManyClients(t *testing.T) {
	s, uri := serve(t, vici.Options{MaxClients: 64})
	var wg sync.WaitGroup
	for i := range 64 {
		c := dial(t, uri)
		wg.Go(func() {
			for j := range 20 {
				want := i*1000 + j
				reply, err := c.Call(t.Context(), "echo", number(want))
				if err != nil {
					t.Error(err)
					return
				}
				if got, _ := count(reply); got != want {
					t.Errorf("client %d was answered %d for %d", i, got, want)
				}
			}
		})
	}
	wg.Wait()
	c, err := vici.Dial(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Call(t.Context(), "echo", nil); err == nil {
		t.Error("one client too many is served")
	}
	if st := s.Stats(); st.Clients != 64 || st.Refused != 1 {
		t.Errorf("counters %+v", st)
	}
}

func TestStream(t *testing.T) {
	_, uri := serve(t, vici.Options{Queue: 3}) // fewer than there are events: none is lost
	c := dial(t, uri)
	for range 2 {
		next := 0
		reply, err := c.Stream(t.Context(), "count", "counted", number(500), func(m *conf.Section) error {
			if n, err := count(m); err != nil || n != next {
				return fmt.Errorf("event %d instead of %d (%v)", n, next, err)
			}
			next++
			return nil
		})
		if n, _ := count(reply); err != nil || n != 500 || next != 500 {
			t.Fatalf("%d events, answer %d, %v", next, n, err)
		}
	}
	// A client that did not register gets the answer only.
	if reply, err := c.Call(t.Context(), "count", number(3)); err != nil || reply.Text("n") != "3" {
		t.Error(reply, err)
	}
	if _, err := c.Stream(t.Context(), "count", "unheard", number(3), nil); !errors.Is(err, vici.ErrUnknownEvent) {
		t.Errorf("unknown event: %v", err)
	}
	stop := errors.New("enough")
	if _, err := c.Stream(t.Context(), "count", "counted", number(500), func(*conf.Section) error { return stop }); err != stop {
		t.Errorf("stopped stream: %v", err)
	}
}

func TestStreamReachesOnlyItsClient(t *testing.T) {
	s, uri := serve(t, vici.Options{})
	got := listen(t, s, uri, "counted")
	if reply, err := dial(t, uri).Call(t.Context(), "count", number(10)); err != nil || reply.Text("n") != "10" {
		t.Fatal(reply, err)
	}
	if err := s.Publish("counted", number(77)); err != nil {
		t.Fatal(err)
	}
	if e := <-got; e.Body.Text("n") != "77" {
		t.Errorf("another client got %v of the stream", e.Body.Text("n"))
	}
}

// listen starts a client that listens for events and returns once it is registered. Events by
// which that was found out are left out.
func listen(t *testing.T, s *vici.Server, uri string, events ...string) <-chan vici.Event {
	t.Helper()
	c := dial(t, uri)
	got := make(chan vici.Event, 10000)
	registered, done := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(done)
		once := sync.OnceFunc(func() { close(registered) })
		for e, err := range c.Listen(ctx, events...) {
			if err != nil {
				return
			}
			if once(); e.Body.Text("probe") == "" {
				got <- e
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	probe := conf.New("")
	probe.Set("probe", "yes")
	for {
		if err := s.Publish(events[len(events)-1], probe); err != nil {
			t.Fatal(err)
		}
		select {
		case <-registered:
			return got
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestPublish(t *testing.T) {
	s, uri := serve(t, vici.Options{})
	a, b := listen(t, s, uri, "news"), listen(t, s, uri, "counted", "news")
	for i := range 1000 {
		if err := s.Publish("news", number(i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 1000 {
		if x, y := <-a, <-b; x.Name != "news" || x.Body.Text("n") != fmt.Sprint(i) || y.Body.Text("n") != fmt.Sprint(i) {
			t.Fatalf("event %d is %v and %v", i, x.Body.Text("n"), y.Body.Text("n"))
		}
	}
	if err := s.Publish("counted", number(5)); err != nil {
		t.Fatal(err)
	}
	if e := <-b; e.Name != "counted" || len(a) != 0 {
		t.Errorf("got %v", e.Name)
	}
	if err := s.Publish("unheard", nil); !errors.Is(err, vici.ErrUnknownEvent) {
		t.Errorf("unknown event: %v", err)
	}
	bad := conf.New("")
	bad.Set("", "")
	if err := s.Publish("news", bad); !errors.Is(err, vici.ErrMalformed) {
		t.Errorf("bad body: %v", err)
	}
}

// TestSlowReader: a client that never reads costs bounded memory and holds up nobody.
func TestSlowReader(t *testing.T) {
	reasons := make(chan error, 10)
	s, uri := serve(t, vici.Options{Queue: 10, Stall: time.Second, OnError: func(_ uint64, err error) { reasons <- err }})
	slow := raw(t, uri)
	send(t, slow, vici.Packet{Type: vici.EventRegister, Name: "news"})
	expect(t, slow, vici.EventConfirm)
	quick := listen(t, s, uri, "news")
	body := conf.New("")
	body.Set("text", strings.Repeat("x", 20000))
	start := time.Now()
	for range 500 {
		if err := s.Publish("news", body); err != nil {
			t.Fatal(err)
		}
		<-quick // keeps up
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("publishing took %v", d)
	}
	// How many depends on when the client is cut off; until then it misses nearly all.
	if n := s.Stats().EventsLost; n < 10 {
		t.Errorf("%d events counted as lost", n)
	}
	select {
	case err := <-reasons:
		t.Log(err)
	case <-time.After(5 * time.Second):
		t.Fatal("the slow client is not cut off")
	}
	if n := s.Stats().Stalled; n != 1 {
		t.Errorf("%d clients counted as stalled", n)
	}
	if _, err := dial(t, uri).Call(t.Context(), "echo", nil); err != nil {
		t.Error(err)
	}
}

// raw connects without a client's manners.
func raw(t *testing.T, uri string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", strings.TrimPrefix(uri, "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { conn.Close() })
	return conn
}

func send(t *testing.T, w io.Writer, packets ...vici.Packet) {
	t.Helper()
	var b []byte
	for _, p := range packets {
		var err error
		if b, err = p.AppendFrame(b); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, r io.Reader, want vici.PacketType) vici.Packet {
	t.Helper()
	p, err := vici.ReadPacket(r)
	if err != nil || p.Type != want {
		t.Fatalf("got %v, %v, want %v", p.Type, err, want)
	}
	return p
}

func TestRegistrations(t *testing.T) {
	s, uri := serve(t, vici.Options{})
	c := raw(t, uri)
	step := func(typ vici.PacketType, name string, want vici.PacketType) {
		t.Helper()
		send(t, c, vici.Packet{Type: typ, Name: name})
		expect(t, c, want)
	}
	step(vici.EventRegister, "unheard", vici.EventUnknown)
	step(vici.EventUnregister, "news", vici.EventUnknown)
	step(vici.EventRegister, "news", vici.EventConfirm)
	step(vici.EventRegister, "news", vici.EventConfirm)
	if err := s.Publish("news", number(1)); err != nil {
		t.Fatal(err)
	}
	expect(t, c, vici.EventNotify) // once
	step(vici.EventUnregister, "news", vici.EventConfirm)
	if err := s.Publish("news", number(2)); err != nil {
		t.Fatal(err)
	}
	step(vici.EventUnregister, "news", vici.EventUnknown)
	step(vici.CmdRequest, "nonsense", vici.CmdUnknown)
}

// TestPipelining: requests sent at once are answered in order.
func TestPipelining(t *testing.T) {
	_, uri := serve(t, vici.Options{})
	c := raw(t, uri)
	var packets []vici.Packet
	for i := range 50 {
		body, err := vici.Marshal(number(i))
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, vici.Packet{Type: vici.CmdRequest, Name: "echo", Body: body})
	}
	send(t, c, packets...)
	for i := range packets {
		if p := expect(t, c, vici.CmdResponse); !bytes.Equal(p.Body, packets[i].Body) {
			t.Fatalf("answer %d is %q", i, p.Body)
		}
	}
}

func TestHostileClients(t *testing.T) {
	reasons := make(chan error, 10)
	s, uri := serve(t, vici.Options{OnError: func(_ uint64, err error) { reasons <- err }})
	for i, c := range []struct {
		bytes []byte
		want  error
	}{
		{[]byte{255, 255, 255, 255}, vici.ErrTooLong},
		{[]byte{0, 0, 0, 0}, vici.ErrMalformed},
		{[]byte("GET / HTTP/1.1\r\n\r\n"), vici.ErrTooLong},
		{[]byte{0, 0, 0, 1, 5}, vici.ErrMalformed}, // only servers confirm
		{cat([]byte{0, 0, 0, 7, 0, 4}, "echo", []byte{2}), vici.ErrMalformed},
	} {
		conn := raw(t, uri)
		if _, err := conn.Write(c.bytes); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(conn); len(b) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%q is answered %q, %v", c.bytes, b, err)
		}
		if err := <-reasons; !errors.Is(err, c.want) {
			t.Errorf("%q: %v, want %v", c.bytes, err, c.want)
		}
		if n := s.Stats().Malformed; n != uint64(i+1) {
			t.Errorf("%d counted as malformed", n)
		}
	}
	// A handler's error and an answer too long hang up as well, for a reason that is told.
	s.Handle("fail", func(context.Context, *vici.Request) (*conf.Section, error) { return nil, io.ErrNoProgress })
	if _, err := dial(t, uri).Call(t.Context(), "fail", nil); err == nil {
		t.Error("an answer without one")
	}
	if err := <-reasons; err != io.ErrNoProgress {
		t.Error(err)
	}
}

// TestHangUp: a handler learns that its client is gone, and its stream ends.
func TestHangUp(t *testing.T) {
	s, uri := serve(t, vici.Options{})
	ended := make(chan error, 1)
	s.Handle("wait", func(ctx context.Context, r *vici.Request) (*conf.Section, error) {
		<-ctx.Done()
		ended <- r.Emit("counted", nil)
		return nil, nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	c := dial(t, uri)
	if _, err := c.Call(ctx, "wait", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("call ended with %v", err)
	}
	if err := <-ended; err != vici.ErrGone {
		t.Errorf("Emit returned %v", err)
	}
	if _, err := c.Call(t.Context(), "echo", nil); err == nil {
		t.Error("the connection is used again although an answer is outstanding")
	}
}

func TestEventsDuringACommand(t *testing.T) {
	s, uri := serve(t, vici.Options{})
	release := make(chan struct{})
	s.Handle("wait", func(ctx context.Context, _ *vici.Request) (*conf.Section, error) {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil, nil
	})
	c := raw(t, uri)
	send(t, c, vici.Packet{Type: vici.EventRegister, Name: "news"}, vici.Packet{Type: vici.CmdRequest, Name: "wait"})
	expect(t, c, vici.EventConfirm)
	if err := s.Publish("news", number(1)); err != nil {
		t.Fatal(err)
	}
	expect(t, c, vici.EventNotify)
	close(release)
	expect(t, c, vici.CmdResponse)
}

// TestClose: closing ends commands and clients, slow ones too, and answers given are delivered.
func TestClose(t *testing.T) {
	s := vici.NewServer(vici.Options{})
	uri := "unix://" + filepath.Join(t.TempDir(), "vici")
	l, err := vici.Listen(uri)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	started := make(chan struct{})
	s.Handle("wait", func(ctx context.Context, _ *vici.Request) (*conf.Section, error) {
		close(started)
		<-ctx.Done()
		return number(1), nil
	})
	s.Event("news")
	slow := raw(t, uri)
	send(t, slow, vici.Packet{Type: vici.EventRegister, Name: "news"})
	expect(t, slow, vici.EventConfirm)
	body := conf.New("")
	body.Set("text", strings.Repeat("x", 60000))
	for range 100 {
		s.Publish("news", body)
	}
	c := dial(t, uri)
	answer := make(chan error, 1)
	go func() {
		reply, err := c.Call(context.Background(), "wait", nil)
		if err == nil && reply.Text("n") != "1" {
			err = errors.New("wrong answer")
		}
		answer <- err
	}()
	<-started
	start := time.Now()
	s.Close()
	if d := time.Since(start); d > 4*time.Second {
		t.Errorf("closing took %v", d)
	}
	if err := <-done; !errors.Is(err, vici.ErrClosed) {
		t.Errorf("Serve ended with %v", err)
	}
	if err := <-answer; err != nil {
		t.Errorf("the command under way ended with %v", err)
	}
	if err := s.Serve(l); !errors.Is(err, vici.ErrClosed) {
		t.Errorf("a closed server serves: %v", err)
	}
	if _, err := vici.Dial(t.Context(), uri); err == nil {
		t.Error("the socket is still there")
	}
}
