package ikev2

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// Peer quirk (Windows): errors come as a private notify with a Win32 code of four
// bytes (strongSwan documentation, interop/microsoftStatusNotify).
const (
	microsoftError     = 13816 // ERROR_IPSEC_IKE_ERROR: a key exchange where none is expected
	microsoftSituation = 13863 // ERROR_IPSEC_IKE_INVALID_SITUATION: the client is behind a NAT
)

// microsoftErrors are the codes that mean something to an operator
// (learn.microsoft.com, "System Error Codes (12000-15999)").
var microsoftErrors = map[uint32]string{
	87:                 "invalid parameter",
	13801:              "our credentials are unacceptable: its trust, the name or the purpose (serverAuth) of our certificate",
	13806:              "it finds no valid machine certificate",
	microsoftError:     "processing failed: it expects no key exchange in the rekey of a Child SA",
	13819:              "it could not verify our signature",
	microsoftSituation: "invalid situation: behind a NAT it takes no rekey from the server",
	13868:              "policy match error: none of the algorithms are acceptable to it",
}

// microsoftCode is the code of a notify of Windows; 0: it is none.
func microsoftCode(n *wire.Notify) uint32 {
	if n.NotifyType != wire.MSStatus || len(n.Data) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(n.Data)
}

// describeMicrosoft adds what the code means to the record of a refusal.
func describeMicrosoft(r *ike.Rejection, n *wire.Notify) {
	if code := microsoftCode(n); code != 0 {
		r.Notify = fmt.Sprintf("%s(%d)", n.NotifyType, code)
		if r.Difference = microsoftErrors[code]; r.Difference == "" {
			r.Difference = "an error of Windows"
		}
	}
}

// withoutKE are the proposals that do with no key exchange: those that have none, or
// `none` among them.
func withoutKE(list []suite.Proposal) (out []suite.Proposal) {
	none := suite.Transform{Type: suite.TypeKE, ID: suite.KENone}
	for _, p := range list {
		if _, ke := p.First(suite.TypeKE); !ke || p.Has(none) {
			out = append(out, p.WithoutKE())
		}
	}
	return out
}

// microsoftRefused goes on after Windows has refused our rekey of a Child SA; false:
// nothing is known for that.
func (t *rekeyChild) microsoftRefused(s *sa, now time.Time, n *wire.Notify) bool {
	switch microsoftCode(n) {
	case microsoftError:
		if s.peerCaps.noChildKE || t.offer.ke == nil || len(withoutKE(t.offer.proposals)) == 0 {
			return false
		}
		s.note(2, "the peer takes no key exchange when "+t.old.cfg.Name+" is rekeyed: asked for again without, as esp_proposals lets us")
		s.peerCaps.noChildKE = true
		s.enqueueFirst(&rekeyChild{old: t.old})
		return true
	case microsoftSituation:
		// It rekeys by itself, after 200 MiB or its own time; more tries help nobody.
		s.childRefused(t.old.cfg, t.offer, n)
		return true
	}
	return false
}

// rekeyOptions are what to change where Windows refuses rekeys by the server.
func (s *sa) rekeyOptions(child string, code uint32) []string {
	time, esp := s.peer.Option("children."+child+".rekey_time"), s.peer.Option("children."+child+".esp_proposals")
	switch code {
	case microsoftError:
		return []string{esp, time}
	case microsoftSituation:
		return []string{time}
	}
	return nil
}

// blameCertificate says that our certificate was not sent because nobody asked for it.
// Peer quirk (Apple): the client sends no CERTREQ and refuses a server whose
// certificate does not come all the same.
func (s *sa) blameCertificate(r *ike.Rejection) {
	if s.peerCaps.certWithheld {
		r.Hint = "our certificate was not sent, since the peer sent no CERTREQ"
		r.Options = slices.Insert(r.Options, 0, s.peer.Option("send_cert"))
	}
}
