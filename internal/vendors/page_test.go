package vendors_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/internal/config"
	"adit/pki/pkitest"
	"adit/suite"
)

var snippet = regexp.MustCompile("(?s)```\n(connections \\{\n.*?)```")

// The configurations of docs/peers.md load, and bring a tunnel up that survives a
// rekey with the peer that their section is about.
func TestPeersPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/peers.md")
	if err != nil {
		t.Fatal(err)
	}
	custom := func(t *testing.T) *peer {
		p := plain(t, "aes256-sha384-ecp384", "aes256gcm16", "0.0.0.0/0", "0.0.0.0/0")
		return p
	}
	initiatingBack := func(t *testing.T) *peer { p := forti(t); p.initiatesBack, p.badHash = true, true; return p }
	proxyless := func(t *testing.T) *peer { p, _ := pan(t, nil); return p }
	macOS := func(t *testing.T) *peer { return client(t, macIKE, macESP) }
	peers := map[string]struct {
		make   func(t *testing.T) *peer
		client bool
		kids   int
		rekey  string // the client's proposals then
	}{
		"Cisco ASA and FTD": {make: asa, kids: 4}, "Palo Alto": {make: proxyless, kids: 1}, "FortiGate": {make: initiatingBack, kids: 1},
		"AWS Site-to-Site VPN": {make: aws, kids: 1}, "Google Cloud VPN": {make: google, kids: 1}, "Azure VPN Gateway": {make: custom, kids: 1},
		"Windows": {make: windows, client: true, kids: 1, rekey: "aes256-sha1"}, "iOS and macOS": {make: macOS, client: true, kids: 1, rekey: macRekey},
		"Android": {make: android, client: true, kids: 1, rekey: "aes256gcm16"},
	}
	for section := range strings.SplitSeq(string(page), "\n## ") {
		title, _, _ := strings.Cut(section, "\n")
		m := snippet.FindStringSubmatch(section)
		with, ok := peers[title]
		if delete(peers, title); ok != (m != nil) {
			t.Errorf("%q: a configuration without its peer, or a peer without", title)
		}
		if m == nil {
			continue
		}
		t.Run(title, func(t *testing.T) {
			cfg := loadSnippet(t, m[1])
			p := with.make(t)
			if with.client {
				// The script has a shared key instead of EAP, and asks for no address.
				id := p.identity()
				cfg.Remote = []ike.AuthRound{{ID: id}}
				cfg.Pools, cfg.Children[0].Remote = nil, selectors(t, "10.9.0.0/16")
				p.serverKey = serverKey()
			}
			w := newWorld(t, conn{ike: "default", esp: "default", children: []string{"net 0.0.0.0/0 === 0.0.0.0/0"}, change: func(p *ike.Peer) { *p = *cfg }}, p)
			if with.client {
				w.connect()
			} else {
				w.initiate(cfg.Children[0].Name)
				w.advance(30 * time.Second)
			}
			w.settled(with.kids)
			if with.client {
				p.first().rekeyChild(p.children()[0], split(t, suite.ESP, with.rekey))
				w.advance(10 * time.Second)
			} else {
				w.do(ike.Rekey{Child: cfg.Children[0].Name})
			}
			w.do(ike.Rekey{IKE: cfg.Name})
			w.advance(20 * time.Second)
			w.settled(with.kids)
			if p.rekeys < 2 || len(w.rejections) != 0 {
				t.Errorf("%d rekeys, rejections %v", p.rekeys, w.rejections)
			}
		})
	}
	for title := range peers {
		t.Errorf("the page has no section %q", title)
	}
}

// loadSnippet loads a configuration as adit would, with the files that it names.
func loadSnippet(t *testing.T, text string) *ike.Peer {
	t.Helper()
	dir := t.TempDir()
	root := pkitest.NewCA(t, pkitest.Spec{Name: "Root"})
	gw := root.Issue(pkitest.Spec{Name: aditID, DNS: []string{aditID}})
	for name, b := range map[string][]byte{"swanctl.conf": []byte(text), "x509/fullchain.pem": gw.PEM(), "private/gw.key": gw.KeyPEM(), "x509ca/root.pem": root.PEM()} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := config.LoadDaemon("")
	if err != nil {
		t.Fatal(err)
	}
	model, err := config.Load(filepath.Join(dir, "swanctl.conf"), d)
	if err != nil {
		t.Fatal(err)
	}
	if len(model.Peers) != 1 || len(model.Peers[0].Children) != 1 {
		t.Fatalf("%d connections", len(model.Peers))
	}
	for _, x := range model.Warnings {
		if text := x.Text; !strings.Contains(text, "SHA") {
			t.Errorf("warning: %s", text)
		}
	}
	return model.Peers[0]
}
