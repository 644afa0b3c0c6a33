// Package pkitest makes certificate authorities, certificates, CRLs and OCSP answers
// for tests, good ones and bad ones.
//
// It owns the making; nothing here may be used by the product (what `adit pki` issues
// comes from package pki). Start with [NewCA], then [Entity.Issue].
//
//	ca := pkitest.NewCA(t, pkitest.Spec{Name: "Test CA"})
//	gw := ca.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}, Key: pkitest.RSA2048})
//	gw.WriteFiles(dir, "gw") // gw.crt (with intermediates), gw.key
package pkitest
