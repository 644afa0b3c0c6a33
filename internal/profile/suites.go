package profile

import (
	"fmt"
	"strings"

	"adit/suite"
)

// choice is a suite that a system can do: in strongSwan's words and in its own.
type choice struct {
	keywords string
	words    []string
}

// take finds the first of a system's suites that the gateway takes. For ESP without a
// group among the gateway's the one without perfect forward secrecy is taken.
func take(of suite.Protocol, ours []suite.Proposal, system string, choices []choice) (choice, error) {
	for _, c := range choices {
		theirs, err := suite.ParseProposals(of, []string{c.keywords})
		if err != nil {
			return choice{}, fmt.Errorf("%s: %w", c.keywords, err)
		}
		if _, _, err := suite.Select(ours, theirs, suite.SelectOptions{NoAdditional: true}); err == nil {
			return c, nil
		}
	}
	option := map[suite.Protocol]string{suite.IKE: "proposals", suite.ESP: "esp_proposals"}[of]
	return choice{}, fmt.Errorf("the connection has nothing in %s that the client of %s can do: add %s", option, system, choices[0].keywords)
}

// appleGroups are Diffie-Hellman groups by number, best first.
var appleGroups = [][2]string{{"x25519", "31"}, {"ecp384", "20"}, {"ecp256", "19"}, {"ecp521", "21"}, {"modp3072", "15"}, {"modp2048", "14"}}

// appleSuites are those of Apple's IKEv2 payload: EncryptionAlgorithm,
// IntegrityAlgorithm (with GCM in IKE the PRF) and DiffieHellmanGroup.
func appleSuites(of suite.Protocol) (out []choice) {
	for _, e := range []struct{ keyword, word, hash, integ string }{
		{"aes256gcm16", "AES-256-GCM", "sha384", "SHA2-384"}, {"aes256gcm16", "AES-256-GCM", "sha256", "SHA2-256"},
		{"aes128gcm16", "AES-128-GCM", "sha256", "SHA2-256"},
		{"aes256", "AES-256", "sha384", "SHA2-384"}, {"aes256", "AES-256", "sha256", "SHA2-256"}, {"aes128", "AES-128", "sha256", "SHA2-256"},
	} {
		aead := strings.Contains(e.keyword, "gcm")
		for _, g := range appleGroups {
			k := e.keyword
			switch {
			case aead && of == suite.IKE:
				k += "-prf" + e.hash
			case !aead:
				k += "-" + e.hash
			}
			out = append(out, choice{k + "-" + g[0], []string{e.word, e.integ, g[1]}})
		}
		if of == suite.ESP {
			k := e.keyword
			if !aead {
				k += "-" + e.hash
			}
			out = append(out, choice{k, []string{e.word, e.integ, ""}})
		}
	}
	return out
}

// windowsIKE are EncryptionMethod, IntegrityCheckMethod and DHGroup of
// Set-VpnConnectionIPsecConfiguration.
var windowsIKE = []choice{
	{"aes256gcm16-prfsha384-ecp384", []string{"GCMAES256", "SHA384", "ECP384"}},
	{"aes128gcm16-prfsha256-ecp256", []string{"GCMAES128", "SHA256", "ECP256"}},
	{"aes256-sha384-ecp384", []string{"AES256", "SHA384", "ECP384"}},
	{"aes256-sha256-ecp384", []string{"AES256", "SHA256", "ECP384"}},
	{"aes256-sha256-ecp256", []string{"AES256", "SHA256", "ECP256"}},
	{"aes128-sha256-ecp256", []string{"AES128", "SHA256", "ECP256"}},
	{"aes256-sha256-modp2048", []string{"AES256", "SHA256", "Group14"}},
	{"aes128-sha256-modp2048", []string{"AES128", "SHA256", "Group14"}},
}

// windowsESP are CipherTransformConstants, AuthenticationTransformConstants and PfsGroup.
var windowsESP = []choice{
	{"aes256gcm16-ecp384", []string{"GCMAES256", "GCMAES256", "ECP384"}},
	{"aes256gcm16-ecp256", []string{"GCMAES256", "GCMAES256", "ECP256"}},
	{"aes128gcm16-ecp256", []string{"GCMAES128", "GCMAES128", "ECP256"}},
	{"aes256gcm16-modp2048", []string{"GCMAES256", "GCMAES256", "PFS2048"}},
	{"aes128gcm16-modp2048", []string{"GCMAES128", "GCMAES128", "PFS2048"}},
	{"aes256gcm16", []string{"GCMAES256", "GCMAES256", "None"}},
	{"aes128gcm16", []string{"GCMAES128", "GCMAES128", "None"}},
	{"aes256-sha256-ecp384", []string{"AES256", "SHA256128", "ECP384"}},
	{"aes256-sha256-ecp256", []string{"AES256", "SHA256128", "ECP256"}},
	{"aes256-sha256-modp2048", []string{"AES256", "SHA256128", "PFS2048"}},
	{"aes128-sha256-modp2048", []string{"AES128", "SHA256128", "PFS2048"}},
	{"aes256-sha256", []string{"AES256", "SHA256128", "None"}},
	{"aes128-sha256", []string{"AES128", "SHA256128", "None"}},
}

// keywords are proposals in strongSwan's words.
func keywords(list []suite.Proposal) (out []string) {
	seen := map[string]bool{}
	for _, p := range list {
		if k := p.Keywords(); k != "" && !seen[k] {
			seen[k] = true
			out = append(out, k)
		}
	}
	return out
}
