package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"adit/client"
	"adit/internal/logging"
	"adit/internal/proxy"
)

// Exit codes of `adit connect`, beside 1 for everything else.
const (
	exitRefused     = 3
	exitUnreachable = 4
	exitUntrusted   = 5
)

// connectFlags are what was asked for.
type connectFlags struct {
	client.HostOptions
	ca, cert, key, pkcs12, passwordFile, level string
	subnets, dns                               []string
	socks, http                                string
	forwards                                   []string
	undo                                       bool
}

func connectCommand() *cobra.Command {
	var c connectFlags
	cmd := &cobra.Command{
		Use:   "connect USER@GATEWAY | GATEWAY | FILE",
		Short: "Connect this machine, or programs on it, to a gateway",
		Long: `Connect to a gateway as its user, until Ctrl-C. As root the whole machine is
connected: a device, routes, name servers, and a kill switch that holds back what the
tunnel protects while it is lost. All of it is undone at the end; after a crash the next
connect does it, or --undo.

With --socks, --http-proxy or -L it needs no root and changes nothing: the tunnel ends
inside this process, and programs reach it by proxy or by forwarded ports.

The password is asked for, or read from --password-file or $ADIT_PASSWORD. FILE is a
swanctl.conf with one connection, or the directory of one, as "adit profile --for adit"
writes it.

Exit codes: 0 ended by Ctrl-C or SIGTERM, 3 the gateway did not accept the user, 4 it
does not answer, 5 it could not prove that it is the gateway, 1 anything else.`,
		Example: `  adit connect alice@vpn.example.org --ca company-ca.pem
  adit connect alice@vpn.example.org --socks 127.0.0.1:1080 -L 8080:intranet:80
  adit connect vpn.example.org --pkcs12 alice.p12 --subnet 10.0.0.0/8
  adit connect work.conf
  adit connect alice-adit`,
		Args: func(cmd *cobra.Command, args []string) error {
			if c.undo {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.ExactArgs(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if c.undo {
				return client.Undo()
			}
			return c.connect(cmd.Context(), args[0])
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.GatewayID, "id", "", "identity of the gateway's certificate (default: its host name)")
	f.StringVar((*string)(&c.Method), "method", "", "eap-mschapv2, eap-tls or pubkey (default: by name and password, or pubkey with a certificate alone)")
	f.StringVar(&c.ca, "ca", "", "file of the CA certificates that the gateway's must come from (default: the system's)")
	f.StringVar(&c.cert, "cert", "", "file of the user's certificate, and of those between it and its CA")
	f.StringVar(&c.key, "key", "", "file of the user's private key")
	f.StringVar(&c.pkcs12, "pkcs12", "", "PKCS#12 file with the user's key and certificate")
	f.StringVar(&c.passwordFile, "password-file", "", "file whose first line is the password")
	f.StringArrayVar(&c.subnets, "subnet", nil, "send only this network through the tunnel; may be repeated (default: all that the gateway lets in)")
	f.StringArrayVar(&c.dns, "dns", nil, "name server inside, instead of those that the gateway tells; may be repeated")
	f.BoolVar(&c.NoDNS, "no-dns", false, "leave the machine's resolver alone")
	f.StringVar(&c.ResolvConf, "resolv-conf", "", "file for name servers where there is no systemd-resolved (default: /etc/resolv.conf)")
	f.BoolVar(&c.NoKillSwitch, "no-kill-switch", false, "let traffic out in the clear while the tunnel is lost")
	f.BoolVar(&c.AllowLAN, "allow-lan", false, "keep private local networks reachable beside a tunnel for everything")
	f.BoolVar(&c.undo, "undo", false, "take away what a connect that crashed has left, its kill switch too")
	f.StringVar(&c.socks, "socks", "", "without root: serve SOCKS5 at HOST:PORT")
	f.StringVar(&c.http, "http-proxy", "", "without root: serve an HTTP proxy at HOST:PORT")
	f.StringArrayVarP(&c.forwards, "forward", "L", nil, "without root: forward [BIND:]PORT:HOST:HOSTPORT; may be repeated")
	f.DurationVar(&c.Timeout, "timeout", 0, "time for the first connection (default 30s)")
	f.StringVar(&c.level, "log-level", "", "tell the log, too: debug, info, warn or error")
	for _, name := range []string{"ca", "cert", "key", "pkcs12", "password-file", "resolv-conf"} {
		_ = cmd.MarkFlagFilename(name)
	}
	return cmd
}

// connect runs until the end.
func (c *connectFlags) connect(ctx context.Context, to string) error {
	if err := noCoreDumps(); err != nil {
		return err
	}
	if err := c.prepare(to); err != nil {
		return err
	}
	proxies := c.socks != "" || c.http != "" || len(c.forwards) > 0
	if c.level != "" {
		log, err := newLog(c.level, "")
		if err != nil {
			return err
		}
		defer log.Close()
		c.Log = slog.New(log)
	}
	say := newTeller(os.Stdout, to)
	c.Progress = say.progress
	var err error
	switch {
	case proxies:
		err = c.inProcess(ctx, say)
	case os.Geteuid() != 0:
		return errors.New("only root can connect the whole machine; as another user add --socks 127.0.0.1:1080, --http-proxy or -L")
	default:
		c.Names = say.names
		err = client.RunHost(ctx, c.HostOptions)
	}
	if err == nil || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		say.line("disconnected")
		return nil
	}
	var e *client.Error
	if errors.As(err, &e) {
		fmt.Fprintln(os.Stderr, "adit:", err)
		if e.Err != nil && c.level != "" {
			fmt.Fprintln(os.Stderr, "adit:", e.Err)
		}
		return exitCode(map[client.Kind]int{client.Failed: 1, client.Refused: exitRefused, client.Unreachable: exitUnreachable, client.Untrusted: exitUntrusted}[e.Kind])
	}
	return err
}

// prepare makes options of the flags.
func (c *connectFlags) prepare(to string) error {
	if fi, err := os.Stat(to); err == nil && fi.Mode().IsRegular() {
		c.Profile = to
	} else if fi, err := os.Stat(filepath.Join(to, "swanctl.conf")); err == nil && fi.Mode().IsRegular() {
		c.Profile = filepath.Join(to, "swanctl.conf") // a directory of adit profile
	} else if i := strings.LastIndexByte(to, '@'); i >= 0 {
		c.User, c.Gateway = to[:i], to[i+1:]
	} else {
		c.Gateway = to
	}
	for _, s := range c.subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return fmt.Errorf("--subnet %s: %w", s, err)
		}
		c.Subnets = append(c.Subnets, p.Masked())
	}
	for _, s := range c.dns {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("--dns %s: %w", s, err)
		}
		c.DNS = append(c.DNS, a)
	}
	if err := c.credentials(); err != nil {
		return err
	}
	c.Password = func(ctx context.Context) ([]byte, error) {
		if c.passwordFile != "" {
			return passwordFrom(c.passwordFile)
		}
		if p, ok := os.LookupEnv("ADIT_PASSWORD"); ok {
			os.Unsetenv("ADIT_PASSWORD")
			return []byte(p), nil
		}
		return askSecret(ctx, fmt.Sprintf("Password for %s: ", to))
	}
	return nil
}

func (c *connectFlags) credentials() (err error) {
	phrase := func(file string) func() string {
		return func() string {
			b, _ := askSecret(context.Background(), fmt.Sprintf("Passphrase of %s: ", file))
			return string(b)
		}
	}
	if c.ca != "" {
		if c.CAs, err = client.LoadCertificates(c.ca); err != nil {
			return err
		}
	}
	switch {
	case c.pkcs12 != "":
		return c.LoadPKCS12(c.pkcs12, phrase(c.pkcs12))
	case (c.cert == "") != (c.key == ""):
		return errors.New("--cert and --key belong together")
	case c.cert != "":
		if c.Certificates, err = client.LoadCertificates(c.cert); err != nil {
			return err
		}
		return c.LoadKey(c.key, phrase(c.key))
	}
	return nil
}

// passwordFrom is the first line of a file that others cannot read.
func passwordFrom(file string) ([]byte, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if fi.Mode().IsRegular() && fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: others may read this password (mode %v): chmod 600 it", file, fi.Mode().Perm())
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return firstLine(f)
}

func firstLine(r io.Reader) ([]byte, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 4096)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return []byte(strings.TrimRight(string(line), "\r\n")), nil
}

// askSecret asks at the terminal, without echo; where there is none it reads a line.
func askSecret(ctx context.Context, prompt string) ([]byte, error) {
	fd := int(os.Stdin.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return firstLine(os.Stdin)
	}
	quiet := *old
	quiet.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &quiet); err != nil {
		return nil, err
	}
	defer func() {
		_ = unix.IoctlSetTermios(fd, unix.TCSETS, old)
		fmt.Fprintln(os.Stderr)
	}()
	fmt.Fprint(os.Stderr, prompt)
	type answer struct {
		line []byte
		err  error
	}
	read := make(chan answer, 1)
	go func() {
		line, err := firstLine(os.Stdin)
		read <- answer{line, err}
	}()
	select {
	case a := <-read:
		return a.line, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// inProcess keeps a tunnel inside the process and serves it to others.
func (c *connectFlags) inProcess(ctx context.Context, say *teller) error {
	type door struct {
		at, what string
		serve    func(context.Context, net.Listener, proxy.Dialer, *slog.Logger) error
		ln       net.Listener
	}
	var doors []*door
	if c.socks != "" {
		doors = append(doors, &door{at: c.socks, what: "SOCKS5 at %s", serve: func(ctx context.Context, ln net.Listener, d proxy.Dialer, log *slog.Logger) error {
			return proxy.SOCKS(d, log).Serve(ctx, ln)
		}})
	}
	if c.http != "" {
		doors = append(doors, &door{at: c.http, what: "HTTP proxy at %s", serve: proxy.ServeHTTP})
	}
	for _, f := range c.forwards {
		at, to, err := proxy.ParseForward(f)
		if err != nil {
			return err
		}
		doors = append(doors, &door{at: at, what: "%s leads to " + strings.ReplaceAll(to, "%", ""), serve: func(ctx context.Context, ln net.Listener, d proxy.Dialer, log *slog.Logger) error {
			return proxy.Forward(d, to, log).Serve(ctx, ln)
		}})
	}
	for _, d := range doors { // before anything is sent: a port that is taken is told at once
		ln, err := net.Listen("tcp", d.at)
		if err != nil {
			return err
		}
		defer ln.Close()
		d.ln = ln
	}
	t, err := client.Connect(ctx, c.Options)
	if err != nil {
		return err
	}
	defer t.Close()
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if c.Log != nil {
		log = c.Log
	}
	failed := make(chan error, len(doors))
	for _, d := range doors {
		say.line("  " + fmt.Sprintf(d.what, d.ln.Addr()))
		if a, err := netip.ParseAddrPort(d.ln.Addr().String()); err == nil && !a.Addr().IsLoopback() {
			say.line("  careful: whoever reaches " + d.ln.Addr().String() + " is inside, without a password")
		}
		all.Go(func() { failed <- d.serve(ctx, d.ln, t, log) })
	}
	select {
	case <-ctx.Done():
		return nil
	case <-t.Done():
		return t.Err()
	case err := <-failed:
		return err
	}
}

// teller tells people what happens, one line each.
type teller struct {
	mu   sync.Mutex
	out  io.Writer
	to   string
	last client.Progress
}

func newTeller(out io.Writer, to string) *teller { return &teller{out: out, to: to} }

func (t *teller) line(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintln(t.out, logging.Printable(text))
}

func (t *teller) names(by string, err error) {
	switch {
	case err != nil:
		t.line("  name servers were not set: " + err.Error())
	case by != "":
		t.line("  names are asked inside, by " + by)
	}
}

func (t *teller) progress(p client.Progress) {
	t.mu.Lock()
	old := t.last
	t.last = p
	t.mu.Unlock()
	switch {
	case p.State == client.Connecting:
		t.line("connecting to " + t.to + " …")
	case p.State == client.Lost && old.State != client.Lost:
		t.line("the connection is lost (" + p.Why + "), trying again …")
	case p.State == client.Up && old.State == client.Up && slices.Equal(old.Addrs, p.Addrs):
		if old.Gateway != p.Gateway {
			t.line(fmt.Sprintf("moved: the gateway is %v now", p.Gateway))
		}
	case p.State == client.Up:
		t.up(p)
	}
}

func (t *teller) up(p client.Progress) {
	text := fmt.Sprintf("connected to %s, with %s", t.to, joined(p.Addrs))
	if p.Device != "" {
		text += " on " + p.Device
	}
	t.line(text)
	if p.Full() {
		t.line("  everything goes through the tunnel (" + joined(p.Routes) + ")")
	} else {
		t.line("  through the tunnel: " + joined(p.Routes))
	}
	if len(p.DNS) > 0 {
		text := "  name servers: " + joined(p.DNS)
		if len(p.Domains) > 0 {
			text += " for " + strings.Join(p.Domains, ", ")
		}
		t.line(text)
	}
}

func joined[T fmt.Stringer](list []T) string {
	var s []string
	for _, x := range list {
		s = append(s, x.String())
	}
	return strings.Join(s, " ")
}
