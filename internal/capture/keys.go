package capture

import (
	"fmt"

	"adit/ike"
	"adit/suite"
)

// preferences make Wireshark and tshark use the key files when the directory is
// their configuration directory (WIRESHARK_CONFIG_DIR).
const preferences = `esp.enable_encryption_decode: TRUE
esp.enable_authentication_check: TRUE
`

// Keys records exported keys in the form that Wireshark 4.0 and later read. A
// suite that Wireshark does not know becomes a comment: one name that it does not
// know makes it refuse the whole file.
func (d *Dir) Keys(e ike.ExportKeys) {
	if k := e.IKE; k != nil {
		encr, integ := wiresharkIKE(k.Encr), wiresharkIntegIKE(k.Integ)
		comment := ""
		if encr == "" || integ == "" {
			comment = "# Wireshark cannot read it: "
			encr, integ = k.Encr.String(), k.Integ.String()
		}
		ai, ar := k.SKai, k.SKar
		if integ == anyIntegIKE {
			ai, ar = nil, nil // it checks nothing and takes no key
		}
		d.line(&d.ike, `%s%016x,%016x,%x,%x,"%s",%x,%x,"%s"`, comment, k.SPIi, k.SPIr, []byte(k.SKei), []byte(k.SKer), encr,
			[]byte(ai), []byte(ar), integ)
	}
	if k := e.Child; k != nil {
		family := "IPv4"
		if !k.Src.Is4() {
			family = "IPv6"
		}
		seq := "" // tshark 4.0 has no such columns and complains of them
		if k.ESN {
			seq = `,"64-bit","00000000"`
		}
		encr, integ := wiresharkESP(k.Encr), wiresharkIntegESP(k.Integ)
		comment := ""
		if encr == "" || integ == "" {
			comment = "# Wireshark cannot read it: "
			encr, integ = k.Encr.String(), k.Integ.String()
		}
		d.line(&d.esp, `%s"%s","%s","%s","0x%08x","%s","%s","%s","%s"%s`, comment, family, k.Src, k.Dst, uint32(k.SPI),
			encr, hexKey(k.EncKey), integ, hexKey(k.IntegKey), seq)
	}
}

func hexKey(k suite.Key) string {
	if len(k) == 0 {
		return ""
	}
	return fmt.Sprintf("0x%x", []byte(k))
}

// Wireshark's own names of the algorithms, as its preference files have them.
var espNames = map[suite.TransformID]string{
	suite.EncrNULL: "NULL", suite.Encr3DESCBC: "TripleDES-CBC [RFC2451]", suite.EncrAESCBC: "AES-CBC [RFC3602]", suite.EncrAESCTR: "AES-CTR [RFC3686]",
	suite.EncrAESGCM8: "AES-GCM with 8 octet ICV [RFC4106]", suite.EncrAESGCM12: "AES-GCM with 12 octet ICV [RFC4106]",
	suite.EncrAESGCM16: "AES-GCM with 16 octet ICV [RFC4106]",
}

func wiresharkESP(t suite.Transform) string { return espNames[t.ID] }

// wiresharkIntegESP names the integrity algorithm.
func wiresharkIntegESP(integ suite.Transform) string {
	switch integ.ID {
	case suite.IntegHMACMD5_96:
		return "HMAC-MD5-96 [RFC2403]"
	case suite.IntegHMACSHA1_96:
		return "HMAC-SHA-1-96 [RFC2404]"
	case suite.IntegHMACSHA2_256_128:
		return "HMAC-SHA-256-128 [RFC4868]"
	case suite.IntegHMACSHA2_384_192:
		return "HMAC-SHA-384-192 [RFC4868]"
	case suite.IntegHMACSHA2_512_256:
		return "HMAC-SHA-512-256 [RFC4868]"
	case suite.IntegAESXCBC96, suite.IntegAESCMAC96:
		return "ANY 96 bit authentication [no checking]"
	}
	return "NULL"
}

// icvLength is the length in bytes of a combined cipher's check value.
var icvLength = map[suite.TransformID]int{
	suite.EncrAESGCM8: 8, suite.EncrAESGCM12: 12, suite.EncrAESGCM16: 16,
	suite.EncrAESCCM8: 8, suite.EncrAESCCM12: 12, suite.EncrAESCCM16: 16,
}

func wiresharkIKE(t suite.Transform) string {
	switch t.ID {
	case suite.Encr3DESCBC:
		return "3DES [RFC2451]"
	case suite.EncrAESCBC:
		return fmt.Sprintf("AES-CBC-%d [RFC3602]", t.KeyBits)
	case suite.EncrAESGCM8, suite.EncrAESGCM12, suite.EncrAESGCM16:
		return fmt.Sprintf("AES-GCM-%d with %d octet ICV [RFC5282]", t.KeyBits, icvLength[t.ID])
	case suite.EncrAESCCM8, suite.EncrAESCCM12, suite.EncrAESCCM16:
		return fmt.Sprintf("AES-CCM-%d with %d octet ICV [RFC5282]", t.KeyBits, icvLength[t.ID])
	}
	return ""
}

// anyIntegIKE stands for any algorithm with a check value of 96 bits.
const anyIntegIKE = "ANY 96-bits of Authentication [No Checking]"

func wiresharkIntegIKE(t suite.Transform) string {
	switch t.ID {
	case suite.IntegHMACMD5_96:
		return "HMAC_MD5_96 [RFC2403]"
	case suite.IntegHMACSHA1_96:
		return "HMAC_SHA1_96 [RFC2404]"
	case suite.IntegHMACSHA2_256_128:
		return "HMAC_SHA2_256_128 [RFC4868]"
	case suite.IntegHMACSHA2_384_192:
		return "HMAC_SHA2_384_192 [RFC4868]"
	case suite.IntegHMACSHA2_512_256:
		return "HMAC_SHA2_512_256 [RFC4868]"
	case suite.IntegAESXCBC96, suite.IntegAESCMAC96:
		return anyIntegIKE
	}
	return "NONE [RFC4306]"
}
