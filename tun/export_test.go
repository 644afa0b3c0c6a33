package tun

// Split runs the splitter over what the kernel would deliver: a virtio header
// and a packet. room is the size of the caller's buffers.
func Split(super []byte, room int) (packets [][]byte, err error) {
	if len(super) < vnetHdrLen {
		return nil, errSuper
	}
	var h vnetHdr
	h.parse(super)
	var s splitter
	if err := s.start(&h, super[vnetHdrLen:]); err != nil {
		return nil, err
	}
	for s.more() {
		buf := make([]byte, room)
		n, err := s.next(buf)
		if err != nil {
			return packets, err
		}
		packets = append(packets, buf[:n])
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
