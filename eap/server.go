package eap

import (
	"crypto/rand"
	"fmt"
	"slices"
)

// ServerConfig says how a server authenticates a peer.
type ServerConfig struct {
	// Methods in the order of preference. The first is offered; if the peer refuses it
	// with a Nak, the first of the others that the Nak names.
	Methods []Type
	// AskIdentity begins with a request for the identity (eap_id = %any). Otherwise
	// Identity is who the peer is said to be (eap_id or IDi).
	AskIdentity bool
	Identity    string
	// ServerName is told to the peer by MSCHAPv2 and MD5; "adit" if empty.
	ServerName string
	// Secret finds the secret of an identity, for the methods that use one. An
	// unknown identity takes the same path as a wrong password and costs the same,
	// as far as Secret itself does.
	Secret func(identity string) (Secret, bool)
	// Retries is how often MSCHAPv2 lets the peer try another password (error 691
	// with R=1).
	Retries int
	// TLS is needed by TLS and TTLS.
	TLS *TLSConfig
	// Tunnelled are the methods inside TTLS, in order; MSCHAPv2, then MD5 if empty.
	// MSCHAPv2 also admits MS-CHAP-V2 without EAP, GTC also PAP (RFC 5281 §11.2).
	Tunnelled []Type
}

// NewServer makes a server's session. The errors wrap ErrConfig.
func NewServer(cfg ServerConfig) (Session, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return newServer(cfg), nil
}

func (cfg *ServerConfig) check() error {
	if len(cfg.Methods) == 0 {
		return fmt.Errorf("eap: %w: no method", ErrConfig)
	}
	if cfg.ServerName == "" {
		cfg.ServerName = "adit"
	}
	if len(cfg.ServerName) > maxNameMSCHAPv2 {
		return fmt.Errorf("eap: %w: server name too long", ErrConfig)
	}
	if len(cfg.Tunnelled) == 0 {
		cfg.Tunnelled = []Type{TypeMSCHAPv2, TypeMD5}
	}
	for _, t := range cfg.Methods {
		if t == TypeTTLS {
			for _, t := range cfg.Tunnelled {
				if !passwordMethod(t) || cfg.Secret == nil {
					return fmt.Errorf("eap: %w: %v inside TTLS", ErrConfig, t)
				}
			}
		}
		switch {
		case t.tunnel():
			if err := cfg.TLS.check(t, true); err != nil {
				return err
			}
		case !passwordMethod(t):
			return fmt.Errorf("eap: %w: %v is no method", ErrConfig, t)
		case cfg.Secret == nil:
			return fmt.Errorf("eap: %w: %v without secrets", ErrConfig, t)
		}
	}
	return nil
}

func passwordMethod(t Type) bool { return t == TypeMD5 || t == TypeGTC || t == TypeMSCHAPv2 }

// server is the authenticator and the server behind it in one (RFC 4137 §6
// describes both).
type server struct {
	cfg      ServerConfig
	claimed  string // identity that the peer gave or the configuration
	id       uint8  // of the last request
	anyID    bool   // the next response needs no request before it (inside TTLS)
	begun    bool
	over     bool
	rounds   int
	method   method // nil while the identity is awaited
	typ      Type
	mayNak   bool // the method's first request stands unanswered
	refused  []Type
	maxRound int
}

func newServer(cfg ServerConfig) *server {
	var id [1]byte
	rand.Read(id[:])
	return &server{cfg: cfg, claimed: cfg.Identity, id: id[0], maxRound: maxRounds}
}

// newInnerServer makes the server inside a TTLS tunnel, where the peer begins with
// its identity, unasked (RFC 5281 §11.2.1).
func newInnerServer(cfg ServerConfig) *server {
	cfg.Methods, cfg.AskIdentity, cfg.Identity, cfg.TLS = cfg.Tunnelled, true, "", nil
	s := newServer(cfg)
	s.begun, s.anyID = true, true
	return s
}

func (s *server) Close() {
	s.over = true
	if s.method != nil {
		s.method.close()
		s.method = nil
	}
}

func (s *server) Next(in []byte) (Step, error) {
	if s.over {
		return Step{Done: true}, fmt.Errorf("eap: %w", ErrOver)
	}
	step, err := s.next(in)
	if err != nil {
		step = Step{Out: Packet{Code: CodeFailure, Identifier: s.id}.Append(nil), Done: true}
	}
	if step.Done {
		s.Close()
	}
	return step, err
}

func (s *server) next(in []byte) (Step, error) {
	if !s.begun {
		if in != nil {
			return Step{}, unexpected("packet before the first request")
		}
		s.begun = true
		if s.cfg.AskIdentity {
			return s.request(TypeIdentity, nil), nil
		}
		return s.start(s.cfg.Methods[0])
	}
	p, err := ParsePacket(in)
	if err != nil {
		return Step{}, err
	}
	if p.Code != CodeResponse {
		return Step{}, unexpected(p.Code.String() + " at the server")
	}
	if s.anyID {
		s.anyID, s.id = false, p.Identifier
	}
	if p.Identifier != s.id {
		return Step{}, fmt.Errorf("eap: %w", ErrIdentifier)
	}
	if s.rounds++; s.rounds > s.maxRound {
		return Step{}, limit("too many packets")
	}
	if s.method == nil {
		return s.identified(p)
	}
	return s.respond(p)
}

// identified takes the response to the Identity request (RFC 3748 §5.1).
func (s *server) identified(p Packet) (Step, error) {
	switch {
	case p.Type != TypeIdentity:
		return Step{}, unexpected(p.Type.String() + " instead of an identity")
	case len(p.Data) == 0:
		return Step{}, malformed("empty identity")
	case len(p.Data) > maxIdentity:
		return Step{}, limit("identity too long")
	}
	s.claimed = string(p.Data)
	return s.start(s.cfg.Methods[0])
}

// respond gives a response to the method, or turns to another method after a Nak,
// which is allowed on a method's first request alone (RFC 3748 §5.3.1).
func (s *server) respond(p Packet) (Step, error) {
	if types, nak := p.desired(); nak && s.mayNak {
		s.refused = append(s.refused, s.typ)
		for _, t := range s.cfg.Methods {
			if slices.Contains(types, t) && !slices.Contains(s.refused, t) {
				return s.start(t)
			}
		}
		return Step{}, fmt.Errorf("eap: %w: the peer wants %v, we offer %v", ErrMethods, types, s.cfg.Methods)
	}
	if p.Type != s.typ {
		return Step{}, unexpected(fmt.Sprintf("%v inside %v", p.Type, s.typ))
	}
	s.mayNak = false
	return s.advance(p.Data)
}

// start begins a method and drops the one before it.
func (s *server) start(t Type) (Step, error) {
	if s.method != nil {
		s.method.close()
	}
	s.typ, s.mayNak = t, true
	s.method = newServerMethod(t, &s.cfg, s.claimed)
	if t.tunnel() {
		s.maxRound = s.rounds + maxTunnelRounds
	}
	return s.advance(nil)
}

func newServerMethod(t Type, cfg *ServerConfig, claimed string) method {
	switch t {
	case TypeMD5:
		return newMD5Server(cfg, claimed)
	case TypeGTC:
		return newGTCServer(cfg, claimed)
	case TypeTLS:
		return newTLSServer(cfg, claimed)
	case TypeTTLS:
		return newTTLSServer(cfg)
	}
	return newMSCHAPv2Server(cfg)
}

func (s *server) advance(in []byte) (Step, error) {
	out, done, err := s.method.next(s.id+1, in)
	switch {
	case err != nil:
		return Step{}, err
	case !done:
		step := s.request(s.typ, out)
		step.Failing = s.failing()
		return step, nil
	}
	step := Step{
		Out:  Packet{Code: CodeSuccess, Identifier: s.id}.Append(nil),
		Done: true, Success: true, Identity: s.claimed, Method: s.typ,
	}
	if id := s.method.identity(); id != "" {
		step.Identity = id
	}
	step.MSK, step.EMSK = s.method.keys()
	return step, nil
}

func (s *server) failing() error {
	if f, ok := s.method.(failing); ok {
		return f.failing()
	}
	return nil
}

func (s *server) request(t Type, data []byte) Step {
	s.id++
	return Step{Out: Packet{Code: CodeRequest, Identifier: s.id, Type: t, Data: data}.Append(nil)}
}
