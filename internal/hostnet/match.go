package hostnet

import (
	"encoding/binary"
	"net"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The building blocks of our rules. Register 1 is the only one used.

func verdict(k expr.VerdictKind) *expr.Verdict { return &expr.Verdict{Kind: k} }

func compare(op expr.CmpOp, value []byte) *expr.Cmp {
	return &expr.Cmp{Op: op, Register: 1, Data: value}
}

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
func big16(v uint16) []byte    { return binary.BigEndian.AppendUint16(nil, v) }

// loopback is the index of lo in every network namespace, where it is the first
// device. It can be matched by it: no other device has it, ever.
const loopback = 1

// device matches the index or the group of the device by which a packet came or
// goes: a number is compared in a third of the time of a name.
func device(key expr.MetaKey, number uint32) exprs {
	return exprs{&expr.Meta{Key: key, Register: 1}, compare(expr.CmpOpEq, native32(number))}
}

func family(v6 bool) exprs {
	f := byte(unix.NFPROTO_IPV4)
	if v6 {
		f = unix.NFPROTO_IPV6
	}
	return exprs{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, compare(expr.CmpOpEq, []byte{f})}
}

func markCompare(mask uint32, op expr.CmpOp, value uint32) exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native32(mask), Xor: native32(0)},
		compare(op, native32(value))}
}

// markSet sets the bits of mask to value and leaves the others.
func markSet(mask, value uint32) exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native32(^mask), Xor: native32(value)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true}}
}

func protoIs(p uint8) exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, compare(expr.CmpOpEq, []byte{p})}
}

func network(offset, length uint32) *expr.Payload {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

func transport(offset, length uint32) *expr.Payload {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: length}
}

// address loads the destination or source address.
func address(v6, dst bool) *expr.Payload {
	switch {
	case v6 && dst:
		return network(offDst6, 16)
	case v6:
		return network(offSrc6, 16)
	case dst:
		return network(offDst4, 4)
	}
	return network(offSrc4, 4)
}

// addrMatch matches an address against a range; the family is known by then.
func addrMatch(r addrRange, v6, dst bool) exprs {
	switch {
	case r.full():
		return nil
	case r.from == r.to:
		return exprs{address(v6, dst), compare(expr.CmpOpEq, r.from.AsSlice())}
	}
	if p := r.prefixes(); !v6 && len(p) == 1 { // done without a call within the kernel
		mask := net.CIDRMask(p[0].Bits(), 32)
		return exprs{address(v6, dst),
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
			compare(expr.CmpOpEq, r.from.AsSlice())}
	}
	return exprs{address(v6, dst), &expr.Range{Op: expr.CmpOpEq, Register: 1,
		FromData: r.from.AsSlice(), ToData: r.to.AsSlice()}}
}

// portMatch matches what a protocol has in the place of ports; false if no
// packet can match.
func portMatch(proto uint8, sport, dport portRange) (exprs, bool) {
	if sport.fragments || dport.fragments {
		return nil, false
	}
	type field struct {
		offset, length uint32
		r              portRange
	}
	var fields []field
	switch proto {
	case protoICMP, protoICMPv6: // type<<8|code, said by either side
		fields = []field{{0, 2, sport}, {0, 2, dport}}
	case protoMobility: // type<<8
		shift := func(r portRange) portRange { r.from, r.to = r.from>>8, r.to>>8; return r }
		fields = []field{{2, 1, shift(sport)}, {2, 1, shift(dport)}}
	default:
		fields = []field{{0, 2, sport}, {2, 2, dport}}
	}
	var m exprs
	for _, f := range fields {
		if f.r.any {
			continue
		}
		from, to := big16(f.r.from), big16(f.r.to)
		if f.length == 1 {
			from, to = from[1:], to[1:]
		}
		m = append(m, transport(f.offset, f.length),
			&expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: from, ToData: to})
	}
	return m, true
}

func portIs(offset uint32, port uint16) exprs {
	return exprs{transport(offset, 2), compare(expr.CmpOpEq, big16(port))}
}

func portsAre(src, dst uint16) exprs { return append(portIs(0, src), portIs(2, dst)...) }

// laterFragment matches fragments other than the first.
func laterFragment(v6 bool) exprs {
	zero := []byte{0, 0}
	if v6 {
		return exprs{&expr.Exthdr{DestRegister: 1, Type: unix.IPPROTO_FRAGMENT, Offset: 2, Len: 2, Op: expr.ExthdrOpIpv6},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0xff, 0xf8}, Xor: zero},
			compare(expr.CmpOpNeq, zero)}
	}
	return exprs{network(6, 2),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0x1f, 0xff}, Xor: zero},
		compare(expr.CmpOpNeq, zero)}
}

// neighbourDiscovery accepts ICMPv6 types 133 to 137 of hop limit 255, which no
// router can have forwarded (RFC 4861 §7.1).
func neighbourDiscovery() exprs {
	return append(append(family(true), protoIs(protoICMPv6)...),
		transport(0, 1), &expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: []byte{133}, ToData: []byte{137}},
		network(7, 1), compare(expr.CmpOpEq, []byte{255}),
		verdict(expr.VerdictAccept))
}

// icmpErrors match ICMP errors; in IPv4 only those that quote a packet without IP
// options, whose ports have a fixed place.
func icmpErrors(v6 bool) []exprs {
	if v6 {
		return []exprs{append(protoIs(protoICMPv6), transport(0, 1), compare(expr.CmpOpLt, []byte{128}))}
	}
	var all []exprs
	for _, typ := range []byte{3, 11, 12} { // unreachable, time exceeded, parameter problem
		all = append(all, append(protoIs(protoICMP), transport(0, 1), compare(expr.CmpOpEq, []byte{typ}),
			transport(8, 1), compare(expr.CmpOpEq, []byte{0x45})))
	}
	return all
}

// quotesProto matches the protocol of the packet that an ICMP error quotes.
func quotesProto(v6 bool, proto uint8) exprs {
	if v6 {
		return exprs{transport(8+6, 1), compare(expr.CmpOpEq, []byte{proto})}
	}
	return exprs{transport(8+9, 1), compare(expr.CmpOpEq, []byte{proto})}
}

// quotesPorts matches quoted UDP packets that were sent from one of the ports.
func quotesPorts(v6 bool, ports []uint16) []exprs {
	at := uint32(8 + 20)
	if v6 {
		at = 8 + 40
	}
	var all []exprs
	for _, p := range ports {
		all = append(all, append(quotesProto(v6, protoUDP), transport(at, 2), compare(expr.CmpOpEq, big16(p))))
	}
	return all
}

// lookup leads a packet by its remote address to the chain of its policies.
func lookup(m verdictMap, inbound bool) exprs {
	return append(family(m.v6), address(m.v6, !inbound),
		&expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetName: m.name})
}
