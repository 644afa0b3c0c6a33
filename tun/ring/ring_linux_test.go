package ring

import "testing"

func TestLoad(t *testing.T) {
	r, err := New(1, 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
}
