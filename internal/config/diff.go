package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"adit/ike"
	"adit/ipsec"
	"adit/pki"
	"adit/suite"
)

// Difference is an option that differs between two configurations of one
// connection: its path below the connection, and its values as a person reads
// them. A value that is absent is empty.
type Difference struct{ Path, Old, New string }

// The options that the fields of the model come from.
var (
	peerNames = map[string]string{"Version": "version", "LocalAddrs": "local_addrs", "RemoteAddrs": "remote_addrs", "LocalPort": "local_port", "RemotePort": "remote_port",
		"Proposals": "proposals", "PreferPeer": "charon.prefer_configured_proposals", "SendCert": "send_cert", "SendCertReq": "send_certreq", "Fragmentation": "fragmentation",
		"Childless": "childless", "MOBIKE": "mobike", "Redirect": "redirect", "VIPs": "vips", "Pools": "pools", "Unique": "unique", "Encap": "encap", "KeyingTries": "keyingtries", "GiveUp": "keyingtries",
		"RekeyTime": "rekey_time", "ReauthTime": "reauth_time", "OverTime": "over_time", "RandTime": "rand_time", "DPDDelay": "dpd_delay", "DPDTimeout": "dpd_timeout",
		"DSCP": "dscp", "AskOCSP": "ocsp", "PPKID": "ppk_id", "PPKRequired": "ppk_required", "PPKIntermediate": "ppk_intermediate", "Aggressive": "aggressive", "Push": "pull"}
	roundNames = map[string]string{"Method": "auth", "EAP": "auth", "Constraints": "auth", "ID": "id", "Certs": "certs", "CACerts": "cacerts", "CAID": "ca_id", "Pubkeys": "pubkeys",
		"CertPolicies": "cert_policy", "Groups": "groups", "AAAID": "aaa_id", "EAPID": "eap_id", "EAPAsk": "eap_id", "Revocation": "revocation"}
	childNames = map[string]string{"Local": "local_ts", "Remote": "remote_ts", "Action": "mode", "Mode": "mode", "Proposals": "esp_proposals", "PreferPeer": "charon.prefer_configured_proposals",
		"Updown": "updown", "HostAccess": "hostaccess", "KeepUp": "keep_up", "StartAction": "start_action", "CloseAction": "close_action", "DPDAction": "dpd_action",
		"RekeyTime": "rekey_time", "LifeTime": "life_time", "RandTime": "rand_time", "RekeyBytes": "rekey_bytes", "LifeBytes": "life_bytes", "RandBytes": "rand_bytes",
		"RekeyPackets": "rekey_packets", "LifePackets": "life_packets", "RandPackets": "rand_packets", "Inactivity": "inactivity", "ReqID": "reqid", "IfID": "if_id_out",
		"Priority": "priority", "ReplayWindow": "replay_window", "TFC": "tfc_padding", "DF": "copy_df", "CopyECN": "copy_ecn", "CopyDSCP": "copy_dscp",
		"MSSClamp": "mss_clamp", "SHA256_96": "sha256_96", "Policies": "policies"}
)

// Diff lists the options in which two configurations of a connection differ, its
// children's among them. Children that only one of them has are not listed.
func Diff(old, new *ike.Peer) (list []Difference) {
	list = fields(list, "", peerNames, *old, *new)
	for _, side := range [2][2][]ike.AuthRound{{old.Local, new.Local}, {old.Remote, new.Remote}} {
		for i := range max(len(side[0]), len(side[1])) {
			switch {
			case i >= len(side[0]):
				list = append(list, Difference{side[1][i].Name, "", "a round of authentication"})
			case i >= len(side[1]):
				list = append(list, Difference{side[0][i].Name, "a round of authentication", ""})
			default:
				list = fields(list, side[1][i].Name+".", roundNames, side[0][i], side[1][i])
			}
		}
	}
	for _, c := range new.Children {
		if was := old.Child(c.Name); was != nil {
			list = fields(list, "children."+c.Name+".", childNames, *was, *c)
		}
	}
	return list
}

// fields compares two structs field by field. Fields of one option are one
// difference. A field without a name is shown under its own.
func fields(list []Difference, prefix string, names map[string]string, old, new any) []Difference {
	a, b := reflect.ValueOf(old), reflect.ValueOf(new)
	for i := range a.NumField() {
		field := a.Type().Field(i).Name
		if field == "Name" || field == "Children" || field == "Warnings" || field == "Given" || (a.Type() == reflect.TypeFor[ike.Peer]() && (field == "Local" || field == "Remote")) {
			continue
		}
		x, y := a.Field(i).Interface(), b.Field(i).Interface()
		if reflect.DeepEqual(x, y) {
			continue
		}
		name, ok := names[field]
		if !ok {
			name = field
		}
		d := Difference{prefix + name, show(field, x), show(field, y)}
		if n := len(list); n > 0 && list[n-1].Path == d.Path {
			continue
		}
		list = append(list, d)
	}
	return list
}

// words are the values of fields that are words in the configuration.
var words = map[reflect.Type][]string{
	reflect.TypeFor[ike.UniquePolicy]():     {"no", "never", "replace", "keep"},
	reflect.TypeFor[ike.EncapPolicy]():      {"auto", "yes", "no"},
	reflect.TypeFor[ike.StartAction]():      {"none", "trap", "start", "trap|start"},
	reflect.TypeFor[ike.SendPolicy]():       {"ifasked", "always", "never"},
	reflect.TypeFor[ike.RevocationPolicy](): {"relaxed", "ifuri", "strict"},
}

// show prints a value as a configuration has it.
func show(field string, v any) string {
	if w := words[reflect.TypeOf(v)]; w != nil {
		if n := reflect.ValueOf(v).Uint(); n < uint64(len(w)) {
			return w[n]
		}
	}
	switch v := v.(type) {
	case bool:
		return map[bool]string{true: "yes", false: "no"}[v]
	case string:
		return v
	case time.Duration:
		return short(v)
	case []suite.Proposal:
		return join(v, suite.Proposal.Keywords)
	case []ipsec.Selector:
		return join(v, ipsec.Selector.String)
	case []ike.AddrSpec:
		if len(v) == 0 {
			return "%any"
		}
		return join(v, addrText)
	case []netip.Addr:
		return join(v, netip.Addr.String)
	case []string:
		return strings.Join(v, ", ")
	case ike.Identity:
		return v.String()
	case ike.RedirectTarget:
		return v.String()
	case [][]byte:
		return join(v, blobName)
	}
	return fmt.Sprint(v)
}

func join[T any](list []T, text func(T) string) string {
	out := make([]string, len(list))
	for i, x := range list {
		out[i] = text(x)
	}
	return strings.Join(out, ", ")
}

// short prints a span in the largest unit that it is a whole number of.
func short(d time.Duration) string {
	switch {
	case d == 0:
		return "0s"
	case d%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d%time.Second == 0:
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return d.String()
}

func addrText(s ike.AddrSpec) string {
	switch {
	case s.Any:
		return "%any"
	case s.Host != "":
		return s.Host
	}
	return ipsec.Selector{From: s.From, To: s.To, PortTo: 65535}.String()
}

func blobName(der []byte) string {
	sum := sha256.Sum256(der)
	short := hex.EncodeToString(sum[:4])
	if c, err := pki.NewCertificate(der); err == nil {
		return name(c) + " (" + short + ")"
	}
	return "key " + short
}
