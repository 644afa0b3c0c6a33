package suite_test

import (
	"errors"
	"strings"
	"testing"

	"adit/suite"
)

// proposals parses "ESP aes128gcm16, aes256-sha256".
func proposals(t testing.TB, s string) []suite.Proposal {
	t.Helper()
	name, rest, _ := strings.Cut(s, " ")
	protocol := map[string]suite.Protocol{"IKE": suite.IKE, "ESP": suite.ESP, "AH": suite.AH}[name]
	list, err := suite.ParseProposals(protocol, strings.Split(rest, ","))
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return list
}

func TestRFC7296_2_7_Select(t *testing.T) {
	peer := suite.SelectOptions{PreferPeer: true}
	without := suite.SelectOptions{NoAdditional: true}
	noKE := suite.SelectOptions{IgnoreKE: true}
	ke := func(id suite.TransformID) suite.SelectOptions { return suite.SelectOptions{KE: id} }
	for _, v := range []struct {
		name, ours, theirs string
		opt                suite.SelectOptions
		want               string
		index              int
	}{
		{"same", "IKE aes256gcm16-prfsha384-ecp384", "IKE aes256gcm16-prfsha384-ecp384", suite.SelectOptions{}, "IKE:AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_384", 0},
		{"our order within types", "IKE aes256-aes128-sha384-sha256-x25519-ecp256", "IKE aes128-aes256-sha256-sha384-ecp256-x25519", suite.SelectOptions{}, "IKE:AES_CBC_256/HMAC_SHA2_384_192/PRF_HMAC_SHA2_384/CURVE_25519", 0},
		{"peer's order within types", "IKE aes256-aes128-sha384-sha256-x25519-ecp256", "IKE aes128-aes256-sha256-sha384-ecp256-x25519", peer, "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/ECP_256", 0},
		{"our order of proposals", "ESP aes256gcm16,aes128gcm16", "ESP aes128gcm16,aes256gcm16", suite.SelectOptions{}, "ESP:AES_GCM_16_256/NO_EXT_SEQ", 1},
		{"peer's order of proposals", "ESP aes256gcm16,aes128gcm16", "ESP aes128gcm16,aes256gcm16", peer, "ESP:AES_GCM_16_128/NO_EXT_SEQ", 0},
		{"second of both", "ESP aes256gcm16,aes128-sha256", "ESP chacha20poly1305,aes128-sha256", suite.SelectOptions{}, "ESP:AES_CBC_128/HMAC_SHA2_256_128/NO_EXT_SEQ", 1},
		{"key lengths are part", "ESP aes-aes256-sha256", "ESP aes256-sha256", suite.SelectOptions{}, "ESP:AES_CBC_256/HMAC_SHA2_256_128/NO_EXT_SEQ", 0},
		{"ESN if both", "ESP aes128gcm16-esn-noesn", "ESP aes128gcm16-noesn-esn", suite.SelectOptions{}, "ESP:AES_GCM_16_128/EXT_SEQ", 0},
		{"no ESN if one", "ESP aes128gcm16-esn-noesn", "ESP aes128gcm16", suite.SelectOptions{}, "ESP:AES_GCM_16_128/NO_EXT_SEQ", 0},
		{"PFS with both", "ESP aes128gcm16-ecp256-none", "ESP aes128gcm16-ecp256", suite.SelectOptions{}, "ESP:AES_GCM_16_128/ECP_256/NO_EXT_SEQ", 0},
		{"PFS optional for us", "ESP aes128gcm16-ecp256-none", "ESP aes128gcm16", suite.SelectOptions{}, "ESP:AES_GCM_16_128/NO_EXT_SEQ", 0},
		{"PFS optional for the peer", "ESP aes128gcm16", "ESP aes128gcm16-ecp256-none", suite.SelectOptions{}, "ESP:AES_GCM_16_128/NO_EXT_SEQ", 0},
		{"PFS optional for both, other groups", "ESP aes128gcm16-ecp256-none", "ESP aes128gcm16-ecp384-none", suite.SelectOptions{}, "ESP:AES_GCM_16_128/NO_EXT_SEQ", 0},
		{"PFS none on both", "ESP aes128gcm16-none", "ESP aes128gcm16-none", suite.SelectOptions{}, "ESP:AES_GCM_16_128/NO_EXT_SEQ", 0},
		{"IKE_AUTH: no group", "ESP aes128gcm16-ecp256", "ESP aes128gcm16", noKE, "ESP:AES_GCM_16_128/NO_EXT_SEQ", 0},
		{"IKE_AUTH: group offered all the same", "ESP aes128gcm16", "ESP aes128gcm16-ecp256", noKE, "ESP:AES_GCM_16_128/NO_EXT_SEQ", 0},
		{"group of the KE payload", "IKE aes128-sha256-x25519-ecp256", "IKE aes128-sha256-ecp256-x25519", ke(suite.KEECP256), "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/ECP_256", 0},
		{"group of the KE payload is not ours", "IKE aes128-sha256-x25519", "IKE aes128-sha256-ecp256-x25519", ke(suite.KEECP256), "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519", 0},
		{"AH", "AH sha256-esn", "AH sha1-sha256-esn", suite.SelectOptions{}, "AH:HMAC_SHA2_256_128/EXT_SEQ", 0},
		{"defaults", "IKE default", "IKE default", suite.SelectOptions{}, "IKE:AES_GCM_16_128/PRF_HMAC_SHA2_256/CURVE_25519/KE1_ML_KEM_768", 0},
		{"defaults without IKE_INTERMEDIATE", "IKE default", "IKE default", without, "IKE:AES_GCM_16_128/PRF_HMAC_SHA2_256/CURVE_25519", 1},
		{"additional key exchange", "IKE aes128-sha256-x25519-ke1_mlkem768", "IKE aes128-sha256-x25519-ke1_mlkem768-ke1_mlkem1024", suite.SelectOptions{}, "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519/KE1_ML_KEM_768", 0},
		{"no method twice", "IKE aes128-sha256-x25519-ke1_mlkem768-ke1_mlkem1024-ke2_mlkem768", "IKE aes128-sha256-x25519-ke1_mlkem768-ke1_mlkem1024-ke2_mlkem768", suite.SelectOptions{}, "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519/KE1_ML_KEM_1024/KE2_ML_KEM_768", 0},
		{"not that of the first", "IKE aes128-sha256-x25519-ke1_x25519-ke1_ecp384", "IKE aes128-sha256-x25519-ke1_ecp384-ke1_x25519", suite.SelectOptions{}, "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519/KE1_ECP_384", 0},
		{"optional for us", "IKE aes128-sha256-x25519-ke2_mlkem768-ke2_none", "IKE aes128-sha256-x25519", suite.SelectOptions{}, "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519", 0},
		{"none before it", "IKE aes128-sha256-x25519-ke2_none-ke2_mlkem768", "IKE aes128-sha256-x25519-ke2_mlkem768-ke2_none", suite.SelectOptions{}, "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519", 0},
		{"in ESP", "ESP aes128gcm16-x25519-ke1_mlkem768", "ESP aes128gcm16-x25519-ke1_mlkem768", suite.SelectOptions{}, "ESP:AES_GCM_16_128/CURVE_25519/NO_EXT_SEQ/KE1_ML_KEM_768", 0},
		{"in ESP, without the first", "ESP aes128gcm16-x25519-none-ke1_mlkem768-ke1_none", "ESP aes128gcm16", suite.SelectOptions{}, "ESP:AES_GCM_16_128/NO_EXT_SEQ", 0},
		{"not in IKE_AUTH", "ESP aes128gcm16-x25519-ke1_mlkem768", "ESP aes128gcm16", noKE, "ESP:AES_GCM_16_128/NO_EXT_SEQ", 0},
		{"default against an old peer", "IKE default", "IKE aes256-sha256-modp2048", suite.SelectOptions{}, "IKE:AES_CBC_256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048", 0},
	} {
		got, i, err := suite.Select(proposals(t, v.ours), proposals(t, v.theirs), v.opt)
		if err != nil || got.String() != v.want || i != v.index {
			t.Errorf("%s: %s, %d, %v; want %s", v.name, got, i, err, v.want)
		}
		if got.KEPresent != (got.KE.Type == suite.TypeKE) {
			t.Errorf("%s: KEPresent %v with %v", v.name, got.KEPresent, got.KE)
		}
		if got.ESN() != strings.Contains(v.want, "/EXT_SEQ") {
			t.Errorf("%s: ESN %v", v.name, got.ESN())
		}
		// What the responder chose, the initiator accepts and sees alike.
		back, err := suite.Accept(proposals(t, v.theirs), got.Proposal(), suite.SelectOptions{IgnoreKE: v.opt.IgnoreKE})
		if err != nil || back != got {
			t.Errorf("%s: the initiator sees %s, %v", v.name, back, err)
		}
	}
}

// Proposals that no configuration of ours makes, but peers do.
func TestRFC7296_3_3_6_ForeignProposals(t *testing.T) {
	gcm := suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESGCM16, KeyBits: 128}
	cbc := suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESCBC, KeyBits: 128}
	sha := suite.Transform{Type: suite.TypeINTEG, ID: suite.IntegHMACSHA2_256_128}
	integNone := suite.Transform{Type: suite.TypeINTEG}
	noESN := suite.Transform{Type: suite.TypeSN}
	mlkem := suite.Transform{Type: suite.TypeADDKE1, ID: 36}
	addNone := suite.Transform{Type: suite.TypeADDKE1}
	ours := proposals(t, "ESP aes128gcm16,aes128-sha256")
	for _, v := range []struct {
		name   string
		theirs []suite.Transform
		want   string // "" if refused
	}{
		{"integrity NONE with AEAD", []suite.Transform{gcm, integNone, noESN}, "ESP:AES_GCM_16_128/NO_EXT_SEQ"},
		{"integrity beside AEAD", []suite.Transform{gcm, sha, noESN}, "ESP:AES_GCM_16_128/NO_EXT_SEQ"},
		{"AEAD and classic mixed", []suite.Transform{cbc, gcm, sha, integNone, noESN}, "ESP:AES_GCM_16_128/NO_EXT_SEQ"},
		{"no sequence number type", []suite.Transform{gcm}, "ESP:AES_GCM_16_128/NO_EXT_SEQ"},
		{"unknown algorithm passed over", []suite.Transform{{Type: suite.TypeENCR, ID: 999, KeyBits: 7}, gcm, noESN}, "ESP:AES_GCM_16_128/NO_EXT_SEQ"},
		{"unknown attribute", []suite.Transform{{Type: suite.TypeENCR, ID: suite.EncrAESGCM16, KeyBits: suite.KeyBitsUnknown}, noESN}, ""},
		{"unknown attribute beside a good one", []suite.Transform{{Type: suite.TypeENCR, ID: suite.EncrAESGCM16, KeyBits: suite.KeyBitsUnknown}, gcm, noESN}, "ESP:AES_GCM_16_128/NO_EXT_SEQ"},
		{"unknown type", []suite.Transform{gcm, noESN, {Type: 13, ID: 1}}, ""},
		{"type 0", []suite.Transform{gcm, noESN, {Type: 0, ID: 1}}, ""},
		{"additional key exchange", []suite.Transform{gcm, noESN, mlkem}, ""},
		{"optional additional key exchange", []suite.Transform{gcm, noESN, mlkem, addNone}, "ESP:AES_GCM_16_128/NO_EXT_SEQ"},
		{"integrity NONE with CBC", []suite.Transform{cbc, integNone, noESN}, ""},
		{"no integrity with CBC", []suite.Transform{cbc, noESN}, ""},
		{"key length missing", []suite.Transform{{Type: suite.TypeENCR, ID: suite.EncrAESGCM16}, noESN}, ""},
		{"PRF in ESP", []suite.Transform{gcm, noESN, {Type: suite.TypePRF, ID: 5}}, ""},
		{"no cipher", []suite.Transform{sha, noESN}, ""},
		{"nothing", nil, ""},
	} {
		got, _, err := suite.Select(ours, []suite.Proposal{{Protocol: suite.ESP, Transforms: v.theirs}}, suite.SelectOptions{})
		if (err == nil) != (v.want != "") || err == nil && got.String() != v.want {
			t.Errorf("%s: %s, %v", v.name, got, err)
		}
		if v.name == "no sequence number type" && got.Proposal().String() != "ESP:AES_GCM_16_128" {
			t.Errorf("the answer names a type that was not offered: %s", got.Proposal())
		}
	}
	// IKE needs a PRF and a key exchange on both sides, whatever was configured.
	bare := []suite.Proposal{{Protocol: suite.IKE, Transforms: []suite.Transform{gcm}}}
	if s, _, err := suite.Select(bare, bare, suite.SelectOptions{}); err == nil {
		t.Errorf("IKE without PRF and key exchange: %s", s)
	}
	none := []suite.Proposal{{Protocol: suite.IKE, Transforms: []suite.Transform{gcm, {Type: suite.TypePRF, ID: 5}, {Type: suite.TypeKE}}}}
	if s, _, err := suite.Select(none, none, suite.SelectOptions{}); err == nil {
		t.Errorf("IKE with key exchange NONE: %s", s)
	}
	plain := []suite.Proposal{{Protocol: suite.ESP, Transforms: []suite.Transform{cbc, integNone, noESN}}}
	if s, _, err := suite.Select(plain, plain, suite.SelectOptions{}); err == nil {
		t.Errorf("encryption without integrity: %s", s)
	}
	for _, both := range [][]suite.Transform{
		{cbc, noESN}, // no integrity on either side
		{{Type: suite.TypeENCR, ID: suite.EncrAESGCM16, KeyBits: suite.KeyBitsUnknown}, noESN},
	} {
		list := []suite.Proposal{{Protocol: suite.ESP, Transforms: both}}
		if s, _, err := suite.Select(list, list, suite.SelectOptions{}); err == nil {
			t.Errorf("unusable on both sides: %s", s)
		}
	}
}

func TestRFC7296_2_7_AnswerMustBeOneOfEach(t *testing.T) {
	offered := proposals(t, "IKE aes128-aes256-sha256-ecp256-x25519")
	if _, err := suite.Accept(offered, offered[0], suite.SelectOptions{}); err == nil {
		t.Error("the whole offer accepted as an answer")
	}
	if _, err := suite.Accept(offered, proposals(t, "IKE aes192-sha256-ecp256")[0], suite.SelectOptions{}); err == nil {
		t.Error("an answer with what was not offered accepted")
	}
	if s, err := suite.Accept(offered, proposals(t, "IKE aes256-sha256-x25519")[0], suite.SelectOptions{}); err != nil || s.KE.ID != suite.KECurve25519 {
		t.Errorf("%s %v", s, err)
	}
}

func TestNoProposalError_Explains(t *testing.T) {
	for _, v := range []struct {
		ours, theirs string
		typ          suite.TransformType
		want         []string
	}{
		{"IKE aes256gcm16-prfsha384-ecp384", "IKE aes256gcm16-prfsha384-modp1024", suite.TypeKE,
			[]string{"for key exchange the peer offers MODP_1024, we accept ECP_384", "let the peer offer ecp384, or add modp1024 to our proposal", "1024-bit group", "proposal 1 of 1"}},
		{"IKE aes256-sha256-ecp256", "IKE aes128-sha256-ecp256", suite.TypeENCR,
			[]string{"for encryption the peer offers AES_CBC_128, we accept AES_CBC_256", "add aes128"}},
		{"ESP aes256gcm16-esn", "ESP aes256gcm16", suite.TypeSN, []string{"sequence numbers", "NO_EXT_SEQ", "EXT_SEQ", "noesn"}},
		{"ESP aes256gcm16-ecp256", "ESP aes256gcm16", suite.TypeKE, []string{"peer offers none, we accept ECP_256", "perfect forward secrecy at the peer (ecp256)"}},
		{"ESP aes256gcm16", "ESP aes256gcm16-ecp256", suite.TypeKE, []string{"add ecp256 to our proposal, or turn off perfect forward secrecy"}},
		// The nearest pair is the one with the fewest differences, the latest first.
		{"ESP aes256gcm16-esn,aes128-sha384", "ESP chacha20poly1305,aes128-sha256", suite.TypeINTEG, []string{"HMAC_SHA2_256_128", "HMAC_SHA2_384_192", "peer's proposal 2 of 2", "ours 2 of 2"}},
		{"IKE aes256-sha384-ecp384", "IKE aes256-sha256-ecp256", suite.TypeINTEG, []string{"these differ too: pseudo-random function, key exchange"}},
		{"ESP aes256gcm16", "AH sha256", 0, []string{"the peer offers AH, we want ESP"}},
	} {
		_, _, err := suite.Select(proposals(t, v.ours), proposals(t, v.theirs), suite.SelectOptions{})
		var ne *suite.NoProposalError
		if !errors.As(err, &ne) {
			t.Errorf("%s | %s: %v", v.ours, v.theirs, err)
			continue
		}
		if ne.Type != v.typ {
			t.Errorf("%s | %s: first difference %s", v.ours, v.theirs, ne.Type)
		}
		for _, part := range v.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s | %s: %q is not in:\n%s", v.ours, v.theirs, part, err)
			}
		}
	}
	camellia := []suite.Proposal{{Protocol: suite.ESP, Transforms: []suite.Transform{{Type: suite.TypeENCR, ID: 23, KeyBits: 128}, {Type: suite.TypeINTEG, ID: 12}}}}
	_, _, err := suite.Select(proposals(t, "ESP aes128-sha256"), camellia, suite.SelectOptions{})
	if err == nil || !strings.Contains(err.Error(), "CAMELLIA_CBC_128") || !strings.Contains(err.Error(), "; let the peer offer aes128;") {
		t.Error(err)
	}
	for _, v := range [][2][]suite.Proposal{{nil, camellia}, {camellia, nil}, {nil, nil}} {
		if _, _, err := suite.Select(v[0], v[1], suite.SelectOptions{}); err == nil || err.Error() == "" {
			t.Errorf("empty list: %v", err)
		}
	}
}

// A stranger's message can hold thousands of proposals: the work is bounded.
func TestSelect_Bounded(t *testing.T) {
	ours := proposals(t, "ESP aes128gcm16")
	bad := proposals(t, "ESP aes256gcm16")[0]
	var theirs []suite.Proposal
	for range suite.MaxProposals {
		theirs = append(theirs, bad)
	}
	theirs[suite.MaxProposals-1] = ours[0]
	if _, i, err := suite.Select(ours, theirs, suite.SelectOptions{}); err != nil || i != suite.MaxProposals-1 {
		t.Errorf("the last proposal: %d, %v", i, err)
	}
	theirs = append([]suite.Proposal{bad}, theirs...)
	if _, _, err := suite.Select(ours, theirs, suite.SelectOptions{}); err == nil {
		t.Error("a proposal beyond the limit was looked at")
	}
	wide := suite.Proposal{Protocol: suite.ESP}
	for i := range 5000 {
		wide.Transforms = append(wide.Transforms, suite.Transform{Type: suite.TypeKE, ID: suite.TransformID(i)})
	}
	if _, _, err := suite.Select(ours, []suite.Proposal{wide}, suite.SelectOptions{}); err == nil || len(err.Error()) > 2000 {
		t.Errorf("an explanation without bound: %v", err)
	}
}

// FuzzSelect gives a peer's list of any transforms, in 5 bytes each. Whatever is
// agreed on must be usable, and be offered by both.
func FuzzSelect(f *testing.F) {
	f.Add([]byte{1, 0, 20, 0, 128, 5, 0, 0, 0, 0}, uint8(0))
	f.Add([]byte{1, 0, 12, 1, 0, 3, 0, 12, 0, 0, 5, 0, 1, 0, 0, 4, 0, 0, 0, 0}, uint8(1))
	f.Add([]byte{1, 0, 20, 0, 128, 2, 0, 5, 0, 0, 4, 0, 31, 0, 0, 255, 255, 255, 255, 255, 6, 0, 36, 0, 0, 6, 0, 0, 0, 0}, uint8(6))
	f.Add(make([]byte, 5000), uint8(3))
	ike, esp, ah := suite.Default(suite.IKE), suite.Default(suite.ESP), suite.Default(suite.AH)
	f.Fuzz(func(t *testing.T, raw []byte, flags uint8) {
		if len(raw) > 1<<16 {
			return
		}
		ours := [][]suite.Proposal{esp, ike, ah}[flags>>2%3]
		theirs := []suite.Proposal{{Protocol: ours[0].Protocol}, {Protocol: ours[0].Protocol}}
		for i := 0; i+5 <= len(raw); i += 5 {
			tr := suite.Transform{
				Type:    suite.TransformType(raw[i]),
				ID:      suite.TransformID(raw[i+1])<<8 | suite.TransformID(raw[i+2]),
				KeyBits: uint16(raw[i+3])<<8 | uint16(raw[i+4]),
			}
			theirs[i/5%2].Transforms = append(theirs[i/5%2].Transforms, tr)
		}
		opt := suite.SelectOptions{PreferPeer: flags&1 != 0, IgnoreKE: flags&2 != 0 && ours[0].Protocol != suite.IKE}
		sel, i, err := suite.Select(ours, theirs, opt)
		if err != nil {
			if n := len(err.Error()); n == 0 || n > 3000 {
				t.Fatalf("an explanation of %d bytes", n)
			}
			return
		}
		for _, tr := range sel.Proposal().Transforms {
			if !theirs[i].Has(tr) || !ours[0].Has(tr) && !ours[len(ours)-1].Has(tr) {
				t.Fatalf("%s: %s is not on both lists", sel, tr)
			}
		}
		if _, _, err := sel.KeyLengths(); err != nil {
			t.Fatalf("%s: %v", sel, err)
		}
		if sel.Protocol == suite.IKE {
			if _, err := suite.NewPRF(sel.PRF); err != nil || !sel.KEPresent {
				t.Fatalf("%s: unusable in IKE: %v", sel, err)
			}
		}
		if sel.KEPresent && suite.PublicLen(sel.KE.ID) == 0 {
			t.Fatalf("%s: unusable key exchange", sel)
		}
	})
}
