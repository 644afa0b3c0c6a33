package profile

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"

	"adit/suite"
)

// windows writes a PowerShell script that makes the connection: the authority (and the
// user's certificate) go into the machine's stores, so it is run as administrator. The
// cmdlets and their parameters' values are those of Microsoft's module VpnClient.
func (p *Profile) windows() ([]File, error) {
	ike, err := take(suite.IKE, p.IKE, "Windows", windowsIKE)
	if err != nil {
		return nil, err
	}
	esp, err := take(suite.ESP, p.ESP, "Windows", windowsESP)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("#Requires -RunAsAdministrator")
	// check has refused line ends in what goes into comments.
	line("# Makes the VPN connection to %s. Run it by:", p.Gateway)
	line("#   powershell -ExecutionPolicy Bypass -File %s", p.fileName(".ps1"))
	line("$ErrorActionPreference = 'Stop'")
	line("$name = %s", quote(p.Name))
	store := func(der []byte, suffix, run string) {
		line("$file = Join-Path $env:TEMP ([System.Guid]::NewGuid().ToString() + %s)", quote(suffix))
		line("[System.IO.File]::WriteAllBytes($file, [System.Convert]::FromBase64String(%s))", quote(base64.StdEncoding.EncodeToString(der)))
		line("try { %s | Out-Null } finally { Remove-Item -Path $file }", run)
	}
	if p.CA != nil {
		store(p.CA.DER(), ".cer", `Import-Certificate -FilePath $file -CertStoreLocation Cert:\LocalMachine\Root`)
	}
	method := "Eap"
	if p.withCert() {
		p12, err := p.pkcs12(true)
		if err != nil {
			return nil, err
		}
		to := "LocalMachine"
		if p.EAPTLS {
			to = "CurrentUser"
		} else {
			method = "MachineCertificate"
		}
		line("$secret = ConvertTo-SecureString -String %s -AsPlainText -Force", quote(p.Passphrase))
		store(p12, ".pfx", `Import-PfxCertificate -FilePath $file -Password $secret -CertStoreLocation Cert:\`+to+`\My`)
	}
	line("if (Get-VpnConnection -Name $name -ErrorAction SilentlyContinue) { Remove-VpnConnection -Name $name -Force }")
	add := "Add-VpnConnection -Name $name -ServerAddress " + quote(p.Gateway) + " -TunnelType Ikev2 -AuthenticationMethod " + method + " -EncryptionLevel Required"
	if len(p.Domains) > 0 {
		add += " -DnsSuffix " + quote(p.Domains[0])
	}
	if p.withCert() && p.EAPTLS {
		add += " -EapConfigXmlStream (New-EapConfiguration -Tls -UserCertificate).EapConfigXmlStream"
	}
	if !p.withCert() {
		add += " -RememberCredential"
	}
	if len(p.Subnets) > 0 {
		add += " -SplitTunneling"
	}
	line("%s -Force", add)
	line("Set-VpnConnectionIPsecConfiguration -ConnectionName $name -EncryptionMethod %s -IntegrityCheckMethod %s -DHGroup %s -CipherTransformConstants %s -AuthenticationTransformConstants %s -PfsGroup %s -Force",
		ike.words[0], ike.words[1], ike.words[2], esp.words[0], esp.words[1], esp.words[2])
	for _, x := range p.Subnets {
		line("Add-VpnConnectionRoute -ConnectionName $name -DestinationPrefix %s", quote(x.String()))
	}
	who := "the user name is " + p.User
	if p.withCert() {
		who = "the certificate is that of " + p.User
	}
	line("Write-Host %s", quote("The connection "+p.Name+" is in the settings of the network; "+who+"."))
	// The password is not in it: Windows has no cmdlet that stores one.
	return []File{{Name: p.fileName(".ps1"), Type: "text/plain; charset=utf-8", Data: append([]byte("\xef\xbb\xbf"), b.Bytes()...), Secret: p.withCert()}}, nil
}

// quote is a verbatim string of PowerShell, in which only the quote means something:
// all five that PowerShell takes for one are doubled.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range s {
		if strings.ContainsRune("'\u2018\u2019\u201a\u201b", r) {
			b.WriteRune(r)
		}
		b.WriteRune(r)
	}
	return b.String() + "'"
}
