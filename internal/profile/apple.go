package profile

import (
	"crypto/ecdsa"
	"errors"
	"strconv"

	"adit/suite"
)

// apple writes a configuration profile: a VPN payload of type IKEv2, the authority, and
// the user's certificate. Keys, types and values are those of Apple's device-management
// schema (com.apple.vpn.managed, com.apple.security.root, com.apple.security.pkcs12),
// which the tests compare.
func (p *Profile) apple(mac bool) ([]File, error) {
	system := map[bool]string{false: "iOS", true: "macOS"}[mac]
	ike, err := take(suite.IKE, p.IKE, system, appleSuites(suite.IKE))
	if err != nil {
		return nil, err
	}
	esp, err := take(suite.ESP, p.ESP, system, appleSuites(suite.ESP))
	if err != nil {
		return nil, err
	}
	id := "net.adit.profile." + p.uuid("profile")
	payload := func(kind, name string) dict {
		return dict{{"PayloadType", kind}, {"PayloadVersion", 1}, {"PayloadIdentifier", id + "." + kind}, {"PayloadUUID", p.uuid(kind)}, {"PayloadDisplayName", name}}
	}
	vpn := payload("com.apple.vpn.managed", p.Name)
	vpn.add("UserDefinedName", p.Name)
	vpn.add("VPNType", "IKEv2")
	settings := p.appleIKEv2(ike, esp)
	content := []any{}
	if p.CA != nil {
		root := payload("com.apple.security.root", p.CA.Subject())
		root.add("PayloadCertificateFileName", "ca.cer")
		root.add("PayloadContent", p.CA.DER())
		content = append(content, root)
		if p.Issuer != "" {
			settings.add("ServerCertificateIssuerCommonName", p.Issuer) // makes it ask for the certificate
		}
	} else if !p.Unasked {
		return nil, errors.New("the connection needs send_cert = always: Apple's clients ask for a certificate only by its issuer's name, which an authority that systems know may change")
	}
	if p.withCert() {
		// Apple reads PBES2 from iOS 15 and macOS 12 on, and all read 3DES; the file is
		// as secret as the passphrase that stands beside it.
		b, err := p.pkcs12(true)
		if err != nil {
			return nil, err
		}
		c := payload("com.apple.security.pkcs12", p.User)
		c.add("PayloadCertificateFileName", "user.p12")
		c.add("Password", p.Passphrase)
		c.add("PayloadContent", b)
		content = append(content, c)
	}
	vpn.add("IKEv2", settings)
	content = append(content, vpn)
	top := dict{{"PayloadType", "Configuration"}, {"PayloadVersion", 1}, {"PayloadIdentifier", id}, {"PayloadUUID", p.uuid("profile")},
		{"PayloadDisplayName", p.Name}, {"PayloadDescription", "VPN " + p.Name + " of " + p.Gateway + " for " + p.User}, {"PayloadContent", content}}
	return []File{{Name: p.fileName(".mobileconfig"), Type: "application/x-apple-aspen-config", Data: plist(top), Secret: p.Password != "" || p.withCert()}}, nil
}

func (p *Profile) appleIKEv2(ike, esp choice) dict {
	d := dict{{"RemoteAddress", p.Gateway}, {"RemoteIdentifier", p.RemoteID}, {"LocalIdentifier", p.User}}
	if p.withCert() {
		kind := "RSA"
		if k, ok := p.Cert.PublicKey.(*ecdsa.PublicKey); ok {
			kind = "ECDSA" + strconv.Itoa(k.Params().BitSize)
		}
		d.add("AuthenticationMethod", "Certificate")
		d.add("CertificateType", kind)
		d.add("PayloadCertificateUUID", p.uuid("com.apple.security.pkcs12"))
		if p.EAPTLS {
			d.add("ExtendedAuthEnabled", 1)
		}
	} else {
		d.add("AuthenticationMethod", "None")
		d.add("ExtendedAuthEnabled", 1)
		d.add("AuthName", p.User)
		if p.Password != "" {
			d.add("AuthPassword", p.Password)
		}
	}
	sa := func(c choice, minutes int) dict {
		out := dict{{"EncryptionAlgorithm", c.words[0]}, {"IntegrityAlgorithm", c.words[1]}}
		if g, err := strconv.Atoi(c.words[2]); err == nil {
			out.add("DiffieHellmanGroup", g)
		}
		out.add("LifeTimeInMinutes", minutes)
		return out
	}
	d.add("IKESecurityAssociationParameters", sa(ike, 1440))
	d.add("ChildSecurityAssociationParameters", sa(esp, 480))
	pfs := 0
	if esp.words[2] != "" {
		pfs = 1
	}
	d.add("EnablePFS", pfs)
	d.add("DeadPeerDetectionRate", "Medium")
	d.add("DisableMOBIKE", 0)
	d.add("DisableRedirect", 0)
	d.add("EnableCertificateRevocationCheck", 0)
	d.add("UseConfigurationAttributeInternalIPSubnet", 0)
	if p.OnDemand {
		d.add("OnDemandEnabled", 1)
		d.add("OnDemandRules", []any{dict{{"Action", "Connect"}}})
	}
	return d
}
