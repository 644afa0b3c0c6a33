package config

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/ipsec"
	"adit/suite"
)

// lifetimes keeps which times were given, because the defaults depend on it.
type lifetimes struct{ rekey, life, random, reauth, over *uint64 }

type peerDraft struct {
	*ike.Peer
	life lifetimes
	pq   string // as written; "": not given
	pqAt conf.Value
}

type childDraft struct {
	*ike.Child
	time, bytes, packets lifetimes
}

// given wraps a parser of numbers for an option whose absence matters.
func given[T any](field func(*T) **uint64, parse func(conf.Value) (uint64, error)) func(*decoder, *T, conf.Value) error {
	return func(_ *decoder, t *T, v conf.Value) error {
		n, err := parse(v)
		*field(t) = &n
		return err
	}
}

func secondsOf(v conf.Value) (uint64, error) {
	t, err := v.Duration()
	return uint64(t), err
}

func bytesOf(v conf.Value) (uint64, error) { return v.Bytes() }

func countOf(v conf.Value) (uint64, error) { return v.Uint(1<<64 - 1) }

// into wraps a parser that stores its result in one field.
func into[T, V any](field func(*T) *V, parse func(conf.Value) (V, error)) func(*decoder, *T, conf.Value) error {
	return func(_ *decoder, t *T, v conf.Value) error {
		x, err := parse(v)
		if err == nil {
			*field(t) = x
		}
		return err
	}
}

// yesOr parses a word that may be a boolean, too.
func yesOr[V any](yes, no V, words []string, vals []V) func(conf.Value) (V, error) {
	return func(v conf.Value) (V, error) {
		if b, err := v.Bool(); err == nil {
			return map[bool]V{true: yes, false: no}[b], nil
		}
		return oneOf(append([]string{"yes", "no"}, words...), append([]V{yes, no}, vals...))(v)
	}
}

// wordsOf parses a list of at most limit words.
func wordsOf(limit int, what string) func(conf.Value) ([]string, error) {
	return func(v conf.Value) ([]string, error) {
		list := slices.Clone(v.Strings())
		if len(list) > limit {
			return nil, v.Errorf("more than %d %s", limit, what)
		}
		return list, nil
	}
}

// addrsOf parses addresses, 0.0.0.0 and :: among them.
func addrsOf(v conf.Value) (out []netip.Addr, err error) {
	for _, text := range v.Strings() {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || a.Is4In6() {
			return nil, v.Errorf("%q is no address; 0.0.0.0 and :: ask for any", text)
		}
		if len(out) == limitVIPs {
			return nil, v.Errorf("more than %d addresses", limitVIPs)
		}
		out = append(out, a)
	}
	return out, nil
}

// scriptOf reads a command line for the shell.
func scriptOf(v conf.Value) (string, error) {
	if v.IsList || strings.ContainsAny(v.Text, "\x00\n") {
		return "", v.Errorf("expected one command line")
	}
	return v.Text, nil
}

func boolOf(v conf.Value) (bool, error)              { return v.Bool() }
func notOf(v conf.Value) (bool, error)               { yes, err := v.Bool(); return !yes, err }
func durationOf(v conf.Value) (time.Duration, error) { return v.Duration() }

// workersOf reads the number of threads that move packets; 0 is `auto`.
func workersOf(v conf.Value) (int, error) {
	if v.Text == "auto" && !v.IsList {
		return 0, nil
	}
	n, err := v.Uint(limitWorkers)
	if err == nil && n == 0 {
		err = v.Errorf("without a worker no packet moves; 1 is the least")
	}
	return int(n), err
}

// limitWorkers is the greatest number of threads that move packets.
const limitWorkers = 64

func uint32Of(v conf.Value) (uint32, error) {
	n, err := v.Uint(1<<32 - 1)
	return uint32(n), err
}

func portOf(v conf.Value) (uint16, error) {
	n, err := v.Uint(65535)
	return uint16(n), err
}

// oneOf parses a word out of a list of alternatives.
func oneOf[V any](words []string, vals []V) func(conf.Value) (V, error) {
	return func(v conf.Value) (x V, err error) {
		w, err := v.OneOf(words...)
		for i := range words {
			if words[i] == w && err == nil {
				x = vals[i]
			}
		}
		return x, err
	}
}

// peerOptions are the values of a connection, all that strongSwan 6 knows.
var peerOptions = []option[peerDraft]{
	{name: "version", def: "0", note: "2: IKEv2; 1: [IKEv1](ikev1.md), for peers that have nothing better; 0: IKEv2 where we begin, and what the peer begins with", set: setVersion},
	{name: "local_addrs", def: "%any", note: "own addresses, prefixes, ranges or names", set: into(func(p *peerDraft) *[]ike.AddrSpec { return &p.LocalAddrs }, addrSpecs)},
	{name: "remote_addrs", def: "%any", note: "the peer’s, tried in turn; names are resolved again after each failure", set: into(func(p *peerDraft) *[]ike.AddrSpec { return &p.RemoteAddrs }, addrSpecs)},
	{name: "local_port", def: "500", set: into(func(p *peerDraft) *uint16 { return &p.LocalPort }, portOf)},
	{name: "remote_port", def: "500", set: into(func(p *peerDraft) *uint16 { return &p.RemotePort }, portOf)},
	{name: "proposals", def: "default", note: "IKE algorithms in strongSwan’s keywords; `default` as there, and with ML-KEM first ([post-quantum](post-quantum.md))", set: func(d *decoder, p *peerDraft, v conf.Value) (err error) {
		p.Proposals, err = proposals(d, suite.IKE, v)
		return err
	}},
	{name: "pq", state: Own, note: "`prefer` puts each proposal with ML-KEM-768 in front, `require` allows no suite without ML-KEM, `off` none with it; not given: `proposals` as written ([post-quantum](post-quantum.md))", set: func(_ *decoder, p *peerDraft, v conf.Value) (err error) {
		p.pq, err = v.OneOf("prefer", "require", "off")
		p.pqAt = v
		return err
	}},
	{name: "vips", note: "virtual addresses to ask the peer for; `0.0.0.0` and `::` are any of that family", set: into(func(p *peerDraft) *[]netip.Addr { return &p.VIPs }, addrsOf)},
	{name: "pools", note: "names of the pools that the peer gets addresses and settings from", set: into(func(p *peerDraft) *[]string { return &p.Pools }, wordsOf(limitPools, "pools"))},
	{name: "aggressive", def: "no", note: "of IKEv1 only: aggressive mode, which shows identities and, with shared keys, lets them be guessed", set: into(func(p *peerDraft) *bool { return &p.Aggressive }, boolOf)},
	{name: "pull", def: "yes", note: "of IKEv1 only: the client asks for addresses; `no`: the gateway pushes them", set: func(_ *decoder, p *peerDraft, v conf.Value) error {
		pull, err := v.Bool()
		p.Push = !pull
		return err
	}},
	{name: "dscp", def: "000000", note: "six binary digits on IKE packets", set: into(func(p *peerDraft) *uint8 { return &p.DSCP }, dscpOf)},
	{name: "encap", def: "auto", note: "`auto`, `yes`, `no`; `auto` is adit’s own: [ESP in UDP or raw](performance.md#raw-esp-or-udp)", set: into(func(p *peerDraft) *ike.EncapPolicy { return &p.Encap },
		oneOf([]string{"auto", "yes", "no", "true", "false", "1", "0", "enabled", "disabled"}, []ike.EncapPolicy{ike.EncapAuto, ike.EncapYes, ike.EncapNo,
			ike.EncapYes, ike.EncapNo, ike.EncapYes, ike.EncapNo, ike.EncapYes, ike.EncapNo}))},
	{name: "mobike", def: "yes", note: "MOBIKE (RFC 4555): the tunnel [moves with the addresses](mobility.md) of either end", set: into(func(p *peerDraft) *bool { return &p.MOBIKE }, boolOf)},
	{name: "dpd_delay", def: "0s", note: "liveness check after so much silence; 0: none", set: into(func(p *peerDraft) *time.Duration { return &p.DPDDelay }, durationOf)},
	{name: "dpd_timeout", def: "0s", note: "of IKEv1 only: in IKEv2 the retransmission schedule decides, as in strongSwan; 0: in IKEv1 too", set: into(func(p *peerDraft) *time.Duration { return &p.DPDTimeout }, durationOf)},
	{name: "fragmentation", def: "yes", note: "RFC 7383, and Cisco's and Microsoft's of IKEv1: `yes`, `accept`, `force` (in IKEv2 as `yes`, in IKEv1 also to who does not announce it), `no`", set: into(func(p *peerDraft) *ike.FragmentPolicy { return &p.Fragmentation },
		yesOr(ike.FragmentYes, ike.FragmentNo, []string{"accept", "force"}, []ike.FragmentPolicy{ike.FragmentAccept, ike.FragmentForce}))},
	{name: "childless", def: "allow", note: "RFC 6023: `allow`, `prefer`, `force`, `never`", set: into(func(p *peerDraft) *ike.ChildlessPolicy { return &p.Childless }, oneOf([]string{"allow", "prefer", "force", "never"},
		[]ike.ChildlessPolicy{ike.ChildlessAllow, ike.ChildlessPrefer, ike.ChildlessForce, ike.ChildlessNever}))},
	{name: "redirect", state: Own, note: "address or name of the gateway to which peers are sent once they are authenticated, if they can be (RFC 5685; [redirect](redirect.md))", set: into(func(p *peerDraft) *ike.RedirectTarget { return &p.Redirect }, gatewayOf)},
	{name: "send_certreq", def: "yes", note: "names our CAs to the peer", set: into(func(p *peerDraft) *bool { return &p.SendCertReq }, boolOf)},
	{name: "send_cert", def: "ifasked", note: "`ifasked`, `always`, `never`", set: into(func(p *peerDraft) *ike.SendPolicy { return &p.SendCert }, oneOf([]string{"ifasked", "always", "never"},
		[]ike.SendPolicy{ike.SendIfAsked, ike.SendAlways, ike.SendNever}))},
	{name: "ocsp", def: "reply", note: "`request` and `both` ask the peer to send the OCSP status of its certificates along (RFC 4806); our own status is not sent, which `reply` and `both` would do", set: func(_ *decoder, p *peerDraft, v conf.Value) error {
		w, err := v.OneOf("never", "reply", "request", "both")
		p.AskOCSP = w == "request" || w == "both"
		return err
	}},
	{name: "keyingtries", def: "1", note: "attempts to set up; 0: for ever, but what a start action keeps up is tried again with back-off until it is up unless a number is given", set: func(_ *decoder, p *peerDraft, v conf.Value) error {
		n, err := v.Uint(1 << 30)
		p.KeyingTries, p.GiveUp = int(n), n > 0
		return err
	}},
	{name: "unique", def: "no", note: "`no`, `never`, `replace`, `keep`: what a second IKE SA of the same identity does to the first", set: into(func(p *peerDraft) *ike.UniquePolicy { return &p.Unique }, oneOf([]string{"no", "never", "replace", "keep"},
		[]ike.UniquePolicy{ike.UniqueNo, ike.UniqueNever, ike.UniqueReplace, ike.UniqueKeep}))},
	{name: "reauth_time", def: "0s", note: "new IKE SA with authentication, made before the old one goes; 0: never", set: given(func(p *peerDraft) **uint64 { return &p.life.reauth }, secondsOf)},
	{name: "rekey_time", def: "4h", set: given(func(p *peerDraft) **uint64 { return &p.life.rekey }, secondsOf)},
	{name: "over_time", def: "10%", note: "hard bound beyond that", set: given(func(p *peerDraft) **uint64 { return &p.life.over }, secondsOf)},
	{name: "rand_time", def: "over_time", note: "random part taken off", set: given(func(p *peerDraft) **uint64 { return &p.life.random }, secondsOf)},
	{name: "ppk_id", note: "the post-quantum preshared key ([PPK](post-quantum.md#ppk)) to use as initiator, and the only one to take as responder", set: into(func(p *peerDraft) *string { return &p.PPKID }, ppkIDOf)},
	{name: "ppk_required", def: "no", note: "no IKE SA without a PPK", set: into(func(p *peerDraft) *bool { return &p.PPKRequired }, boolOf)},
	{name: "ppk_intermediate", state: Own, def: "prefer", note: "`prefer`, `require`, `off`: PPKs before IKE_AUTH and in rekeys (RFC 9867), rather than as of RFC 8784", set: into(func(p *peerDraft) *ike.PPKIntermediate { return &p.PPKIntermediate }, oneOf([]string{"prefer", "require", "off"},
		[]ike.PPKIntermediate{ike.PPKIntermediatePrefer, ike.PPKIntermediateRequire, ike.PPKIntermediateOff}))},
	{name: "if_id_in", def: "0", off: []string{"0"}, note: noIfID}, {name: "if_id_out", def: "0", off: []string{"0"}, note: noIfID},
	{name: "mediation", def: "no", off: []string{"no"}, note: noMediation}, {name: "mediated_by", note: noMediation}, {name: "mediation_peer", note: noMediation},
}

// childOptions are the values of a child, all that strongSwan 6 knows, and adit's mss_clamp.
var childOptions = []option[childDraft]{
	{name: "ah_proposals", note: "adit has no AH: it protects nothing that ESP with integrity does not"},
	{name: "esp_proposals", def: "default", note: "ESP algorithms in strongSwan’s keywords", set: func(d *decoder, c *childDraft, v conf.Value) (err error) {
		c.Proposals, err = proposals(d, suite.ESP, v)
		return err
	}},
	{name: "sha256_96", def: "no", note: "cuts HMAC-SHA-256 of ESP to 96 bits, for peers that do so against RFC 4868", set: into(func(c *childDraft) *bool { return &c.SHA256_96 }, boolOf)},
	{name: "local_ts", def: "dynamic", note: "own traffic selectors; ranges and `[proto/port]` too", set: into(func(c *childDraft) *[]ipsec.Selector { return &c.Local }, selectors)},
	{name: "remote_ts", def: "dynamic", note: "the peer’s", set: into(func(c *childDraft) *[]ipsec.Selector { return &c.Remote }, selectors)},
	{name: "rekey_time", def: "1h or life_time - 10%", set: given(func(c *childDraft) **uint64 { return &c.time.rekey }, secondsOf)},
	{name: "life_time", def: "rekey_time + 10%", note: "hard bound", set: given(func(c *childDraft) **uint64 { return &c.time.life }, secondsOf)},
	{name: "rand_time", def: "life_time - rekey_time", note: "random part taken off", set: given(func(c *childDraft) **uint64 { return &c.time.random }, secondsOf)},
	{name: "rekey_bytes", set: given(func(c *childDraft) **uint64 { return &c.bytes.rekey }, bytesOf)},
	{name: "life_bytes", def: "rekey_bytes + 10%", note: "hard bound", set: given(func(c *childDraft) **uint64 { return &c.bytes.life }, bytesOf)},
	{name: "rand_bytes", def: "life_bytes - rekey_bytes", note: "random part taken off", set: given(func(c *childDraft) **uint64 { return &c.bytes.random }, bytesOf)},
	{name: "rekey_packets", note: "without ESN there is always a bound below 2^32", set: given(func(c *childDraft) **uint64 { return &c.packets.rekey }, countOf)},
	{name: "life_packets", def: "rekey_packets + 10%", note: "hard bound", set: given(func(c *childDraft) **uint64 { return &c.packets.life }, countOf)},
	{name: "rand_packets", def: "life_packets - rekey_packets", note: "random part taken off", set: given(func(c *childDraft) **uint64 { return &c.packets.random }, countOf)},
	{name: "updown", note: "a command for the shell ([updown scripts](updown.md))", set: into(func(c *childDraft) *string { return &c.Updown }, scriptOf)},
	{name: "hostaccess", def: "no", note: "sets `PLUTO_HOST_ACCESS` for `updown`", set: into(func(c *childDraft) *bool { return &c.HostAccess }, boolOf)},
	{name: "keep_up", def: "no", note: "started when loaded and brought back after whatever took it down but an operator, with back-off ([keep_up](reload.md#keep_up))", set: into(func(c *childDraft) *bool { return &c.KeepUp }, boolOf)},
	{name: "mode", def: "tunnel", note: "`tunnel`, `transport`, `pass`, `drop`; the other modes of strongSwan are refused", set: setMode},
	{name: "policies", def: "yes", note: "`no` installs SAs without policies", set: into(func(c *childDraft) *bool { return &c.Policies }, boolOf)},
	{name: "policies_fwd_out", def: "no", state: Accepted, set: checked[childDraft](boolOf),
		note: "forward policies are the kernel’s: here every policy covers forwarded packets, too"},
	{name: "dpd_action", def: "none", note: "`none`, `trap`, `start`", set: into(func(c *childDraft) *ike.StartAction { return &c.DPDAction }, actionOf)},
	{name: "start_action", def: "none", note: "`none`, `trap`, `start`, `trap|start`", set: into(func(c *childDraft) *ike.StartAction { return &c.StartAction }, actionOf)},
	{name: "close_action", def: "none", note: "`none`, `trap`, `start`", set: into(func(c *childDraft) *ike.StartAction { return &c.CloseAction }, actionOf)},
	{name: "ipcomp", def: "no", state: Idle, off: []string{"no"}, set: checked[childDraft](boolOf),
		note: "IPComp is never negotiated and is refused as RFC 7296 §2.22 allows: packets are not compressed"},
	{name: "inactivity", def: "0s", note: "closes an idle Child SA", set: into(func(c *childDraft) *time.Duration { return &c.Inactivity }, durationOf)},
	{name: "reqid", def: "0", note: "number shown in `list-sas`", set: into(func(c *childDraft) *uint32 { return &c.ReqID }, uint32Of)},
	{name: "priority", def: "0", note: "order of policies; 0: by how narrow they are", set: into(func(c *childDraft) *uint32 { return &c.Priority }, uint32Of)},
	{name: "interface", note: "a TUN device sees packets after routing, and not by which interface they would leave: use selectors or routes"},
	{name: "mark_in", def: "0", off: []string{"0", "0/0x00000000"}, note: noMarks}, {name: "mark_out", def: "0", off: []string{"0", "0/0x00000000"}, note: noMarks},
	{name: "mark_in_sa", def: "no", off: []string{"no"}, note: noMarks},
	{name: "set_mark_in", def: "0", off: []string{"0", "0/0x00000000"}, note: noMarks}, {name: "set_mark_out", def: "0", off: []string{"0", "0/0x00000000"}, note: noMarks},
	{name: "if_id_in", def: "0", off: []string{"0"}, note: noIfID}, {name: "if_id_out", def: "0", off: []string{"0"}, note: noIfID},
	{name: "label", note: "security labels are SELinux’s on packets in the kernel, which a TUN device does not show"},
	{name: "label_mode", def: "system", state: Accepted, note: "says something only with `label`", set: checked[childDraft](oneOf([]string{"system", "simple", "selinux"}, make([]bool, 3)))},
	{name: "tfc_padding", def: "0", note: "pads to that length in bytes, or `mtu`", set: into(func(c *childDraft) *int { return &c.TFC }, tfcOf)},
	{name: "replay_window", def: "4096", note: "packets; strongSwan: 32", set: into(func(c *childDraft) *uint32 { return &c.ReplayWindow }, func(v conf.Value) (uint32, error) {
		n, err := v.Uint(1 << 20)
		return uint32(n), err
	})},
	{name: "per_cpu_sas", def: "no", note: "`yes`: a Child SA for each worker beside the one for all (RFC 9611), made when the worker has packets; `encap`: they leave from source ports of their own where ESP is in UDP ([many cores](performance.md#many-cores))",
		set: into(func(c *childDraft) *ike.PerCPU { return &c.PerCPU }, yesOr(ike.PerCPUYes, ike.PerCPUNo, []string{"encap"}, []ike.PerCPU{ike.PerCPUEncap}))},
	{name: "hw_offload", def: "no", off: []string{"no", "auto"}, note: noOffload},
	{name: "copy_df", def: "yes", note: "`yes` copies DF outwards", set: into(func(c *childDraft) *ipsec.DFMode { return &c.DF }, func(v conf.Value) (ipsec.DFMode, error) {
		yes, err := v.Bool()
		if !yes {
			return ipsec.DFClear, err
		}
		return ipsec.DFCopy, err
	})},
	{name: "copy_ecn", def: "yes", note: "RFC 6040", set: into(func(c *childDraft) *bool { return &c.CopyECN }, boolOf)},
	{name: "copy_dscp", def: "out", note: "`out`, `in`, `yes`, `no`", set: into(func(c *childDraft) *ipsec.DSCPCopy { return &c.CopyDSCP }, oneOf([]string{"out", "in", "yes", "no"},
		[]ipsec.DSCPCopy{ipsec.DSCPOut, ipsec.DSCPIn, ipsec.DSCPBoth, ipsec.DSCPNone}))},
	{name: "icmp", def: "no", state: Accepted, note: "ICMP errors are always judged by the packet that they quote (RFC 4301 §6.2)", set: checked[childDraft](boolOf)},
	{name: "mss_clamp", state: Own, def: "yes", note: "lowers the MSS of TCP connections to what fits", set: into(func(c *childDraft) *bool { return &c.MSSClamp }, boolOf)},
}

// Reasons why the data plane over a TUN device cannot do something.
const (
	noMarks     = "marks cannot work with a TUN device, which sees packets after routing; use selectors or a route"
	noIfID      = "an interface ID names an XFRM interface of the kernel, which a TUN device has not; use selectors or a route"
	noMediation = "mediation is a protocol of strongSwan’s own that adit does not speak"
	noOffload   = "ESP is made in user space here, which network cards cannot take over; only no and auto are possible"
)

func setVersion(_ *decoder, p *peerDraft, v conf.Value) error {
	n, err := v.Uint(2)
	p.Version = uint8(n)
	return err
}

// dscpOf reads six binary digits, as strongSwan has it.
func dscpOf(v conf.Value) (uint8, error) {
	n, err := strconv.ParseUint(v.Text, 2, 6)
	if err != nil || len(v.Text) != 6 || v.IsList {
		return 0, v.Errorf("expected six binary digits such as 101110, not %q", v.Text)
	}
	return uint8(n), nil
}

// actionOf reads none, trap, start, their old names, and combinations with |.
func actionOf(v conf.Value) (ike.StartAction, error) {
	text, err := v.One()
	if err != nil {
		return 0, err
	}
	words := []string{"none", "clear", "hold", "trap", "route", "start", "restart"}
	var a ike.StartAction
	for part := range strings.SplitSeq(text, "|") {
		switch strings.ToLower(strings.TrimSpace(part)) {
		case "none", "clear":
		case "trap", "route", "hold":
			a |= ike.ActionTrap
		case "start", "restart":
			a |= ike.ActionStart
		default:
			return 0, v.Errorf("expected none, trap, start or trap|start, not %q%s", part, didYouMean(part, words))
		}
	}
	return a, nil
}

func tfcOf(v conf.Value) (int, error) {
	if v.Text == "mtu" && !v.IsList {
		return ipsec.TFCToMTU, nil
	}
	n, err := v.Uint(65535)
	return int(n), err
}

func setMode(_ *decoder, c *childDraft, v conf.Value) error {
	w, err := v.OneOf("tunnel", "transport", "transport_proxy", "beet", "iptfs", "pass", "drop")
	switch w {
	case "tunnel":
		c.Mode, c.Action = ipsec.ModeTunnel, ipsec.Protect
	case "transport":
		c.Mode, c.Action = ipsec.ModeTransport, ipsec.Protect
	case "pass":
		c.Action = ipsec.Bypass
	case "drop":
		c.Action = ipsec.Discard
	case "transport_proxy", "beet", "iptfs":
		return v.Errorf("adit does not support mode %s yet", w)
	}
	return err
}

func proposals(d *decoder, p suite.Protocol, v conf.Value) ([]suite.Proposal, error) {
	if len(v.Strings()) > limitProposals {
		return nil, v.Errorf("more than %d proposals", limitProposals)
	}
	list, err := suite.ParseProposals(p, v.Strings())
	if err != nil {
		return nil, v.Errorf("%v", err)
	}
	if len(list) == 0 {
		return nil, v.Errorf("no proposal is given")
	}
	seen := map[suite.Transform]bool{}
	bare := false
	for _, prop := range list {
		if prop.PostQuantum() && !prop.ClassicKE() && !bare {
			bare = true
			d.warn(v.Pos, v.Path()+": "+prop.Keywords()+" can end up with ML-KEM alone, so that a break of it breaks everything; put a classic group before it, as in x25519-ke1_mlkem768")
		}
		for _, t := range prop.Weak() {
			if !seen[t] {
				seen[t] = true
				d.warn(v.Pos, v.Path()+": "+t.String()+" is weak: "+t.Weakness())
			}
		}
	}
	return list, nil
}

// ppkIDOf reads the identity of a PPK: it goes to the peer as it stands.
func ppkIDOf(v conf.Value) (string, error) {
	text, err := v.One()
	if err == nil && (text == "" || len(text) > 255) {
		err = v.Errorf("an identity of %d bytes; it needs 1 to 255", len(text))
	}
	return text, err
}

func selectors(v conf.Value) ([]ipsec.Selector, error) {
	var out []ipsec.Selector
	for _, text := range v.Strings() {
		if len(out) == limitSelectors {
			return nil, v.Errorf("more than %d traffic selectors", limitSelectors)
		}
		s, err := ipsec.ParseSelector(text)
		if err != nil {
			return nil, v.Errorf("%v", err)
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, v.Errorf("no traffic selector is given")
	}
	return out, nil
}
