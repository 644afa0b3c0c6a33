package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	xproxy "golang.org/x/net/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inside is a network where every name leads to one server; it notes what was asked for.
type inside struct {
	mu  sync.Mutex
	to  string
	udp string
	got []string
}

func (d *inside) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d.mu.Lock()
	d.got = append(d.got, network+" "+address)
	d.mu.Unlock()
	if strings.HasPrefix(address, "nowhere") {
		return nil, errors.New("no such host")
	}
	to := d.to
	if network == "udp" {
		to = d.udp
	}
	var n net.Dialer
	return n.DialContext(ctx, network, to)
}

func (d *inside) asked(t *testing.T, want string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.got) == 0 || d.got[len(d.got)-1] != want {
		t.Errorf("dialed %q, want %q at the end", d.got, want)
	}
}

func serving(t *testing.T, serve func(context.Context, net.Listener) error) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func website(t *testing.T) *inside {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %q %q", r.Method, r.Host, r.URL, r.Header.Get("Proxy-Authorization"), b)
	}))
	t.Cleanup(srv.Close)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			pc.WriteTo(bytes.ToUpper(b[:n]), from)
		}
	}()
	return &inside{to: srv.Listener.Addr().String(), udp: pc.LocalAddr().String()}
}

func fetch(t *testing.T, tr *http.Transport, url string) (int, string) {
	t.Helper()
	tr.DisableKeepAlives = true
	c := http.Client{Transport: tr, Timeout: 5 * time.Second}
	r, err := c.Post(url, "text/plain", strings.NewReader("data"))
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	return r.StatusCode, string(b)
}

// SOCKS5 with x/net's client: names go through as names, of both address families.
func TestRFC1928_Connect(t *testing.T) {
	d := website(t)
	at := serving(t, SOCKS(d, nil).Serve)
	socks, err := xproxy.SOCKS5("tcp", at, nil, xproxy.Direct)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DialContext: socks.(xproxy.ContextDialer).DialContext}
	for url, want := range map[string]string{"http://intranet/a": "tcp intranet:80", "http://10.2.0.2:81/a": "tcp 10.2.0.2:81", "http://[fd02::2]/a": "tcp [fd02::2]:80"} {
		if code, got := fetch(t, tr, url); code != 200 || !strings.Contains(got, `/a "" "data"`) {
			t.Errorf("%s: %d %s", url, code, got)
		}
		d.asked(t, want)
	}
	if code, got := fetch(t, tr, "http://nowhere/"); code != 0 || !strings.Contains(got, "host unreachable") {
		t.Errorf("%d %s", code, got)
	}
}

// UDP ASSOCIATE: datagrams there and back, each with its address; fragments and what
// comes from other hosts is dropped.
func TestRFC1928_Associate(t *testing.T) {
	d := website(t)
	c, err := net.Dial("tcp", serving(t, SOCKS(d, nil).Serve))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	c.Write([]byte{5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0})
	head := make([]byte, 12)
	if _, err := io.ReadFull(c, head); err != nil || !bytes.Equal(head[:6], []byte{5, 0, 5, 0, 0, 1}) {
		t.Fatalf("%x %v", head, err)
	}
	u, err := net.Dial("udp", net.JoinHostPort(net.IP(head[6:10]).String(), fmt.Sprint(int(head[10])<<8|int(head[11]))))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	u.SetDeadline(time.Now().Add(5 * time.Second))
	u.Write([]byte{0, 0, 1, 1, 10, 2, 0, 2, 0, 53, 'x'}) // a fragment
	u.Write([]byte{0, 0})
	u.Write(append([]byte{0, 0, 0, 3, 8}, "intranet\x00\x35hello"...))
	b := make([]byte, 100)
	n, err := u.Read(b)
	if err != nil || n < 10 || string(b[10:n]) != "HELLO" || !bytes.Equal(b[:8], []byte{0, 0, 0, 1, 127, 0, 0, 1}) {
		t.Errorf("%x %v", b[:n], err)
	}
	d.asked(t, "udp intranet:53")
}

// What is no SOCKS5, wants a password or something else, is told so and ends.
func TestRFC1928_Refusals(t *testing.T) {
	d := website(t)
	at := serving(t, SOCKS(d, nil).Serve)
	for in, want := range map[string]string{"\x04\x01\x00\x50\x0a\x00\x00\x01\x00": "", "\x05\x01\x02": "\x05\xff", "\x05\x00": "\x05\xff", "GET / HTTP/1.1\r\n\r\n": "",
		"\x05\x01\x00\x05\x02\x00\x01\x0a\x00\x00\x01\x00\x50":             "\x05\x00\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00",
		"\x05\x01\x00\x05\x01\x00\x09":                                     "\x05\x00\x05\x08\x00\x01\x00\x00\x00\x00\x00\x00",
		"\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50":                         "\x05\x00",
		"\x05\x01\x00\x04\x01\x00\x01\x0a\x00\x00\x01\x00\x50 and much of": "\x05\x00"} {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		io.WriteString(c, in)
		got, _ := io.ReadAll(c) // a reset is an end, too
		if string(got) != want && !(want != "" && len(got) == 0) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
		c.Close()
	}
	if len(d.got) != 0 {
		t.Errorf("dialed %q", d.got)
	}
}

// The HTTP proxy: whole URLs, CONNECT, and nothing for who takes it for a server.
func TestHTTPProxy(t *testing.T) {
	d := website(t)
	at := serving(t, func(ctx context.Context, ln net.Listener) error { return ServeHTTP(ctx, ln, d, nil) })
	tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: at, User: url.UserPassword("a", "b")})}
	if code, got := fetch(t, tr, "http://intranet:81/a?b=c"); code != 200 || got != `POST intranet:81 /a?b=c "" "data"` {
		t.Errorf("%d %s", code, got)
	}
	d.asked(t, "tcp intranet:81")
	if code, got := fetch(t, tr, "http://nowhere/"); code != 502 {
		t.Errorf("%d %s", code, got)
	}
	if code, got := fetch(t, &http.Transport{}, "http://"+at+"/a"); code != 400 {
		t.Errorf("%d %s", code, got)
	}
	say := func(line string) (*bufio.Reader, net.Conn, string) {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(5 * time.Second))
		io.WriteString(c, line)
		r := bufio.NewReader(c)
		first, _ := r.ReadString('\n')
		return r, c, strings.TrimSpace(first)
	}
	r, _, first := say("CONNECT [fd02::2]:443 HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.0\r\n\r\n") // said before it was answered
	rest, _ := io.ReadAll(r)
	if first != "HTTP/1.1 200 Connection established" || !strings.Contains(string(rest), "GET  /b") {
		t.Errorf("%q %q", first, rest)
	}
	d.asked(t, "tcp [fd02::2]:443")
	if _, _, first := say("CONNECT nowhere:1 HTTP/1.1\r\n\r\n"); !strings.Contains(first, "502") && !strings.Contains(first, "400") {
		t.Errorf("%q", first)
	}
	if _, _, first := say("CONNECT intranet HTTP/1.1\r\nHost: intranet\r\n\r\n"); !strings.Contains(first, "400") {
		t.Errorf("%q", first)
	}
}

func TestForward(t *testing.T) {
	d := website(t)
	at := serving(t, Forward(d, "intranet:80", nil).Serve)
	if code, got := fetch(t, &http.Transport{}, "http://"+at+"/a"); code != 200 || !strings.Contains(got, "/a") {
		t.Errorf("%d %s", code, got)
	}
	d.asked(t, "tcp intranet:80")
}

func TestParseForward(t *testing.T) {
	for text, want := range map[string]string{
		"8080:intranet:80":         "127.0.0.1:8080 intranet:80",
		"0.0.0.0:8080:10.2.0.2:80": "0.0.0.0:8080 10.2.0.2:80",
		"[::1]:8080:[fd02::2]:80":  "[::1]:8080 [fd02::2]:80",
		"8080:[fd02::2]:80":        "127.0.0.1:8080 [fd02::2]:80",
		"0:a:1":                    "127.0.0.1:0 a:1",
		"":                         "", "8080": "", "a:b": "", "8080:intranet": "", "x:intranet:80": "", "8080::80": "", "8080:a:0": "", "8080:a:65536": "", "[::1:8080:a:80": "", "[::1]8080:a:80": "", "1:2:3:4:5": "", "80:a b:80": "",
	} {
		listen, to, err := ParseForward(text)
		if got := strings.TrimSpace(listen + " " + to); (err != nil) != (want == "") || got != want {
			t.Errorf("%q: %q %v, want %q", text, got, err, want)
		}
	}
}

func FuzzParseForward(f *testing.F) {
	f.Add("8080:intranet:80")
	f.Add("[::1]:8080:[fd02::2]:80")
	f.Fuzz(func(t *testing.T, s string) {
		listen, to, err := ParseForward(s)
		if err != nil {
			return
		}
		for _, a := range []string{listen, to} {
			if _, _, err := net.SplitHostPort(a); err != nil {
				t.Errorf("%q: %q: %v", s, a, err)
			}
		}
	})
}

func FuzzReadRequest(f *testing.F) {
	f.Add([]byte("\x05\x01\x00\x03\x08intranet\x00\x50"))
	f.Add([]byte("\x05\x01\x00\x04aaaaaaaaaaaaaaaa\x00\x50"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, to, err := readRequest(bytes.NewReader(b)); err == nil {
			if to == "" {
				t.Errorf("%x: nowhere", b)
			}
		}
		splitDatagram(b)
	})
}
