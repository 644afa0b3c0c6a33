package adit

import (
	"adit/internal/acme"
	"adit/internal/config"
	"adit/internal/gateway"
)

// keepCerts has the gateway prove itself by the certificates of adit.acme, those that
// there are and those that come. The returned function ends it.
func (g *Gateway) keepCerts(gw *gateway.Gateway) (end func()) {
	g.acme = acme.New(acme.Options{
		Dir: g.daemon.ACMEDir(), Version: Version, Log: g.log,
		Use: func(name string, id acme.Identity) {
			if err := gw.KeepCert(name, id.Chain, config.Key{Signer: id.Key, Kept: true}); err != nil {
				g.log.Error("the certificate cannot be used: "+err.Error(), "certificate", name)
			}
		},
		Forget: gw.ForgetCert,
		Trouble: func(c config.ACME, why string, has bool) {
			if !has {
				gw.MissCert(c.Domains, why)
			}
		},
	})
	g.acme.Configure(g.daemon.ACME)
	return g.acme.Close
}
