package gcm

import "golang.org/x/sys/cpu"

//go:generate go -C _asm run . -out ../gcm_amd64.s

// schedule is what the assembler needs of a key: 11 or 15 round keys from the start,
// and H^18 to H^1, H being the hash key times x, from offset 288; zeros behind. Alone
// on the heap it begins at a cache line.
type schedule [640]byte

func (s *schedule) expand(key []byte) {
	if len(key) == 16 {
		expand128(s, &key[0])
	} else {
		expand256(s, &key[0])
	}
}

// Bits of CPUID leaf 7, ECX.
const (
	cpuidVAES       = 1 << 9
	cpuidVPCLMULQDQ = 1 << 10
)

// detect returns the implementations in assembler that the machine has, the fastest
// first. What x/sys/cpu says of AVX includes that the system saves the registers.
func detect() (all []Implementation) {
	x := &cpu.X86
	if !x.HasAVX2 || !x.HasBMI2 || !x.HasAES || !x.HasPCLMULQDQ {
		return nil
	}
	const both = cpuidVAES | cpuidVPCLMULQDQ
	if features()&both != both {
		return nil
	}
	if x.HasAVX512F && x.HasAVX512VL && x.HasAVX512BW && x.HasAVX512DQ {
		all = append(all, Implementation{kindAVX512})
	}
	return append(all, Implementation{kindAVX2})
}

// smallWork is the work of a packet up to which the code for AVX2 is the faster one,
// measured on Zen 4: four vectors of two blocks are less to wait for than two of four.
const smallWork = 224

// by is the kind of code for n packets.
func (a *AEAD) by(n, work int) uint8 {
	if a.impl.kind == kindAVX512 && work <= n*smallWork {
		return kindAVX2
	}
	return a.impl.kind
}

func (a *AEAD) seal(ps *Packet, n, work int) {
	avx2 := a.by(n, work) == kindAVX2
	switch {
	case avx2 && a.size == 16:
		seal128AVX2(a.ks, ps, n)
	case avx2:
		seal256AVX2(a.ks, ps, n)
	case a.size == 16:
		seal128AVX512(a.ks, ps, n)
	default:
		seal256AVX512(a.ks, ps, n)
	}
}

// open sets OK. What it leaves of packets that are not authentic must not be seen.
func (a *AEAD) open(ps *Packet, n, work int) {
	avx2 := a.by(n, work) == kindAVX2
	switch {
	case avx2 && a.size == 16:
		open128AVX2(a.ks, ps, n)
	case avx2:
		open256AVX2(a.ks, ps, n)
	case a.size == 16:
		open128AVX512(a.ks, ps, n)
	default:
		open256AVX512(a.ks, ps, n)
	}
}

// The assembler trusts its caller: every Buf has TagSize bytes or more, n is 1 or
// more, and the sum of the work is at most maxCall.

// features is ECX of CPUID leaf 7, which must exist.
func features() uint32

//go:noescape
func expand128(ks *schedule, key *byte)

//go:noescape
func expand256(ks *schedule, key *byte)

//go:noescape
func seal128AVX512(ks *schedule, ps *Packet, n int)

//go:noescape
func seal256AVX512(ks *schedule, ps *Packet, n int)

//go:noescape
func open128AVX512(ks *schedule, ps *Packet, n int)

//go:noescape
func open256AVX512(ks *schedule, ps *Packet, n int)

//go:noescape
func seal128AVX2(ks *schedule, ps *Packet, n int)

//go:noescape
func seal256AVX2(ks *schedule, ps *Packet, n int)

//go:noescape
func open128AVX2(ks *schedule, ps *Packet, n int)

//go:noescape
func open256AVX2(ks *schedule, ps *Packet, n int)
