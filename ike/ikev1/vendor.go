package ikev1

import (
	"bytes"
	"slices"

	"adit/ike/wire"
)

// Vendor IDs that mean something (RFC 3947 §3.1 and the drafts before, RFC 3706
// §5.1, draft-beaulieu-ike-xauth-02 §2; those of vendors are facts of the field).
var (
	vidRFC3947 = []byte("\x4a\x13\x1c\x81\x07\x03\x58\x45\x5c\x57\x28\xf2\x0e\x95\x45\x2f")
	vidNATT03  = []byte("\x7d\x94\x19\xa6\x53\x10\xca\x6f\x2c\x17\x9d\x92\x15\x52\x9d\x56")
	vidNATT02n = []byte("\x90\xcb\x80\x91\x3e\xbb\x69\x6e\x08\x63\x81\xb5\xec\x42\x7b\x1f")
	vidNATT02  = []byte("\xcd\x60\x46\x43\x35\xdf\x21\xf8\x7c\xfd\xb2\xfc\x68\xb6\xa4\x48")
	vidDPD     = []byte("\xaf\xca\xd7\x13\x68\xa1\xf1\xc9\x6b\x86\x96\xfc\x77\x57\x01\x00")
	vidXAuth   = []byte("\x09\x00\x26\x89\xdf\xd6\xb7\x12")
	// vidFragment is followed by four octets of capabilities, or by nothing.
	vidFragment = []byte("\x40\x48\xb7\xd5\x6e\xbc\xe8\x85\x25\xe7\xde\x7f\x00\xd6\xc2\xd3\x80\x00\x00\x00")
	vidUnity    = []byte("\x12\xf5\xf2\x8c\x45\x71\x68\xa9\x70\x2d\x9f\xe2\x74\xcc\x01\x00")
)

// vendorIDs are those that we send, the most important first.
func (s *sa) vendorIDs() (list []wire.V1Payload) {
	ids := [][]byte{vidRFC3947, vidDPD, vidNATT03, vidNATT02n}
	if givesPassword(s.peer) || asksPassword(s.peer) {
		ids = append(ids, vidXAuth)
	}
	if len(s.peer.VIPs) > 0 {
		ids = append(ids, vidUnity)
	}
	if s.takesFragments() {
		ids = append(ids, vidFragment)
	}
	for _, b := range ids {
		list = append(list, wire.V1Payload{Type: wire.PayloadV1VendorID, Body: b})
	}
	return list
}

// chosenVendorIDs are those of an answer: of the NAT traversals the one that both
// speak (RFC 3947 §3.1).
func (s *sa) chosenVendorIDs() (list []wire.V1Payload) {
	add := func(b []byte) {
		list = append(list, wire.V1Payload{Type: wire.PayloadV1VendorID, Body: b})
	}
	switch {
	case s.caps.natT == natRFC:
		add(vidRFC3947)
	case s.caps.natT == natDraft:
		add(s.caps.draft)
	}
	if s.caps.dpd {
		add(vidDPD)
	}
	if s.caps.xauth && byXAuth(s.setup.auth) {
		add(vidXAuth)
	}
	if s.caps.unity {
		add(vidUnity)
	}
	if s.caps.fragments && s.takesFragments() {
		add(vidFragment)
	}
	return list
}

// readVendorIDs takes what the peer's vendor IDs say.
func (s *sa) readVendorIDs(in *inbound) {
	for _, b := range in.all(wire.PayloadV1VendorID) {
		switch {
		case bytes.Equal(b, vidRFC3947):
			s.caps.natT = natRFC
		case bytes.Equal(b, vidNATT03), bytes.Equal(b, vidNATT02n), bytes.Equal(b, vidNATT02):
			if s.caps.natT == natNone {
				s.caps.natT, s.caps.draft = natDraft, slices.Clone(b)
			}
		case len(b) == len(vidDPD) && bytes.Equal(b[:14], vidDPD[:14]):
			s.caps.dpd = true
		case bytes.Equal(b, vidXAuth):
			s.caps.xauth = true
		case bytes.Equal(b, vidUnity):
			s.caps.unity = true
		case takesMainModeFragments(b):
			s.caps.fragments = true
		default:
			s.readVendor(b)
		}
	}
}

// takesMainModeFragments reads the vendor ID of fragmentation. Of its capabilities the
// first bit stands for main and aggressive mode; Windows names none ([MS-IKEE] §2.2.2).
func takesMainModeFragments(b []byte) bool {
	const hash = 16
	switch {
	case !bytes.HasPrefix(b, vidFragment[:hash]):
		return false
	case len(b) == hash:
		return true
	}
	return len(b) == len(vidFragment) && b[hash]&0x80 != 0
}

// vendors are the vendor IDs by which makers are known, for logs; versions follow.
var vendors = []struct{ name, id string }{
	{"strongSwan", "\x88\x2f\xe5\x6d\x6f\xd2\x0d\xbc\x22\x51\x61\x3b\x2e\xbe\x5b\xeb"},
	{"Libreswan", "OE"},
	{windows, "\x1e\x2b\x51\x69\x05\x99\x1c\x7d\x7c\x96\xfc\xbf\xb5\x87\xe4\x61"},
	{"Cisco VPN 3000", "\x1f\x07\xf7\x0e\xaa\x65\x14\xd3\xb0\xfa\x96\x54\x2a\x50"},
	{"racoon", "\x70\x03\xcb\xc1\x09\x7d\xbe\x9c\x26\x00\xba\x69\x83\xbc\x8b\x35"},
	{"SonicWall", "\x5b\x36\x2b\xc8\x20\xf6\x00"},
	{"SonicWall", "\x5b\x36\x2b\xc8\x20\xf7\x00"},
	{"SonicWall", "\x40\x4b\xf4\x39\x52\x2c\xa3\xf6"},
	{"FortiGate", "\x1d\x6e\x17\x8f\x6c\x2c\x0b\xe2\x84\x98\x54\x65\x45\x0f\xe9\xd4"},
	{"Check Point", "\xf4\xed\x19\xe0\xc1\x14\xeb\x51\x6f\xaa\xac\x0e\xe3\x7d\xaf\x28"},
	{"Juniper NetScreen", "\x69\x93\x69\x22\x87\x41\xc6\xd4\xca\x09\x4c\x93\xe2\x42\xc9\xde"},
	{"Juniper SRX", "\xfd\x80\x88\x04\xdf\x73\xb1\x51\x50\x70\x9d\x87\x80\x44\xcd\xe0"},
}

const windows = "Windows"

func (s *sa) readVendor(b []byte) {
	for _, v := range vendors {
		if bytes.HasPrefix(b, []byte(v.id)) {
			s.caps.vendor = v.name
			return
		}
	}
}
