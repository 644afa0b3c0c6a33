package conf_test

import (
	"fmt"
	"testing"

	"adit/conf"
)

// A section that was emptied is like a new one, whatever it had.
func TestEmpty(t *testing.T) {
	s := conf.New("")
	for round := range 3 {
		s.Empty()
		if s.Len() != 0 || s.Sub("a") != nil || s.Text("k") != "" {
			t.Fatalf("round %d: %s", round, s.Format(nil))
		}
		s.Set("k", "v")
		for i := range 60 * round { // beyond what is looked up without an index
			s.Setf(fmt.Sprint("x", i), "%d", i)
		}
		a := s.Add(fmt.Sprint("a", round))
		a.SetList("l", "1")
		a.Add("b").Set("deep", "yes")
		if got := s.Sub(fmt.Sprint("a", round)).Sub("b"); got.Path() != fmt.Sprintf("a%d.b", round) || got.Len() != 1 || got.Text("deep") != "yes" {
			t.Fatalf("round %d: %s", round, s.Format(nil))
		}
		if s.Len() != 2+60*round || a.Len() != 2 {
			t.Fatalf("round %d: %s", round, s.Format(nil))
		}
	}
}
