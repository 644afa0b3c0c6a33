package interop_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"

	"github.com/strongswan/govici/vici"
)

// saying is what one call of swanctl answered, or a stream within one step.
type saying struct {
	Step string
	Args []string
	Code int
	Text string
}

func (s saying) String() string {
	return fmt.Sprintf("%s: swanctl %s", s.Step, strings.Join(s.Args, " "))
}

// pretty tells that the text is a tree.
func (s saying) pretty() bool { return slices.Contains(s.Args, "--pretty") }

// console is one run of the script: the left daemon is asked, the right one is always
// strongSwan.
type console struct {
	*path
	step    string
	said    []saying
	streams []*lab.Proc     // --monitor-sa and --log, looked at in the end
	seen    chan vici.Event // looked at step by step
}

// ask calls swanctl for one answer and remembers it.
func (c *console) ask(args ...string) saying {
	c.t.Helper()
	out, err := c.left.Swanctl(args...)
	s := saying{c.step, args, 0, out}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		s.Code = exit.ExitCode()
	case err != nil:
		c.t.Fatalf("%v: %v", s, err)
	}
	c.said = append(c.said, s)
	return s
}

// look asks in all three forms for what changes nothing.
func (c *console) look(args ...string) {
	c.t.Helper()
	c.ask(args...)
	c.ask(append(slices.Clone(args), "--raw")...)
	c.ask(append(slices.Clone(args), "--pretty")...)
}

// watched are the events of SAs. (swanctl --monitor-sa of 5.9 does not ask for rekeys.)
var watched = []string{"ike-updown", "ike-rekey", "ike-update", "child-updown", "child-rekey"}

// watch registers for the events of SAs.
func (c *console) watch() {
	c.t.Helper()
	s, err := vici.NewSession(vici.WithSocketPath(filepath.Join(c.left.Dir(), "vici")))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { s.Close() })
	c.seen = make(chan vici.Event, 1000)
	s.NotifyEvents(c.seen)
	if err := s.Subscribe(watched...); err != nil {
		c.t.Fatal(err)
	}
}

// events waits until so many events have come in this step, and remembers them and what
// came before them. Those that one of the daemons alone has are not counted: a change of
// ports during the set-up, the end of an attempt.
func (c *console) events(n int) {
	c.t.Helper()
	var text strings.Builder
	for late := time.After(3 * time.Second); n > 0; {
		select {
		case e := <-c.seen:
			body := e.Message.String()
			fmt.Fprintf(&text, "%s event %s\n", e.Name, body)
			if e.Name != "ike-update" && !strings.Contains(body, " = CONNECTING") {
				n--
			}
		case <-late: // too few show in the comparison
			n = 0
		}
	}
	c.said = append(c.said, saying{c.step, []string{"events", "--pretty"}, 0, text.String()})
}

// settle waits until both ends have so many IKE SAs and installed children.
func (c *console) settle(ikes, children int) {
	c.t.Helper()
	for _, g := range []peer.Gateway{c.left, c.right} {
		c.wait(fmt.Sprintf("%d IKE SAs with %d children at %s, step %s", ikes, children, g.Name(), c.step), g, func(s []peer.SA) bool {
			up, in, all := 0, 0, 0
			for _, sa := range s {
				if sa.State == "ESTABLISHED" {
					up++
				}
				for _, ch := range sa.Children {
					all++
					if ch.State == "INSTALLED" {
						in++
					}
				}
			}
			return len(s) == ikes && up == ikes && in == children && all == children
		})
	}
}

// write puts the left daemon's configuration down without loading it.
func (c *console) write(conf string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.left.Dir(), "swanctl/swanctl.conf"), []byte(conf), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// script asks everything that swanctl can ask, before, while and after tunnels are up.
func (c *console) script(f fixture) {
	t := c.t
	c.watch()
	for _, args := range streams {
		p, err := c.left.Stream(args...)
		if err != nil {
			t.Fatal(err)
		}
		c.streams = append(c.streams, p)
	}
	c.store(c.left, f.of(f.left))
	c.store(c.right, f.of(f.right))
	if err := c.right.Load(c.rightConf()); err != nil {
		t.Fatal(err)
	}
	for _, s := range []func(){c.empty, c.loads, c.listings, c.brings, c.pairs, c.fails, c.clients, c.policies, c.counters, c.mistakes, c.stop} {
		s()
	}
}

func (c *console) empty() {
	c.step = "empty"
	c.ask("--version")
	c.look("--version", "--daemon")
	c.look("--stats")
	c.look("--list-algs")
	for _, l := range []string{"--list-sas", "--list-conns", "--list-certs", "--list-authorities", "--list-pools", "--list-pols", "--counters"} {
		c.look(l)
	}
	c.look("--reload-settings")
	c.look("--flush-certs")
}

func (c *console) loads() {
	c.step = "load"
	c.write(c.leftConf(""))
	c.look("--load-creds", "--noprompt")
	c.look("--load-authorities")
	c.look("--load-pools")
	c.look("--load-conns")
	c.look("--load-all", "--noprompt")
	c.look("--load-all", "--clear", "--noprompt")
}

func (c *console) listings() {
	c.step = "list"
	c.look("--list-conns")
	c.look("--list-certs")
	c.look("--list-certs", "--type", "x509", "--flag", "ca")
	c.look("--list-certs", "--type", "x509_crl")
	c.look("--list-certs", "--subject", "CN=left")
	c.ask("--list-certs", "--short", "--utc", "--pem")
	c.look("--list-authorities")
	c.look("--list-authorities", "--name", "sub")
	c.look("--list-authorities", "--name", "none")
	c.look("--list-pools")
	c.look("--list-pools", "--leases")
	c.look("--list-pools", "--name", "v6")
	c.look("--list-pools", "--name", "none")
	c.look("--flush-certs", "--type", "x509_crl")
}

// brings sets up and rekeys by shared key from this end, and looks.
func (c *console) brings() {
	c.step = "initiate"
	c.ask("--initiate", "--child", "net", "--timeout", "10")
	c.settle(1, 1)
	c.events(2)
	c.ask("--initiate", "--child", "six", "--ike", "gw", "--pretty", "--loglevel", "-1")
	c.settle(1, 2)
	c.events(1)
	c.step = "up"
	c.look("--list-sas")
	c.look("--list-sas", "--ike", "gw")
	c.look("--list-sas", "--ike", "none")
	c.look("--list-sas", "--child", "six")
	c.look("--list-sas", "--child", "none")
	c.look("--list-sas", "--ike-id", "999")
	c.look("--list-sas", "--noblock")
	c.look("--list-pols")
	c.look("--list-pols", "--trap")
	c.look("--stats")
	c.step = "rekey"
	old := c.sas(c.left)
	c.ask("--rekey", "--child", "net")
	c.rekeyed(old)
	c.events(1)
	old = c.sas(c.left)
	c.ask("--rekey", "--child", "six", "--pretty")
	c.rekeyed(old)
	c.events(1)
	old = c.sas(c.left)
	c.ask("--rekey", "--ike", "gw", "--raw")
	c.rekeyed(old)
	c.events(1)
	c.look("--rekey", "--child", "none")
	c.look("--rekey", "--ike", "none")
	c.look("--rekey", "--child-id", "999")
	c.ask("--rekey")
	c.step = "rekey by the peer"
	old = c.sas(c.left)
	if err := c.right.RekeyChild("gw"); err != nil {
		c.t.Fatal(err)
	}
	c.rekeyed(old)
	c.events(1)
	old = c.sas(c.left)
	if err := c.right.RekeyIKE("gw"); err != nil {
		c.t.Fatal(err)
	}
	c.rekeyed(old)
	c.events(1)
	c.look("--list-sas")
	c.step = "reauthentication"
	old = c.sas(c.left)
	c.ask("--rekey", "--ike", "gw", "--reauth", "--pretty")
	c.rekeyed(old)
	c.events(6)
	c.step = "terminate"
	c.look("--terminate", "--child", "none")
	c.look("--terminate", "--ike", "none")
	c.look("--terminate", "--child-id", "999")
	c.look("--terminate", "--ike-id", "999")
	c.ask("--terminate")
	c.ask("--terminate", "--child", "six", "--pretty", "--loglevel", "-1")
	c.settle(1, 1)
	c.events(1)
	c.ask("--terminate", "--ike", "gw", "--timeout", "5")
	c.settle(0, 0)
	c.events(2)
}

// rekeyed waits until both ends have as many SAs as before, and one of them anew.
func (c *console) rekeyed(old []peer.SA) {
	c.t.Helper()
	spis := func(s []peer.SA) (list []string) {
		for _, sa := range s {
			list = append(list, sa.InitiatorSPI)
			for _, ch := range sa.Children {
				list = append(list, ch.SPIIn)
			}
		}
		slices.Sort(list)
		return list
	}
	was := spis(old)
	n := 0
	for _, sa := range old {
		for _, ch := range sa.Children {
			if ch.State == "INSTALLED" {
				n++
			}
		}
	}
	c.wait("the rekey", c.left, func(s []peer.SA) bool { return !slices.Equal(spis(s), was) })
	c.settle(len(old), n)
}

// pairs are the same by the peer's doing, with certificates.
func (c *console) pairs() {
	c.step = "by the peer"
	if err := c.right.Initiate("cert"); err != nil {
		c.t.Fatal(err)
	}
	c.settle(1, 1)
	c.events(2)
	c.look("--list-sas")
	c.look("--list-certs", "--subject", "CN=right")
	if err := c.right.TerminateChild("cert"); err != nil {
		c.t.Fatal(err)
	}
	c.settle(1, 0)
	c.events(1)
	c.look("--list-sas")
	if err := c.right.Terminate("cert"); err != nil {
		c.t.Fatal(err)
	}
	c.settle(0, 0)
	c.events(1)
	c.step = "certificate"
	c.ask("--initiate", "--child", "cert", "--pretty", "--loglevel", "-1")
	c.settle(1, 1)
	c.events(2)
	c.look("--list-sas")
	c.ask("--terminate", "--ike", "cert", "--pretty", "--loglevel", "-1")
	c.settle(0, 0)
	c.events(2)
}

// fails are initiations that cannot succeed.
func (c *console) fails() {
	c.step = "failing"
	for _, form := range []string{"", "--raw", "--pretty"} {
		for _, args := range [][]string{{"--child", "none"}, {"--ike", "none"}, {"--child", "none", "--ike", "gw"}, {"--child", "nobody"}, {"--child", "oldgroup"}, {}} {
			args = append([]string{"--initiate", "--loglevel", "-1"}, args...)
			if form != "" {
				args = append(args, form)
			}
			c.ask(args...)
		}
	}
	c.ask("--initiate", "--child", "silent", "--timeout", "1", "--loglevel", "-1", "--pretty")
	c.look("--list-sas")
	c.ask("--terminate", "--ike", "silent", "--force", "--loglevel", "-1", "--pretty")
	c.ask("--initiate", "--ike", "gw", "--loglevel", "-1", "--pretty")
	c.ask("--initiate", "--child", "elsewhere", "--loglevel", "-1", "--pretty")
	c.settle(1, 0)
	c.look("--list-sas")
	c.ask("--terminate", "--ike", "gw", "--loglevel", "-1", "--raw")
	c.settle(0, 0)
	c.events(2)
}

// clients come with a virtual address.
func (c *console) clients() {
	c.step = "client"
	if err := c.right.Initiate("rw"); err != nil {
		c.t.Fatal(err)
	}
	c.settle(1, 1)
	c.events(2)
	c.look("--list-sas")
	c.look("--list-pools")
	c.look("--list-pools", "--leases")
	c.step = "redirect"
	c.look("--redirect", "--ike", "none", "--gateway", "192.0.2.99")
	c.look("--redirect", "--ike-id", "999", "--gateway", "192.0.2.99")
	c.look("--redirect", "--peer-ip", "10.99.0.0/24", "--gateway", "192.0.2.99")
	c.look("--redirect", "--peer-id", "nobody@example.org", "--gateway", "192.0.2.99")
	c.look("--redirect", "--ike", "rw")
	c.look("--redirect", "--gateway", "192.0.2.99")
	c.ask("--redirect", "--ike", "rw", "--gateway", "192.0.2.99", "--pretty")
	c.wait("the client's answer to the redirect", c.left, func(s []peer.SA) bool {
		return len(s) == 1 && !strings.Contains(s[0].Fields["tasks-active"], "REDIRECT")
	})
	c.look("--list-sas") // the client stays until the other gateway, where nobody is, has answered
	c.step = "client leaves"
	if err := c.right.Terminate("rw"); err != nil {
		c.t.Fatal(err)
	}
	c.settle(0, 0)
	c.events(2)
	c.look("--list-pools", "--leases")
}

func (c *console) policies() {
	c.step = "policies"
	c.look("--list-pols")
	c.look("--list-pols", "--trap")
	c.look("--list-pols", "--pass")
	c.look("--list-pols", "--drop")
	c.look("--list-pols", "--child", "open")
	c.look("--list-pols", "--child", "none")
	c.ask("--install", "--child", "shut")
	c.ask("--install", "--child", "net", "--ike", "gw", "--pretty")
	c.ask("--install", "--child", "net", "--raw")
	c.look("--install", "--child", "none")
	c.look("--install", "--child", "net", "--ike", "none")
	c.ask("--install")
	c.look("--list-pols")
	c.ask("--uninstall", "--child", "shut", "--pretty")
	c.ask("--uninstall", "--child", "open", "--ike", "shunts")
	c.ask("--uninstall", "--child", "net", "--raw")
	c.look("--uninstall", "--child", "net")
	c.look("--uninstall", "--child", "none")
	c.ask("--uninstall")
	c.look("--list-pols")
}

func (c *console) counters() {
	c.step = "counters"
	c.look("--counters")
	c.look("--counters", "--all")
	c.look("--counters", "--name", "gw")
	c.look("--counters", "--name", "none")
	c.look("--counters", "--reset", "--name", "none")
	c.ask("--counters", "--reset", "--name", "gw", "--pretty")
	c.look("--counters", "--name", "gw")
	c.ask("--counters", "--reset", "--all")
	c.look("--counters", "--all")
	c.ask("--counters", "--reset", "--raw")
	c.look("--counters")
}

// mistakes are configurations with one wrong value.
func (c *console) mistakes() {
	for _, m := range []string{"proposals = nonsense", "rekey_time = soon", "unheard_of = 1", "dpd_timeout = x"} {
		c.step = "mistake " + strings.Fields(m)[0]
		c.write(c.leftConf(m))
		c.ask("--load-conns")
		c.ask("--load-conns", "--raw")
		c.ask("--load-all", "--noprompt", "--pretty")
		c.ask("--list-conns", "--pretty")
	}
	c.step = "mistake in the grammar"
	c.write("connections {\n")
	c.ask("--load-conns")
	c.ask("--load-all", "--noprompt")
	c.step = "nothing"
	c.write("connections {\n}\n")
	c.look("--load-pools")
	c.look("--load-all", "--noprompt", "--clear")
	c.look("--list-conns")
	c.look("--list-pools")
	c.look("--list-authorities")
	c.look("--list-certs")
}

// streams are the forms that are looked at in the end.
var streams = [][]string{{"--monitor-sa"}, {"--monitor-sa", "--raw"}, {"--monitor-sa", "--pretty"}, {"--log"}, {"--log", "--raw"}, {"--log", "--pretty"}}

// stop ends the streams and takes what they said.
func (c *console) stop() {
	c.step = "end"
	c.look("--list-sas")
	for _, p := range c.streams {
		_ = p.Stop(5 * time.Second) // swanctl ends by the signal
	}
	for i, args := range streams {
		c.said = append(c.said, saying{c.step, args, 0, c.streams[i].Log()})
	}
}
