package profile

import (
	"bytes"
	"fmt"
	"strings"

	"adit/suite"
)

// nmDir is where the keyfile looks for the certificates that come with it.
const nmDir = "/etc/NetworkManager/adit/"

// networkManager writes a keyfile of NetworkManager's plugin strongswan, and the
// certificates that it names. The keys of [vpn] are those of the plugin's service.
func (p *Profile) networkManager() ([]File, error) {
	ike, err := take(suite.IKE, p.IKE, "NetworkManager", appleSuites(suite.IKE))
	if err != nil {
		return nil, err
	}
	esp, err := take(suite.ESP, p.ESP, "NetworkManager", appleSuites(suite.ESP))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	set := func(key, value string) { fmt.Fprintf(&b, "%s=%s\n", key, keyfileValue(value)) }
	var files []File
	b.WriteString("[connection]\n")
	set("id", p.Name)
	set("uuid", p.uuid("networkmanager"))
	set("type", "vpn")
	set("autoconnect", "false")
	b.WriteString("\n[vpn]\n")
	set("service-type", "org.freedesktop.NetworkManager.strongswan")
	set("address", p.Gateway)
	if p.CA != nil {
		name := p.fileName("-ca.pem")
		set("certificate", nmDir+name)
		files = append(files, File{Name: name, Type: "application/x-pem-file", Data: p.CA.PEM()})
	}
	set("remote-identity", p.RemoteID)
	if p.withCert() {
		if p.EAPTLS {
			set("method", "eap-tls")
		} else {
			set("method", "cert")
		}
		cert, key, err := p.pemPair()
		if err != nil {
			return nil, err
		}
		set("cert-source", "file")
		set("usercert", nmDir+p.fileName("-cert.pem"))
		set("userkey", nmDir+p.fileName("-key.pem"))
		set("local-identity", p.User)
		files = append(files, File{Name: p.fileName("-cert.pem"), Type: "application/x-pem-file", Data: cert}, File{Name: p.fileName("-key.pem"), Type: "application/x-pem-file", Data: key, Secret: true})
	} else {
		set("method", "eap")
		set("user", p.User)
		set("password-flags", map[bool]string{true: "0", false: "1"}[p.Password != ""])
	}
	set("virtual", "yes")
	set("encap", "no")
	set("ipcomp", "no")
	set("proposal", "yes")
	set("ike", ike.keywords)
	set("esp", esp.keywords)
	if p.Password != "" && !p.withCert() {
		b.WriteString("\n[vpn-secrets]\n")
		set("password", p.Password)
	}
	v4, v6 := families(p.Subnets)
	for _, f := range []struct {
		name string
		n    int
	}{{"ipv4", len(v4)}, {"ipv6", len(v6)}} {
		fmt.Fprintf(&b, "\n[%s]\nmethod=auto\n", f.name)
		if len(p.Subnets) > 0 {
			set("never-default", "true") // what goes through the tunnel is the gateway's selectors
		}
		if len(p.Domains) > 0 {
			set("dns-search", strings.Join(p.Domains, ";")+";")
		}
	}
	main := File{Name: p.fileName(".nmconnection"), Type: "text/plain; charset=utf-8", Data: b.Bytes(), Secret: true}
	return append([]File{main}, files...), nil
}

// keyfileValue escapes what GLib's key files would read otherwise.
func keyfileValue(s string) string {
	s = strings.ReplaceAll(s, `\`, `\\`)
	if strings.HasPrefix(s, " ") {
		s = `\s` + s[1:]
	}
	return s
}
