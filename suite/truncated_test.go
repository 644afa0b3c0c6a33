package suite_test

import (
	"bytes"
	"testing"

	"adit/suite"
)

// The truncation of sha256_96 is the beginning of RFC 4868's, and no proposal can ask for it.
func TestSHA256CutTo96Bits(t *testing.T) {
	aes := suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESCBC, KeyBits: 128}
	icv := func(id suite.TransformID) []byte {
		integ := suite.Transform{Type: suite.TypeINTEG, ID: id}
		enc, ing, err := suite.KeyLengths(aes, integ)
		if err != nil || enc != 16 || ing != 32 {
			t.Fatal(enc, ing, err)
		}
		c, err := suite.NewCipher(aes, integ, bytes.Repeat([]byte{1}, enc), bytes.Repeat([]byte{2}, ing))
		if err != nil {
			t.Fatal(err)
		}
		text, iv, out := make([]byte, 32), make([]byte, 16), make([]byte, c.ICVLen())
		c.Seal([]byte("12345678"), iv, text, out, nil)
		return out
	}
	long, short := icv(suite.IntegHMACSHA2_256_128), icv(suite.IntegHMACSHA2_256_96)
	if len(long) != 16 || len(short) != 12 || !bytes.Equal(long[:12], short) {
		t.Errorf("%x\n%x", long, short)
	}
	if _, err := suite.ParseProposals(suite.ESP, []string{"aes128-sha256_96"}); err == nil {
		t.Error("it can be asked for")
	}
}
