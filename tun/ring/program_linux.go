package ring

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Fields of struct __sk_buff (linux/bpf.h), by their offset.
const (
	skbLen     = 0
	skbProto   = 16
	skbIngress = 36
	skbData    = 76
	skbEnd     = 80
	skbGSO     = 176
)

// Verdicts of a tcx program (linux/bpf.h).
const (
	next = -1 // the device's queue, or the next program
	drop = 2  // the packet is done with
)

// Flags of the ring's helpers.
const (
	noWakeup    = 1
	forceWakeup = 2
)

// The headers' numbers. Types of Ethernet are as a little-endian machine reads them.
const (
	typeIPv4  = 0x0008
	typeIPv6  = 0xdd86
	moreOrOff = 0xff3f // IPv4's "more fragments" and offset
	ipv4Len   = 20
	ipv6Len   = 40
	ipv6Frag  = 44
	fragLen   = 8
)

// sizes are the lengths of records: a reservation is of constant size.
var sizes = [...]int32{128, 256, 512, 768, 1024, 1280, 1408, 1536}

// Largest is the longest packet, in bytes, that the ring takes.
const Largest = 1536 - recordHead

// Registers that keep their values: the context, the packet's class, its length in
// bytes, the record.
const (
	ctx    = asm.R6
	class  = asm.R7
	length = asm.R8
	record = asm.R9
)

// program assembles for a ring and its control map.
type program struct {
	ring, control *ebpf.Map
	code          asm.Instructions
}

func (p *program) add(list ...asm.Instruction) { p.code = append(p.code, list...) }

// word loads the address of a word of the control map.
func (p *program) word(r asm.Register, at uint32) { p.add(asm.LoadMapValue(r, p.control.FD(), at)) }

// leaving is the program at the device's egress.
func (p *program) leaving() asm.Instructions {
	p.add(asm.Mov.Reg(ctx, asm.R1),
		asm.LoadMem(asm.R1, ctx, skbIngress, asm.Word),
		// A drop tells a socket of this host that its packet is lost, so only forwarded
		// packets, for which nobody asks.
		asm.JEq.Imm(asm.R1, 0, "pass"))
	p.word(asm.R1, wordMode)
	p.add(asm.LoadMem(asm.R1, asm.R1, 0, asm.Word),
		asm.JEq.Imm(asm.R1, 0, "pass"))
	p.parse()
	// The mode is read behind the class: a class that is off is left alone.
	p.word(asm.R1, wordMode)
	p.add(asm.LoadMem(asm.R1, asm.R1, 0, asm.Word),
		asm.And.Reg(asm.R1, class),
		asm.JEq.Imm(asm.R1, 0, "pass"),
		asm.JEq.Imm(length, 0, "off"),
		asm.LoadMem(asm.R1, ctx, skbGSO, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "off"),
		asm.LoadMem(asm.R1, ctx, skbLen, asm.Word),
		asm.JNE.Reg(asm.R1, length, "off"))
	p.deliver()
	p.labelled("off", asm.Xor.Imm(class, -1))
	p.word(asm.R1, wordMode)
	p.add(atomically(asm.AndAtomic, asm.R1, class))
	p.labelled("pass", asm.Mov.Imm(asm.R0, next))
	p.add(asm.Return())
	p.labelled("full", asm.Mov.Imm(asm.R2, 1))
	p.word(asm.R1, wordFull)
	p.add(atomically(asm.AddAtomic, asm.R1, asm.R2),
		asm.Mov.Imm(asm.R0, drop),
		asm.Return())
	return p.code
}

// labelled adds an instruction that others jump to.
func (p *program) labelled(name string, i asm.Instruction) { p.add(i.WithSymbol(name)) }

// parse finds class and length; a length of 0 is a fragment's. What is neither TCP nor
// UDP passes.
func (p *program) parse() {
	header := func(dst asm.Register, at int16, size asm.Size) asm.Instruction {
		return asm.LoadMem(dst, asm.R2, at, size)
	}
	room := func(n int32) {
		p.add(asm.Mov.Reg(asm.R4, asm.R2), asm.Add.Imm(asm.R4, n), asm.JGT.Reg(asm.R4, asm.R3, "pass"))
	}
	p.add(asm.LoadMem(asm.R2, ctx, skbData, asm.Word),
		asm.LoadMem(asm.R3, ctx, skbEnd, asm.Word),
		asm.LoadMem(asm.R1, ctx, skbProto, asm.Word),
		asm.JEq.Imm(asm.R1, typeIPv6, "ipv6"),
		asm.JNE.Imm(asm.R1, typeIPv4, "pass"))

	room(ipv4Len)
	p.add(header(length, 2, asm.Half),
		asm.HostTo(asm.BE, length, asm.Half),
		header(asm.R1, 9, asm.Byte),
		header(asm.R4, 6, asm.Half),
		asm.And.Imm(asm.R4, moreOrOff),
		asm.JNE.Imm(asm.R4, 0, "fragment"),
		header(asm.R4, 0, asm.Byte),
		asm.JEq.Imm(asm.R4, 0x45, "protocol"))
	p.labelled("fragment", asm.Mov.Imm(length, 0)) // or with options
	p.add(asm.Ja.Label("protocol"))

	p.labelled("ipv6", asm.Mov.Imm(asm.R0, 0))
	room(ipv6Len)
	p.add(header(length, 4, asm.Half),
		asm.HostTo(asm.BE, length, asm.Half),
		asm.Add.Imm(length, ipv6Len),
		header(asm.R1, 6, asm.Byte),
		asm.JNE.Imm(asm.R1, ipv6Frag, "protocol"))
	room(ipv6Len + fragLen)
	p.add(header(asm.R1, ipv6Len, asm.Byte),
		asm.Mov.Imm(length, 0))

	p.labelled("protocol", asm.Mov.Imm(class, int32(UDP)))
	p.add(asm.JEq.Imm(asm.R1, protoUDP, "class"),
		asm.JNE.Imm(asm.R1, protoTCP, "pass"),
		asm.Mov.Imm(class, int32(TCP)))
	p.labelled("class", asm.Mov.Imm(asm.R0, 0))
}

// deliver copies the packet into a record and drops it.
func (p *program) deliver() {
	p.add(asm.JLT.Imm(length, ipv4Len, "off"))
	for i, size := range sizes {
		larger := fmt.Sprintf("larger%d", size)
		if i == len(sizes)-1 {
			larger = "off"
		}
		p.add(asm.JGT.Imm(length, size-recordHead, larger),
			asm.LoadMapPtr(asm.R1, p.ring.FD()),
			asm.Mov.Imm(asm.R2, size),
			asm.Mov.Imm(asm.R3, 0),
			asm.FnRingbufReserve.Call(),
			asm.JEq.Imm(asm.R0, 0, "full"),
			asm.Mov.Reg(record, asm.R0),
			asm.StoreMem(record, 0, length, asm.DWord),
			asm.Mov.Reg(asm.R1, ctx),
			asm.Mov.Imm(asm.R2, 0),
			asm.Mov.Reg(asm.R3, record),
			asm.Add.Imm(asm.R3, recordHead),
			asm.Mov.Reg(asm.R4, length),
			asm.FnSkbLoadBytes.Call(),
			asm.JEq.Imm(asm.R0, 0, "copied"),
			asm.Ja.Label("discard"))
		if i < len(sizes)-1 {
			p.labelled(larger, asm.Mov.Imm(asm.R0, 0))
		}
	}
	p.labelled("copied", asm.JNE.Imm(class, int32(UDP), "submit"))
	p.add(asm.LoadMem(asm.R1, ctx, skbProto, asm.Word),
		asm.JNE.Imm(asm.R1, typeIPv4, "tunnel6"))
	p.tunnel(ipv4Len, 12, 2)
	p.labelled("tunnel6", asm.Mov.Imm(asm.R0, 0))
	p.tunnel(ipv6Len, 8, 8)
	p.submit()
	p.labelled("discard", asm.Mov.Reg(asm.R1, record))
	p.add(asm.Mov.Imm(asm.R2, noWakeup),
		asm.FnRingbufDiscard.Call())
}

// tunnel leaves a packet of UDP to the queue that is a tunnel's (VXLAN) and whose checksum to
// be completed is that of a packet within: only the kernel knows where. It tells which have
// one at all by leaving their checksum as it is when it is to adjust it to a change.
// Then it is the packet's own if the field holds the sum of the pseudo header, which is
// taken as the machine reads it.
func (p *program) tunnel(transport, addrs int32, words int) {
	const udpLen, field = 8, 6
	at := int16(transport + field)
	p.add(asm.JLT.Imm(length, transport+udpLen, "submit"),
		asm.Mov.Reg(asm.R1, ctx),
		asm.Mov.Imm(asm.R2, int32(at)),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, 1),
		asm.Mov.Imm(asm.R5, 2),
		asm.FnL4CsumReplace.Call(),
		asm.LoadMem(asm.R2, ctx, skbData, asm.Word),
		asm.LoadMem(asm.R3, ctx, skbEnd, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, transport+udpLen),
		asm.JGT.Reg(asm.R4, asm.R3, "discard"),
		asm.LoadMem(asm.R1, asm.R2, at, asm.Half),
		asm.LoadMem(asm.R4, record, recordHead+at, asm.Half),
		asm.JNE.Reg(asm.R1, asm.R4, "submit"),
		asm.Mov.Reg(asm.R0, length),
		asm.Sub.Imm(asm.R0, transport),
		asm.HostTo(asm.BE, asm.R0, asm.Half),
		asm.Add.Imm(asm.R0, protoUDP<<8))
	for i := range words {
		p.add(asm.LoadMem(asm.R1, record, recordHead+int16(addrs)+int16(4*i), asm.Word),
			asm.Add.Reg(asm.R0, asm.R1))
	}
	for range 3 {
		p.add(asm.Mov.Reg(asm.R1, asm.R0),
			asm.RSh.Imm(asm.R1, 16),
			asm.And.Imm(asm.R0, 0xffff),
			asm.Add.Reg(asm.R0, asm.R1))
	}
	p.add(asm.JEq.Reg(asm.R0, asm.R4, "submit"),
		asm.Ja.Label("discard"))
}

// submit gives the record to the reader, and wakes one that sleeps: who finds the mark takes
// it away. What is before is ordered before that look, as the reader looks for reservations
// after it has set the mark.
func (p *program) submit() {
	p.labelled("submit", asm.Mov.Imm(asm.R1, ^asleep))
	p.word(asm.R3, wordMode)
	p.add(atomically(asm.FetchAnd, asm.R3, asm.R1),
		asm.And.Imm(asm.R1, asleep),
		asm.Mov.Imm(asm.R2, noWakeup),
		asm.JEq.Imm(asm.R1, 0, "quiet"),
		asm.Mov.Imm(asm.R2, forceWakeup))
	p.labelled("quiet", asm.Mov.Reg(asm.R1, record))
	p.add(asm.FnRingbufSubmit.Call(),
		asm.Mov.Imm(asm.R0, drop),
		asm.Return())
}

// atomically is an atomic operation on a word. The operation is in the immediate as well,
// which cilium/ebpf 0.22 forgets to encode.
func atomically(op asm.AtomicOp, address, value asm.Register) asm.Instruction {
	i := op.Mem(address, value, asm.Word, 0)
	i.Constant = int64(op >> 8)
	return i
}
