package ike

import (
	"net/netip"
	"time"

	"adit/ipsec"
	"adit/suite"
)

// Datagram is one IKE message with the addresses that it travels between. Data
// holds the message itself: the non-ESP marker of port 4500 (RFC 3948 §2.2) is
// added and taken off by the driver. In a Send, Data must not be changed by
// anybody: it is what will be retransmitted.
type Datagram struct {
	Local, Remote netip.AddrPort
	Data          []byte
	// DSCP of the outer header, 0 to 63.
	DSCP uint8
}

// JobID names an outstanding Job of this Engine; never reused.
type JobID uint64

// CommandID is the caller's number for a command; CommandDone repeats it. 0: nobody listens.
type CommandID uint64

// Effect is something that the driver must do. Effects are ordered and the
// driver applies them in order: the inbound SA is installed before the response
// that lets the peer use it goes out, a Checkpoint before the Send that depends on it.
type Effect interface{ effect() }

// Send hands a datagram to the network.
type Send struct{ Datagram }

// InstallChild installs both SAs of a Child SA, inbound first, and makes the host
// ready for its policies (routes, guard). Policies already name the outbound SA;
// they are added only if Activate is set, otherwise by a later ActivateChild: a
// responder's after its answer, which outbound packets must not overtake, and at
// a rekey after the peer's proof. The driver answers with Result{Job, Err}; when it fails nothing stays
// installed and the engine tells the peer.
type InstallChild struct {
	Job      JobID
	In, Out  ipsec.SAParams
	Policies []ipsec.Policy
	Activate bool
}

// ActivateChild makes the policies (same IDs as before at a rekey) point to a new outbound SA.
type ActivateChild struct{ Policies []ipsec.Policy }

// RemoveChild removes the SAs, and the policies named. Policies that a
// replacement took over are not named. The driver undoes routes and guard
// entries of vanished policies by its own rules (the guard of a trap or start
// connection stays).
type RemoveChild struct {
	Child    uint32
	Policies []ipsec.PolicyID
}

// UpdateChild moves the SAs of a Child SA to other endpoints.
type UpdateChild struct {
	Child  uint32
	Update ipsec.SAUpdate
}

// QueryChild asks for the counters of a Child SA; answered at once by
// Result{Job, Value: ChildStats}. Used before DPD and for `inactivity`.
type QueryChild struct {
	Job   JobID
	Child uint32
}

// ChildStats is the answer to QueryChild.
type ChildStats struct{ In, Out ipsec.SAStats }

// Compute is a pure and expensive computation (anything over about 200 µs). The
// driver runs it elsewhere, or at once in a simulation, and answers with
// Result{Job, Value: what Run returned}. Kind names it in traces.
type Compute struct {
	Job  JobID
	Kind string
	Run  func() any
}

// Ask is a question to the outside world that may hang. The driver answers by
// Result{Job, Value, Err}; after Deadline the engine goes on without.
type Ask struct {
	Job      JobID
	Deadline time.Time
	Question Question
}

// Question is one of the types below.
type Question interface{ question() }

// PSKLookup asks for the shared keys that fit these identities and addresses,
// best first. Value: []suite.Key (empty: none; the engine then calculates with a
// random key, so that the peer cannot tell an unknown identity from a wrong key).
type PSKLookup struct {
	Peer              *Peer
	LocalID, RemoteID Identity
	Local, Remote     netip.Addr
}

// PPKLookup asks for a post-quantum preshared key by its identity (RFC 8784, RFC 9867). Value:
// suite.Key, empty: there is none.
type PPKLookup struct{ ID string }

// Resolve asks for the addresses of host names, in the resolver's order. Value: []netip.Addr.
type Resolve struct{ Hosts []string }

// SourceAddress asks which local address the host would use towards Remote.
// Value: netip.Addr (invalid: no route).
type SourceAddress struct{ Remote netip.Addr }

// Emit publishes a typed fact.
type Emit struct{ Event Event }

// ExportKeys carries keys for Wireshark. It is produced only if Config.UnsafeExportKeys is set.
type ExportKeys struct {
	IKE   *IKEKeys // one of the two
	Child *ChildKeys
}

// IKEKeys are the keys of one IKE SA as tshark's ikev2_decryption_table wants them.
type IKEKeys struct {
	SPIi, SPIr             uint64
	Encr, Integ            suite.Transform
	SKei, SKer, SKai, SKar suite.Key
}

// ChildKeys are the keys of one unidirectional ESP SA as tshark's esp_sa table wants them.
type ChildKeys struct {
	Src, Dst         netip.Addr
	SPI              ipsec.SPI
	Encr, Integ      suite.Transform
	EncKey, IntegKey suite.Key
	ESN              bool
}

func (Send) effect()          {}
func (InstallChild) effect()  {}
func (ActivateChild) effect() {}
func (RemoveChild) effect()   {}
func (UpdateChild) effect()   {}
func (QueryChild) effect()    {}
func (Compute) effect()       {}
func (Ask) effect()           {}
func (Emit) effect()          {}
func (ExportKeys) effect()    {}

func (PSKLookup) question()     {}
func (PPKLookup) question()     {}
func (Resolve) question()       {}
func (SourceAddress) question() {}

// Result ends a Job. Results for SAs that died meanwhile are dropped by ID.
type Result struct {
	Job   JobID
	Value any
	Err   error
}

// Command is what an operator, the configuration or the lifecycle asks of the engine.
type Command interface{ command() }

// Initiate brings a Child SA up, with its IKE SA if there is none. With Child
// empty only the IKE SA. Initiations of one connection coalesce. Acquired tells
// that a data-plane Acquire caused it, with the packet's selectors, which go
// first into TSi and TSr (RFC 7296 §2.9).
type Initiate struct {
	ID       CommandID
	Peer     *Peer
	Child    string
	Acquired *ipsec.Acquire
}

// Terminate closes SAs: those that match every field that is set. Force gives
// up waiting for the peer after the first Delete.
type Terminate struct {
	ID      CommandID
	IKE     string // connection name
	Child   string // child name
	IKEID   uint32 // unique number as listed, 0: any
	ChildID uint32
	Force   bool
	// Reason is why, if not because an operator wants it: then what keeps the
	// connection up is not told to stop. It is for IKE SAs alone.
	Reason string
}

// Rekey replaces SAs: those that match every field that is set. Reauth makes a
// new IKE SA with authentication instead.
type Rekey struct {
	ID      CommandID
	IKE     string
	Child   string
	IKEID   uint32
	ChildID uint32
	Reauth  bool
}

// Reload swaps the PAD. Established SAs keep the configuration that they were
// made with until they are rekeyed or closed; what to close is the caller's decision.
// Changed are those that came, went (nil) or changed, by name; nil: find out.
type Reload struct {
	Peers   []*Peer
	Changed map[string]*Peer
}

// Shutdown sends Deletes for every IKE SA and refuses everything new. The engine
// emits ShutdownDone when all are gone or Grace has passed.
type Shutdown struct{ Grace time.Duration }

func (Initiate) command()  {}
func (Terminate) command() {}
func (Rekey) command()     {}
func (Reload) command()    {}
func (Shutdown) command()  {}

// Config are the engine's own settings; the zero value of a field means its default.
type Config struct {
	Node, Shard uint8 // labels in the high bits of our IKE SPIs
	Peers       []*Peer
	Retransmit  Retransmit
	// HalfOpenTimeout closes IKE SAs that are not established by then (30 s).
	HalfOpenTimeout time.Duration
	// CookieThreshold is the number of half-open IKE SAs from which cookies are
	// demanded (30, strongSwan 6); CookieThresholdIP the same a source address (3).
	CookieThreshold, CookieThresholdIP int
	// BlockThreshold refuses more half-open IKE SAs from one address (5), InitLimit of all (0: named limit).
	BlockThreshold, InitLimit int
	// FragmentSize is the greatest IP packet that an IKE message makes, bytes (1280);
	// MaxPacket bounds what is reassembled (10,000), RFC 7383.
	FragmentSize, MaxPacket int
	// NoSignatureAuth leaves RFC 7427 out (`signature_authentication = no`).
	NoSignatureAuth bool
	// FullTranscript announces that AUTH may cover both messages of IKE_SA_INIT, which
	// catches who changes them (`full_transcript_auth = yes`).
	FullTranscript bool
	// FragmentSize4 and FragmentSize6 take FragmentSize's place for one family; 0: they don't.
	FragmentSize4, FragmentSize6 int
	// Habits are what strongswan.conf can change of how the peers are spoken to.
	Habits
	// KeepAlive is the interval of NAT keepalives (20 s); negative: none.
	KeepAlive time.Duration
	// DeleteRekeyedDelay keeps a replaced inbound SA for packets on the way (5 s).
	DeleteRekeyedDelay time.Duration
	// RetryInitiate waits before a connection that failed is tried again where keyingtries or a start action say so (0: back-off from 1 s to 60 s with jitter).
	RetryInitiate time.Duration
	// ForceEncap is set where the data plane prefers ESP in UDP: `encap = auto` then
	// forces it through the NAT detection hash.
	ForceEncap bool
	// BreakBeforeMake reauthenticates by closing the old IKE SA first; the default makes the new one first.
	BreakBeforeMake  bool
	UnsafeExportKeys bool
	// Workers is the number of the data plane's threads, which SPIs name by their
	// remainder: as many resources Child SAs can be made for (RFC 9611). 0 is 1.
	Workers int
	// CrashSecret makes the tokens of crash detection (RFC 6290 §5.1). It must outlive
	// restarts, and no other gateway may have it; empty: no tokens are made.
	CrashSecret suite.Key
	// TicketSecret makes the keys of session tickets (RFC 5723); it should outlive
	// restarts, and gateways that share it take each other's. Empty: none are given.
	TicketSecret suite.Key
	// Port and NATPort are our own UDP ports (500, 4500).
	Port, NATPort uint16
}

// Habits are switches of strongswan.conf; the zero value is what strongSwan does.
type Habits struct {
	// SendVendorID and FlexVPN put strongSwan's and Cisco FlexVPN's vendor IDs into IKE_SA_INIT.
	SendVendorID, FlexVPN bool
	// NoMultipleAuth neither announces nor uses several rounds of authentication (RFC 4739).
	NoMultipleAuth bool
	// AggressivePSK answers aggressive mode with a shared key, IKEv1 only.
	AggressivePSK bool
	// InitiatorOnly drops the first messages of others.
	InitiatorOnly bool
	// CloseOnChildFailure closes an IKE SA whose first Child SA failed, CloseOnInactivity
	// one whose only Child SA carried nothing for the time of `inactivity`.
	CloseOnChildFailure, CloseOnInactivity bool
	// KeepAliveDPDMargin is how much later than it was due a keepalive may be before the
	// peer is asked whether it lives, in its place: the host slept. 0: never.
	KeepAliveDPDMargin time.Duration
	// ResumeSessions asks for session tickets as initiator, and gives them as responder
	// (RFC 5723) if there is a Config.TicketSecret.
	ResumeSessions bool
	// NoCrashDetection leaves RFC 6290 out.
	NoCrashDetection bool
	// NoRedirects neither announces REDIRECT_SUPPORTED nor follows REDIRECT (RFC 5685).
	NoRedirects bool
	// RedirectTo is where new clients are sent that announce REDIRECT_SUPPORTED; zero: nowhere.
	RedirectTo RedirectTarget
	// IgnoreAcquire leaves the packet that asked for a Child SA out of its selectors.
	IgnoreAcquire bool
	// SPIMin and SPIMax bound the SPIs of our inbound ESP SAs; 0: no bound.
	SPIMin, SPIMax ipsec.SPI
	// MaxSAs refuses first messages of others while there are so many IKE SAs; 0: named limit.
	MaxSAs int
}

// Retransmit is the schedule of RFC 7296 §2.1 in strongSwan's terms: wait
// Timeout × Base^n before the n-th repetition, at most Limit (0: no bound), up to
// Tries repetitions; Jitter is a percentage taken off at random.
type Retransmit struct {
	Timeout time.Duration // 4 s
	Base    float64       // 1.8
	Tries   int           // 5
	Limit   time.Duration
	Jitter  int
}
