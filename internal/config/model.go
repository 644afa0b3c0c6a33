package config

import (
	"crypto"
	"net/netip"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/ike/wire"
	"adit/internal/users"
	"adit/suite"
)

// Model is a whole configuration, decoded and checked: what swanctl.conf holds.
type Model struct {
	Peers       []*ike.Peer // in the order of the file
	Secrets     []Secret
	Keys        []Key
	Certs       []Cert
	Pools       []Pool
	Authorities []Authority
	Users       []users.User // of the file beside swanctl.conf
	Warnings    []Warning
}

// SecretKind is what a shared secret is for.
type SecretKind string

// The kinds, as VICI's load-shared names them in lower case.
const (
	SecretIKE   SecretKind = "ike"
	SecretEAP   SecretKind = "eap"
	SecretNTLM  SecretKind = "ntlm" // the NT hash of a password
	SecretXAuth SecretKind = "xauth"
	SecretPPK   SecretKind = "ppk"
)

// Secret is a shared secret and whose it is: a section of `secrets`.
type Secret struct {
	ID     string // the section's name, or the client's name for it
	Kind   SecretKind
	Key    suite.Key
	Owners []ike.Identity // none: everybody's
	Pos    conf.Pos
}

// Key is a private key. ID is the SHA-1 of its public key's bits in hexadecimal,
// by which VICI names it.
type Key struct {
	ID     string
	Signer crypto.Signer
	Kept   bool // the gateway itself has it, by ACME: it is not loaded
	Pos    conf.Pos
}

// CertKind is the kind of a credential that is no secret, as VICI's load-cert names it.
type CertKind string

// The kinds.
const (
	CertX509   CertKind = "X509"
	CertCRL    CertKind = "X509_CRL"
	CertAC     CertKind = "X509_AC"
	CertPubkey CertKind = "PUBKEY"
	CertOCSP   CertKind = "OCSP_RESPONSE"
)

// Cert is a certificate, CRL or public key. Flag is NONE, CA (a trust anchor), AA or OCSP.
type Cert struct {
	Kind CertKind
	Flag string
	DER  []byte
	Kept bool // as Key.Kept
	Pos  conf.Pos
}

// Pool is a range of addresses for peers, and what they are told with them.
type Pool struct {
	Name       string
	Base       netip.Addr // as listings name the pool: the configured prefix's or range's first
	From, To   netip.Addr // invalid: attributes only
	Attributes []wire.Attribute
	Masquerade bool // packets of its clients leave with the host's address
	Apart      bool // its clients and those of other pools do not reach each other
	Pos        conf.Pos
}

// Authority adds to a CA where its revocation status is to be had.
type Authority struct {
	Name              string
	CACert            []byte // DER
	CRLURIs, OCSPURIs []string
	CertURIBase       string
	Pos               conf.Pos
}

// RADIUSServer is a section of `charon.plugins.eap-radius.servers`, with what holds
// for all of them.
type RADIUSServer struct {
	Name          string
	Address       string // address or host name
	Secret        suite.Key
	AuthPort      uint16     // 1812
	Source        netip.Addr // invalid: the system's choice
	NASIdentifier string     // adit
	Preference    int        // higher ones are asked first
	Sockets       int
	Timeout       time.Duration // of the first transmission (2 s)
	Base          float64       // of the back-off (1.4)
	Tries         int           // transmissions (4)
	AcctPort      uint16        // 1813
	Pos           conf.Pos
}

// Accounting is what plugins.eap-radius says of accounting and of requests that the
// server makes (RFC 2866, RFC 5176).
type Accounting struct {
	On, SendClass, NeedsVIP bool
	KeepOnTimeout           bool          // accounting_close_on_timeout = no
	Interval                time.Duration // of interim updates where the server names none; 0: none
	DAE                     bool
	DAEListen               netip.Addr
	DAEPort                 uint16
	DAESecret               suite.Key
	DAEAnyTime              bool // requests without Event-Timestamp are taken
}

// Warning is a remark about a configuration that is valid: a weak algorithm, a
// short secret, a file that others may read.
type Warning struct {
	Pos  conf.Pos
	Text string
}

// Leases says where the leases of addresses are kept (section `adit.state`).
type Leases struct {
	NATS        string        // URLs of servers, separated by commas; empty: embedded
	Dir         string        // of the embedded server; empty: `leases` in StateDir
	Credentials string        // file, of the user at NATS
	CA          string        // file, of the servers' authority
	Bucket      string        // adit
	Gateway     string        // our name among several; empty: random, kept in Dir
	Replicas    int           // of a bucket that is made; 0: 3
	Reclaim     time.Duration // 24 h; 0: never
}

// Daemon are the settings of strongswan.conf that adit reads (section `charon`,
// overridden by `adit`), with strongSwan's defaults.
type Daemon struct {
	VICISocket                                                    string // charon.plugins.vici.socket
	Port, NATPort                                                 uint16 // charon.port, charon.port_nat_t
	RoutingTable                                                  int    // charon.routing_table (220); 0: no routes
	RoutingTablePrio                                              int    // charon.routing_table_prio (220)
	InstallRoutes                                                 bool   // charon.install_routes
	Retransmit                                                    ike.Retransmit
	KeepAlive                                                     time.Duration // charon.keep_alive (20 s)
	HalfOpenTimeout                                               time.Duration
	CookieThreshold, CookieThresholdIP, BlockThreshold, InitLimit int
	DeleteRekeyedDelay                                            time.Duration
	RetryInitiate                                                 time.Duration // charon.retry_initiate_interval
	BreakBeforeMake                                               bool          // charon.make_before_break = no
	PreferPeer                                                    bool          // charon.prefer_configured_proposals = no
	ReplayWindow                                                  uint32        // charon.replay_window; adit's default is 4096
	FragmentSize, MaxPacket                                       int           // charon.fragment_size (1280), charon.max_packet (10000)
	FragmentSize4, FragmentSize6                                  int           // charon.fragment_size_v4, _v6; 0: fragment_size
	Habits                                                        ike.Habits
	RejectTrusted                                                 bool          // charon.reject_trusted_end_entity
	NoVirtualIPs                                                  bool          // charon.install_virtual_ip = no
	VirtualIPDevice                                               string        // charon.install_virtual_ip_on; empty: our own device
	InterfacesUse, InterfacesIgnore                               []string      // charon.interfaces_use, charon.interfaces_ignore
	TemporaryAddrs                                                bool          // charon.prefer_temporary_addrs
	NoIPv4, NoIPv6                                                bool          // charon.plugins.socket-default.use_ipv4, use_ipv6 = no
	RouteMTU                                                      int           // charon.plugins.kernel-netlink.mtu, bytes; 0: the tunnel's
	NoCRL, NoOCSP                                                 bool          // charon.plugins.revocation.enable_crl, enable_ocsp = no
	FetchTimeout                                                  time.Duration // charon.plugins.revocation.timeout; 0: the fetcher's own
	ResolveFile                                                   string        // charon.plugins.resolve.file; empty: the resolver is left alone
	EAPTLSFragment, EAPTTLSFragment                               int           // charon.plugins.eap-tls.fragment_size, eap-ttls…; 0: 1024
	TTLSMethod                                                    string        // charon.plugins.eap-ttls.phase2_method; empty: MSCHAPv2, then MD5
	StateDir                                                      string        // adit.state_dir; empty: systemd's StateDirectory, or /var/lib/adit
	LockIdentity, LockSource                                      int           // adit.lockout.identity (10), .source (50); 0: none
	Leases                                                        Leases        // adit.state
	ACME                                                          []ACME        // adit.acme
	NextDefaults                                                  bool          // adit.compat = next: `version` is 2 if it is not given
	resolve                                                       resolving
	unprotected                                                   bool             // charon.dos_protection = no
	NoSignatureAuth                                               bool             // charon.signature_authentication = no
	NoFullTranscript                                              bool             // adit.full_transcript_auth = no
	RSAPSS                                                        bool             // charon.rsa_pss
	RADIUS                                                        []RADIUSServer   // charon.plugins.eap-radius
	Accounting                                                    Accounting       // charon.plugins.eap-radius
	Attributes                                                    []wire.Attribute // charon.plugins.attr, dns1 …: for every peer with an address
	Logs                                                          []LogTarget      // charon.filelog, .syslog, .journal
	Health                                                        string           // adit.health: where GET /healthz is answered, empty: nowhere
	Workers                                                       int              // adit.workers: threads that move packets, 0: as the machine is
	NoRing                                                        bool             // adit.ring = no
	Warnings                                                      []Warning
}
