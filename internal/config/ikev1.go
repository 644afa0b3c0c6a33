package config

import (
	"adit/conf"
	"adit/ike"
)

// ikev1 refuses what IKEv1 cannot do, and warns of what is weak in it.
func (d *decoder) ikev1(s *conf.Section, p *ike.Peer) {
	if p.Version != 1 {
		return
	}
	psk := false
	for _, list := range [2][]ike.AuthRound{p.Local, p.Remote} {
		for _, r := range list {
			psk = psk || r.Method == ike.AuthPSK
			if r.Method == ike.AuthEAP {
				d.failf(s.Pos, "%s: EAP belongs to IKEv2: auth = psk or pubkey, or version = 2", s.Path())
			}
		}
	}
	d.warn(s.Pos, s.Path()+": IKEv1 is obsolete (RFC 9395), and weaker than IKEv2 whatever the algorithms: version = 2 where the peer can")
	if p.Aggressive && psk {
		d.warn(s.Pos, s.Path()+": aggressive mode with a shared key lets everybody who sees or asks for one answer try passwords at leisure: use main mode, or a key of 128 random bits")
	}
	for _, c := range p.Children {
		if len(c.Local) > 1 || len(c.Remote) > 1 {
			d.warn(s.Pos, s.Path()+".children."+c.Name+": a quick mode of IKEv1 has one local_ts and one remote_ts: the first of each are asked for; make a child of each pair")
		}
	}
}
