package ike

import (
	"net/netip"
	"time"

	"adit/ipsec"
	"adit/suite"
)

// Peer is one entry of the PAD (RFC 4301 §4.4.3): who may authenticate how, and
// which Child SAs it may have. strongSwan calls it a connection. A Peer is
// immutable once it was given to an engine; a reload gives a new one.
type Peer struct {
	Name    string
	Version uint8 // 2, 1, or 0: initiate IKEv2 and accept both

	// LocalAddrs and RemoteAddrs match a peer's first message and give the
	// addresses to initiate to, in order. Empty means %any.
	LocalAddrs, RemoteAddrs []AddrSpec
	LocalPort, RemotePort   uint16 // 500 by default

	Proposals []suite.Proposal
	// PreferPeer selects by the peer's order of proposals (`charon.prefer_configured_proposals = no`).
	PreferPeer bool

	Local, Remote []AuthRound // at least one each, in order of their rounds (RFC 4739)

	// SendCert says when our certificates are sent, SendCertReq whether the peer is
	// told which authorities we trust.
	SendCert    SendPolicy
	SendCertReq bool
	// AskOCSP asks the peer to send the status of its certificates along (RFC 4806).
	AskOCSP bool
	// Fragmentation of IKE messages (RFC 7383), Childless set-ups (RFC 6023).
	Fragmentation FragmentPolicy
	Childless     ChildlessPolicy
	// MOBIKE lets both ends move the IKE SA to other addresses (RFC 4555).
	MOBIKE bool
	// PPKID names the post-quantum preshared key that we use as initiator, and the only
	// one that we take as responder; empty: none, and any. PPKRequired refuses to be up
	// without one (RFC 8784).
	PPKID       string
	PPKRequired bool
	// PPKIntermediate says whether PPKs go into the keys before IKE_AUTH and again in
	// CREATE_CHILD_SA (RFC 9867), or as RFC 8784 has it.
	PPKIntermediate PPKIntermediate
	// VIPs are the addresses that we ask the peer for (unspecified ones: any of that
	// family), Pools the names of those that we give addresses and attributes from.
	VIPs  []netip.Addr
	Pools []string

	Children []*Child // ordered as configured

	// Redirect is where peers are sent once they are authenticated, if they announced
	// REDIRECT_SUPPORTED (RFC 5685 §6); zero: nowhere.
	Redirect RedirectTarget

	Unique      UniquePolicy
	Encap       EncapPolicy
	KeyingTries int // initiations before giving up; 0: for ever. strongSwan's default is 1
	// GiveUp ends start actions after KeyingTries too: it was given. Otherwise what is
	// to be up is tried again with back-off until it is.
	GiveUp bool
	// Lifetimes; 0 is never. RandTime is the span randomly taken off RekeyTime and
	// ReauthTime; OverTime is how long after either the IKE SA is closed hard.
	RekeyTime, ReauthTime, OverTime, RandTime time.Duration
	DPDDelay                                  time.Duration // 0: no active checks
	DPDTimeout                                time.Duration // IKEv1 only
	DSCP                                      uint8         // of IKE packets, 0 to 63
	Aggressive                                bool          // IKEv1 only
	Push                                      bool          // IKEv1 only: Mode Config is pushed (`pull = no`)

	// Warnings that the configuration gave, for logs (weak algorithms …).
	Warnings []string
}

// Child returns the child of that name, nil if there is none.
func (p *Peer) Child(name string) *Child {
	for _, c := range p.Children {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// keepsUp reports whether the child is to be tried again until it is up.
func (p *Peer) keepsUp(c *Child) bool { return c.KeepUp || c.StartAction&ActionStart != 0 && !p.GiveUp }

// Starts reports whether loading the child starts it.
func (c *Child) Starts() bool {
	return c.Action == ipsec.Protect && (c.KeepUp || c.StartAction&ActionStart != 0)
}

// OnlyShunts reports whether the connection has nothing to negotiate: all that it
// has are bypass and discard policies. It may then have no authentication either,
// and is not for an engine.
func (p *Peer) OnlyShunts() bool {
	for _, c := range p.Children {
		if c.Action == ipsec.Protect {
			return false
		}
	}
	return len(p.Children) > 0
}

// AddrSpec is one element of local_addrs or remote_addrs: any address, a range, or a host name.
type AddrSpec struct {
	Any      bool
	From, To netip.Addr // valid for an address (From == To), prefix or range
	Host     string     // to be resolved, anew after each failure
	Word     string     // of all addresses of a family: how it was written, for lists
}

// UniquePolicy is `unique`: what happens with a second IKE SA of one identity.
type UniquePolicy uint8

// Values; no is the default: only INITIAL_CONTACT of the peer replaces.
const (
	UniqueNo UniquePolicy = iota
	UniqueNever
	UniqueReplace
	UniqueKeep
)

// EncapPolicy is `encap`: when ESP is sent in UDP (RFC 3948).
type EncapPolicy uint8

// Values; see docs of `encap` in this project: auto forces UDP where the data plane prefers it.
const (
	EncapAuto EncapPolicy = iota
	EncapYes
	EncapNo
)

// StartAction says what happens when a configuration is loaded, or when a Child SA is lost or closed.
type StartAction uint8

// Bits: `trap|start` has both.
const (
	ActionNone  StartAction = 0
	ActionTrap  StartAction = 1
	ActionStart StartAction = 2
)

// Child is the template of Child SAs: selectors, mode, proposals and actions.
type Child struct {
	Name          string
	Local, Remote []ipsec.Selector // Dynamic ones are resolved to the endpoint's address
	Action        ipsec.Action     // Protect; Bypass and Discard are shunt policies (mode = pass|drop) that only the driver uses
	Mode          ipsec.Mode
	Proposals     []suite.Proposal
	PreferPeer    bool

	// Updown is the script that is run when the Child SA comes up or goes, HostAccess
	// tells it that the gateway itself may use the tunnel.
	Updown     string
	HostAccess bool

	// KeepUp has the Child SA started and brought back, after whatever took it down but
	// an operator.
	KeepUp      bool
	StartAction StartAction
	CloseAction StartAction // on a Delete by the peer
	DPDAction   StartAction // when the peer is dead: ActionNone clears, Trap, Start restarts

	// Soft and hard lifetimes; the Rand value is the span randomly taken off the soft one. 0 is none.
	RekeyTime, LifeTime, RandTime          time.Duration
	RekeyBytes, LifeBytes, RandBytes       uint64
	RekeyPackets, LifePackets, RandPackets uint64
	Inactivity                             time.Duration

	ReqID    uint32 // 0: allocated
	IfID     uint32
	Priority uint32 // 0: by the selectors' width
	// SHA256_96 cuts HMAC-SHA-256 to 96 bits, as peers do that don't know RFC 4868.
	SHA256_96    bool
	ReplayWindow uint32 // packets; 4096 by default
	TFC          int    // see ipsec.SAParams
	DF           ipsec.DFMode
	CopyECN      bool
	CopyDSCP     ipsec.DSCPCopy
	MSSClamp     bool
	Policies     bool // install policies
	// PerCPU has a Child SA made for each resource beside the one for all (RFC 9611).
	PerCPU PerCPU
}

// PerCPU says whether there is a Child SA for each worker.
type PerCPU uint8

// The values of per_cpu_sas. With PerCPUEncap those that send ESP in UDP do so from
// source ports of their own.
const (
	PerCPUNo PerCPU = iota
	PerCPUYes
	PerCPUEncap
)
