// Command asm writes AES-GCM's assembler of package gcm, with avo. It is a module of
// its own, so that avo is no dependency of adit:
//
//	cd suite/gcm/_asm && go run . -out ../gcm_amd64.s
//
// It owns the code for both instruction sets; what the code is given and must hold to
// is written at the declarations in gcm/gcm_amd64.go. Start with layout here, then
// avx512.go.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// What the code is given: a schedule, an array of Packets, and how many they are.
// gcm_amd64.go asserts these offsets.
const (
	packetSize = 64
	offBuf     = 0  // text and 16 bytes for the tag
	offBufLen  = 8  // of both
	offAAD     = 24 //
	offAADLen  = 32
	offNonce   = 48 // 12 bytes, and 4 that may be read
	offOK      = 60

	tagSize = 16
)

// Powers of the hash key go down from H^18 to H^1, so that the blocks of a group
// stand as their powers do; H^16 begins a cache line. What follows H^1 is zero.
const (
	maxPower = 18
	offPad   = 576
)

func offKey(round int) int { return 16 * round }
func offPower(k int) int   { return offPad - 16*k }

// General registers, alike in all code.
var (
	ks     = R8  // *schedule
	pkt    = R9  // *Packet
	left   = R10 // packets
	text   = RSI
	length = RDX // of the text that is left, in bytes
	blocks = RCX // of the text that is left, a last short one too
	aad    = RDI
	aadLen = R11
	powers = R12 // ks - 16·blocks: offPower(k+blocks) there is offPower(k)'s
	tmp    = RAX
	tmp2   = RBX
)

// direction and key size of a function.
type variant struct {
	open   bool
	rounds int
}

var variants = []variant{{false, 10}, {false, 14}, {true, 10}, {true, 14}}

func (v variant) name(isa string) string {
	verb := "seal"
	if v.open {
		verb = "open"
	}
	return fmt.Sprintf("%s%d%s", verb, 32*(v.rounds-6), isa)
}

// begin opens a function over packets and loads its arguments.
func (v variant) begin(isa string) {
	TEXT(v.name(isa), NOSPLIT, "func(ks *byte, ps *byte, n int)")
	Load(Param("ks"), ks)
	Load(Param("ps"), pkt)
	Load(Param("n"), left)
}

// stitch runs two lists of steps in turns, b spread evenly over a.
func stitch(a, b []func()) {
	done := 0
	for i, f := range a {
		f()
		for ; done*len(a) < (i+1)*len(b); done++ {
			b[done]()
		}
	}
}

func main() {
	ConstraintExpr("amd64")
	constants()
	cpuid()
	expand(10)
	expand(14)
	for _, v := range variants {
		avx512(v)
	}
	for _, v := range variants {
		avx2(v)
	}
	Generate()
}

// cpuid writes the function that asks for the features which x/sys/cpu leaves out.
func cpuid() {
	TEXT("features", NOSPLIT, "func() uint32")
	MOVL(U32(7), EAX)
	XORL(ECX, ECX)
	CPUID()
	Store(ECX, ReturnIndex(0))
	RET()
}

// Constants in memory.
var (
	reverse    Mem // shuffles that reverse each 16 bytes
	reverse12  Mem // the same for a nonce: the counter becomes zero
	polynomial Mem // 1 and x^128's remainder, bit-reflected
	counters   Mem // low halves 2, 3, 4, 5: the first counters of the text
	plus1      Mem
	plus2      Mem
	plus4      Mem
	keepBytes  Mem // 32 times 255, then 32 times 0
)

func constants() {
	lanes := func(name string, hi, lo func(lane int) uint64) Mem {
		m := GLOBL(name, RODATA|NOPTR)
		for i := range 4 {
			DATA(16*i, U64(lo(i)))
			DATA(16*i+8, U64(hi(i)))
		}
		return m
	}
	same := func(v uint64) func(int) uint64 { return func(int) uint64 { return v } }
	reverse = lanes("reverse", same(0x0001020304050607), same(0x08090a0b0c0d0e0f))
	reverse12 = lanes("reverse12", same(0x0001020304050607), same(0x08090a0b80808080))
	polynomial = lanes("polynomial", same(0xc200000000000000), same(1))
	counters = lanes("counters", same(0), func(i int) uint64 { return uint64(i) + 2 })
	plus1 = lanes("plus1", same(0), same(1))
	plus2 = lanes("plus2", same(0), same(2))
	plus4 = lanes("plus4", same(0), same(4))
	keepBytes = GLOBL("keepBytes", RODATA|NOPTR)
	for i := range 8 {
		DATA(8*i, U64(uint64(i/4)-1))
	}
}

// nonce loads the nonce as it is written: salt and explicit IV. One load over two
// stores would wait until both have left the store buffer.
func nonce(x Register) {
	VMOVQ(at(pkt, offNonce+4), x)
	VPSLLDQ(U8(4), x, x)
	VPINSRD(U8(0), at(pkt, offNonce), x, x)
}

func at(base Register, off int) Mem { return Mem{Base: base, Disp: off} }
