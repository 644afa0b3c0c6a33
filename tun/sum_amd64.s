//go:build amd64

#include "textflag.h"

// func sumAVX2(p *byte, n int) uint64
//
// Of every 64-bit lane x the whole is added to one register (modulo 2^64) and
// x>>32 to another, which cannot overflow. At the end the sum of the low halves is
// the first less the second shifted left by 32: one operation a vector less than
// taking both halves apart.
//
//	DI, CX   what is left
//	Y0, Y2   wholes,  Y1, Y3   high halves
TEXT ·sumAVX2(SB), NOSPLIT, $0-24
	MOVQ  p+0(FP), DI
	MOVQ  n+8(FP), CX
	VPXOR Y0, Y0, Y0
	VPXOR Y1, Y1, Y1
	VPXOR Y2, Y2, Y2
	VPXOR Y3, Y3, Y3
	SUBQ  $128, CX
	JB    rest

blocks:
	VMOVDQU (DI), Y4
	VMOVDQU 32(DI), Y5
	VMOVDQU 64(DI), Y6
	VMOVDQU 96(DI), Y7
	VPADDQ  Y4, Y0, Y0
	VPSRLQ  $32, Y4, Y4
	VPADDQ  Y5, Y2, Y2
	VPSRLQ  $32, Y5, Y5
	VPADDQ  Y4, Y1, Y1
	VPADDQ  Y6, Y0, Y0
	VPSRLQ  $32, Y6, Y6
	VPADDQ  Y5, Y3, Y3
	VPADDQ  Y7, Y2, Y2
	VPSRLQ  $32, Y7, Y7
	VPADDQ  Y6, Y1, Y1
	VPADDQ  Y7, Y3, Y3
	ADDQ    $128, DI
	SUBQ    $128, CX
	JAE     blocks

rest:
	ADDQ $128, CX
	JZ   done

vectors:
	VMOVDQU (DI), Y4
	VPADDQ  Y4, Y0, Y0
	VPSRLQ  $32, Y4, Y4
	VPADDQ  Y4, Y1, Y1
	ADDQ    $32, DI
	SUBQ    $32, CX
	JNZ     vectors

done:
	VPADDQ       Y2, Y0, Y0
	VPADDQ       Y3, Y1, Y1
	VPSLLQ       $32, Y1, Y2
	VPSUBQ       Y2, Y0, Y0 // the low halves
	VPADDQ       Y1, Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	VPADDQ       X1, X0, X0
	VPSRLDQ      $8, X0, X1
	VPADDQ       X1, X0, X0
	VMOVQ        X0, AX
	VZEROUPPER
	MOVQ         AX, ret+16(FP)
	RET
