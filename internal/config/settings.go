package config

import (
	"math"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/ipsec"
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
	{name: "make_before_break", def: "yes", note: "order of reauthentication", set: into(func(d *Daemon) *bool { return &d.BreakBeforeMake }, notOf)},
	{name: "prefer_configured_proposals", def: "yes", note: "own order decides", set: into(func(d *Daemon) *bool { return &d.PreferPeer }, notOf)},
	{name: "fragment_size", def: "1280", note: "largest IP packet of IKE messages in fragments (RFC 7383), at least 576", set: into(func(d *Daemon) *int { return &d.FragmentSize }, fragmentOf)},
	{name: "max_packet", def: "10000", note: "largest message that is put together from fragments", set: into(func(d *Daemon) *int { return &d.MaxPacket }, func(v conf.Value) (int, error) {
		n, err := v.Uint(65535)
		if err == nil && n < 1280 {
			err = v.Errorf("messages of %d bytes are too small; 1280 is the least", n)
		}
		return int(n), err
	})},
	{name: "signature_authentication", def: "yes", note: "RFC 7427", set: into(func(d *Daemon) *bool { return &d.NoSignatureAuth }, notOf)},
	{name: "full_transcript_auth", state: Own, def: "yes", note: "AUTH covers both messages of IKE_SA_INIT if both ends can ([downgrades](post-quantum.md#downgrades))", set: into(func(d *Daemon) *bool { return &d.NoFullTranscript }, notOf)},
	{name: "rsa_pss", def: "no", note: "RSA-PSS signatures before PKCS#1 v1.5", set: into(func(d *Daemon) *bool { return &d.RSAPSS }, boolOf)},
	{name: "cisco_flexvpn", def: "no", note: "sends Cisco FlexVPN’s vendor ID", set: habit(func(h *ike.Habits) *bool { return &h.FlexVPN }, true)},
	{name: "close_ike_on_child_failure", def: "no", note: "closes an IKE SA whose first Child SA failed", set: habit(func(h *ike.Habits) *bool { return &h.CloseOnChildFailure }, true)},
	{name: "ignore_acquire_ts", def: "no", note: "leaves the packet that asked for a Child SA out of its selectors", set: habit(func(h *ike.Habits) *bool { return &h.IgnoreAcquire }, true)},
	{name: "inactivity_close_ike", def: "no", note: "closes an IKE SA whose only Child SA was inactive", set: habit(func(h *ike.Habits) *bool { return &h.CloseOnInactivity }, true)},
	{name: "follow_redirects", def: "yes", note: "goes to another gateway when the peer says so (RFC 5685; [redirect](redirect.md))", set: habit(func(h *ike.Habits) *bool { return &h.NoRedirects }, false)},
	{name: "crash_detection", state: Own, def: "yes", note: "in section `adit`: RFC 6290, peers that know it notice a restart at once ([restart](restart.md))", set: habit(func(h *ike.Habits) *bool { return &h.NoCrashDetection }, false)},
	{name: "session_resumption", state: Own, def: "no", note: "in section `adit`: RFC 5723, a lost IKE SA is set up again without authentication ([restart](restart.md))", set: habit(func(h *ike.Habits) *bool { return &h.ResumeSessions }, true)},
	{name: "state_dir", state: Own, def: "/var/lib/adit", note: "in section `adit`: directory of the secret that must outlive a restart ([restart](restart.md)); with systemd its StateDirectory", set: into(func(d *Daemon) *string { return &d.StateDir }, absoluteOf)},
	{name: "lockout.identity", state: Own, def: "10", note: "in section `adit`: after so many failed logins (EAP, XAUTH) of one identity, further ones fail at once; one is forgotten each minute. 0: none ([lock-out](eap.md#lock-out))", set: into(func(d *Daemon) *int { return &d.LockIdentity }, intOf)},
	{name: "lockout.source", state: Own, def: "50", note: "the same of one IPv4 address or IPv6 /64; one is forgotten each 10 seconds", set: into(func(d *Daemon) *int { return &d.LockSource }, intOf)},
	{name: "state.nats", state: Own, note: "in section `adit`: URLs of NATS servers that keep the leases of several gateways, separated by commas; default: a server in the process itself ([leases](addresses.md#leases))", set: into(func(d *Daemon) *string { return &d.Leases.NATS }, natsOf)},
	{name: "state.dir", state: Own, note: "directory of the leases, and of this gateway’s name among several; default: `leases` in `state_dir`", set: into(func(d *Daemon) *string { return &d.Leases.Dir }, absoluteOf)},
	{name: "state.credentials", state: Own, note: "file with the credentials of a user at NATS", set: into(func(d *Daemon) *string { return &d.Leases.Credentials }, absoluteOf)},
	{name: "state.ca", state: Own, note: "file with the authority that the NATS servers’ certificates must come from", set: into(func(d *Daemon) *string { return &d.Leases.CA }, absoluteOf)},
	{name: "state.bucket", state: Own, def: "adit", note: "name of the key-value bucket: gateways of one bucket share their pools", set: into(func(d *Daemon) *string { return &d.Leases.Bucket }, stateNameOf)},
	{name: "state.gateway", state: Own, note: "this gateway’s name among several; default: random, kept in `state.dir`", set: into(func(d *Daemon) *string { return &d.Leases.Gateway }, stateNameOf)},
	{name: "state.replicas", state: Own, def: "3", note: "copies of a bucket that adit makes: 1, 3 or 5; a server that is alone keeps one", set: into(func(d *Daemon) *int { return &d.Leases.Replicas }, oneOf([]string{"1", "3", "5"}, []int{1, 3, 5}))},
	{name: "state.reclaim", state: Own, def: "24h", note: "after so long without a sign of life a gateway’s addresses are given to others; 0: never", set: into(func(d *Daemon) *time.Duration { return &d.Leases.Reclaim }, durationOf)},
	{name: "redirect", state: Own, note: "in section `adit`: address or name of the gateway to which all new clients are sent that can be ([redirect](redirect.md))", set: into(func(d *Daemon) *ike.RedirectTarget { return &d.Habits.RedirectTo }, gatewayOf)},
	{name: "i_dont_care_about_security_and_use_aggressive_mode_psk", def: "no", note: "answers aggressive mode of IKEv1 with a shared key, which everybody can then guess at leisure", set: habit(func(h *ike.Habits) *bool { return &h.AggressivePSK }, true)},
	{name: "initiator_only", def: "no", note: "drops the first messages of others", set: habit(func(h *ike.Habits) *bool { return &h.InitiatorOnly }, true)},
	{name: "multiple_authentication", def: "yes", note: "several rounds of authentication (RFC 4739)", set: habit(func(h *ike.Habits) *bool { return &h.NoMultipleAuth }, false)},
	{name: "send_vendor_id", def: "no", note: "sends strongSwan’s vendor ID", set: habit(func(h *ike.Habits) *bool { return &h.SendVendorID }, true)},
	{name: "keep_alive_dpd_margin", def: "0s", note: "a keepalive that is so much late, since the host slept, becomes a liveness check; 0: never",
		set: into(func(d *Daemon) *time.Duration { return &d.Habits.KeepAliveDPDMargin }, durationOf)},
	{name: "ikesa_limit", def: "0", note: "refuses first messages of others while there are so many IKE SAs; 0: a limit of adit’s own", set: into(func(d *Daemon) *int { return &d.Habits.MaxSAs }, intOf)},
	{name: "spi_min", note: "least SPI of inbound Child SAs; default: 256", set: into(func(d *Daemon) *ipsec.SPI { return &d.Habits.SPIMin }, spiOf)},
	{name: "spi_max", note: "greatest SPI of inbound Child SAs, at least 65535 more than `spi_min`; default: all", set: into(func(d *Daemon) *ipsec.SPI { return &d.Habits.SPIMax }, spiOf)},
	{name: "dos_protection", def: "yes", note: "`no` is 0 for `cookie_threshold`, `cookie_threshold_ip` and `block_threshold`", set: into(func(d *Daemon) *bool { return &d.unprotected }, notOf)},
	{name: "fragment_size_v4", note: "`fragment_size` for IPv4", set: into(func(d *Daemon) *int { return &d.FragmentSize4 }, fragmentOf)},
	{name: "fragment_size_v6", note: "`fragment_size` for IPv6", set: into(func(d *Daemon) *int { return &d.FragmentSize6 }, fragmentOf)},
	{name: "install_virtual_ip", def: "yes", note: "puts the addresses that peers give us on an interface", set: into(func(d *Daemon) *bool { return &d.NoVirtualIPs }, notOf)},
	{name: "install_virtual_ip_on", note: "the interface for these; default: adit’s own", set: into(func(d *Daemon) *string { return &d.VirtualIPDevice }, interfaceOf)},
	{name: "interfaces_use", note: "interfaces by whose addresses IKE is spoken, and no others", set: into(func(d *Daemon) *[]string { return &d.InterfacesUse }, interfacesOf)},
	{name: "interfaces_ignore", note: "interfaces by whose addresses it is not; says nothing beside `interfaces_use`", set: into(func(d *Daemon) *[]string { return &d.InterfacesIgnore }, interfacesOf)},
	{name: "prefer_temporary_addrs", def: "no", note: "temporary IPv6 addresses (RFC 8981) before public ones, where `local_addrs` leaves it open", set: into(func(d *Daemon) *bool { return &d.TemporaryAddrs }, boolOf)},
	{name: "compat", state: Own, def: "6.0", note: "in section `adit`: `6.0` has the defaults of strongSwan 6.0; `next` has those to come: `version = 2`",
		set: into(func(d *Daemon) *bool { return &d.NextDefaults }, oneOf([]string{"6.0", "next"}, []bool{false, true}))},
	{name: "reject_trusted_end_entity", def: "no", note: "refuses peers by certificates that are loaded as trusted ones", set: into(func(d *Daemon) *bool { return &d.RejectTrusted }, boolOf)},
	{name: "dns1", note: "DNS server for every peer that gets an address", set: readLater}, {name: "dns2", note: "a second one", set: readLater}, {name: "nbns1", note: "WINS server for every peer that gets an address", set: readLater}, {name: "nbns2", note: "a second one", set: readLater},
	{name: "health", state: Own, note: "in section `adit`: where `GET /healthz` is answered, `HOST:PORT` or `unix:///PATH` ([running](running.md))", set: into(func(d *Daemon) *string { return &d.Health }, conf.Value.One)},
	{name: "workers", state: Own, def: "auto", note: "in section `adit`: threads that move packets, 1 to 64; `auto` is half of the processors, 8 at most, and 1 on less than four ([many cores](performance.md#many-cores))", set: into(func(d *Daemon) *int { return &d.Workers }, workersOf)},
	{name: "ring", state: Own, def: "yes", note: "in section `adit`: single packets that the kernel forwards into a tunnel come by memory that it shares with adit ([single packets](performance.md#single-packets))", set: into(func(d *Daemon) *bool { return &d.NoRing }, notOf)},
	{name: "replay_window", def: "4096", note: "default of all children", set: into(func(d *Daemon) *uint32 { return &d.ReplayWindow }, uint32Of)},
}

// builtPlugins are those of section charon.plugins that adit goes by.
var builtPlugins = []option[Daemon]{
	{name: "vici.socket", def: "unix:///var/run/charon.vici", note: "`unix:///PATH` or `tcp://HOST:PORT`", set: into(func(d *Daemon) *string { return &d.VICISocket }, conf.Value.One)},
	{name: "bypass-lan.interfaces_ignore", state: Idle, note: noBypass}, {name: "bypass-lan.interfaces_use", state: Idle, note: noBypass},
	{name: "eap-tls.fragment_size", def: "1024", note: "bytes of a packet", set: into(func(d *Daemon) *int { return &d.EAPTLSFragment }, eapFragmentOf)},
	{name: "eap-tls.max_message_count", def: "32", state: Accepted, note: "a conversation has at most 64 packets"},
	{name: "eap-ttls.fragment_size", def: "1024", note: "bytes of a packet", set: into(func(d *Daemon) *int { return &d.EAPTTLSFragment }, eapFragmentOf)},
	{name: "eap-ttls.max_message_count", def: "32", state: Accepted, note: "a conversation has at most 64 packets"},
	{name: "eap-ttls.phase2_method", note: "what the server asks inside the tunnel: `md5`, `mschapv2` or `gtc`; default: `mschapv2`, then `md5`",
		set: into(func(d *Daemon) *string { return &d.TTLSMethod }, oneOf([]string{"md5", "mschapv2", "gtc"}, []string{"md5", "mschapv2", "gtc"}))},
	{name: "eap-ttls.request_peer_auth", def: "no", state: Idle, off: []string{"no"}, note: "EAP-TTLS asks no certificate of the peer: use EAP-TLS"},
	{name: "kernel-netlink.mtu", def: "0", note: "greatest MTU of routes into tunnels; 0: what fits", set: into(func(d *Daemon) *int { return &d.RouteMTU }, func(v conf.Value) (int, error) {
		n, err := v.Uint(65535)
		if err == nil && n != 0 && n < minFragment {
			err = v.Errorf("an MTU of %d bytes is too small; %d is the least", n, minFragment)
		}
		return int(n), err
	})},
	{name: "kernel-netlink.mss", def: "0", state: Idle, off: []string{"0"}, note: "`mss_clamp` lowers the MSS to what fits"},
	{name: "resolve.file", def: "/etc/resolv.conf", note: "where name servers that peers give us are written, and taken away again. Only if it is given, or `resolve` is in `load` or has `load = yes`",
		set: func(_ *decoder, d *Daemon, v conf.Value) error {
			if v.IsList || !filepath.IsAbs(v.Text) {
				return v.Errorf("%q is no absolute file name", v.Text)
			}
			d.resolve.file, d.resolve.on = v.Text, true
			return nil
		}},
	{name: "resolve.load", def: "no", set: func(_ *decoder, d *Daemon, v conf.Value) error {
		d.resolve.on = loads(v)
		return nil
	}},
	{name: "resolve.resolvconf.iface", state: Accepted, note: "says something only with `resolvconf.path`"},
	{name: "resolve.resolvconf.path", state: Idle, note: "adit does not run resolvconf: it writes `resolve.file`"},
	{name: "revocation.enable_crl", def: "yes", note: "CRLs are looked at", set: into(func(d *Daemon) *bool { return &d.NoCRL }, notOf)},
	{name: "revocation.enable_ocsp", def: "yes", note: "OCSP responders are asked", set: into(func(d *Daemon) *bool { return &d.NoOCSP }, notOf)},
	{name: "revocation.timeout", def: "10s", note: "of one fetch", set: into(func(d *Daemon) *time.Duration { return &d.FetchTimeout }, durationOf)},
	{name: "socket-default.use_ipv4", def: "yes", note: "IKE and ESP over IPv4", set: into(func(d *Daemon) *bool { return &d.NoIPv4 }, notOf)},
	{name: "socket-default.use_ipv6", def: "yes", note: "IKE and ESP over IPv6", set: into(func(d *Daemon) *bool { return &d.NoIPv6 }, notOf)},
	{name: "updown.dns_handler", def: "no", state: Idle, off: []string{"no"}, note: "scripts are not told name servers; see `resolve.file`"},
}

// readLater is for options that decodeAttributes reads.
func readLater(*decoder, *Daemon, conf.Value) error { return nil }

// minFragment is the least IP packet that every host takes (RFC 791).
const minFragment = 576

// habit sets a switch of the engine to on if the option's value is yes, and to the
// other way if it is no.
func habit(field func(*ike.Habits) *bool, on bool) func(*decoder, *Daemon, conf.Value) error {
	return func(_ *decoder, d *Daemon, v conf.Value) error {
		yes, err := v.Bool()
		*field(&d.Habits) = yes == on
		return err
	}
}

// natsOf reads the URLs of NATS servers.
func natsOf(v conf.Value) (string, error) {
	text, err := v.One()
	if err != nil {
		return "", err
	}
	for one := range strings.SplitSeq(text, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return "", v.Errorf("expected URLs such as nats://192.0.2.9:4222 or tls://nats.example") // not what they are: they may have a password
		}
	}
	return text, nil
}

// stateNameOf reads a name that is part of a subject of NATS.
func stateNameOf(v conf.Value) (string, error) {
	name, err := v.One()
	if err == nil && (name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	})) {
		err = v.Errorf("expected at most 64 letters, digits, - and _, not %q", name)
	}
	return name, err
}

func absoluteOf(v conf.Value) (string, error) {
	dir, err := v.One()
	if err == nil && !filepath.IsAbs(dir) {
		err = v.Errorf("%q is no absolute path", dir)
	}
	return dir, err
}

// gatewayOf reads the gateway that others are redirected to.
func gatewayOf(v conf.Value) (ike.RedirectTarget, error) {
	text, err := v.One()
	if err != nil {
		return ike.RedirectTarget{}, err
	}
	t, err := ike.ParseRedirectTarget(text)
	if err != nil {
		err = v.Errorf("%q is neither an address nor a host name", text)
	}
	return t, err
}

func fragmentOf(v conf.Value) (int, error) {
	n, err := v.Uint(65535)
	if err == nil && n != 0 && n < minFragment {
		err = v.Errorf("fragments of %d bytes are too small; %d is the least", n, minFragment)
	}
	return int(n), err
}

// spiOf reads an SPI, in decimal digits or in hexadecimal ones after 0x.
func spiOf(v conf.Value) (ipsec.SPI, error) {
	n, err := strconv.ParseUint(v.Text, 0, 32)
	if err != nil || v.IsList || ipsec.SPI(n) < ipsec.MinSPI {
		return 0, v.Errorf("expected an SPI from 0x100 to 0xffffffff, not %q", v.Text)
	}
	return ipsec.SPI(n), nil
}

// noBypass is what bypass-lan asks for: it is so anyway.
const noBypass = "the subnets of all links are outside of wider policies; what is not to be so needs selectors that name it"

// resolving is what the options of the plugin resolve say together.
type resolving struct {
	file string
	on   bool
}

// loads reports whether the value of a plugin's `load` loads it: yes, or a priority.
func loads(v conf.Value) bool {
	n, err := strconv.Atoi(v.Text)
	yes, _ := v.Bool()
	return yes || err == nil && n > 0
}

// limitInterface is the length of an interface's name (IFNAMSIZ, less its end).
const limitInterface = 15

func interfaceOf(v conf.Value) (string, error) {
	name, err := v.One()
	if err == nil && (name == "" || len(name) > limitInterface || strings.ContainsAny(name, "/ \t\n")) {
		err = v.Errorf("%q is no name of an interface", name)
	}
	return name, err
}

func interfacesOf(v conf.Value) ([]string, error) {
	list, err := wordsOf(limitInterfaces, "interfaces")(v)
	for _, name := range list {
		if name == "" || len(name) > limitInterface {
			return nil, v.Errorf("%q is no name of an interface", name)
		}
	}
	return list, err
}

// limitInterfaces bounds lists of interfaces.
const limitInterfaces = 256

// eapFragmentOf reads the size of EAP packets of a TLS method.
func eapFragmentOf(v conf.Value) (int, error) {
	n, err := v.Uint(16384)
	if err == nil && n < 100 {
		err = v.Errorf("packets of %d bytes are too small; 100 is the least", n)
	}
	return int(n), err
}

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
