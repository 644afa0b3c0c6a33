package eap

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"adit/suite"
)

// TLSConfig is what TLS and TTLS need. TLS 1.2 and 1.3 are spoken; sessions are
// never resumed, so that a certificate that was revoked stays out.
type TLSConfig struct {
	// Certificates with their keys, which may be any crypto.Signer. A server needs
	// one, a peer for TLS but not for TTLS.
	Certificates []tls.Certificate
	// ClientCAs are named to the peer as a hint which certificate is wanted. They
	// verify nothing.
	ClientCAs *x509.CertPool
	// VerifyPeer judges the other side's certificates, the leaf first, each in DER:
	// chain, revocation, purpose, and that they belong to the identity. identity is the
	// identity that the peer claims (on a server), PeerConfig.ServerID on a peer. That
	// the other side holds the leaf's key is proven apart from it. A server needs it
	// for TLS, a peer always. It may block.
	VerifyPeer func(identity string, chain [][]byte) error
	// ServerName is sent by a peer in the clear (SNI), if set.
	ServerName string
	// MinVersion and MaxVersion as in crypto/tls; 0 is TLS 1.2 and TLS 1.3.
	MinVersion, MaxVersion uint16
	// FragmentSize is the size of the EAP packets that carry fragments, 100 to 16384
	// bytes; 0 is 1024, which strongSwan sends, too.
	FragmentSize int
}

func (c *TLSConfig) check(t Type, server bool) error {
	switch {
	case c == nil:
		return fmt.Errorf("eap: %w: %v without TLS", ErrConfig, t)
	case c.VerifyPeer == nil && (t == TypeTLS || !server):
		return fmt.Errorf("eap: %w: %v would accept any certificate", ErrConfig, t)
	case len(c.Certificates) == 0 && (t == TypeTLS || server):
		return fmt.Errorf("eap: %w: %v without a certificate", ErrConfig, t)
	case c.FragmentSize != 0 && (c.FragmentSize < minFragment || c.FragmentSize > maxFragment):
		return fmt.Errorf("eap: %w: fragment size %d", ErrConfig, c.FragmentSize)
	case c.MinVersion != 0 && c.MinVersion < tls.VersionTLS12:
		return fmt.Errorf("eap: %w: TLS before 1.2", ErrConfig)
	}
	return nil
}

// groups leaves out the post-quantum key exchange, whose key shares would make of
// the ClientHello two fragments. Nothing secret for long goes through the tunnel, and
// the MSK authenticates within seconds.
var groups = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}

func (c *TLSConfig) config(identity string) *tls.Config {
	cfg := &tls.Config{
		MinVersion:             max(c.MinVersion, tls.VersionTLS12),
		MaxVersion:             c.MaxVersion,
		CurvePreferences:       groups,
		SessionTicketsDisabled: true,
	}
	if c.VerifyPeer != nil {
		cfg.VerifyPeerCertificate = func(chain [][]byte, _ [][]*x509.Certificate) error {
			return c.VerifyPeer(identity, chain)
		}
	}
	return cfg
}

func (c *TLSConfig) framer(t Type) framer {
	f := framer{size: c.FragmentSize, ttls: t == TypeTTLS}
	if f.size == 0 {
		f.size = defaultFragment
	}
	return f
}

func (c *TLSConfig) serverTunnel(t Type, identity string) *tlsTunnel {
	cfg := c.config(identity)
	cfg.Certificates, cfg.ClientCAs = c.Certificates, c.ClientCAs
	if t == TypeTLS {
		cfg.ClientAuth = tls.RequireAnyClientCert // VerifyPeer judges it
	} else {
		cfg.VerifyPeerCertificate = nil
	}
	return newTunnel(t, func(p *tlsPipe) *tls.Conn { return tls.Server(p, cfg) })
}

func (c *TLSConfig) clientTunnel(t Type, identity string) *tlsTunnel {
	cfg := c.config(identity)
	cfg.InsecureSkipVerify = true // VerifyPeer judges it
	cfg.ServerName = c.ServerName
	cfg.GetClientCertificate = c.clientCertificate
	return newTunnel(t, func(p *tlsPipe) *tls.Conn { return tls.Client(p, cfg) })
}

// clientCertificate prefers a certificate that the server's hints speak for, and
// takes the first otherwise: hints are often wrong.
func (c *TLSConfig) clientCertificate(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	for i := range c.Certificates {
		if r.SupportsCertificate(&c.Certificates[i]) == nil {
			return &c.Certificates[i], nil
		}
	}
	if len(c.Certificates) > 0 {
		return &c.Certificates[0], nil
	}
	return new(tls.Certificate), nil
}

// tlsKeys are the MSK and EMSK of a TLS method.
type tlsKeys struct{ msk, emsk suite.Key }

// derive exports them (RFC 5216 §2.3, RFC 5281 §8, RFC 9190 §2.3, RFC 9427 §2.1).
//
// TLS 1.2 without the extended master secret (RFC 7627) is accepted, because
// strongSwan's TLS has no such extension: go.mod says `godebug tlsunsafeekm=1`, without
// which crypto/tls refuses the export. The attack that RFC 7627 §1 describes needs a
// client that authenticates with the same certificate to a malicious server that it
// trusts; VerifyPeer on the peer decides whom it trusts.
//
// Peer quirk (strongSwan ≤ 5.9.9): with its tls.version_max at 1.3, not the default, it
// derives other keys for TLS 1.3 and sends no commitment. Against that only TLS 1.2
// helps.
func (k *tlsKeys) derive(t *tlsTunnel) error {
	label, context := "client EAP encryption", []byte(nil)
	switch {
	case t.version() >= tls.VersionTLS13:
		label, context = "EXPORTER_EAP_TLS_Key_Material", []byte{byte(t.typ)}
	case t.typ == TypeTTLS:
		label = "ttls keying material"
	}
	b, err := t.export(label, context, 128)
	if err != nil {
		return err
	}
	k.msk, k.emsk = suite.Key(b[:64:64]), suite.Key(b[64:])
	return nil
}

func (k *tlsKeys) keys() (msk, emsk suite.Key) {
	msk, emsk = k.msk, k.emsk
	*k = tlsKeys{}
	return msk, emsk
}

func (k *tlsKeys) zero() {
	k.msk.Zero()
	k.emsk.Zero()
}
