package adit

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"time"

	"adit/conf"
	"adit/dataplane/userspace"
	"adit/internal/config"
	"adit/internal/gateway"
	"adit/internal/logging"
)

// readDaemon reads strongswan.conf again.
func (g *Gateway) readDaemon() (*config.Daemon, error) {
	d, err := config.LoadDaemon(config.DaemonFile(g.opt.StrongswanConf))
	if err != nil {
		return nil, err
	}
	if g.opt.VICI != "" {
		d.VICISocket = g.opt.VICI
	}
	return &d, nil
}

// retune applies those settings that can change while the gateway runs, and tells
// which others differ from those that it was started with.
func (g *Gateway) retune(gw *gateway.Gateway, d *config.Daemon) error {
	g.warn(d.Warnings)
	if err := g.logs.Apply(logTargets(d.Logs)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), retuneLimit)
	defer cancel()
	if err := gw.Retune(ctx, *d); err != nil {
		return err
	}
	g.acme.Configure(d.ACME)
	if live, _ := changed(g.now.Swap(d), d); len(live) > 0 {
		g.log.Info("settings of strongswan.conf have changed: " + strings.Join(live, ", "))
	} else {
		g.log.Info("settings of strongswan.conf were read again, none that counts now has changed")
	}
	if _, late := changed(&g.daemon, d); len(late) > 0 {
		g.log.Warn("settings of strongswan.conf have changed that count only after a restart: " + strings.Join(late, ", "))
	}
	return nil
}

const retuneLimit = 10 * time.Second

// liveSettings are the fields of config.Daemon that a reload applies, with the names
// of their options: to the engine, or to connections that are loaded from then on.
var liveSettings = map[string]string{
	"Retransmit": "retransmit_*", "KeepAlive": "keep_alive", "HalfOpenTimeout": "half_open_timeout", "CookieThreshold": "cookie_threshold",
	"CookieThresholdIP": "cookie_threshold_ip", "BlockThreshold": "block_threshold", "InitLimit": "init_limit_half_open",
	"DeleteRekeyedDelay": "delete_rekeyed_delay", "RetryInitiate": "retry_initiate_interval", "BreakBeforeMake": "make_before_break",
	"PreferPeer": "prefer_configured_proposals", "ReplayWindow": "replay_window", "FragmentSize": "fragment_size", "MaxPacket": "max_packet",
	"NoSignatureAuth": "signature_authentication", "NoFullTranscript": "full_transcript_auth", "FragmentSize4": "fragment_size_v4", "FragmentSize6": "fragment_size_v6", "Logs": "filelog, syslog, journal", "NextDefaults": "compat", "ACME": "acme",
}

// startSettings are names of options for fields that are read at the start alone. A
// field in neither map is told by its own name.
var startSettings = map[string]string{
	"VICISocket": "plugins.vici.socket", "Port": "port", "NATPort": "port_nat_t", "RoutingTable": "routing_table",
	"RoutingTablePrio": "routing_table_prio", "InstallRoutes": "install_routes", "RSAPSS": "rsa_pss", "RADIUS": "plugins.eap-radius",
	"Attributes": "plugins.attr", "Health": "health", "NoVirtualIPs": "install_virtual_ip", "VirtualIPDevice": "install_virtual_ip_on",
	"InterfacesUse": "interfaces_use", "InterfacesIgnore": "interfaces_ignore", "TemporaryAddrs": "prefer_temporary_addrs",
	"NoIPv4": "plugins.socket-default.use_ipv4", "NoIPv6": "plugins.socket-default.use_ipv6", "RouteMTU": "plugins.kernel-netlink.mtu",
	"RejectTrusted": "reject_trusted_end_entity", "NoCRL": "plugins.revocation.enable_crl", "NoOCSP": "plugins.revocation.enable_ocsp", "FetchTimeout": "plugins.revocation.timeout",
	"ResolveFile": "plugins.resolve.file", "EAPTLSFragment": "plugins.eap-tls.fragment_size", "EAPTTLSFragment": "plugins.eap-ttls.fragment_size",
	"TTLSMethod": "plugins.eap-ttls.phase2_method",
}

// habitSettings are the options of the fields of ike.Habits, all of which a reload applies.
var habitSettings = map[string]string{
	"SendVendorID": "send_vendor_id", "FlexVPN": "cisco_flexvpn", "NoMultipleAuth": "multiple_authentication", "InitiatorOnly": "initiator_only",
	"AggressivePSK":       "i_dont_care_about_security_and_use_aggressive_mode_psk",
	"CloseOnChildFailure": "close_ike_on_child_failure", "CloseOnInactivity": "inactivity_close_ike", "KeepAliveDPDMargin": "keep_alive_dpd_margin",
	"IgnoreAcquire": "ignore_acquire_ts", "SPIMin": "spi_min", "SPIMax": "spi_max", "MaxSAs": "ikesa_limit",
}

// changed names the options that differ: those that a reload applies, and the rest.
func changed(a, b *config.Daemon) (live, late []string) {
	ha, hb := reflect.ValueOf(a.Habits), reflect.ValueOf(b.Habits)
	for i := range ha.NumField() {
		if !reflect.DeepEqual(ha.Field(i).Interface(), hb.Field(i).Interface()) {
			live = append(live, habitSettings[ha.Type().Field(i).Name])
		}
	}
	va, vb := reflect.ValueOf(placeless(*a)), reflect.ValueOf(placeless(*b))
	for i := range va.NumField() {
		name := va.Type().Field(i).Name
		if !va.Type().Field(i).IsExported() || name == "Habits" {
			continue
		}
		if reflect.DeepEqual(va.Field(i).Interface(), vb.Field(i).Interface()) {
			continue
		}
		if option, ok := liveSettings[name]; ok {
			live = append(live, option)
		} else if option, ok := startSettings[name]; ok {
			late = append(late, option)
		} else {
			late = append(late, name)
		}
	}
	return live, late
}

// placeless is the settings without where in a file they stood.
func placeless(d config.Daemon) config.Daemon {
	d.Warnings = nil
	d.Logs, d.RADIUS, d.ACME = slices.Clone(d.Logs), slices.Clone(d.RADIUS), slices.Clone(d.ACME)
	for i := range d.Logs {
		d.Logs[i].Pos = conf.Pos{}
	}
	for i := range d.RADIUS {
		d.RADIUS[i].Pos = conf.Pos{}
	}
	for i := range d.ACME {
		d.ACME[i].Pos = conf.Pos{}
	}
	return d
}

// logTargets are the targets of strongswan.conf as the log's.
func logTargets(in []config.LogTarget) []logging.Target {
	out := make([]logging.Target, len(in))
	for i, t := range in {
		out[i] = logging.Target{Kind: logging.Kind(t.Kind), Path: t.Path, Default: t.Default, Levels: t.Levels,
			Append: t.Append, FlushLine: t.FlushLine, IKEName: t.IKEName, LogLevel: t.LogLevel, JSON: t.JSON,
			TimeFormat: t.TimeFormat, Precision: t.Precision, Facility: t.Facility, Identifier: t.Identifier, MapLevel: t.MapLevel}
	}
	return out
}

// workers tells the gateway how the data plane's threads are.
func workers(dp *userspace.Plane) func(time.Time) []gateway.Part {
	return func(now time.Time) []gateway.Part {
		var out []gateway.Part
		for _, w := range dp.Workers(now) {
			out = append(out, gateway.Part{Name: w.Name, Silent: w.Busy})
		}
		return out
	}
}
