package suite

import (
	"crypto/cipher"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
)

// What IKEv1 needs beyond IKEv2: a cipher block chain that runs on from message to
// message, and the hash by itself (RFC 2409 appendix B).

// Chain is the cipher of an ISAKMP SA: CBC without integrity protection, which the
// HASH payloads give. The IV is the last block of the message before.
type Chain struct{ block cipher.Block }

// chainKind is the cipher and its key's length in bytes; AES-CBC and 3DES-CBC are known.
func chainKind(encr Transform) (kind cipherKind, key int, err error) {
	if kind, _, _, key, err = cipherOf(encr); err == nil && kind != kindCBC && kind != kind3DES {
		err = fmt.Errorf("%w: %s in IKEv1", ErrUnsupported, encr)
	}
	return kind, key, err
}

// ChainKeyLength is the length of the key of NewChain, in bytes.
func ChainKeyLength(encr Transform) (int, error) {
	_, n, err := chainKind(encr)
	return n, err
}

// NewChain makes the cipher of a transform of type TypeENCR.
func NewChain(encr Transform, key Key) (Chain, error) {
	kind, n, err := chainKind(encr)
	if err != nil {
		return Chain{}, err
	}
	if len(key) != n {
		return Chain{}, fmt.Errorf("%w: %s with %d bytes", ErrKeyLength, encr, len(key))
	}
	block, err := newBlock(kind, key)
	return Chain{block}, err
}

// BlockLen is the length of a block, and so of an IV, in bytes.
func (c Chain) BlockLen() int { return c.block.BlockSize() }

// Encrypt encrypts whole blocks in place and returns the IV of the next message.
func (c Chain) Encrypt(iv, text []byte) (next []byte) {
	cipher.NewCBCEncrypter(c.block, iv).CryptBlocks(text, text)
	return append([]byte(nil), text[len(text)-c.BlockLen():]...)
}

// Decrypt decrypts whole blocks in place and returns the IV of the next message.
func (c Chain) Decrypt(iv, text []byte) (next []byte) {
	next = append([]byte(nil), text[len(text)-c.BlockLen():]...)
	cipher.NewCBCDecrypter(c.block, iv).CryptBlocks(text, text)
	return next
}

// Hash is the hash function that an HMAC is made of, over the parts of data taken as
// one string; nil for functions of another making.
func (f PRF) Hash(data ...[]byte) []byte {
	var all []byte
	for _, d := range data {
		all = append(all, d...)
	}
	switch f.id {
	case PRFHMACMD5:
		h := md5.Sum(all)
		return h[:]
	case PRFHMACSHA1:
		h := sha1.Sum(all)
		return h[:]
	case PRFHMACSHA2_256:
		h := sha256.Sum256(all)
		return h[:]
	case PRFHMACSHA2_384:
		h := sha512.Sum384(all)
		return h[:]
	case PRFHMACSHA2_512:
		h := sha512.Sum512(all)
		return h[:]
	}
	return nil
}
