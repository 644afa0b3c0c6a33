package ike

import (
	"net/netip"
	"time"

	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// Event is a typed fact for logs, VICI, metrics. Events never hold keys and are
// immutable: many readers share them.
type Event interface{ event() }

// SAKey tells which IKE SA, and which Child SA if any, an event belongs to.
type SAKey struct {
	Name    string // connection
	ID      uint32 // the IKE SA's unique number
	Child   string
	ChildID uint32
}

// IKEUp tells that an IKE SA was established.
type IKEUp struct{ SA SAInfo }

// IKEDown tells that an established IKE SA is gone. Down events balance up events.
type IKEDown struct {
	SA     SAInfo
	Reason string // named: "deleted by peer", "peer does not answer", "replaced", …
}

// IKERekeyed tells that New took over from Old; no IKEDown or IKEUp is emitted for either.
type IKERekeyed struct{ Old, New SAInfo }

// ChildUp tells that a Child SA was installed; not emitted for replacements by rekey.
type ChildUp struct {
	SA    SAInfo
	Child ChildInfo
}

// ChildDown tells that a Child SA is gone and not replaced.
type ChildDown struct {
	SA     SAInfo
	Child  ChildInfo
	Reason string
	// Action is what the configuration has follow (close_action, dpd_action). The
	// engine sees to a new start by itself; a trap is for whoever keeps the policies.
	Action StartAction
}

// ChildRekeyed tells that New took over from Old.
type ChildRekeyed struct {
	SA       SAInfo
	Old, New ChildInfo
}

// ChildPassed tells that a Child SA belongs to SA now, and no longer to an older IKE SA
// with the same peer: in IKEv1 they outlive the ISAKMP SA that they were made under.
type ChildPassed struct {
	SA    SAInfo
	Child ChildInfo
}

// Addressed tells that the peer was given virtual addresses after its IKE SA was up,
// as IKEv1 has it.
type Addressed struct{ SA SAInfo }

// Moved tells that the peer's or our address changed (NAT rebinding).
type Moved struct {
	SA            SAInfo
	OldLocal, Old netip.AddrPort // ours and the peer's before
}

// Message tells of one IKE message sent or received, decrypted headers only.
type Message struct {
	SAKey
	Out           bool
	Local, Remote netip.AddrPort
	Bytes         int
	Summary       string // as wire's summary: exchange, message ID, payload names
	Retransmit    int    // 0: first sending
	Exchange      wire.ExchangeType
	Response      bool
	// Whole is set once a message: for that of its fragments with which it is complete
	// (RFC 7383), and for a message in one piece. Messages are counted by it.
	Whole bool
}

// Note is a remark worth a log line that belongs to an SA (a peer's quirk, a retry, a collision).
type Note struct {
	SAKey
	Level int // 1 for operators, 2 for detail
	Text  string
}

// CommandDone ends a Command that had an ID. Err is nil, or says what an operator
// can act on; it is a *Rejection where a negotiation failed.
type CommandDone struct {
	ID CommandID
	// Matched counts what a Terminate or Rekey applied to.
	Matched int
	Err     error
}

// ShutdownDone ends Shutdown.
type ShutdownDone struct{}

// Dropped counts datagrams that were refused before any state was made or
// changed, by reason; emitted in bulk (at most once a second a reason).
type Dropped struct {
	Reason DropReason
	Count  uint64
	Last   netip.AddrPort
}

// Bug tells that an invariant failed in one SA, which was dropped.
type Bug struct {
	SAKey
	Value string
	Stack []byte
}

func (IKEUp) event()        {}
func (IKEDown) event()      {}
func (IKERekeyed) event()   {}
func (ChildUp) event()      {}
func (ChildDown) event()    {}
func (ChildRekeyed) event() {}
func (ChildPassed) event()  {}
func (Addressed) event()    {}
func (Moved) event()        {}
func (Message) event()      {}
func (Note) event()         {}
func (CommandDone) event()  {}
func (ShutdownDone) event() {}
func (Dropped) event()      {}
func (Bug) event()          {}
func (*Rejection) event()   {}

// SAInfo is the state of an IKE SA at one moment, without secrets.
type SAInfo struct {
	Name string
	ID   uint32
	// Instance stays the same when a rekey replaces the IKE SA, and no other IKE SA of
	// this gateway has it: scripts and records can follow a peer by it.
	Instance                     uint64
	Version                      uint8
	State                        string // CREATED CONNECTING ESTABLISHED REKEYING REKEYED DELETING, as VICI prints them
	Initiator                    bool
	SPIi, SPIr                   uint64
	Local, Remote                netip.AddrPort
	LocalID, RemoteID            Identity
	NATLocal, NATRemote, NATFake bool // a NAT before us, before the peer; a NAT that we pretend
	Encap                        bool
	Suite                        suite.Selected
	Established                  time.Time
	RekeyAt, ReauthAt            time.Time    // zero: never
	PeerVendor                   string       // what its vendor IDs tell
	PPK                          bool         // a post-quantum preshared key is in the keys (RFC 8784)
	RemoteEAPID                  string       // the identity inside EAP, empty: none
	LocalVIPs, RemoteVIPs        []netip.Addr // that we were given, that we gave
	Children                     []ChildInfo
	Tasks                        []string // exchanges of ours under way
	TasksQueued, TasksPassive    []string // those that wait, and the peer's that we take part in
}

// ChildInfo is the state of a Child SA at one moment.
type ChildInfo struct {
	Name              string
	ID                uint32
	ReqID             uint32
	State             string // INSTALLING INSTALLED REKEYING REKEYED DELETING
	Mode              ipsec.Mode
	Encap             bool
	SPIIn, SPIOut     ipsec.SPI
	Suite             suite.Selected
	LocalTS, RemoteTS []ipsec.Selector
	Installed         time.Time
	RekeyAt, ExpireAt time.Time
	IfID              uint32
	// Updown and HostAccess are those of the configuration that the Child SA was made from.
	Updown     string
	HostAccess bool
	// PerCPU: it is one of several that serve a resource each (RFC 9611); Resource is
	// 1 + its number, 0: the one for all.
	PerCPU   bool
	Resource uint16
}
