package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// expand writes the round keys (FIPS 197 §5.2) and the powers of the hash key.
func expand(rounds int) {
	TEXT(fmt.Sprintf("expand%d", 32*(rounds-6)), NOSPLIT, "func(ks *byte, key *byte)")
	Load(Param("ks"), ks)
	Load(Param("key"), tmp)
	key, odd, assist, t := X0, X1, X2, X3
	// next makes four more words, k from itself and the word of assist that order picks.
	next := func(k Register, order uint64) {
		VPSHUFD(U8(order), assist, assist)
		for range 3 {
			VPSLLDQ(U8(4), k, t)
			VPXOR(t, k, k)
			if k == t {
				panic("register")
			}
		}
		VPXOR(assist, k, k)
	}
	VMOVDQU(at(tmp, 0), key)
	VMOVDQU(key, at(ks, 0))
	rcon := uint64(1)
	if rounds == 10 {
		for r := 1; r <= 10; r++ {
			VAESKEYGENASSIST(U8(rcon), key, assist)
			next(key, 0xff)
			VMOVDQU(key, at(ks, offKey(r)))
			if rcon <<= 1; rcon > 0x80 {
				rcon = 0x1b
			}
		}
	} else {
		VMOVDQU(at(tmp, 16), odd)
		VMOVDQU(odd, at(ks, offKey(1)))
		for r := 2; r <= 14; r++ {
			if r%2 == 0 {
				VAESKEYGENASSIST(U8(rcon), odd, assist)
				next(key, 0xff)
				VMOVDQU(key, at(ks, offKey(r)))
				rcon <<= 1
			} else {
				VAESKEYGENASSIST(U8(0), key, assist)
				next(odd, 0xaa)
				VMOVDQU(odd, at(ks, offKey(r)))
			}
		}
	}

	Comment("The hash key: the cipher of zero.")
	h := X4
	VMOVDQU(at(ks, 0), h)
	for r := 1; r < rounds; r++ {
		VAESENC(at(ks, offKey(r)), h, h)
	}
	VAESENCLAST(at(ks, offKey(rounds)), h, h)
	VPSHUFB(reverse, h, h)
	Comment("Times x, which undoes the shift of a product of bit-reflected factors.")
	VPSHUFD(U8(0xff), h, t)
	VPSRAD(U8(31), t, t)
	VPAND(polynomial, t, t)
	VPSRLQ(U8(63), h, X5)
	VPSLLDQ(U8(8), X5, X5)
	VPSLLQ(U8(1), h, h)
	VPOR(X5, h, h)
	VPXOR(t, h, h)
	VMOVDQU(h, at(ks, offPower(1)))
	VMOVDQU(polynomial, X10)
	VMOVDQA(h, X5)
	for k := 2; k <= maxPower; k++ {
		lo, mi, hi := X6, X7, X8
		VPCLMULQDQ(U8(0x00), h, X5, lo)
		VPCLMULQDQ(U8(0x01), h, X5, mi)
		VPCLMULQDQ(U8(0x10), h, X5, X9)
		VPXOR(X9, mi, mi)
		VPCLMULQDQ(U8(0x11), h, X5, hi)
		reduceXor(lo, mi, hi, X9, X10)
		VMOVDQA(hi, X5)
		VMOVDQU(X5, at(ks, offPower(k)))
	}
	Comment("No round key stays in a register.")
	VZEROALL()
	RET()
}

// reduceXor brings a product of 256 bits, its middle apart, down to 128 bits in hi.
// The remainder of x^128 has its bits within 64, so it takes two steps.
func reduceXor(lo, mi, hi, t, poly Register) {
	VPCLMULQDQ(U8(0x01), lo, poly, t)
	VPSHUFD(U8(0x4e), lo, lo)
	VPXOR(lo, mi, mi)
	VPXOR(t, mi, mi)
	VPCLMULQDQ(U8(0x01), mi, poly, t)
	VPSHUFD(U8(0x4e), mi, mi)
	VPXOR(mi, hi, hi)
	VPXOR(t, hi, hi)
}
