package capture

import (
	"fmt"
	"strings"

	"adit/ike"
	"adit/suite"
)

// Keys records exported keys in the form that Wireshark 4 reads.
func (d *Dir) Keys(e ike.ExportKeys) {
	if k := e.IKE; k != nil {
		encr, integ := wiresharkIKE(k.Encr), wiresharkIntegIKE(k.Integ)
		d.line(d.ike, `%016x,%016x,%x,%x,"%s",%x,%x,"%s"`, k.SPIi, k.SPIr, []byte(k.SKei), []byte(k.SKer), encr, []byte(k.SKai), []byte(k.SKar), integ)
	}
	if k := e.Child; k != nil {
		family := "IPv4"
		if !k.Src.Is4() {
			family = "IPv6"
		}
		seq := "32-bit"
		if k.ESN {
			seq = "64-bit"
		}
		d.line(d.esp, `"%s","%s","%s","0x%08x","%s","%s","%s","%s","%s"`, family, k.Src, k.Dst, uint32(k.SPI),
			wiresharkESP(k.Encr), hexKey(k.EncKey), wiresharkIntegESP(k.Integ), hexKey(k.IntegKey), seq)
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
	suite.EncrNULL: "NULL", suite.EncrAESCBC: "AES-CBC [RFC3602]", suite.EncrAESCTR: "AES-CTR [RFC3686]",
	suite.EncrAESGCM8: "AES-GCM with 8 octet ICV [RFC4106]", suite.EncrAESGCM12: "AES-GCM with 12 octet ICV [RFC4106]",
	suite.EncrAESGCM16: "AES-GCM with 16 octet ICV [RFC4106]", suite.EncrChaCha20Poly1305: "ChaCha20 with Poly1305 [RFC7634]",
}

func wiresharkESP(t suite.Transform) string {
	if n, ok := espNames[t.ID]; ok {
		return n
	}
	return t.Name() // Wireshark cannot decrypt it; the line still tells the SPI
}

func wiresharkIntegESP(t suite.Transform) string {
	switch t.ID {
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

func wiresharkIKE(t suite.Transform) string {
	icv := map[suite.TransformID]int{suite.EncrAESGCM8: 8, suite.EncrAESGCM12: 12, suite.EncrAESGCM16: 16,
		suite.EncrAESCCM8: 8, suite.EncrAESCCM12: 12, suite.EncrAESCCM16: 16}
	switch t.ID {
	case suite.EncrAESCBC:
		return fmt.Sprintf("AES-CBC-%d [RFC3602]", t.KeyBits)
	case suite.EncrAESGCM8, suite.EncrAESGCM12, suite.EncrAESGCM16:
		return fmt.Sprintf("AES-GCM-%d with %d octet ICV [RFC5282]", t.KeyBits, icv[t.ID])
	case suite.EncrAESCCM8, suite.EncrAESCCM12, suite.EncrAESCCM16:
		return fmt.Sprintf("AES-CCM-%d with %d octet ICV [RFC5282]", t.KeyBits, icv[t.ID])
	}
	return t.Name()
}

func wiresharkIntegIKE(t suite.Transform) string {
	switch t.ID {
	case suite.IntegHMACSHA1_96, suite.IntegHMACSHA2_256_128, suite.IntegHMACSHA2_384_192, suite.IntegHMACSHA2_512_256:
		rfc := "RFC4868"
		if t.ID == suite.IntegHMACSHA1_96 {
			rfc = "RFC2404"
		}
		return strings.TrimPrefix(t.Name(), "AUTH_") + " [" + rfc + "]"
	}
	return "NONE [RFC4306]"
}
