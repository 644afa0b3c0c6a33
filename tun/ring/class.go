package ring

// Class is a set of kinds of packets.
type Class uint32

// The kinds: what a superpacket of the one does, doesn't concern the other.
const (
	UDP Class = 1 << iota
	TCP
	All = UDP | TCP
)

const (
	protoTCP = 6
	protoUDP = 17
)

// ClassOf is the class of an IP packet, fragments included; 0: none that the ring takes.
func ClassOf(packet []byte) Class {
	var proto byte
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		proto = packet[9]
	case len(packet) >= 48 && packet[0]>>4 == 6 && packet[6] == 44:
		proto = packet[40]
	case len(packet) >= 40 && packet[0]>>4 == 6:
		proto = packet[6]
	}
	switch proto {
	case protoUDP:
		return UDP
	case protoTCP:
		return TCP
	}
	return 0
}
