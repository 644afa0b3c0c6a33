package userspace

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// icmpSender makes "too big" errors, at most limitICMP a second.
type icmpSender struct {
	rate limiter
	buf  []byte
	out  [1][]byte
}

// limiter allows a number of events a second.
type limiter struct {
	second int64
	count  int
}

func (l *limiter) allow(now time.Time, most int) bool {
	if s := now.Unix(); s != l.second {
		l.second, l.count = s, 0
	}
	l.count++
	return l.count <= most
}

// tooBig answers an inner packet that must not be fragmented: fragmentation
// needed (RFC 1191) or packet too big (RFC 4443 §3.2), with the MTU of the tunnel.
func (w *outbound) tooBig(s *sa, b []byte) {
	src, dst := w.h.addrs()
	_, isError := w.h.quote(b)
	if isError || w.h.fragment && w.h.l4 == 0 || !unicast(src) || dst.IsMulticast() && !w.h.v6 || !w.icmp.rate.allow(w.now, limitICMP) {
		w.count.drop(OutTooBigSilent)
		return
	}
	from := w.p.cfg.Source4
	if w.h.v6 {
		from = w.p.cfg.Source6
	}
	if !from.IsValid() {
		if from = dst; dst.IsMulticast() {
			w.count.drop(OutTooBigSilent)
			return
		}
	}
	if w.icmp.buf == nil {
		w.icmp.buf = make([]byte, minPMTU6)
	}
	mtu := s.InnerMTU()
	if w.h.v6 {
		w.icmp.out[0] = tooBig6(w.icmp.buf, b, from, src, max(mtu, minPMTU6))
	} else {
		w.icmp.out[0] = tooBig4(w.icmp.buf, b, from, src, mtu)
	}
	w.count.drop(OutTooBig)
	w.dev.of(w.worker).Write(w.icmp.out[:], 0)
}

func unicast(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func tooBig4(buf, b []byte, from, to netip.Addr, mtu int) []byte {
	quote := b[:min(len(b), 548)] // in all 576 bytes (RFC 1812 §4.3.2.3)
	out := buf[:ipv4Len+8+len(quote)]
	clear(out[:ipv4Len+8])
	out[0], out[1], out[8], out[9] = 0x45, 0xc0, 64, protoICMP
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	f, t := from.As4(), to.As4()
	copy(out[12:], f[:])
	copy(out[16:], t[:])
	headerChecksum(out[:ipv4Len])
	icmp := out[ipv4Len:]
	icmp[0], icmp[1] = 3, 4
	binary.BigEndian.PutUint16(icmp[6:], uint16(mtu))
	copy(icmp[8:], quote)
	binary.BigEndian.PutUint16(icmp[2:], ^fold(sum16(icmp, 0)))
	return out
}

func tooBig6(buf, b []byte, from, to netip.Addr, mtu int) []byte {
	quote := b[:min(len(b), minPMTU6-ipv6Len-8)]
	out := buf[:ipv6Len+8+len(quote)]
	clear(out[:ipv6Len+8])
	out[0], out[6], out[7] = 0x60, protoICMPv6, 64
	binary.BigEndian.PutUint16(out[4:], uint16(8+len(quote)))
	f, t := from.As16(), to.As16()
	copy(out[8:], f[:])
	copy(out[24:], t[:])
	icmp := out[ipv6Len:]
	icmp[0] = 2
	binary.BigEndian.PutUint32(icmp[4:], uint32(mtu))
	copy(icmp[8:], quote)
	sum := sum16(out[8:40], uint64(len(icmp))+protoICMPv6)
	binary.BigEndian.PutUint16(icmp[2:], ^fold(sum16(icmp, sum)))
	return out
}
