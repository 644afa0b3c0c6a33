package radius

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"010000380f403f9473978057bd83d5cb98f4227a01066e656d6f02120dbe708d93d413ce3196e43f782a0aee0406c0a80110050600000003",
		"0cda00268a54f4686fb394c52866e302185d062350125a665e2e1e8411f3e243822097c84fa3",
		"01010014000000000000000000000000000000000000",
	} {
		b, _ := hex.DecodeString(s)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		VerifyRequest(b, []byte("s"))
		p, err := Parse(b)
		if err != nil {
			return
		}
		again, err := p.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(b, again) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

// FuzzOpenResponse reaches what the authenticators hide: the input is the attributes
// of a response that verifies, and of one that doesn't.
func FuzzOpenResponse(f *testing.F) {
	key := hideKey(make([]byte, 32), []byte{0x80, 1}, &[16]byte{}, []byte("s"))
	p := &Packet{}
	p.AddEAP([]byte{eapSuccess, 1, 0, 4})
	p.AddVendor(VendorMicrosoft, MSMPPERecvKey, key)
	p.AddVendor(VendorMicrosoft, MSMPPESendKey, key)
	p.AddString(TypeClass, "c")
	p.AddUint32(TypeSessionTimeout, 60)
	p.Add(TypeFramedIPAddress, []byte{10, 0, 0, 1})
	b, err := p.Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(AccessAccept), b[headerLen:], true)
	f.Add(uint8(AccessReject), b[headerLen:], true)
	f.Add(uint8(AccessChallenge), []byte{79, 7, 1, 1, 0, 5, 4, 24, 3, 1}, true)
	f.Add(uint8(AccessAccept), b[headerLen:], false)
	srv := &Server{cfg: ServerConfig{Name: "s", Secret: []byte("s")}}
	f.Fuzz(func(t *testing.T, code uint8, attrs []byte, sealed bool) {
		if len(attrs) > MaxPacket-headerLen-18 {
			return
		}
		b := append([]byte{code, 5, 0, 0}, make([]byte, 16)...)
		if sealed {
			b = append(append(b, byte(TypeMessageAuthenticator), 18), make([]byte, 16)...)
		}
		b = append(b, attrs...)
		b[2], b[3] = byte(len(b)>>8), byte(len(b))
		var ra [16]byte
		if sealed {
			copy(b[headerLen+2:], messageAuth(b, headerLen+2, &ra, []byte("s")))
			sum := responseAuthenticator(b, &ra, []byte("s"))
			copy(b[4:], sum[:])
		}
		p, err := OpenResponse(b, 5, &ra, []byte("s"))
		if err != nil {
			return
		}
		if !sealed {
			t.Fatal("verified without a seal")
		}
		for _, rounds := range []int{1, 2} {
			r := &Relay{identity: "x", rounds: rounds, done: true}
			resp := &Response{Packet: p, Server: srv, request: ra}
			var s Step
			switch p.Code {
			case AccessChallenge:
				s = r.challenged(resp)
			case AccessAccept:
				s = r.accepted(resp)
			default:
				s = r.failed(resp, ErrRejected)
			}
			if s.Success && (p.Code != AccessAccept || rounds < 2 || s.Out[0] != eapSuccess) ||
				s.Done == (s.Out[0] == eapRequest) || s.Done && !s.Success && (s.Reason == nil || s.Out[0] != eapFailure) ||
				s.Success && s.Keyless != (s.MSK == nil) || s.MSK != nil && len(s.MSK) < mskLen {
				t.Fatalf("%+v", s)
			}
		}
	})
}

func TestRFC2548_2_4_KeysOpenAndRefuse(t *testing.T) {
	ra, secret := [16]byte{9, 8, 7}, []byte("s3cret")
	for _, n := range []int{1, 15, 16, 31, 32, 64, 200} {
		key := bytes.Repeat([]byte{0xab}, n)
		c := hideKey(key, []byte{0x81, 2}, &ra, secret)
		if got, err := openKey(c, &ra, secret); err != nil || !bytes.Equal(got, key) {
			t.Errorf("%d: %x %v", n, got, err)
		}
	}
	c := hideKey(make([]byte, 32), []byte{0x81, 2}, &ra, secret)
	for _, bad := range [][]byte{nil, c[:2], c[:17], c[:len(c)-1], append(bytes.Clone(c), 0)} {
		if _, err := openKey(bad, &ra, secret); err != ErrKeys {
			t.Errorf("%d octets: %v", len(bad), err)
		}
	}
	for _, n := range []byte{0, 48, 255} { // length octet 0, and beyond the blocks
		wrong := bytes.Clone(c)
		wrong[2] ^= 32 ^ n
		if _, err := openKey(wrong, &ra, secret); err != ErrKeys {
			t.Errorf("length %d: %v", n, err)
		}
	}
}

func TestRFC2548_2_4_MSKOrder(t *testing.T) {
	ra, secret := [16]byte{1}, []byte("s")
	short := bytes.Repeat([]byte{1}, 16)
	p := &Packet{}
	p.AddVendor(VendorMicrosoft, MSMPPESendKey, hideKey(bytes.Repeat([]byte{2}, 16), []byte{0x80, 1}, &ra, secret))
	if msk, err := openMSK(p, &ra, secret); msk != nil || err != nil {
		t.Error("half a key:", msk, err)
	}
	p.AddVendor(VendorMicrosoft, MSMPPERecvKey, hideKey(short, []byte{0x80, 2}, &ra, secret))
	want := make([]byte, 64)
	copy(want, short)
	copy(want[16:], bytes.Repeat([]byte{2}, 16))
	if msk, err := openMSK(p, &ra, secret); err != nil || !bytes.Equal(msk, want) {
		t.Errorf("%x %v", msk, err)
	}
	p.AddVendor(VendorMicrosoft, MSMPPERecvKey, hideKey(short, []byte{0x80, 3}, &ra, secret))
	if _, err := openMSK(p, &ra, secret); err != ErrKeys {
		t.Error("two of a kind:", err)
	}
}
