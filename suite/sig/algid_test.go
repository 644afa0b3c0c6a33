package sig_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"adit/suite/sig"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	oidSHA256 = "0609 6086 4801 6503 0402 01"
	oidSHA1   = "0605 2b0e 0302 1a"
	oidMGF1   = "0609 2a86 4886 f70d 0101 08"
	oidPSS    = "0609 2a86 4886 f70d 0101 0a"
)

// RFC 7427 appendix A prints these bytes.
func TestRFC7427_A_AlgorithmIdentifiers(t *testing.T) {
	for _, tt := range []struct {
		name, der string
		want      sig.Scheme
		err       error
		parseOnly bool
	}{
		{"A.1.1 sha1WithRSAEncryption", "300d 0609 2a86 4886 f70d 0101 0505 00", sig.Scheme{}, sig.ErrWeakHash, true},
		{"A.1.2 sha256WithRSAEncryption", "300d 0609 2a86 4886 f70d 0101 0b05 00", sig.Scheme{Algorithm: sig.RSAPKCS1, Hash: sig.SHA256}, nil, false},
		{"A.1.3 sha384WithRSAEncryption", "300d 0609 2a86 4886 f70d 0101 0c05 00", sig.Scheme{Algorithm: sig.RSAPKCS1, Hash: sig.SHA384}, nil, false},
		{"A.1.4 sha512WithRSAEncryption", "300d 0609 2a86 4886 f70d 0101 0d05 00", sig.Scheme{Algorithm: sig.RSAPKCS1, Hash: sig.SHA512}, nil, false},
		{"A.2.1 dsa-with-sha1", "3009 0607 2a86 48ce 3804 03", sig.Scheme{}, sig.ErrAlgorithm, true},
		{"A.2.2 dsa-with-sha256", "300b 0609 6086 4801 6503 0403 02", sig.Scheme{}, sig.ErrAlgorithm, true},
		{"A.3.1 ecdsa-with-SHA1", "3009 0607 2a86 48ce 3d04 01", sig.Scheme{}, sig.ErrWeakHash, true},
		{"A.3.2 ecdsa-with-SHA256", "300a 0608 2a86 48ce 3d04 0302", sig.Scheme{Algorithm: sig.ECDSA, Hash: sig.SHA256}, nil, false},
		{"A.3.3 ecdsa-with-SHA384", "300a 0608 2a86 48ce 3d04 0303", sig.Scheme{Algorithm: sig.ECDSA, Hash: sig.SHA384}, nil, false},
		{"A.3.4 ecdsa-with-SHA512", "300a 0608 2a86 48ce 3d04 0304", sig.Scheme{Algorithm: sig.ECDSA, Hash: sig.SHA512}, nil, false},
		{"A.4.1 RSASSA-PSS, empty", "300d 0609 2a86 4886 f70d 0101 0a30 00", sig.Scheme{}, sig.ErrWeakHash, true},
		{"A.4.2 RSASSA-PSS, default", "303e 0609 2a86 4886 f70d 0101 0a30 31a0 0b30 0906 052b 0e03 021a 0500 a118 3016 0609 2a86 4886 f70d 0101 0830 0906 052b 0e03 021a 0500 a203 0201 14a3 0302 0101", sig.Scheme{}, sig.ErrWeakHash, true},
		{"A.4.3 RSASSA-PSS, SHA-256", "3046 0609 2a86 4886 f70d 0101 0a30 39a0 0f30 0d06 0960 8648 0165 0304 0201 0500 a11c 301a 0609 2a86 4886 f70d 0101 0830 0d06 0960 8648 0165 0304 0201 0500 a203 0201 20a3 0302 0101", sig.PSS(sig.SHA256), nil, true},
		{"without the default trailer", "3041 0609 2a86 4886 f70d 0101 0a30 34a0 0f30 0d06 0960 8648 0165 0304 0201 0500 a11c 301a 0609 2a86 4886 f70d 0101 0830 0d06 0960 8648 0165 0304 0201 0500 a203 0201 20", sig.PSS(sig.SHA256), nil, false},
		{"RFC 8420 A.1 Ed25519", "3005 0603 2b65 70", sig.Scheme{Algorithm: sig.Ed25519, Hash: sig.Identity}, nil, false},
		{"RFC 8420 A.2 Ed448", "3005 0603 2b65 71", sig.Scheme{Algorithm: sig.Ed448, Hash: sig.Identity}, nil, false},
		{"RFC 4055 §5, NULL left out", "300b 0609 2a86 4886 f70d 0101 0b", sig.Scheme{Algorithm: sig.RSAPKCS1, Hash: sig.SHA256}, nil, true},
		{"ECDSA with NULL", "300c 0608 2a86 48ce 3d04 0302 0500", sig.Scheme{Algorithm: sig.ECDSA, Hash: sig.SHA256}, nil, true},
	} {
		der := unhex(t, tt.der)
		s, err := sig.ParseAlgorithm(der)
		if s != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: %v %v", tt.name, s, err)
		}
		if tt.parseOnly {
			continue
		}
		if out, err := sig.AppendAlgorithm(nil, tt.want); err != nil || !bytes.Equal(out, der) {
			t.Errorf("%s is written as %x, %v", tt.name, out, err)
		}
	}
	for _, s := range []sig.Scheme{{Algorithm: sig.RSAPKCS1, Hash: sig.SHA1}, {Algorithm: sig.ECDSA, Hash: sig.SHA1}, {Algorithm: sig.RSAPSS, Hash: sig.SHA1, Salt: 20},
		{Algorithm: sig.ECDSARaw, Hash: sig.SHA256}, {}, {Algorithm: sig.Ed25519, Hash: sig.SHA512}, {Algorithm: sig.RSAPSS, Hash: sig.SHA256, Salt: -1}} {
		if der, err := sig.AppendAlgorithm(nil, s); !errors.Is(err, sig.ErrAlgorithm) {
			t.Errorf("%v is written as %x, %v", s, der, err)
		}
	}
}

// tlv is one DER element around hexadecimal text.
func tlv(tag string, parts ...string) string {
	body := strings.ReplaceAll(strings.Join(parts, ""), " ", "")
	n := len(body) / 2
	if n > 127 {
		return tag + "81" + hex.EncodeToString([]byte{byte(n)}) + body
	}
	return tag + hex.EncodeToString([]byte{byte(n)}) + body
}

func TestRFC4055_3_1_OddPSSParameters(t *testing.T) {
	sha256, sha1 := tlv("30", oidSHA256, "0500"), tlv("30", oidSHA1, "0500")
	hash, mgf := tlv("a0", sha256), tlv("a1", tlv("30", oidMGF1, sha256))
	salt := func(n string) string { return tlv("a2", tlv("02", n)) }
	pss := func(fields ...string) string { return tlv("30", oidPSS, tlv("30", fields...)) }
	for _, tt := range []struct {
		name, der string
		salt      int
		err       error
	}{
		{"usual", pss(hash, mgf, salt("20")), 32, nil},
		{"salt absent is 20", pss(hash, mgf), 20, nil},
		{"salt 0", pss(hash, mgf, salt("00")), 0, nil},
		{"FortiGate's trailer field", pss(hash, mgf, salt("20"), "a303020101"), 32, nil},
		{"hashes without NULL", pss(tlv("a0", tlv("30", oidSHA256)), tlv("a1", tlv("30", oidMGF1, tlv("30", oidSHA256))), salt("20")), 32, nil},
		{"no parameters", tlv("30", oidPSS), 0, sig.ErrPSS},
		{"NULL parameters", tlv("30", oidPSS, "0500"), 0, sig.ErrPSS},
		{"CVE-2018-6459: MGF1 without parameters", pss(hash, tlv("a1", tlv("30", oidMGF1)), salt("20")), 0, sig.ErrPSS},
		{"CVE-2018-6459: no MGF", pss(hash, salt("20")), 0, sig.ErrPSS},
		{"MGF field empty", pss(hash, "a100", salt("20")), 0, sig.ErrPSS},
		{"hash field empty", pss("a000", mgf, salt("20")), 0, sig.ErrPSS},
		{"MGF1 with NULL", pss(hash, tlv("a1", tlv("30", oidMGF1, "0500")), salt("20")), 0, sig.ErrPSS},
		{"MGF1 with SHA-1", pss(hash, tlv("a1", tlv("30", oidMGF1, sha1)), salt("20")), 0, sig.ErrPSS},
		{"another MGF", pss(hash, tlv("a1", tlv("30", oidSHA256, sha256)), salt("20")), 0, sig.ErrPSS},
		{"bytes after MGF1's hash", pss(hash, tlv("a1", tlv("30", oidMGF1, sha256, "0500")), salt("20")), 0, sig.ErrPSS},
		{"SHA-1", pss(tlv("a0", sha1), tlv("a1", tlv("30", oidMGF1, sha1)), salt("14")), 0, sig.ErrWeakHash},
		{"SHA-1 by default, MGF1 with SHA-256", pss(mgf, salt("20")), 0, sig.ErrWeakHash},
		{"CVE-2021-41990: huge salt", pss(hash, mgf, salt("7fffffff")), 0, sig.ErrPSS},
		{"CVE-2021-41990: salt beyond 64 bits", pss(hash, mgf, salt("010000000000000000")), 0, sig.ErrPSS},
		{"negative salt", pss(hash, mgf, salt("ff")), 0, sig.ErrPSS},
		{"negative 64-bit salt", pss(hash, mgf, salt("8000000000000000")), 0, sig.ErrPSS},
		{"salt without value", pss(hash, mgf, "a2020200"), 0, sig.ErrPSS},
		{"salt padded", pss(hash, mgf, salt("0020")), 0, sig.ErrPSS},
		{"salt no integer", pss(hash, mgf, "a203040120"), 0, sig.ErrPSS},
		{"trailer field 2", pss(hash, mgf, salt("20"), "a303020102"), 0, sig.ErrPSS},
		{"fields twice", pss(hash, hash, mgf, salt("20")), 0, sig.ErrPSS},
		{"fields disordered", pss(mgf, hash, salt("20")), 0, sig.ErrPSS},
		{"unknown field", pss(hash, mgf, salt("20"), "a403020101"), 0, sig.ErrPSS},
		{"something after the parameters", tlv("30", oidPSS, tlv("30", hash, mgf), "0500"), 0, sig.ErrPSS},
		{"parameters are a string", tlv("30", oidPSS, "040130"), 0, sig.ErrPSS},
	} {
		s, err := sig.ParseAlgorithm(unhex(t, tt.der))
		if !errors.Is(err, tt.err) || err == nil && s != (sig.Scheme{Algorithm: sig.RSAPSS, Hash: sig.SHA256, Salt: tt.salt}) {
			t.Errorf("%s: %v %v", tt.name, s, err)
		}
	}
}

func TestRFC7427_3_MalformedAuthData(t *testing.T) {
	rsa := "0f 300d 0609 2a86 4886 f70d 0101 0b05 00"
	for _, tt := range []struct {
		name, data string
		err        error
	}{
		{"empty", "", sig.ErrMalformed},
		{"length 0", "00", sig.ErrMalformed},
		{"length beyond the end", "ff 300d", sig.ErrMalformed},
		{"CVE-2013-2944: no signature", rsa, sig.ErrEmpty},
		{"identifier longer than its field", "0e 300d 0609 2a86 4886 f70d 0101 0b05 00 aa", sig.ErrMalformed},
		{"identifier shorter than its field", "10 300d 0609 2a86 4886 f70d 0101 0b05 00 aa bb", sig.ErrMalformed},
		{"parameters that don't belong", "10 300e 0609 2a86 4886 f70d 0101 0b02 0100 aa", sig.ErrMalformed},
		{"NULL with contents", "10 300e 0609 2a86 4886 f70d 0101 0b05 0100 aa", sig.ErrMalformed},
		{"Ed25519 with NULL", "09 3007 0603 2b65 7005 00 aa", sig.ErrMalformed},
		{"long form of a length", "10 3081 0d06 092a 8648 86f7 0d01 010b 0500 aa", sig.ErrMalformed},
		{"no object identifier", "04 3002 0500 aa", sig.ErrMalformed},
		{"empty object identifier", "04 3002 0600 aa", sig.ErrMalformed},
		{"md5WithRSAEncryption", "0f 300d 0609 2a86 4886 f70d 0101 0405 00 aa", sig.ErrAlgorithm},
		{"good", rsa + "aa", nil},
	} {
		if _, _, err := sig.ParseAuth(unhex(t, tt.data)); !errors.Is(err, tt.err) || (tt.err == nil) != (err == nil) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestRFC7427_4_HashAlgorithms(t *testing.T) {
	data := sig.AppendHashes(nil, sig.Offered())
	if !bytes.Equal(data, []byte{0, 2, 0, 3, 0, 4, 0, 5}) {
		t.Errorf("offered as %x", data)
	}
	list, err := sig.ParseHashes([]byte{0, 2, 0, 9, 0, 2, 0, 1})
	if err != nil || len(list) != 3 || list[0] != sig.SHA256 || list[1].String() != "hash(9)" || list[2] != sig.SHA1 {
		t.Errorf("%v %v", list, err)
	}
	if list, err := sig.ParseHashes(nil); err != nil || list == nil {
		t.Errorf("an empty announcement is %v %v", list, err)
	}
	for _, bad := range [][]byte{{0}, {0, 2, 0}, make([]byte, 1000)} {
		if _, err := sig.ParseHashes(bad); !errors.Is(err, sig.ErrMalformed) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
}

func FuzzParseAuth(f *testing.F) {
	for _, s := range []string{"0f300d06092a864886f70d01010b0500aa", "05300506032b6570aa", "0a300a06082a8648ce3d040302aa",
		"43304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120aa"} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = sig.ParseHashes(data)
		s, signature, err := sig.ParseAuth(data)
		if err != nil {
			return
		}
		if s.Hash == sig.SHA1 || len(signature) == 0 || s.String() == "" {
			t.Fatalf("%x is taken as %v with %x", data, s, signature)
		}
		out, err := sig.AppendAuth(nil, s, signature)
		if err != nil {
			t.Fatalf("%v is read and cannot be written: %v", s, err)
		}
		if again, same, err := sig.ParseAuth(out); err != nil || again != s || !bytes.Equal(same, signature) {
			t.Fatalf("%v is read again as %v, %v", s, again, err)
		}
	})
}
