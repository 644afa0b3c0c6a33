package tun

// Split cuts what the kernel would deliver: a virtio header
// and a packet. room is the size of the caller's buffers.
func Split(super []byte, room int) (packets [][]byte, err error) {
	s, err := ParseSuper(super)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, room)
	for s.More() {
		for i := range min(s.NextLen(), room) {
			buf[i] = 0xaa // stale bytes of another packet
		}
		n, err := s.Next(buf)
		if err != nil {
			return packets, err
		}
		packets = append(packets, append([]byte(nil), buf[:n]...))
	}
	return packets, nil
}

// VnetHeader encodes a virtio header.
func VnetHeader(flags, gsoType uint8, hdrLen, gsoSize, csumStart, csumOffset uint16) []byte {
	b := make([]byte, vnetHdrLen)
	h := vnetHdr{flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset}
	h.put(b)
	return b
}

// Checksum is the folded, complemented sum.
func Checksum(b []byte) uint16 { return ^fold(sum(b, 0)) }

// Joined is what Write would give to the kernel for a batch of packets: each
// with its virtio header.
func Joined(packets [][]byte, tcp, udp bool) (super [][]byte) {
	c := coalescer{most: maxTrain}
	c.coalesce(packets, 0, tcp, udp, func(t *train) {
		var h vnetHdr
		t.superHeader(&h)
		b := make([]byte, vnetHdrLen)
		h.put(b)
		b = append(b, t.pkts[0]...)
		for _, p := range t.pkts[1:t.n] {
			b = append(b, p[t.hdr:]...)
		}
		super = append(super, b)
	})
	return super
}

// WithoutVectors runs f with the portable checksum.
func WithoutVectors(f func()) {
	defer func(have bool) { haveVectors = have }(haveVectors)
	haveVectors = false
	f()
}

// HaveVectors reports whether sums are taken by assembler.
func HaveVectors() bool { return haveVectors }
