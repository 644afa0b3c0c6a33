package ike

import (
	"errors"
	"time"

	"adit/ike/wire"
	"adit/suite"

	"net/netip"
)

// AuthMethod is how one side proves its identity in one round.
type AuthMethod uint8

// The methods. AuthAny is for the remote side only: whatever it brings.
const (
	AuthPSK AuthMethod = iota
	AuthPubkey
	AuthEAP
	AuthAny
	// AuthXAuth is name and password after phase 1 of IKEv1.
	AuthXAuth
)

// String prints the class as strongSwan's list-conns does.
func (m AuthMethod) String() string {
	switch m {
	case AuthPSK:
		return "pre-shared key"
	case AuthPubkey:
		return "public key"
	case AuthEAP:
		return "EAP"
	case AuthAny:
		return "any"
	case AuthXAuth:
		return "XAuth"
	}
	return "unknown"
}

// AuthRound is one authentication of one side: how we prove ourselves (local), or
// what the peer's proof must fulfil (remote).
type AuthRound struct {
	Name   string // section name, for errors and list-conns
	Method AuthMethod
	// ID is the identity: ours, or the pattern that the peer's must match. The zero
	// Identity stands for the endpoint's address (local) or %any (remote).
	ID Identity

	// Constraints are the words after the method in `auth`, of key types, strengths
	// and signature schemes ("rsa-2048-sha256", "ike:rsa/pss-sha384"), as suite/sig reads them.
	Constraints []string
	// Certs are, locally, the certificates to choose from; of the remote side, the
	// end-entity certificates that are accepted (empty: any that verifies). DER.
	Certs [][]byte
	// Pubkeys are raw public keys, SubjectPublicKeyInfo in DER, to the same ends.
	Pubkeys [][]byte
	// CACerts are the authorities of which one must be in the peer's chain. DER.
	CACerts [][]byte
	// CAID is an identity that one of the authorities in the peer's chain must have; zero: any.
	CAID Identity
	// CertPolicies are policy OIDs, dotted, of which the chain must carry one.
	CertPolicies []string
	Revocation   RevocationPolicy
	// Groups are those of which the peer must be in one (EAP by RADIUS: its Class).
	Groups []string

	// EAP is what `auth = eap-…` names; EAPID is the identity inside EAP: our own, or
	// the pattern for the peer's. The zero EAPID: as ID; EAPAsk: the peer is asked for
	// it (`eap_id = %any`). AAAID is what the EAP server's certificate must show (zero: as the gateway's identity).
	EAP    EAPMethod
	EAPID  Identity
	EAPAsk bool
	AAAID  Identity

	// Given are the options above that were written down, in their order, with the backend of
	// XAuth ("xauth-…") before auth: for lists alone, two rounds are the same without it.
	Given []string
}

// EAPMethod says which EAP method a round wants.
type EAPMethod string

// The methods by their names in `auth`; EAPAny is plain `eap`.
const (
	EAPAny      EAPMethod = ""
	EAPIdentity EAPMethod = "identity"
	EAPMD5      EAPMethod = "md5"
	EAPGTC      EAPMethod = "gtc"
	EAPTLS      EAPMethod = "tls"
	EAPTTLS     EAPMethod = "ttls"
	EAPMSCHAPv2 EAPMethod = "mschapv2"
	EAPDynamic  EAPMethod = "dynamic" // as responder: offer all that are known in turn
	EAPRadius   EAPMethod = "radius"  // as responder: the RADIUS server does it
)

// RevocationPolicy is `revocation`: what an unknown revocation status means.
type RevocationPolicy uint8

// Values; relaxed is the default: only a known revocation fails.
const (
	RevocationRelaxed RevocationPolicy = iota
	RevocationIfURI
	RevocationStrict
)

// SendPolicy is `send_cert`.
type SendPolicy uint8

// Values; ifasked is the default.
const (
	SendIfAsked SendPolicy = iota
	SendAlways
	SendNever
)

// FragmentPolicy is `fragmentation`.
type FragmentPolicy uint8

// Values; yes is the default. Accept announces support but sends none; force does
// as yes in IKEv2.
const (
	FragmentYes FragmentPolicy = iota
	FragmentAccept
	FragmentForce
	FragmentNo
)

// ChildlessPolicy is `childless` (RFC 6023).
type ChildlessPolicy uint8

// Values; allow is the default.
const (
	ChildlessAllow ChildlessPolicy = iota
	ChildlessPrefer
	ChildlessForce
	ChildlessNever
)

// PPKIntermediate is `ppk_intermediate` (RFC 9867).
type PPKIntermediate uint8

// Values; prefer is the default.
const (
	PPKIntermediatePrefer PPKIntermediate = iota
	PPKIntermediateRequire
	PPKIntermediateOff
)

// CertPayload is what one CERT payload carries (RFC 7296 §3.6).
type CertPayload struct {
	Encoding wire.CertEncoding
	Data     []byte
}

// AuthAnnouncement is one method that a peer announced with SUPPORTED_AUTH_METHODS (RFC 9593 §3).
type AuthAnnouncement struct {
	Method wire.AuthMethod
	// CertLink points to the authority in its CERTREQ, 1 based, 0: any or none. With
	// method 14, Algorithm is an AlgorithmIdentifier in DER; empty: any.
	CertLink  uint8
	Algorithm []byte
}

// SignAuth asks for our own signature of one round (RFC 7296 §2.15, RFC 7427).
// Value: *Signature. Err: an operator can act on it (no key, no common scheme).
type SignAuth struct {
	Peer  *Peer
	Round int // index into Peer.Local
	ID    Identity
	// Octets are InitiatorSignedOctets or ResponderSignedOctets.
	Octets []byte
	// Hashes are those of the peer's SIGNATURE_HASH_ALGORITHMS; nil: it does not
	// know RFC 7427 and gets one of the fixed methods.
	Hashes []uint16
	// Announced are the peer's SUPPORTED_AUTH_METHODS; nil: it sent none.
	Announced []AuthAnnouncement
	// V1 is the method of IKEv1 that was agreed on, 0: this is IKEv2. Octets are then
	// HASH_I or HASH_R, which is signed as it is (RFC 2409 §5.1), and Authorities are
	// empty; RequestedNames are those of CERTREQ in IKEv1, as DER.
	V1             wire.V1Auth
	RequestedNames [][]byte
	// Requested tells that a CERTREQ came, Authorities the key hashes in it, 20 bytes each.
	Requested   bool
	Authorities []byte
}

// SignerKinds asks with which authentication methods of IKEv1 we can sign, where the
// method is agreed on before anybody signs (RFC 2409 §5). Value: []wire.V1Auth, the
// best first.
type SignerKinds struct {
	Peer  *Peer
	Round int
	ID    Identity
}

// XAuth asks about a name and password of IKEv1's XAUTH: as client for the password of
// User, as Server whether Password is right. Value: *XAuthAnswer.
type XAuth struct {
	Server   bool
	SA       uint64 // the IKE SA's Instance (SAInfo)
	Peer     *Peer
	Round    int // index into Peer.Local, or as Server into Peer.Remote
	User     string
	Password suite.Key
	Local    netip.AddrPort
	Remote   netip.AddrPort
}

// XAuthAnswer is the answer to XAuth.
type XAuthAnswer struct {
	Password suite.Key // for the client
	Success  bool      // for the server; Why is for the local log only
	Why      string
	// What a RADIUS server tells of a user whom it lets in: the Class attributes, how long
	// the session may last (0: as long as it likes) and what it calls the user.
	Groups   []string
	Lifetime time.Duration
	Identity string
}

// Signature is the answer to SignAuth. Certs are the CERT payloads to send, the end
// entity first; none where send_cert says so.
type Signature struct {
	Method wire.AuthMethod
	Data   []byte
	Certs  []CertPayload
}

// VerifyAuth asks whether a peer's signature is good, and which of several
// connections its certificates satisfy. Value: *Verdict. Err, a *Rejection or an
// error for the local log: the signature is bad, or there is no trusted key for ID.
type VerifyAuth struct {
	SA    uint64 // the Instance of its IKE SA
	Peers []*Peer
	Round int // index into each Peer.Remote
	ID    Identity
	Certs []CertPayload // as they came
	// Method, Data and Octets are of the AUTH payload.
	Method wire.AuthMethod
	Data   []byte
	Octets []byte
	// V1 is the method of IKEv1, as in SignAuth; then Method is of no meaning.
	V1 wire.V1Auth
}

// Verdict is the answer to VerifyAuth, index by index of its Peers: Why is empty
// where the constraints are fulfilled. Details tells apart the cases of Why; nil: nobody does.
type Verdict struct {
	Why     []string
	Details []Detail
	// Subject is whose key it was, Scheme how it signed, for logs.
	Subject, Scheme string
	Signer          []byte // its certificate in DER, nil: a raw key
}

// StillTrusted asks whether the peer of a ticket that is good would be let in today as
// it was then: its certificates may be revoked, its shared key may be gone. No Value;
// Err, a *Rejection or an error for the local log: it would not.
type StillTrusted struct {
	SA                uint64 // the Instance of its IKE SA
	Peer              *Peer
	LocalID, RemoteID Identity
	Local, Remote     netip.Addr
	Rounds            []ProvedRound // one for each of Peer.Remote
}

// ProvedRound is how a peer proved itself in one round.
type ProvedRound struct {
	Method AuthMethod
	ID     Identity
	Certs  [][]byte // DER, its own first; none: a shared key, or a raw public key
}

// EAPRound carries one EAP packet to the local EAP machine of a session, or to a
// RADIUS server. Value: *EAPAnswer.
type EAPRound struct {
	// Session names the conversation; EndEAP ends it whatever became of it. SA is the
	// Instance of its IKE SA.
	Session, SA uint64
	// Server: we are the authenticator; Round is then an index into Peer.Remote,
	// otherwise into Peer.Local.
	Server            bool
	Peer              *Peer
	Round             int
	LocalID, RemoteID Identity
	Local, Remote     netip.AddrPort
	// Message is the peer's packet; nil begins as authenticator. Where the identity
	// that the peer tells chooses another connection, its rules have a session of
	// their own, which is told the identity at once.
	Message []byte
	// MutualOnly: nothing else proves the responder, so only methods that prove both
	// sides and make a key may run (RFC 5998 §4).
	MutualOnly bool
}

// EAPAnswer is the answer to EAPRound. Done ends the conversation; then Message is
// still to be sent where there is one (an authenticator's Success or Failure).
type EAPAnswer struct {
	Message       []byte
	Done, Success bool
	// MSK is the shared key of the methods that make one, nil otherwise (RFC 7296 §2.16).
	MSK suite.Key
	// Mutual tells that the method proved the server as well, as EAP-only needs (RFC 5998 §4).
	Mutual   bool
	Method   string // "EAP_MSCHAPV2", for logs
	Identity string // the authenticated one; of a failure: the claimed one, printable
	Groups   []string
	// Lifetime is the AAA server's limit to the session, 0: none.
	Lifetime time.Duration
	// Why is the full reason of a failure, for the local log only, Detail its case.
	// Without Done the failure is certain and its last word on the way to the peer.
	Why    string
	Detail Detail
}

// EndEAP forgets an EAP conversation and zeroes its keys.
type EndEAP struct{ Session uint64 }

// LeaseAddresses asks for what a peer's CFG_REQUEST wants (RFC 7296 §2.19). Value:
// *Lease. It is held until ReleaseLease, through rekeys of the IKE SA.
type LeaseAddresses struct {
	Lease uint64 // names it
	Peer  *Peer
	// ID is the authenticated identity: of EAP if there was one, else IDi.
	ID      string
	Remote  netip.AddrPort
	Request []wire.Attribute
	// Instead are the leases of older IKE SAs of the same peer that go when this one is
	// up: their addresses are the peer's again.
	Instead []uint64
}

// Lease is the answer to LeaseAddresses.
type Lease struct {
	Addrs      []netip.Addr
	Attributes []wire.Attribute // DNS servers, subnets, domains; not the addresses
}

// WhyNoAddress tells from the Err of LeaseAddresses what was missing: the pool is used up,
// unless a *Rejection says something else.
func WhyNoAddress(err error) (Detail, string) {
	var r *Rejection
	if errors.As(err, &r) {
		return r.Detail, r.Difference
	}
	return DetailPool, err.Error()
}

// ReleaseLease gives the addresses of a lease back.
type ReleaseLease struct{ Lease uint64 }

// AssumeAddresses has the host take the addresses and settings that the peer gave
// us in its CFG_REPLY. Value: nil. UndoAddresses takes them back.
type AssumeAddresses struct {
	Lease      uint64
	Peer       *Peer
	Addrs      []netip.Addr
	Attributes []wire.Attribute
}

// UndoAddresses takes back what AssumeAddresses made.
type UndoAddresses struct{ Lease uint64 }

// Trust tells the engine which authorities our CERTREQ payloads name: SHA-1
// hashes of their SubjectPublicKeyInfo (RFC 7296 §3.7), in their order.
// Names are their names, DER: what IKEv1 has in these payloads (RFC 2408 §3.10).
type Trust struct {
	Authorities [][20]byte
	Names       [][]byte
}

func (EndEAP) effect()        {}
func (ReleaseLease) effect()  {}
func (UndoAddresses) effect() {}

func (SignAuth) question()        {}
func (SignerKinds) question()     {}
func (XAuth) question()           {}
func (StillTrusted) question()    {}
func (VerifyAuth) question()      {}
func (EAPRound) question()        {}
func (LeaseAddresses) question()  {}
func (AssumeAddresses) question() {}

func (Trust) command() {}
