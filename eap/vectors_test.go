package eap

import (
	"bytes"
	"encoding/hex"
	"errors"
	"runtime/debug"
	"strings"
	"testing"

	"adit/suite"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wantHex(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if !bytes.Equal(got, unhex(t, want)) {
		t.Errorf("%s is %x, want %s", what, got, want)
	}
}

// RFC 2759 §9.2 and RFC 3079 §3.5.3 go on with the same numbers.
func TestRFC2759_9_2_RFC3079_3_5_3(t *testing.T) {
	hash := ntPasswordHash([]byte("clientPass"))
	wantHex(t, "PasswordHash", hash, "44 EB BA 8D 53 12 B8 D6 11 47 44 11 F5 69 89 AE")
	wantHex(t, "PasswordHashHash", hashNtPasswordHash(hash), "41 C0 0C 58 4B D2 D9 1C 40 17 A2 A1 2F A5 9F 3F")
	authenticator := unhex(t, "5B 5D 7C 7D 7B 3F 2F 3E 3C 2C 60 21 32 26 26 28")
	peer := unhex(t, "21 40 23 24 25 5E 26 2A 28 29 5F 2B 3A 33 7C 7E")
	challenge := challengeHash(peer, authenticator, []byte("User"))
	wantHex(t, "Challenge", challenge, "D0 2E 43 86 BC E9 12 26")
	if !bytes.Equal(challenge, challengeHash(peer, authenticator, []byte(`DOMAIN\User`))) {
		t.Error("the domain goes into the challenge")
	}
	response := challengeResponse(challenge, hash)
	wantHex(t, "NT-Response", response, "82 30 9E CD 8D 70 8B 5E A0 8F AA 39 81 CD 83 54 42 33 11 4A 3D 85 D6 DF")
	proof := upperHex(authenticatorResponse(hash, response, challenge))
	if string(proof) != "407A5589115FD0D6209F510FE9C04566932CDA56" {
		t.Errorf("authenticator response %s", proof)
	}
	master := suite.Key(unhex(t, "FD EC E3 71 7A 8C 83 8C B3 88 E5 27 AE 3C DD 31"))
	send := "8B 7C DC 14 9B 99 3A 1B A1 18 CB 15 3F 56 DC CB"
	wantHex(t, "SendStartKey128", asymmetricStartKey(master, magicFromServer), send)
	msk := mskMSCHAPv2(hash, response)
	wantHex(t, "the MSK's second quarter", msk[16:32], send)
	if !bytes.Equal(msk[:16], asymmetricStartKey(master, magicFromPeer)) || !bytes.Equal(msk[32:], make([]byte, 32)) || len(msk) != 64 {
		t.Errorf("MSK %x", []byte(msk))
	}
}

// A password outside ASCII is UTF-16, with surrogates.
func TestRFC2759_8_3_PasswordIsUTF16(t *testing.T) {
	want := hashNtPasswordHash([]byte("\xe4\x00\xac\x20\x3d\xd8\x00\xde"))
	if got := ntPasswordHash([]byte("ä€😀")); !got.Equal(want) {
		t.Errorf("hash %x, want %x", []byte(got), []byte(want))
	}
}

// RFC 1994 §4.1: MD5 over identifier, secret and challenge, here over "\x01ab".
func TestRFC1994_4_1_Value(t *testing.T) {
	v := chapValue('a', []byte("b"), []byte("c"))
	wantHex(t, "MD5(abc)", v[:], "900150983cd24fb0d6963f7d28e17f72")
}

func TestSuccessProof(t *testing.T) {
	digits := strings.Repeat("0A", 20)
	for message, ok := range map[string]bool{
		"S=" + digits:                     true,
		"S=" + digits + " M=Welcome":      true,
		"S=" + digits + "\x00":            true,
		"S=" + strings.ToLower(digits):    true,
		"":                                false,
		"S=":                              false,
		"S=" + digits[:38]:                false,
		"S=" + digits[:38] + " M=x":       false,
		"S=" + digits + "00":              false,
		"S=" + digits[:39] + "g":          false,
		"M=x S=" + digits:                 false,
		"s=" + digits:                     false,
		strings.Repeat("S=", 1<<15):       false,
		"S=" + strings.Repeat("\x00", 40): false,
	} {
		proof, err := successProof([]byte(message))
		if (err == nil) != ok || ok && len(proof) != authResponseLen || !ok && !errors.Is(err, ErrMalformed) {
			t.Errorf("%.50q: %x, %v", message, proof, err)
		}
	}
}

// CVE-2025-62291: the challenge in a Failure message of a hostile server.
func TestCVE_2025_62291_FailureMessage(t *testing.T) {
	c := strings.Repeat("5A", 16)
	for message, want := range map[string]int{
		"E=691 R=1 C=" + c + " V=3 M=Authentication failed": 691,
		"E=691":                            691,
		"E=648 R=0":                        648,
		"E=691 R=0 M=C=zz":                 691,
		"E=691 C=" + c + "\x00":            -1,
		"":                                 -1,
		"E=":                               -1,
		"E=-1":                             -1,
		"E=99999999999999999999":           -1,
		"R=1 C=" + c:                       -1,
		"E=691 C=":                         -1,
		"E=691 C=5":                        -1,
		"E=691 C=" + c + "00":              -1,
		"E=691 C=" + c[:30]:                -1,
		"E=691 C=" + c[:31] + "x":          -1,
		"E=691 R":                          -1,
		"E=691 C=" + strings.Repeat(c, 99): -1,
	} {
		code, err := failureCode([]byte(message))
		if err == nil && code != want || err != nil && (want >= 0 || !errors.Is(err, ErrMalformed)) {
			t.Errorf("%.50q: %d, %v", message, code, err)
		}
	}
}

// Without this setting no peer without the extended master secret could use TLS 1.2.
func TestExporterIsAllowedWithoutExtendedMasterSecret(t *testing.T) {
	b, ok := debug.ReadBuildInfo()
	if !ok {
		t.Fatal("no build information")
	}
	for _, s := range b.Settings {
		if s.Key == "DefaultGODEBUG" && strings.Contains(s.Value, "tlsunsafeekm=1") {
			return
		}
	}
	t.Error("go.mod doesn't say godebug tlsunsafeekm=1")
}

func TestSecretsAreOverwritten(t *testing.T) {
	own := Secret{Password: suite.Key("clientPass"), NTHash: ntPasswordHash([]byte("clientPass"))}
	cfg := PeerConfig{Identity: "carol", Secret: own, Methods: []Type{TypeMSCHAPv2}}
	p := newPeer(cfg)
	s := newServer(ServerConfig{Methods: []Type{TypeMSCHAPv2}, Identity: "carol", Secret: func(string) (Secret, bool) { return own, true }})
	out, err := s.Next(nil)
	for range 2 {
		if err == nil {
			out, err = p.Next(out.Out)
		}
		if err == nil {
			out, err = s.Next(out.Out)
		}
	}
	if err != nil || !out.Success {
		t.Fatal(out, err)
	}
	m := p.method.(*mschapv2Peer)
	msk := m.msk
	p.Close()
	for name, k := range map[string]suite.Key{"password": p.cfg.Secret.Password, "hash": p.cfg.Secret.NTHash, "MSK": msk} {
		if len(k) == 0 || !bytes.Equal(k, make([]byte, len(k))) {
			t.Errorf("the %s is still there", name)
		}
	}
	if string(own.Password) != "clientPass" || bytes.Equal(own.NTHash, make([]byte, 16)) {
		t.Error("the caller's secret was overwritten")
	}
	if _, err := p.Next(out.Out); !errors.Is(err, ErrOver) {
		t.Errorf("Next after Close: %v", err)
	}
}

// The peer may try again as often as Retries says, each time for a new challenge.
func TestRFC2759_6_Retries(t *testing.T) {
	right, wrong := Secret{Password: suite.Key("clientPass")}, Secret{Password: suite.Key("x")}
	respond := func(challenge []byte, secret Secret) []byte {
		v, _, _ := respondMSCHAPv2(secret, challenge, []byte("User"))
		return appendMSCHAPv2(opResponse, 7, []byte{responseLen}, v, []byte{0}, []byte("User"))
	}
	begin := func(retries int) (*mschapv2Server, []byte) {
		s := newMSCHAPv2Server(&ServerConfig{Retries: retries, Secret: func(string) (Secret, bool) { return right, true }})
		out, _, _ := s.next(7, nil)
		return s, bytes.Clone(out[5 : 5+challengeLen])
	}
	refused := func(s *mschapv2Server, in []byte) (retry bool, challenge []byte) {
		t.Helper()
		out, done, err := s.next(8, in)
		if err != nil || done || out[0] != opFailure || s.proven {
			t.Fatalf("%x %v %v", out, done, err)
		}
		_, text, _ := strings.Cut(string(out), " C=")
		return strings.Contains(string(out), "R=1"), unhex(t, text[:32])
	}
	t.Run("right at the second try", func(t *testing.T) {
		s, c := begin(1)
		retry, next := refused(s, respond(c, wrong))
		if !retry || bytes.Equal(next, c) {
			t.Fatal("no retry or no new challenge")
		}
		if out, _, err := s.next(9, respond(next, right)); err != nil || out[0] != opSuccess {
			t.Fatalf("%x %v", out, err)
		}
		if _, done, err := s.next(10, []byte{opSuccess}); err != nil || !done {
			t.Fatalf("%v %v", done, err)
		}
	})
	t.Run("an old challenge", func(t *testing.T) {
		s, c := begin(2)
		refused(s, respond(c, wrong))
		refused(s, respond(c, right))
	})
	t.Run("after the last", func(t *testing.T) {
		for retries := range 3 {
			s, c := begin(retries)
			for try := range retries + 1 {
				var retry bool
				if retry, c = refused(s, respond(c, wrong)); retry != (try < retries) {
					t.Errorf("try %d of %d: retry %v", try, retries, retry)
				}
			}
			if _, done, err := s.next(9, respond(c, right)); done || !errors.Is(err, ErrPassword) {
				t.Errorf("%v, %v", done, err)
			}
		}
	})
}
