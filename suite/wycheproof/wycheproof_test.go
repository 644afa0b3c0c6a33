package wycheproof

import (
	"encoding/hex"
	"encoding/json"
	"testing"
)

// What is read is what was written; what is no hexadecimal is refused.
func FuzzHex(f *testing.F) {
	for _, s := range []string{`""`, `"00ff"`, `"0"`, `"zz"`, `7`, `null`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Hex
		if h.UnmarshalJSON(b) != nil {
			return
		}
		again, _ := json.Marshal(hex.EncodeToString(h))
		var same Hex
		if err := same.UnmarshalJSON(again); err != nil || string(same) != string(h) {
			t.Fatalf("%s became %x, then %x: %v", b, []byte(h), []byte(same), err)
		}
	})
}
