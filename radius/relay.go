package radius

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Errors of a Relay.
var (
	ErrPeerEAP      = errors.New("radius: the peer's EAP packet is no well-formed response")
	ErrServerEAP    = errors.New("radius: the server's EAP packet is no well-formed request")
	ErrNoIdentity   = errors.New("radius: the peer gave no identity that fits in User-Name")
	ErrRounds       = errors.New("radius: EAP conversation too long")
	ErrDone         = errors.New("radius: EAP conversation is over")
	ErrState        = errors.New("radius: Access-Challenge with several State attributes")
	ErrRejected     = errors.New("radius: Access-Reject")
	ErrEarlyAccept  = errors.New("radius: Access-Accept before any challenge")
	ErrContradicted = errors.New("radius: Access-Accept whose EAP packet is not EAP-Success (RFC 3579 §2.6.3)")
)

// EAP codes and the one type that a relay looks into (RFC 3748 §4, §5.1).
const (
	eapRequest      = 1
	eapResponse     = 2
	eapSuccess      = 3
	eapFailure      = 4
	eapTypeIdentity = 1
)

// DefaultFramedMTU is the Framed-MTU of requests (RFC 3579 §2.4): EAP packets that
// servers cut to it fit, with all of IKE, UDP and IPv6 around them, through a
// path of 1280 octets.
const DefaultFramedMTU = 1100

// RelayConfig describes the conversation to the server. Strings and attributes that
// are empty are not sent.
type RelayConfig struct {
	Client *Client
	// Identity is the User-Name when the peer's EAP-Response/Identity is empty or the
	// conversation begins with EAP-Start.
	Identity         string
	CalledStationID  string     // our address, perhaps with the port
	CallingStationID string     // the peer's
	NASIdentifier    string     // instead of the server's configured one
	NASAddress       netip.Addr // NAS-IP-Address or NAS-IPv6-Address
	NASPort          uint32     // a number of the IKE SA; 0 is not sent
	NASPortID        string     // the connection's name
	SessionID        string     // Acct-Session-Id, to join with accounting later
	FramedMTU        uint32     // DefaultFramedMTU if 0
	Extra            []Attribute
}

// Relay carries one EAP conversation between a peer and a RADIUS server (RFC 3579
// §2). It is not safe for concurrent use.
type Relay struct {
	cfg      RelayConfig
	server   *Server // that answered first; its State means nothing to others
	state    []byte
	hasState bool
	identity string
	rounds   int
	lastID   uint8
	done     bool
}

// NewRelay makes a Relay for one conversation.
func NewRelay(cfg RelayConfig) *Relay {
	if cfg.FramedMTU == 0 {
		cfg.FramedMTU = DefaultFramedMTU
	}
	return &Relay{cfg: cfg}
}

// Step is what Relay.Next came to.
type Step struct {
	// Out is the EAP packet for the peer: a request while Done is false, else
	// EAP-Success or EAP-Failure. It is there whenever Next returned no error.
	Out  []byte
	Done bool
	// Success: the server accepted. Only then the fields from MSK on are all set.
	Success bool
	// Reason says, for the operator, why Done came without Success: ErrRejected,
	// ErrEarlyAccept, ErrContradicted, ErrServerEAP, ErrKeys or ErrState.
	Reason error
	// ReplyMessage is text from the server, also with a rejection (RFC 2865 §5.18).
	// It may hold anything; quote it.
	ReplyMessage []string

	// MSK has at least 64 octets, or is nil: then Keyless is true, and whether a
	// method without a key is good enough is the caller's decision. The caller owns
	// and clears it.
	MSK     Key
	Keyless bool
	// Identity is what the peer said; UserName what the server calls it (User-Name of
	// the Access-Accept), else the same.
	Identity, UserName string
	Class              [][]byte // for accounting and as groups (RFC 2865 §5.25)
	FilterID           []string
	Framed4, Framed6   netip.Addr     // address for the peer; invalid if none
	FramedPrefixes     []netip.Prefix // Framed-IPv6-Prefix
	FramedPool         string         // name of a pool (RFC 2869 §5.18)
	FramedIPv6Pool     string         // RFC 3162 §2.6
	SessionTimeout     time.Duration  // 0: none
	IdleTimeout        time.Duration  // 0: none
	InterimInterval    time.Duration  // Acct-Interim-Interval; 0: none
	Attributes         []Attribute    // all of the Access-Accept but the MS-MPPE keys, in order
	Server             string         // name of the server
}

// Next gives the peer's EAP packet to the server and returns what comes back. The
// first is the EAP-Response/Identity, or nothing at all for EAP-Start. An error means
// that there is no verdict (no server answered, the peer's packet is malformed): the
// authentication has failed without anything to tell the peer but EAP-Failure
// ([Relay.Failure]), and the conversation is over, unless it is ErrPeerEAP: that
// packet was dropped and nothing has happened.
func (r *Relay) Next(ctx context.Context, eap []byte) (Step, error) {
	if r.done {
		return Step{}, ErrDone
	}
	eap, err := r.checkPeer(eap)
	if err != nil {
		return Step{}, err
	}
	r.done = true // until a challenge says otherwise
	if r.rounds == MaxRounds {
		return Step{}, ErrRounds
	}
	if r.rounds == 0 {
		if err := r.takeIdentity(eap); err != nil {
			return Step{}, err
		}
	}
	r.rounds++
	resp, err := r.cfg.Client.Exchange(ctx, r.request(eap), r.server)
	if err != nil {
		return Step{}, err
	}
	r.server = resp.Server
	switch resp.Code {
	case AccessChallenge:
		return r.challenged(resp), nil
	case AccessAccept:
		return r.accepted(resp), nil
	}
	return r.failed(resp, ErrRejected), nil
}

// Failure returns an EAP-Failure that answers the peer's last packet.
func (r *Relay) Failure() []byte { return []byte{eapFailure, r.lastID, 0, 4} }

// checkPeer checks an EAP packet of the peer and cuts off what is beyond its length.
func (r *Relay) checkPeer(eap []byte) ([]byte, error) {
	if len(eap) == 0 && r.rounds == 0 {
		return nil, nil
	}
	if len(eap) < 5 || eap[0] != eapResponse {
		return nil, ErrPeerEAP
	}
	n := int(binary.BigEndian.Uint16(eap[2:]))
	if n < 5 || n > len(eap) || n > MaxEAP {
		return nil, ErrPeerEAP
	}
	r.lastID = eap[1]
	return eap[:n], nil
}

func (r *Relay) takeIdentity(eap []byte) error {
	r.identity = r.cfg.Identity
	if len(eap) > 5 && eap[4] == eapTypeIdentity {
		r.identity = string(eap[5:])
	}
	if r.identity == "" || len(r.identity) > MaxValue {
		return ErrNoIdentity
	}
	return nil
}

// request builds the Access-Request. RFC 3579 §2.1 wants the same User-Name in every
// one of a conversation.
func (r *Relay) request(eap []byte) *Packet {
	p := r.cfg.request(r.identity)
	if r.hasState {
		p.Add(TypeState, r.state)
	}
	p.AddEAP(eap)
	return p
}

// request is an Access-Request without what proves the user.
func (c *RelayConfig) request(user string) *Packet {
	p := &Packet{Code: AccessRequest}
	p.AddString(TypeUserName, user)
	if a := c.NASAddress.Unmap(); a.Is4() {
		p.Add(TypeNASIPAddress, a.AsSlice())
	} else if a.Is6() {
		p.Add(TypeNASIPv6Address, a.AsSlice())
	}
	p.AddUint32(TypeServiceType, ServiceTypeFramed)
	p.AddUint32(TypeNASPortType, NASPortTypeVirtual)
	if c.NASPort != 0 {
		p.AddUint32(TypeNASPort, c.NASPort)
	}
	p.AddUint32(TypeFramedMTU, c.FramedMTU)
	for _, t := range []struct {
		t Type
		s string
	}{
		{TypeNASIdentifier, c.NASIdentifier}, {TypeNASPortID, c.NASPortID}, {TypeAcctSessionID, c.SessionID},
		{TypeCalledStationID, c.CalledStationID}, {TypeCallingStationID, c.CallingStationID},
	} {
		if t.s != "" {
			p.AddString(t.t, t.s)
		}
	}
	p.Attributes = append(p.Attributes, c.Extra...)
	return p
}

// serverEAP returns the response's EAP packet if it is one, of exactly its length.
func serverEAP(resp *Response) (eap []byte, ok bool) {
	eap, found := resp.EAP()
	if !found || len(eap) < 4 || int(binary.BigEndian.Uint16(eap[2:])) != len(eap) {
		return nil, false
	}
	switch eap[0] {
	case eapRequest:
		return eap, len(eap) >= 5
	case eapSuccess, eapFailure:
		return eap, len(eap) == 4
	}
	return nil, false
}

// challenged handles an Access-Challenge. One that can't be gone on with counts as a
// rejection (RFC 2865 §4.4).
func (r *Relay) challenged(resp *Response) Step {
	eap, ok := serverEAP(resp)
	if !ok || eap[0] != eapRequest {
		return r.failed(resp, ErrServerEAP)
	}
	states := resp.All(TypeState)
	if len(states) > 1 {
		return r.failed(resp, ErrState)
	}
	r.state, r.hasState = nil, len(states) == 1
	if r.hasState {
		r.state = states[0]
	}
	r.done = false
	return Step{Out: eap, Server: resp.Server.Name(), ReplyMessage: texts(resp.All(TypeReplyMessage))}
}

// accepted handles an Access-Accept. The RADIUS code alone decides (RFC 3579 §2.6.3),
// with one exception: an EAP packet inside that isn't EAP-Success means that server
// and peer don't agree, and then nobody gets in. A missing one is made up for. An
// Access-Accept at once would let a peer in that has proved nothing; servers can be
// configured to do so.
func (r *Relay) accepted(resp *Response) Step {
	if r.rounds < 2 {
		return r.failed(resp, ErrEarlyAccept)
	}
	out := []byte{eapSuccess, r.lastID, 0, 4}
	if _, found := resp.EAP(); found {
		eap, ok := serverEAP(resp)
		if !ok || eap[0] != eapSuccess {
			return r.failed(resp, ErrContradicted)
		}
		out = eap
	}
	return r.granted(resp, out)
}

// granted is what an Access-Accept says, beside the EAP packet for the peer.
func (r *Relay) granted(resp *Response, out []byte) Step {
	msk, err := resp.MSK()
	if err != nil {
		return r.failed(resp, err)
	}
	s := Step{Out: out, Done: true, Success: true, MSK: msk, Keyless: msk == nil,
		Identity: r.identity, UserName: r.identity, Server: resp.Server.Name(),
		Class: resp.All(TypeClass), FilterID: texts(resp.All(TypeFilterID)),
		FramedPrefixes: resp.FramedPrefixes(), ReplyMessage: texts(resp.All(TypeReplyMessage))}
	s.Framed4, _ = resp.Framed4()
	s.Framed6, _ = resp.Framed6()
	if name, ok := resp.Get(TypeUserName); ok && len(name) > 0 {
		s.UserName = string(name)
	}
	if pool, ok := resp.Get(TypeFramedPool); ok {
		s.FramedPool = string(pool)
	}
	if pool, ok := resp.Get(TypeFramedIPv6Pool); ok {
		s.FramedIPv6Pool = string(pool)
	}
	for t, d := range map[Type]*time.Duration{TypeSessionTimeout: &s.SessionTimeout,
		TypeIdleTimeout: &s.IdleTimeout, TypeAcctInterimInterval: &s.InterimInterval} {
		seconds, _ := resp.Uint32(t)
		*d = time.Duration(seconds) * time.Second
	}
	for _, a := range resp.Attributes {
		if !isMPPEKey(a) {
			s.Attributes = append(s.Attributes, a)
		}
	}
	return s
}

// failed ends the conversation with EAP-Failure, whatever EAP packet the server put
// into its response: an EAP-Success there must not reach the peer.
func (r *Relay) failed(resp *Response, reason error) Step {
	texts := texts(resp.All(TypeReplyMessage))
	if reason == ErrRejected && len(texts) > 0 {
		reason = fmt.Errorf("%w: %.200q", ErrRejected, texts[0])
	}
	return Step{Out: r.Failure(), Done: true, Reason: reason, ReplyMessage: texts,
		Identity: r.identity, Server: resp.Server.Name()}
}

func isMPPEKey(a Attribute) bool {
	p := Packet{Attributes: []Attribute{a}}
	return p.Vendor(VendorMicrosoft, MSMPPESendKey) != nil || p.Vendor(VendorMicrosoft, MSMPPERecvKey) != nil
}

func texts(vs [][]byte) []string {
	var out []string
	for _, v := range vs {
		out = append(out, string(v))
	}
	return out
}
