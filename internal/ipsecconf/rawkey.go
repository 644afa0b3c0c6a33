package ipsecconf

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// limitModulus bounds the bits of an RSA key in a line.
const limitModulus = 16384

// rawKey reads a public key that stands in a line: 0x hexadecimal or 0s Base64 of
// PKCS#1, of a SubjectPublicKeyInfo, of RFC 3110 (prefix dns:, and Libreswan) or of
// SSH's form (prefix ssh:). It returns a name of a file for it and the file.
func rawKey(text string) (name, file string, err error) {
	form := ""
	for _, f := range []string{"dns:", "ssh:"} {
		if rest, ok := strings.CutPrefix(text, f); ok {
			form, text = f, rest
		}
	}
	text = strings.Join(strings.Fields(text), "")
	var b []byte
	switch {
	case strings.HasPrefix(text, "0x"):
		b, err = hex.DecodeString(strings.ReplaceAll(text[2:], "_", ""))
	case strings.HasPrefix(text, "0s"):
		b, err = base64.StdEncoding.DecodeString(text[2:])
		if err != nil {
			b, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(text[2:], "="))
		}
	default:
		return "", "", errors.New("a key begins with 0x or 0s")
	}
	if err != nil {
		return "", "", errors.New("the digits of the key are wrong")
	}
	key, err := publicKey(b, form)
	if err != nil {
		return "", "", err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", "", err
	}
	sum := sha256.Sum256(der)
	return "key-" + hex.EncodeToString(sum[:6]) + ".pem", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

func publicKey(b []byte, form string) (any, error) {
	switch form {
	case "dns:":
		return rfc3110(b)
	case "ssh:":
		return sshKey(b)
	}
	if key, err := x509.ParsePKCS1PublicKey(b); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKIXPublicKey(b); err == nil {
		return key, nil
	}
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		if key, err := ecdsa.ParseUncompressedPublicKey(c, b); err == nil {
			return key, nil
		}
	}
	return rfc3110(b)
}

// rfc3110 reads an RSA key as the DNS has it: length of the exponent, exponent,
// modulus.
func rfc3110(b []byte) (any, error) {
	if len(b) < 3 {
		return nil, errors.New("the key is too short")
	}
	n, rest := int(b[0]), b[1:]
	if n == 0 {
		n, rest = int(binary.BigEndian.Uint16(b[1:])), b[3:]
	}
	if n == 0 || n > 4 || len(rest) <= n {
		return nil, errors.New("it is no public key that is known here")
	}
	return rsaKey(rest[:n], rest[n:])
}

func rsaKey(exponent, modulus []byte) (any, error) {
	e := new(big.Int).SetBytes(exponent)
	m := new(big.Int).SetBytes(modulus)
	if !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 || m.BitLen() < 1024 || m.BitLen() > limitModulus {
		return nil, fmt.Errorf("an RSA key of %d bits is not taken", m.BitLen())
	}
	return &rsa.PublicKey{N: m, E: int(e.Int64())}, nil
}

// sshKey reads RFC 4253's form of an RSA key.
func sshKey(b []byte) (any, error) {
	var parts [][]byte
	for len(b) >= 4 && len(parts) < 3 {
		n := binary.BigEndian.Uint32(b)
		if uint64(n) > uint64(len(b)-4) {
			break
		}
		parts, b = append(parts, b[4:4+n]), b[4+n:]
	}
	if len(parts) != 3 || string(parts[0]) != "ssh-rsa" {
		return nil, errors.New("only ssh-rsa keys are read")
	}
	return rsaKey(parts[1], parts[2])
}
