package sim

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"adit/ike"
	"adit/ipsec"
	"adit/suite"
)

// What connections and children use unless a script says otherwise.
const (
	defaultIKE = "aes128gcm16-prfsha256-x25519"
	defaultESP = "aes128gcm16"
)

func (h *Host) setEngine(a []string) error {
	c := &h.config
	for _, kv := range a {
		k, v, _ := strings.Cut(kv, "=")
		switch k {
		case "retransmit": // TIMEOUT,BASE,TRIES
			f := strings.Split(v, ",")
			c.Retransmit = ike.Retransmit{Timeout: duration(arg(f, 0)), Base: fraction(arg(f, 1)), Tries: number(arg(f, 2))}
		case "half-open":
			c.HalfOpenTimeout = duration(v)
		case "cookies":
			c.CookieThreshold, c.CookieThresholdIP = number(v), number(v)
		case "block":
			c.BlockThreshold = number(v)
		case "keepalive":
			c.KeepAlive = duration(v)
			if c.KeepAlive == 0 {
				c.KeepAlive = -1
			}
		case "delete-delay":
			c.DeleteRekeyedDelay = duration(v)
		case "retry":
			c.RetryInitiate = duration(v)
		case "fragment-size":
			c.FragmentSize = number(v)
		case "max-packet":
			c.MaxPacket = number(v)
		case "encap":
			c.ForceEncap = v == "yes"
		case "break":
			c.BreakBeforeMake = v == "yes"
		case "aggressive-psk":
			c.AggressivePSK = v == "yes"
		case "crash": // the secret of its tokens (RFC 6290)
			c.CrashSecret = suite.Key(v)
		case "tickets": // the secret of its tickets (RFC 5723); "": it only asks for them
			c.TicketSecret, c.ResumeSessions = suite.Key(v), true
		case "transcript":
			c.FullTranscript = v == "yes"
		case "redirect":
			to, err := ike.ParseRedirectTarget(v)
			if err != nil {
				return err
			}
			c.RedirectTo = to
		default:
			return fmt.Errorf("unknown setting %q", k)
		}
	}
	return nil
}

func addrSpecs(v string) (out []ike.AddrSpec) {
	for _, s := range strings.Split(v, ",") {
		if s == "%any" {
			out = append(out, ike.AddrSpec{Any: true})
		} else if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, ike.AddrSpec{From: a, To: a})
		} else {
			out = append(out, ike.AddrSpec{Host: s})
		}
	}
	return out
}

// setPeer makes a connection, or changes one for the next reload: local, remote
// (addresses, names, %any), lid, rid (identities), ike (proposals), rekey,
// reauth, over, rand, dpd, tries, unique, encap, fragmentation, mobike, vips, pools; of
// the IKE version; of
// authentication lauth, rauth, lauth2, rauth2 (psk, pubkey, eap, any), lid2, rid2,
// eap (the method), eapid, eapask, certreq.
func (h *Host) setPeer(name string, a []string) error {
	p := &ike.Peer{Name: name, Version: 2, LocalPort: 500, RemotePort: 500, KeyingTries: 1,
		Proposals: proposals(suite.IKE, defaultIKE), Local: []ike.AuthRound{{}}, Remote: []ike.AuthRound{{}}}
	if old := h.peer(name); old != nil {
		*p = *old
		p.Local, p.Remote = slices.Clone(old.Local), slices.Clone(old.Remote)
		h.peers[slices.Index(h.peers, old)] = p
	} else {
		h.peers = append(h.peers, p)
	}
	for _, kv := range a {
		k, v, _ := strings.Cut(kv, "=")
		switch k {
		case "local":
			p.LocalAddrs = addrSpecs(v)
		case "remote":
			p.RemoteAddrs = addrSpecs(v)
		case "version":
			p.Version = uint8(number(v))
		case "lid":
			p.Local[0].ID = identity(v)
		case "rid":
			p.Remote[0].ID = identity(v)
		case "lauth", "rauth", "lauth2", "rauth2", "lid2", "rid2":
			setRound(p, k, v)
		case "aggressive":
			p.Aggressive = v == "yes"
		case "pull":
			p.Push = v == "no"
		case "eapid": // of XAUTH, too, in the last round
			p.Local[len(p.Local)-1].EAPID = identity(v)
		case "eapask":
			p.Remote[0].EAPAsk = v == "yes"
		case "eap":
			p.Local[0].EAP, p.Remote[0].EAP = ike.EAPMethod(v), ike.EAPMethod(v)
		case "certreq":
			p.SendCertReq = v == "yes"
		case "vips":
			for _, s := range strings.Split(v, ",") {
				p.VIPs = append(p.VIPs, address(s))
			}
		case "pools":
			p.Pools = strings.Split(v, ",")
		case "ike":
			p.Proposals = proposals(suite.IKE, v)
		case "rekey":
			p.RekeyTime = duration(v)
		case "reauth":
			p.ReauthTime = duration(v)
		case "over":
			p.OverTime = duration(v)
		case "rand":
			p.RandTime = duration(v)
		case "dpd":
			p.DPDDelay = duration(v)
		case "tries":
			p.KeyingTries = number(v)
		case "unique":
			p.Unique = map[string]ike.UniquePolicy{"no": ike.UniqueNo, "never": ike.UniqueNever, "replace": ike.UniqueReplace, "keep": ike.UniqueKeep}[v]
		case "fragmentation":
			p.Fragmentation = map[string]ike.FragmentPolicy{"yes": ike.FragmentYes, "accept": ike.FragmentAccept, "force": ike.FragmentForce, "no": ike.FragmentNo}[v]
		case "mobike":
			p.MOBIKE = v == "yes"
		case "ppk":
			p.PPKID = v
		case "ppk-required":
			p.PPKRequired = v == "yes"
		case "redirect":
			to, err := ike.ParseRedirectTarget(v)
			if err != nil {
				return err
			}
			p.Redirect = to
		case "encap":
			p.Encap = map[string]ike.EncapPolicy{"auto": ike.EncapAuto, "yes": ike.EncapYes, "no": ike.EncapNo}[v]
		default:
			return fmt.Errorf("unknown setting %q", k)
		}
	}
	return nil
}

// setRound changes a round of authentication; the second one comes into being by it.
func setRound(p *ike.Peer, k, v string) {
	list, at := &p.Local, 0
	if k[0] == 'r' {
		list = &p.Remote
	}
	if k[len(k)-1] == '2' {
		if at = 1; len(*list) == 1 {
			*list = append(*list, ike.AuthRound{})
		}
	}
	if strings.HasPrefix(k[1:], "id") {
		(*list)[at].ID = identity(v)
		return
	}
	(*list)[at].Method = map[string]ike.AuthMethod{"psk": ike.AuthPSK, "pubkey": ike.AuthPubkey, "eap": ike.AuthEAP, "any": ike.AuthAny, "xauth": ike.AuthXAuth}[v]
}

func action(v string) ike.StartAction {
	return map[string]ike.StartAction{"none": ike.ActionNone, "trap": ike.ActionTrap, "start": ike.ActionStart, "trap|start": ike.ActionTrap | ike.ActionStart}[v]
}

// setChild makes a child of a connection: local, remote (selectors), esp
// (proposals), start, close, dpd (actions), keep (keep_up), rekey, life, rand, rekey-bytes,
// life-bytes, rekey-packets, life-packets, inactivity, window, mode.
func (h *Host) setChild(conn, name string, a []string) error {
	old := h.peer(conn)
	if old == nil {
		return fmt.Errorf("no connection %s", conn)
	}
	p := *old
	c := &ike.Child{Name: name, Proposals: proposals(suite.ESP, defaultESP), ReplayWindow: 4096, Policies: true,
		Local: []ipsec.Selector{ipsec.Dynamic()}, Remote: []ipsec.Selector{ipsec.Dynamic()}}
	p.Children = slices.Clone(p.Children)
	if i := slices.IndexFunc(p.Children, func(x *ike.Child) bool { return x.Name == name }); i >= 0 {
		*c = *p.Children[i]
		p.Children[i] = c
	} else {
		p.Children = append(p.Children, c)
	}
	h.peers[slices.Index(h.peers, old)] = &p
	durations := map[string]*time.Duration{"rekey": &c.RekeyTime, "life": &c.LifeTime, "rand": &c.RandTime, "inactivity": &c.Inactivity}
	counts := map[string]*uint64{"rekey-bytes": &c.RekeyBytes, "life-bytes": &c.LifeBytes, "rekey-packets": &c.RekeyPackets, "life-packets": &c.LifePackets}
	for _, kv := range a {
		k, v, _ := strings.Cut(kv, "=")
		if d := durations[k]; d != nil {
			*d = duration(v)
			continue
		}
		if n := counts[k]; n != nil {
			*n = uint64(number(v))
			continue
		}
		switch k {
		case "local":
			c.Local = selectors(v)
		case "remote":
			c.Remote = selectors(v)
		case "esp":
			c.Proposals = proposals(suite.ESP, v)
		case "start":
			c.StartAction = action(v)
		case "close":
			c.CloseAction = action(v)
		case "dpd":
			c.DPDAction = action(v)
		case "keep":
			c.KeepUp = v == "yes"
		case "window":
			c.ReplayWindow = uint32(number(v))
		case "mode":
			if v == "transport" {
				c.Mode = ipsec.ModeTransport
			}
		default:
			return fmt.Errorf("unknown setting %q", k)
		}
	}
	return nil
}
