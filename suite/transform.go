package suite

import "strconv"

// Protocol is the IPsec protocol that a proposal is for (RFC 7296 §3.3.1).
type Protocol uint8

// Protocols by their IANA numbers.
const (
	IKE Protocol = 1
	AH  Protocol = 2
	ESP Protocol = 3
)

// String names the protocol as strongSwan prints it.
func (p Protocol) String() string {
	switch p {
	case IKE:
		return "IKE"
	case AH:
		return "AH"
	case ESP:
		return "ESP"
	}
	return "(" + strconv.Itoa(int(p)) + ")"
}

// TransformType says which part of a suite a transform fills (RFC 7296 §3.3.2).
type TransformType uint8

// Transform types by their IANA numbers. SN was called ESN before RFC 9827; the
// additional key exchanges are those of RFC 9370.
const (
	TypeENCR   TransformType = 1
	TypePRF    TransformType = 2
	TypeINTEG  TransformType = 3
	TypeKE     TransformType = 4
	TypeSN     TransformType = 5
	TypeADDKE1 TransformType = 6
	TypeADDKE2 TransformType = 7
	TypeADDKE3 TransformType = 8
	TypeADDKE4 TransformType = 9
	TypeADDKE5 TransformType = 10
	TypeADDKE6 TransformType = 11
	TypeADDKE7 TransformType = 12
)

// String names the type in an operator's words.
func (t TransformType) String() string {
	switch t {
	case TypeENCR:
		return "encryption"
	case TypePRF:
		return "pseudo-random function"
	case TypeINTEG:
		return "integrity"
	case TypeKE:
		return "key exchange"
	case TypeSN:
		return "sequence numbers"
	}
	if t.additional() {
		return "additional key exchange " + strconv.Itoa(int(t-TypeADDKE1)+1)
	}
	return "transform type " + strconv.Itoa(int(t))
}

// MaxAdditional is how many additional key exchanges one SA can have (RFC 9370 §2.2.1).
const MaxAdditional = 7

func (t TransformType) additional() bool { return t >= TypeADDKE1 && t <= TypeADDKE7 }

// TransformID is the IANA number of an algorithm within its TransformType.
type TransformID uint16

// Encryption algorithms (transform type 1).
const (
	Encr3DESCBC          TransformID = 3  // RFC 2451: for old peers, as all that is weak never offered unasked
	EncrNULL             TransformID = 11 // RFC 2410: no encryption, ESP only
	EncrAESCBC           TransformID = 12 // RFC 3602
	EncrAESCTR           TransformID = 13 // RFC 3686, RFC 5930 in IKE
	EncrAESCCM8          TransformID = 14 // RFC 4309, RFC 5282 in IKE
	EncrAESCCM12         TransformID = 15
	EncrAESCCM16         TransformID = 16
	EncrAESGCM8          TransformID = 18 // RFC 4106, RFC 5282 in IKE
	EncrAESGCM12         TransformID = 19
	EncrAESGCM16         TransformID = 20
	EncrNULLAuthAESGMAC  TransformID = 21 // RFC 4543: authenticates only, ESP only
	EncrChaCha20Poly1305 TransformID = 28 // RFC 7634
)

// Pseudo-random functions (transform type 2).
const (
	PRFHMACMD5      TransformID = 1 // RFC 2104
	PRFHMACSHA1     TransformID = 2
	PRFAES128XCBC   TransformID = 4 // RFC 4434
	PRFHMACSHA2_256 TransformID = 5 // RFC 4868
	PRFHMACSHA2_384 TransformID = 6
	PRFHMACSHA2_512 TransformID = 7
	PRFAES128CMAC   TransformID = 8 // RFC 4615
)

// Integrity algorithms (transform type 3).
const (
	IntegNone             TransformID = 0
	IntegHMACMD5_96       TransformID = 1 // RFC 2403
	IntegHMACSHA1_96      TransformID = 2 // RFC 2404
	IntegAESXCBC96        TransformID = 5 // RFC 3566
	IntegAESCMAC96        TransformID = 8 // RFC 4494
	IntegHMACSHA2_256_128 TransformID = 12
	IntegHMACSHA2_384_192 TransformID = 13
	IntegHMACSHA2_512_256 TransformID = 14 // RFC 4868
	// IntegHMACSHA2_256_96 is the truncation of old Linux kernels and some devices, which
	// RFC 4868 has not. The number is a private one: it is never negotiated, but takes the
	// place of IntegHMACSHA2_256_128 in an SA towards such a peer.
	IntegHMACSHA2_256_96 TransformID = 1030
)

// Key exchange methods (transform type 4).
const (
	KENone       TransformID = 0
	KEMODP1024   TransformID = 2 // RFC 2409 §6.2
	KEMODP1536   TransformID = 5 // RFC 3526
	KEMODP2048   TransformID = 14
	KEMODP3072   TransformID = 15
	KEMODP4096   TransformID = 16
	KEMODP6144   TransformID = 17
	KEMODP8192   TransformID = 18
	KEECP256     TransformID = 19 // RFC 5903
	KEECP384     TransformID = 20
	KEECP521     TransformID = 21
	KECurve25519 TransformID = 31 // RFC 8031
	KECurve448   TransformID = 32
	KEMLKEM512   TransformID = 35 // FIPS 203, draft-ietf-ipsecme-ikev2-mlkem
	KEMLKEM768   TransformID = 36
	KEMLKEM1024  TransformID = 37
)

// PostQuantum reports a key exchange that a quantum computer does not break.
func (id TransformID) PostQuantum() bool { return id >= KEMLKEM512 && id <= KEMLKEM1024 }

// Sequence number formats (transform type 5, RFC 9827).
const (
	SNNone TransformID = 0 // 32-bit sequence numbers
	SNESN  TransformID = 1 // 64-bit, the low half on the wire
)

// KeyBitsUnknown marks a received transform that carries an attribute other than
// one Key Length: whoever decodes a proposal sets it, and the transform then
// never matches (RFC 7296 §3.3.6).
const KeyBitsUnknown uint16 = 0xFFFF

// Transform is one algorithm of a proposal. Transforms compare with ==; the
// zero value stands for "none of this type".
type Transform struct {
	Type    TransformType
	ID      TransformID
	KeyBits uint16 // the Key Length attribute; 0 means that it is absent
}

var encrNames = map[TransformID]string{
	1: "DES_IV64", 2: "DES_CBC", Encr3DESCBC: "3DES_CBC", 4: "RC5_CBC", 5: "IDEA_CBC", 6: "CAST_CBC", 7: "BLOWFISH_CBC", 8: "3IDEA", 9: "DES_IV32",
	EncrNULL: "NULL", EncrAESCBC: "AES_CBC", EncrAESCTR: "AES_CTR",
	EncrAESCCM8: "AES_CCM_8", EncrAESCCM12: "AES_CCM_12", EncrAESCCM16: "AES_CCM_16",
	EncrAESGCM8: "AES_GCM_8", EncrAESGCM12: "AES_GCM_12", EncrAESGCM16: "AES_GCM_16",
	EncrNULLAuthAESGMAC: "NULL_AES_GMAC",
	23:                  "CAMELLIA_CBC", 24: "CAMELLIA_CTR", 25: "CAMELLIA_CCM_8", 26: "CAMELLIA_CCM_12", 27: "CAMELLIA_CCM_16",
	EncrChaCha20Poly1305: "CHACHA20_POLY1305",
}

var prfNames = map[TransformID]string{
	PRFHMACMD5: "PRF_HMAC_MD5", PRFHMACSHA1: "PRF_HMAC_SHA1", 3: "PRF_HMAC_TIGER", PRFAES128XCBC: "PRF_AES128_XCBC",
	PRFHMACSHA2_256: "PRF_HMAC_SHA2_256", PRFHMACSHA2_384: "PRF_HMAC_SHA2_384",
	PRFHMACSHA2_512: "PRF_HMAC_SHA2_512", PRFAES128CMAC: "PRF_AES128_CMAC",
}

var integNames = map[TransformID]string{
	IntegNone: "NONE", IntegHMACMD5_96: "HMAC_MD5_96", IntegHMACSHA1_96: "HMAC_SHA1_96", 3: "DES_MAC", 4: "KPDK_MD5",
	IntegAESXCBC96: "AES_XCBC_96", 6: "HMAC_MD5_128", 7: "HMAC_SHA1_160", IntegAESCMAC96: "AES_CMAC_96",
	9: "AES_128_GMAC", 10: "AES_192_GMAC", 11: "AES_256_GMAC",
	IntegHMACSHA2_256_128: "HMAC_SHA2_256_128", IntegHMACSHA2_256_96: "HMAC_SHA2_256_96", IntegHMACSHA2_384_192: "HMAC_SHA2_384_192", IntegHMACSHA2_512_256: "HMAC_SHA2_512_256",
}

var keNames = map[TransformID]string{
	KENone: "KE_NONE", 1: "MODP_768", KEMODP1024: "MODP_1024", KEMODP1536: "MODP_1536",
	KEMODP2048: "MODP_2048", KEMODP3072: "MODP_3072", KEMODP4096: "MODP_4096", KEMODP6144: "MODP_6144", KEMODP8192: "MODP_8192",
	KEECP256: "ECP_256", KEECP384: "ECP_384", KEECP521: "ECP_521",
	22: "MODP_1024_160", 23: "MODP_2048_224", 24: "MODP_2048_256", 25: "ECP_192", 26: "ECP_224",
	27: "ECP_224_BP", 28: "ECP_256_BP", 29: "ECP_384_BP", 30: "ECP_512_BP",
	KECurve25519: "CURVE_25519", KECurve448: "CURVE_448", 33: "GOST3410_256", 34: "GOST3410_512",
	KEMLKEM512: "ML_KEM_512", KEMLKEM768: "ML_KEM_768", KEMLKEM1024: "ML_KEM_1024",
}

var snNames = map[TransformID]string{SNNone: "NO_EXT_SEQ", SNESN: "EXT_SEQ"}

// Name is the algorithm as strongSwan's logs and list-sas spell it, without the
// key length: AES_GCM_16, HMAC_SHA2_256_128, ECP_256. An unknown one is its
// number in parentheses.
func (t Transform) Name() string {
	var names map[TransformID]string
	prefix := ""
	switch {
	case t.Type == TypeENCR:
		names = encrNames
	case t.Type == TypePRF:
		names = prfNames
	case t.Type == TypeINTEG:
		names = integNames
	case t.Type == TypeKE:
		names = keNames
	case t.Type == TypeSN:
		names = snNames
	case t.Type.additional():
		names, prefix = keNames, "KE"+strconv.Itoa(int(t.Type-TypeADDKE1)+1)+"_"
	default:
		return "UNKNOWN_" + strconv.Itoa(int(t.Type)) + "_" + strconv.Itoa(int(t.ID))
	}
	if name, ok := names[t.ID]; ok {
		return prefix + name
	}
	return prefix + "(" + strconv.Itoa(int(t.ID)) + ")"
}

// String is Name with the key length, as in AES_GCM_16_256.
func (t Transform) String() string {
	switch t.KeyBits {
	case 0:
		return t.Name()
	case KeyBitsUnknown:
		return t.Name() + "_(unknown attribute)"
	}
	return t.Name() + "_" + strconv.Itoa(int(t.KeyBits))
}

// AEAD reports an encryption algorithm that also authenticates, so that no
// integrity algorithm goes with it (RFC 5282 §8).
func (t Transform) AEAD() bool {
	if t.Type != TypeENCR {
		return false
	}
	switch t.ID {
	case EncrAESCCM8, EncrAESCCM12, EncrAESCCM16, EncrAESGCM8, EncrAESGCM12, EncrAESGCM16,
		EncrNULLAuthAESGMAC, EncrChaCha20Poly1305, 25, 26, 27: // 25-27: Camellia-CCM
		return true
	}
	return false
}

// Weakness says in a few words why the algorithm should not be used, or "" when
// nothing speaks against it (RFC 8221, RFC 8247).
func (t Transform) Weakness() string {
	switch {
	case t.Type == TypeENCR && t.ID == EncrNULL, t.Type == TypeENCR && t.ID == EncrNULLAuthAESGMAC:
		return "does not encrypt"
	case t.Type == TypeENCR && t.ID == Encr3DESCBC:
		return "3DES has 64-bit blocks, which tell of the text after some gigabytes, and is obsolete"
	case t.Type == TypeINTEG && t.ID == IntegHMACMD5_96, t.Type == TypePRF && t.ID == PRFHMACMD5:
		return "MD5 is broken and must not be used"
	case t.Type == TypeINTEG && t.ID == IntegHMACSHA1_96, t.Type == TypePRF && t.ID == PRFHMACSHA1:
		return "SHA-1 is being phased out"
	case t.Type == TypeKE && t.ID == KEMODP1024:
		return "a 1024-bit group can be broken by a rich attacker"
	case t.Type == TypeKE && t.ID == KEMODP1536:
		return "a 1536-bit group is below today's 112-bit minimum"
	}
	return ""
}
