package ipsecconf

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"adit/suite"
)

// usable takes out of a list of proposals, in strongSwan's words, what adit refuses:
// single algorithms where something is left, otherwise whole proposals. It returns
// what is left and the reasons for the rest.
func usable(p suite.Protocol, list []string) (kept, reasons []string) {
	for _, prop := range list {
		words := strings.Split(prop, "-")
		for {
			_, err := suite.ParseProposals(p, []string{strings.Join(words, "-")})
			if err == nil {
				kept = append(kept, strings.Join(words, "-"))
				break
			}
			why := err.Error()
			if _, rest, ok := strings.Cut(why, "\": "); ok {
				why = rest
			}
			if len(reasons) < limitReasons && !slices.Contains(reasons, why) {
				reasons = append(reasons, why)
			}
			var bad *suite.ParseError
			if !errors.As(err, &bad) || bad.Keyword == "" || len(words) == 1 {
				break
			}
			before := len(words)
			words = slices.DeleteFunc(words, func(w string) bool { return strings.TrimSpace(w) == bad.Keyword })
			if len(words) == before || len(words) == 0 {
				break
			}
		}
	}
	return kept, reasons
}

// splitStrict reads strongSwan's list: without ! at its end, the default proposals
// come after it.
func splitStrict(text string) []string {
	list := splitList(strings.TrimSuffix(strings.TrimSpace(text), "!"))
	if !strings.HasSuffix(strings.TrimSpace(text), "!") {
		list = append(list, "default")
	}
	return list
}

// splitList splits at commas.
func splitList(text string) []string {
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// swanAlgorithms are Libreswan's names of algorithms in strongSwan's words. An empty
// list means none.
var swanAlgorithms = map[string][]string{
	"aes": {"aes256", "aes128"}, "aes128": {"aes128"}, "aes192": {"aes192"}, "aes256": {"aes256"},
	"aes_cbc": {"aes256", "aes128"}, "aes_ctr": {"aes256ctr", "aes128ctr"},
	"3des": {"3des"}, "3des_cbc": {"3des"}, "null": {"null"}, "none": {}, "camellia": {"camellia256", "camellia128"},
	"chacha20_poly1305": {"chacha20poly1305"}, "chacha20poly1305": {"chacha20poly1305"}, "chacha20_poly1305256": {"chacha20poly1305"},
	"sha1": {"sha1"}, "sha": {"sha1"}, "sha1_96": {"sha1"}, "md5": {"md5"}, "md5_96": {"md5"}, "hmac_sha1_96": {"sha1"}, "hmac_sha1": {"sha1"}, "hmac_md5": {"md5"}, "hmac_md5_96": {"md5"},
	"sha2": {"sha256"}, "sha256": {"sha256"}, "sha2_256": {"sha256"}, "hmac_sha2_256": {"sha256"}, "hmac_sha2_256_128": {"sha256"}, "sha2_256_128": {"sha256"}, "sha2_256_truncbug": {"sha256_96"}, "hmac_sha2_256_truncbug": {"sha256_96"},
	"sha384": {"sha384"}, "sha2_384": {"sha384"}, "hmac_sha2_384": {"sha384"}, "sha2_384_192": {"sha384"}, "hmac_sha2_384_192": {"sha384"},
	"sha512": {"sha512"}, "sha2_512": {"sha512"}, "hmac_sha2_512": {"sha512"}, "sha2_512_256": {"sha512"}, "hmac_sha2_512_256": {"sha512"},
	"aes_xcbc": {"aesxcbc"}, "aes_xcbc_96": {"aesxcbc"}, "aes128_xcbc": {"aesxcbc"}, "aes_cmac": {"aescmac"}, "aes_cmac_96": {"aescmac"},
	"aes_gmac": {"aes256gmac", "aes128gmac"}, "null_auth_aes_gmac": {"aes256gmac", "aes128gmac"},
	"curve25519": {"curve25519"}, "x25519": {"curve25519"}, "ecp_256": {"ecp256"}, "ecp_384": {"ecp384"}, "ecp_521": {"ecp521"}, "ecp256": {"ecp256"}, "ecp384": {"ecp384"}, "ecp521": {"ecp521"},
	"dh0": {}, "dh2": {"modp1024"}, "dh5": {"modp1536"}, "dh14": {"modp2048"}, "dh15": {"modp3072"}, "dh16": {"modp4096"}, "dh17": {"modp6144"}, "dh18": {"modp8192"},
	"dh19": {"ecp256"}, "dh20": {"ecp384"}, "dh21": {"ecp521"}, "dh31": {"curve25519"}, "dh22": {"modp1024s160"}, "dh23": {"modp2048s224"}, "dh24": {"modp2048s256"},
}

// swanAlgorithm translates one name; those with a length of the key or of the ICV
// in them by their parts.
func swanAlgorithm(name string) ([]string, bool) {
	name = strings.ToLower(strings.TrimSpace(name))
	if list, ok := swanAlgorithms[name]; ok {
		return list, true
	}
	if strings.HasPrefix(name, "modp") {
		return []string{name}, true
	}
	for _, c := range []struct{ prefix, mode string }{{"aes_gcm", "gcm"}, {"aes_ccm", "ccm"}, {"aes_gmac", "gmac"}, {"aes_ctr", "ctr"}, {"aes_cbc", ""}, {"aes", ""}, {"camellia_cbc", ""}, {"camellia", ""}} {
		rest, ok := strings.CutPrefix(name, c.prefix)
		if !ok {
			continue
		}
		family := "aes"
		if strings.HasPrefix(c.prefix, "camellia") {
			family = "camellia"
		}
		icv := ""
		if c.mode == "gcm" || c.mode == "ccm" {
			icv = "16"
			for text, n := range map[string]string{"_a": "8", "_b": "12", "_c": "16", "_8": "8", "_12": "12", "_16": "16", "8": "8", "12": "12", "16": "16"} {
				if r, ok := strings.CutPrefix(rest, text); ok && (r == "" || strings.HasPrefix(r, "_") || text[0] == '_' && (r == "128" || r == "192" || r == "256")) {
					icv, rest = n, r
					break
				}
			}
		}
		switch rest = strings.Trim(rest, "_-"); rest {
		case "":
			return []string{family + "256" + c.mode + icv, family + "128" + c.mode + icv}, true
		case "128", "192", "256":
			return []string{family + rest + c.mode + icv}, true
		}
	}
	return nil, false
}

// Defaults of Libreswan for parts that a proposal leaves out.
var (
	swanHashes = []string{"sha512", "sha256"}
	swanGroups = []string{"ecp256", "ecp384", "ecp521", "curve25519", "modp2048", "modp3072", "modp4096"}
)

// swanProposals translates Libreswan's ike and esp: proposals separated by commas,
// parts by hyphens and a semicolon before the group, alternatives by a plus. groups
// are what esp gets without its own (pfs=yes).
func swanProposals(text string, p suite.Protocol, groups []string, esn string) ([]string, error) {
	var out []string
	for prop := range strings.SplitSeq(strings.TrimSuffix(strings.TrimSpace(text), "!"), ",") {
		var encr, hash, group []string
		aead, none, given := false, false, false
		for i, part := range strings.FieldsFunc(strings.TrimSuffix(strings.TrimSpace(prop), "!"), func(r rune) bool { return r == '-' || r == ';' }) {
			if i > 0 && len(encr) > 0 && (part == "128" || part == "192" || part == "256") { // aes_gcm_c-256
				encr = slices.DeleteFunc(slices.Clone(encr), func(w string) bool { return !strings.Contains(w, part) })
				continue
			}
			for name := range strings.SplitSeq(part, "+") {
				list, ok := swanAlgorithm(name)
				if !ok {
					return nil, fmt.Errorf("unknown algorithm %q", clip(name))
				}
				switch low := strings.ToLower(strings.TrimSpace(name)); {
				case i == 0:
					encr = append(encr, list...)
					aead = aead || strings.Contains(low, "gcm") || strings.Contains(low, "ccm") || strings.Contains(low, "poly1305") || strings.Contains(low, "gmac")
				case low == "none" || low == "dh0" || low == "null":
					none = true
					given = given || low == "dh0" || i > 1
				case strings.HasPrefix(low, "modp") || strings.HasPrefix(low, "dh") || strings.HasPrefix(low, "ecp") || strings.HasSuffix(low, "25519"):
					group, given = append(group, list...), true
				default:
					hash = append(hash, list...)
				}
			}
		}
		words := encr
		switch {
		case p == suite.AH:
			words = nil
			hash = append(encr, hash...)
		case len(hash) == 0 && !aead && !none:
			hash = swanHashes
		}
		if p == suite.IKE {
			if len(hash) == 0 {
				hash = swanHashes
			}
			if aead {
				for i, h := range hash {
					hash = slices.Clone(hash)
					hash[i] = "prf" + h
				}
			}
			if len(group) == 0 {
				group = swanGroups
			}
		} else {
			if !given {
				group = groups
			}
			if aead {
				hash = nil
			}
		}
		words = append(append(append([]string(nil), words...), hash...), group...)
		if esn != "" {
			words = append(words, strings.Split(esn, "-")...)
		}
		out = append(out, strings.Join(compact(words), "-"))
	}
	return out, nil
}

// compact drops repeated words.
func compact(words []string) []string {
	var out []string
	for _, w := range words {
		if !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return out
}

// groupsOf are the groups in proposals of strongSwan's words.
func groupsOf(list []string) []string {
	var out []string
	for _, prop := range list {
		for w := range strings.SplitSeq(prop, "-") {
			if strings.HasPrefix(w, "modp") || strings.HasPrefix(w, "ecp") || strings.HasPrefix(w, "curve") {
				out = append(out, w)
			}
		}
	}
	return compact(out)
}
