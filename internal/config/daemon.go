package config

import (
	"math"
	"os"
	"slices"
	"strconv"
	"time"

	"adit/conf"
	"adit/ike"
)

// defaultVICI is strongSwan's socket.
const defaultVICI = "unix:///var/run/charon.vici"

// defaultDaemonFile is read if it exists and nothing names another one.
const defaultDaemonFile = "/etc/strongswan.conf"

// DaemonFile is the strongswan.conf to read: the one named, else that of
// $STRONGSWAN_CONF (which may be set and empty: none), else /etc/strongswan.conf
// if there is one. Empty: none.
func DaemonFile(named string) string {
	if named != "" {
		return named
	}
	if path, ok := os.LookupEnv("STRONGSWAN_CONF"); ok {
		return path
	}
	if _, err := os.Stat(defaultDaemonFile); err != nil {
		return ""
	}
	return defaultDaemonFile
}

// LoadDaemon reads a strongswan.conf; an empty path gives the defaults. Sections
// charon and then adit count. What adit does not read in charon gives a warning, an
// unknown option in adit is an error; other sections belong to other programs.
func LoadDaemon(path string) (Daemon, error) {
	if path == "" {
		return DecodeDaemon(conf.New(""))
	}
	var warnings []Warning
	p := conf.Parser{Files: conf.OS, Warn: func(pos conf.Pos, msg string) { warnings = append(warnings, Warning{pos, msg}) }}
	root, err := p.Parse(path)
	if err != nil {
		return Daemon{}, err
	}
	d, err := DecodeDaemon(root)
	d.Warnings = append(warnings, d.Warnings...)
	told := map[string]bool{}
	for _, r := range d.RADIUS {
		if w, open := readable(r.Pos.File); open && !told[r.Pos.File] {
			told[r.Pos.File] = true
			d.Warnings = append(d.Warnings, w)
		}
	}
	return d, err
}

// DecodeDaemon decodes the settings out of a tree.
func DecodeDaemon(root *conf.Section) (Daemon, error) {
	dm := Daemon{
		VICISocket: defaultVICI, Port: 500, NATPort: 4500, RoutingTable: 220, RoutingTablePrio: 220, InstallRoutes: true,
		Retransmit: ike.Retransmit{Timeout: 4 * time.Second, Base: 1.8, Tries: 5},
		KeepAlive:  20 * time.Second, HalfOpenTimeout: 30 * time.Second,
		CookieThreshold: 30, CookieThresholdIP: 3, BlockThreshold: 5, DeleteRekeyedDelay: 5 * time.Second,
		ReplayWindow: defaultReplayWindow, FragmentSize: 1280, MaxPacket: 10000,
	}
	d := &decoder{}
	for _, name := range daemonSections {
		s := root.Sub(name)
		d.unread(s, name)
		for _, o := range daemonOptions {
			if v, ok := s.Get(o.name); ok {
				d.fail(o.set(d, &dm, v))
			}
		}
		if v, ok := s.Sub("plugins").Sub("vici").Get("socket"); ok {
			dm.VICISocket = v.Text
		}
		d.decodeAttributes(&dm, s)
		d.decodeLogs(&dm, s)
		for sub := range s.Sub("plugins").Sections() {
			for v := range sub.Values() {
				if v.Key != "load" && !slices.Contains([]string{"vici", "attr", "eap-radius"}, sub.Name) && len(d.warnings) < limitErrors {
					d.warn(v.Pos, v.Path()+" has no effect: adit has no such plugin")
				}
			}
		}
		if r := s.Sub("plugins").Sub("eap-radius"); r != nil {
			d.decodeRADIUS(&dm, r)
		}
	}
	dm.Warnings = d.warnings
	return dm, d.err()
}

// daemonSections are the sections of strongswan.conf that count, the later ones more:
// charon-systemd is what charon is called where systemd starts it.
var daemonSections = []string{"charon", "charon-systemd", "adit"}

// loadOptions say which plugins charon loads; they mean nothing here and are no mistake.
var loadOptions = []string{"load", "load_modular", "i_dont_care_about_security_and_use_aggressive_mode_psk"}

// unread tells of options that have no effect.
func (d *decoder) unread(s *conf.Section, name string) {
	for v := range s.Values() {
		switch {
		case slices.Contains(names(daemonOptions), v.Key) || slices.Contains(loadOptions, v.Key):
		case name == "adit":
			d.failf(v.Pos, "%s: unknown option%s", v.Path(), didYouMean(v.Key, names(daemonOptions)))
		case len(d.warnings) < limitErrors:
			d.warn(v.Pos, v.Path()+" has no effect: adit does not read it"+didYouMean(v.Key, names(daemonOptions)))
		}
	}
}

// daemonOptions are the values of section charon that adit reads.
var daemonOptions = []option[Daemon]{
	{name: "port", set: into(func(d *Daemon) *uint16 { return &d.Port }, fixedPort)},
	{name: "port_nat_t", set: into(func(d *Daemon) *uint16 { return &d.NATPort }, fixedPort)},
	{name: "routing_table", set: into(func(d *Daemon) *int { return &d.RoutingTable }, intOf)},
	{name: "routing_table_prio", set: into(func(d *Daemon) *int { return &d.RoutingTablePrio }, intOf)},
	{name: "install_routes", set: into(func(d *Daemon) *bool { return &d.InstallRoutes }, boolOf)},
	{name: "reuse_ikesa", set: func(_ *decoder, _ *Daemon, v conf.Value) error {
		yes, err := v.Bool()
		if err == nil && !yes {
			return v.Errorf("adit always uses an established IKE SA for further children; only yes is possible")
		}
		return err
	}},
	{name: "retransmit_timeout", set: into(func(d *Daemon) *time.Duration { return &d.Retransmit.Timeout }, decimalSeconds)},
	{name: "retransmit_limit", set: into(func(d *Daemon) *time.Duration { return &d.Retransmit.Limit }, decimalSeconds)},
	{name: "retransmit_base", set: into(func(d *Daemon) *float64 { return &d.Retransmit.Base }, baseOf)},
	{name: "retransmit_tries", set: into(func(d *Daemon) *int { return &d.Retransmit.Tries }, func(v conf.Value) (int, error) {
		n, err := intOf(v)
		if n == 0 {
			n = -1 // for the engine 0 is the default
		}
		return n, err
	})},
	{name: "retransmit_jitter", set: into(func(d *Daemon) *int { return &d.Retransmit.Jitter }, func(v conf.Value) (int, error) {
		n, err := v.Uint(20)
		return int(n), err
	})},
	{name: "keep_alive", set: func(_ *decoder, d *Daemon, v conf.Value) (err error) {
		if d.KeepAlive, err = v.Duration(); d.KeepAlive == 0 {
			d.KeepAlive = -1
		}
		return err
	}},
	{name: "half_open_timeout", set: into(func(d *Daemon) *time.Duration { return &d.HalfOpenTimeout }, durationOf)},
	{name: "cookie_threshold", set: into(func(d *Daemon) *int { return &d.CookieThreshold }, thresholdOf)},
	{name: "cookie_threshold_ip", set: into(func(d *Daemon) *int { return &d.CookieThresholdIP }, thresholdOf)},
	{name: "block_threshold", set: into(func(d *Daemon) *int { return &d.BlockThreshold }, thresholdOf)},
	{name: "init_limit_half_open", set: into(func(d *Daemon) *int { return &d.InitLimit }, intOf)},
	{name: "delete_rekeyed_delay", set: into(func(d *Daemon) *time.Duration { return &d.DeleteRekeyedDelay }, func(v conf.Value) (time.Duration, error) {
		t, err := v.Duration()
		return max(t, 1), err // 0 is at once; for the engine it is the default
	})},
	{name: "retry_initiate_interval", set: into(func(d *Daemon) *time.Duration { return &d.RetryInitiate }, durationOf)},
	{name: "make_before_break", set: func(_ *decoder, d *Daemon, v conf.Value) error {
		yes, err := v.Bool()
		d.BreakBeforeMake = !yes
		return err
	}},
	{name: "prefer_configured_proposals", set: func(_ *decoder, d *Daemon, v conf.Value) error {
		yes, err := v.Bool()
		d.PreferPeer = !yes
		return err
	}},
	{name: "fragment_size", set: into(func(d *Daemon) *int { return &d.FragmentSize }, func(v conf.Value) (int, error) {
		n, err := v.Uint(65535)
		if err == nil && n != 0 && n < minFragment {
			err = v.Errorf("fragments of %d bytes are too small; %d is the least", n, minFragment)
		}
		return int(n), err
	})},
	{name: "max_packet", set: into(func(d *Daemon) *int { return &d.MaxPacket }, func(v conf.Value) (int, error) {
		n, err := v.Uint(65535)
		if err == nil && n < 1280 {
			err = v.Errorf("messages of %d bytes are too small; 1280 is the least", n)
		}
		return int(n), err
	})},
	{name: "signature_authentication", set: func(_ *decoder, d *Daemon, v conf.Value) error {
		yes, err := v.Bool()
		d.NoSignatureAuth = !yes
		return err
	}},
	{name: "rsa_pss", set: into(func(d *Daemon) *bool { return &d.RSAPSS }, boolOf)},
	{name: "dns1", set: readLater}, {name: "dns2", set: readLater}, {name: "nbns1", set: readLater}, {name: "nbns2", set: readLater},
	{name: "health", set: into(func(d *Daemon) *string { return &d.Health }, conf.Value.One)},
	{name: "replay_window", set: into(func(d *Daemon) *uint32 { return &d.ReplayWindow }, uint32Of)},
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
