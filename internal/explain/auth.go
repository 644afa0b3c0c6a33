package explain

import (
	"strings"

	"adit/ike"
)

// identity explains who came instead of whom.
func (e *explainer) identity(r *ike.Rejection) {
	switch r.Detail {
	case ike.DetailRemoteID:
		e.verdict(Down, "was refused: the peer says that it is somebody else.")
		e.change(r, "id = %s, if that is the peer; else the peer must say %s.", r.Theirs, r.Ours)
	case ike.DetailLocalID:
		e.verdict(Down, "was refused: the peer wants to talk to another identity than ours.")
		e.fact("%s.", capital(plain(r.Difference)))
		e.change(r, "Our id must be the one that the peer has as its remote id, or the other way round.")
	default:
		e.verdict(Down, "was refused: %s.", r.Difference)
		e.change(r, "The id that a connection expects must be the one that the peer has.")
	}
}

// authentication explains proofs that failed.
func (e *explainer) authentication(r *ike.Rejection) {
	if r.ByPeer && len(r.Options) > 0 && strings.HasSuffix(r.Options[0], ".send_cert") {
		e.verdict(Down, "was refused by the peer (%s), which had not seen our certificate.", r.Notify)
		e.fact("%s.", capital(r.Hint))
		e.change(r, "send_cert = always sends it to everybody; Apple's clients never ask for it.")
		return
	}
	switch r.Detail {
	case ike.DetailNoPSK:
		e.verdict(Down, "has no pre-shared key for these two identities.")
		e.change(r, "Add a section ike-NAME with secret, and id-1, id-2 for the two identities.")
	case ike.DetailPSK:
		e.verdict(Down, "was refused: the pre-shared keys of the two sides differ.")
		e.change(r, "Both sides need the same secret: compare them letter by letter, with blanks and quotes.")
		if len(e.Changes) == 0 {
			e.fact("No secret of these identities is loaded any more.")
		}
	case ike.DetailNoSignature:
		e.verdict(Down, "cannot prove who we are: %s.", strings.TrimPrefix(r.Difference, "no signature of ours: "))
		e.change(r, "Name a certificate whose private key is loaded and that speaks for our id.")
	case ike.DetailMethod:
		e.verdict(Down, "was refused: the peer proves itself by another method than is wanted.")
		e.fact("%s.", capital(plain(r.Difference)))
		e.change(r, "auth must be what the peer does (psk, pubkey, eap-...), or the peer must be set to it.")
	case ike.DetailNoCertificate:
		e.verdict(Down, "was refused: %s.", r.Difference)
		e.change(r, "Name the peer's certificate here, or let the peer send it (its send_cert).")
	case ike.DetailSignature:
		e.verdict(Down, "was refused: the peer's signature does not fit its certificate.")
		e.fact("%s.", capital(plain(r.Difference)))
		e.change(r, "The certificate known here is not of the key that the peer signs with: give the one that it has now.")
	case ike.DetailExpired, ike.DetailNotYetValid:
		e.time(r)
	case ike.DetailUntrusted:
		e.verdict(Down, "was refused: there is no chain from the peer's certificate to an authority that is trusted here.")
		e.fact("%s.", capital(plain(r.Difference)))
		e.change(r, "Put the root (and what is between) of the peer's certificate into x509ca, or name it in cacerts.")
	case ike.DetailRevoked:
		e.verdict(Down, "was refused: the peer's certificate was revoked.")
		e.fact("%s.", capital(plain(r.Difference)))
		e.advise("", "The peer needs a new certificate. If it was revoked by mistake, its authority must publish a new CRL.")
	case ike.DetailNoRevocation:
		e.verdict(Down, "was refused: nobody says whether the peer's certificate was revoked.")
		e.fact("%s.", capital(plain(r.Difference)))
		e.change(r, "Let CRL or OCSP be reached; revocation = relaxed goes on without an answer.")
	case ike.DetailOtherName:
		e.verdict(Down, "was refused: the peer's certificate does not speak for the identity that it claims.")
		e.fact("%s.", capital(plain(r.Difference)))
		e.change(r, "The peer needs a certificate with this identity as subjectAltName, or an id that its certificate has.")
	case ike.DetailWeak:
		e.verdict(Down, "was refused: the peer's key or signature is weaker than is demanded.")
		e.fact("%s.", capital(plain(r.Difference)))
		e.change(r, "The peer should have a stronger key; auth says what is demanded.")
	case ike.DetailConstraint:
		e.verdict(Down, "was refused: the peer's certificate breaks a rule of the connection.")
		e.fact("%s.", capital(plain(r.Difference)))
		e.change(r, "What is demanded of the peer's certificate stands in cacerts, certs, cert_policy and auth.")
	case ike.DetailEAP:
		e.verdict(Down, "was refused: EAP failed.")
		e.fact("%s.", capital(strings.TrimPrefix(r.Difference, "EAP: ")))
		e.change(r, "The user's password here and the one given there must be the same, and so the method.")
	case ike.DetailRADIUS:
		e.verdict(Down, "was refused: no RADIUS server answered.")
		e.fact("%s.", capital(strings.TrimPrefix(r.Difference, "EAP: ")))
		e.change(r, "Address, port and secret of the server must be right (in strongswan.conf), and it must know this gateway as a client.")
	default:
		e.unproven(r)
	}
}

// unproven explains an AUTHENTICATION_FAILED, which says nothing more by design.
func (e *explainer) unproven(r *ike.Rejection) {
	if !r.ByPeer {
		e.verdict(Down, "was refused: %s.", nonEmpty(r.Difference, "authentication failed"))
		for _, o := range e.options(r) {
			e.advise(o, "%s", otherwise(o))
		}
		return
	}
	e.verdict(Down, "was refused by the peer: it does not believe who we are (%s).", nonEmpty(r.Notify))
	e.fact("By design a peer does not say why; its log does. It knows us as another id, its secret or the authority of our certificate is another one, our certificate is out of its time, or its unique policy keeps another IKE SA.")
	if r.Difference != "" {
		e.fact("%s.", capital(plain(r.Difference)))
	}
	e.change(r, "%s", map[bool]string{true: "The secret must be the peer's, letter by letter.",
		false: "What proves us must be what the peer expects."}[len(r.Options) > 0 && strings.HasSuffix(r.Options[0], ".secret")])
}

// time explains certificates out of their time, and whose clock may be wrong.
func (e *explainer) time(r *ike.Rejection) {
	word := "has expired"
	if r.Detail == ike.DetailNotYetValid {
		word = "is not valid yet"
	}
	now := e.Now.UTC().Format("2006-01-02 15:04 UTC")
	switch {
	case len(e.Clock) > 0:
		e.verdict(Down, "was refused: by this host's clock a certificate %s, and the clock is off.", word)
		for _, s := range e.Clock {
			e.fact("%s.", capital(s))
		}
		e.advise("", "Set the clock (it says %s) and keep it right by NTP.", now)
	default:
		e.verdict(Down, "was refused: a certificate %s.", word)
	}
	e.fact("%s.", capital(plain(r.Difference)))
	if len(e.Clock) == 0 {
		e.fact("This host's clock says %s, and nothing that is loaded contradicts it.", now)
		if r.Detail == ike.DetailExpired {
			e.advise("", "The peer (or the authority) needs a new certificate.")
		} else {
			e.advise("", "Look at the clock of whoever issued it; wait until it is valid, or issue it anew.")
		}
	}
}
