package pki

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"

	"golang.org/x/crypto/scrypt"
)

// OIDs of RFC 8018 appendix A and RFC 7914 §7.
var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidScrypt = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11591, 4, 11}
)

// prfs are PBKDF2's pseudorandom functions; the first is the default.
var prfs = []struct {
	oid asn1.ObjectIdentifier
	new func() hash.Hash
}{
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7}, sha1.New},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 8}, sha256.New224},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}, sha256.New},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 10}, sha512.New384},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 11}, sha512.New},
}

// ciphers are PBES2's, all in CBC mode.
var ciphers = []struct {
	oid asn1.ObjectIdentifier
	key int // bytes
	new func([]byte) (cipher.Block, error)
}{
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}, 16, aes.NewCipher},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 22}, 24, aes.NewCipher},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}, 32, aes.NewCipher},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 3, 7}, 24, des.NewTripleDESCipher},
}

// encryptedKey is EncryptedPrivateKeyInfo (RFC 5958 §3).
type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

type pbes2Params struct {
	KDF, Cipher pkix.AlgorithmIdentifier
}

type pbkdf2Params struct {
	Salt   []byte
	Rounds int
	KeyLen int                      `asn1:"optional"`
	PRF    pkix.AlgorithmIdentifier `asn1:"optional"`
}

type scryptParams struct {
	Salt    []byte
	N, R, P int
	KeyLen  int `asn1:"optional"`
}

// isEncryptedPKCS8 says whether der has the shape of an encrypted key: a clear one
// begins with its version.
func isEncryptedPKCS8(der []byte) bool {
	var e encryptedKey
	rest, err := asn1.Unmarshal(der, &e)
	return err == nil && len(rest) == 0
}

// decryptPKCS8 decrypts an EncryptedPrivateKeyInfo. The padding of a wrong passphrase
// is right once in 256 times: the caller sees then that there is no key inside.
func decryptPKCS8(der []byte, passphrase string) ([]byte, error) {
	var e encryptedKey
	if _, err := asn1.Unmarshal(der, &e); err != nil {
		return nil, err
	}
	if !e.Algorithm.Algorithm.Equal(oidPBES2) {
		return nil, fmt.Errorf("encrypted by %v, only PBES2 is known: convert it (openssl pkcs8 -topk8)", e.Algorithm.Algorithm)
	}
	var p pbes2Params
	if _, err := asn1.Unmarshal(e.Algorithm.Parameters.FullBytes, &p); err != nil {
		return nil, fmt.Errorf("PBES2: %w", err)
	}
	for _, c := range ciphers {
		if !c.oid.Equal(p.Cipher.Algorithm) {
			continue
		}
		var iv []byte
		if _, err := asn1.Unmarshal(p.Cipher.Parameters.FullBytes, &iv); err != nil {
			return nil, fmt.Errorf("PBES2: initialization vector: %w", err)
		}
		key, err := deriveKey(p.KDF, passphrase, c.key)
		if err != nil {
			return nil, err
		}
		defer clear(key)
		block, err := c.new(key)
		if err != nil {
			return nil, err
		}
		return decryptCBC(block, iv, e.Data)
	}
	return nil, fmt.Errorf("PBES2: unknown cipher %v", p.Cipher.Algorithm)
}

// deriveKey is the key of n bytes that kdf makes of the passphrase, within bounds.
func deriveKey(kdf pkix.AlgorithmIdentifier, passphrase string, n int) ([]byte, error) {
	switch {
	case kdf.Algorithm.Equal(oidPBKDF2):
		var p pbkdf2Params
		if _, err := asn1.Unmarshal(kdf.Parameters.FullBytes, &p); err != nil {
			return nil, fmt.Errorf("PBKDF2: %w", err)
		}
		if p.Rounds < 1 || p.Rounds > maxPBKDF2Rounds || p.KeyLen != 0 && p.KeyLen != n {
			return nil, fmt.Errorf("PBKDF2 with %d rounds and a key of %d bytes, at most %d rounds and %d bytes are done", p.Rounds, p.KeyLen, maxPBKDF2Rounds, n)
		}
		if len(p.PRF.Algorithm) == 0 {
			return pbkdf2.Key(prfs[0].new, passphrase, p.Salt, p.Rounds, n)
		}
		for _, f := range prfs {
			if f.oid.Equal(p.PRF.Algorithm) {
				return pbkdf2.Key(f.new, passphrase, p.Salt, p.Rounds, n)
			}
		}
		return nil, fmt.Errorf("PBKDF2: unknown PRF %v", p.PRF.Algorithm)
	case kdf.Algorithm.Equal(oidScrypt):
		var p scryptParams
		if _, err := asn1.Unmarshal(kdf.Parameters.FullBytes, &p); err != nil {
			return nil, fmt.Errorf("scrypt: %w", err)
		}
		if p.N < 2 || p.R < 1 || p.P < 1 || p.R > 1024 || p.P > maxScryptParallel || p.N > maxScryptBytes/128/p.R {
			return nil, fmt.Errorf("scrypt with N=%d r=%d p=%d is too much", p.N, p.R, p.P)
		}
		return scrypt.Key([]byte(passphrase), p.Salt, p.N, p.R, p.P, n)
	}
	return nil, fmt.Errorf("PBES2: unknown key derivation %v", kdf.Algorithm)
}

// decryptCBC decrypts data and removes the padding of RFC 8018 §6.1.1.
func decryptCBC(block cipher.Block, iv, data []byte) ([]byte, error) {
	bs := block.BlockSize()
	if len(iv) != bs || len(data) == 0 || len(data)%bs != 0 {
		return nil, errors.New("PBES2: lengths that don't fit the cipher")
	}
	plain := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, data)
	n := int(plain[len(plain)-1])
	good := subtle.ConstantTimeLessOrEq(1, n) & subtle.ConstantTimeLessOrEq(n, bs)
	if good == 1 {
		for _, b := range plain[len(plain)-n:] {
			good &= subtle.ConstantTimeByteEq(b, byte(n))
		}
	}
	if good != 1 {
		clear(plain)
		return nil, ErrPassphrase
	}
	return plain[:len(plain)-n], nil
}

// checkRounds looks through the DER of a PKCS#12 file for parameters of a key
// derivation (a SEQUENCE with a salt and a count right after it) that demand too much,
// since the library that reads it has no bound.
func checkRounds(b []byte, depth int) error {
	if depth > maxPBEDepth {
		return nil // deeper than what PKCS#12 nests
	}
	var last asn1.RawValue
	for len(b) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(b, &v)
		if err != nil {
			return nil // not DER, so a salt or a cipher text; or the reader will refuse it
		}
		if v.Tag == asn1.TagInteger && v.Class == asn1.ClassUniversal && last.Tag == asn1.TagOctetString && last.Class == asn1.ClassUniversal {
			var n int64
			if _, err := asn1.Unmarshal(v.FullBytes, &n); err != nil || n > maxPBKDF2Rounds {
				return fmt.Errorf("a key derivation with more than %d rounds", maxPBKDF2Rounds)
			}
		}
		if v.IsCompound || v.Tag == asn1.TagOctetString {
			if err := checkRounds(v.Bytes, depth+1); err != nil {
				return err
			}
		}
		last, b = v, rest
	}
	return nil
}
