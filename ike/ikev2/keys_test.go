package ikev2_test

import (
	"bytes"
	"encoding/hex"
	"testing"

	"adit/ike/ikev2"
	"adit/suite"
)

// NIST CAVP, SP 800-135 IKEv2 KDF, [SHA-1, 64-bit nonces, 256-bit g^ir, 1056-bit
// DKM], case 0. 1056 bits are exactly what AES-128 with HMAC-SHA-1 takes.
func TestRFC7296_2_14_KeyMaterialNIST(t *testing.T) {
	b := func(s string) []byte {
		x, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	sel := suite.Selected{Protocol: suite.IKE,
		Encr:  suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESCBC, KeyBits: 128},
		Integ: suite.Transform{Type: suite.TypeINTEG, ID: suite.IntegHMACSHA1_96},
		PRF:   suite.Transform{Type: suite.TypePRF, ID: suite.PRFHMACSHA1}}
	ike, child, childKE, rekey, err := ikev2.Derive(sel,
		b("4b2c1f971981a8ad8d0abeafabf38cf75fc8349c148142465ed9c8b516b8be52"),
		b("863f3c9d06efd39d2b907b97f8699e5dd5251ef64a2a176f36ee40c87d4f9330"),
		b("32b50d5f4a3763f3"), b("9206a04b26564cb1"), 0x34c9e7c188868785, 0x3ff77d760d2b2199)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, want string
		got        []byte
	}{
		{"DKM", "a14293677cc80ff8f9cc0eee30d895da9d8f405666e30ef0dfcb63c634a46002a2a63080e514a062768b76606f9fa5e992204fc5a670bde3f10d6b027113936a5c55b648a194ae587b0088d52204b702c979fa280870d2ed41efa9c549fd11198af1670b143d384bd275c5f594cf266b05ebadca855e4249520a441a81157435a7a56cc4", ike},
		{"DKM (Child SA)", "8059e3ee8810e6c3a91bc8bcd2a7a41151b8d0e6ae239c7b38093ad85ef4c5811a8e7b5d1cdabd9560b2d5e092d1f24e2d4b85eccdf0ad0dc9abd94b51ee71814ca6dbc8bb51b630", child},
		{"DKM (Child SA D-H)", "bb43244c1860ad65ee1e211ffe8bb3661750c8f89cb9f547df7f4fa61d37301628190e38c66232eab4b3ab14c400a5197dd3730ed4820a8a10394d51e1c0400052f63ebd36b0e7ef", childKE},
		{"SKEYSEED (rekey)", "63e81194946ebd05df7df5ebf5d8750056bf1f1d", rekey},
	} {
		if !bytes.Equal(tt.got, b(tt.want)) {
			t.Errorf("%s: %x, want %s", tt.name, tt.got, tt.want)
		}
	}
}
