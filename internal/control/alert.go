package control

import (
	"strings"
	"time"

	"adit/conf"
	"adit/ike"
)

// alertEvent is strongSwan's event for error conditions. Its `type` and `ike-sa` are as
// charon's; beside them stand the facts of the refusal, under the names that the log
// and explain have for them.
const alertEvent = "alert"

// alert publishes what of an event is an error condition.
func (c *controller) alert(e ike.Event) {
	if !c.srv.Wanted(alertEvent) {
		return
	}
	if m := alertBody(e, time.Now()); m != nil {
		_ = c.srv.Publish(alertEvent, m) // too long for VICI: then it is in the log only
	}
}

// alertBody is the alert of an event, nil where there is none.
func alertBody(e ike.Event, now time.Time) *conf.Section {
	m := conf.New("")
	switch e := e.(type) {
	case *ike.Rejection:
		m.Set("type", alertType(e))
		switch {
		case e.SA != nil:
			describeIKE(m.Add("ike-sa").Add(nameOr(e.SA.Name)), *e.SA, now)
		case e.Name != "" && e.ID != 0:
			m.Add("ike-sa").Add(e.Name).Setf("uniqueid", "%d", e.ID)
		}
		setFields(m, e)
	case ike.Message:
		if e.Retransmit == 0 || !e.Whole {
			return nil
		}
		if m.Set("type", "retransmit-send"); e.Response {
			m.Set("type", "retransmit-receive") // that is what the answer is repeated for
		}
		if e.ID != 0 {
			s := m.Add("ike-sa").Add(nameOr(e.Name))
			s.Setf("uniqueid", "%d", e.ID)
			s.Set("local-host", e.Local.Addr().String())
			s.Setf("local-port", "%d", e.Local.Port())
			s.Set("remote-host", e.Remote.Addr().String())
			s.Setf("remote-port", "%d", e.Remote.Port())
		}
	case ike.Dropped:
		switch e.Reason {
		case ike.DropMalformed:
			m.Set("type", "parse-error-header")
		case ike.DropUnknownSPI:
			m.Set("type", "invalid-ike-spi")
		default:
			return nil
		}
		m.Set("remote", e.Last.String())
		m.Setf("count", "%d", e.Count)
	case ike.IKEDown:
		t := ""
		switch {
		case strings.Contains(e.Reason, "same peer"):
			t = "unique-replace"
		case strings.Contains(e.Reason, "lifetime"):
			t = "ike-sa-expired"
		default:
			return nil
		}
		m.Set("type", t)
		describeIKE(m.Add("ike-sa").Add(nameOr(e.SA.Name)), e.SA, now)
	default:
		return nil
	}
	return m
}

// nameOr is charon's word for an IKE SA that belongs to no connection yet.
func nameOr(name string) string {
	if name == "" {
		return "(unnamed)"
	}
	return name
}

// setFields adds the facts of a refusal.
func setFields(m *conf.Section, r *ike.Rejection) {
	for _, f := range r.Fields() {
		if f.List != nil {
			m.SetList(f.Name, f.List...)
		} else {
			m.Set(f.Name, f.Value)
		}
	}
}

// alertType is charon's name for a refusal; where it has none it is one of ours:
// no-connection, version-mismatch, limit, peer-refused, internal.
func alertType(r *ike.Rejection) string {
	switch r.Reason {
	case ike.ReasonAddress:
		if r.Detail == "" {
			return "no-connection"
		}
		return "peer-addr-failed"
	case ike.ReasonVersion:
		return "version-mismatch"
	case ike.ReasonProposal:
		if r.Child != "" {
			return "proposal-mismatch-child"
		}
		return "proposal-mismatch-ike"
	case ike.ReasonIdentity, ike.ReasonAuthentication:
		return authAlert(r)
	case ike.ReasonSelectors:
		return "ts-mismatch"
	case ike.ReasonNoAnswer:
		switch {
		case r.Detail == ike.DetailSilent:
			return "peer-init-unreachable"
		case r.Detail == ike.DetailHalfOpen:
			return "half-open-timeout"
		}
		return "retransmit-send-timeout"
	case ike.ReasonSyntax, ike.ReasonCritical:
		return "parse-error-body"
	case ike.ReasonUnique:
		return "unique-keep"
	case ike.ReasonInstall:
		return "install-child-sa-failed"
	case ike.ReasonAddresses:
		return "vip-failure"
	case ike.ReasonLimit:
		return "limit"
	case ike.ReasonPeer:
		return "peer-refused"
	}
	return "internal"
}

func authAlert(r *ike.Rejection) string {
	switch r.Detail {
	case ike.DetailExpired, ike.DetailNotYetValid:
		return "cert-expired"
	case ike.DetailUntrusted:
		return "cert-no-issuer"
	case ike.DetailRevoked:
		return "cert-revoked"
	case ike.DetailNoRevocation:
		return "cert-validation-failed"
	case ike.DetailConstraint, ike.DetailWeak:
		return "cert-policy-violation"
	case ike.DetailRADIUS:
		return "radius-not-responding"
	case ike.DetailNoSignature:
		return "local-auth-failed"
	}
	if r.ByPeer {
		return "local-auth-failed"
	}
	return "peer-auth-failed"
}
