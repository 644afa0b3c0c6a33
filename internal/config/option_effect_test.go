package config_test

import (
	"reflect"
	"strings"
	"testing"

	"adit/conf"
	"adit/internal/config"
)

// samples are values of built options that are not the default, by table.
var samples = map[string]map[string]string{
	"connections.<name>": {
		"version": "2", "aggressive": "yes", "pull": "no", "dpd_timeout": "2m", "local_addrs": "192.0.2.1", "remote_addrs": "192.0.2.2", "local_port": "501", "remote_port": "502", "proposals": "aes256gcm16-prfsha384-ecp384",
		"pq": "require", "ppk_id": "carol", "ppk_required": "yes", "ppk_intermediate": "require", "vips": "0.0.0.0", "pools": "p", "dscp": "000001", "encap": "yes", "dpd_delay": "3s", "fragmentation": "no", "childless": "never", "mobike": "no", "redirect": "gw2.example", "send_certreq": "no",
		"send_cert": "always", "keyingtries": "3", "unique": "replace", "ocsp": "both", "reauth_time": "1h", "rekey_time": "1h", "over_time": "7s", "rand_time": "7s",
	},
	"connections.<name>.local*, remote*": {
		"auth": "psk", "xauth_id": "me", "id": "me.example", "cert_policy": "1.2.3", "groups": "g", "ca_id": "C=CH, CN=root", "aaa_id": "aaa.example", "eap_id": "me", "revocation": "strict",
		// with files: TestLoadCredentials and its neighbours
		"certs": "", "cacerts": "", "pubkeys": "", "round": "",
	},
	"connections.<name>.children.<name>": {
		"esp_proposals": "aes256gcm16", "local_ts": "10.0.0.0/8", "remote_ts": "10.0.0.0/8", "rekey_time": "7m", "life_time": "9m", "rand_time": "7s", "rekey_bytes": "100",
		"life_bytes": "1m", "rand_bytes": "7", "rekey_packets": "100", "life_packets": "100", "rand_packets": "7", "updown": "/bin/true", "hostaccess": "yes", "keep_up": "yes",
		"mode": "transport", "policies": "no", "dpd_action": "trap", "start_action": "trap", "close_action": "trap", "inactivity": "9s", "reqid": "7", "priority": "7",
		"tfc_padding": "mtu", "replay_window": "64", "copy_df": "no", "copy_ecn": "no", "copy_dscp": "in", "mss_clamp": "no", "sha256_96": "yes", "per_cpu_sas": "encap",
	},
	"charon": {
		"port": "501", "port_nat_t": "4501", "routing_table": "221", "routing_table_prio": "221", "install_routes": "no", "retransmit_timeout": "2", "retransmit_limit": "9",
		"retransmit_base": "2", "retransmit_tries": "7", "retransmit_jitter": "7", "keep_alive": "7s", "half_open_timeout": "7", "cookie_threshold": "7", "cookie_threshold_ip": "7",
		"block_threshold": "7", "init_limit_half_open": "7", "delete_rekeyed_delay": "7", "retry_initiate_interval": "7s", "make_before_break": "no",
		"prefer_configured_proposals": "no", "fragment_size": "1400", "fragment_size_v4": "1400", "fragment_size_v6": "1400", "max_packet": "20000", "signature_authentication": "no",
		"rsa_pss": "yes", "full_transcript_auth": "no", "dns1": "10.0.0.1", "dns2": "10.0.0.1", "nbns1": "10.0.0.1", "nbns2": "10.0.0.1", "health": "127.0.0.1:8080", "workers": "3", "ring": "no", "replay_window": "64",
		"cisco_flexvpn": "yes", "close_ike_on_child_failure": "yes", "ignore_acquire_ts": "yes", "inactivity_close_ike": "yes", "initiator_only": "yes", "i_dont_care_about_security_and_use_aggressive_mode_psk": "yes",
		"multiple_authentication": "no", "send_vendor_id": "yes", "keep_alive_dpd_margin": "7s", "ikesa_limit": "7", "spi_min": "0xc0000000", "spi_max": "0xcfffffff", "dos_protection": "no",
		"install_virtual_ip": "no", "install_virtual_ip_on": "lan", "interfaces_use": "wan, lan", "interfaces_ignore": "lan", "prefer_temporary_addrs": "yes", "compat": "next",
		"reject_trusted_end_entity": "yes", "follow_redirects": "no", "redirect": "192.0.2.9", "crash_detection": "no", "session_resumption": "yes", "state_dir": "/tmp/x",
		"lockout.identity": "3", "lockout.source": "3",
		"state.nats": "nats://192.0.2.9", "state.dir": "/tmp/x", "state.credentials": "/tmp/x", "state.ca": "/tmp/x", "state.bucket": "b", "state.gateway": "g", "state.replicas": "5", "state.reclaim": "1h",
	},
	"charon.plugins": {
		"vici.socket": "unix:///tmp/x", "eap-tls.fragment_size": "500", "eap-ttls.fragment_size": "500", "eap-ttls.phase2_method": "gtc", "kernel-netlink.mtu": "1300",
		"resolve.file": "/run/resolv.conf", "resolve.load": "yes", "revocation.enable_crl": "no", "revocation.enable_ocsp": "no", "revocation.timeout": "3s",
		"socket-default.use_ipv4": "no", "socket-default.use_ipv6": "no",
	},
}

// Every option that is built changes something of what is decoded.
func TestBuiltOptionsDoSomething(t *testing.T) {
	wrap := map[string][2]string{
		"connections.<name>":                 {"connections {\n gw {\n", "\n }\n}\n"},
		"connections.<name>.local*, remote*": {"connections {\n gw {\n remote {\n auth = eap\n", "\n }\n }\n}\n"},
		"connections.<name>.children.<name>": {"connections {\n gw {\n remote_addrs = 192.0.2.2\n children {\n net {\n life_bytes = 1000\n life_packets = 1000\n", "\n }\n }\n }\n}\n"},
	}
	for _, table := range config.Tables() {
		values, ok := samples[table.Section]
		if !ok {
			continue
		}
		seen := map[string]bool{}
		for _, r := range table.Rows {
			if r.State != config.Built && r.State != config.Own {
				continue
			}
			seen[r.Name] = true
			value, ok := values[r.Name]
			switch {
			case !ok:
				t.Errorf("%s: there is no sample of %s", table.Section, r.Name)
			case value == "":
			case strings.HasPrefix(table.Section, "charon"):
				settingDoesSomething(t, table.Section, r.Name, value)
			default:
				w := wrap[table.Section]
				before, err1 := decode(t, w[0]+w[1])
				after, err2 := decode(t, w[0]+"    "+r.Name+" = "+value+w[1])
				if err1 != nil || err2 != nil {
					t.Errorf("%s: %s = %s: %v %v", table.Section, r.Name, value, err1, err2)
				} else if reflect.DeepEqual(before.Peers, after.Peers) {
					t.Errorf("%s: %s = %s changes nothing", table.Section, r.Name, value)
				}
			}
		}
		for name := range values {
			if !seen[name] {
				t.Errorf("%s: %s is no built option", table.Section, name)
			}
		}
	}
}

func settingDoesSomething(t *testing.T, section, name, value string) {
	t.Helper()
	root := conf.New("")
	before, err := config.DecodeDaemon(root)
	if err != nil {
		t.Fatal(err)
	}
	s := root
	words := strings.Split(section+"."+name, ".")
	for _, w := range words[:len(words)-1] {
		s = s.Add(w)
	}
	s.Set(words[len(words)-1], value)
	after, err := config.DecodeDaemon(root)
	if err != nil || len(after.Warnings) > 0 {
		t.Errorf("%s.%s = %s: %v %v", section, name, value, err, after.Warnings)
		return
	}
	if reflect.DeepEqual(before, after) {
		t.Errorf("%s.%s = %s changes nothing", section, name, value)
	}
}
