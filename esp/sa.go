package esp

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"adit/ipsec"
	"adit/suite"
)

// Packet is one packet in a buffer, and what goes with it. Keep Packets in
// long-lived slices: their scratch memory makes one on the stack escape.
type Packet struct {
	// Buf is the whole buffer. Seal uses SealHeadroom bytes in front of the
	// packet and SealTailroom behind (more for TFC, up to the path MTU).
	Buf []byte
	// Off and Len say where in Buf the packet is: before Seal and after Open an
	// IP packet, after Seal and before Open an ESP packet from its SPI on,
	// without IP and UDP header.
	Off, Len int
	// TOS and DF are fields of the outer header: set by Seal, to be sent with;
	// TOS is read by Open, as received.
	TOS uint8
	DF  bool
	// Encap tells Open that the packet came in UDP.
	Encap bool
	// Seq is the full sequence number.
	Seq uint64
	// Err is the outcome in the batch forms: nil or one of this package's errors.
	Err error

	scratch [12]byte // authenticated header with ESN, or the high half alone
}

// Bytes is the packet itself.
func (p *Packet) Bytes() []byte { return p.Buf[p.Off : p.Off+p.Len] }

// Endpoints are the outer addresses of an SA. Values are never changed in place.
type Endpoints struct {
	Local, Remote netip.AddrPort
	Encap         bool
	TrackNAT      bool
}

// Params are what an SA keeps of its ipsec.SAParams, under the same names: what
// packets are handled by, and no more, since a gateway has many SAs.
type Params struct {
	SPI                    ipsec.SPI
	Mode                   ipsec.Mode
	DF                     ipsec.DFMode
	ESN, CopyECN, MSSClamp bool
	aead                   bool
	dscpTo                 bool             // copy DSCP between the headers in this direction
	LocalTS, RemoteTS      []ipsec.Selector // those of the giver: never changed
	Life                   ipsec.Lifetime
	TFC, MTU               int32
}

// SA is one unidirectional ESP SA (RFC 4301 §4.1). Seal and Open keep scratch
// space in the cipher: one goroutine at a time. Everything else may be called at
// any time from anywhere; numbers and window are atomic all the same, so that a
// mistake there can never reuse an IV or take a packet twice.
type SA struct {
	params Params
	cipher suite.Cipher
	batch  suite.Batch         // the cipher, if it is one
	parts  []suite.BatchPacket // of the batch at hand; nil before the first
	ivLen  int
	icvLen int
	align  int // of the ciphertext: a multiple of 4 (RFC 4303 §2.4)
	max    uint64
	soft   uint64 // sequence number from which a new SA is wanted

	endpoints atomic.Pointer[Endpoints]
	pathMTU   atomic.Int32
	innerMTU  atomic.Int32

	seq    atomic.Uint64 // Out: last number taken
	window *window       // In

	bytes, packets atomic.Uint64
	lastUse        atomic.Int64
	state          atomic.Uint32

	replayed, authFailed, malformed, mismatched atomic.Uint64
}

// Bits of SA.state.
const (
	stateSoft uint32 = 1 << iota // soft bound crossed
	stateHard                    // hard bound crossed: the SA passes nothing more
	stateSoftTold
	stateHardTold
)

// maxParts is how many packets go to the cipher at once: of 64 bytes each, for as long
// as the SA lives, so no more than what makes a call's own cost small.
const maxParts = 32

// DefaultPathMTU is assumed where SAParams.MTU is 0: Ethernet's.
const DefaultPathMTU = 1500

var (
	errWindow    = errors.New("esp: replay window too large")
	errMode      = errors.New("esp: mode not supported")
	errEndpoints = errors.New("esp: outer addresses missing or of two families")
	errSPI       = errors.New("esp: reserved SPI")
)

// New makes an SA of its parameters and zeroes the keys in them, also when it
// fails. Errors name what a caller asked for that cannot be.
func New(p ipsec.SAParams) (*SA, error) {
	defer p.EncKey.Zero()
	defer p.IntegKey.Zero()
	switch {
	case p.SPI < ipsec.MinSPI:
		return nil, errSPI
	case p.Mode != ipsec.ModeTunnel && p.Mode != ipsec.ModeTransport:
		return nil, errMode
	case p.ReplayWindow > MaxReplayWindow:
		return nil, errWindow
	case !validEndpoints(p.Local, p.Remote):
		return nil, errEndpoints
	}
	c, err := suite.NewCipher(p.Encr, p.Integ, p.EncKey, p.IntegKey)
	if err != nil {
		return nil, fmt.Errorf("esp: %w", err)
	}
	s := &SA{cipher: c, ivLen: c.IVLen(), icvLen: c.ICVLen(), align: max(4, c.Align())}
	if s.ivLen > maxIVLen || s.icvLen > maxICVLen || s.align > maxAlign || s.align%4 != 0 {
		return nil, errors.New("esp: cipher beyond this package's limits")
	}
	if b, ok := c.(suite.Batch); ok && s.ivLen == 8 {
		s.batch = b
	}
	s.params = Params{SPI: p.SPI, Mode: p.Mode, ESN: p.ESN, CopyECN: p.CopyECN, MSSClamp: p.MSSClamp, DF: p.DF,
		LocalTS: p.LocalTS, RemoteTS: p.RemoteTS, Life: p.Life, TFC: int32(min(p.TFC, 65535)), MTU: int32(min(p.MTU, 65535)), aead: c.AEAD()}
	s.max, s.soft = maxSeq, softMaxSeq
	if p.ESN {
		s.max, s.soft = maxESN, softMaxESN
	}
	if p.Ref.Dir == ipsec.In {
		s.window = newWindow(p.ReplayWindow)
		s.params.dscpTo = p.CopyDSCP == ipsec.DSCPIn || p.CopyDSCP == ipsec.DSCPBoth
	} else {
		s.params.dscpTo = p.CopyDSCP == ipsec.DSCPOut || p.CopyDSCP == ipsec.DSCPBoth
	}
	s.endpoints.Store(&Endpoints{Local: p.Local, Remote: p.Remote, Encap: p.Encap, TrackNAT: p.TrackNAT})
	mtu := p.MTU
	if mtu == 0 {
		mtu = DefaultPathMTU
	}
	s.SetPathMTU(mtu)
	return s, nil
}

func validEndpoints(l, r netip.AddrPort) bool {
	return l.IsValid() && r.IsValid() && l.Addr().Is4() == r.Addr().Is4() && !l.Addr().Is4In6() && !r.Addr().Is4In6()
}

// Close zeroes the keys as far as the cipher can. Nothing is called after it.
func (s *SA) Close() {
	if z, ok := s.cipher.(interface{ Zero() }); ok {
		z.Zero()
	}
}

// Params are the parameters that the SA was made of, as far as they are kept.
func (s *SA) Params() *Params { return &s.params }

// Endpoints are the outer addresses now; do not change what is pointed to.
func (s *SA) Endpoints() *Endpoints { return s.endpoints.Load() }

// Update moves the SA to other outer addresses (NAT rebinding, MOBIKE).
func (s *SA) Update(u ipsec.SAUpdate) error {
	if !validEndpoints(u.Local, u.Remote) {
		return errEndpoints
	}
	s.endpoints.Store(&Endpoints{Local: u.Local, Remote: u.Remote, Encap: u.Encap, TrackNAT: u.TrackNAT})
	s.SetPathMTU(s.PathMTU())
	return nil
}

// PathMTU is what the SA believes of the path between the gateways, in bytes.
func (s *SA) PathMTU() int { return int(s.pathMTU.Load()) }

// SetPathMTU records the MTU of the path; values too small for any packet are
// raised to what carries an inner packet of 68 bytes (RFC 791).
func (s *SA) SetPathMTU(mtu int) {
	mtu = min(max(mtu, 68+s.Overhead()), 65535)
	s.pathMTU.Store(int32(mtu))
	s.innerMTU.Store(int32(s.innerOf(mtu)))
}

// fixed is all that every outer packet has beside the ciphertext, in bytes.
func (s *SA) fixed() int {
	e := s.endpoints.Load()
	n := ipv4Len
	if e.Remote.Addr().Is6() {
		n = ipv6Len
	}
	if e.Encap {
		n += udpLen
	}
	return n + headerLen + s.ivLen + s.icvLen
}

func (s *SA) innerOf(mtu int) int {
	room := mtu - s.fixed()
	room -= room % s.align
	room -= trailerLen
	if s.params.Mode == ipsec.ModeTransport {
		room += s.addrHeader()
	}
	return room
}

func (s *SA) addrHeader() int {
	if s.endpoints.Load().Remote.Addr().Is6() {
		return ipv6Len
	}
	return ipv4Len
}

// Overhead is the largest number of bytes by which a packet grows on the wire,
// the outer IP header included.
func (s *SA) Overhead() int {
	n := s.fixed() + trailerLen + s.align - 1
	if s.params.Mode == ipsec.ModeTransport {
		n -= s.addrHeader()
	}
	return n
}

// HeadLen is the number of bytes in front of a packet that Seal fills in tunnel mode.
func (s *SA) HeadLen() int { return headerLen + s.ivLen }

// SealedLen is the number of bytes that an IP packet of n bytes becomes in tunnel
// mode: a packet that begins HeadLen bytes into a buffer of that size fills it. In
// transport mode it takes no more. A path MTU that changes meanwhile may make it
// less, or more, which Seal refuses (ErrNoRoom).
func (s *SA) SealedLen(n int) int {
	text := n + s.tfc(n) + trailerLen
	if s.params.Mode == ipsec.ModeTransport {
		text += s.align - 1 // the IP header, which stays before it, has any length
	} else {
		text += -text & (s.align - 1)
	}
	return headerLen + s.ivLen + text + s.icvLen
}

// InnerMTU is the largest IP packet that fits into one outer packet of the path MTU.
func (s *SA) InnerMTU() int { return int(s.innerMTU.Load()) }

// Due says which bounds of the lifetime were crossed since it was asked last:
// each is told once, whoever asks first.
func (s *SA) Due() (soft, hard bool) {
	st := s.state.Load()
	if st&(stateSoft|stateHard) == 0 {
		return false, false
	}
	if st&stateSoft != 0 {
		soft = s.state.Or(stateSoftTold)&stateSoftTold == 0
	}
	if st&stateHard != 0 {
		hard = s.state.Or(stateHardTold)&stateHardTold == 0
	}
	return soft, hard
}

// count adds passed packets and notes crossed bounds. seq is the highest number among them.
func (s *SA) count(packets, bytes, seq uint64) {
	p, b := s.packets.Add(packets), s.bytes.Add(bytes)
	l := &s.params.Life
	var st uint32
	if seq >= s.soft || l.SoftPackets != 0 && p >= l.SoftPackets || l.SoftBytes != 0 && b >= l.SoftBytes {
		st = stateSoft
	}
	if seq >= s.max || l.HardPackets != 0 && p >= l.HardPackets || l.HardBytes != 0 && b >= l.HardBytes {
		st |= stateHard
	}
	if st != 0 && s.state.Load()&st != st {
		s.state.Or(st)
	}
}

// mayEndIn reports whether a hard bound of packets or bytes may lie within a batch, which
// then goes one by one: nothing passes behind the bound.
func (s *SA) mayEndIn(ps []Packet) bool {
	l := &s.params.Life
	if l.HardPackets == 0 && l.HardBytes == 0 {
		return false
	}
	bytes := s.bytes.Load()
	for i := range ps {
		bytes += uint64(max(ps[i].Len, 0)) // of ESP packets more than what counts
	}
	return l.HardPackets != 0 && s.packets.Load()+uint64(len(ps)) >= l.HardPackets || l.HardBytes != 0 && bytes >= l.HardBytes
}

// Expired reports whether the SA crossed a hard bound and passes nothing more.
func (s *SA) Expired() bool { return s.state.Load()&stateHard != 0 }

// Touch records that the SA was used; t is in nanoseconds of the Unix clock.
func (s *SA) Touch(t int64) { s.lastUse.Store(t) }

// LastUse is the time of the last Touch, 0 if there was none.
func (s *SA) LastUse() int64 { return s.lastUse.Load() }

// CountMismatch counts an inner packet that the SA's selectors do not cover.
func (s *SA) CountMismatch() { s.mismatched.Add(1) }

// Stats reads the counters; LastUse is left to the caller, who knows the clock.
func (s *SA) Stats() ipsec.SAStats {
	st := ipsec.SAStats{
		Bytes: s.bytes.Load(), Packets: s.packets.Load(), Seq: s.seq.Load(),
		Replayed: s.replayed.Load(), AuthFailed: s.authFailed.Load(),
		SelectorMismatch: s.mismatched.Load(), Malformed: s.malformed.Load(), MTU: s.InnerMTU(),
	}
	if s.window != nil {
		st.Seq = s.window.top.Load()
	} else {
		st.MTU = s.InnerMTU()
	}
	return st
}
