package eap

import (
	"bytes"
	"fmt"
	"slices"
)

// PeerConfig says how a peer lets itself be authenticated.
type PeerConfig struct {
	// Identity is the answer to an Identity request and the name of MSCHAPv2.
	Identity string
	// AnonymousIdentity, if set, is shown in its place where anybody on the way to
	// the TTLS server can read it (RFC 5281 §7.3).
	AnonymousIdentity string
	// Secret of the identity, for the methods that use one.
	Secret Secret
	// Methods that the peer takes part in, in the order in which a Nak names them.
	// GTC shows the password to the server: leave it out unless the server is
	// authenticated before.
	Methods []Type
	// ServerID is who the TLS server has to be (aaa_id); VerifyPeer is given it.
	ServerID string
	// TLS is needed by TLS and TTLS.
	TLS *TLSConfig
	// Tunnelled are the methods accepted inside TTLS; MSCHAPv2 and, with a password,
	// MD5 if empty. The tunnel's server is authenticated, so MD5 is none the worse,
	// and strongSwan's server offers nothing else unless it is told to.
	Tunnelled []Type
	// Phase2 says how the peer authenticates inside TTLS.
	Phase2 Phase2
}

// Phase2 is what a peer does inside a TTLS tunnel (RFC 5281 §11.2).
type Phase2 uint8

const (
	// Phase2EAP runs one of Tunnelled.
	Phase2EAP Phase2 = iota
	// Phase2MSCHAPv2 is MS-CHAP-V2 in attributes, without EAP.
	Phase2MSCHAPv2
	// Phase2PAP shows the password to the authenticated server.
	Phase2PAP
)

// NewPeer makes a peer's session. The errors wrap ErrConfig.
func NewPeer(cfg PeerConfig) (Session, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return newPeer(cfg), nil
}

func (cfg *PeerConfig) check() error {
	if len(cfg.Methods) == 0 {
		return fmt.Errorf("eap: %w: no method", ErrConfig)
	}
	if cfg.Identity == "" || len(cfg.Identity) > maxIdentity || len(cfg.AnonymousIdentity) > maxIdentity {
		return fmt.Errorf("eap: %w: identity empty or too long", ErrConfig)
	}
	if len(cfg.Tunnelled) == 0 {
		cfg.Tunnelled = []Type{TypeMSCHAPv2}
		if cfg.Secret.Password != nil {
			cfg.Tunnelled = append(cfg.Tunnelled, TypeMD5)
		}
	}
	for _, t := range cfg.Methods {
		if t.tunnel() {
			if err := cfg.TLS.check(t, false); err != nil {
				return err
			}
		}
		if t == TypeTTLS {
			if err := cfg.checkPhase2(); err != nil {
				return err
			}
		} else if t != TypeTLS {
			if err := cfg.checkSecret(t); err != nil {
				return err
			}
		}
	}
	return nil
}

func (cfg *PeerConfig) checkPhase2() error {
	switch cfg.Phase2 {
	case Phase2MSCHAPv2:
		return cfg.checkSecret(TypeMSCHAPv2)
	case Phase2PAP:
		return cfg.checkSecret(TypeGTC)
	}
	for _, t := range cfg.Tunnelled {
		if err := cfg.checkSecret(t); err != nil {
			return err
		}
	}
	return nil
}

func (cfg *PeerConfig) checkSecret(t Type) error {
	_, hashed := cfg.Secret.ntHash()
	switch {
	case !passwordMethod(t):
		return fmt.Errorf("eap: %w: %v is no method", ErrConfig, t)
	case cfg.Secret.Password == nil && (t != TypeMSCHAPv2 || !hashed):
		return fmt.Errorf("eap: %w: %v without a password", ErrConfig, t)
	case t == TypeMSCHAPv2 && len(cfg.Identity) > maxNameMSCHAPv2:
		return fmt.Errorf("eap: %w: identity too long for %v", ErrConfig, t)
	}
	return nil
}

// peer answers requests until its method is content (RFC 4137 §4).
type peer struct {
	cfg    PeerConfig
	method method
	typ    Type

	id      uint8 // of the last request
	lastIn  []byte
	lastOut []byte
	rounds  int
	naks    int
	// ready: the method is content with the server, a Success may be believed.
	ready bool
	// failing: the method failed and its last word was sent; the next packet ends
	// the session, whatever it is.
	failing  error
	over     bool
	maxRound int
}

func newPeer(cfg PeerConfig) *peer {
	cfg.Secret = cfg.Secret.clone()
	return &peer{cfg: cfg, maxRound: maxRounds}
}

// newInnerPeer makes the peer inside a TTLS tunnel.
func newInnerPeer(cfg PeerConfig) *peer {
	cfg.Methods, cfg.AnonymousIdentity, cfg.TLS = cfg.Tunnelled, "", nil
	return newPeer(cfg)
}

func (p *peer) Close() {
	p.over = true
	p.cfg.Secret.zero()
	clear(p.lastOut) // with GTC, the password
	if p.method != nil {
		p.method.close()
		p.method = nil
	}
}

func (p *peer) Next(in []byte) (Step, error) {
	if p.over {
		return Step{Done: true}, fmt.Errorf("eap: %w", ErrOver)
	}
	if in == nil && p.rounds == 0 {
		return Step{}, nil // the server begins
	}
	step, err := p.next(in)
	if err != nil {
		step = Step{Done: true}
	}
	if step.Done {
		p.Close()
	}
	return step, err
}

func (p *peer) next(in []byte) (Step, error) {
	pkt, err := ParsePacket(in)
	if err != nil {
		return Step{}, err
	}
	if p.rounds++; p.rounds > p.maxRound {
		return Step{}, limit("too many packets")
	}
	switch {
	case pkt.Code == CodeResponse:
		return Step{}, unexpected("response at the peer")
	case p.failing != nil:
		return Step{}, p.failing
	case pkt.Code == CodeFailure:
		return Step{}, fmt.Errorf("eap: %w", ErrFailure)
	case pkt.Code == CodeSuccess:
		return p.succeed(pkt)
	case p.lastOut != nil && bytes.Equal(in, p.lastIn):
		// RFC 3748 §4.1: a repeated request gets the same answer.
		return Step{Out: bytes.Clone(p.lastOut)}, nil
	}
	p.id = pkt.Identifier
	out, err := p.answer(pkt)
	if err != nil {
		return Step{}, err
	}
	p.lastIn, p.lastOut = bytes.Clone(in), out
	return Step{Out: bytes.Clone(out)}, nil
}

// succeed believes a Success if the method does. Its identifier is that of the last
// request.
//
// Peer quirk (Windows servers): the identifier may be the next one.
func (p *peer) succeed(pkt Packet) (Step, error) {
	if !p.ready {
		return Step{}, fmt.Errorf("eap: %w", ErrEarlySuccess)
	}
	if pkt.Identifier != p.id && pkt.Identifier != p.id+1 {
		return Step{}, fmt.Errorf("eap: %w", ErrIdentifier)
	}
	step := Step{Done: true, Success: true, Identity: p.cfg.Identity, Method: p.typ}
	step.MSK, step.EMSK = p.method.keys()
	if p.typ.DerivesKey() && len(step.MSK) == 0 {
		return Step{}, fmt.Errorf("eap: %w: %v has no key", ErrEarlySuccess, p.typ)
	}
	return step, nil
}

func (p *peer) answer(pkt Packet) ([]byte, error) {
	switch {
	case pkt.Type == TypeNotification:
		return p.response(TypeNotification, nil), nil // RFC 3748 §5.2
	case pkt.Type == TypeIdentity && p.method == nil:
		return p.response(TypeIdentity, []byte(p.shownIdentity())), nil
	case pkt.Type == TypeNak:
		return nil, unexpected("Nak as a request")
	case p.method == nil && !slices.Contains(p.cfg.Methods, pkt.Type):
		return p.nak(pkt.Type)
	case p.method == nil:
		p.typ, p.method = pkt.Type, newPeerMethod(pkt.Type, &p.cfg)
		if p.typ.tunnel() {
			p.maxRound = p.rounds + maxTunnelRounds
		}
	case pkt.Type != p.typ:
		return nil, unexpected(fmt.Sprintf("%v inside %v", pkt.Type, p.typ))
	}
	out, done, err := p.method.next(pkt.Identifier, pkt.Data)
	if err != nil {
		p.ready = false
		if out == nil {
			return nil, err
		}
		p.failing = err
	} else if done {
		p.ready = true
	}
	return p.response(p.typ, out), nil
}

func newPeerMethod(t Type, cfg *PeerConfig) method {
	switch t {
	case TypeMD5:
		return &md5Peer{secret: cfg.Secret, name: cfg.Identity}
	case TypeGTC:
		return &gtcPeer{secret: cfg.Secret}
	case TypeTLS:
		return newTLSPeer(cfg)
	case TypeTTLS:
		return newTTLSPeer(cfg)
	}
	return &mschapv2Peer{secret: cfg.Secret, name: cfg.Identity}
}

func (p *peer) shownIdentity() string {
	if p.cfg.AnonymousIdentity != "" {
		return p.cfg.AnonymousIdentity
	}
	return p.cfg.Identity
}

// nak refuses a method and names ours (RFC 3748 §5.3.1). An expanded type gets the
// same legacy Nak: we have no expanded type to name.
func (p *peer) nak(offered Type) ([]byte, error) {
	if p.naks++; p.naks > maxNaks {
		return nil, fmt.Errorf("eap: %w: the server offered %v last, we have %v", ErrMethods, offered, p.cfg.Methods)
	}
	var types []byte
	for _, t := range p.cfg.Methods {
		types = append(types, byte(t))
	}
	return p.response(TypeNak, types), nil
}

func (p *peer) response(t Type, data []byte) []byte {
	return Packet{Code: CodeResponse, Identifier: p.id, Type: t, Data: data}.Append(nil)
}
