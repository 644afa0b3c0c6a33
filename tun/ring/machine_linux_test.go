package ring

import "testing"

// TestMachine: on a machine for which it isn't the program refuses to load, and says why.
func TestMachine(t *testing.T) {
	for _, c := range []struct {
		little bool
		word   int
		ok     bool
	}{{true, 64, true}, {false, 64, false}, {true, 32, false}, {false, 32, false}} {
		if err := machine(c.little, c.word); (err == nil) != c.ok {
			t.Errorf("little-endian %v, %d bits: %v", c.little, c.word, err)
		}
	}
}
