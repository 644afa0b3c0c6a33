package attack_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"adit/conf"
	"adit/internal/config"
	"adit/vici"
)

// Configurations that are made to explode: refused under a name, or decoded, within
// bounds of time and memory.
func TestHostileConfigurations(t *testing.T) {
	nest := func(n int) string { return strings.Repeat("s {\n", n) + strings.Repeat("}\n", n) }
	bomb := func(levels, width int) string { // each level inherits the one below, many times over, in sections of its own
		var b strings.Builder
		fmt.Fprint(&b, "t0 {\n k = v\n}\n")
		for i := 1; i <= levels; i++ {
			fmt.Fprintf(&b, "t%d {\n", i)
			for k := range width {
				fmt.Fprintf(&b, " c%d : t%d { }\n", k, i-1)
			}
			fmt.Fprint(&b, "}\n")
		}
		fmt.Fprintf(&b, "connections : t%d { }\n", levels)
		return b.String()
	}
	diamond := func(levels int) string {
		var b strings.Builder
		fmt.Fprint(&b, "t0 { k = v }\nu0 { k = v }\n")
		for i := 1; i <= levels; i++ {
			fmt.Fprintf(&b, "t%d : t%d, u%d { }\nu%d : u%d, t%d { }\n", i, i-1, i-1, i, i-1, i-1)
		}
		fmt.Fprintf(&b, "connections { c : t%d { } }\n", levels)
		return b.String()
	}
	conn := func(what string) string {
		return "connections { c {\n" + what + "\nlocal { auth = psk }\nremote { auth = psk }\nchildren { n { remote_ts = 10.0.0.0/8 } } } }\n"
	}
	list := func(item string, n int) string { return strings.TrimSuffix(strings.Repeat(item+", ", n), ", ") }
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"deep nesting":          {nest(100_000), false},
		"unclosed nesting":      {strings.Repeat("s {\n", 100_000), false},
		"unclosed quote":        {"a = \"" + strings.Repeat("x", 2<<20), false},
		"exponential templates": {bomb(30, 2), false},
		"diamonds":              {diamond(60), false},
		"huge value":            {conn("proposals = " + strings.Repeat("x", 4<<20)), false},
		"huge name":             {strings.Repeat("n", 1<<20) + " = v\n", false},
		"100,000 proposals":     {conn("proposals = " + list("aes128-sha256-x25519", 100_000)), false},
		"100,000 addresses":     {conn("remote_addrs = " + list("192.0.2.1", 100_000)), false},
		"100,000 selectors":     {conn("children { n { local_ts = " + list("10.0.0.0/8", 100_000) + " } }"), false},
		"100,000 keywords":      {conn("proposals = " + strings.TrimSuffix(strings.Repeat("aes128-", 100_000), "-")), false},
		"200,000 keys":          {"a {\n" + strings.Repeat("k = v\n", 200_000) + "}\n", true},
		"NUL bytes":             {strings.Repeat("\x00", 1<<16), true},
		"only braces":           {strings.Repeat("}", 1<<16), false},
		"include of itself":     {"include x.conf\n", false},
		"numbers out of range":  {conn("rekey_time = 99999999999999999999999h"), false},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			var root *conf.Section
			var err error
			if strings.HasPrefix(c.text, "include") {
				root, err = conf.Parse(conf.MapFiles{"x.conf": c.text}, "x.conf")
			} else {
				root, err = conf.ParseBytes("x.conf", []byte(c.text))
			}
			if err == nil {
				_, err = config.Decode(root, config.Daemon{})
			}
			took := time.Since(began)
			runtime.ReadMemStats(&after)
			if took > 8*time.Second {
				t.Errorf("took %v", took)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 1<<30 {
				t.Errorf("allocated %d MB", n>>20)
			}
			if !c.ok && err == nil {
				t.Error("was taken")
			}
			if err != nil && len(err.Error()) > 64<<10 {
				t.Errorf("the error is %d bytes long", len(err.Error()))
			}
		})
	}
}

// Clients of VICI that flood, never read, send giant messages, or come by the
// thousand: an honest client is served meanwhile, or soon after.
func TestHostileVICIClients(t *testing.T) {
	uri := "unix://" + filepath.Join(t.TempDir(), "vici")
	l, err := vici.Listen(uri)
	if err != nil {
		t.Fatal(err)
	}
	s := vici.NewServer(vici.Options{Stall: 300 * time.Millisecond, QueueBytes: 256 << 10})
	s.Handle("echo", func(_ context.Context, r *vici.Request) (*conf.Section, error) { return r.Msg, nil })
	s.Event("news")
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-ended; !errors.Is(err, vici.ErrClosed) {
			t.Error(err)
		}
	})
	path := strings.TrimPrefix(uri, "unix://")
	dial := func() net.Conn {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	served := func(what string) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			c, err := vici.Dial(ctx, uri)
			if err == nil {
				_, err = c.Call(ctx, "echo", nil)
				c.Close()
			}
			cancel()
			if err == nil {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: an honest client is not served: %v", what, err)
			}
		}
	}
	packet := func(body []byte) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	}
	before := heap()
	// Giant, and cut, messages.
	for _, b := range [][]byte{
		packet(append([]byte{0, 4, 'e', 'c', 'h', 'o'}, make([]byte, 600<<10)...)),
		append([]byte{0x7f, 0xff, 0xff, 0xff}, make([]byte, 1<<20)...),
		packet(append([]byte{0, 4, 'e', 'c', 'h', 'o'}, []byte(strings.Repeat("\x01\x01s", 100_000))...)), // sections without end
		packet(append([]byte{0, 4, 'e', 'c', 'h', 'o'}, []byte(strings.Repeat("\x02", 100_000))...)),
		packet(append([]byte{0, 4, 'e', 'c', 'h', 'o'}, []byte(strings.Repeat("\x03\x01k\x00\x00", 100_000))...)),
		{0, 0, 0, 100, 0},
		{0},
	} {
		c := dial()
		c.SetDeadline(time.Now().Add(2 * time.Second))
		c.Write(b)
	}
	served("giant messages")
	// A client that asks without end and never reads, and one that registers for
	// events and never reads them.
	flood := dial()
	flood.SetWriteDeadline(time.Now().Add(3 * time.Second))
	request := packet(append([]byte{0, 4, 'e', 'c', 'h', 'o', 3, 1, 'k', 0x7f, 0xff}, make([]byte, 0x7fff)...))
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for range 10_000 {
			if _, err := flood.Write(request); err != nil {
				return
			}
		}
	}()
	deaf := dial()
	deaf.Write(packet([]byte{3, 4, 'n', 'e', 'w', 's'}))
	deaf.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := deaf.Read(make([]byte, 5)); err != nil { // confirmed; it reads no more
		t.Fatal(err)
	}
	body := conf.New("")
	body.Set("k", strings.Repeat("x", 60_000))
	for range 500 {
		if err := s.Publish("news", body); err != nil {
			t.Fatal(err)
		}
	}
	served("clients that do not read")
	// A thousand connections at once.
	opened := 0
	for range 1000 {
		c, err := net.DialTimeout("unix", path, 100*time.Millisecond)
		if err != nil {
			break
		}
		opened++
		defer c.Close()
	}
	if n := s.Stats().Clients; n > vici.DefaultClients {
		t.Errorf("%d clients at once", n)
	}
	if grown := int64(heap()) - int64(before); grown > 64<<20 {
		t.Errorf("%d MB", grown>>20)
	}
	if st := s.Stats(); st.Refused == 0 || st.EventsLost == 0 || st.Malformed < 4 {
		t.Errorf("not counted: %+v", st)
	}
	t.Logf("%d connections opened: %+v", opened, s.Stats())
	<-stopped
	flood.Close()
	deaf.Close()
}
