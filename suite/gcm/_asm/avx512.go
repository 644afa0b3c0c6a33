package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Registers of the code for AVX-512: four blocks each. The round keys stay in Z0…Z14.
var (
	roundZ   = []Register{Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14}
	reverseZ = Z15
	polyZ    = Z16
	ctrZ     = Z17 // the next four counters, reversed
	j0Z      = Z18 // the first counter; later the tag's key stream in X18
	accZ     = Z19 // GHASH so far, in lane 0
	dataZ    = []Register{Z20, Z21, Z22, Z23, Z30}
	loZ      = Z24
	miZ      = Z25
	hiZ      = Z26
	inZ      = Z27 // blocks on their way into GHASH
	t1Z, t2Z = Z28, Z29
	plus4Z   = Z31
)

// avx512 writes seal or open of a key size with VAES, VPCLMULQDQ and AVX-512. The text
// goes in groups of 16 blocks, AES of one group among GHASH of the one before (of the
// same one when opening). What is left, 0 to 255 bytes, goes in v = left/4+1 vectors,
// whose last has a lane free: the tag's key stream is made there, and the block of
// lengths goes into GHASH right behind the text.
func avx512(v variant) {
	v.begin("AVX512")
	for i := range v.rounds + 1 {
		VBROADCASTI32X4(at(ks, offKey(i)), roundZ[i])
	}
	VMOVDQU64(reverse, reverseZ)
	VMOVDQU64(polynomial, polyZ)
	VMOVDQU64(plus4, plus4Z)
	MOVL(U32(0xc0), tmp.As32())
	KMOVD(tmp.As32(), K3) // lane 3 in quadwords

	Label("packet")
	MOVQ(at(pkt, offBuf), text)
	MOVQ(at(pkt, offBufLen), length)
	SUBQ(U8(tagSize), length)
	MOVQ(at(pkt, offAAD), aad)
	MOVQ(at(pkt, offAADLen), aadLen)
	nonce(X17)
	VSHUFI64X2(U8(0), ctrZ, ctrZ, ctrZ)
	VPSHUFB(reverse12, ctrZ, ctrZ)
	VPADDD(plus1, ctrZ, j0Z)
	VPADDD(counters, ctrZ, ctrZ)

	CMPQ(aadLen, U8(16))
	JA(LabelRef("longAAD"))
	VPXORQ(X27, X27, X27)
	TESTQ(aadLen, aadLen)
	JZ(LabelRef("noAAD"))
	MOVQ(I32(-1), tmp)
	BZHIQ(aadLen, tmp, tmp)
	KMOVQ(tmp, K1)
	VMOVDQU8_Z(at(aad, 0), K1, X27)
	VPSHUFB(X15, X27, X27)
	Label("noAAD")
	CMPQ(length, U32(256))
	JAE(LabelRef("shortAADLongText"))
	Comment("A short packet: the AAD's block is one more of the tail, and only it is reduced.")
	countBlocks()
	VPXORQ(accZ, accZ, accZ)
	multiplyX(at(powers, offPower(2)))
	JMP(LabelRef("tail"))

	Label("shortAADLongText")
	multiplyX(at(ks, offPower(1)))
	reduceZ()
	VMOVDQA64(X26, X19)
	JMP(LabelRef("groups"))

	Label("longAAD")
	longAADZ()
	CMPQ(length, U32(256))
	JB(LabelRef("beforeTail"))

	Label("groups")
	if v.open {
		Label("group")
		stitch(v.aesZ(), ghashZ(text, 0))
		foldZ()
		ADDQ(U32(256), text)
		SUBQ(U32(256), length)
		CMPQ(length, U32(256))
		JAE(LabelRef("group"))
	} else {
		stitch(v.aesZ(), nil)
		ADDQ(U32(256), text)
		SUBQ(U32(256), length)
		CMPQ(length, U32(256))
		JB(LabelRef("lastGroup"))
		Label("group")
		stitch(v.aesZ(), ghashZ(text, -256))
		foldZ()
		ADDQ(U32(256), text)
		SUBQ(U32(256), length)
		CMPQ(length, U32(256))
		JAE(LabelRef("group"))
		Label("lastGroup")
		stitch(ghashZ(text, -256), nil)
		foldZ()
	}
	Label("beforeTail")
	VPXORQ(loZ, loZ, loZ)
	VPXORQ(miZ, miZ, miZ)
	VPXORQ(hiZ, hiZ, hiZ)
	countBlocks()

	Label("tail")
	for n := 1; n < 5; n++ {
		CMPQ(blocks, U8(4*n))
		JB(LabelRef(fmt.Sprintf("tail%d", n)))
	}
	for n := 5; n > 0; n-- {
		Label(fmt.Sprintf("tail%d", n))
		v.tailZ(n)
		if n > 1 {
			JMP(LabelRef("next"))
		}
	}
	Label("next")
	ADDQ(U8(packetSize), pkt)
	DECQ(left)
	JNZ(LabelRef("packet"))
	VZEROUPPER()
	RET()
}

// countBlocks sets blocks and powers.
func countBlocks() {
	LEAQ(at(length, 15), blocks)
	SHRQ(U8(4), blocks)
	MOVQ(blocks, tmp)
	SHLQ(U8(4), tmp)
	MOVQ(ks, powers)
	SUBQ(tmp, powers)
}

// multiplyX sets lo, mi and hi to the product of the block X27 and a power.
func multiplyX(power Mem) {
	VMOVDQU64(power, X28)
	VPCLMULQDQ(U8(0x00), X28, X27, X24)
	VPCLMULQDQ(U8(0x11), X28, X27, X26)
	VPCLMULQDQ(U8(0x01), X28, X27, X25)
	VPCLMULQDQ(U8(0x10), X28, X27, X29)
	VPXORQ(X29, X25, X25)
}

// reduceZ brings lo, mi and hi down to 128 bits a lane, in hi.
func reduceZ() {
	VPCLMULQDQ(U8(0x01), loZ, polyZ, t1Z)
	VPSHUFD(U8(0x4e), loZ, loZ)
	VPTERNLOGD(U8(0x96), t1Z, loZ, miZ)
	VPCLMULQDQ(U8(0x01), miZ, polyZ, t1Z)
	VPSHUFD(U8(0x4e), miZ, miZ)
	VPTERNLOGD(U8(0x96), t1Z, miZ, hiZ)
}

// foldZ adds the lanes of hi into acc.
func foldZ() {
	VEXTRACTI64X4(U8(1), hiZ, Y28)
	VPXORQ(Y28, Y26, Y26)
	VEXTRACTI64X2(U8(1), Y26, X28)
	VPXORQ(X28, X26, X19)
}

// aesZ are the steps that encrypt or decrypt 16 blocks at text.
func (v variant) aesZ() (steps []func()) {
	do := func(f func()) { steps = append(steps, f) }
	d := dataZ[:4]
	for i := range d {
		do(func() { VPSHUFB(reverseZ, ctrZ, d[i]) })
		do(func() { VPADDD(plus4Z, ctrZ, ctrZ) })
		do(func() { VPXORQ(roundZ[0], d[i], d[i]) })
	}
	for r := 1; r < v.rounds; r++ {
		for i := range d {
			do(func() { VAESENC(roundZ[r], d[i], d[i]) })
		}
	}
	for i := range d {
		do(func() { VAESENCLAST(roundZ[v.rounds], d[i], d[i]) })
	}
	for i := range d {
		do(func() { VPXORQ(at(text, 64*i), d[i], d[i]) })
	}
	for i := range d {
		do(func() { VMOVDQU64(d[i], at(text, 64*i)) })
	}
	return steps
}

// ghashZ are the steps that take 16 blocks at base+off into GHASH; foldZ is to follow.
func ghashZ(base Register, off int) (steps []func()) {
	do := func(f func()) { steps = append(steps, f) }
	h := dataZ[4]
	for i := range 4 {
		do(func() { VMOVDQU64(at(base, off+64*i), inZ) })
		do(func() { VPSHUFB(reverseZ, inZ, inZ) })
		if i == 0 {
			do(func() { VPXORQ(accZ, inZ, inZ) })
		}
		do(func() { VMOVDQU64(at(ks, offPower(16-4*i)), h) })
		steps = append(steps, mulZ(inZ, h, i == 0)...)
	}
	do(reduceZ)
	return steps
}

// mulZ adds the products of four blocks and four powers to lo, mi and hi, or sets them.
func mulZ(in, h Register, set bool) []func() {
	if set {
		return []func(){
			func() { VPCLMULQDQ(U8(0x00), h, in, loZ) },
			func() { VPCLMULQDQ(U8(0x01), h, in, miZ) },
			func() { VPCLMULQDQ(U8(0x10), h, in, t2Z) },
			func() { VPXORQ(t2Z, miZ, miZ) },
			func() { VPCLMULQDQ(U8(0x11), h, in, hiZ) },
		}
	}
	return []func(){
		func() { VPCLMULQDQ(U8(0x00), h, in, t1Z) },
		func() { VPXORQ(t1Z, loZ, loZ) },
		func() { VPCLMULQDQ(U8(0x01), h, in, t1Z) },
		func() { VPCLMULQDQ(U8(0x10), h, in, t2Z) },
		func() { VPTERNLOGD(U8(0x96), t1Z, t2Z, miZ) },
		func() { VPCLMULQDQ(U8(0x11), h, in, t1Z) },
		func() { VPXORQ(t1Z, hiZ, hiZ) },
	}
}

// longAADZ takes AAD of more than 16 bytes into GHASH: 256 bytes a time, then 64.
func longAADZ() {
	n := R13
	VPXORQ(accZ, accZ, accZ)
	MOVQ(aadLen, n)
	Label("aad256")
	CMPQ(n, U32(256))
	JB(LabelRef("aad64"))
	stitch(ghashZ(aad, 0), nil)
	foldZ()
	ADDQ(U32(256), aad)
	SUBQ(U32(256), n)
	JMP(LabelRef("aad256"))
	Label("aad64")
	TESTQ(n, n)
	JZ(LabelRef("aadDone"))
	MOVQ(I32(-1), tmp)
	BZHIQ(n, tmp, tmp) // an index above 63 leaves all
	KMOVQ(tmp, K1)
	VMOVDQU8_Z(at(aad, 0), K1, inZ)
	VPSHUFB(reverseZ, inZ, inZ)
	VPXORQ(accZ, inZ, inZ)
	Comment("As many powers as blocks.")
	MOVQ(n, tmp)
	MOVL(U32(64), tmp2.As32())
	CMPQ(tmp, tmp2)
	CMOVQCC(tmp2, tmp)
	ADDQ(U8(15), tmp)
	ANDQ(I8(-16), tmp)
	MOVQ(ks, powers)
	SUBQ(tmp, powers)
	VMOVDQU64(at(powers, offPower(0)), dataZ[4])
	stitch(mulZ(inZ, dataZ[4], true), nil)
	reduceZ()
	foldZ()
	ADDQ(U8(64), aad)
	SUBQ(U8(64), n)
	JA(LabelRef("aad64"))
	Label("aadDone")
}

// tailZ ends a packet whose last blocks go in n vectors.
func (v variant) tailZ(n int) {
	d := dataZ[:n]
	r := R13
	Comment("K1 keeps the text of the last vector, K2 that of the one before it.")
	LEAQ(at(length, -64*(n-1)), tmp2)
	XORL(r.As32(), r.As32())
	if n > 1 {
		TESTQ(tmp2, tmp2)
		CMOVQLT(r, tmp2)
	}
	MOVQ(I32(-1), tmp)
	BZHIQ(tmp2, tmp, tmp2)
	KMOVQ(tmp2, K1)
	if n > 1 {
		LEAQ(at(length, -64*(n-2)), tmp2)
		BZHIQ(tmp2, tmp, tmp2)
		KMOVQ(tmp2, K2)
	}
	loadTo := func(i int, to Register) {
		switch i {
		case n - 1:
			VMOVDQU8_Z(at(text, 64*i), K1, to)
		case n - 2:
			VMOVDQU8_Z(at(text, 64*i), K2, to)
		default:
			VMOVDQU64(at(text, 64*i), to)
		}
	}
	store := func(i int) {
		switch i {
		case n - 1:
			VMOVDQU8(d[i], K1, at(text, 64*i))
		case n - 2:
			VMOVDQU8(d[i], K2, at(text, 64*i))
		default:
			VMOVDQU64(d[i], at(text, 64*i))
		}
	}
	// hash takes the vectors, which are in d, into GHASH and reduces it to X26.
	hash := func() {
		Comment("The block of lengths in bits behind the last of the text.")
		MOVQ(at(pkt, offAADLen), tmp)
		SHLQ(U8(3), tmp)
		MOVQ(at(pkt, offBufLen), tmp2)
		SUBQ(U8(tagSize), tmp2)
		SHLQ(U8(3), tmp2)
		VMOVQ(tmp2, X28)
		VPINSRQ(U8(1), tmp, X28, X28)
		ANDL(U8(3), blocks.As32())
		ADDL(blocks.As32(), blocks.As32())
		MOVL(U32(3), tmp.As32())
		SHLL(CL, tmp.As32())
		KMOVD(tmp.As32(), K4)
		for i := range d {
			VPSHUFB(reverseZ, d[i], d[i])
			if i == n-1 {
				VSHUFI64X2(U8(0), t1Z, t1Z, K4, d[i])
			}
			if i == 0 {
				VPXORQ(accZ, d[i], d[i])
			}
		}
		for i := range d {
			VMOVDQU64(at(powers, offPower(1-4*i)), inZ)
			stitch(mulZ(d[i], inZ, false), nil)
		}
		reduceZ()
		foldZ()
	}
	if v.open {
		for i := range d {
			loadTo(i, d[i])
		}
		hash()
	}
	Comment("Key stream, the tag's in lane 3 of the last vector.")
	for i := range d {
		switch {
		case i == n-1 && i == 0:
			VMOVDQA64(j0Z, K3, ctrZ)
		case i == n-1:
			VPADDD(plus4Z, ctrZ, ctrZ)
			VMOVDQA64(j0Z, K3, ctrZ)
		case i > 0:
			VPADDD(plus4Z, ctrZ, ctrZ)
		}
		VPSHUFB(reverseZ, ctrZ, d[i])
	}
	for i := range d {
		VPXORQ(roundZ[0], d[i], d[i])
	}
	for k := 1; k < v.rounds; k++ {
		for i := range d {
			VAESENC(roundZ[k], d[i], d[i])
		}
	}
	for i := range d {
		VAESENCLAST(roundZ[v.rounds], d[i], d[i])
	}
	VEXTRACTI32X4(U8(3), d[n-1], X18)
	for i := range d {
		loadTo(i, inZ)
		VPXORQ(inZ, d[i], d[i])
		store(i)
	}
	if !v.open {
		VMOVDQU8_Z(d[n-1], K1, d[n-1])
		if n > 1 {
			VMOVDQU8_Z(d[n-2], K2, d[n-2])
		}
		hash()
	}
	VPSHUFB(X15, X19, X19)
	VPXORQ(X18, X19, X19)
	if v.open {
		Comment("All 16 bytes of the tag are compared at once.")
		VPXORQ(at2(text, length), X19, X19)
		VPTESTMQ(X19, X19, K1)
		KTESTB(K1, K1)
		SETEQ(at(pkt, offOK))
	} else {
		VMOVDQU64(X19, at2(text, length))
	}
}

func at2(base, index Register) Mem { return Mem{Base: base, Index: index, Scale: 1} }
