package config

import (
	"math"
	"slices"
	"strconv"
	"time"

	"adit/conf"
)

// daemonOptions are the values of section charon, all that strongSwan 6 knows.
var daemonOptions = slices.Concat(builtOptions, idleOptions)

// pluginOptions are those of section charon.plugins, with the plugin's name in front.
var pluginOptions = slices.Concat(builtPlugins, idlePlugins)

// builtOptions are those of section charon that adit goes by.
var builtOptions = []option[Daemon]{
	{name: "port", def: "500", set: into(func(d *Daemon) *uint16 { return &d.Port }, fixedPort)},
	{name: "port_nat_t", def: "4500", set: into(func(d *Daemon) *uint16 { return &d.NATPort }, fixedPort)},
	{name: "routing_table", def: "220", set: into(func(d *Daemon) *int { return &d.RoutingTable }, intOf)},
	{name: "routing_table_prio", def: "220", set: into(func(d *Daemon) *int { return &d.RoutingTablePrio }, intOf)},
	{name: "install_routes", def: "yes", set: into(func(d *Daemon) *bool { return &d.InstallRoutes }, boolOf)},
	{name: "reuse_ikesa", def: "yes", note: "only `yes`: an IKE SA that is there is always used again; `no` is refused", set: func(_ *decoder, _ *Daemon, v conf.Value) error {
		yes, err := v.Bool()
		if err == nil && !yes {
			return v.Errorf("adit always uses an established IKE SA for further children; only yes is possible")
		}
		return err
	}},
	{name: "retransmit_timeout", def: "4.0", note: "seconds", set: into(func(d *Daemon) *time.Duration { return &d.Retransmit.Timeout }, decimalSeconds)},
	{name: "retransmit_limit", def: "0", note: "longest wait in seconds; 0: none", set: into(func(d *Daemon) *time.Duration { return &d.Retransmit.Limit }, decimalSeconds)},
	{name: "retransmit_base", def: "1.8", set: into(func(d *Daemon) *float64 { return &d.Retransmit.Base }, baseOf)},
	{name: "retransmit_tries", def: "5", set: into(func(d *Daemon) *int { return &d.Retransmit.Tries }, func(v conf.Value) (int, error) {
		n, err := intOf(v)
		if n == 0 {
			n = -1 // for the engine 0 is the default
		}
		return n, err
	})},
	{name: "retransmit_jitter", def: "0", note: "percent", set: into(func(d *Daemon) *int { return &d.Retransmit.Jitter }, func(v conf.Value) (int, error) {
		n, err := v.Uint(20)
		return int(n), err
	})},
	{name: "keep_alive", def: "20s", note: "NAT keepalives; 0: none", set: func(_ *decoder, d *Daemon, v conf.Value) (err error) {
		if d.KeepAlive, err = v.Duration(); d.KeepAlive == 0 {
			d.KeepAlive = -1
		}
		return err
	}},
	{name: "half_open_timeout", def: "30s", set: into(func(d *Daemon) *time.Duration { return &d.HalfOpenTimeout }, durationOf)},
	{name: "cookie_threshold", def: "30", note: "half-open IKE SAs before cookies are asked for; 0: never", set: into(func(d *Daemon) *int { return &d.CookieThreshold }, thresholdOf)},
	{name: "cookie_threshold_ip", def: "3", note: "the same from one address; 0: never", set: into(func(d *Daemon) *int { return &d.CookieThresholdIP }, thresholdOf)},
	{name: "block_threshold", def: "5", note: "at most so many half-open IKE SAs of one address; 0: no such bound", set: into(func(d *Daemon) *int { return &d.BlockThreshold }, thresholdOf)},
	{name: "init_limit_half_open", note: "at most so many half-open IKE SAs in all; default: a limit of adit’s own", set: into(func(d *Daemon) *int { return &d.InitLimit }, intOf)},
	{name: "delete_rekeyed_delay", def: "5s", note: "a replaced inbound SA stays so long", set: into(func(d *Daemon) *time.Duration { return &d.DeleteRekeyedDelay }, func(v conf.Value) (time.Duration, error) {
		t, err := v.Duration()
		return max(t, 1), err // 0 is at once; for the engine it is the default
	})},
	{name: "retry_initiate_interval", note: "wait before an initiation that failed is tried again; default: from 1s to 60s, growing", set: into(func(d *Daemon) *time.Duration { return &d.RetryInitiate }, durationOf)},
	{name: "make_before_break", def: "yes", note: "order of reauthentication", set: func(_ *decoder, d *Daemon, v conf.Value) error {
		yes, err := v.Bool()
		d.BreakBeforeMake = !yes
		return err
	}},
	{name: "prefer_configured_proposals", def: "yes", note: "own order decides", set: func(_ *decoder, d *Daemon, v conf.Value) error {
		yes, err := v.Bool()
		d.PreferPeer = !yes
		return err
	}},
	{name: "fragment_size", def: "1280", note: "largest IP packet of IKE messages in fragments (RFC 7383), at least 576", set: into(func(d *Daemon) *int { return &d.FragmentSize }, func(v conf.Value) (int, error) {
		n, err := v.Uint(65535)
		if err == nil && n != 0 && n < minFragment {
			err = v.Errorf("fragments of %d bytes are too small; %d is the least", n, minFragment)
		}
		return int(n), err
	})},
	{name: "max_packet", def: "10000", note: "largest message that is put together from fragments", set: into(func(d *Daemon) *int { return &d.MaxPacket }, func(v conf.Value) (int, error) {
		n, err := v.Uint(65535)
		if err == nil && n < 1280 {
			err = v.Errorf("messages of %d bytes are too small; 1280 is the least", n)
		}
		return int(n), err
	})},
	{name: "signature_authentication", def: "yes", note: "RFC 7427", set: func(_ *decoder, d *Daemon, v conf.Value) error {
		yes, err := v.Bool()
		d.NoSignatureAuth = !yes
		return err
	}},
	{name: "rsa_pss", def: "no", note: "RSA-PSS signatures before PKCS#1 v1.5", set: into(func(d *Daemon) *bool { return &d.RSAPSS }, boolOf)},
	{name: "dns1", note: "DNS server for every peer that gets an address", set: readLater}, {name: "dns2", note: "a second one", set: readLater}, {name: "nbns1", note: "WINS server for every peer that gets an address", set: readLater}, {name: "nbns2", note: "a second one", set: readLater},
	{name: "health", state: Own, note: "in section `adit`: where `GET /healthz` is answered, `HOST:PORT` or `unix:///PATH` ([running](running.md))", set: into(func(d *Daemon) *string { return &d.Health }, conf.Value.One)},
	{name: "replay_window", def: "4096", note: "default of all children", set: into(func(d *Daemon) *uint32 { return &d.ReplayWindow }, uint32Of)},
}

// builtPlugins are those of section charon.plugins that adit goes by.
var builtPlugins = []option[Daemon]{
	{name: "vici.socket", def: "unix:///var/run/charon.vici", note: "`unix:///PATH` or `tcp://HOST:PORT`", set: into(func(d *Daemon) *string { return &d.VICISocket }, conf.Value.One)},
}

// readLater is for options that decodeAttributes reads.
func readLater(*decoder, *Daemon, conf.Value) error { return nil }

// minFragment is the least IP packet that every host takes (RFC 791).
const minFragment = 576

// thresholdOf reads a number where 0 switches the defence off.
func thresholdOf(v conf.Value) (int, error) {
	n, err := intOf(v)
	if n == 0 {
		n = math.MaxInt32
	}
	return n, err
}

func fixedPort(v conf.Value) (uint16, error) {
	n, err := portOf(v)
	if err == nil && n == 0 {
		return 0, v.Errorf("adit does not support a random port")
	}
	return n, err
}

func intOf(v conf.Value) (int, error) {
	n, err := v.Uint(1 << 31)
	return int(n), err
}

// decimalSeconds reads a number of seconds that may have a fraction.
func decimalSeconds(v conf.Value) (time.Duration, error) {
	f, err := strconv.ParseFloat(v.Text, 64)
	if err != nil || !(f >= 0 && f <= 1e6) {
		return 0, v.Errorf("expected a number of seconds, not %q", v.Text)
	}
	return time.Duration(f * float64(time.Second)), nil
}
