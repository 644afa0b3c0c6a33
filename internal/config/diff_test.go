package config_test

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"adit/ike"
	"adit/internal/config"
	"adit/ipsec"
)

// alter gives a field another value than the zero one.
func alter(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(time.Hour))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		if e := v.Index(0); e.Kind() == reflect.String {
			e.SetString("x")
		}
	case reflect.Struct:
		if id, ok := v.Addr().Interface().(*ike.Identity); ok {
			*id = ike.Identity{Type: ike.IDFQDN, Data: "x.example"}
			return
		}
		if to, ok := v.Addr().Interface().(*ike.RedirectTarget); ok {
			to.Name = "x.example"
			return
		}
		t.Fatalf("a struct %s", v.Type())
	default:
		t.Fatalf("kind %s", v.Kind())
	}
}

// Every field of a connection, its rounds and its children that differs is told,
// under the name of an option.
func TestDiffKnowsEveryField(t *testing.T) {
	option := func(p *ike.Peer, q *ike.Peer, field string) {
		t.Helper()
		list := config.Diff(p, q)
		if len(list) != 1 || list[0].Old == list[0].New && field != "Proposals" || list[0].Path == field || list[0].Path == "" {
			t.Errorf("%s: %v", field, list)
		}
	}
	fresh := func() *ike.Peer {
		return &ike.Peer{Name: "gw", Local: []ike.AuthRound{{Name: "local"}}, Remote: []ike.AuthRound{{Name: "remote"}}, Children: []*ike.Child{{Name: "net"}}}
	}
	skip := map[string]bool{"Name": true, "Children": true, "Warnings": true, "Given": true}
	for _, part := range []struct {
		typ  reflect.Type
		of   func(*ike.Peer) reflect.Value
		skip map[string]bool
	}{
		{reflect.TypeFor[ike.Peer](), func(p *ike.Peer) reflect.Value { return reflect.ValueOf(p).Elem() }, map[string]bool{"Local": true, "Remote": true}},
		{reflect.TypeFor[ike.AuthRound](), func(p *ike.Peer) reflect.Value { return reflect.ValueOf(&p.Remote[0]).Elem() }, nil},
		{reflect.TypeFor[ike.Child](), func(p *ike.Peer) reflect.Value { return reflect.ValueOf(p.Children[0]).Elem() }, nil},
	} {
		for i := range part.typ.NumField() {
			field := part.typ.Field(i).Name
			if skip[field] || part.skip[field] {
				continue
			}
			p, q := fresh(), fresh()
			alter(t, part.of(q).Field(i))
			option(p, q, field)
		}
	}
}

func TestDiffReads(t *testing.T) {
	p := &ike.Peer{Name: "gw", RekeyTime: 4 * time.Hour, Local: []ike.AuthRound{{Name: "local"}}, Children: []*ike.Child{
		{Name: "net", Remote: []ipsec.Selector{ipsec.FromPrefix(netip.MustParsePrefix("10.2.0.0/16"))}, StartAction: ike.ActionTrap | ike.ActionStart}, {Name: "gone"}}}
	q := &ike.Peer{Name: "gw", RekeyTime: 90 * time.Minute, RemoteAddrs: []ike.AddrSpec{{Host: "gw.example"}, {From: netip.MustParseAddr("192.0.2.1"), To: netip.MustParseAddr("192.0.2.1")}},
		Local: []ike.AuthRound{{Name: "local"}, {Name: "local-2"}}, Children: []*ike.Child{{Name: "net", Remote: []ipsec.Selector{ipsec.FromPrefix(netip.MustParsePrefix("10.3.0.0/16"))}}, {Name: "come"}}}
	want := []config.Difference{{"remote_addrs", "%any", "gw.example, 192.0.2.1/32"}, {"rekey_time", "4h", "90m"}, {"local-2", "", "a round of authentication"},
		{"children.net.remote_ts", "10.2.0.0/16", "10.3.0.0/16"}, {"children.net.start_action", "trap|start", "none"}}
	if got := config.Diff(p, q); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}
