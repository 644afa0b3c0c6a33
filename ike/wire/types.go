package wire

import "strconv"

// name gives the registry's name of v, or kind with the number.
func name[T ~uint8 | ~uint16](names map[T]string, v T, kind string) string {
	if s, ok := names[v]; ok {
		return s
	}
	return kind + "(" + strconv.Itoa(int(v)) + ")"
}

// PayloadType is the type of a payload, as the next-payload fields say it. The
// numbers of IKEv1 and IKEv2 do not overlap.
type PayloadType uint8

// PayloadNone ends a chain.
const PayloadNone PayloadType = 0

// The payloads of IKEv2 (RFC 7296 section 3.2; RFC 6467, 9838, 7383, 8019).
const (
	PayloadSA       PayloadType = 33
	PayloadKE       PayloadType = 34
	PayloadIDi      PayloadType = 35
	PayloadIDr      PayloadType = 36
	PayloadCERT     PayloadType = 37
	PayloadCERTREQ  PayloadType = 38
	PayloadAUTH     PayloadType = 39
	PayloadNonce    PayloadType = 40
	PayloadNotify   PayloadType = 41
	PayloadDelete   PayloadType = 42
	PayloadVendorID PayloadType = 43
	PayloadTSi      PayloadType = 44
	PayloadTSr      PayloadType = 45
	PayloadSK       PayloadType = 46
	PayloadCP       PayloadType = 47
	PayloadEAP      PayloadType = 48
	PayloadGSPM     PayloadType = 49
	PayloadIDg      PayloadType = 50
	PayloadGSA      PayloadType = 51
	PayloadKD       PayloadType = 52
	PayloadSKF      PayloadType = 53
	PayloadPS       PayloadType = 54
)

// The payloads of IKEv1 (RFC 2408 section 3.1, RFC 3947, and the number that
// its proprietary fragmentation uses).
const (
	PayloadV1SA           PayloadType = 1
	PayloadV1Proposal     PayloadType = 2
	PayloadV1Transform    PayloadType = 3
	PayloadV1KE           PayloadType = 4
	PayloadV1ID           PayloadType = 5
	PayloadV1CERT         PayloadType = 6
	PayloadV1CERTREQ      PayloadType = 7
	PayloadV1Hash         PayloadType = 8
	PayloadV1Signature    PayloadType = 9
	PayloadV1Nonce        PayloadType = 10
	PayloadV1Notification PayloadType = 11
	PayloadV1Delete       PayloadType = 12
	PayloadV1VendorID     PayloadType = 13
	PayloadV1Attributes   PayloadType = 14
	PayloadV1NATD         PayloadType = 20
	PayloadV1NATOA        PayloadType = 21
	PayloadV1Fragment     PayloadType = 132
)

var payloadNames = map[PayloadType]string{
	PayloadNone: "None",
	PayloadSA:   "SA", PayloadKE: "KE", PayloadIDi: "IDi", PayloadIDr: "IDr",
	PayloadCERT: "CERT", PayloadCERTREQ: "CERTREQ", PayloadAUTH: "AUTH",
	PayloadNonce: "Nonce", PayloadNotify: "N", PayloadDelete: "D",
	PayloadVendorID: "V", PayloadTSi: "TSi", PayloadTSr: "TSr", PayloadSK: "SK",
	PayloadCP: "CP", PayloadEAP: "EAP", PayloadGSPM: "GSPM", PayloadIDg: "IDg",
	PayloadGSA: "GSA", PayloadKD: "KD", PayloadSKF: "SKF", PayloadPS: "PS",
	PayloadV1SA: "SA_V1", PayloadV1Proposal: "P_V1", PayloadV1Transform: "T_V1",
	PayloadV1KE: "KE_V1", PayloadV1ID: "ID_V1", PayloadV1CERT: "CERT_V1",
	PayloadV1CERTREQ: "CR_V1", PayloadV1Hash: "HASH_V1",
	PayloadV1Signature: "SIG_V1", PayloadV1Nonce: "NONCE_V1",
	PayloadV1Notification: "N_V1", PayloadV1Delete: "D_V1",
	PayloadV1VendorID: "VID_V1", PayloadV1Attributes: "ATTR_V1",
	PayloadV1NATD: "NAT-D_V1", PayloadV1NATOA: "NAT-OA_V1",
	PayloadV1Fragment: "FRAG_V1",
}

// String is the notation of the RFCs: SA, KE, IDi, N, D, V, TSi…; those of
// IKEv1 end in _V1.
func (t PayloadType) String() string { return name(payloadNames, t, "Payload") }

// ExchangeType is the exchange type of the header.
type ExchangeType uint8

// The exchanges of IKEv2 (RFC 7296 section 3.1; RFC 5723, 9838, 9242, 9370).
const (
	ExchangeIKESAInit        ExchangeType = 34
	ExchangeIKEAuth          ExchangeType = 35
	ExchangeCreateChildSA    ExchangeType = 36
	ExchangeInformational    ExchangeType = 37
	ExchangeIKESessionResume ExchangeType = 38
	ExchangeGSAAuth          ExchangeType = 39
	ExchangeGSARegistration  ExchangeType = 40
	ExchangeGSARekey         ExchangeType = 41
	ExchangeGSAInbandRekey   ExchangeType = 42
	ExchangeIKEIntermediate  ExchangeType = 43
	ExchangeIKEFollowupKE    ExchangeType = 44
)

// The exchanges of IKEv1 (RFC 2408 section 3.1, RFC 2409 appendix A, and the
// Transaction exchange of Mode Config).
const (
	ExchangeV1Base               ExchangeType = 1
	ExchangeV1IdentityProtection ExchangeType = 2
	ExchangeV1AuthOnly           ExchangeType = 3
	ExchangeV1Aggressive         ExchangeType = 4
	ExchangeV1Informational      ExchangeType = 5
	ExchangeV1Transaction        ExchangeType = 6
	ExchangeV1QuickMode          ExchangeType = 32
	ExchangeV1NewGroup           ExchangeType = 33
)

var exchangeNames = map[ExchangeType]string{
	ExchangeIKESAInit:            "IKE_SA_INIT",
	ExchangeIKEAuth:              "IKE_AUTH",
	ExchangeCreateChildSA:        "CREATE_CHILD_SA",
	ExchangeInformational:        "INFORMATIONAL",
	ExchangeIKESessionResume:     "IKE_SESSION_RESUME",
	ExchangeGSAAuth:              "GSA_AUTH",
	ExchangeGSARegistration:      "GSA_REGISTRATION",
	ExchangeGSARekey:             "GSA_REKEY",
	ExchangeGSAInbandRekey:       "GSA_INBAND_REKEY",
	ExchangeIKEIntermediate:      "IKE_INTERMEDIATE",
	ExchangeIKEFollowupKE:        "IKE_FOLLOWUP_KE",
	ExchangeV1Base:               "Base",
	ExchangeV1IdentityProtection: "Identity Protection",
	ExchangeV1AuthOnly:           "Authentication Only",
	ExchangeV1Aggressive:         "Aggressive",
	ExchangeV1Informational:      "Informational",
	ExchangeV1Transaction:        "Transaction",
	ExchangeV1QuickMode:          "Quick Mode",
	ExchangeV1NewGroup:           "New Group Mode",
}

// String is the name in the RFCs.
func (t ExchangeType) String() string { return name(exchangeNames, t, "Exchange") }

// ProtocolID says which protocol a proposal, an SPI or a Delete is about.
type ProtocolID uint8

// The protocols (RFC 7296 section 3.3.1, RFC 4595). ProtocolNone stands in a
// Notify payload without SPI.
const (
	ProtocolNone        ProtocolID = 0
	ProtocolIKE         ProtocolID = 1
	ProtocolAH          ProtocolID = 2
	ProtocolESP         ProtocolID = 3
	ProtocolFCESPHeader ProtocolID = 4
	ProtocolFCCTAuth    ProtocolID = 5
)

var protocolNames = map[ProtocolID]string{
	ProtocolNone:        "none",
	ProtocolIKE:         "IKE",
	ProtocolAH:          "AH",
	ProtocolESP:         "ESP",
	ProtocolFCESPHeader: "FC_ESP_HEADER",
	ProtocolFCCTAuth:    "FC_CT_AUTHENTICATION",
}

// String is the name in the registry.
func (p ProtocolID) String() string { return name(protocolNames, p, "Protocol") }

// IDType is the form of an identity.
type IDType uint8

// The identity types (RFC 7296 section 3.5, RFC 4595, RFC 7619). Those marked
// V1 exist in IKEv1 only (RFC 2407 section 4.6.2).
const (
	IDIPv4Addr         IDType = 1
	IDFQDN             IDType = 2
	IDRFC822Addr       IDType = 3
	IDV1IPv4AddrSubnet IDType = 4
	IDIPv6Addr         IDType = 5
	IDV1IPv6AddrSubnet IDType = 6
	IDV1IPv4AddrRange  IDType = 7
	IDV1IPv6AddrRange  IDType = 8
	IDDERASN1DN        IDType = 9
	IDDERASN1GN        IDType = 10
	IDKeyID            IDType = 11
	IDFCName           IDType = 12
	IDNull             IDType = 13
)

var idTypeNames = map[IDType]string{
	IDIPv4Addr:         "ID_IPV4_ADDR",
	IDFQDN:             "ID_FQDN",
	IDRFC822Addr:       "ID_RFC822_ADDR",
	IDV1IPv4AddrSubnet: "ID_IPV4_ADDR_SUBNET",
	IDIPv6Addr:         "ID_IPV6_ADDR",
	IDV1IPv6AddrSubnet: "ID_IPV6_ADDR_SUBNET",
	IDV1IPv4AddrRange:  "ID_IPV4_ADDR_RANGE",
	IDV1IPv6AddrRange:  "ID_IPV6_ADDR_RANGE",
	IDDERASN1DN:        "ID_DER_ASN1_DN",
	IDDERASN1GN:        "ID_DER_ASN1_GN",
	IDKeyID:            "ID_KEY_ID",
	IDFCName:           "ID_FC_NAME",
	IDNull:             "ID_NULL",
}

// String is the name in the registry.
func (t IDType) String() string { return name(idTypeNames, t, "IDType") }

// AuthMethod is how an AUTH payload was computed.
type AuthMethod uint8

// The authentication methods (RFC 7296 section 3.8; RFC 4754, 6467, 7619,
// 7427).
const (
	AuthRSASignature     AuthMethod = 1
	AuthSharedKey        AuthMethod = 2
	AuthDSSSignature     AuthMethod = 3
	AuthECDSA256         AuthMethod = 9
	AuthECDSA384         AuthMethod = 10
	AuthECDSA521         AuthMethod = 11
	AuthGSPM             AuthMethod = 12
	AuthNull             AuthMethod = 13
	AuthDigitalSignature AuthMethod = 14
)

var authMethodNames = map[AuthMethod]string{
	AuthRSASignature:     "RSA Digital Signature",
	AuthSharedKey:        "Shared Key Message Integrity Code",
	AuthDSSSignature:     "DSS Digital Signature",
	AuthECDSA256:         "ECDSA with SHA-256 on the P-256 curve",
	AuthECDSA384:         "ECDSA with SHA-384 on the P-384 curve",
	AuthECDSA521:         "ECDSA with SHA-512 on the P-521 curve",
	AuthGSPM:             "Generic Secure Password Authentication Method",
	AuthNull:             "NULL Authentication",
	AuthDigitalSignature: "Digital Signature",
}

// String is the name in the registry.
func (m AuthMethod) String() string { return name(authMethodNames, m, "AuthMethod") }

// CertEncoding is the form of a certificate or of the naming of authorities.
type CertEncoding uint8

// The certificate encodings (RFC 7296 section 3.6, RFC 4806, RFC 7670).
const (
	CertPKCS7             CertEncoding = 1
	CertPGP               CertEncoding = 2
	CertDNSSignedKey      CertEncoding = 3
	CertX509Signature     CertEncoding = 4
	CertKerberosTokens    CertEncoding = 6
	CertCRL               CertEncoding = 7
	CertARL               CertEncoding = 8
	CertSPKI              CertEncoding = 9
	CertX509Attribute     CertEncoding = 10
	CertRawRSAKey         CertEncoding = 11
	CertHashURLX509       CertEncoding = 12
	CertHashURLX509Bundle CertEncoding = 13
	CertOCSPContent       CertEncoding = 14
	CertRawPublicKey      CertEncoding = 15
)

var certEncodingNames = map[CertEncoding]string{
	CertPKCS7:             "PKCS #7 wrapped X.509 certificate",
	CertPGP:               "PGP Certificate",
	CertDNSSignedKey:      "DNS Signed Key",
	CertX509Signature:     "X.509 Certificate - Signature",
	CertKerberosTokens:    "Kerberos Tokens",
	CertCRL:               "Certificate Revocation List (CRL)",
	CertARL:               "Authority Revocation List (ARL)",
	CertSPKI:              "SPKI Certificate",
	CertX509Attribute:     "X.509 Certificate - Attribute",
	CertRawRSAKey:         "Raw RSA Key",
	CertHashURLX509:       "Hash and URL of X.509 certificate",
	CertHashURLX509Bundle: "Hash and URL of X.509 bundle",
	CertOCSPContent:       "OCSP Content",
	CertRawPublicKey:      "Raw Public Key",
}

// String is the name in the registry.
func (e CertEncoding) String() string { return name(certEncodingNames, e, "CertEncoding") }

// AttributeType is the type of a configuration attribute, 15 bits.
type AttributeType uint16

// The configuration attributes (RFC 7296 section 3.15.1; RFC 5026, 5739, 6311,
// 7651, 8598, 9464, and those of 3GPP).
const (
	InternalIP4Address            AttributeType = 1
	InternalIP4Netmask            AttributeType = 2
	InternalIP4DNS                AttributeType = 3
	InternalIP4NBNS               AttributeType = 4
	InternalIP4DHCP               AttributeType = 6
	ApplicationVersion            AttributeType = 7
	InternalIP6Address            AttributeType = 8
	InternalIP6DNS                AttributeType = 10
	InternalIP6DHCP               AttributeType = 12
	InternalIP4Subnet             AttributeType = 13
	SupportedAttributes           AttributeType = 14
	InternalIP6Subnet             AttributeType = 15
	MIP6HomePrefix                AttributeType = 16
	InternalIP6Link               AttributeType = 17
	InternalIP6Prefix             AttributeType = 18
	HomeAgentAddress              AttributeType = 19
	PCSCFIP4Address               AttributeType = 20
	PCSCFIP6Address               AttributeType = 21
	FTTKAT                        AttributeType = 22
	ExternalSourceIP4NATInfo      AttributeType = 23
	TimeoutPeriodForLivenessCheck AttributeType = 24
	InternalDNSDomain             AttributeType = 25
	InternalDNSSECTA              AttributeType = 26
	EncDNSIP4                     AttributeType = 27
	EncDNSIP6                     AttributeType = 28
	EncDNSDigest                  AttributeType = 29
)

var attributeTypeNames = map[AttributeType]string{
	InternalIP4Address:            "INTERNAL_IP4_ADDRESS",
	InternalIP4Netmask:            "INTERNAL_IP4_NETMASK",
	InternalIP4DNS:                "INTERNAL_IP4_DNS",
	InternalIP4NBNS:               "INTERNAL_IP4_NBNS",
	InternalIP4DHCP:               "INTERNAL_IP4_DHCP",
	ApplicationVersion:            "APPLICATION_VERSION",
	InternalIP6Address:            "INTERNAL_IP6_ADDRESS",
	InternalIP6DNS:                "INTERNAL_IP6_DNS",
	InternalIP6DHCP:               "INTERNAL_IP6_DHCP",
	InternalIP4Subnet:             "INTERNAL_IP4_SUBNET",
	SupportedAttributes:           "SUPPORTED_ATTRIBUTES",
	InternalIP6Subnet:             "INTERNAL_IP6_SUBNET",
	MIP6HomePrefix:                "MIP6_HOME_PREFIX",
	InternalIP6Link:               "INTERNAL_IP6_LINK",
	InternalIP6Prefix:             "INTERNAL_IP6_PREFIX",
	HomeAgentAddress:              "HOME_AGENT_ADDRESS",
	PCSCFIP4Address:               "P_CSCF_IP4_ADDRESS",
	PCSCFIP6Address:               "P_CSCF_IP6_ADDRESS",
	FTTKAT:                        "FTT_KAT",
	ExternalSourceIP4NATInfo:      "EXTERNAL_SOURCE_IP4_NAT_INFO",
	TimeoutPeriodForLivenessCheck: "TIMEOUT_PERIOD_FOR_LIVENESS_CHECK",
	InternalDNSDomain:             "INTERNAL_DNS_DOMAIN",
	InternalDNSSECTA:              "INTERNAL_DNSSEC_TA",
	EncDNSIP4:                     "ENCDNS_IP4",
	EncDNSIP6:                     "ENCDNS_IP6",
	EncDNSDigest:                  "ENCDNS_DIGEST_INFO",
}

// String is the name in the registry.
func (t AttributeType) String() string { return name(attributeTypeNames, t, "Attribute") }
