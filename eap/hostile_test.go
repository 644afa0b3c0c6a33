package eap_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"adit/eap"
	"adit/suite"
)

func request(id uint8, t eap.Type, data ...byte) []byte {
	return eap.Packet{Code: eap.CodeRequest, Identifier: id, Type: t, Data: data}.Append(nil)
}

func response(id uint8, t eap.Type, data ...byte) []byte {
	return eap.Packet{Code: eap.CodeResponse, Identifier: id, Type: t, Data: data}.Append(nil)
}

func verdict(c eap.Code, id uint8) []byte {
	return eap.Packet{Code: c, Identifier: id}.Append(nil)
}

// identified is a server that has the peer's identity and has sent the first
// request of its method.
func identified(t *testing.T, cfg eap.ServerConfig) (s eap.Session, first []byte) {
	t.Helper()
	s = mustServer(t, cfg)
	step, err := s.Next(nil)
	if err == nil {
		step, err = s.Next(response(step.Out[1], eap.TypeIdentity, []byte("carol@example")...))
	}
	if err != nil {
		t.Fatal(err)
	}
	return s, step.Out
}

// eachConfig are all methods, those with TLS in both versions.
func eachConfig(t *testing.T, test func(t *testing.T, m eap.Type, s eap.ServerConfig, p eap.PeerConfig)) {
	for _, m := range allMethods {
		for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			if v == tls.VersionTLS12 && m != eap.TypeTLS && m != eap.TypeTTLS {
				continue
			}
			s, p := serverConfig(m), peerConfig(m)
			s.TLS.MaxVersion = v
			t.Run(fmt.Sprintf("%v %s", m, tls.VersionName(v)), func(t *testing.T) { test(t, m, s, p) })
		}
	}
}

// A Success in the place of any packet of the server but the last is refused, and
// the keys with it.
func TestCVE_2021_45079_EarlySuccess(t *testing.T) {
	eachConfig(t, func(t *testing.T, m eap.Type, s eap.ServerConfig, p eap.PeerConfig) {
		n := len(run(t, s, p).packets)
		for at := 0; at < n-1; at += 2 {
			for _, add := range []uint8{0, 1, 255} {
				o := converse(t, mustServer(t, s), mustPeer(t, p), func(n int, pkt []byte) []byte {
					if n == at {
						return verdict(eap.CodeSuccess, pkt[1]+add)
					}
					return pkt
				})
				o.wantFailure(t, nil, eap.ErrEarlySuccess)
			}
		}
	})
	t.Run("nothing else", func(t *testing.T) {
		p := mustPeer(t, peerConfig(eap.TypeMSCHAPv2))
		if step, err := p.Next(verdict(eap.CodeSuccess, 0)); step.Success || !errors.Is(err, eap.ErrEarlySuccess) {
			t.Error(step, err)
		}
	})
}

func TestFailureAtAnyMoment(t *testing.T) {
	eachConfig(t, func(t *testing.T, m eap.Type, s eap.ServerConfig, p eap.PeerConfig) {
		n := len(run(t, s, p).packets)
		for at := 0; at < n; at += 2 {
			o := converse(t, mustServer(t, s), mustPeer(t, p), func(n int, pkt []byte) []byte {
				if n == at {
					return verdict(eap.CodeFailure, pkt[1])
				}
				return pkt
			})
			if o.peer.Success || !errors.Is(o.peerErr, eap.ErrFailure) {
				t.Errorf("packet %d: %v", at, o.peerErr)
			}
		}
	})
}

// A response to another request than the last ends the session, also one that was
// right once.
func TestRFC3748_4_1_Identifier(t *testing.T) {
	eachConfig(t, func(t *testing.T, m eap.Type, s eap.ServerConfig, p eap.PeerConfig) {
		n := len(run(t, s, p).packets)
		for at := 1; at < n; at += 2 {
			o := converse(t, mustServer(t, s), mustPeer(t, p), func(n int, pkt []byte) []byte {
				if n == at {
					pkt[1]++
				}
				return pkt
			})
			o.wantFailure(t, eap.ErrIdentifier, eap.ErrFailure)
			var last []byte
			o = converse(t, mustServer(t, s), mustPeer(t, p), func(n int, pkt []byte) []byte {
				if n%2 == 0 {
					return pkt
				}
				if n == at && last != nil {
					return last
				}
				last = bytes.Clone(pkt)
				return pkt
			})
			if at > 1 {
				o.wantFailure(t, eap.ErrIdentifier, eap.ErrFailure)
			}
		}
	})
	// The Success of another exchange.
	o := converse(t, mustServer(t, serverConfig(eap.TypeMSCHAPv2)), mustPeer(t, peerConfig(eap.TypeMSCHAPv2)), func(_ int, pkt []byte) []byte {
		if eap.Code(pkt[0]) == eap.CodeSuccess {
			pkt[1] += 7
		}
		return pkt
	})
	if o.peer.Success || !errors.Is(o.peerErr, eap.ErrIdentifier) {
		t.Error(o.peerErr)
	}
}

// The class of CVE-2026-35330, lengths inside a method: every packet of an exchange is cut off at every length, with the old length field and with a fitting
// one, and its length fields are set to extremes.
func TestCVE_2026_35330_Lengths(t *testing.T) {
	eachConfig(t, func(t *testing.T, m eap.Type, s eap.ServerConfig, p eap.PeerConfig) {
		sample := run(t, s, p).packets
		try := func(at int, change func([]byte) []byte) outcome {
			return converse(t, mustServer(t, s), mustPeer(t, p), func(n int, pkt []byte) []byte {
				if n == at {
					return change(pkt)
				}
				return pkt
			})
		}
		for at, pkt := range sample {
			step := 1
			if m == eap.TypeTLS || m == eap.TypeTTLS {
				step = 1 + len(pkt)/8
			}
			for n := 0; n < len(pkt); n += step {
				o := try(at, func(b []byte) []byte { return b[:min(n, len(b))] })
				if o.server.Success && o.peer.Success {
					t.Fatalf("packet %d cut to %d", at, n)
				}
				o = try(at, func(b []byte) []byte {
					b = b[:min(n, len(b))]
					if len(b) >= 4 {
						binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
					}
					return b
				})
				// Names and texts may be shorter: then both agree, or neither succeeds.
				if o.server.Success && o.peer.Success && !bytes.Equal(o.server.MSK, o.peer.MSK) {
					t.Fatalf("packet %d cut to %d: the keys differ", at, n)
				}
			}
			// Signatures vary in length: the wrong lengths are made from the true one.
			for _, n := range []func(int) int{
				func(int) int { return 0 }, func(int) int { return 3 }, func(n int) int { return n - 1 },
				func(n int) int { return n + 1 }, func(int) int { return 0xffff },
			} {
				o := try(at, func(b []byte) []byte { binary.BigEndian.PutUint16(b[2:], uint16(n(len(b)))); return b })
				if o.server.Success && o.peer.Success {
					t.Fatalf("packet %d with a wrong length field", at)
				}
			}
		}
	})
}

func TestMethodChangedMidway(t *testing.T) {
	types := []eap.Type{eap.TypeIdentity, eap.TypeNotification, eap.TypeNak, eap.TypeMD5, eap.TypeGTC, eap.TypeTLS, eap.TypeTTLS, eap.TypeMSCHAPv2, eap.TypeExpanded, 55}
	for _, m := range allMethods {
		for _, other := range types {
			if other == m {
				continue
			}
			s, first := identified(t, serverConfig(m))
			if step, err := s.Next(response(first[1], other, 1, 2, 3, 4, 5, 6, 7)); err == nil || step.Success || step.Out[0] != byte(eap.CodeFailure) {
				t.Errorf("server of %v took %v", m, other)
			}
			p := mustPeer(t, peerConfig(m))
			if _, err := p.Next(first); err != nil {
				t.Fatal(err)
			}
			step, err := p.Next(request(99, other, 1, 2, 3, 4, 5, 6, 7))
			if (err == nil) != (other == eap.TypeNotification) {
				t.Errorf("peer of %v got %v: %x, %v", m, other, step.Out, err)
			}
		}
	}
	// A Nak after the method has begun.
	s, first := identified(t, serverConfig(eap.TypeTLS, eap.TypeGTC))
	p := mustPeer(t, peerConfig(eap.TypeTLS))
	hello, _ := p.Next(first)
	step, err := s.Next(hello.Out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Next(response(step.Out[1], eap.TypeNak, byte(eap.TypeGTC))); !errors.Is(err, eap.ErrUnexpected) {
		t.Error(err)
	}
}

// RFC 3748 §4.1: every request twice; the second answer is the first again and the
// exchange goes on.
func TestRepeatedRequests(t *testing.T) {
	eachConfig(t, func(t *testing.T, m eap.Type, s eap.ServerConfig, p eap.PeerConfig) {
		s.TLS.FragmentSize, p.TLS.FragmentSize = 300, 300
		server, peer := mustServer(t, s), mustPeer(t, p)
		step, err := server.Next(nil)
		for err == nil && !step.Done {
			a, err1 := peer.Next(step.Out)
			b, err2 := peer.Next(step.Out)
			if err1 != nil || err2 != nil || !bytes.Equal(a.Out, b.Out) {
				t.Fatal(err1, err2)
			}
			step, err = server.Next(a.Out)
		}
		if err != nil || !step.Success {
			t.Fatal(err)
		}
		if last, err := peer.Next(step.Out); err != nil || !last.Success || !last.MSK.Equal(step.MSK) {
			t.Fatal(err)
		}
	})
}

func TestEndlessFragmentsEndTheServer(t *testing.T) {
	for name, c := range map[string]struct {
		fragment []byte
		want     error
	}{
		"one byte each":          {[]byte{0x40, 22}, eap.ErrLimit},
		"a kilobyte each":        {append([]byte{0x40}, make([]byte, 1000)...), eap.ErrLimit},
		"announced 4 GiB":        {[]byte{0xc0, 0xff, 0xff, 0xff, 0xff, 22}, eap.ErrLimit},
		"announced 64 KiB + 1":   {[]byte{0xc0, 0, 1, 0, 1, 22}, eap.ErrLimit},
		"more than announced":    {append([]byte{0xc0, 0, 0, 0, 9}, make([]byte, 5)...), eap.ErrMalformed},
		"announced 0":            {[]byte{0xc0, 0, 0, 0, 0, 22}, eap.ErrMalformed},
		"empty":                  {[]byte{0x40}, eap.ErrMalformed},
		"empty, announced":       {[]byte{0xc0, 0, 0, 4, 0}, eap.ErrMalformed},
		"length cut off":         {[]byte{0xc0, 0, 0, 4}, eap.ErrMalformed},
		"shorter than announced": {[]byte{0x80, 0, 0, 4, 0, 22}, eap.ErrMalformed},
		"start again":            {[]byte{0x20}, eap.ErrUnexpected},
		"consent to nothing":     {[]byte{0}, eap.ErrUnexpected},
		"no flags":               {nil, eap.ErrMalformed},
	} {
		for _, m := range []eap.Type{eap.TypeTLS, eap.TypeTTLS} {
			s, first := identified(t, serverConfig(m))
			step := eap.Step{Out: first}
			var err error
			n := 0
			for ; err == nil && n < 1000; n++ {
				step, err = s.Next(response(step.Out[1], m, c.fragment...))
			}
			if !errors.Is(err, c.want) || n > 200 {
				t.Errorf("%v %s: %v after %d", m, name, err, n)
			}
			// The same for a peer that has sent its ClientHello.
			p := mustPeer(t, peerConfig(m))
			_, err = p.Next(first)
			for n = 0; err == nil && n < 1000; n++ {
				_, err = p.Next(request(uint8(n), m, c.fragment...))
			}
			if !errors.Is(err, c.want) || n > 200 {
				t.Errorf("peer of %v %s: %v after %d", m, name, err, n)
			}
		}
	}
}

// A sender of fragments that gets data in place of an acknowledgement stops.
func TestDataInsteadOfAcknowledgement(t *testing.T) {
	p := peerConfig(eap.TypeTLS)
	p.TLS.FragmentSize = 100
	_, first := identified(t, serverConfig(eap.TypeTLS))
	for _, data := range [][]byte{{0, 1}, {0x40}, {0x80}, {0x20}, {0x80, 0, 0, 0, 0}} {
		peer := mustPeer(t, p)
		step, err := peer.Next(first)
		if err != nil || step.Out[5]&0x40 == 0 {
			t.Fatal("no fragment", err)
		}
		if _, err := peer.Next(request(9, eap.TypeTLS, data...)); !errors.Is(err, eap.ErrUnexpected) {
			t.Errorf("%x: %v", data, err)
		}
	}
}

// CVE-2026-35328 and CVE-2026-35332: a supported_versions extension that is too short,
// a public value that is empty or of small order.
func TestCVE_2026_35328_CVE_2026_35332_HandshakeValues(t *testing.T) {
	versions := func(length byte) func([]byte) []byte {
		return func(b []byte) []byte {
			at := bytes.Index(b, []byte{0, 43, 0, 5, 4, 3, 4, 3, 3})
			if at < 0 {
				t.Fatalf("no supported_versions in %x", b)
			}
			b[at+4] = length
			return b
		}
	}
	keyExchange := func(point []byte) func([]byte) []byte {
		return func(b []byte) []byte {
			const at = 10 // behind the EAP header, flags and length
			if !bytes.Equal(b[at:at+10], []byte{22, 3, 3, 0, 37, 16, 0, 0, 33, 32}) {
				t.Fatalf("no ClientKeyExchange in %x", b)
			}
			record := append([]byte{22, 3, 3, 0, byte(5 + len(point)), 16, 0, 0, byte(1 + len(point)), byte(len(point))}, point...)
			data := append(append([]byte{0}, record...), b[at+42:]...)
			return response(b[1], eap.TypeTTLS, data...)
		}
	}
	for name, c := range map[string]struct {
		at     int
		change func([]byte) []byte
	}{
		"versions of length 1":   {3, versions(1)},
		"versions of length 3":   {3, versions(3)},
		"versions of length 0":   {3, versions(0)},
		"versions beyond":        {3, versions(255)},
		"empty public value":     {5, keyExchange(nil)},
		"short public value":     {5, keyExchange(make([]byte, 31))},
		"long public value":      {5, keyExchange(make([]byte, 33))},
		"zero public value":      {5, keyExchange(make([]byte, 32))},
		"value of small order":   {5, keyExchange(append([]byte{1}, make([]byte, 31)...))},
		"another's public value": {5, keyExchange(bytes.Repeat([]byte{9}, 32))},
	} {
		s, p := serverConfig(eap.TypeTTLS), peerConfig(eap.TypeTTLS)
		if c.at == 5 {
			s.TLS.MaxVersion = tls.VersionTLS12
		}
		done := false
		o := converse(t, mustServer(t, s), mustPeer(t, p), func(n int, pkt []byte) []byte {
			if n == c.at {
				done = true
				return c.change(pkt)
			}
			return pkt
		})
		if !done {
			t.Fatal(name, "never came")
		}
		o.wantFailure(t, eap.ErrTLS, nil)
	}
}

// Records that lead nowhere.
func TestTLSRecordsWithoutEnd(t *testing.T) {
	for name, records := range map[string][]byte{
		"empty handshake records":   bytes.Repeat([]byte{22, 3, 3, 0, 0}, 1000),
		"empty application records": bytes.Repeat([]byte{23, 3, 3, 0, 0}, 1000),
		"warnings":                  bytes.Repeat([]byte{21, 3, 3, 0, 2, 1, 90}, 1000),
		"change cipher specs":       bytes.Repeat([]byte{20, 3, 3, 0, 1, 1}, 1000),
		"half a header":             {22, 3},
		"header without body":       {22, 3, 3, 0x40, 0},
		"handshake of 16 MiB":       {22, 3, 3, 0, 4, 1, 0xff, 0xff, 0xff},
		"not TLS":                   []byte("GET / HTTP/1.1\r\n\r\n"),
		"one byte of a ClientHello": {22, 3, 3, 0, 1, 1},
	} {
		for _, m := range []eap.Type{eap.TypeTLS, eap.TypeTTLS} {
			s, first := identified(t, serverConfig(m))
			step := eap.Step{Out: first}
			var err error
			n := 0
			for ; err == nil && n < 5; n++ {
				step, err = s.Next(response(step.Out[1], m, append([]byte{0}, records...)...))
			}
			if err == nil {
				t.Errorf("server of %v, %s: goes on after %d", m, name, n)
			}
			p := mustPeer(t, peerConfig(m))
			_, err = p.Next(first)
			for n = 0; err == nil && n < 250; n++ {
				_, err = p.Next(request(uint8(n), m, append([]byte{0}, records...)...))
			}
			if err == nil {
				t.Errorf("peer of %v, %s: goes on after %d", m, name, n)
			}
		}
	}
}

func TestEndlessRequestsEndThePeer(t *testing.T) {
	for name, c := range map[string]struct {
		pkt  func(id uint8) []byte
		most int
	}{
		"Identity":      {func(id uint8) []byte { return request(id, eap.TypeIdentity) }, 64},
		"same Identity": {func(uint8) []byte { return request(1, eap.TypeIdentity) }, 64},
		"Notification":  {func(id uint8) []byte { return request(id, eap.TypeNotification, 'x') }, 64},
		"other methods": {func(id uint8) []byte { return request(id, 43) }, 8},
		"expanded":      {func(id uint8) []byte { return request(id, eap.TypeExpanded, 0, 1, 2, 0, 0, 0, 1) }, 8},
	} {
		p := mustPeer(t, peerConfig(eap.TypeMSCHAPv2))
		n := 0
		for ; n < 1000; n++ {
			step, err := p.Next(c.pkt(uint8(n)))
			if err != nil {
				break
			}
			if name == "expanded" && (step.Out[4] != byte(eap.TypeNak) || step.Out[5] != byte(eap.TypeMSCHAPv2)) {
				t.Errorf("%x is no Nak for MSCHAPv2", step.Out)
			}
		}
		if n != c.most {
			t.Errorf("%s: %d answers", name, n)
		}
	}
}

func TestEndlessNaksEndTheServer(t *testing.T) {
	for name, types := range map[string][]byte{
		"all": {4, 6, 13, 21, 26, 43}, "none": {0}, "offered": {4}, "empty": {}, "unknown": bytes.Repeat([]byte{99}, 5000),
	} {
		s, first := identified(t, serverConfig(allMethods...))
		step, n := eap.Step{Out: first}, 0
		var err error
		for ; err == nil && n < 100; n++ {
			step, err = s.Next(response(step.Out[1], eap.TypeNak, types...))
		}
		if n > len(allMethods) || !errors.Is(err, eap.ErrMethods) && name != "empty" {
			t.Errorf("%s: %v after %d", name, err, n)
		}
	}
	// An expanded Nak chooses, too.
	s, first := identified(t, serverConfig(eap.TypeMD5, eap.TypeGTC))
	nak := []byte{0, 0, 0, 0, 0, 0, 3, 254, 0, 0, 0, 0, 0, 0, 6}
	if step, err := s.Next(response(first[1], eap.TypeExpanded, nak...)); err != nil || step.Out[4] != byte(eap.TypeGTC) {
		t.Error(step, err)
	}
}

func TestIdentityRefused(t *testing.T) {
	for name, c := range map[string]struct {
		typ  eap.Type
		data []byte
		want error
	}{
		"empty":       {eap.TypeIdentity, nil, eap.ErrMalformed},
		"long":        {eap.TypeIdentity, make([]byte, 1025), eap.ErrLimit},
		"no identity": {eap.TypeMSCHAPv2, []byte{3}, eap.ErrUnexpected},
		"Nak":         {eap.TypeNak, []byte{26}, eap.ErrUnexpected},
	} {
		s := mustServer(t, serverConfig(eap.TypeMSCHAPv2))
		step, _ := s.Next(nil)
		if step, err := s.Next(response(step.Out[1], c.typ, c.data...)); !errors.Is(err, c.want) || step.Success {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := mustServer(t, serverConfig(eap.TypeMSCHAPv2))
	if _, err := s.Next(response(0, eap.TypeIdentity, 'x')); !errors.Is(err, eap.ErrUnexpected) {
		t.Errorf("response before the first request: %v", err)
	}
	if _, err := s.Next(nil); !errors.Is(err, eap.ErrOver) {
		t.Errorf("after the end: %v", err)
	}
}

// A server reaches Success neither by the peer's word nor without the password.
func TestMSCHAPv2ServerOutOfOrder(t *testing.T) {
	for name, data := range map[string][]byte{
		"Success":         {3},
		"Success, long":   {3, 1, 0, 4},
		"Failure":         {4},
		"Challenge":       append([]byte{1, 1, 0, 25, 16}, make([]byte, 20)...),
		"Change-Password": {7, 1, 0, 4},
		"zero response":   append(append([]byte{2, 1, 0, 59, 49}, make([]byte, 49)...), "carol"...),
		"short response":  {2, 1, 0, 5, 49},
		"short value":     append([]byte{2, 1, 0, 59, 48}, make([]byte, 54)...),
		"without a name":  append([]byte{2, 1, 0, 54, 49}, make([]byte, 49)...),
		"length too long": append([]byte{2, 1, 0xff, 0xff, 49}, make([]byte, 54)...),
		"length 0":        append([]byte{2, 1, 0, 0, 49}, make([]byte, 54)...),
		"long name":       append([]byte{2, 1, 2, 0, 49}, make([]byte, 600)...),
		"empty":           {},
	} {
		s, first := identified(t, serverConfig(eap.TypeMSCHAPv2))
		step, err := s.Next(response(first[1], eap.TypeMSCHAPv2, data...))
		for n := 0; err == nil && n < 3; n++ { // after the Failure request of MSCHAPv2
			step, err = s.Next(response(step.Out[1], eap.TypeMSCHAPv2, 3))
		}
		if err == nil || step.Success {
			t.Errorf("%s: %+v", name, step)
		}
	}
}

// A server without the password has no proof.
func TestMSCHAPv2ServerWithoutThePassword(t *testing.T) {
	s := serverConfig(eap.TypeMSCHAPv2)
	for name, proof := range map[string]string{
		"zeros": "S=0000000000000000000000000000000000000000", "none": "", "short": "S=00", "text": "M=Welcome",
	} {
		o := converse(t, mustServer(t, s), mustPeer(t, peerConfig(eap.TypeMSCHAPv2)), func(n int, pkt []byte) []byte {
			if n != 4 {
				return pkt
			}
			return request(pkt[1], eap.TypeMSCHAPv2, append([]byte{3, pkt[6], 0, byte(4 + len(proof))}, proof...)...)
		})
		if o.peer.Success || o.server.Success || o.peerErr == nil {
			t.Errorf("%s: %v", name, o.peerErr)
		}
	}
	// Success without a challenge; two challenges; a challenge of another size.
	ch := append([]byte{1, 1, 0, 22, 16}, make([]byte, 17)...)
	for name, seq := range map[string][][]byte{
		"no challenge":    {append([]byte{3, 1, 0, 46}, "S=0000000000000000000000000000000000000000"...)},
		"two challenges":  {ch, ch},
		"short challenge": {append([]byte{1, 1, 0, 14, 8}, make([]byte, 9)...)},
		"long challenge":  {append([]byte{1, 1, 1, 4, 255}, make([]byte, 255)...)},
	} {
		p := mustPeer(t, peerConfig(eap.TypeMSCHAPv2))
		var err error
		for i, data := range seq {
			_, err = p.Next(request(uint8(i), eap.TypeMSCHAPv2, data...))
		}
		if err == nil {
			t.Errorf("%s: goes on", name)
		}
	}
}

// Whose hash alone is known cannot use MD5, and an empty password in the
// configuration is nobody's.
func TestSecretsThatDoNotFit(t *testing.T) {
	p := peerConfig(eap.TypeMD5)
	p.Identity, p.Secret = "hashed", eap.Secret{Password: suite.Key("clientPass")}
	run(t, serverConfig(eap.TypeMD5), p).wantFailure(t, eap.ErrUnknownIdentity, eap.ErrFailure)
	s := serverConfig(eap.TypeMSCHAPv2)
	s.Secret = func(string) (eap.Secret, bool) { return eap.Secret{NTHash: make(suite.Key, 15)}, true }
	run(t, s, peerConfig(eap.TypeMSCHAPv2)).wantFailure(t, eap.ErrUnknownIdentity, eap.ErrFailure)
}

func TestCloseInTheMiddle(t *testing.T) {
	eachConfig(t, func(t *testing.T, m eap.Type, s eap.ServerConfig, p eap.PeerConfig) {
		n := len(run(t, s, p).packets)
		for at := range n {
			server, peer := mustServer(t, s), mustPeer(t, p)
			converse(t, server, peer, func(n int, pkt []byte) []byte {
				if n == at {
					server.Close()
					peer.Close()
				}
				return pkt
			})
			server.Close()
			for _, s := range []eap.Session{server, peer} {
				if step, err := s.Next([]byte{1, 1, 0, 5, 1}); !errors.Is(err, eap.ErrOver) || step.Success || step.MSK != nil {
					t.Fatal(step, err)
				}
			}
		}
	})
}
