package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Registers of the code for AVX2: two blocks each. Round keys and powers come from memory.
var (
	dataY    = []Register{Y0, Y1, Y2, Y3, Y7}
	loY      = Y4
	miY      = Y5
	hiY      = Y6
	inY      = Y7 // blocks on their way into GHASH
	t1Y, t2Y = Y8, Y9
	keyY     = Y10 // the round key
	ctrY     = Y11 // the next two counters, reversed
	accY     = Y12 // GHASH so far, in lane 0
	polyY    = Y13
	reverseY = Y14
	j0Y      = Y15 // the first counter; later the tag's key stream in X15
)

// avx2 writes seal or open of a key size with VAES, VPCLMULQDQ and AVX2. It is as
// avx512 in halves: groups of 8 blocks, and n = 0 to 8 blocks in n/2+1 vectors for the
// rest, the last lane of which is the tag's.
//
// There are no masked loads and stores. But the tag stands behind the text, so whole
// blocks can be read and written there: the tag comes last, or is put back.
func avx2(v variant) {
	v.begin("AVX2")
	VMOVDQU(reverse, reverseY)
	VMOVDQU(polynomial, polyY)

	Label("packet")
	MOVQ(at(pkt, offBuf), text)
	MOVQ(at(pkt, offBufLen), length)
	SUBQ(U8(tagSize), length)
	MOVQ(at(pkt, offAAD), aad)
	MOVQ(at(pkt, offAADLen), aadLen)
	nonce(X11)
	VINSERTI128(U8(1), X11, ctrY, ctrY)
	VPSHUFB(reverse12, ctrY, ctrY)
	VPADDD(plus1, ctrY, j0Y)
	VPADDD(counters, ctrY, ctrY)

	VPXOR(accY, accY, accY)
	VPXOR(X7, X7, X7)
	CMPQ(aadLen, U8(8))
	JE(LabelRef("aad8"))
	CMPQ(aadLen, U8(12))
	JE(LabelRef("aad12"))
	TESTQ(aadLen, aadLen)
	JZ(LabelRef("aadIn"))
	JMP(LabelRef("otherAAD"))
	Label("aad12")
	VPINSRD(U8(2), at(aad, 8), X7, X7)
	Label("aad8")
	VPINSRQ(U8(0), at(aad, 0), X7, X7)
	Label("aadIn")
	CMPQ(length, U32(128))
	JAE(LabelRef("shortAADLongText"))
	countBlocks()
	VPSHUFB(X14, X7, X7)
	mulX(at(powers, offPower(2)))
	JMP(LabelRef("tail"))

	Label("shortAADLongText")
	blockX()
	JMP(LabelRef("groups"))

	Label("otherAAD")
	otherAADY()
	CMPQ(length, U32(128))
	JB(LabelRef("beforeTail"))

	Label("groups")
	if v.open {
		Label("group")
		stitch(v.aesY(), ghashY(text, 0))
		foldY()
		ADDQ(U32(128), text)
		SUBQ(U32(128), length)
		CMPQ(length, U32(128))
		JAE(LabelRef("group"))
	} else {
		stitch(v.aesY(), nil)
		ADDQ(U32(128), text)
		SUBQ(U32(128), length)
		CMPQ(length, U32(128))
		JB(LabelRef("lastGroup"))
		Label("group")
		stitch(v.aesY(), ghashY(text, -128))
		foldY()
		ADDQ(U32(128), text)
		SUBQ(U32(128), length)
		CMPQ(length, U32(128))
		JAE(LabelRef("group"))
		Label("lastGroup")
		stitch(ghashY(text, -128), nil)
		foldY()
	}
	Label("beforeTail")
	VPXOR(loY, loY, loY)
	VPXOR(miY, miY, miY)
	VPXOR(hiY, hiY, hiY)
	countBlocks()

	Label("tail")
	CMPQ(blocks, U8(4))
	JB(LabelRef("tails0"))
	JE(LabelRef("tail4"))
	CMPQ(blocks, U8(6))
	JB(LabelRef("tail5"))
	JE(LabelRef("tail6"))
	CMPQ(blocks, U8(8))
	JB(LabelRef("tail7"))
	JMP(LabelRef("tail8"))
	Label("tails0")
	CMPQ(blocks, U8(2))
	JE(LabelRef("tail2"))
	JA(LabelRef("tail3"))
	TESTQ(blocks, blocks)
	JNZ(LabelRef("tail1"))
	for n := range 9 {
		Label(fmt.Sprintf("tail%d", n))
		v.tailY(n)
		if n < 8 {
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

// mulX sets lo, mi and hi to the product of the block X7 and a power.
func mulX(power Mem) {
	VMOVDQU(power, X8)
	VPCLMULQDQ(U8(0x00), X8, X7, X4)
	VPCLMULQDQ(U8(0x11), X8, X7, X6)
	VPCLMULQDQ(U8(0x01), X8, X7, X5)
	VPCLMULQDQ(U8(0x10), X8, X7, X9)
	VPXOR(X9, X5, X5)
}

// blockX takes the block X7 into GHASH.
func blockX() {
	VPSHUFB(X14, X7, X7)
	VPXOR(X12, X7, X7)
	mulX(at(ks, offPower(1)))
	reduceXor(X4, X5, X6, X8, X13)
	VMOVDQA(X6, X12)
}

// foldY adds the lanes of hi into acc.
func foldY() {
	VEXTRACTI128(U8(1), hiY, X8)
	VPXOR(X8, X6, X12)
}

// roundsY are the steps of AES on d, from counters to key stream.
func (v variant) roundsY(d []Register) (steps []func()) {
	do := func(f func()) { steps = append(steps, f) }
	for r := 0; r <= v.rounds; r++ {
		do(func() { VBROADCASTI128(at(ks, offKey(r)), keyY) })
		for i := range d {
			do(func() {
				switch r {
				case 0:
					VPXOR(keyY, d[i], d[i])
				case v.rounds:
					VAESENCLAST(keyY, d[i], d[i])
				default:
					VAESENC(keyY, d[i], d[i])
				}
			})
		}
	}
	return steps
}

// aesY are the steps that encrypt or decrypt 8 blocks at text.
func (v variant) aesY() (steps []func()) {
	do := func(f func()) { steps = append(steps, f) }
	d := dataY[:4]
	for i := range d {
		do(func() { VPSHUFB(reverseY, ctrY, d[i]) })
		do(func() { VPADDD(plus2, ctrY, ctrY) })
	}
	steps = append(steps, v.roundsY(d)...)
	for i := range d {
		do(func() { VPXOR(at(text, 32*i), d[i], d[i]) })
	}
	for i := range d {
		do(func() { VMOVDQU(d[i], at(text, 32*i)) })
	}
	return steps
}

// ghashY are the steps that take 8 blocks at base+off into GHASH; foldY is to follow.
func ghashY(base Register, off int) (steps []func()) {
	do := func(f func()) { steps = append(steps, f) }
	for i := range 4 {
		do(func() { VMOVDQU(at(base, off+32*i), inY) })
		do(func() { VPSHUFB(reverseY, inY, inY) })
		if i == 0 {
			do(func() { VPXOR(accY, inY, inY) })
		}
		steps = append(steps, mulY(inY, at(ks, offPower(8-2*i)), i == 0)...)
	}
	do(func() { reduceXor(loY, miY, hiY, t1Y, polyY) })
	return steps
}

// mulY adds the products of two blocks and two powers to lo, mi and hi, or sets them.
func mulY(in Register, h Mem, set bool) []func() {
	if set {
		return []func(){
			func() { VPCLMULQDQ(U8(0x00), h, in, loY) },
			func() { VPCLMULQDQ(U8(0x01), h, in, miY) },
			func() { VPCLMULQDQ(U8(0x10), h, in, t2Y) },
			func() { VPXOR(t2Y, miY, miY) },
			func() { VPCLMULQDQ(U8(0x11), h, in, hiY) },
		}
	}
	return []func(){
		func() { VPCLMULQDQ(U8(0x00), h, in, t1Y) },
		func() { VPXOR(t1Y, loY, loY) },
		func() { VPCLMULQDQ(U8(0x01), h, in, t1Y) },
		func() { VPCLMULQDQ(U8(0x10), h, in, t2Y) },
		func() { VPXOR(t1Y, miY, miY) },
		func() { VPXOR(t2Y, miY, miY) },
		func() { VPCLMULQDQ(U8(0x11), h, in, t1Y) },
		func() { VPXOR(t1Y, hiY, hiY) },
	}
}

// otherAADY takes AAD of any length but ESP's into GHASH: 128 bytes a time, then 16,
// then the rest byte by byte.
func otherAADY() {
	n := R13
	MOVQ(aadLen, n)
	Label("aad128")
	CMPQ(n, U32(128))
	JB(LabelRef("aad16"))
	stitch(ghashY(aad, 0), nil)
	foldY()
	ADDQ(U32(128), aad)
	SUBQ(U32(128), n)
	JMP(LabelRef("aad128"))
	Label("aad16")
	CMPQ(n, U8(16))
	JB(LabelRef("aadBytes"))
	VMOVDQU(at(aad, 0), X7)
	blockX()
	ADDQ(U8(16), aad)
	SUBQ(U8(16), n)
	JMP(LabelRef("aad16"))
	Label("aadBytes")
	TESTQ(n, n)
	JZ(LabelRef("aadDone"))
	VPXOR(X7, X7, X7)
	Label("aadByte")
	Comment("From the last byte to the first.")
	VPSLLDQ(U8(1), X7, X7)
	MOVBLZX(Mem{Base: aad, Index: n, Scale: 1, Disp: -1}, tmp.As32())
	VPINSRB(U8(0), tmp.As32(), X7, X7)
	DECQ(n)
	JNZ(LabelRef("aadByte"))
	blockX()
	Label("aadDone")
}

// tailY ends a packet of which n blocks are left, the last of 1 to 16 bytes.
func (v variant) tailY(n int) {
	d := dataY[:n/2+1]
	last := len(d) - 1
	keep := last // the vector with the last of the text
	if n%2 == 0 {
		keep--
	}
	if keep >= 0 {
		Comment("Where in keepBytes are as many as the text has in its last vector.")
		LEAQ(keepBytes, tmp2)
		ADDQ(U8(32*(keep+1)), tmp2)
		SUBQ(length, tmp2)
	}
	// load brings vector i of the text.
	load := func(i int, to Register, toX Register) {
		if i < last {
			VMOVDQU(at(text, 32*i), to)
		} else if n%2 == 1 {
			VMOVDQU(at(text, 32*i), toX)
		}
	}
	xs := []Register{X0, X1, X2, X3, X7}
	hash := func() {
		Comment("The block of lengths in bits behind the last of the text.")
		MOVQ(at(pkt, offAADLen), tmp)
		SHLQ(U8(3), tmp)
		MOVQ(at(pkt, offBufLen), aadLen)
		SUBQ(U8(tagSize), aadLen)
		SHLQ(U8(3), aadLen)
		VMOVQ(aadLen, X8)
		VPINSRQ(U8(1), tmp, X8, X10)
		for i := range d {
			in := d[i]
			if v.open {
				in = inY
				load(i, inY, X7)
			}
			if i == keep {
				VPAND(at(tmp2, 0), in, in)
			}
			switch {
			case i < last:
				VPSHUFB(reverseY, in, in)
			case n%2 == 1:
				VPSHUFB(reverseY, in, in)
				VINSERTI128(U8(1), X10, in, in)
			default:
				VMOVDQA(Y10, in)
			}
			if i == 0 {
				VPXOR(accY, in, in)
			}
			stitch(mulY(in, at(powers, offPower(1-2*i)), false), nil)
		}
		reduceXor(loY, miY, hiY, t1Y, polyY)
		foldY()
	}
	if v.open {
		hash()
	}
	Comment("Key stream, the tag's in lane 1 of the last vector.")
	for i := range d {
		if i > 0 {
			VPADDD(plus2, ctrY, ctrY)
		}
		if i == last {
			VPBLENDD(U8(0xf0), j0Y, ctrY, ctrY)
		}
		VPSHUFB(reverseY, ctrY, d[i])
	}
	stitch(v.roundsY(d), nil)
	VEXTRACTI128(U8(1), d[last], X15)
	if v.open {
		VMOVDQU(at2(text, length), X5)
	}
	for i := range d {
		if i < last {
			VPXOR(at(text, 32*i), d[i], d[i])
		} else if n%2 == 1 {
			VPXOR(at(text, 32*i), xs[i], xs[i])
		}
	}
	for i := range d {
		if i < last {
			VMOVDQU(d[i], at(text, 32*i))
		} else if n%2 == 1 {
			VMOVDQU(xs[i], at(text, 32*i))
		}
	}
	if v.open {
		VMOVDQU(X5, at2(text, length))
	} else {
		hash()
	}
	VPSHUFB(X14, X12, X12)
	VPXOR(X15, X12, X12)
	if v.open {
		Comment("All 16 bytes of the tag are compared at once.")
		VPXOR(X5, X12, X12)
		VPTEST(X12, X12)
		SETEQ(at(pkt, offOK))
	} else {
		VMOVDQU(X12, at2(text, length))
	}
}
