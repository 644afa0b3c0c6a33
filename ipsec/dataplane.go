package ipsec

import "net/netip"

// Action is what a policy does with the packets that it matches (RFC 4301 §4.4.1).
type Action uint8

// The actions.
const (
	Protect Action = iota
	Bypass
	Discard
)

// String prints the action in lower case.
func (a Action) String() string { return [...]string{"protect", "bypass", "discard"}[a%3] }

// PolicyID names a policy inside this process; 0 is none.
type PolicyID uint64

// Policy is one entry of the SPD, for both directions: outbound traffic from
// Local to Remote, inbound from Remote to Local. Entries are consulted in order
// of Priority, lowest first, then of ID.
type Policy struct {
	ID       PolicyID
	Name     string // the child's configuration name
	Action   Action
	Local    []Selector // kept by the data plane, as those of SAParams: never changed
	Remote   []Selector
	Priority uint32
	Mode     Mode
	// Out is the outbound SA that protects matching packets now. Zero: there is
	// none; then packets wait (bounded) and Acquire is emitted if Trap is set,
	// and are dropped and counted if it is not.
	Out  SARef
	Trap bool
	// Resources are outbound SAs that serve one resource each (SAParams.Resource) in place
	// of Out. With PerResource set a resource that has none asks for it by an Acquire,
	// and uses Out until then.
	Resources   []SARef
	PerResource bool
	IfID        uint32
	ReqID       uint32
}

// SAUpdate moves an SA to other outer endpoints (NAT rebinding, MOBIKE).
type SAUpdate struct {
	Local, Remote netip.AddrPort
	Encap         bool
	TrackNAT      bool // see SAParams
}

// Dataplane holds the SAD and the SPD and moves packets by them. Implementations
// are safe for concurrent use. Calls complete quickly (no network round trip) and
// keep the order of the caller: when AddSA returns, packets of the SA are taken.
type Dataplane interface {
	// AddSA installs one SA. It fails when the reference or, inbound, the SPI is taken.
	AddSA(SAParams) error
	UpdateSA(SARef, SAUpdate) error
	DeleteSA(SARef) error
	// AddPolicy adds the policy or replaces the one of the same ID at once: no
	// packet sees a moment without it. Packets waiting for the policy's SA leave
	// when Out becomes known.
	AddPolicy(Policy) error
	DeletePolicy(PolicyID) error
	// Query reads the counters of an SA; false if it does not exist.
	Query(SARef) (SAStats, bool)
	// Events names the function that receives events. It is called from the data
	// plane's own threads, must not block nor call the data plane, and must be set
	// before the first AddSA.
	Events(func(Event))
	Close() error
}

// Event is something that happened in the data plane: Acquire, Expire, MappingChange, Orphan or Inform.
type Event interface{ event() }

// Acquire asks for an SA: a packet met a trap policy that has none.
type Acquire struct {
	Policy           PolicyID
	Name             string // Policy.Name
	Src, Dst         netip.Addr
	Proto            uint8
	SrcPort, DstPort uint16 // ICMP: type and code in SrcPort's high and low byte
	Resource         uint16 // the resource that wants an SA of its own, 0: none; then there is one for all
}

// Expire tells that an SA crossed a bound of its Lifetime, or ran out of
// sequence numbers (Hard).
type Expire struct {
	Ref  SARef
	Hard bool
}

// MappingChange tells that authenticated packets of an inbound SA come from a
// new address, because a NAT in front of the peer changed its mapping.
type MappingChange struct {
	Ref    SARef
	Remote netip.AddrPort
}

// Orphan tells that ESP arrived under an SPI that is not in the SAD (rate
// limited by the data plane); engines may answer with INVALID_SPI (RFC 7296 §1.5).
type Orphan struct {
	SPI    SPI
	Local  netip.AddrPort
	Remote netip.AddrPort
}

// Inform is a DHCPINFORM that a client sent through its tunnel (rate limited by the data
// plane).
type Inform struct {
	Ref    SARef
	Packet []byte // from the IP header on
}

func (Inform) event()        {}
func (Acquire) event()       {}
func (Expire) event()        {}
func (MappingChange) event() {}
func (Orphan) event()        {}
