// Package wycheproof gives tests the vectors of C2SP/wycheproof.
//
// It owns where they come from (the Go module cache, pinned by a checksum) and how
// their hexadecimal is read; what a vector means is the test's. Nothing here may be
// used by the product. Start with Load.
package wycheproof

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

const (
	module = "github.com/C2SP/wycheproof@v0.0.0-20250901140545-b51abcfb8daf"
	sum    = "h1:5BKKVVVj676FUWirLcouEEL6GCYR9X0opkMlEUck8FY="
)

var dir = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "mod", "download", "-json", module).Output()
	var m struct{ Dir, Sum, Error string }
	if jsonErr := json.Unmarshal(out, &m); jsonErr == nil && m.Error != "" {
		return "", errors.New(m.Error)
	}
	if err != nil {
		return "", err
	}
	if m.Sum != sum {
		return "", errors.New("another checksum: " + m.Sum)
	}
	return filepath.Join(m.Dir, "testvectors_v1"), nil
})

// Hex are octets that a file has in hexadecimal.
type Hex []byte

// UnmarshalJSON reads them.
func (h *Hex) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	raw, err := hex.DecodeString(s)
	*h = raw
	return err
}

// Load reads one file into doc. A test without the vectors fails as root and is
// skipped elsewhere.
func Load(t testing.TB, file string, doc any) {
	t.Helper()
	dir, err := dir()
	if err != nil {
		if os.Geteuid() == 0 {
			t.Fatalf("the Wycheproof vectors can't be had: %v", err)
		}
		t.Skipf("the Wycheproof vectors can't be had (this fails as root): %v", err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, doc); err != nil {
		t.Fatal(err)
	}
}
