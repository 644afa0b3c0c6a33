package tun

import "golang.org/x/sys/cpu"

// haveVectors: what x/sys/cpu says of AVX includes that the system saves the registers.
var haveVectors = cpu.X86.HasAVX2

// sumAVX2 adds up the n bytes at p, 32-bit words in the machine's byte order, which
// is congruent to their ones' complement sum. It trusts its caller: n is a positive
// multiple of vectorSize and at most maxVectors, so that the result is below 2^47.
//
//go:noescape
func sumAVX2(p *byte, n int) uint64

func sumVectors(p *byte, n int) uint64 { return sumAVX2(p, n) }
