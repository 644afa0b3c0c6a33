package traffic

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair are two hosts on the loopback interface, each served as its process would.
func pair(t *testing.T) (a, b *Host) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	one := func(name string) *Host {
		path := filepath.Join(t.TempDir(), name)
		ended := make(chan error, 1)
		go func() { ended <- Serve(ctx, path) }()
		h, err := Dial(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			h.Close()
			if err := <-ended; err != nil {
				t.Errorf("the process of a host ends with %v", err)
			}
		})
		return h
	}
	return one("a"), one("b")
}

func at(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
}

func TestTCP(t *testing.T) {
	a, b := pair(t)
	ctx := t.Context()
	if err := b.ListenTCP(ctx, at(15001)); err != nil {
		t.Fatal(err)
	}
	if err := a.StartTCP(ctx, SendTCP{To: at(15001), Streams: 3}); err != nil {
		t.Fatal(err)
	}
	if err := a.StartTCP(ctx, SendTCP{To: at(15001), Streams: 1}); err == nil {
		t.Error("a second set of streams began")
	}
	time.Sleep(50 * time.Millisecond)
	first, err := b.ReceivedTCP(ctx)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	second, err := b.ReceivedTCP(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if second.Bytes <= first.Bytes || first.Bytes == 0 || second.At-first.At < int64(50*time.Millisecond) {
		t.Errorf("%+v, then %+v", first, second)
	}
	if err := a.StopTCP(ctx); err != nil {
		t.Fatal(err)
	}
	// What is left in the receiver's queue is read, and nothing more comes.
	time.Sleep(50 * time.Millisecond)
	third, _ := b.ReceivedTCP(ctx)
	time.Sleep(20 * time.Millisecond)
	if last, _ := b.ReceivedTCP(ctx); last.Bytes != third.Bytes {
		t.Error("bytes arrive after the end of sending")
	}
	if err := a.StartTCP(ctx, SendTCP{To: at(1), Streams: 1}); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listens there: %v", err)
	}
}

// On the loopback interface at a low rate everything arrives: sent and counted agree
// to the datagram, and the rate is the one asked for.
func TestUDP(t *testing.T) {
	a, b := pair(t)
	ctx := t.Context()
	if err := b.ListenUDP(ctx, at(15002)); err != nil {
		t.Fatal(err)
	}
	const rate = 20_000
	for trial := uint32(1); trial <= 3; trial++ {
		sent, err := a.SendUDP(ctx, SendUDP{To: at(15002), Size: 1300, Rate: rate, Trains: trial == 2, Warm: 20 * time.Millisecond, For: 200 * time.Millisecond, Trial: trial})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		got, err := b.CountUDP(ctx, CountUDP{Trial: trial, First: sent.First})
		if err != nil {
			t.Fatal(err)
		}
		if got.Packets != sent.Packets || sent.First%perTranche != 0 || sent.First == 0 {
			t.Errorf("%+v, arrived %+v", sent, got)
		}
		// A busy machine keeps the sender from its core; too fast it must not be.
		if pps := float64(sent.Packets) / (float64(sent.Took) / 1e9); pps > rate*1.02 || pps < rate/4 {
			t.Errorf("%.0f a second, not %d", pps, rate)
		}
		if got.LastAt <= got.FirstAt {
			t.Errorf("%+v", got)
		}
	}
	if got, err := b.CountUDP(ctx, CountUDP{Trial: 1}); err != nil || got.Packets != 0 {
		t.Errorf("an old trial still counts: %+v %v", got, err)
	}
	for _, bad := range []SendUDP{{Size: 8, Rate: 1}, {Size: 64}, {Size: 9000, Rate: 1}, {Size: 64, Rate: 1, For: time.Hour}} {
		bad.To = at(15002)
		if _, err := a.SendUDP(ctx, bad); err == nil {
			t.Errorf("%+v was done", bad)
		}
	}
	if _, err := a.CountUDP(ctx, CountUDP{}); err == nil {
		t.Error("who does not listen counts")
	}
}

// The sink counts by the datagrams' numbers: earlier trials, what is too short and what
// comes before the first that counts is left out.
func TestSink(t *testing.T) {
	k, m := &sink{}, newMessages(MaxDatagram+1)
	put := func(i int, trial uint32, n uint64, length uint32) {
		binary.BigEndian.PutUint32(m.buf[i], trial)
		binary.BigEndian.PutUint64(m.buf[i][4:], n)
		m.hdr[i].n = length
	}
	put(0, 7, 0, 64)
	put(1, 7, perTranche, 64)
	put(2, 6, perTranche, 64)
	put(3, 7, perTranche+1, datagramHeader-1)
	put(4, 7, 1<<63, 64) // no memory for that
	put(5, 7, 3*perTranche, 64)
	k.note(m, 6)
	if a := k.count(CountUDP{Trial: 7, First: perTranche}); a.Packets != 2 || a.Ever != 6 || a.FirstAt == 0 || a.LastAt < a.FirstAt {
		t.Errorf("%+v", a)
	}
	if a := k.count(CountUDP{Trial: 7, First: 1 << 62}); a.Packets != 0 {
		t.Errorf("%+v", a)
	}
}

func TestPing(t *testing.T) {
	a, b := pair(t)
	ctx := t.Context()
	if err := b.Echo(ctx, at(15003)); err != nil {
		t.Fatal(err)
	}
	p, err := a.Ping(ctx, Ping{To: at(15003), For: 50 * time.Millisecond, Pause: 5 * time.Millisecond})
	if err != nil || len(p.Times) == 0 || len(p.Times) > 11 || p.Lost != 0 {
		t.Fatalf("%+v %v", p, err)
	}
	for _, ns := range p.Times {
		if ns < 1000 || ns > int64(time.Second) {
			t.Errorf("a round trip of %d ns", ns)
		}
	}
	start := time.Now()
	if p, err = a.Ping(ctx, Ping{To: at(9), For: 100 * time.Millisecond}); err != nil || len(p.Times) != 0 || p.Lost == 0 {
		t.Errorf("nobody answers there: %+v %v", p, err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("giving up took %v", took)
	}
}

func TestFile(t *testing.T) {
	a, b := pair(t)
	ctx := t.Context()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	text := make([]byte, 3<<20+17)
	rand.Read(text)
	if err := os.WriteFile(from, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.ExpectFile(ctx, File{Path: to, Addr: at(15004)}); err != nil {
		t.Fatal(err)
	}
	if err := a.SendFile(ctx, File{Path: from, Addr: at(15004)}); err != nil {
		t.Fatal(err)
	}
	got, err := b.GotFile(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want, err := DigestFile(from)
	if err != nil || got != want || want.Bytes != int64(len(text)) {
		t.Errorf("%+v, not %+v, %v", got, want, err)
	}
	if arrived, _ := os.ReadFile(to); !bytes.Equal(arrived, text) {
		t.Error("another file arrived")
	}
}

// A call that takes long ends with its context.
func TestCancel(t *testing.T) {
	a, _ := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	start := time.Now()
	// The host's process would end here; the sender of the test goes on for its second.
	if _, err := a.SendUDP(ctx, SendUDP{To: at(9), Size: 64, Rate: 100, For: time.Second}); err != context.DeadlineExceeded {
		t.Errorf("%v", err)
	}
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
}
