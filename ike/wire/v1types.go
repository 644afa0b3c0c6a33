package wire

import "strconv"

// V1NotifyType is the type of an IKEv1 notification (RFC 2408 §3.14.1, RFC 2407
// §4.6.3, RFC 3706 §5).
type V1NotifyType uint16

// The notifications that are sent or understood; errors are those under 16384.
const (
	V1InvalidPayloadType     V1NotifyType = 1
	V1InvalidExchangeType    V1NotifyType = 7
	V1InvalidSPI             V1NotifyType = 11
	V1NoProposalChosen       V1NotifyType = 14
	V1PayloadMalformed       V1NotifyType = 16
	V1InvalidKeyInformation  V1NotifyType = 17
	V1InvalidIDInformation   V1NotifyType = 18
	V1InvalidHashInformation V1NotifyType = 23
	V1AuthenticationFailed   V1NotifyType = 24
	V1InvalidSignature       V1NotifyType = 25
	V1Connected              V1NotifyType = 16384
	V1ResponderLifetime      V1NotifyType = 24576
	V1ReplayStatus           V1NotifyType = 24577
	V1InitialContact         V1NotifyType = 24578
	V1RUThere                V1NotifyType = 36136
	V1RUThereAck             V1NotifyType = 36137
)

var v1NotifyNames = map[V1NotifyType]string{
	1: "INVALID-PAYLOAD-TYPE", 2: "DOI-NOT-SUPPORTED", 3: "SITUATION-NOT-SUPPORTED", 4: "INVALID-COOKIE", 5: "INVALID-MAJOR-VERSION",
	6: "INVALID-MINOR-VERSION", 7: "INVALID-EXCHANGE-TYPE", 8: "INVALID-FLAGS", 9: "INVALID-MESSAGE-ID", 10: "INVALID-PROTOCOL-ID",
	11: "INVALID-SPI", 12: "INVALID-TRANSFORM-ID", 13: "ATTRIBUTES-NOT-SUPPORTED", 14: "NO-PROPOSAL-CHOSEN", 15: "BAD-PROPOSAL-SYNTAX",
	16: "PAYLOAD-MALFORMED", 17: "INVALID-KEY-INFORMATION", 18: "INVALID-ID-INFORMATION", 19: "INVALID-CERT-ENCODING", 20: "INVALID-CERTIFICATE",
	21: "CERT-TYPE-UNSUPPORTED", 22: "INVALID-CERT-AUTHORITY", 23: "INVALID-HASH-INFORMATION", 24: "AUTHENTICATION-FAILED", 25: "INVALID-SIGNATURE",
	26: "ADDRESS-NOTIFICATION", 27: "NOTIFY-SA-LIFETIME", 28: "CERTIFICATE-UNAVAILABLE", 29: "UNSUPPORTED-EXCHANGE-TYPE", 30: "UNEQUAL-PAYLOAD-LENGTHS",
	16384: "CONNECTED", 24576: "RESPONDER-LIFETIME", 24577: "REPLAY-STATUS", 24578: "INITIAL-CONTACT",
	36136: "R-U-THERE", 36137: "R-U-THERE-ACK",
}

// String is the name in the RFCs.
func (t V1NotifyType) String() string { return name(v1NotifyNames, t, "Notify") }

// IsError reports whether the notification says that something went wrong.
func (t V1NotifyType) IsError() bool { return t > 0 && t < 16384 }

// Attributes of phase 1 transforms (RFC 2409 appendix A).
const (
	V1AttrEncryption uint16 = 1
	V1AttrHash       uint16 = 2
	V1AttrAuth       uint16 = 3
	V1AttrGroup      uint16 = 4
	V1AttrLifeType   uint16 = 11
	V1AttrLife       uint16 = 12
	V1AttrPRF        uint16 = 13
	V1AttrKeyLength  uint16 = 14
)

// V1KeyIKE is the transform identifier of phase 1 (RFC 2407 §4.4.2).
const V1KeyIKE uint8 = 1

// Attributes of phase 2 transforms (RFC 2407 §4.5, RFC 4304).
const (
	V1AttrESPLifeType  uint16 = 1
	V1AttrESPLife      uint16 = 2
	V1AttrESPGroup     uint16 = 3
	V1AttrESPMode      uint16 = 4
	V1AttrESPAuth      uint16 = 5
	V1AttrESPKeyLength uint16 = 6
	V1AttrESPESN       uint16 = 11
)

// V1Auth is the authentication method of phase 1 (RFC 2409 appendix A, RFC 4754,
// draft-beaulieu-ike-xauth-02 §6, draft-ietf-ipsec-isakmp-hybrid-auth-05 §3.2.1).
type V1Auth uint16

// The methods. Those with Init have the initiator prove itself by XAUTH, those with
// Resp the responder; Hybrid has a signature of the responder alone.
const (
	V1AuthPSK           V1Auth = 1
	V1AuthRSASig        V1Auth = 3
	V1AuthECDSA256      V1Auth = 9
	V1AuthECDSA384      V1Auth = 10
	V1AuthECDSA521      V1Auth = 11
	V1AuthHybridInitRSA V1Auth = 64221
	V1AuthHybridRespRSA V1Auth = 64222
	V1AuthXAuthInitPSK  V1Auth = 65001
	V1AuthXAuthRespPSK  V1Auth = 65002
	V1AuthXAuthInitRSA  V1Auth = 65005
	V1AuthXAuthRespRSA  V1Auth = 65006
)

var v1AuthNames = map[V1Auth]string{
	V1AuthPSK: "PSK", 2: "DSS", V1AuthRSASig: "RSA_SIG", 4: "RSA_ENC", 5: "RSA_ENC_REV",
	V1AuthECDSA256: "ECDSA_256", V1AuthECDSA384: "ECDSA_384", V1AuthECDSA521: "ECDSA_521",
	V1AuthHybridInitRSA: "HYBRID_INIT_RSA", V1AuthHybridRespRSA: "HYBRID_RESP_RSA",
	V1AuthXAuthInitPSK: "XAUTH_INIT_PSK", V1AuthXAuthRespPSK: "XAUTH_RESP_PSK",
	V1AuthXAuthInitRSA: "XAUTH_INIT_RSA", V1AuthXAuthRespRSA: "XAUTH_RESP_RSA",
}

// String names the method.
func (a V1Auth) String() string { return name(v1AuthNames, a, "Auth") }

// V1Summary is an IKEv1 message in one line, for logs: names and numbers only.
func V1Summary(h Header, list []V1Payload) string {
	b := append([]byte(nil), h.Exchange.String()...)
	if h.MessageID != 0 {
		b = append(b, ' ')
		b = strconv.AppendUint(b, uint64(h.MessageID), 16)
	}
	b = append(b, " ["...)
	for _, p := range list {
		b = append(b, ' ')
		b = append(b, p.Type.String()...)
		switch p.Type {
		case PayloadV1Notification:
			if n, err := ParseV1Notify(p.Body); err == nil {
				b = append(append(append(b, '('), n.Type.String()...), ')')
			}
		case PayloadV1Delete:
			if d, err := ParseV1Delete(p.Body); err == nil {
				b = append(append(append(b, '('), d.Protocol.String()...), ')')
			}
		}
	}
	return string(append(b, " ]"...))
}
