package interop_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
	"adit/pki/pkitest"
)

// explanation is what `adit explain NAME --json` prints.
type explanation struct {
	Name, State, Verdict string
	Facts                []string
	Changes              []struct{ Text, Option, At string }
	Records              []struct {
		Count  int
		Record map[string]any
	}
}

// explain asks adit, and checks the exit code and the width of the text.
func (p *path) explain(t *testing.T, name string) explanation {
	t.Helper()
	g := p.left.(*peer.AditGateway)
	out, err := g.Command("explain", name, "--json", "--vici", g.URI())
	var list []explanation
	if e := json.Unmarshal([]byte(out), &list); e != nil || len(list) != 1 {
		t.Fatalf("explain %s: %v, %v: %s", name, err, e, out)
	}
	x := list[0]
	want := map[string]string{"up": "", "unknown": "exit status 2"}
	if code, ok := want[x.State]; (ok && code == "") != (err == nil) || code != "" && !strings.Contains(err.Error(), code) {
		t.Errorf("explain %s: state %s, %v", name, x.State, err)
	}
	text, _ := g.Command("explain", name, "--vici", g.URI())
	t.Logf("adit explain %s\n%s", name, text)
	for line := range strings.Lines(text) {
		if len([]rune(strings.TrimSuffix(line, "\n"))) > 80 && strings.Contains(strings.TrimSpace(line), " ") && !strings.Contains(line, "/") {
			t.Errorf("a line is wider than 80 characters: %q", line)
		}
	}
	return x
}

// mistake is one line of the left's configuration that is wrong.
type mistake struct {
	name      string
	good, bad string // of the line
	option    string // whose line it is
	refused   string // part of what explain says when the peer refuses, or is silent
	refuses   string // when we do; empty: there is nothing for us to refuse
	first     bool   // the right line is the first advice when the peer refuses
}

// Each wrong line is named by its number, when the peer refuses us and when we refuse
// the peer, and changing that line alone brings the tunnel up.
func TestExplain(t *testing.T) {
	t.Parallel()
	among(t, []pair{{adit, strongSwan}}, settings{middle: lab.Bridge, charon: impatient, file: true}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		good := left.text(leftID, rightID)
		if err := p.right.Load(right.text(rightID, leftID)); err != nil {
			t.Fatal(err)
		}
		nobody := left.remote[:strings.LastIndexByte(left.remote, '.')] + ".77"
		for _, m := range []mistake{
			{name: "proposal", good: "proposals = aes256gcm16-prfsha384-x25519", bad: "proposals = aes128-sha256-prfsha256-modp2048",
				option: "connections.gw.proposals", refused: "takes none of our IKE proposals", refuses: "have no suite in common", first: true},
			{name: "esp proposal", good: "esp_proposals = aes256gcm16", bad: "esp_proposals = aes128-sha256",
				option: "connections.gw.children.net.esp_proposals", refused: "takes none of our ESP proposals", refuses: "ESP proposals of child net have no suite", first: true},
			{name: "key", good: `secret = "a key that both ends share"`, bad: `secret = "a key that the ends do not share"`,
				option: "secrets.ike-1.secret", refused: "does not believe who we are", refuses: "the pre-shared keys of the two sides differ", first: true},
			{name: "peer's id", good: "auth = psk\n\t\t\tid = " + rightID, bad: "auth = psk\n\t\t\tid = somebody.example.org",
				option: "connections.gw.remote.id", refused: "does not believe who we are", refuses: "was turned away"},
			{name: "our id", good: "auth = psk\n\t\t\tid = " + leftID, bad: "auth = psk\n\t\t\tid = somebody.example.org",
				option: "connections.gw.local.id", refused: "does not believe who we are", refuses: "was turned away"},
			{name: "selectors", good: "remote_ts = " + left.remoteTS, bad: "remote_ts = 192.168.99.0/24",
				option: "connections.gw.children.net.remote_ts", refused: "does not take our traffic selectors", refuses: "share nothing"},
			{name: "address", good: "remote_addrs = " + left.remote, bad: "remote_addrs = " + nobody,
				option: "connections.gw.remote_addrs", refused: "no answer", refuses: "A peer at " + left.remote + " was refused", first: true},
		} {
			t.Run(m.name, func(t *testing.T) { p.mistaken(t, good, m) })
		}
		t.Run("untrusted certificate", func(t *testing.T) { p.untrusted(t, left, right) })
		if err := p.right.Load(right.text(rightID, leftID)); err != nil {
			t.Fatal(err)
		}
		t.Run("dead peer", func(t *testing.T) {
			p.dead(t, strings.Replace(good, "version = 2", "version = 2\n\t\tdpd_delay = 1s", 1))
		})
		t.Run("blocked 4500", func(t *testing.T) { p.blocked(t, good) })
		t.Run("names", func(t *testing.T) {
			if x := p.explain(t, "nett"); x.State != "unknown" || len(x.Changes) == 0 || !strings.Contains(x.Changes[0].Text, `"net"`) {
				t.Errorf("a name that is not loaded: %+v", x)
			}
		})
	})
}

// reread puts a text into the left's file and has it read.
func (p *path) reread(t *testing.T, text string) {
	t.Helper()
	g := p.left.(*peer.AditGateway)
	before := strings.Count(g.Log(), "configuration loaded")
	if err := g.Rewrite(text); err != nil {
		t.Fatal(err)
	}
	if err := g.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := lab.Poll(5*time.Second, func() (bool, error) {
		return strings.Count(g.Log(), "configuration loaded") > before, nil
	}); err != nil {
		t.Fatal("the configuration was not read again: ", err)
	}
}

func (p *path) mistaken(t *testing.T, good string, m mistake) {
	if strings.Count(good, m.good) < 1 {
		t.Fatalf("no %q in\n%s", m.good, good)
	}
	bad := strings.Replace(good, m.good, m.bad, 1)
	wrong := 0
	was := strings.Split(good, "\n")
	for i, line := range strings.Split(bad, "\n") {
		if line != was[i] {
			wrong = i + 1
		}
	}
	for _, by := range []string{"refused", "refuses"} {
		words := map[string]string{"refused": m.refused, "refuses": m.refuses}[by]
		if words == "" {
			continue
		}
		t.Run(by, func(t *testing.T) {
			p.reread(t, bad)
			from := p.left
			if by == "refuses" {
				from = p.right
			}
			if err := from.Initiate("net"); err == nil {
				t.Fatal("the tunnel came up with a wrong line")
			}
			x := p.explain(t, "gw")
			all := x.Verdict + "\n" + strings.Join(x.Facts, "\n")
			if x.State == "up" || !strings.Contains(all, words) {
				t.Errorf("it does not say %q: %+v", words, x)
			}
			file, at := "", 0
			for i, c := range x.Changes {
				if c.Option == m.option && (i == 0 || !m.first) {
					name, line, _ := strings.Cut(c.At, ".conf:")
					file = name + ".conf"
					at, _ = strconv.Atoi(line)
				}
			}
			if at != wrong {
				t.Fatalf("line %d is wrong (%s), it names line %d: %+v", wrong, m.option, at, x.Changes)
			}
			// That line, and no other one, in the file that it names.
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(string(text), "\n")
			lines[at-1] = was[at-1]
			p.reread(t, strings.Join(lines, "\n"))
			_ = p.left.Terminate("gw") // an IKE SA without its child keeps what it was made with
			p.wait("an empty peer", p.right, func(s []peer.SA) bool { return len(s) == 0 })
			p.comesUp(t, from)
		})
	}
}

// comesUp brings the tunnel up, sees that explain says so, and takes it down.
func (p *path) comesUp(t *testing.T, from peer.Gateway) {
	t.Helper()
	if err := from.Initiate("net"); err != nil {
		t.Fatalf("the advice was followed, and: %v", err)
	}
	if x := p.explain(t, "gw"); x.State != "up" || x.Records == nil && from == p.left {
		t.Errorf("it is up, and explain says %+v", x)
	}
	if err := p.left.Terminate("gw"); err != nil {
		t.Fatal(err)
	}
	p.wait("the end at the peer", p.right, func(s []peer.SA) bool { return len(peer.Established(s, "gw")) == 0 })
}

// untrusted names an authority that did not sign the peer's certificate.
func (p *path) untrusted(t *testing.T, left, right conn) {
	ca, other := pkitest.NewCA(t, pkitest.Spec{Name: "CA one"}), pkitest.NewCA(t, pkitest.Spec{Name: "CA two"})
	certified := func(text, id, peerID, more string) string {
		text = strings.Replace(text, "auth = psk\n\t\t\tid = "+id, "auth = pubkey\n\t\t\tcerts = mine.pem\n\t\t\tid = "+id, 1)
		return strings.Replace(text, "auth = psk\n\t\t\tid = "+peerID, "auth = pubkey\n\t\t\t"+more+"\n\t\t\tid = "+peerID, 1)
	}
	p.store(p.left, owned("mine", leaf(ca, leftID, pkitest.Spec{})).and(trusted(ca, other)))
	p.store(p.right, owned("mine", leaf(ca, rightID, pkitest.Spec{})).and(trusted(ca)))
	if err := p.right.Load(certified(right.text(rightID, leftID), rightID, leftID, "")); err != nil {
		t.Fatal(err)
	}
	p.mistaken(t, certified(left.text(leftID, rightID), leftID, rightID, "cacerts = ca0.pem"), mistake{
		good: "cacerts = ca0.pem", bad: "cacerts = ca1.pem", option: "connections.gw.remote.cacerts",
		refused: "no chain from the peer's certificate", refuses: "no chain from the peer's certificate", first: true})
}

// dead stops the peer while the tunnel is up.
func (p *path) dead(t *testing.T, good string) {
	p.reread(t, good)
	if err := p.left.Initiate("net"); err != nil {
		t.Fatal(err)
	}
	if err := p.right.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.wait("the end of a peer that is silent", p.left, func(s []peer.SA) bool { return len(s) == 0 })
	x := p.explain(t, "gw")
	if err := p.right.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if x.State != "down" || !strings.Contains(x.Verdict, "lost its peer") || len(x.Records) == 0 || x.Records[0].Record["reason"] != "no-answer" {
		t.Errorf("the peer is dead: %+v", x)
	}
	p.comesUp(t, p.left)
}

// blocked lets nothing through to UDP 4500.
func (p *path) blocked(t *testing.T, good string) {
	p.reread(t, good)
	rules := "table bridge blocked {\nchain f {\ntype filter hook forward priority 0;\nudp dport 4500 drop\n}\n}"
	if out, err := p.Exec(5*time.Second, lab.Wire, "nft", rules); err != nil {
		t.Fatal(err, out)
	}
	if err := p.left.Initiate("net"); err == nil {
		t.Fatal("the tunnel came up without UDP 4500")
	}
	x := p.explain(t, "net")
	if !strings.Contains(x.Verdict, "IKE_AUTH") || len(x.Changes) == 0 || !strings.Contains(x.Changes[0].Text, "UDP 4500") || x.Changes[0].Option != "" {
		t.Errorf("UDP 4500 is blocked: %+v", x)
	}
	if d := fmt.Sprint(x.Records[0].Record["detail"]); d != "silent-4500" {
		t.Errorf("detail %s", d)
	}
	if out, err := p.Exec(5*time.Second, lab.Wire, "nft", "delete table bridge blocked"); err != nil {
		t.Fatal(err, out)
	}
	p.comesUp(t, p.left)
}
