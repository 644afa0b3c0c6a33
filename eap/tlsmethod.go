package eap

import "crypto/tls"

// commitment is the application data by which a TLS 1.3 server says that it is
// content: its handshake ends before it has seen the peer's certificate's proof in
// the peer's eyes (RFC 9190 §2.1.1).
const commitment = 0

// tlsServer is the server of EAP-TLS (RFC 5216, RFC 9190).
type tlsServer struct {
	framer
	tlsKeys
	tunnel *tlsTunnel
	who    string
	// content: the peer is verified, its acknowledgement is due.
	content bool
	failed  error // why the alert was sent whose acknowledgement is due
}

func newTLSServer(cfg *ServerConfig, claimed string) method {
	return &tlsServer{framer: cfg.TLS.framer(TypeTLS), tunnel: cfg.TLS.serverTunnel(TypeTLS, claimed), who: claimed}
}

func (s *tlsServer) next(_ uint8, in []byte) ([]byte, bool, error) {
	if in == nil {
		return []byte{flagStart}, false, nil
	}
	msg, reply, err := s.receive(in)
	switch {
	case err != nil || reply != nil:
		return reply, false, err
	case s.failed != nil:
		return nil, false, s.failed
	case s.content && len(msg) == 0:
		return nil, true, nil
	case s.content || len(msg) == 0:
		return nil, false, unexpected("TLS message in the wrong place")
	}
	out, err := s.tunnel.exchange(msg)
	if err != nil {
		return s.alert(out, err)
	}
	if s.tunnel.established {
		if out, err = s.finish(out); err != nil {
			return nil, false, err
		}
	}
	if len(out) == 0 {
		return nil, false, unexpected("incomplete TLS message")
	}
	return s.send(out), false, nil
}

// alert sends an alert before the failure (RFC 5216 §2.1.3).
func (s *tlsServer) alert(out []byte, why error) ([]byte, bool, error) {
	if len(out) == 0 {
		return nil, false, why
	}
	s.failed = why
	return s.send(out), false, nil
}

func (s *tlsServer) finish(out []byte) ([]byte, error) {
	if len(s.tunnel.read()) > 0 {
		return nil, unexpected("application data in EAP-TLS")
	}
	if err := s.derive(s.tunnel); err != nil {
		return nil, err
	}
	if s.tunnel.version() >= tls.VersionTLS13 {
		more, err := s.tunnel.write([]byte{commitment})
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	s.content = true
	return out, nil
}

func (s *tlsServer) failing() error { return s.failed }

func (s *tlsServer) identity() string { return s.who }

func (s *tlsServer) close() {
	s.zero()
	s.tunnel.close()
}

// tlsPeer is the peer of EAP-TLS.
type tlsPeer struct {
	framer
	tlsKeys
	tunnel  *tlsTunnel
	started bool
	content bool
}

func newTLSPeer(cfg *PeerConfig) method {
	return &tlsPeer{framer: cfg.TLS.framer(TypeTLS), tunnel: cfg.TLS.clientTunnel(TypeTLS, cfg.ServerID)}
}

func (p *tlsPeer) next(_ uint8, in []byte) ([]byte, bool, error) {
	if !p.started {
		return startClient(&p.started, &p.framer, p.tunnel, in)
	}
	msg, reply, err := p.receive(in)
	switch {
	case err != nil || reply != nil:
		return reply, false, err
	case p.content || len(msg) == 0:
		return nil, false, unexpected("TLS message in the wrong place")
	}
	out, err := p.tunnel.exchange(msg)
	if err == nil && p.tunnel.established {
		err = p.judge()
	}
	if err != nil {
		// The alert or, if it was the server's, its acknowledgement.
		return p.reply(out), false, err
	}
	return p.reply(out), p.content, nil
}

// judge decides whether the server is content: with TLS 1.2 when the handshake is
// complete, with TLS 1.3 when it says so.
func (p *tlsPeer) judge() error {
	data := p.tunnel.read()
	if p.tunnel.version() >= tls.VersionTLS13 {
		if len(data) == 0 {
			return nil
		}
		if len(data) != 1 || data[0] != commitment {
			return unexpected("no protected success indication")
		}
	} else if len(data) > 0 {
		return unexpected("application data in EAP-TLS")
	}
	p.content = true
	return p.derive(p.tunnel)
}

func (p *tlsPeer) identity() string { return "" }

func (p *tlsPeer) close() {
	p.zero()
	p.tunnel.close()
}

// startClient takes the Start and sends the ClientHello.
func startClient(started *bool, f *framer, t *tlsTunnel, in []byte) ([]byte, bool, error) {
	if !startFlag(in) {
		return nil, false, unexpected("TLS message before the start")
	}
	if f.ttls && in[0]&maskVer != 0 {
		// RFC 5281 §9.1: we answer with the version that we have; nobody has another.
		return nil, false, malformed("TTLS version is not 0")
	}
	*started = true
	out, err := t.exchange(nil)
	if err != nil {
		return nil, false, err
	}
	return f.send(out), false, nil
}

// reply sends records, or consent if there are none.
func (f *framer) reply(records []byte) []byte {
	if len(records) == 0 {
		return f.ack()
	}
	return f.send(records)
}
