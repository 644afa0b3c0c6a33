package explain_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/internal/explain"
	"adit/internal/gateway"
	"adit/ipsec"
)

var now = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func selector(t *testing.T, text string) []ipsec.Selector {
	s, err := ipsec.ParseSelector(text)
	if err != nil {
		t.Fatal(err)
	}
	return []ipsec.Selector{s}
}

// usual is a connection gw with one child net, and nothing that has happened.
func usual(t *testing.T) explain.Facts {
	a := netip.MustParseAddr("192.0.2.2")
	remote, err := ike.ParseIdentity("b.example")
	if err != nil {
		t.Fatal(err)
	}
	return explain.Facts{Now: now, Peer: &ike.Peer{Name: "gw", RemoteAddrs: []ike.AddrSpec{{From: a, To: a}},
		Local: []ike.AuthRound{{Method: ike.AuthPSK}}, Remote: []ike.AuthRound{{Method: ike.AuthPSK, ID: remote}},
		Children: []*ike.Child{{Name: "net", Action: ipsec.Protect, Local: selector(t, "10.1.0.0/24"), Remote: selector(t, "10.2.0.0/24")}}}}
}

func refusal(r ike.Rejection) gateway.Refusal {
	r.Local, r.Remote = netip.MustParseAddrPort("192.0.2.1:500"), netip.MustParseAddrPort("192.0.2.2:500")
	return gateway.Refusal{Record: &r, First: now.Add(-time.Minute), Last: now.Add(-time.Second), Count: 3}
}

// constants are the names of a type's constants in ike/reject.go, with their values.
func constants(t *testing.T, of string) (out []string) {
	f, err := parser.ParseFile(token.NewFileSet(), "../../ike/reject.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			if id, ok := v.Type.(*ast.Ident); ok && id.Name == of {
				text, _ := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
				out = append(out, text)
			}
		}
		return true
	})
	if len(out) < 10 {
		t.Fatalf("%d constants of %s", len(out), of)
	}
	return out
}

// Whatever the record: there is a verdict in a sentence, nothing is left unformatted,
// text fits the terminal, and VICI carries it whole.
func TestEveryRecordIsTold(t *testing.T) {
	for _, reason := range constants(t, "Reason") {
		for _, detail := range append(constants(t, "Detail"), "") {
			for _, byPeer := range []bool{false, true} {
				f := usual(t)
				r := ike.Rejection{SAKey: ike.SAKey{Name: "gw", ID: 1}, Reason: ike.Reason(reason), Detail: ike.Detail(detail), ByPeer: byPeer,
					Notify: "AUTHENTICATION_FAILED", Difference: "something; else", Ours: "a.example", Theirs: "b.example",
					Candidates: []ike.Candidate{{Name: "other", Why: "it is another one", Detail: ike.DetailRemoteID}}}
				r.PointTo(f.Peer)
				f.History.Refusals = []gateway.Refusal{refusal(r)}
				x := explain.Explain(f)
				if x.State == explain.Up || !strings.HasPrefix(x.Verdict, "gw ") || !strings.HasSuffix(x.Verdict, ".") && !strings.HasSuffix(x.Verdict, ".example") {
					t.Errorf("%s/%s: %q", reason, detail, x.Verdict)
				}
				text := x.Text(80)
				if strings.Contains(text, "%!") || strings.Contains(text, "..\n") || strings.Contains(text, ": .") {
					t.Errorf("%s/%s:\n%s", reason, detail, text)
				}
				for line := range strings.Lines(text) {
					if len(line) > 81 {
						t.Errorf("%s/%s: %d characters: %s", reason, detail, len(line), line)
					}
				}
				for _, o := range r.Options {
					if !strings.Contains(text, strings.TrimSuffix(o, "*")) {
						t.Errorf("%s/%s does not name %s:\n%s", reason, detail, o, text)
					}
				}
				back := explain.Parse(x.Section())
				for i := range back[0].Records { // a list's separator is the record's affair
					for j := range back[0].Records[i].Fields {
						if g, w := &back[0].Records[i].Fields[j], x.Records[i].Fields[j]; w.List != nil {
							g.Value = w.Value
						}
					}
				}
				if !reflect.DeepEqual(back, []explain.Report{x}) {
					t.Errorf("%s/%s: over VICI\n%+v\nbecomes\n%+v", reason, detail, x, back)
				}
			}
		}
	}
}

// What nobody has refused is told by what it waits for.
func TestStanding(t *testing.T) {
	up := func(f *explain.Facts) *ike.SAInfo {
		f.SAs = []ike.SAInfo{{Name: "gw", ID: 1, State: "ESTABLISHED", Remote: netip.MustParseAddrPort("192.0.2.2:4500"), Established: now.Add(-time.Hour),
			Children: []ike.ChildInfo{{Name: "net", ID: 7, State: "INSTALLED", Encap: true, Installed: now.Add(-time.Hour),
				LocalTS: f.Peer.Children[0].Local, RemoteTS: f.Peer.Children[0].Remote}}}}
		return &f.SAs[0]
	}
	for name, c := range map[string]struct {
		change func(f *explain.Facts)
		state  explain.State
		words  string // of the text, with | between
	}{
		"nobody asked": {func(*explain.Facts) {}, explain.Waiting, "was not asked for|connections.gw.children.net.keep_up|adit up net"},
		"trap":         {func(f *explain.Facts) { f.Peer.Children[0].StartAction = ike.ActionTrap }, explain.Waiting, "waits for traffic|first packet from 10.1.0.0/24 to 10.2.0.0/24"},
		"responder":    {func(f *explain.Facts) { f.Peer.RemoteAddrs = []ike.AddrSpec{{Any: true}} }, explain.Waiting, "waits for the peer|connections.gw.remote_addrs"},
		"held": {func(f *explain.Facts) { f.Peer.Children[0].KeepUp = true; f.Attempt.Held = []string{"net"} }, explain.Down,
			"taken down by an operator|adit up net"},
		"given up": {func(f *explain.Facts) {
			f.Peer.Children[0].StartAction, f.Peer.GiveUp, f.Peer.KeyingTries = ike.ActionStart, true, 3
		}, explain.Down, "nothing tries it any more|keyingtries = 3"},
		"was up": {func(f *explain.Facts) {
			f.History.Up, f.History.Down, f.History.DownReason = now.Add(-time.Hour), now.Add(-time.Minute), "deleted by peer"
		}, explain.Waiting, "up until 60 s ago: deleted by peer"},
		"asking": {func(f *explain.Facts) {
			f.Attempt = ike.Attempt{Trying: true, Asking: "the address of gw.example.org", Wanted: []string{"net"}}
		}, explain.Trying, "waits for the address of gw.example.org"},
		"sending": {func(f *explain.Facts) {
			f.Attempt = ike.Attempt{Trying: true, Wanted: []string{"net"}}
			f.History.SetUp = &gateway.SetUp{IKE: 1, Sent: 4, Last: now.Add(-2 * time.Second), Remote: "192.0.2.2:500"}
		}, explain.Trying, "IKE_SA_INIT was sent 4 times, without an answer yet|UDP 500 is blocked|the last time 2 s ago"},
		"sending to 4500": {func(f *explain.Facts) {
			f.Attempt = ike.Attempt{Trying: true, Wanted: []string{"net"}}
			f.History.SetUp = &gateway.SetUp{IKE: 1, Auth: true, Sent: 4, Last: now, Remote: "192.0.2.2:4500"}
		}, explain.Trying, "IKE_AUTH was sent 4 times and is not answered|UDP 4500 is blocked"},
		"will try": {func(f *explain.Facts) {
			f.Attempt = ike.Attempt{Failures: 5, RetryAt: now.Add(20 * time.Second), Wanted: []string{"net"}}
			f.History.Refusals = []gateway.Refusal{refusal(ike.Rejection{Reason: ike.ReasonNoAnswer, Detail: ike.DetailSilent, Difference: "no answer"})}
		}, explain.Trying, "5 attempts in a row failed; the next try is in 20 s"},
		"shunt": {func(f *explain.Facts) { f.Peer.Children[0].Action = ipsec.Bypass }, explain.Up, "nothing to negotiate"},
		"up":    {func(f *explain.Facts) { up(f) }, explain.Up, "gw is up, with 192.0.2.2"},
		"nothing in": {func(f *explain.Facts) {
			up(f)
			f.Stats = map[uint32]ike.ChildStats{7: {Out: ipsec.SAStats{Packets: 9}}}
		}, explain.Up, "9 packets out and none in|UDP 4500 is blocked"},
		"raw ESP, nothing in": {func(f *explain.Facts) {
			up(f).Children[0].Encap = false
			f.Stats = map[uint32]ike.ChildStats{7: {Out: ipsec.SAStats{Packets: 9}}}
		}, explain.Up, "IP protocol 50|connections.gw.encap"},
		"nothing out": {func(f *explain.Facts) {
			up(f)
			f.Stats = map[uint32]ike.ChildStats{7: {In: ipsec.SAStats{Packets: 9, Replayed: 3, SelectorMismatch: 2}}}
		}, explain.Up, "9 packets in and none out|3 packets came twice|2 packets had addresses outside"},
		"NAT": {func(f *explain.Facts) {
			s := up(f)
			s.NATLocal, s.RekeyAt = true, now.Add(10*time.Second)
			f.Drops = map[string]uint64{"in-replayed": 4, "in-dummy": 9}
		}, explain.Up, "a NAT before this gateway|IKE SA is rekeyed in 10 s|in-replayed 4"},
		"without its child": {func(f *explain.Facts) {
			up(f).Children = nil
			f.History.Refusals = []gateway.Refusal{refusal(ike.Rejection{SAKey: ike.SAKey{Name: "gw", Child: "net"}, Reason: ike.ReasonSelectors, ByPeer: true, Notify: "TS_UNACCEPTABLE"})}
		}, explain.Down, "does not take our traffic selectors for child net|keeps the configuration that it was made with"},
		"pairs": {func(f *explain.Facts) {
			up(f).Children = nil
			f.History.Refusals = []gateway.Refusal{refusal(ike.Rejection{SAKey: ike.SAKey{Name: "gw", Child: "net"}, Reason: ike.ReasonSelectors, ByPeer: true, Notify: "TS_UNACCEPTABLE",
				Ours: "10.3.0.0/16 === 10.4.0.0/16", Difference: "the peer refuses these pairs of selectors"})}
		}, explain.Down, "The peer refuses these pairs of selectors: 10.3.0.0/16 === 10.4.0.0/16"},
		"Windows": {func(f *explain.Facts) {
			f.History.Refusals = []gateway.Refusal{refusal(ike.Rejection{SAKey: ike.SAKey{Name: "gw", Child: "net"}, Reason: ike.ReasonPeer, ByPeer: true, Notify: "MS_STATUS(13863)",
				Difference: "invalid situation", Options: []string{"connections.gw.children.net.rekey_time"}})}
		}, explain.Down, "MS_STATUS(13863)|Invalid situation|rekey_time"},
		"Apple": {func(f *explain.Facts) {
			f.History.Refusals = []gateway.Refusal{refusal(ike.Rejection{SAKey: ike.SAKey{Name: "gw"}, Reason: ike.ReasonAuthentication, ByPeer: true, Notify: "AUTHENTICATION_FAILED",
				Hint: "our certificate was not sent, since the peer sent no CERTREQ", Options: []string{"connections.gw.send_cert"}})}
		}, explain.Down, "had not seen our certificate|send_cert = always"},
		"PFS": {func(f *explain.Facts) {
			f.History.Refusals = []gateway.Refusal{refusal(ike.Rejection{SAKey: ike.SAKey{Name: "gw", Child: "net"}, Reason: ike.ReasonProposal, Detail: ike.DetailGroup, ByPeer: true, Notify: "NO_PROPOSAL_CHOSEN",
				Hint: "the peer may have PFS off", Options: []string{"connections.gw.children.net.esp_proposals"}})}
		}, explain.Down, "The peer may have PFS off|esp_proposals"},
		"another version": {func(f *explain.Facts) {
			f.Trouble = []gateway.Trouble{{Dropped: ike.Dropped{Reason: ike.DropVersion, Count: 2, Last: netip.MustParseAddrPort("192.0.2.2:500")}, Last: now}}
		}, explain.Waiting, "another version of IKE"},
		"clock": {func(f *explain.Facts) {
			f.Clock = []string{"it says 1970-01-01, and this program was made later"}
			f.History.Refusals = []gateway.Refusal{refusal(ike.Rejection{Reason: ike.ReasonAuthentication, Detail: ike.DetailNotYetValid, Difference: "not yet valid"})}
		}, explain.Down, "the clock is off|It says 1970-01-01|Set the clock"},
		"a stranger from elsewhere": {func(f *explain.Facts) {
			r := refusal(ike.Rejection{Reason: ike.ReasonAddress, Difference: "no connection for these addresses",
				Candidates: []ike.Candidate{{Name: "gw", Why: "remote_addrs do not contain 203.0.113.5", Detail: ike.DetailRemoteAddrs}, {Name: "x", Why: "local_addrs do not contain it"}}})
			r.Record.Remote = netip.MustParseAddrPort("203.0.113.5:500")
			f.Strangers = []gateway.Refusal{r}
		}, explain.Waiting, "A peer at 203.0.113.5 was refused|gw was not taken for it: remote_addrs|Connection x was not taken|connections.gw.remote_addrs"},
		"a stranger that is the peer": {func(f *explain.Facts) {
			f.Strangers = []gateway.Refusal{refusal(ike.Rejection{Reason: ike.ReasonIdentity, Theirs: "c.example", Difference: "no connection for this identity",
				Candidates: []ike.Candidate{{Name: "gw", Why: "remote.id b.example does not match c.example", Detail: ike.DetailRemoteID}}})}
		}, explain.Down, "refuses its peer|connections.gw.remote.id"},
		"a stranger of others": {func(f *explain.Facts) {
			r := refusal(ike.Rejection{Reason: ike.ReasonSyntax, Difference: "SA, KE or Ni is missing"})
			r.Record.Remote = netip.MustParseAddrPort("203.0.113.5:500")
			f.Strangers = []gateway.Refusal{r}
		}, explain.Waiting, "was not asked for"},
	} {
		f := usual(t)
		c.change(&f)
		x := explain.Explain(f)
		text := strings.Join(strings.Fields(x.Text(80)), " ")
		if x.State != c.state {
			t.Errorf("%s: state %s, want %s", name, x.State, c.state)
		}
		for w := range strings.SplitSeq(c.words, "|") {
			if !strings.Contains(text, w) {
				t.Errorf("%s: no %q in\n%s", name, w, x.Text(80))
			}
		}
	}
	f := usual(t)
	f.Strangers = []gateway.Refusal{refusal(ike.Rejection{Reason: ike.ReasonSyntax})}
	f.Strangers[0].Record.Remote = netip.MustParseAddrPort("203.0.113.5:500")
	if x := explain.Explain(f); len(x.Records) != 0 {
		t.Errorf("a stranger's record was taken for the peer's: %+v", x.Records)
	}
}

// A child is told by its own refusals.
func TestChildAlone(t *testing.T) {
	f := usual(t)
	f.Peer.Children = append(f.Peer.Children, &ike.Child{Name: "more", Action: ipsec.Protect})
	f.Child = f.Peer.Children[1]
	f.History.Refusals = []gateway.Refusal{refusal(ike.Rejection{SAKey: ike.SAKey{Name: "gw", Child: "net"}, Reason: ike.ReasonSelectors, ByPeer: true})}
	if x := explain.Explain(f); x.Name != "more" || len(x.Records) != 0 || !strings.Contains(x.Verdict, "was not asked for") {
		t.Errorf("%+v", x)
	}
}

func TestNotLoaded(t *testing.T) {
	for near, want := range map[string]string{"gw": `Did you mean "gw"?`, "": "12 connections are loaded"} {
		x := explain.NotLoaded("gx", near, 12)
		if x.State != explain.Unknown || !strings.Contains(x.Text(80), want) {
			t.Errorf("%+v", x)
		}
	}
	if x := explain.NotLoaded("gx", "", 0); !strings.Contains(x.Text(80), "Nothing is loaded at all") {
		t.Errorf("%+v", x)
	}
}
