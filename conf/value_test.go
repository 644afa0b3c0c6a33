package conf_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/conf"
)

// value parses "k = text" in a section s.
func value(t *testing.T, text string) conf.Value {
	t.Helper()
	s, err := conf.ParseBytes("f", []byte("\ns { k = \""+text+"\" }"))
	if err != nil {
		t.Fatal(err)
	}
	v, ok := s.Sub("s").Get("k")
	if !ok {
		t.Fatal("no value")
	}
	return v
}

func TestValues(t *testing.T) {
	read := map[string]func(v conf.Value) (any, error){
		"bool":     func(v conf.Value) (any, error) { return v.Bool() },
		"duration": func(v conf.Value) (any, error) { return v.Duration() },
		"bytes":    func(v conf.Value) (any, error) { return v.Bytes() },
		"uint":     func(v conf.Value) (any, error) { return v.Uint(math.MaxUint32) },
		"uint64":   func(v conf.Value) (any, error) { return v.Uint(math.MaxUint64) },
		"int":      func(v conf.Value) (any, error) { return v.Int(-10, 10) },
		"int64":    func(v conf.Value) (any, error) { return v.Int(math.MinInt64, math.MaxInt64) },
		"word":     func(v conf.Value) (any, error) { return v.OneOf("tunnel", "transport", "beet") },
		"list":     func(v conf.Value) (any, error) { return strings.Join(v.Strings(), "|"), nil },
	}
	for _, c := range []struct {
		as, text string
		want     any // an error is given as its text after "f:2: s.k: "
	}{
		{"bool", "yes", true}, {"bool", "TRUE", true}, {"bool", "enabled", true}, {"bool", "1", true},
		{"bool", "no", false}, {"bool", "False", false}, {"bool", "disabled", false}, {"bool", "0", false},
		{"bool", "ja", errors.New(`expected yes or no, not "ja"`)},
		{"bool", "", errors.New(`expected yes or no, not ""`)},
		{"duration", "90", 90 * time.Second}, {"duration", "90s", 90 * time.Second}, {"duration", "4h", 4 * time.Hour},
		{"duration", "30 m", 30 * time.Minute}, {"duration", "2D", 48 * time.Hour}, {"duration", "0", time.Duration(0)},
		{"duration", "0x10", 16 * time.Second},
		{"duration", "", errors.New(`expected a time such as 4h, 30m or 90, not ""`)},
		{"duration", "-1", errors.New(`expected a time such as 4h, 30m or 90, not "-1"`)},
		{"duration", "1w", errors.New(`unknown unit of time "w": s, m, h and d are possible`)},
		{"duration", "1h30m", errors.New(`unknown unit of time "h30m": s, m, h and d are possible`)},
		{"duration", "9223372036", 9223372036 * time.Second},
		{"duration", "9223372037", errors.New(`a time of "9223372037" is too long`)},
		{"duration", "99999999999d", errors.New(`a time of "99999999999d" is too long`)},
		{"bytes", "500", uint64(500)}, {"bytes", "2k", uint64(2048)}, {"bytes", "3 M", uint64(3 << 20)}, {"bytes", "1g", uint64(1 << 30)},
		{"bytes", "17179869183g", uint64(17179869183 << 30)},
		{"bytes", "17179869184g", errors.New(`a size of "17179869184g" is too large`)},
		{"bytes", "1t", errors.New(`unknown unit of size "t": k, m and g are possible`)},
		{"bytes", "many", errors.New(`expected a size such as 500m or 2g, not "many"`)},
		{"uint", "0", uint64(0)}, {"uint", "4294967295", uint64(math.MaxUint32)}, {"uint", "0xFF", uint64(255)},
		{"uint", "4294967296", errors.New(`"4294967296" is more than the 4294967295 possible`)},
		{"uint", "010", errors.New(`write the number "010" without a leading zero`)},
		{"uint", "1_0", errors.New(`expected a number, not "1_0"`)},
		{"uint", "0x", errors.New(`expected a number, not "0x"`)},
		{"uint", "1 ", uint64(1)},
		{"uint64", "18446744073709551615", uint64(math.MaxUint64)},
		{"uint64", "18446744073709551616", errors.New(`the number "18446744073709551616" is too large`)},
		{"int", "-10", int64(-10)}, {"int", "10", int64(10)},
		{"int", "11", errors.New(`"11" is not between -10 and 10`)},
		{"int", "--1", errors.New(`expected a number, not "--1"`)},
		{"int64", "9223372036854775808", errors.New(`"9223372036854775808" is not between -9223372036854775808 and 9223372036854775807`)},
		{"word", "Tunnel", "tunnel"},
		{"word", "transprot", errors.New(`expected one of tunnel, transport, beet, not "transprot": did you mean transport?`)},
		{"word", "x", errors.New(`expected one of tunnel, transport, beet, not "x"`)},
		{"list", "", ""}, {"list", " a , b,,c d ,", "a|b|c d"}, {"list", "one", "one"},
	} {
		t.Run(c.as+" "+c.text, func(t *testing.T) {
			got, err := read[c.as](value(t, c.text))
			if want, ok := c.want.(error); ok {
				if err == nil || err.Error() != "f:2: s.k: "+want.Error() || !errors.Is(err, conf.ErrValue) {
					t.Errorf("got %v, %v, want error %v", got, err, want)
				}
			} else if err != nil || got != c.want {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
		})
	}
}

func TestListValue(t *testing.T) {
	s := conf.New("")
	s.SetList("k", "a,b", " c ")
	v, _ := s.Get("k")
	if got := v.Strings(); !slices.Equal(got, []string{"a,b", " c "}) {
		t.Errorf("items are %q", got)
	}
	for name, err := range map[string]error{
		"One": second(v.One()), "Bool": second(v.Bool()), "Uint": second(v.Uint(9)), "Int": second(v.Int(0, 9)),
		"Duration": second(v.Duration()), "Bytes": second(v.Bytes()), "OneOf": second(v.OneOf("a")),
	} {
		if !errors.Is(err, conf.ErrValue) {
			t.Errorf("%s of a list: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestSection(t *testing.T) {
	root := conf.New("")
	s := root.Add("connections").Add("home")
	s.Set("version", "2")
	s.Setf("n", "%d", 7)
	s.SetList("addrs", "a", "b")
	s.Add("version").Set("x", "y")
	s.Set("version", "1") // in place
	for i := range 30 {   // beyond the size where look-ups change
		s.Setf(fmt.Sprintf("k%d", i), "%d", i)
	}
	s.Set("k3", "changed")
	if got := s.Path(); got != "connections.home" {
		t.Errorf("path %q", got)
	}
	var order []string
	for e := range s.All() {
		if e.Section != nil {
			order = append(order, "{"+e.Section.Name+"}")
		} else {
			order = append(order, e.Value.Key)
		}
	}
	if got := strings.Join(order[:5], " "); got != "version n addrs {version} k0" || s.Len() != 34 {
		t.Errorf("order %s, %d entries", got, s.Len())
	}
	if s.Text("version") != "1" || s.Text("k3") != "changed" || s.Text("k29") != "29" || s.Text("addrs") != "" || s.Sub("version").Text("x") != "y" {
		t.Error("look-ups fail")
	}
	if v, _ := s.Sub("version").Get("x"); v.Path() != "connections.home.version.x" {
		t.Errorf("path %q", v.Path())
	}
	if _, ok := s.Sub("none").Sub("deeper").Get("k"); ok || s.Sub("none").Len() != 0 {
		t.Error("a nil section holds something")
	}
	other := conf.New("version")
	s.Attach(other)
	if s.Sub("version") != other || s.Len() != 34 || other.Path() != "connections.home.version" {
		t.Error("Attach does not replace")
	}
}

// TestSecrets: what loggers print by accident shows no value.
func TestSecrets(t *testing.T) {
	s, err := conf.ParseBytes("f", []byte("secrets { ike-1 { secret = hidden\n id = gw } }"))
	if err != nil {
		t.Fatal(err)
	}
	v, _ := s.Sub("secrets").Sub("ike-1").Get("secret")
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%v", v), fmt.Sprintf("%+v", s.Sub("secrets")), v.String(),
		s.Format(func(in *conf.Section, v conf.Value) bool { return v.Key == "secret" })} {
		if strings.Contains(text, "hidden") {
			t.Errorf("secret shows in %s", text)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"remote_addrs", "local_addrs", "rekey_time", "reauth_time", "dpd_delay", "encap", "id", "if_id_in"}
	for word, want := range map[string]string{
		"remote_addr": "remote_addrs", "remote-addrs": "remote_addrs", "Rekey_Time": "rekey_time", "reky_time": "rekey_time",
		"rekey_tiem": "rekey_time", "encaps": "encap", "lcal_adrs": "local_addrs", "xyz": "", "": "", "ie": "id", "zz": "",
		strings.Repeat("a", 1000): "", "dpd_dealy": "dpd_delay",
	} {
		if got := conf.Nearest(word, known); got != want {
			t.Errorf("Nearest(%.20q) is %q, want %q", word, got, want)
		}
	}
}
