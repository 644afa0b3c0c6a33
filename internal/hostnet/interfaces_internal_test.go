package hostnet

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

// interfaces_use names those that count; without it all count but those of
// interfaces_ignore. What the host says is asked for again after a while.
func TestUsableInterfaces(t *testing.T) {
	wan, lan, none := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fd00::1"), netip.MustParseAddr("203.0.113.9")
	if s := NewInterfaces(nil, nil); s != nil || !s.Usable(none) {
		t.Error("without a choice every address is usable")
	}
	for _, c := range []struct {
		use, ignore []string
		wan, lan    bool
	}{{[]string{"wan"}, nil, true, false}, {nil, []string{"wan"}, false, true}, {[]string{"wan"}, []string{"wan"}, true, false}, {[]string{"other"}, nil, false, false}} {
		s := NewInterfaces(c.use, c.ignore)
		asked := 0
		s.list = func() (map[string][]netip.Addr, error) {
			if asked++; asked > 1 {
				return nil, errors.New("busy")
			}
			return map[string][]netip.Addr{"wan": {wan}, "lan": {lan}}, nil
		}
		for range 2 {
			if s.Usable(wan) != c.wan || s.Usable(lan.WithZone("lan")) != c.lan || s.Usable(none) {
				t.Errorf("%+v: wan %v, lan %v", c, s.Usable(wan), s.Usable(lan))
			}
		}
		if asked != 1 {
			t.Errorf("the host was asked %d times", asked)
		}
		s.until = time.Time{}
		if s.Usable(wan) != c.wan || asked != 2 {
			t.Error("an error must not change what was true")
		}
	}
	if list, err := hostAddresses(); err != nil || len(list) == 0 {
		t.Errorf("%v %v", list, err)
	}
}
