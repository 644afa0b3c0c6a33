package ikev1_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"testing"

	"adit/ike/ikev1"
	"adit/suite"
)

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRFC2409_5_KeyVectors has the keys of phase 1 from NIST's vectors for the key
// derivation of IKEv1 (CAVP, SP 800-135, ikev1_dsa and ikev1_psk; the first is also the
// sample of NIST's 800-135testvectors/ikev1.zip, those with SHA-256 are in NSS's
// ike-sha256-vectors as well).
func TestRFC2409_5_KeyVectors(t *testing.T) {
	sha1 := suite.Transform{Type: suite.TypePRF, ID: suite.PRFHMACSHA1}
	sha2 := suite.Transform{Type: suite.TypePRF, ID: suite.PRFHMACSHA2_256}
	for _, v := range []struct {
		name                          string
		prf                           suite.Transform
		ckyI, ckyR, ni, nr, psk, gxy  string
		skeyid, skeyidD, keyidA, keyE string
	}{
		{"dsa SHA-1", sha1, "382e5c8b0a3fa307", "ba4b7616700a2413", "ced5635da6796075", "6244b427712fb776", "",
			"2a2e0bbe8da3657a83f3d35826e49e2d38e557e912a1b9e6c30c63577b3eab715466202862027f2c26f3090743555579611771db0b92bef93834432a3a7762fc8a0f4889fd281d6082770d10a40d7bad61e832f041e620d6787e7f62ab2861ddfbe272e0d9d3cdec5f1bbf750e24b8b32d6d714968ad69ce5086c32ad2742ebc",
			"dc37ac99de6dcfbd1ee74af7fb36f9b4b0a7829d", "486293ed547adb562cefdaf43d3d8457b196f2b6", "f4053b5ca07e59bb41b8f401037ca90b72b3917e", "49a1d53a80fb77e663552964fbbcb45092021473"},
		{"dsa SHA-256", sha2, "6c6beb72631ddc3d", "b84e24b22cffbd14",
			"b1dee62505b47b223bae14ce7a5b757402ad1587511618d09f94950d47f1d8d4ce86aca12d78db9854d86019ad735757ae79d8932ac0c7db842c85060150ca875ea5d47e3cfcb2a05922ebb7959d49b9797a2289676ee79a1d9a18b790f87e4771ddaf4be3376057a553162f68fe429aca73b07234543801ba2122b1bde82251770d05df813cf556a11ca4dc43ffcb85a97dbed16e2fda6985e07e31be6364899e63c507c7c616e5eb7765a53560f76772de43918ba07badfe85244dcdcd917cb065afb60e3b7e68b54dd94bfc7c31c8b752892781ed3cc4b7f28fbc0ab9af908f5ae1f09f893f80100a7b3135993161b51fbba3bbb24b9f88c6147de82cd6f0",
			"f0acfef2ad1f7add0eaafda78c1cf1097d9fc91cb04a7c145069ac426fd164cbe661b1dd2df0fb84e19512181f0d8ea50b7860845f332757a8e56d2a3b7be436b5718a2d49baa996a4616684a208c2d611cd65e605dca6e3d3f116859b4410fe13679696bb2e23c08a40c7e1316d54b4c9c0286701c221151b3642cb4112ca1a53e0e597a7e29c634caed86ca3c31973d37b4c346134fd6784cd99913feedf3d29d89a0a02a5a750f02f5738109dcc670bb27701fb59f78e83b76860c3fec079a1fc8c937ddb58ae7500422b7e49ce63759c65b6bc439381d56bcc159edede894b073841036ebfa050a5b3e7c876a3f18def26b1768a263ac66c9d83b680eb5e",
			"", "a1ff3dc6cf9b4c04709943cb4ca1f1789bcf360b03f1d027de3ae8ee039e9155",
			"750c5c94b9c2ec20b68033e024dadf0fa87e8b48c6561b21c72478451a06583d", "a4f7ca7de913814813e3312099e7c943bd293483f387532330237f1b20957310",
			"1d4b705746c43b0a6fcbb8db33983c0f24ff6f8b6543e3779fed227c6067f004", "03e6f16cd9ce9f64b5cdc5b34cca7163483ba5389a30afebef3d14640b0a815e"},
		{"psk SHA-256", sha2, "0000000000000001", "0000000000000002", "ead9ced494868f41", "f1aff4f425a94f18", "a0", "01",
			"558a99b299773d267cf7c8ef073bf3b7af362c206c75a538403c5ef884d4cace", "", "", ""},
	} {
		sel := suite.Selected{PRF: v.prf, Encr: suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESCBC, KeyBits: 256}}
		var cookies [16]byte
		copy(cookies[:], unhex(t, v.ckyI+v.ckyR))
		var psk []byte
		if v.psk != "" {
			psk = unhex(t, v.psk)
		}
		got, err := ikev1.Derive(sel, psk, unhex(t, v.gxy), cookies, nil, nil, unhex(t, v.ni), unhex(t, v.nr))
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range []struct {
			what string
			got  []byte
			want string
		}{{"SKEYID", got.SKEYID, v.skeyid}, {"SKEYID_d", got.D, v.skeyidD}, {"SKEYID_a", got.A, v.keyidA}, {"SKEYID_e", got.E, v.keyE}} {
			if x.want != "" && !bytes.Equal(x.got, unhex(t, x.want)) {
				t.Errorf("%s: %s is %x", v.name, x.what, x.got)
			}
		}
	}
}

// TestRFC2409_B_LongKeys makes keys that are longer than the PRF's output: of SKEYID_e for
// the cipher of phase 1, and KEYMAT (NSS's ike-sha256-vectors 11, 13, 14).
func TestRFC2409_B_LongKeys(t *testing.T) {
	prf, _ := suite.NewPRF(suite.Transform{Type: suite.TypePRF, ID: suite.PRFHMACSHA2_256})
	key := suite.Key(unhex(t, "5f00d1bd2c58ec224b1e6b71fa0f19a1faa7a193952c444411b47c1a9d8ba6fe"))
	const long = "b10fff32cbeaa1e7afe6ab0b191e0bd63cd524849a4b56019146d232a24cf9af6b89494d2a360b06825db8bb0324c15cecf47fc0bc99e39bf1171a7f4bf1733dc49ef64c642e73b054b2e82456e34fa3c822da475e27e403b3da3929da50e6aa9e7f9252c68fa069b4b0edd374e80d35378c4f5e8ec285a1b169c92bbb5353d05ba94165"
	const quick = "b10fff32cbeaa1e7afe6ab0b191e0bd63cd524849a4b56019146d232a24cf9af59f18ed9aabbb2dbbafecf48d72a34a8f72fab2ff4f37e5c917288a78ce00933612e9531a7469995c7f7cc33c7627cac3efbc819330c4fe3bfa3788799630f37bcb74800d82bbebd17b1906e304a786f4f810c266c15be1a30576039c293272748d65966"
	if got := ikev1.Lengthen(prf, key, 132); !bytes.Equal(got, unhex(t, long)) {
		t.Errorf("132 octets of SKEYID_e: %x", got)
	}
	if got := ikev1.Lengthen(prf, key, 15); !bytes.Equal(got, key[:15]) {
		t.Errorf("15 octets of SKEYID_e: %x", got)
	}
	// 3DES under MD5 and SHA-1 takes 24 octets of K1 | K2.
	for id, h := range map[suite.TransformID]func() hash.Hash{suite.PRFHMACMD5: md5.New, suite.PRFHMACSHA1: sha1.New} {
		mac := func(data []byte) []byte {
			m := hmac.New(h, key[:16])
			m.Write(data)
			return m.Sum(nil)
		}
		old, _ := suite.NewPRF(suite.Transform{Type: suite.TypePRF, ID: id})
		k1 := mac([]byte{0})
		if got := ikev1.Lengthen(old, key[:16], 24); !bytes.Equal(got, append(k1, mac(k1)...)[:24]) {
			t.Errorf("24 octets of SKEYID_e by %s: %x", old.Transform(), got)
		}
	}
	if got := ikev1.Expand(prf, key, []byte{0}, 132); !bytes.Equal(got, unhex(t, quick)) {
		t.Errorf("132 octets of KEYMAT: %x", got)
	}
}

// TestRFC2409_5_5_Keymat compares KEYMAT with the formulas of RFC 2409 §5.5 written out,
// without PFS and with it.
func TestRFC2409_5_5_Keymat(t *testing.T) {
	d, ni, nr := suite.Key("a key to derive others from"), []byte("nonce of i"), []byte("nonce of r")
	sel := suite.Selected{Protocol: suite.ESP, Encr: suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESCBC, KeyBits: 256}, Integ: suite.Transform{Type: suite.TypeINTEG, ID: suite.IntegHMACSHA2_256_128}}
	prf := func(parts ...string) string {
		h := hmac.New(sha256.New, d)
		for _, p := range parts {
			h.Write([]byte(p))
		}
		return string(h.Sum(nil))
	}
	for _, secret := range []string{"", "a secret of Diffie and Hellman"} {
		// [g(qm)^xy |] protocol | SPI | Ni_b | Nr_b; protocol 3 is ESP (RFC 2407 §4.4.1).
		seed := secret + "\x03" + "\x01\x02\x03\x04" + string(ni) + string(nr)
		k1 := prf(seed)
		k2 := prf(k1, seed)
		enc, integ, err := ikev1.Keymat(suite.Transform{Type: suite.TypePRF, ID: suite.PRFHMACSHA2_256}, d, suite.Key(secret), sel, 0x01020304, ni, nr)
		if err != nil || string(enc) != k1 || string(integ) != k2 {
			t.Errorf("with secret %q: %x %x, %v", secret, enc, integ, err)
		}
	}
}
