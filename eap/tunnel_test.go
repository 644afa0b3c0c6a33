package eap

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"slices"
	"testing"

	"adit/suite"
)

// selfSigned is a certificate that acceptAll takes.
func selfSigned(t testing.TB) []tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
}

func acceptAll(string, [][]byte) error { return nil }

func testTLS(t testing.TB, version uint16) *TLSConfig {
	return &TLSConfig{Certificates: selfSigned(t), VerifyPeer: acceptAll, MinVersion: version, MaxVersion: version}
}

func testServerConfig(t testing.TB, version uint16) ServerConfig {
	cfg := ServerConfig{
		Methods: []Type{TypeTTLS}, Identity: "carol", TLS: testTLS(t, version), Tunnelled: []Type{TypeMSCHAPv2, TypeGTC, TypeMD5},
		Secret: func(id string) (Secret, bool) { return Secret{Password: suite.Key("clientPass")}, id == "carol" },
	}
	if err := cfg.check(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func testPeerConfig(t testing.TB, version uint16, methods ...Type) PeerConfig {
	cfg := PeerConfig{Methods: methods, Identity: "carol", Secret: Secret{Password: suite.Key("clientPass")}, TLS: testTLS(t, version)}
	if err := cfg.check(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// rawPeer is a TTLS peer that says in the tunnel what a test wants, round by round.
// It hands back the server's last word.
func rawPeer(t testing.TB, version uint16, scfg ServerConfig, say func(round int, heard []byte) []byte) (Step, error) {
	t.Helper()
	var conn *tls.Conn
	return rawPeerOn(t, version, scfg, &conn, say)
}

// rawPeerOn is rawPeer with the connection for say to use.
func rawPeerOn(t testing.TB, version uint16, scfg ServerConfig, conn **tls.Conn, say func(round int, heard []byte) []byte) (Step, error) {
	t.Helper()
	cfg := testPeerConfig(t, version, TypeTTLS)
	f, tun := cfg.TLS.framer(TypeTTLS), cfg.TLS.clientTunnel(TypeTTLS, "")
	defer tun.close()
	*conn = tun.conn
	s := newServer(scfg)
	s.cfg.AskIdentity = false
	defer s.Close()
	step, err := s.Next(nil)
	started, round := false, 0
	for n := 0; err == nil && !step.Done; n++ {
		if n > maxTunnelRounds {
			t.Fatal("no end")
		}
		p, perr := ParsePacket(step.Out)
		if perr != nil {
			t.Fatal(perr)
		}
		var data []byte
		if !started {
			data, _, perr = startClient(&started, &f, tun, p.Data)
		} else {
			var msg, out []byte
			if msg, data, perr = f.receive(p.Data); perr == nil && data == nil {
				if out, perr = tun.exchange(msg); perr == nil && tun.established {
					if words := say(round, tun.read()); words != nil {
						more, werr := tun.write(words)
						out, perr = append(out, more...), werr
					} else {
						out = append(out, tun.pipe.take()...)
					}
					round++
				}
				data = f.reply(out)
			}
		}
		if perr != nil {
			t.Fatal(perr)
		}
		step, err = s.Next(Packet{Code: CodeResponse, Identifier: p.Identifier, Type: TypeTTLS, Data: data}.Append(nil))
	}
	return step, err
}

func avpEAP(p Packet) []byte { return appendAVPs(AVP{Code: avpEAPMessage, Data: p.Append(nil)}) }

// CVE-2026-25075: AVPs with lengths of zero and other nonsense, at a server that has
// a tunnel with a stranger.
func TestCVE_2026_25075_AVPs(t *testing.T) {
	identity := Packet{Code: CodeResponse, Type: TypeIdentity, Data: []byte("carol")}
	name := AVP{Code: avpUserName, Data: []byte("carol")}
	for what, words := range map[string][]byte{
		"length 0":                    make([]byte, 16),
		"length 7":                    {0, 0, 0, 79, 0x40, 0, 0, 7, 0, 0, 0, 0},
		"length 8 with a vendor":      {0, 0, 0, 1, 0xc0, 0, 0, 8, 0, 0, 0, 1},
		"length beyond":               {0, 0, 0, 79, 0x40, 0, 0, 200, 2},
		"length of 16 MiB":            {0, 0, 0, 79, 0x40, 0xff, 0xff, 0xff},
		"header cut off":              {0, 0, 0, 79, 0x40},
		"empty EAP message":           {0, 0, 0, 79, 0x40, 0, 0, 8},
		"65 AVPs":                     bytes.Repeat(AVP{Code: 99}.Append(nil), 65),
		"unknown and mandatory":       append(AVP{Code: 99, Mandatory: true}.Append(nil), avpEAP(identity)...),
		"unknown alone":               AVP{Code: 99}.Append(nil),
		"EAP packet of 5 kB":          AVP{Code: avpEAPMessage, Data: make([]byte, 5000)}.Append(nil),
		"EAP packet with a tail":      appendAVPs(AVP{Code: avpEAPMessage, Data: append(identity.Append(nil), 0)}),
		"EAP packet cut off":          appendAVPs(AVP{Code: avpEAPMessage, Data: identity.Append(nil)[:8]}),
		"EAP Success":                 avpEAP(Packet{Code: CodeSuccess}),
		"EAP request":                 avpEAP(Packet{Code: CodeRequest, Type: TypeIdentity}),
		"method before identity":      avpEAP(Packet{Code: CodeResponse, Type: TypeMSCHAPv2, Data: []byte{opSuccess}}),
		"TTLS in TTLS":                avpEAP(Packet{Code: CodeResponse, Type: TypeTTLS, Data: []byte{0}}),
		"name alone":                  appendAVPs(name),
		"name twice":                  appendAVPs(name, name, AVP{Code: avpUserPassword, Data: []byte("clientPass")}),
		"password without a name":     appendAVPs(AVP{Code: avpUserPassword, Data: []byte("clientPass")}),
		"password of zeros":           appendAVPs(name, AVP{Code: avpUserPassword, Data: make([]byte, 16)}),
		"password wrong":              appendAVPs(name, AVP{Code: avpUserPassword, Data: []byte("clientPas")}),
		"MS-CHAP without challenge":   appendAVPs(name, AVP{Code: avpMSCHAP2Response, Vendor: vendorMicrosoft, Data: make([]byte, 50)}),
		"MS-CHAP response cut off":    appendAVPs(name, AVP{Code: avpMSCHAP2Response, Vendor: vendorMicrosoft, Data: make([]byte, 49)}),
		"MS-CHAP success from a peer": appendAVPs(name, AVP{Code: avpMSCHAP2Success, Vendor: vendorMicrosoft, Data: []byte("\x00S=")}),
	} {
		for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			step, err := rawPeer(t, v, testServerConfig(t, v), func(int, []byte) []byte { return slices.Clone(words) })
			if err == nil || step.Success || !bytes.Equal(step.Out[:1], []byte{byte(CodeFailure)}) {
				t.Errorf("%s: %+v", what, step)
			}
			if errors.Is(err, ErrLimit) && what != "65 AVPs" && what != "EAP packet of 5 kB" {
				t.Errorf("%s ended by a limit alone: %v", what, err)
			}
		}
	}
}

// The right words succeed over the same way, so that the refusals above mean
// something; a challenge that isn't the tunnel's does not.
func TestRFC5281_11_1_ChallengeIsOfTheTunnel(t *testing.T) {
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		step, err := rawPeer(t, v, testServerConfig(t, v), func(int, []byte) []byte {
			return appendAVPs(AVP{Code: avpUserName, Data: []byte("carol")}, AVP{Code: avpUserPassword, Data: []byte("clientPass")})
		})
		if err != nil || !step.Success || step.Identity != "carol" || len(step.MSK) != 64 || len(step.EMSK) != 64 {
			t.Fatal(step, err)
		}
		step, err = rawPeer(t, v, testServerConfig(t, v), func(int, []byte) []byte {
			challenge := make([]byte, challengeLen)
			value, _, _ := respondMSCHAPv2(Secret{Password: suite.Key("clientPass")}, challenge, []byte("carol"))
			return appendAVPs(AVP{Code: avpUserName, Data: []byte("carol")},
				AVP{Code: avpChallenge, Vendor: vendorMicrosoft, Data: challenge},
				AVP{Code: avpMSCHAP2Response, Vendor: vendorMicrosoft, Data: append([]byte{0, 0}, value...)})
		})
		if !errors.Is(err, ErrPassword) || step.Success {
			t.Fatal(step, err)
		}
	}
}

// One error inside ends the whole: there is no second try in the same tunnel.
func TestTTLSInnerErrorEndsTheWhole(t *testing.T) {
	pap := appendAVPs(AVP{Code: avpUserName, Data: []byte("carol")}, AVP{Code: avpUserPassword, Data: []byte("clientPass")})
	for what, say := range map[string]func(round int, heard []byte) []byte{
		"wrong, then right": func(round int, _ []byte) []byte {
			if round == 0 {
				return appendAVPs(AVP{Code: avpUserName, Data: []byte("carol")}, AVP{Code: avpUserPassword, Data: []byte("x")})
			}
			return pap
		},
		"EAP, then PAP": func(round int, _ []byte) []byte {
			if round == 0 {
				return avpEAP(Packet{Code: CodeResponse, Type: TypeIdentity, Data: []byte("carol")})
			}
			return pap
		},
		"endless identities": func(round int, heard []byte) []byte {
			id := byte(0)
			if len(heard) > 9 {
				id = heard[9]
			}
			return avpEAP(Packet{Code: CodeResponse, Identifier: id, Type: TypeIdentity, Data: []byte("carol")})
		},
		"silence": func(int, []byte) []byte { return nil },
	} {
		step, err := rawPeer(t, tls.VersionTLS13, testServerConfig(t, tls.VersionTLS13), say)
		if err == nil || step.Success {
			t.Errorf("%s: %+v", what, step)
		}
	}
}

// A peer that closes the tunnel when it hears that its password is wrong, as
// strongSwan does, doesn't hide why.
func TestTTLSPeerLeavesAfterWrongPassword(t *testing.T) {
	inner := newPeer(PeerConfig{Identity: "carol", Methods: []Type{TypeMSCHAPv2}, Secret: Secret{Password: suite.Key("wrong")}})
	defer inner.Close()
	var tunnel *tls.Conn
	step, err := rawPeerOn(t, tls.VersionTLS12, testServerConfig(t, tls.VersionTLS12), &tunnel, func(round int, heard []byte) []byte {
		if round == 0 {
			return avpEAP(Packet{Code: CodeResponse, Type: TypeIdentity, Data: []byte("carol")})
		}
		avps, err := sortAVPs(heard)
		if err != nil {
			t.Fatal(err)
		}
		step, err := inner.Next(avps.eap)
		if err != nil {
			t.Fatal(err)
		}
		if inner.failing != nil {
			if err := tunnel.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			return nil
		}
		return appendAVPs(AVP{Code: avpEAPMessage, Data: step.Out})
	})
	if inner.failing == nil || !errors.Is(err, ErrPassword) || step.Success {
		t.Errorf("%v; %+v, %v", inner.failing, step, err)
	}
}

// rawServer is a TLS or TTLS server that says in the tunnel what a test wants and
// then Success. It returns what the peer makes of it.
func rawServer(t testing.TB, version uint16, cfg PeerConfig, say func(round int, heard []byte) []byte) (Step, error) {
	t.Helper()
	typ := cfg.Methods[0]
	srv := testTLS(t, version)
	f, tun := srv.framer(typ), srv.serverTunnel(typ, "")
	defer tun.close()
	p := newPeer(cfg)
	defer p.Close()
	id := uint8(1)
	step, err := p.Next(Packet{Code: CodeRequest, Identifier: id, Type: typ, Data: []byte{flagStart}}.Append(nil))
	for round := 0; err == nil; {
		r, perr := ParsePacket(step.Out)
		if perr != nil {
			t.Fatal(perr)
		}
		msg, data, perr := f.receive(r.Data)
		if perr == nil && data == nil {
			var out []byte
			out, perr = tun.exchange(msg)
			if perr == nil && tun.established {
				words := say(round, tun.read())
				if words == nil {
					return p.Next(Packet{Code: CodeSuccess, Identifier: id}.Append(nil))
				}
				round++
				if len(words) > 0 {
					more, werr := tun.write(words)
					out, perr = append(out, more...), werr
				}
			}
			data = f.reply(out)
		}
		if perr != nil {
			t.Fatal(perr)
		}
		id++
		step, err = p.Next(Packet{Code: CodeRequest, Identifier: id, Type: typ, Data: data}.Append(nil))
	}
	return step, err
}

// A TLS 1.3 server that has not said that it is content isn't believed.
func TestRFC9190_2_1_1_ProtectedSuccessIndication(t *testing.T) {
	for what, c := range map[string]struct {
		words [][]byte
		want  error
	}{
		"as it should be":  {[][]byte{{0}}, nil},
		"none":             {nil, ErrEarlySuccess},
		"another":          {[][]byte{{1}}, ErrUnexpected},
		"two bytes":        {[][]byte{{0, 0}}, ErrUnexpected},
		"a second message": {[][]byte{{0}, {0}}, ErrUnexpected},
	} {
		step, err := rawServer(t, tls.VersionTLS13, testPeerConfig(t, tls.VersionTLS13, TypeTLS), func(round int, _ []byte) []byte {
			if round < len(c.words) {
				return c.words[round]
			}
			return nil
		})
		if !errors.Is(err, c.want) || step.Success != (c.want == nil) || (len(step.MSK) == 64) != step.Success {
			t.Errorf("%s: %+v, %v", what, step, err)
		}
	}
}

// Servers that hold a certificate but not the password, or say nonsense.
func TestTTLSServerWithoutThePassword(t *testing.T) {
	request := func(typ Type, data ...byte) []byte {
		return avpEAP(Packet{Code: CodeRequest, Identifier: 1, Type: typ, Data: data})
	}
	challenge := appendMSCHAPv2(opChallenge, 1, []byte{challengeLen}, make([]byte, challengeLen), []byte("x"))
	proof := appendMSCHAPv2(opSuccess, 1, []byte("S="), bytes.Repeat([]byte("00"), 20))
	failure := appendMSCHAPv2(opFailure, 1, []byte("E=691 R=0"))
	success := avpEAP(Packet{Code: CodeSuccess, Identifier: 1})
	for what, c := range map[string]struct {
		phase2 Phase2
		words  [][]byte
		want   error
	}{
		"Success at once":                {Phase2EAP, nil, ErrEarlySuccess},
		"Success after the challenge":    {Phase2EAP, [][]byte{request(TypeMSCHAPv2, challenge...)}, ErrEarlySuccess},
		"Success inside":                 {Phase2EAP, [][]byte{success}, ErrEarlySuccess},
		"Success inside, then challenge": {Phase2EAP, [][]byte{request(TypeMSCHAPv2, challenge...), success}, ErrEarlySuccess},
		"wrong proof":                    {Phase2EAP, [][]byte{request(TypeMSCHAPv2, challenge...), request(TypeMSCHAPv2, proof...)}, ErrServer},
		"failure inside":                 {Phase2EAP, [][]byte{request(TypeMSCHAPv2, challenge...), request(TypeMSCHAPv2, failure...)}, ErrFailure},
		"GTC, which isn't allowed":       {Phase2EAP, [][]byte{request(TypeGTC, 'x')}, ErrEarlySuccess},
		"AVP of length 0":                {Phase2EAP, [][]byte{make([]byte, 8)}, ErrMalformed},
		"password from the server":       {Phase2EAP, [][]byte{appendAVPs(AVP{Code: avpUserPassword, Data: []byte("x")})}, ErrUnexpected},
		"no MS-CHAP proof":               {Phase2MSCHAPv2, nil, ErrEarlySuccess},
		"empty MS-CHAP proof":            {Phase2MSCHAPv2, [][]byte{appendAVPs(AVP{Code: avpMSCHAP2Success, Vendor: vendorMicrosoft})}, ErrMalformed},
		"another Ident":                  {Phase2MSCHAPv2, [][]byte{appendAVPs(AVP{Code: avpMSCHAP2Success, Vendor: vendorMicrosoft, Data: []byte("\x00S=")})}, ErrMalformed},
		"EAP instead of MS-CHAP":         {Phase2MSCHAPv2, [][]byte{request(TypeMSCHAPv2, challenge...)}, ErrUnexpected},
	} {
		for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			cfg := testPeerConfig(t, v, TypeTTLS)
			cfg.Phase2 = c.phase2
			step, err := rawServer(t, v, cfg, func(round int, heard []byte) []byte {
				if len(heard) == 0 && v == tls.VersionTLS12 && round == 0 {
					return []byte{} // its Finished goes first
				}
				if v == tls.VersionTLS12 {
					round--
				}
				if round < len(c.words) {
					return c.words[round]
				}
				return nil
			})
			if !errors.Is(err, c.want) || step.Success || step.MSK != nil {
				t.Errorf("%s, %s: %+v, %v", what, tls.VersionName(v), step, err)
			}
		}
	}
}

// Peer quirk: strongSwan asks for the identity inside, on top of its Finished, if
// phase2_piggyback is set; servers may split an inner packet over AVPs.
func TestTTLSServerAsksForTheIdentity(t *testing.T) {
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		var answers [][]byte
		rawServer(t, v, testPeerConfig(t, v, TypeTTLS), func(round int, heard []byte) []byte {
			answers = append(answers, heard)
			pkt := Packet{Code: CodeRequest, Identifier: 77, Type: TypeIdentity, Data: []byte("who")}.Append(nil)
			if round == 0 {
				return appendAVPs(AVP{Code: avpEAPMessage, Data: pkt[:6]}, AVP{Code: avpEAPMessage, Data: pkt[6:]})
			}
			return nil
		})
		avps, err := sortAVPs(answers[len(answers)-1])
		if err != nil || !bytes.Equal(avps.eap, Packet{Code: CodeResponse, Identifier: 77, Type: TypeIdentity, Data: []byte("carol")}.Append(nil)) {
			t.Errorf("%s: %x, %v", tls.VersionName(v), avps.eap, err)
		}
	}
}

// What a callback of the caller does wrong ends its session and no more.
func TestPanicInVerifyPeerEndsTheSession(t *testing.T) {
	cfg := testPeerConfig(t, tls.VersionTLS13, TypeTLS)
	cfg.TLS.VerifyPeer = func(string, [][]byte) error { panic("of a test") }
	step, err := rawServer(t, tls.VersionTLS13, cfg, func(int, []byte) []byte { return nil })
	if !errors.Is(err, ErrTLS) || step.Success {
		t.Error(step, err)
	}
}
