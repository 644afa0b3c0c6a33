package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"adit/conf"
	"adit/interop/lab"
	"adit/vici"
)

// marker fills the pings, to be found (or not) in what is captured.
const marker = "adit-demo-secret"

// show is a running demonstration as root.
type show struct {
	o    Options
	s    *screen
	l    *lab.Lab
	left *gatewayProc
	rght *gatewayProc
	// the two ends that talk: hosts in tunnel mode, the gateways in transport mode
	from, to         string
	fromAddr, toAddr netip.Addr
	plainRTT         time.Duration
	plainRate        string
}

type gatewayProc struct {
	proc *lab.Proc
	uri  string
}

func root(ctx context.Context, o Options, s *screen) error {
	if err := needTools(s, "ip", "ping"); err != nil {
		return err
	}
	d := &show{o: o, s: s}
	if err := d.withLab(ctx, lab.Direct, d.main); err != nil {
		return err
	}
	return d.withLab(ctx, lab.Impaired, d.flip)
}

// needTools installs the programs that the namespaces need where apt has them.
func needTools(s *screen, tools ...string) error {
	missing := false
	for _, t := range tools {
		if _, err := exec.LookPath(t); err != nil {
			missing = true
		}
	}
	if !missing {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errors.New("the programs ip and ping are needed (iproute2, iputils-ping)")
	}
	s.say("installing iproute2 and iputils-ping")
	for _, args := range [][]string{{"update", "-qq"}, {"install", "-y", "-qq", "--no-install-recommends", "iproute2", "iputils-ping"}} {
		cmd := exec.Command("apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, out)
		}
	}
	return nil
}

// withLab builds the namespaces and starts a gateway in each of two, runs f, and removes all.
func (d *show) withLab(ctx context.Context, middle lab.Middle, f func(context.Context) error) (err error) {
	prefix := "demo" + string(rune('a'+int(middle)))
	if d.l, err = lab.New(prefix, lab.Options{Middle: middle}); err != nil {
		return err
	}
	defer func() {
		if e := d.l.Close(); err == nil {
			err = e
		}
	}()
	l := d.l
	d.from, d.to, d.fromAddr, d.toAddr = lab.LeftHost, lab.RightHost, l.L.Host4, l.R.Host4
	if d.o.Mode == "transport" {
		d.from, d.to, d.fromAddr, d.toAddr = lab.Left, lab.Right, l.L.Wan4, l.R.Wan4
	}
	return f(ctx)
}

// gateways starts both and brings the tunnel up.
func (d *show) gateways(ctx context.Context) (err error) {
	l, key := d.l, secret()
	if d.left, err = d.start(lab.Left, siteConf(l.L.Wan4.String(), l.R.Wan4.String(), "left.example", "right.example",
		l.L.Inner4.String(), l.R.Inner4.String(), d.o.Mode, "none", key)); err != nil {
		return err
	}
	if d.rght, err = d.start(lab.Right, siteConf(l.R.Wan4.String(), l.L.Wan4.String(), "right.example", "left.example",
		l.R.Inner4.String(), l.L.Inner4.String(), d.o.Mode, "none", key)); err != nil {
		return err
	}
	msg := conf.New("")
	msg.Set("child", "net")
	msg.Set("timeout", "10000")
	return d.left.call(ctx, "initiate", msg, func(line string) { d.s.say("left: %s", line) })
}

func (d *show) start(node, text string) (*gatewayProc, error) {
	file := filepath.Join(d.l.Dir, node+".conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	g := &gatewayProc{uri: "unix://" + filepath.Join(d.l.Dir, node+".vici")}
	empty := filepath.Join(d.l.Dir, "strongswan.conf")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		return nil, err
	}
	env := append(d.o.Env, "STRONGSWAN_CONF="+empty)
	if g.proc, err = d.l.Start(node, env, self, "run", "--config", file, "--vici", g.uri, "--log-level", "debug"); err != nil {
		return nil, err
	}
	err = lab.Poll(10*time.Second, func() (bool, error) {
		select {
		case <-g.proc.Done():
			return false, fmt.Errorf("the gateway in %s ended:\n%s", node, g.proc.Log())
		default:
		}
		_, err := g.status(context.Background())
		return err == nil, nil
	})
	return g, err
}

// call runs a VICI command and passes on what the gateway logs of it.
func (g *gatewayProc) call(ctx context.Context, command string, msg *conf.Section, line func(string)) error {
	c, err := vici.Dial(ctx, g.uri)
	if err != nil {
		return err
	}
	defer c.Close()
	res, err := c.Stream(ctx, command, "control-log", msg, func(e *conf.Section) error {
		if line != nil {
			line(e.Text("msg"))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if res.Text("success") != "yes" {
		return errors.New(res.Text("errmsg"))
	}
	return nil
}

// status is the answer to `stats`; it fails until the gateway has its connection loaded.
func (g *gatewayProc) status(ctx context.Context) (*conf.Section, error) {
	c, err := vici.Dial(ctx, g.uri)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	conns, err := c.Call(ctx, "get-conns", nil)
	if err != nil {
		return nil, err
	}
	if v, _ := conns.Get("conns"); len(v.List) == 0 {
		return nil, errors.New("no connection is loaded yet")
	}
	return c.Call(ctx, "stats", nil)
}

// drops is the number of packets that the gateway dropped for a reason.
func (g *gatewayProc) drops(ctx context.Context, reason string) (int, error) {
	st, err := g.status(ctx)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(st.Sub("drops").Text(reason))
}

func (d *show) main(ctx context.Context) error {
	fmt.Fprintf(d.s.out, "adit demo: %s mode. Two gateways and two hosts in network namespaces:\n", d.o.Mode)
	d.s.say("host %v - gateway %v === gateway %v - host %v", d.l.L.Host4, d.l.L.Wan4, d.l.R.Wan4, d.l.R.Host4)
	for _, step := range []func(context.Context) error{d.plain, d.up, d.packets, d.mtu, d.measure, d.rekey, d.down} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// plain measures the path without any tunnel, by routes that are taken away again.
func (d *show) plain(ctx context.Context) error {
	d.s.title("The path without a tunnel (with routes for once, taken away again)")
	routes := [][]string{
		{lab.Left, d.l.R.Inner4.String(), d.l.R.Wan4.String()}, {lab.Right, d.l.L.Inner4.String(), d.l.L.Wan4.String()}}
	for _, r := range routes {
		if _, err := d.l.Exec(5*time.Second, r[0], "ip", "route", "add", r[1], "via", r[2]); err != nil {
			return err
		}
	}
	var err error
	if d.plainRTT, d.plainRate, err = d.speed(ctx); err != nil {
		return err
	}
	for _, r := range routes {
		if _, err := d.l.Exec(5*time.Second, r[0], "ip", "route", "del", r[1]); err != nil {
			return err
		}
	}
	if d.o.Mode == "transport" {
		return nil
	}
	res, err := d.l.Ping(d.from, d.toAddr, lab.PingOptions{Timeout: 300 * time.Millisecond})
	if err != nil {
		return err
	}
	if res.Received != 0 {
		return errors.New("the hosts reach each other without a tunnel: the demonstration would prove nothing")
	}
	d.s.say("without routes and without a tunnel, host %v does not reach host %v", d.fromAddr, d.toAddr)
	return nil
}

func (d *show) up(ctx context.Context) error {
	d.s.title("Both gateways start, the left one sets the tunnel up (IKEv2, pre-shared key, AES-256-GCM)")
	if err := d.gateways(ctx); err != nil {
		return err
	}
	return d.l.WaitPing(d.from, d.toAddr, 5*time.Second)
}

// packets shows one packet at three places.
func (d *show) packets(context.Context) error {
	d.s.title("One ping, seen at three places")
	places := []struct{ node, iface string }{{lab.LeftHost, lab.Eth0}, {lab.Left, lab.Wan}, {lab.RightHost, lab.Eth0}}
	heads := []string{"at the left host", "between the gateways", "at the right host"}
	if d.o.Mode == "transport" {
		places = []struct{ node, iface string }{{lab.Left, lab.Wan}}
		heads = heads[1:2]
	}
	var caps []*lab.Capture
	for _, p := range places {
		c, err := d.l.Capture(p.node, p.iface)
		if err != nil {
			return err
		}
		caps = append(caps, c)
	}
	res, err := d.l.Ping(d.from, d.toAddr, lab.PingOptions{Count: 3, Size: 64, Pattern: []byte(marker)})
	if err != nil || res.Lost() > 0 {
		return fmt.Errorf("ping through the tunnel: %d of %d answers, %w", res.Received, res.Sent, err)
	}
	var cells [][]string
	var sizes []int
	for i, c := range caps {
		counts := c.Stop()
		ps, _ := c.Packets()
		outer := heads[i] == "between the gateways"
		for _, p := range ps {
			wanted := p.Class == lab.ClassICMP && p.Dst == d.toAddr
			if outer {
				wanted = (p.Class == lab.ClassESP || p.Class == lab.ClassUDPESP) && p.Dst == d.l.R.Wan4
			}
			if wanted {
				cells, sizes = append(cells, describePacket(&p)), append(sizes, p.Len)
				break
			}
		}
		if outer {
			if counts.Clear > 0 && d.o.Mode == "tunnel" || c.Contains([]byte(marker)) > 0 {
				return errors.New("the inside of the tunnel was seen outside")
			}
		}
	}
	if len(cells) != len(heads) {
		return errors.New("not every place saw the packet")
	}
	d.s.columns(heads, cells)
	if d.o.Mode == "transport" {
		d.s.say("transport mode: an observer sees the real endpoints; what they say, even whether it is ping, TCP or UDP, is hidden")
		return nil
	}
	d.s.say("the observer sees the gateways' addresses and ESP only: no inner address, and %q nowhere", marker)
	d.s.say("overhead: %d bytes became %d on the wire, %d more", sizes[0], sizes[1], sizes[1]-sizes[0])
	return nil
}

func describePacket(p *lab.Packet) []string {
	what := map[lab.Class]string{lab.ClassICMP: "ICMP echo request", lab.ClassESP: "ESP", lab.ClassUDPESP: "ESP in UDP"}[p.Class]
	lines := []string{fmt.Sprintf("%v -> %v", p.Src, p.Dst), fmt.Sprintf("%s, %d bytes", what, p.Len)}
	if p.Class != lab.ClassICMP {
		lines = append(lines, fmt.Sprintf("SPI %08x, sequence %d", p.SPI, p.Seq))
	} else {
		lines = append(lines, "")
	}
	return append(lines, dump(p.Bytes, 11)...)
}

var routeMTU = regexp.MustCompile(`\bmtu (\d+)`)

// mtu lets the gateway tell the host how large its packets may be.
func (d *show) mtu(context.Context) error {
	d.s.title("How large may a packet be?")
	if _, err := d.l.Ping(d.from, d.toAddr, lab.PingOptions{Size: 1472, DF: true, Timeout: 200 * time.Millisecond}); err != nil {
		return err
	}
	out, err := d.l.Exec(5*time.Second, d.from, "ip", "route", "get", d.toAddr.String())
	if err != nil {
		return err
	}
	m := routeMTU.FindStringSubmatch(out)
	if m == nil {
		d.s.say("1500 bytes: nothing told the sender otherwise")
		return nil
	}
	n, _ := strconv.Atoi(m[1])
	d.s.say("a 1500-byte packet that must not be fragmented is answered with \"too big\": the effective MTU is %d", n)
	res, err := d.l.Ping(d.from, d.toAddr, lab.PingOptions{Size: n - 28, DF: true})
	if err != nil || res.Received != 1 {
		return fmt.Errorf("a packet of exactly %d bytes did not pass: %w", n, err)
	}
	d.s.say("a packet of exactly %d bytes passes", n)
	return nil
}

func (d *show) measure(ctx context.Context) error {
	d.s.title("Speed through the tunnel (all on this one machine)")
	rtt, speed, err := d.speed(ctx)
	if err != nil {
		return err
	}
	d.s.say("%-12s %14s %14s", "", "without", "with tunnel")
	d.s.say("%-12s %14s %14s", "round trip", d.plainRTT.Round(time.Microsecond), rtt.Round(time.Microsecond))
	d.s.say("%-12s %14s %14s", "TCP", d.plainRate, speed)
	return nil
}

// speed measures round trip and one TCP transfer between the two ends.
func (d *show) speed(ctx context.Context) (rtt time.Duration, speed string, err error) {
	res, err := d.l.Ping(d.from, d.toAddr, lab.PingOptions{Count: 20, Interval: 5 * time.Millisecond})
	if err != nil || res.Received == 0 {
		return 0, "", fmt.Errorf("no answer to ping: %w", err)
	}
	total := int64(256 << 20)
	if d.o.Quick {
		total = 16 << 20
	}
	bytes, took, err := d.transfer(ctx, total)
	fmt.Fprintln(d.s.out)
	return res.Avg, rate(bytes, took), err
}

// transfer sends total bytes over one TCP connection and shows the progress.
func (d *show) transfer(ctx context.Context, total int64) (int64, time.Duration, error) {
	var ln net.Listener
	err := lab.InNS(d.l.NS(d.to), func() (err error) {
		ln, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(d.toAddr, 5001)))
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	defer ln.Close()
	received := make(chan int64, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			received <- 0
			return
		}
		defer c.Close()
		n, _ := io.Copy(io.Discard, c)
		_, _ = c.Write([]byte{1})
		received <- n
	}()
	var c net.Conn
	err = lab.InNS(d.l.NS(d.from), func() (err error) {
		dialer := net.Dialer{Timeout: 5 * time.Second}
		c, err = dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(d.toAddr, 5001).String())
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	start, shown := time.Now(), time.Time{}
	block := bytes.Repeat([]byte("adit"), 32<<10)
	var sent int64
	for sent < total {
		n, err := c.Write(block)
		if err != nil {
			return sent, time.Since(start), err
		}
		sent += int64(n)
		if time.Since(shown) > 100*time.Millisecond {
			shown = time.Now()
			d.s.bar(sent, total, start)
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return sent, 0, err
	}
	_, err = io.ReadFull(c, make([]byte, 1)) // everything has arrived
	took := time.Since(start)
	d.s.bar(sent, total, start)
	return <-received, took, err
}

// rekey replaces both SAs while numbered packets flow.
func (d *show) rekey(ctx context.Context) error {
	d.s.title("New keys while packets flow")
	f, err := d.l.StartFlow(lab.Flow{From: d.from, To: d.to, Src: d.fromAddr, Dst: d.toAddr, Rate: 5000})
	if err != nil {
		return err
	}
	for _, what := range []string{"child", "ike", "child"} {
		msg := conf.New("")
		msg.Set(what, map[string]string{"child": "net", "ike": "demo"}[what])
		if err := d.left.call(ctx, "rekey", msg, nil); err != nil {
			f.Stop()
			return err
		}
		time.Sleep(700 * time.Millisecond) // let packets flow on the new SA
	}
	res := f.Stop()
	d.s.say("Child SA, IKE SA and Child SA again were replaced: %d packets sent, %d lost, %d doubled", res.Sent, res.Lost(), res.Duplicated)
	if res.Lost() > 0 || res.Duplicated > 0 {
		return errors.New("packets were lost during the rekey")
	}
	return nil
}

func (d *show) down(context.Context) error {
	for _, g := range []*gatewayProc{d.left, d.rght} {
		if err := g.proc.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		select {
		case <-g.proc.Done():
		case <-time.After(10 * time.Second):
			return errors.New("a gateway did not end within 10 seconds")
		}
	}
	return nil
}

// flip changes one bit between the gateways, on a second set of namespaces with a forwarder between.
func (d *show) flip(ctx context.Context) error {
	d.s.title("A bit flipped on the wire")
	quiet := *d.s
	quiet.out = io.Discard
	was := d.s
	d.s = &quiet
	err := d.gateways(ctx)
	d.s = was
	if err != nil {
		return err
	}
	if err := d.l.WaitPing(d.from, d.toAddr, 5*time.Second); err != nil {
		return err
	}
	if err := d.l.FlipBits(1); err != nil {
		return err
	}
	res, err := d.l.Ping(d.from, d.toAddr, lab.PingOptions{Count: 3, Timeout: 500 * time.Millisecond})
	if err != nil {
		return err
	}
	var dropped int
	for _, g := range []*gatewayProc{d.left, d.rght} {
		n, err := g.drops(ctx, "in-auth-failed")
		if err != nil {
			return err
		}
		dropped += n
	}
	d.s.say("%d of %d pings came back; the gateway counts %d packet with a wrong integrity check value: dropped", res.Received, res.Sent, dropped)
	if dropped != 1 || res.Lost() != 1 {
		return errors.New("the flipped bit was not noticed as it should be")
	}
	fmt.Fprintln(d.s.out, "\nAll namespaces, processes and files of the demonstration are removed.")
	return d.down(ctx)
}
