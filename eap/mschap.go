package eap

import (
	"crypto/des"
	"crypto/sha1"
	"encoding/hex"
	"unicode/utf16"

	//lint:ignore SA1019 RFC 2759 §8.3 wants MD4, there is no choice.
	"golang.org/x/crypto/md4"

	"adit/suite"
)

// The functions of RFC 2759 §8 and RFC 3079 §3, named as there.

const (
	ntHashLen       = md4.Size
	challengeLen    = 16 // of either side
	ntResponseLen   = 24
	authResponseLen = sha1.Size
)

// NTHash is NtPasswordHash over a password in UTF-8: what a file of users keeps of a
// password. Whoever has it can log in with it.
func NTHash(password []byte) suite.Key { return ntPasswordHash(password) }

// ntPasswordHash is NtPasswordHash over a password in UTF-8.
func ntPasswordHash(password []byte) suite.Key {
	units := utf16.Encode([]rune(string(password)))
	le := make([]byte, 0, 2*len(units))
	for _, u := range units {
		le = append(le, byte(u), byte(u>>8))
	}
	clear(units)
	defer clear(le)
	return hashNtPasswordHash(le)
}

// hashNtPasswordHash is HashNtPasswordHash: MD4.
func hashNtPasswordHash(b []byte) suite.Key {
	h := md4.New()
	h.Write(b)
	return h.Sum(nil)
}

// userPart is the name without the domain in front of it, which alone goes into the
// challenge (RFC 2759 §4).
func userPart(name []byte) []byte {
	for i, c := range name {
		if c == '\\' {
			return name[i+1:]
		}
	}
	return name
}

func challengeHash(peerChallenge, authenticatorChallenge, name []byte) []byte {
	h := sha1.New()
	h.Write(peerChallenge)
	h.Write(authenticatorChallenge)
	h.Write(userPart(name))
	return h.Sum(nil)[:8]
}

// challengeResponse is ChallengeResponse: the challenge under three DES keys that
// are the 16 bytes of the hash and 5 zeros.
func challengeResponse(challenge []byte, hash suite.Key) []byte {
	var z [21]byte
	copy(z[:], hash)
	defer clear(z[:])
	out := make([]byte, ntResponseLen)
	for i := range 3 {
		var key [8]byte
		k := z[7*i : 7*i+7]
		// Seven bits a byte, the parity bit stays out.
		key[0] = k[0]
		for j := 1; j < 7; j++ {
			key[j] = k[j-1]<<(8-j) | k[j]>>j
		}
		key[7] = k[6] << 1
		c, err := des.NewCipher(key[:])
		clear(key[:])
		if err != nil {
			panic(err) // the key has eight bytes
		}
		c.Encrypt(out[8*i:], challenge)
	}
	return out
}

const (
	magicServer = "Magic server to client signing constant"
	magicPad    = "Pad to make it do more than one iteration"
	magicMaster = "This is the MPPE Master Key"
	// RFC 3079 §3.4: for the client the first is the send key; for the server, the
	// receive key.
	magicFromPeer   = "On the client side, this is the send key; on the server side, it is the receive key."
	magicFromServer = "On the client side, this is the receive key; on the server side, it is the send key."
)

// authenticatorResponse is GenerateAuthenticatorResponse before it is written as
// "S=" and 40 hexadecimal digits.
func authenticatorResponse(hash suite.Key, ntResponse, challenge []byte) []byte {
	hh := hashNtPasswordHash(hash)
	defer hh.Zero()
	h := sha1.New()
	h.Write(hh)
	h.Write(ntResponse)
	h.Write([]byte(magicServer))
	digest := h.Sum(nil)
	h.Reset()
	h.Write(digest)
	h.Write(challenge)
	h.Write([]byte(magicPad))
	return h.Sum(nil)
}

// mskMSCHAPv2 is the MSK of 64 bytes as IKEv2 peers build it: the server's receive
// key, its send key (128-bit start keys of RFC 3079 §3.4), and zeros.
func mskMSCHAPv2(hash suite.Key, ntResponse []byte) suite.Key {
	hh := hashNtPasswordHash(hash)
	defer hh.Zero()
	h := sha1.New()
	h.Write(hh)
	h.Write(ntResponse)
	h.Write([]byte(magicMaster))
	master := suite.Key(h.Sum(nil)[:16])
	defer master.Zero()
	msk := make(suite.Key, 64)
	copy(msk[:16], asymmetricStartKey(master, magicFromPeer))
	copy(msk[16:32], asymmetricStartKey(master, magicFromServer))
	return msk
}

func asymmetricStartKey(master suite.Key, magic string) []byte {
	var pad [40]byte
	h := sha1.New()
	h.Write(master)
	h.Write(pad[:])
	h.Write([]byte(magic))
	for i := range pad {
		pad[i] = 0xf2
	}
	h.Write(pad[:])
	return h.Sum(nil)[:16]
}

func upperHex(b []byte) []byte {
	out := make([]byte, hex.EncodedLen(len(b)))
	hex.Encode(out, b)
	for i, c := range out {
		if c >= 'a' {
			out[i] = c - 'a' + 'A'
		}
	}
	return out
}
