package gateway

import (
	"fmt"
	"testing"

	"adit/ike"
	"adit/internal/config"
	"adit/suite"
)

// Whoever is named has the first password of that name, whatever patterns stand before
// it; a pattern is for the rest, and no owner for everybody. Changes count at once.
func TestPasswordsByName(t *testing.T) {
	g := &Gateway{}
	g.inv.init()
	load := func(id, key string, kind config.SecretKind, owners ...string) {
		t.Helper()
		s := config.Secret{ID: id, Kind: kind, Key: suite.Key(key)}
		for _, o := range owners {
			parsed, err := ike.ParseIdentity(o)
			if err != nil {
				t.Fatal(err)
			}
			s.Owners = append(s.Owners, parsed)
		}
		if err := g.LoadSecret(s); err != nil {
			t.Fatal(err)
		}
	}
	want := func(identity, key string) {
		t.Helper()
		s, ok := g.inv.password(identity)
		if got := string(s.Password) + string(s.NTHash); got != key || ok != (key != "") {
			t.Errorf("%s has %q", identity, got)
		}
	}
	want("alice@example.org", "")
	load("1", "pattern", config.SecretEAP, "*@example.org")
	for i := range 1000 {
		load(fmt.Sprint("u", i), fmt.Sprint("key", i), config.SecretEAP, fmt.Sprintf("u%d@example.org", i))
	}
	load("2", "of alice", config.SecretEAP, "alice@example.org", "bob@example.org")
	load("3", "second", config.SecretEAP, "alice@example.org")
	load("4", "psk", config.SecretIKE, "carol@example.org")
	want("alice@example.org", "of alice")
	want("bob@example.org", "of alice")
	want("u999@example.org", "key999")
	want("carol@example.org", "pattern")
	want("eve@example.net", "")
	load("5", "everybody", config.SecretNTLM)
	want("eve@example.net", "everybody")
	load("2", "another", config.SecretEAP, "bob@example.org")
	want("bob@example.org", "another")
	want("alice@example.org", "second")
	if err := g.UnloadSecret("3"); err != nil {
		t.Fatal(err)
	}
	want("alice@example.org", "pattern")
}
