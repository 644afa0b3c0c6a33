package config

import (
	"time"

	"adit/conf"
	"adit/ike"
	"adit/suite"
)

// Model is a whole configuration, decoded and checked: what swanctl.conf holds.
type Model struct {
	Peers    []*ike.Peer // in the order of the file
	Secrets  []Secret
	Warnings []Warning
}

// Secret is one section `secrets.ike*`: a pre-shared key and whose it is.
type Secret struct {
	ID     string // the section's name, or the client's name for it
	Key    suite.Key
	Owners []ike.Identity // none: everybody's
	Pos    conf.Pos
}

// Warning is a remark about a configuration that is valid: a weak algorithm, a
// short secret, a file that others may read.
type Warning struct {
	Pos  conf.Pos
	Text string
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
	Warnings                                                      []Warning
}
