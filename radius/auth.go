package radius

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/subtle"
)

// OpenResponse verifies a response to an Access-Request or Status-Server and only
// then parses it: the identifier, the Response Authenticator (RFC 2865 §3), exactly
// one Message-Authenticator and its value (RFC 3579 §3.2), and the code. request is
// the Request Authenticator. The values of the result alias b.
func OpenResponse(b []byte, id uint8, request *[16]byte, secret []byte) (*Packet, error) {
	b, err := trim(b)
	if err != nil {
		return nil, err
	}
	if b[1] != id {
		return nil, ErrIdentifier
	}
	switch Code(b[0]) {
	case AccessAccept, AccessReject, AccessChallenge:
	default:
		return nil, ErrCode
	}
	return authenticated(b, responseAuthenticator(b, request, secret), request, secret, true)
}

// authenticated parses a packet if want is its authenticator. of is what its
// Message-Authenticator is computed over in that place; it may be missing unless it is
// demanded, but not be wrong.
func authenticated(b []byte, want [16]byte, of *[16]byte, secret []byte, demanded bool) (*Packet, error) {
	if subtle.ConstantTimeCompare(want[:], b[4:20]) != 1 {
		return nil, ErrAuthenticator
	}
	p, err := Parse(b)
	if err != nil {
		return nil, err
	}
	if err := verifyMessage(b, of, secret); err != nil && (demanded || err != ErrNoMessageAuth) {
		return nil, err
	}
	return p, nil
}

// VerifyRequest verifies the Message-Authenticator of an Access-Request in octets, as
// a server does (RFC 3579 §3.2).
func VerifyRequest(b, secret []byte) error {
	b, err := trim(b)
	if err != nil {
		return err
	}
	return verifyMessage(b, (*[16]byte)(b[4:20]), secret)
}

// responseAuthenticator is MD5(Code+ID+Length+RequestAuth+Attributes+Secret).
func responseAuthenticator(b []byte, request *[16]byte, secret []byte) (sum [16]byte) {
	h := md5.New()
	h.Write(b[:4])
	h.Write(request[:])
	h.Write(b[headerLen:])
	h.Write(secret)
	h.Sum(sum[:0])
	return sum
}

// findMessageAuth returns where the value of the Message-Authenticator stands.
func findMessageAuth(b []byte) (at int, err error) {
	for i := headerLen; i < len(b); i += int(b[i+1]) {
		if len(b)-i < 2 || b[i+1] < 2 || int(b[i+1]) > len(b)-i {
			return 0, ErrAttribute
		}
		if Type(b[i]) != TypeMessageAuthenticator {
			continue
		}
		if b[i+1] != 18 || at != 0 { // one only (RFC 3579 §3.3), of 16 octets
			return 0, ErrMessageAuth
		}
		at = i + 2
	}
	if at == 0 {
		return 0, ErrNoMessageAuth
	}
	return at, nil
}

// messageAuth is the HMAC-MD5 over a packet with the Request Authenticator in its
// header and zeros in its Message-Authenticator, whose value is at at.
func messageAuth(b []byte, at int, request *[16]byte, secret []byte) []byte {
	var zero [16]byte
	h := hmac.New(md5.New, secret)
	h.Write(b[:4])
	h.Write(request[:])
	h.Write(b[headerLen:at])
	h.Write(zero[:])
	h.Write(b[at+16:])
	return h.Sum(nil)
}

func verifyMessage(b []byte, request *[16]byte, secret []byte) error {
	at, err := findMessageAuth(b)
	if err != nil {
		return err
	}
	if !hmac.Equal(messageAuth(b, at, request, secret), b[at:at+16]) {
		return ErrMessageAuth
	}
	return nil
}

// SealRequest returns the octets of an Access-Request whose Authenticator is set: the
// Message-Authenticator comes first (so that nothing a peer wrote precedes it), a
// User-Password in clear is hidden. Message-Authenticators of p are left out.
func SealRequest(p *Packet, secret []byte) ([]byte, error) {
	q := *p
	q.Attributes = make([]Attribute, 1, 1+len(p.Attributes))
	q.Attributes[0] = Attribute{TypeMessageAuthenticator, make([]byte, 16)}
	for _, a := range p.Attributes {
		switch a.Type {
		case TypeMessageAuthenticator:
			continue
		case TypeUserPassword:
			hidden, err := HidePassword(a.Value, &p.Authenticator, secret)
			if err != nil {
				return nil, err
			}
			a.Value = hidden
		}
		q.Attributes = append(q.Attributes, a)
	}
	b, err := q.Append(nil)
	if err != nil {
		return nil, err
	}
	const at = headerLen + 2
	copy(b[at:], messageAuth(b, at, &q.Authenticator, secret))
	return b, nil
}

// SealResponse returns the octets of a response to the request with that Request
// Authenticator, as a server makes it: Message-Authenticator first, then the Response
// Authenticator over all. Message-Authenticators of p are left out.
func SealResponse(p *Packet, request *[16]byte, secret []byte) ([]byte, error) {
	q := *p
	q.Authenticator = *request
	q.Attributes = []Attribute{{TypeMessageAuthenticator, make([]byte, 16)}}
	for _, a := range p.Attributes {
		if a.Type != TypeMessageAuthenticator {
			q.Attributes = append(q.Attributes, a)
		}
	}
	b, err := q.Append(nil)
	if err != nil {
		return nil, err
	}
	const at = headerLen + 2
	copy(b[at:], messageAuth(b, at, request, secret))
	sum := responseAuthenticator(b, request, secret)
	copy(b[4:], sum[:])
	return b, nil
}

// HidePassword hides a User-Password (RFC 2865 §5.2): the result has a multiple of 16
// octets. The password may have up to 128.
func HidePassword(password []byte, request *[16]byte, secret []byte) ([]byte, error) {
	if len(password) > maxPassword {
		return nil, ErrPassword
	}
	out := make([]byte, max(16, (len(password)+15)/16*16))
	copy(out, password)
	for i, seed := 0, request[:]; i < len(out); i += 16 {
		xorBlock(out[i:i+16], secret, seed)
		seed = out[i : i+16]
	}
	return out, nil
}

// xorBlock xors MD5(secret + seeds...) onto b.
func xorBlock(b, secret []byte, seeds ...[]byte) {
	var sum [16]byte
	h := md5.New()
	h.Write(secret)
	for _, s := range seeds {
		h.Write(s)
	}
	h.Sum(sum[:0])
	subtle.XORBytes(b, b, sum[:])
	clear(sum[:])
}

// AddMSK appends an MSK to an Access-Accept as a server does (RFC 2548 §2.4.2,
// §2.4.3): the first half as MS-MPPE-Recv-Key, the second as MS-MPPE-Send-Key.
func (p *Packet) AddMSK(msk []byte, request *[16]byte, secret []byte) {
	half := len(msk) / 2
	salt := make([]byte, 2)
	rand.Read(salt)
	salt[0] |= 0x80 // as the RFC wants it
	p.AddVendor(VendorMicrosoft, MSMPPERecvKey, hideKey(msk[:half], salt, request, secret))
	salt[1] ^= 1 // no two alike in a packet
	p.AddVendor(VendorMicrosoft, MSMPPESendKey, hideKey(msk[half:], salt, request, secret))
}

// hideKey is the inverse of openKey.
func hideKey(key, salt []byte, request *[16]byte, secret []byte) []byte {
	out := make([]byte, 2+(1+len(key)+15)/16*16)
	copy(out, salt)
	out[2] = byte(len(key))
	copy(out[3:], key)
	for i := 2; i < len(out); i += 16 {
		if i == 2 {
			xorBlock(out[i:i+16], secret, request[:], salt)
		} else {
			xorBlock(out[i:i+16], secret, out[i-16:i])
		}
	}
	return out
}

// openKey decrypts the value of an MS-MPPE-Send-Key or MS-MPPE-Recv-Key (RFC 2548
// §2.4.2): two octets of salt, then blocks whose plaintext is a length and the key.
func openKey(v []byte, request *[16]byte, secret []byte) ([]byte, error) {
	if len(v) < 2+16 || (len(v)-2)%16 != 0 {
		return nil, ErrKeys
	}
	salt, c := v[:2], v[2:]
	plain := make([]byte, len(c))
	copy(plain, c)
	for i := 0; i < len(c); i += 16 {
		if i == 0 {
			xorBlock(plain[:16], secret, request[:], salt)
		} else {
			xorBlock(plain[i:i+16], secret, c[i-16:i])
		}
	}
	n := int(plain[0])
	if n == 0 || n > len(plain)-1 {
		clear(plain)
		return nil, ErrKeys
	}
	return plain[1 : 1+n : 1+n], nil
}

// openMSK returns the MSK of an Access-Accept: the key that the peer sends with
// (MS-MPPE-Recv-Key, as the authenticator receives with it), then the other, filled up
// with zeros to 64 octets (RFC 5247 §1.2 asks for 64 at least; EAP-MSCHAPv2 gives 32).
// It is nil, without an error, when one of them is missing.
func openMSK(p *Packet, request *[16]byte, secret []byte) (Key, error) {
	send, recv := p.Vendor(VendorMicrosoft, MSMPPESendKey), p.Vendor(VendorMicrosoft, MSMPPERecvKey)
	if len(send) == 0 || len(recv) == 0 {
		return nil, nil
	}
	if len(send) > 1 || len(recv) > 1 {
		return nil, ErrKeys
	}
	r, err := openKey(recv[0], request, secret)
	if err != nil {
		return nil, err
	}
	defer clear(r)
	s, err := openKey(send[0], request, secret)
	if err != nil {
		return nil, err
	}
	defer clear(s)
	msk := make(Key, max(mskLen, len(r)+len(s)))
	copy(msk[copy(msk, r):], s)
	return msk, nil
}

// mskLen is the least length of an MSK.
const mskLen = 64
