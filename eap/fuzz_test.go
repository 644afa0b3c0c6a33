package eap_test

import (
	"bytes"
	"crypto/rand"
	"testing"

	"adit/eap"
	"adit/suite"
)

var allMethods = []eap.Type{eap.TypeMD5, eap.TypeGTC, eap.TypeMSCHAPv2, eap.TypeTLS, eap.TypeTTLS}

// recorded are the packets of one real exchange of every method.
func recorded(t testing.TB) (packets map[eap.Type][][]byte) {
	packets = map[eap.Type][][]byte{}
	for _, m := range allMethods {
		s, p := serverConfig(m), peerConfig(m)
		o := converse(t, mustServer(t, s), mustPeer(t, p), nil)
		if !o.server.Success {
			t.Fatal(o.serverErr, o.peerErr)
		}
		packets[m] = o.packets
	}
	return packets
}

func FuzzParsePacket(f *testing.F) {
	for _, ps := range recorded(f) {
		for _, p := range ps {
			f.Add(p)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := eap.ParsePacket(b)
		if err != nil {
			return
		}
		if got := p.Append(nil); !bytes.Equal(got, b) {
			t.Fatalf("%x became %x", b, got)
		}
	})
}

func FuzzParseAVPs(f *testing.F) {
	f.Add(eap.AVP{Code: 79, Mandatory: true, Data: []byte("\x02\x00\x00\x06\x01a")}.Append(nil))
	f.Add(eap.AVP{Code: 11, Vendor: 311, Data: make([]byte, 16)}.Append(eap.AVP{Code: 1, Data: []byte("carol")}.Append(nil)))
	f.Add(make([]byte, 64)) // length 0
	f.Fuzz(func(t *testing.T, b []byte) {
		avps, err := eap.ParseAVPs(b)
		if err != nil {
			return
		}
		n := 0
		var again []byte
		for _, a := range avps {
			n += len(a.Data)
			again = a.Append(again)
		}
		if n+8*len(avps) > len(b) {
			t.Fatal("more data than there was")
		}
		second, err := eap.ParseAVPs(again)
		if err != nil || len(second) != len(avps) {
			t.Fatalf("rebuilt: %v", err)
		}
	})
}

// split cuts fuzzed bytes into packets: two bytes of length, then the type and data.
func split(b []byte) (bodies [][]byte) {
	for len(b) > 2 && len(bodies) < 80 {
		n := min(int(b[0])<<8|int(b[1]), len(b)-2)
		if n > 0 {
			bodies = append(bodies, b[2:2+n])
		}
		b = b[2+n:]
	}
	return bodies
}

// join is the inverse of split for real packets.
func join(packets [][]byte) (b []byte) {
	for _, p := range packets {
		if len(p) > 4 {
			b = append(append(b, byte((len(p)-4)>>8), byte(len(p)-4)), p[4:]...)
		}
	}
	return b
}

func everySecond(packets [][]byte, from int) (ps [][]byte) {
	for i := from; i < len(packets); i += 2 {
		ps = append(ps, packets[i])
	}
	return ps
}

// FuzzServer answers a server's requests with arbitrary types and data. Nobody but
// who knows the password or holds a certificate may succeed.
func FuzzServer(f *testing.F) {
	for m, ps := range recorded(f) {
		f.Add(byte(m), join(everySecond(ps, 1)))
	}
	f.Fuzz(func(t *testing.T, m byte, b []byte) {
		method := allMethods[int(m)%len(allMethods)]
		if i := bytes.IndexByte([]byte{4, 6, 26, 13, 21}, m); i >= 0 {
			method = eap.Type(m)
		}
		secret := make(suite.Key, 16)
		rand.Read(secret)
		cfg := serverConfig(method)
		cfg.Secret = func(string) (eap.Secret, bool) { return eap.Secret{Password: secret}, true }
		cfg.Tunnelled = []eap.Type{eap.TypeMSCHAPv2, eap.TypeGTC, eap.TypeMD5}
		s := mustServer(t, cfg)
		defer s.Close()
		step, err := s.Next(nil)
		for _, body := range split(b) {
			if err != nil || step.Done {
				break
			}
			req, perr := eap.ParsePacket(step.Out)
			if perr != nil || req.Code != eap.CodeRequest {
				t.Fatalf("%x is no request", step.Out)
			}
			step, err = s.Next(eap.Packet{Code: eap.CodeResponse, Identifier: req.Identifier, Type: eap.Type(body[0]), Data: body[1:]}.Append(nil))
		}
		if step.Success || err != nil && (!step.Done || step.Out == nil) {
			t.Fatalf("%v: %+v, %v", method, step, err)
		}
	})
}

// FuzzPeer gives arbitrary requests to a peer, then a Success. A peer whose method
// authenticates the server may not believe it.
func FuzzPeer(f *testing.F) {
	for m, ps := range recorded(f) {
		f.Add(byte(m), join(everySecond(ps, 0)))
	}
	f.Fuzz(func(t *testing.T, m byte, b []byte) {
		method := []eap.Type{eap.TypeMSCHAPv2, eap.TypeTLS, eap.TypeTTLS}[int(m)%3]
		if m == 26 {
			method = eap.TypeMSCHAPv2
		}
		cfg := peerConfig(method)
		cfg.Secret.Password = make(suite.Key, 16)
		rand.Read(cfg.Secret.Password)
		p := mustPeer(t, cfg)
		defer p.Close()
		var step eap.Step
		var err error
		id := uint8(0)
		for _, body := range split(b) {
			id++
			step, err = p.Next(eap.Packet{Code: eap.CodeRequest, Identifier: id, Type: eap.Type(body[0]), Data: body[1:]}.Append(nil))
			if err != nil {
				break
			}
			if r, perr := eap.ParsePacket(step.Out); perr != nil || r.Code != eap.CodeResponse || r.Identifier != id {
				t.Fatalf("%x is no response", step.Out)
			}
		}
		if err == nil {
			step, err = p.Next([]byte{byte(eap.CodeSuccess), id, 0, 4})
		}
		if err == nil || step.Success || !step.Done {
			t.Fatalf("%v: %+v, %v", method, step, err)
		}
	})
}
