package pki

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"strings"
	"unicode"
)

// attributes are the names that people know attributes of distinguished names by, as
// strongSwan spells them.
var attributes = map[string]string{
	"2.5.4.3": "CN", "2.5.4.4": "SN", "2.5.4.5": "serialNumber", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST",
	"2.5.4.9": "STREET", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.12": "T", "2.5.4.17": "postalCode", "2.5.4.42": "G",
	"0.9.2342.19200300.100.1.1": "UID", "0.9.2342.19200300.100.1.25": "DC", "1.2.840.113549.1.9.1": "E",
}

// nameText prints a distinguished name in the order of its encoding, "C=CH, CN=gw",
// as identities are configured: what stands in a log can be copied. (RFC 4514 and
// crypto/x509 print the last part first.) x is what crypto/x509 made of it, for what
// can't be read here.
func nameText(der []byte, x pkix.Name) string {
	var rdns pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &rdns); err != nil || len(rest) > 0 {
		return cut(x.String(), maxNameText)
	}
	var b strings.Builder
	for _, set := range rdns {
		for _, a := range set {
			if b.Len() > maxNameText {
				break
			}
			if b.Len() > 0 {
				b.WriteString(", ")
			}
			kind := a.Type.String()
			if short, ok := attributes[kind]; ok {
				kind = short
			}
			b.WriteString(kind + "=" + strings.Map(visible, fmt.Sprint(a.Value)))
		}
	}
	return cut(b.String(), maxNameText)
}

// visible keeps control characters of a peer's certificate out of logs.
func visible(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return '?'
}
