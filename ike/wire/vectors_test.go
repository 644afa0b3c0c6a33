package wire_test

import (
	"bufio"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// captured is one logical message of testdata: several datagrams when it was
// sent in fragments.
type captured struct {
	exchange, direction, id string
	chain                   []string
	wire, plain             [][]byte
}

// readCaptures reads every file of testdata in the format that its head
// describes.
func readCaptures(t testing.TB) []captured {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures in testdata: %v", err)
	}
	var all []captured
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		s := bufio.NewScanner(f)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			field := strings.Fields(s.Text())
			if len(field) == 0 || strings.HasPrefix(field[0], "#") {
				continue
			}
			if field[0] == "message" {
				all = append(all, captured{exchange: field[1], direction: field[2], id: field[3], chain: field[4:]})
				continue
			}
			c := &all[len(all)-1]
			b := unhex(t, strings.Join(field[1:], ""))
			switch field[0] {
			case "wire":
				c.wire = append(c.wire, b)
			case "plain":
				c.plain = append(c.plain, b)
			default:
				t.Fatalf("%s: unknown line %q", name, field[0])
			}
		}
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return all
}

// unhex decodes hex with spaces and line breaks in it.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatalf("bad hex in the test: %v", err)
	}
	return b
}
