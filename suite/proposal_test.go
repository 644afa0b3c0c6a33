package suite_test

import (
	"errors"
	"strings"
	"testing"

	"adit/suite"
)

func TestParseProposal(t *testing.T) {
	for _, v := range []struct {
		protocol suite.Protocol
		in, want string
	}{
		{suite.IKE, "aes256gcm16-prfsha384-ecp384", "IKE:AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_384"},
		{suite.IKE, "aes128-sha256-modp3072", "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_3072"},
		{suite.IKE, " aes - sha1 - modp2048 ", "IKE:AES_CBC_128/HMAC_SHA1_96/PRF_HMAC_SHA1/MODP_2048"},
		{suite.IKE, "aes256-aes128-sha512-sha384-x25519", "IKE:AES_CBC_256/AES_CBC_128/HMAC_SHA2_512_256/HMAC_SHA2_384_192/PRF_HMAC_SHA2_512/PRF_HMAC_SHA2_384/CURVE_25519"},
		{suite.IKE, "aes256-sha256-prfaesxcbc-x448", "IKE:AES_CBC_256/HMAC_SHA2_256_128/PRF_AES128_XCBC/CURVE_448"},
		{suite.IKE, "aes256ctr-aesxcbc-aescmac-ecp521", "IKE:AES_CTR_256/AES_XCBC_96/AES_CMAC_96/PRF_AES128_XCBC/PRF_AES128_CMAC/ECP_521"},
		// Integrity beside AEAD goes, the PRF that follows from it stays.
		{suite.IKE, "aes128gcm16-sha256-ecp256", "IKE:AES_GCM_16_128/PRF_HMAC_SHA2_256/ECP_256"},
		{suite.IKE, "chacha20poly1305-prfsha256-curve25519-none", "IKE:CHACHA20_POLY1305/PRF_HMAC_SHA2_256/CURVE_25519"},
		{suite.IKE, "aes192ccm-aes192ccm8-prfaescmac-modp8192", "IKE:AES_CCM_16_192/AES_CCM_8_192/PRF_AES128_CMAC/MODP_8192"},
		{suite.ESP, "aes256gcm16", "ESP:AES_GCM_16_256/NO_EXT_SEQ"},
		{suite.ESP, "aes256gcm128-ecp384-esn", "ESP:AES_GCM_16_256/ECP_384/EXT_SEQ"},
		{suite.ESP, "aes128gcm8-aes128gcm96-esn-noesn", "ESP:AES_GCM_8_128/AES_GCM_12_128/EXT_SEQ/NO_EXT_SEQ"},
		{suite.ESP, "aes128-sha256-modp2048-none", "ESP:AES_CBC_128/HMAC_SHA2_256_128/MODP_2048/KE_NONE/NO_EXT_SEQ"},
		{suite.ESP, "aes256-sha256-prfsha256", "ESP:AES_CBC_256/HMAC_SHA2_256_128/NO_EXT_SEQ"},
		{suite.ESP, "null-sha256", "ESP:NULL/HMAC_SHA2_256_128/NO_EXT_SEQ"},
		{suite.ESP, "aes256gmac-x25519", "ESP:NULL_AES_GMAC_256/CURVE_25519/NO_EXT_SEQ"},
		{suite.ESP, "aes128-aes128-sha256-sha2_256", "ESP:AES_CBC_128/HMAC_SHA2_256_128/NO_EXT_SEQ"},
		{suite.ESP, "chacha20poly1305compat", "ESP:CHACHA20_POLY1305_256/NO_EXT_SEQ"},
		{suite.IKE, "3des-md5-modp1024", "IKE:3DES_CBC/HMAC_MD5_96/PRF_HMAC_MD5/MODP_1024"},
		{suite.ESP, "3des-md5", "ESP:3DES_CBC/HMAC_MD5_96/NO_EXT_SEQ"},
		{suite.AH, "aes128-sha256-esn", "AH:HMAC_SHA2_256_128/EXT_SEQ"},
	} {
		p, err := suite.ParseProposal(v.protocol, v.in)
		if err != nil {
			t.Errorf("%s %q: %v", v.protocol, v.in, err)
			continue
		}
		if p.String() != v.want {
			t.Errorf("%s %q\n got %s\nwant %s", v.protocol, v.in, p, v.want)
		}
		again, err := suite.ParseProposal(v.protocol, p.Keywords())
		if err != nil || again.String() != p.String() {
			t.Errorf("%s: keywords %q give %s, %v", p, p.Keywords(), again, err)
		}
	}
}

func TestParseProposal_Refuses(t *testing.T) {
	for _, v := range []struct {
		protocol               suite.Protocol
		in, keyword, near, in2 string // in2: part of the message
	}{
		{suite.IKE, "", "", "", "empty"},
		{suite.IKE, "aes256--sha256", "", "", "hyphen"},
		{suite.ESP, "aes257gcm16", "aes257gcm16", "aes256gcm16", "did you mean"},
		{suite.ESP, "aes256-sah256", "sah256", "sha256", "no such algorithm"},
		{suite.IKE, "aes256-sha256-ecp265", "ecp265", "ecp256", "did you mean"},
		{suite.IKE, "aes256-sha256-" + strings.Repeat("x", 10000), strings.Repeat("x", 10000), "", "no such"},
		{suite.ESP, "AES256", "AES256", "aes256", "no such"},
		{suite.ESP, "des-sha1", "des", "", "DES is broken"},
		{suite.ESP, "aes128-md5_128", "md5_128", "", "MD5"},
		{suite.IKE, "aes128-sha256-modp768", "modp768", "", "broken"},
		{suite.IKE, "aes128-sha256-modp1024s160", "modp1024s160", "", "5114"},
		{suite.IKE, "aes128-sha256-x25519-ke1_x25519", "ke1_curve25519", "", "9370"},
		{suite.IKE, "aes128-sha256-x25519-ke1_mlkem768-ke2_mlkem768", "ke2_mlkem768", "", "9370"},
		{suite.IKE, "aes128-sha256-x25519-ke8_mlkem768", "ke8_mlkem768", "ke1_mlkem768", "no such"},
		{suite.IKE, "aes128-sha256-x25519-mlkem76", "mlkem76", "mlkem768", "no such"},
		{suite.ESP, "aes128gcm16-ke1_mlkem768", "ke1_mlkem768", "", "needs a first one"},
		{suite.ESP, "aes128-default", "default", "", "alone"},
		{suite.ESP, "aes128", "aes128", "", "without integrity"},
		{suite.ESP, "null", "null", "", "without integrity"},
		{suite.ESP, "sha256", "", "", "encryption algorithm is missing"},
		{suite.ESP, "aes128gcm16-aes128-sha256", "aes128", "", "can't share"},
		{suite.ESP, "aes128-aes128gcm16-sha256", "aes128gcm16", "", "can't share"},
		{suite.IKE, "aes128-prfsha256-ecp256", "aes128", "", "without integrity"},
		{suite.IKE, "aes128gcm16-ecp256", "", "", "pseudo-random"},
		{suite.IKE, "aes128gcm16-prfsha256", "", "", "key exchange"},
		{suite.IKE, "aes128gcm16-prfsha256-none", "", "", "key exchange"},
		{suite.IKE, "null-sha256-ecp256", "null", "", "must be encrypted"},
		{suite.IKE, "aes128gmac-prfsha256-ecp256", "aes128gmac", "", "must be encrypted"},
		{suite.IKE, "aes128-sha256-ecp256-esn", "esn", "", "sequence numbers"},
		{suite.AH, "aes128", "", "", "integrity"},
		{suite.AH, "aes128gmac", "aes128gmac", "", "AES-GMAC"},
		{0, "aes128-sha256", "", "", "protocol"},
	} {
		_, err := suite.ParseProposal(v.protocol, v.in)
		var pe *suite.ParseError
		if !errors.As(err, &pe) {
			t.Errorf("%s %q: %v", v.protocol, v.in, err)
			continue
		}
		if pe.Keyword != v.keyword || pe.Nearest != v.near || !strings.Contains(err.Error(), v.in2) || len(err.Error()) > 700 {
			t.Errorf("%s %.40q: keyword %.40q, nearest %q: %.700s", v.protocol, v.in, pe.Keyword, pe.Nearest, err)
		}
	}
}

func TestParseProposals_Default(t *testing.T) {
	for protocol, want := range map[suite.Protocol][]string{
		suite.IKE: {
			"IKE:AES_GCM_16_128/AES_GCM_16_192/AES_GCM_16_256/CHACHA20_POLY1305/PRF_HMAC_SHA2_256/PRF_HMAC_SHA2_384/PRF_HMAC_SHA2_512/CURVE_25519/ECP_256/ECP_384/ECP_521/CURVE_448/MODP_3072/MODP_4096/MODP_2048/KE1_ML_KEM_768/KE1_ML_KEM_1024",
			"IKE:AES_GCM_16_128/AES_GCM_16_192/AES_GCM_16_256/CHACHA20_POLY1305/PRF_HMAC_SHA2_256/PRF_HMAC_SHA2_384/PRF_HMAC_SHA2_512/CURVE_25519/ECP_256/ECP_384/ECP_521/CURVE_448/MODP_3072/MODP_4096/MODP_2048",
			"IKE:AES_CBC_128/AES_CBC_192/AES_CBC_256/HMAC_SHA2_256_128/HMAC_SHA2_384_192/HMAC_SHA2_512_256/PRF_HMAC_SHA2_256/PRF_HMAC_SHA2_384/PRF_HMAC_SHA2_512/CURVE_25519/ECP_256/ECP_384/ECP_521/CURVE_448/MODP_3072/MODP_4096/MODP_2048",
		},
		suite.ESP: {
			"ESP:AES_GCM_16_128/AES_GCM_16_192/AES_GCM_16_256/CURVE_25519/ECP_256/ECP_384/ECP_521/CURVE_448/MODP_3072/MODP_4096/MODP_2048/KE_NONE/NO_EXT_SEQ",
			"ESP:AES_CBC_128/AES_CBC_192/AES_CBC_256/HMAC_SHA2_256_128/HMAC_SHA2_384_192/HMAC_SHA2_512_256/CURVE_25519/ECP_256/ECP_384/ECP_521/CURVE_448/MODP_3072/MODP_4096/MODP_2048/KE_NONE/NO_EXT_SEQ",
		},
		suite.AH: {"AH:HMAC_SHA2_256_128/HMAC_SHA2_384_192/HMAC_SHA2_512_256/CURVE_25519/ECP_256/ECP_384/ECP_521/CURVE_448/MODP_3072/MODP_4096/MODP_2048/KE_NONE/NO_EXT_SEQ"},
	} {
		list, err := suite.ParseProposals(protocol, []string{"default"})
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != len(want) {
			t.Fatalf("%s: %d proposals", protocol, len(list))
		}
		for i, p := range list {
			if p.String() != want[i] {
				t.Errorf("got  %s\nwant %s", p, want[i])
			}
			if weak := p.Weak(); len(weak) != 0 {
				t.Errorf("%s: weak by default: %v", protocol, weak)
			}
			if _, err := suite.ParseProposal(protocol, p.Keywords()); err != nil {
				t.Errorf("the default does not parse: %v", err)
			}
		}
	}
	list, err := suite.ParseProposals(suite.ESP, []string{"aes256gcm16-esn", "default"})
	if err != nil || len(list) != 3 || list[0].String() != "ESP:AES_GCM_16_256/EXT_SEQ" {
		t.Errorf("%v %v", list, err)
	}
	for _, bad := range [][]string{nil, {"default", "aes128"}} {
		if _, err := suite.ParseProposals(suite.ESP, bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func TestProposal_Weak(t *testing.T) {
	for in, want := range map[string]string{
		"aes128-sha1-modp1024": "HMAC_SHA1_96 MODP_1024", "null-sha256": "NULL", "3des-md5": "3DES_CBC HMAC_MD5_96", "aes128gmac": "NULL_AES_GMAC_128",
		"aes128-sha256-modp1536": "MODP_1536", "aes256gcm16-modp2048": "",
	} {
		p, err := suite.ParseProposal(suite.ESP, in)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, w := range p.Weak() {
			got = append(got, w.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v", in, got)
		}
	}
}

func TestProposal_Edits(t *testing.T) {
	p, err := suite.ParseProposal(suite.ESP, "aes128gcm16-ecp256-ecp384-none")
	if err != nil {
		t.Fatal(err)
	}
	before := p.String()
	first, ok := p.WithKEFirst(suite.KEECP384)
	if !ok || first.String() != "ESP:AES_GCM_16_128/ECP_384/ECP_256/KE_NONE/NO_EXT_SEQ" {
		t.Error(first)
	}
	if same, ok := p.WithKEFirst(suite.KEECP521); ok || same.String() != before {
		t.Error(same)
	}
	if got := p.WithoutKE().String(); got != "ESP:AES_GCM_16_128/NO_EXT_SEQ" {
		t.Error(got)
	}
	if p.String() != before {
		t.Error("the original changed")
	}
	if ke, ok := p.First(suite.TypeKE); !ok || ke.ID != suite.KEECP256 {
		t.Error(ke)
	}
	if _, ok := p.First(suite.TypePRF); ok {
		t.Error("a PRF in ESP")
	}
}

// Names as strongSwan prints them, for what we don't implement too: peers offer it.
func TestTransform_Names(t *testing.T) {
	for _, v := range []struct {
		typ  suite.TransformType
		id   suite.TransformID
		bits uint16
		want string
	}{
		{suite.TypeENCR, 3, 0, "3DES_CBC"}, {suite.TypeENCR, 12, 256, "AES_CBC_256"}, {suite.TypeENCR, 20, 128, "AES_GCM_16_128"},
		{suite.TypeENCR, 28, 0, "CHACHA20_POLY1305"}, {suite.TypeENCR, 23, 128, "CAMELLIA_CBC_128"}, {suite.TypeENCR, 999, 0, "(999)"},
		{suite.TypeINTEG, 1, 0, "HMAC_MD5_96"}, {suite.TypeINTEG, 12, 0, "HMAC_SHA2_256_128"}, {suite.TypePRF, 5, 0, "PRF_HMAC_SHA2_256"},
		{suite.TypeKE, 31, 0, "CURVE_25519"}, {suite.TypeKE, 36, 0, "ML_KEM_768"}, {suite.TypeKE, 0, 0, "KE_NONE"},
		{suite.TypeADDKE2, 36, 0, "KE2_ML_KEM_768"}, {suite.TypeSN, 1, 0, "EXT_SEQ"}, {99, 7, 0, "UNKNOWN_99_7"},
		{suite.TypeENCR, 12, suite.KeyBitsUnknown, "AES_CBC_(unknown attribute)"},
	} {
		if got := (suite.Transform{Type: v.typ, ID: v.id, KeyBits: v.bits}).String(); got != v.want {
			t.Errorf("got %s, want %s", got, v.want)
		}
	}
}

func FuzzParseProposal(f *testing.F) {
	for _, s := range []string{
		"aes256gcm16-prfsha384-ecp384", "aes128-sha256-modp2048-none-esn", "null-sha1", "default", "-", "aes256gmac",
		"chacha20poly1305compat-prfaescmac-x448", "aes257", "ke1_mlkem768", "\x00", strings.Repeat("aes-", 1000),
	} {
		f.Add(uint8(suite.IKE), s)
		f.Add(uint8(suite.ESP), s)
		f.Add(uint8(suite.AH), s)
	}
	f.Fuzz(func(t *testing.T, protocol uint8, s string) {
		p, err := suite.ParseProposal(suite.Protocol(protocol), s)
		if err != nil {
			var pe *suite.ParseError
			if !errors.As(err, &pe) || len(err.Error()) > 3000 {
				t.Fatalf("error %T of %d bytes", err, len(err.Error()))
			}
			return
		}
		if len(p.Transforms) > 255 { // what the wire can carry (RFC 7296 §3.3.1)
			t.Fatal("too many transforms")
		}
		again, err := suite.ParseProposal(p.Protocol, p.Keywords())
		if err != nil || again.String() != p.String() {
			t.Fatalf("%q: %s is not stable: %s, %v", s, p, again, err)
		}
		// What parses can be agreed on with itself, and then be used.
		sel, i, err := suite.Select([]suite.Proposal{p}, []suite.Proposal{p}, suite.SelectOptions{})
		if err != nil || i != 0 {
			t.Fatalf("%s against itself: %v", p, err)
		}
		enc, ing, err := sel.KeyLengths()
		if err != nil {
			t.Fatalf("%s: %v", sel, err)
		}
		if _, err := suite.NewCipher(sel.Encr, sel.Integ, make(suite.Key, enc), make(suite.Key, ing)); err != nil {
			t.Fatalf("%s: %v", sel, err)
		}
		if p.Protocol == suite.IKE {
			if _, err := suite.NewPRF(sel.PRF); err != nil {
				t.Fatalf("%s: %v", sel, err)
			}
		}
		if sel.KEPresent && suite.PublicLen(sel.KE.ID) == 0 {
			t.Fatalf("%s: no such key exchange", sel)
		}
	})
}
