package ipsecconf

import "strings"

// Place is where a keyword stands.
type Place string

// The places. Side are keywords of conn that begin with left or right.
const (
	InSetup Place = "config setup"
	InConn  Place = "conn"
	InSide  Place = "left|right"
	InCA    Place = "ca"
)

// Keyword is one keyword of ipsec.conf and what becomes of it.
type Keyword struct {
	Name       string
	Place      Place
	StrongSwan bool   // strongSwan's starter knows it
	Libreswan  bool   // Libreswan knows it
	Fate       string // translated, left out, by hand, not translated
	To         string // option of swanctl.conf, if there is one
	Note       string
}

// What becomes of keywords, as the table in docs/import.md names it.
const (
	FateTranslated = "translated"
	FateLeftOut    = "left out"       // nothing is lost by it
	FateByHand     = "by hand"        // the mark says what to do
	FateRefused    = "not translated" // the mark says why
)

// fates are the states that lines with keywords get that no code looks at.
var fates = map[string]state{FateLeftOut: moot, FateByHand: changed, FateRefused: refused}

const (
	forS = 1 << iota
	forL
	forB = forS | forL
)

type row struct {
	names string // separated by blanks
	who   int
	fate  string
	to    string
	note  string
}

// Keywords are all keywords of both dialects.
func Keywords() []Keyword {
	var out []Keyword
	for _, place := range []Place{InSetup, InConn, InSide, InCA} {
		for _, r := range table[place] {
			for name := range strings.FieldsSeq(r.names) {
				out = append(out, Keyword{name, place, r.who&forS != 0, r.who&forL != 0, r.fate, r.to, r.note})
			}
		}
	}
	return out
}

type spot struct {
	place Place
	name  string
}

var byName = func() map[spot]Keyword {
	m := map[spot]Keyword{}
	for _, k := range Keywords() {
		m[spot{k.Place, k.Name}] = k
	}
	return m
}()

// lookup finds the keyword of a setting in a section of that type, and what is near
// if there is none.
func lookup(typ, key string) (Keyword, bool) {
	place := map[string]Place{"setup": InSetup, "ca": InCA}[typ]
	if place == "" {
		if k, ok := byName[spot{InConn, key}]; ok {
			return k, true
		}
		for _, side := range []string{"left", "right"} {
			if rest, ok := strings.CutPrefix(key, side); ok {
				k, ok := byName[spot{InSide, strings.TrimPrefix(rest, "-")}]
				return k, ok
			}
		}
		return Keyword{}, false
	}
	k, ok := byName[spot{place, key}]
	return k, ok
}

// knownKeys are the keywords that a section of each type may have, for suggestions.
var knownKeys = func() map[string][]string {
	keys := map[string][]string{}
	for _, k := range Keywords() {
		switch k.Place {
		case InSetup:
			keys["setup"] = append(keys["setup"], k.Name)
		case InCA:
			keys["ca"] = append(keys["ca"], k.Name)
		case InConn:
			keys["conn"] = append(keys["conn"], k.Name)
		case InSide:
			keys["conn"] = append(keys["conn"], "left"+k.Name, "right"+k.Name)
		}
	}
	return keys
}()

const (
	noStrongswanConf = "belongs into strongswan.conf: "
	noTCP            = "adit does not carry IKE and ESP over TCP"
	noXFRM           = "names an interface of the kernel's IPsec, which a TUN device has not; use selectors or a route"
	noOE             = "adit has no opportunistic encryption"
	noIPTFS          = "adit does not support IP-TFS yet"
	noDNSKeys        = "adit does not fetch keys from the DNS"
	oldPluto         = "has no effect in strongSwan since 5.0"
	ofPluto          = "is about pluto as a process"
)

var table = map[Place][]row{
	InSetup: {
		{"uniqueids", forB, FateTranslated, "connections.NAME.unique", "yes is replace"},
		{"strictcrlpolicy", forS, FateTranslated, "connections.NAME.remote.revocation", ""},
		{"crl-strict ocsp-strict", forL, FateTranslated, "connections.NAME.remote.revocation", "adit takes either CRL or OCSP"},
		{"charondebug", forS, FateByHand, "", noStrongswanConf + "charon.syslog or charon.filelog, or adit log --level"},
		{"plutodebug debug", forB, FateLeftOut, "", "names parts of pluto; adit log shows what is to be seen"},
		{"cachecrls", forS, FateByHand, "", "adit keeps CRLs in memory; put those that must be there into x509crl"},
		{"virtual-private virtual_private", forB, FateLeftOut, "", "remote_ts and pools say what a peer may have"},
		{"protostack", forL, FateLeftOut, "", "there is one data plane"},
		{"ikev1-policy", forL, FateLeftOut, "", "version of each connection says it"},
		{"keep-alive", forL, FateByHand, "", noStrongswanConf + "charon.keep_alive"},
		{"logfile plutostderrlog", forB, FateByHand, "", noStrongswanConf + "charon.filelog"},
		{"syslog", forL, FateByHand, "", noStrongswanConf + "charon.syslog"},
		{"logtime logappend logip audit-log", forL, FateLeftOut, "", "is about the log file of pluto"},
		{"listen", forL, FateByHand, "", "adit listens on all addresses; local_addrs of each connection says which it uses"},
		{"listen-udp", forL, FateLeftOut, "", "adit always does"},
		{"listen-tcp", forL, FateRefused, "", noTCP},
		{"crlcheckinterval", forB, FateLeftOut, "", "CRLs are fetched again when they end"},
		{"ocsp-enable", forL, FateLeftOut, "", "OCSP is asked wherever a certificate or authority names a responder"},
		{"ocsp-uri ocsp-trustname", forL, FateByHand, "", "make an authority with ocsp_uris of that CA"},
		{"ocsp-timeout ocsp-cache-size ocsp-cache-min-age ocsp-cache-max-age ocsp-method curl-iface curl-timeout", forL, FateLeftOut, "", "adit has limits of its own for fetching"},
		{"ddos-mode", forL, FateLeftOut, "", "adit asks for cookies when many are half open"},
		{"ddos-ike-threshold max-halfopen-ike", forL, FateByHand, "", noStrongswanConf + "charon.cookie_threshold and charon.init_limit_half_open"},
		{"global-redirect global-redirect-to", forL, FateRefused, "", noStrongswanConf + "adit.redirect; or use adit drain"},
		{"shuntlifetime drop-oppo-null", forL, FateRefused, "", noOE},
		{"dnssec-enable dnssec-rootkey-file dnssec-anchors", forL, FateLeftOut, "", noDNSKeys},
		{"secretsfile ipsecdir nssdir", forL, FateLeftOut, "", "is about where files lie: see the list of what to copy"},
		{"myvendorid", forL, FateLeftOut, "", "is a name only"},
		{"dumpdir statsbin seccomp nhelpers seedbits ike-socket-bufsize ike-socket-errqueue xfrmlifetime nflog-all ikev1-secctx-attr-type secctx-attr-type", forL, FateLeftOut, "", ofPluto},
		{"ipsec-interface-managed", forL, FateRefused, "", noXFRM},
		{"interfaces", forB, FateLeftOut, "", "adit listens on all"},
		{"charonstart plutostart klipsdebug prepluto postpluto fragicmp packetdefault hidetos overridemtu nocrsend nat_traversal keep_alive force_keepalive", forS, FateLeftOut, "", oldPluto},
		{"pkcs11module pkcs11initargs pkcs11keepstate pkcs11proxy", forS, FateLeftOut, "", oldPluto},
	},
	InConn: {
		{"also", forB, FateTranslated, "", "the settings of that section are repeated here"},
		{"auto", forB, FateTranslated, "children.NAME.start_action", "ignore: the connection is written as a comment"},
		{"keyexchange", forB, FateTranslated, "version", ""},
		{"ikev2", forL, FateTranslated, "version", ""},
		{"ike", forB, FateTranslated, "proposals", "without ! strongSwan adds its default proposals"},
		{"esp", forB, FateTranslated, "children.NAME.esp_proposals", "the same"},
		{"phase2alg", forL, FateTranslated, "children.NAME.esp_proposals", ""},
		{"phase2", forL, FateTranslated, "", "esp or ah: which kind of proposals"},
		{"ah", forB, FateTranslated, "children.NAME.ah_proposals", ""},
		{"pfs", forB, FateTranslated, "children.NAME.esp_proposals", "Libreswan: the groups of ike in esp; strongSwan ignores it since 5.0"},
		{"esn", forL, FateTranslated, "children.NAME.esp_proposals", ""},
		{"authby", forB, FateTranslated, "local.auth, remote.auth", ""},
		{"eap_identity", forS, FateTranslated, "local.eap_id, remote.eap_id", "on the side with EAP"},
		{"aaa_identity", forS, FateTranslated, "local.aaa_id", ""},
		{"xauth", forS, FateTranslated, "", "which side of xauthpsk and xauthrsasig asks"},
		{"xauth_identity", forS, FateTranslated, "local.xauth_id", ""},
		{"xauthby xauthfail pam-authorize", forL, FateRefused, "", "adit asks no PAM and no password file: give the passwords as eap* secrets, or use RADIUS"},
		{"aggressive aggrmode", forB, FateTranslated, "aggressive", ""},
		{"modeconfig", forS, FateTranslated, "pull", ""},
		{"modecfgpull", forL, FateTranslated, "pull", ""},
		{"modecfgdns", forL, FateTranslated, "pools.NAME.dns", ""},
		{"modecfgdomains", forL, FateTranslated, "pools.NAME.25", ""},
		{"modecfgbanner", forL, FateTranslated, "pools.NAME.28672", ""},
		{"ignore-peer-dns", forL, FateLeftOut, "", "adit tells name servers in the log and sets none"},
		{"type", forB, FateTranslated, "children.NAME.mode", ""},
		{"compress", forB, FateTranslated, "children.NAME.ipcomp", ""},
		{"installpolicy", forS, FateTranslated, "children.NAME.policies", ""},
		{"mobike", forB, FateTranslated, "mobike", ""},
		{"fragmentation", forB, FateTranslated, "fragmentation", ""},
		{"forceencaps", forB, FateTranslated, "encap", ""},
		{"encapsulation", forL, FateTranslated, "encap", ""},
		{"ikedscp", forS, FateTranslated, "dscp", ""},
		{"dpdaction", forB, FateTranslated, "children.NAME.dpd_action", "strongSwan: none turns dpddelay off"},
		{"dpddelay", forB, FateTranslated, "dpd_delay", ""},
		{"dpdtimeout ikev1-dpdtimeout", forB, FateTranslated, "dpd_timeout", "IKEv1 only, as in both"},
		{"closeaction", forS, FateTranslated, "children.NAME.close_action", ""},
		{"inactivity", forS, FateTranslated, "children.NAME.inactivity", ""},
		{"ikelifetime", forB, FateTranslated, "rekey_time or reauth_time, over_time", "less the margin"},
		{"lifetime keylife", forB, FateTranslated, "children.NAME.life_time, rekey_time", "less the margin"},
		{"salifetime ipsec-lifetime", forL, FateTranslated, "children.NAME.life_time, rekey_time", "less the margin"},
		{"rekeymargin", forB, FateTranslated, "over_time, rekey_time", ""},
		{"margintime", forS, FateTranslated, "over_time, rekey_time", ""},
		{"rekeyfuzz", forB, FateTranslated, "rand_time, children.NAME.rand_time", "per cent of the margin"},
		{"lifebytes lifepackets", forS, FateTranslated, "children.NAME.life_bytes, life_packets", "with the margin"},
		{"marginbytes marginpackets", forS, FateTranslated, "children.NAME.rekey_bytes, rekey_packets", ""},
		{"ipsec-max-bytes ipsec-max-packets", forL, FateTranslated, "children.NAME.life_bytes, life_packets", ""},
		{"rekey", forB, FateTranslated, "rekey_time, children.NAME.rekey_time", "no is 0"},
		{"reauth", forB, FateTranslated, "reauth_time", "default of strongSwan: yes"},
		{"keyingtries", forB, FateTranslated, "keyingtries", "%forever is 0"},
		{"reqid", forB, FateTranslated, "children.NAME.reqid", ""},
		{"mark", forB, FateTranslated, "children.NAME.mark_in, mark_out", ""},
		{"mark_in", forS, FateTranslated, "children.NAME.mark_in", ""},
		{"mark_out", forS, FateTranslated, "children.NAME.mark_out", ""},
		{"mark-in", forL, FateTranslated, "children.NAME.mark_in", ""},
		{"mark-out", forL, FateTranslated, "children.NAME.mark_out", ""},
		{"tfc", forB, FateTranslated, "children.NAME.tfc_padding", ""},
		{"replay_window", forS, FateTranslated, "children.NAME.replay_window", "-1 is the default"},
		{"replay-window", forL, FateTranslated, "children.NAME.replay_window", ""},
		{"priority", forL, FateTranslated, "children.NAME.priority", ""},
		{"sha256_96", forS, FateTranslated, "children.NAME.sha256_96", ""},
		{"sha2-truncbug", forL, FateTranslated, "children.NAME.sha256_96", ""},
		{"nic-offload", forL, FateTranslated, "children.NAME.hw_offload", ""},
		{"encap-dscp decap-dscp", forL, FateTranslated, "children.NAME.copy_dscp", ""},
		{"nopmtudisc", forL, FateTranslated, "children.NAME.copy_df", ""},
		{"mediation", forS, FateTranslated, "mediation", ""},
		{"mediated_by", forS, FateTranslated, "mediated_by", ""},
		{"me_peerid", forS, FateTranslated, "mediation_peer", ""},
		{"ppk-ids", forL, FateTranslated, "ppk_id", "the first one"},
		{"ppk", forL, FateTranslated, "ppk_required", "insist is yes"},
		{"policy-label sec-label", forL, FateTranslated, "children.NAME.label", ""},
		{"narrowing", forL, FateTranslated, "", "adit always narrows; no says so in a mark"},
		{"hostaddrfamily clientaddrfamily", forL, FateTranslated, "", "which family names and %any stand for"},
		{"failureshunt", forL, FateTranslated, "", "none and drop: adit lets nothing out in the clear; others are marked"},
		{"negotiationshunt", forL, FateTranslated, "", "hold and drop, the same"},
		{"sendca", forL, FateLeftOut, "", "intermediate CAs in the file of the certificate are sent with it"},
		{"initial-contact", forL, FateLeftOut, "", "adit sends it when it is true"},
		{"send-vendorid fake-strongswan", forL, FateLeftOut, "", "no peer may depend on it"},
		{"cisco-unity remote-peer-type remote_peer_type", forL, FateLeftOut, "", "clients ask for Cisco's attributes of IKEv1, gateways give them to who asks"},
		{"nat-ikev1-method", forL, FateLeftOut, "", "adit speaks RFC 3947 and the drafts before it, whichever the peer does"},
		{"ikepad send-no-esp-tfc", forL, FateLeftOut, "", "adit understands either"},
		{"require-id-on-certificate", forL, FateTranslated, "", "adit always demands it; no is marked"},
		{"ms-dh-downgrade pfs-rekey-workaround", forL, FateByHand, "", "list the groups that the peer uses in esp_proposals"},
		{"intermediate", forL, FateLeftOut, "", "adit offers it with proposals that need it"},
		{"session-resumption", forL, FateRefused, "", "belongs into strongswan.conf: adit.session_resumption, for all connections"},
		{"redirect-to send-redirect", forL, FateRefused, "", "give the connection redirect = GATEWAY"},
		{"accept-redirect accept-redirect-to", forL, FateRefused, "", noStrongswanConf + "charon.follow_redirects, for all connections"},
		{"enable-tcp tcp-remoteport", forL, FateRefused, "", noTCP},
		{"iptfs iptfs-fragmentation iptfs-packet-size iptfs-max-queue-size iptfs-reorder-window iptfs-init-delay iptfs-drop-time", forL, FateRefused, "", noIPTFS},
		{"vti-interface vti-routing vti-shared ipsec-interface", forL, FateRefused, "", noXFRM},
		{"retransmit-timeout retransmit-interval", forL, FateByHand, "", noStrongswanConf + "charon.retransmit_timeout, retransmit_base and retransmit_tries, for all connections"},
		{"nat-keepalive", forL, FateByHand, "", noStrongswanConf + "charon.keep_alive, for all connections"},
		{"mtu metric", forL, FateByHand, "", "adit's routes carry the MTU of the tunnel; there is none for a connection"},
		{"overlapip", forL, FateRefused, "", "two peers with the same inside addresses need a gateway for each"},
		{"nflog", forL, FateRefused, "", "adit has no such counter of the packet filter: adit status and pcaps show packets"},
		{"nm-configured", forL, FateLeftOut, "", "is a note for NetworkManager"},
		{"connalias", forL, FateRefused, "", "initiate by the name of the connection or child"},
		{"plutodebug debug", forL, FateLeftOut, "", "is about the log; adit log shows one connection"},
		{"left right", forB, FateTranslated, "local_addrs, remote_addrs", "which is local: the one with an own address, otherwise left"},
		{"eap", forS, FateLeftOut, "", oldPluto},
	},
	InSide: {
		{"id", forB, FateTranslated, "local.id, remote.id", "without: the address, unless there is a certificate"},
		{"id2", forS, FateTranslated, "local-2.id, remote-2.id", ""},
		{"subnet", forB, FateTranslated, "children.NAME.local_ts, remote_ts", ""},
		{"subnetwithin", forS, FateTranslated, "children.NAME.local_ts, remote_ts", ""},
		{"subnets", forL, FateTranslated, "children", "one child for each pair"},
		{"protoport", forB, FateTranslated, "children.NAME.local_ts, remote_ts", ""},
		{"ikeport", forB, FateTranslated, "local_port, remote_port", ""},
		{"allowany", forS, FateTranslated, "remote_addrs", ""},
		{"sourceip", forB, FateTranslated, "vips, pools", "Libreswan: left out, adit chooses the address inside local_ts"},
		{"addresspool", forL, FateTranslated, "pools", ""},
		{"modecfgclient", forL, FateTranslated, "vips", ""},
		{"modecfgserver", forL, FateTranslated, "pools", "together with an address pool"},
		{"dns", forS, FateTranslated, "pools.NAME.dns", "of the remote side"},
		{"auth", forB, FateTranslated, "local.auth, remote.auth", ""},
		{"auth2", forS, FateTranslated, "local-2.auth, remote-2.auth", ""},
		{"autheap", forL, FateTranslated, "local.auth, remote.auth", ""},
		{"cert", forB, FateTranslated, "local.certs, remote.certs", "Libreswan: must be exported from NSS"},
		{"cert2", forS, FateTranslated, "local-2.certs, remote-2.certs", ""},
		{"certpolicy", forS, FateTranslated, "remote.cert_policy", ""},
		{"sendcert", forB, FateTranslated, "send_cert, send_certreq", ""},
		{"sigkey", forS, FateTranslated, "local.pubkeys, remote.pubkeys", "a key in the line becomes a file"},
		{"rsasigkey", forB, FateTranslated, "local.pubkeys, remote.pubkeys", "a key in the line becomes a file"},
		{"ecdsakey pubkey", forL, FateTranslated, "remote.pubkeys", "a key in the line becomes a file"},
		{"ckaid", forL, FateByHand, "", "names a key in NSS: export its certificate, and name the file in certs"},
		{"ca", forB, FateTranslated, "remote.ca_id", "%same and the own side: left out"},
		{"ca2", forS, FateTranslated, "remote-2.ca_id", ""},
		{"groups", forS, FateTranslated, "remote.groups", ""},
		{"groups2", forS, FateTranslated, "remote-2.groups", ""},
		{"updown", forB, FateTranslated, "children.NAME.updown", ""},
		{"firewall", forS, FateTranslated, "children.NAME.updown", "as a comment: its rules match packets of the kernel's IPsec"},
		{"hostaccess", forS, FateTranslated, "children.NAME.hostaccess", ""},
		{"username xauthusername", forL, FateTranslated, "local.eap_id, local.xauth_id", ""},
		{"xauthclient xauthserver", forL, FateTranslated, "local-xauth.auth, remote-xauth.auth", ""},
		{"nexthop", forB, FateLeftOut, "", "the routing table says it"},
		{"vti interface-ip", forL, FateRefused, "", noXFRM},
		{"cat", forL, FateRefused, "", "adit translates no addresses of clients: use nftables"},
		{"groundhog", forL, FateRefused, "", "adit ends a peer's old SA by its identity alone"},
	},
	InCA: {
		{"also", forS, FateTranslated, "", ""},
		{"auto", forS, FateTranslated, "", "ignore: the authority is written as a comment"},
		{"cacert", forS, FateTranslated, "authorities.NAME.cacert", ""},
		{"crluri crluri1 crluri2", forS, FateTranslated, "authorities.NAME.crl_uris", ""},
		{"ocspuri ocspuri1 ocspuri2", forS, FateTranslated, "authorities.NAME.ocsp_uris", ""},
		{"certuribase", forS, FateTranslated, "authorities.NAME.cert_uri_base", "read and without effect in adit"},
		{"ldaphost ldapbase", forS, FateLeftOut, "", oldPluto},
	},
}

// detect tells the dialect by the keywords that only one of the two knows.
func detect(f *File) Dialect {
	votes := 0
	typ := ""
	for _, l := range f.Lines {
		switch l.Kind {
		case isSection:
			typ = l.Type
			if typ == "ca" {
				votes++
			}
		case isVersion:
			votes--
		case isSetting:
			k, ok := lookup(typ, l.Key)
			switch {
			case !ok:
			case k.StrongSwan && !k.Libreswan:
				votes++
			case k.Libreswan && !k.StrongSwan:
				votes--
			}
			votes += telling(l.Key, l.Value)
		}
	}
	if votes < 0 {
		return Libreswan
	}
	return StrongSwan
}

// telling are values that only one dialect has: positive ones are strongSwan's.
func telling(key, value string) int {
	switch {
	case key == "auto" && (value == "ondemand" || value == "keep" || value == "up"),
		strings.HasSuffix(key, "cert") && value != "" && !strings.Contains(value, ".") && !strings.HasSuffix(key, "sendcert"),
		strings.HasSuffix(key, "id") && value == "%fromcert",
		key == "authby" && strings.ContainsAny(value, ",|"),
		key == "keyexchange" && value == "insist",
		(key == "ike" || key == "esp" || key == "phase2alg") && strings.ContainsAny(value, ";_+"):
		return -1
	case (key == "ike" || key == "esp") && (strings.Contains(value, "ecp") || strings.Contains(value, "prfsha")):
		return 1
	}
	return 0
}
