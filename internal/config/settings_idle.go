package config

import (
	"slices"
	"strings"

	"adit/conf"
)

// What of strongswan.conf has no effect, and why. Accepted: there is nothing that it
// could change here. Idle: whoever sets it expects something that does not come, and is told.

// Reasons that several options share.
const (
	noIKEv1     = "of IKEv1 only"
	noThreads   = "adit has no such pool of threads"
	noTables    = "its tables grow by themselves"
	noModules   = "adit has no plugins to load"
	noCrypto    = "the algorithms are tested when adit is built"
	noTNC       = "adit has no Trusted Network Connect"
	noSQL       = "adit keeps nothing in a database"
	noToken11   = "adit has no tokens (PKCS#11, TPM)"
	noSIM       = "adit has no EAP-SIM and EAP-AKA"
	noPlugin    = "adit has no such plugin"
	noKernel    = "adit’s data plane is not the kernel’s"
	noOtherOS   = "of another operating system, or of a client’s program"
	otherCrypto = "the algorithms are Go’s own"
	noDelays    = "for tests of charon; the network’s delays can be made by `tc`"
)

// idleOptions are those of section charon.
var idleOptions = []option[Daemon]{
	{name: "accept_private_algs", def: "no", state: Idle, off: []string{"no"}, note: "algorithms of private numbers are none that adit knows"},
	{name: "accept_unencrypted_mainmode_messages", def: "no", state: Accepted, note: noIKEv1 + ": message 5 of main mode must be encrypted"},
	{name: "cert_cache", def: "yes", state: Accepted, note: "what was verified is remembered by adit’s own rules"},
	{name: "cache_crls", def: "no", state: Idle, off: []string{"no"}, note: "CRLs that were fetched are kept in memory, not in x509crl"},
	{name: "check_current_path", def: "no", state: Accepted, note: "of MOBIKE; `dpd_delay` tells whether a path still works"},
	{name: "cisco_unity", def: "no", state: Accepted, note: noIKEv1 + ": who gives or wants virtual addresses speaks Cisco's attributes"},
	{name: "crypto_test.*", state: Accepted, note: noCrypto},
	{name: "delete_rekeyed", def: "no", state: Accepted, note: noIKEv1 + ": IKEv2 deletes what was rekeyed anyway"},
	{name: "dh_exponent_ansi_x9_42", def: "yes", state: Accepted, note: "exponents are as long as the group’s strength asks for"},
	{name: "dlopen_use_rtld_now", def: "no", state: Accepted, note: noModules},
	{name: "force_eap_only_authentication", def: "no", state: Idle, off: []string{"no"}, note: "EAP alone needs the peer's consent, as RFC 5998 demands"},
	{name: "flush_auth_cfg", def: "no", state: Accepted, note: "what authentication needed is always freed"},
	{name: "group", state: Idle, note: "the service’s unit says as whom adit runs"},
	{name: "user", state: Idle, note: "the service’s unit says as whom adit runs"},
	{name: "hash_and_url", def: "no", state: Idle, off: []string{"no"}, note: "certificates are sent themselves, not their hash and URL"},
	{name: "host_resolver.*", state: Accepted, note: noThreads},
	{name: "ikesa_table_segments", def: "1", state: Accepted, note: noTables},
	{name: "ikesa_table_size", def: "1", state: Accepted, note: noTables},
	{name: "ignore_routing_tables", state: Idle, note: "the kernel chooses the route to a peer, by all of its tables"},
	{name: "init_limit_job_load", def: "0", state: Idle, off: []string{"0"}, note: "first messages have a queue of their own that alone drops in a flood; see `init_limit_half_open`"},
	{name: "integrity_test", def: "no", state: Accepted, note: "adit is one file"},
	{name: "leak_detective.*", state: Accepted, note: "memory is garbage-collected"},
	{name: "load", state: Accepted, note: noModules + ", but for the name `resolve` in it", set: func(_ *decoder, d *Daemon, v conf.Value) error {
		d.resolve.on = d.resolve.on || slices.Contains(strings.Fields(v.Text), "resolve")
		return nil
	}},
	{name: "load_modular", def: "no", state: Accepted, note: noModules},
	{name: "max_ikev1_exchanges", def: "3", state: Accepted, note: noIKEv1 + ": always 8"},
	{name: "ocsp_nonce_len", def: "32", state: Accepted, note: "always 32"},
	{name: "plugindir", state: Accepted, note: noModules},
	{name: "prefer_best_path", def: "no", state: Accepted, note: "of MOBIKE"},
	{name: "process_route", def: "yes", state: Accepted, note: "changes of addresses, links and routes are always watched"},
	{name: "processor.*", state: Accepted, note: noThreads},
	{name: "rdn_matching", def: "strict", state: Idle, off: []string{"strict"}, note: "distinguished names are always compared strictly"},
	{name: "receive_delay*", state: Idle, off: []string{"0", "yes"}, note: noDelays},
	{name: "send_delay*", state: Idle, off: []string{"0", "yes"}, note: noDelays},
	{name: "reqid_base", def: "1", state: Accepted, note: "numbers shown begin at 1; the kernel sees none"},
	{name: "rsa_pss_trailerfield", def: "no", state: Accepted, note: "the field is optional, peers take both"},
	{name: "reuse_ikesa", def: "yes", state: Idle, off: []string{"yes"}, note: "an IKE SA that is there is always used for further children"},
	{name: "signature_authentication_constraints", def: "yes", state: Idle, off: []string{"yes"}, note: "constraints in `auth` always hold for the signature of IKE_AUTH, too"},
	{name: "x509.enforce_critical", def: "yes", state: Idle, off: []string{"yes"}, note: "a certificate with a critical extension that is not known is never trusted"},
	{name: "spi_label", def: "0", state: Idle, off: []string{"0", "0x0000000000000000"}, note: "IKE SPIs carry the number of adit’s shard"},
	{name: "spi_mask", def: "0", state: Idle, off: []string{"0", "0x0000000000000000"}, note: "IKE SPIs carry the number of adit’s shard"},
	{name: "start-scripts.*", state: Idle, note: "use the service’s ExecStartPost"},
	{name: "stop-scripts.*", state: Idle, note: "use the service’s ExecStop"},
	{name: "threads", def: "16", state: Accepted, note: noThreads},
	{name: "tls.*", state: Idle, note: "EAP-TLS and EAP-TTLS use TLS 1.2 and 1.3 with Go’s choice of algorithms"},
	{name: "iptfs.*", state: Accepted, note: "says something only with `mode = iptfs`, which is refused"},
	{name: "tnc.*", state: Accepted, note: noTNC},
	{name: "imcv.*", state: Accepted, note: noTNC},
	{name: "nm.*", state: Accepted, note: noOtherOS},
}

// idlePlugins are those of section charon.plugins.
var idlePlugins = []option[Daemon]{
	{name: "addrblock.*", state: Idle, note: "address blocks in certificates (RFC 3779) are not looked at"},
	{name: "android_log.*", state: Accepted, note: noOtherOS},
	{name: "attr-sql.*", state: Idle, note: noSQL},
	{name: "botan.*", state: Accepted, note: otherCrypto},
	{name: "certexpire.*", state: Idle, note: noPlugin + "; `adit check` tells what expires"},
	{name: "coupling.*", state: Idle, note: noPlugin},
	{name: "counters.*", state: Accepted, note: "counters are always kept"},
	{name: "curl.*", state: Accepted, note: "adit fetches by itself"},
	{name: "dhcp.*", state: Idle, note: "adit asks no DHCP server for addresses of peers: use a pool"},
	{name: "dnscert.*", state: Idle, off: []string{"no"}, note: "certificates and keys in the DNS are not looked at"},
	{name: "drbg.*", state: Accepted, note: otherCrypto},
	{name: "duplicheck.*", state: Idle, off: []string{"yes"}, note: noPlugin + "; see `unique`"},
	{name: "eap-aka.*", state: Idle, note: noSIM}, {name: "eap-aka-3gpp.*", state: Idle, note: noSIM}, {name: "eap-aka-3gpp2.*", state: Idle, note: noSIM},
	{name: "eap-dynamic.preferred", state: Idle, note: "eap-dynamic offers what adit has in its own order"},
	{name: "eap-dynamic.prefer_user", def: "no", state: Accepted, note: "the peer’s wish (Nak) always counts"},
	{name: "eap-gtc.backend", def: "pam", state: Idle, note: "passwords are those of `secrets`, or RADIUS is asked"},
	{name: "eap-peap.*", state: Idle, note: "adit has no EAP-PEAP"},
	{name: "eap-sim.*", state: Idle, note: noSIM}, {name: "eap-sim-file.*", state: Idle, note: noSIM}, {name: "eap-simaka-sql.*", state: Idle, note: noSIM},
	{name: "eap-tnc.*", state: Idle, note: noTNC},
	{name: "error-notify.*", state: Idle, note: noPlugin + ": `adit log` and VICI’s event `alert` tell of refusals"},
	{name: "ext-auth.script", state: Idle, note: noPlugin},
	{name: "farp.*", state: Idle, note: "adit does not answer ARP for peers: route their addresses, or use proxy_arp"},
	{name: "forecast.*", state: Idle, note: "multicast and broadcast are not carried"},
	{name: "gcrypt.*", state: Accepted, note: otherCrypto},
	{name: "ha.*", state: Idle, note: "adit’s cluster is another one"},
	{name: "imc-*", state: Accepted, note: noTNC},
	{name: "imv-*", state: Accepted, note: noTNC},
	{name: "ipseckey.*", state: Idle, off: []string{"no"}, note: "keys in the DNS are not looked at"},
	{name: "eap-tls.include_length", def: "yes", state: Accepted, note: "only the first of several fragments has the length, as peers expect"},
	{name: "eap-ttls.include_length", def: "yes", state: Accepted, note: "only the first of several fragments has the length, as peers expect"},
	{name: "eap-ttls.phase2_piggyback", def: "no", state: Accepted, note: "the first packet of the method is always in one of its own"},
	{name: "eap-ttls.phase2_tnc", def: "no", state: Idle, off: []string{"no"}, note: noTNC},
	{name: "eap-ttls.phase2_tnc_method", def: "pt", state: Accepted, note: noTNC},
	{name: "kernel-libipsec.allow_peer_ts", def: "no", state: Accepted, note: "selectors may always contain the peer: IKE and ESP are outside of the policies"},
	{name: "kernel-libipsec.fwmark", state: Accepted, note: "adit’s sockets have a mark of their own"},
	{name: "socket-default.fwmark", state: Idle, note: "adit’s sockets have a mark of their own, which keeps IKE and ESP outside of the policies"},
	{name: "socket-default.set_source", def: "yes", state: Accepted, note: "the source address is always set"},
	{name: "socket-default.set_sourceif", def: "no", state: Idle, off: []string{"no"}, note: "link-local addresses cannot be endpoints"},
	{name: "kernel-libipsec.raw_esp", def: "no", state: Accepted, note: "`encap` says when ESP is raw"},
	{name: "kernel-netlink.buflen", state: Accepted, note: noKernel},
	{name: "kernel-netlink.fwmark", state: Idle, note: "adit’s rules have marks of their own"},
	{name: "kernel-netlink.hw_offload_feature_interface", state: Accepted, note: noKernel},
	{name: "kernel-netlink.ignore_retransmit_errors", state: Accepted, note: noKernel},
	{name: "kernel-netlink.install_routes_xfrmi", state: Accepted, note: noKernel},
	{name: "kernel-netlink.parallel_*", state: Accepted, note: noKernel},
	{name: "kernel-netlink.policy_update", state: Accepted, note: noKernel},
	{name: "kernel-netlink.port_bypass", state: Accepted, note: "IKE is always outside of the policies"},
	{name: "kernel-netlink.process_rules", state: Accepted, note: noKernel},
	{name: "kernel-netlink.receive_buffer_size", state: Accepted, note: noKernel},
	{name: "kernel-netlink.retries", state: Accepted, note: noKernel},
	{name: "kernel-netlink.roam_events", state: Accepted, note: "changes of addresses, links and routes are always watched"},
	{name: "kernel-netlink.set_proto_port_transport_sa", state: Accepted, note: "selectors are always checked"},
	{name: "kernel-netlink.spdh_thresh.*", state: Accepted, note: noKernel},
	{name: "kernel-netlink.timeout", state: Accepted, note: noKernel},
	{name: "kernel-netlink.xfrm_acq_expires", state: Accepted, note: noKernel},
	{name: "kernel-pfkey.*", state: Accepted, note: noOtherOS},
	{name: "kernel-pfroute.*", state: Accepted, note: noOtherOS},
	{name: "led.*", state: Idle, note: noPlugin},
	{name: "load-tester.*", state: Idle, note: noPlugin + "; see `adit bench`"},
	{name: "lookip.*", state: Idle, note: noPlugin + ": VICI’s list-sas has `remote-vips`"},
	{name: "medcli.*", state: Idle, note: noMediation},
	{name: "medsrv.*", state: Idle, note: noMediation},
	{name: "openssl.*", state: Accepted, note: otherCrypto},
	{name: "openxpki.*", state: Idle, note: noSQL},
	{name: "osx-attr.*", state: Accepted, note: noOtherOS},
	{name: "p-cscf.enable.*", state: Idle, off: []string{"no"}, note: "SIP servers are not asked for"},
	{name: "pkcs11.*", state: Idle, note: noToken11},
	{name: "radattr.*", state: Idle, note: noPlugin},
	{name: "random.*", state: Accepted, note: "random numbers are the kernel’s"},
	{name: "save-keys.*", state: Idle, off: []string{"no"}, note: "see `--unsafe-debug-dir`"},
	{name: "sql.*", state: Idle, note: noSQL},
	{name: "stroke.*", state: Accepted, note: "adit has no stroke socket: it is run by swanctl"},
	{name: "systime-fix.*", state: Idle, note: noPlugin},
	{name: "tnc*", state: Accepted, note: noTNC},
	{name: "tpm.*", state: Idle, note: noToken11},
	{name: "unbound.*", state: Idle, note: "keys in the DNS are not looked at"},
	{name: "unity.*", state: Accepted, note: noIKEv1},
	{name: "whitelist.*", state: Idle, off: []string{"yes"}, note: noPlugin},
	{name: "wolfssl.*", state: Accepted, note: otherCrypto},
	{name: "xauth-*", state: Accepted, note: noIKEv1},
}
