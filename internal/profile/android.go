package profile

import (
	"encoding/json"

	"adit/suite"
)

// sswan is strongSwan's profile for Android; keys and meanings are those of
// docs.strongswan.org, "VPN Profile Import for the Android VPN Client".
type sswan struct {
	UUID   string      `json:"uuid"`
	Name   string      `json:"name"`
	Type   string      `json:"type"`
	IKE    string      `json:"ike-proposal,omitempty"`
	ESP    string      `json:"esp-proposal,omitempty"`
	Remote sswanRemote `json:"remote"`
	Local  sswanLocal  `json:"local"`
	Split  *sswanSplit `json:"split-tunneling,omitempty"`
}

type sswanRemote struct {
	Addr string `json:"addr"`
	ID   string `json:"id"`
	Cert []byte `json:"cert,omitempty"` // Base64 of the DER
}

type sswanLocal struct {
	EAPID string `json:"eap_id,omitempty"`
	ID    string `json:"id,omitempty"`
	P12   []byte `json:"p12,omitempty"`
}

type sswanSplit struct {
	Subnets   []string `json:"subnets"`
	BlockIPv4 bool     `json:"block-ipv4,omitempty"`
	BlockIPv6 bool     `json:"block-ipv6,omitempty"`
}

// android writes an .sswan. The app asks for password and passphrase: the format has
// no place for either.
func (p *Profile) android() ([]File, error) {
	ike, err := take(suite.IKE, p.IKE, "Android", appleSuites(suite.IKE))
	if err != nil {
		return nil, err
	}
	esp, err := take(suite.ESP, p.ESP, "Android", appleSuites(suite.ESP))
	if err != nil {
		return nil, err
	}
	v := sswan{UUID: p.uuid("sswan"), Name: p.Name, Type: "ikev2-eap", IKE: ike.keywords, ESP: esp.keywords,
		Remote: sswanRemote{Addr: p.Gateway, ID: p.RemoteID}, Local: sswanLocal{EAPID: p.User}}
	if p.CA != nil {
		v.Remote.Cert = p.CA.DER()
	}
	if p.withCert() {
		v.Type = map[bool]string{false: "ikev2-cert", true: "ikev2-eap-tls"}[p.EAPTLS]
		v.Local = sswanLocal{ID: p.User}
		if v.Local.P12, err = p.pkcs12(true); err != nil { // Android's key chain reads no PBES2 before 14
			return nil, err
		}
	}
	if len(p.Subnets) > 0 {
		v.Split = &sswanSplit{}
		for _, x := range p.Subnets {
			v.Split.Subnets = append(v.Split.Subnets, x.String())
		}
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	return []File{{Name: p.fileName(".sswan"), Type: "application/vnd.strongswan.profile", Data: append(b, '\n'), Secret: p.withCert()}}, nil
}
