package ike

import "strings"

// What to look at in the configuration when a negotiation was refused.

// Option is the path of an option of the connection; `local`, `remote` at its front
// stand for the section of the first round.
func (p *Peer) Option(option string) string {
	section, rest, ok := strings.Cut(option, ".")
	rounds := map[string][]AuthRound{"local": p.Local, "remote": p.Remote}[section]
	if ok && len(rounds) > 0 && rounds[0].Name != "" {
		option = rounds[0].Name + "." + rest
	}
	return "connections." + p.Name + "." + option
}

// optionsOf are the options that the cases of a refusal are mended by, the likeliest
// first. What begins with a dot is an option of the child, what begins with a slash
// is no option of a connection.
var optionsOf = map[Reason]map[Detail][]string{
	ReasonAddress: {DetailNoRoute: {"remote_addrs"}, DetailUnresolved: {"remote_addrs"}, DetailNoFamily: {"local_addrs"}, DetailNoTarget: {"remote_addrs"}},
	ReasonVersion: {"": {"version"}},
	ReasonProposal: {"": {".esp_proposals", "proposals"}, DetailGroup: {".esp_proposals", "proposals"}, DetailMode: {".mode"},
		DetailTransform: {".esp_proposals", "proposals"}},
	ReasonIdentity: {"": {"remote.id"}, DetailRemoteID: {"remote.id"}, DetailLocalID: {"local.id"}},
	ReasonAuthentication: {
		DetailNoPSK: {"/secrets.ike*", "remote.id", "local.id"}, DetailPSK: {"/secrets.ike*.secret"},
		DetailNoSignature: {"local.certs", "local.id"}, DetailMethod: {"remote.auth"},
		DetailNoCertificate: {"remote.certs", "remote.id"}, DetailSignature: {"remote.certs"},
		DetailUntrusted: {"remote.cacerts"}, DetailNoRevocation: {"remote.revocation"},
		DetailOtherName: {"remote.id"}, DetailWeak: {"remote.auth"}, DetailConstraint: {"remote.cacerts", "remote.certs", "remote.auth"},
		DetailEAP: {"/secrets.eap*.secret", "remote.eap_id"}, DetailRADIUS: {"/charon.plugins.eap-radius.servers"},
	},
	ReasonSelectors: {"": {".local_ts", ".remote_ts"}, DetailLocalTS: {".local_ts"}, DetailRemoteTS: {".remote_ts"}},
	ReasonNoAnswer:  {DetailSilent: {"remote_addrs"}},
	ReasonUnique:    {"": {"unique"}},
	ReasonAddresses: {DetailPool: {"pools"}, DetailLeaseStore: {"/adit.state.nats"}, DetailNoPool: {"pools"}, DetailUnasked: {"pools"}, DetailNotGiven: {"vips"}},
}

// optionOf is the option that a candidate's Detail speaks of.
var optionOf = map[Detail]string{
	DetailVersion: "version", DetailLocalAddrs: "local_addrs", DetailRemoteAddrs: "remote_addrs", DetailTransform: "proposals",
	DetailLocalID: "local.id", DetailRemoteID: "remote.id", DetailMethod: "remote.auth", DetailUntrusted: "remote.cacerts",
	DetailNoRevocation: "remote.revocation", DetailWeak: "remote.auth", DetailConstraint: "remote.cacerts",
	DetailEAPID: "remote.eap_id", DetailGroups: "remote.groups",
	DetailLocalTS: ".local_ts", DetailRemoteTS: ".remote_ts", DetailMode: ".mode",
}

// limitOptions bounds the options that a Rejection names.
const limitOptions = 8

// PointTo fills in Options, where nobody has, for the connection that was refused;
// nil: none was found, the candidates count.
func (r *Rejection) PointTo(p *Peer) {
	if r.Options != nil {
		return
	}
	add := func(path string) {
		if len(r.Options) < limitOptions && path != "" {
			r.Options = append(r.Options, path)
		}
	}
	if p != nil && r.ByPeer && r.Reason == ReasonAuthentication && r.Detail == "" {
		r.Options = p.provenBy()
		return
	}
	if p != nil && r.ByPeer && r.Reason == ReasonAddresses {
		add(p.Option("vips"))
		return
	}
	if p != nil {
		for _, o := range optionsOf[r.Reason][r.Detail] {
			add(pathOf(p, r.Child, o, r.Reason == ReasonProposal))
		}
	}
	// A child's rules have been told one by one, and so have those of connections.
	children := r.Reason == ReasonSelectors || r.Detail == DetailMode
	if r.Options != nil && r.Child != "" {
		return
	}
	for _, c := range r.Candidates {
		o := optionOf[c.Detail]
		switch {
		case o == "":
		case children && p != nil && strings.HasPrefix(o, "."):
			add(pathOf(p, c.Name, o, false))
		case p == nil && !strings.HasPrefix(o, "."):
			add((&Peer{Name: c.Name}).Option(o))
		}
	}
}

// provenBy are the options by which we prove ourselves, and whom we ask for: what a
// peer may mean that does not believe us.
func (p *Peer) provenBy() []string {
	first := p.Option("local.certs")
	switch {
	case len(p.Local) == 0:
	case p.Local[0].Method == AuthPSK:
		first = "secrets.ike*.secret"
	case p.Local[0].Method == AuthEAP:
		return []string{"secrets.eap*.secret", p.Option("local.eap_id")}
	}
	return []string{first, p.Option("local.id"), p.Option("remote.id")}
}

// pathOf is one option's path, empty where it has no place: an option of a child
// without a child. either: the child's option, or the connection's if there is none.
func pathOf(p *Peer, child, option string, either bool) string {
	switch {
	case strings.HasPrefix(option, "/"):
		return option[1:]
	case strings.HasPrefix(option, "."):
		if child == "" {
			return ""
		}
		return "connections." + p.Name + ".children." + child + option
	case either && child != "":
		return ""
	}
	return p.Option(option)
}
