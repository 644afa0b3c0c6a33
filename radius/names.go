package radius

import "strconv"

// Code is the kind of a packet (RFC 2865 §3; registry "RADIUS Packet Type Codes").
type Code uint8

// The codes of authentication, accounting, status and dynamic authorization.
const (
	AccessRequest      Code = 1
	AccessAccept       Code = 2
	AccessReject       Code = 3
	AccountingRequest  Code = 4
	AccountingResponse Code = 5
	AccessChallenge    Code = 11
	StatusServer       Code = 12
	StatusClient       Code = 13
	DisconnectRequest  Code = 40
	DisconnectACK      Code = 41
	DisconnectNAK      Code = 42
	CoARequest         Code = 43
	CoAACK             Code = 44
	CoANAK             Code = 45
	ProtocolError      Code = 52
)

var codeNames = map[Code]string{
	AccessRequest: "Access-Request", AccessAccept: "Access-Accept", AccessReject: "Access-Reject",
	AccountingRequest: "Accounting-Request", AccountingResponse: "Accounting-Response",
	AccessChallenge: "Access-Challenge", StatusServer: "Status-Server", StatusClient: "Status-Client",
	DisconnectRequest: "Disconnect-Request", DisconnectACK: "Disconnect-ACK", DisconnectNAK: "Disconnect-NAK",
	CoARequest: "CoA-Request", CoAACK: "CoA-ACK", CoANAK: "CoA-NAK", ProtocolError: "Protocol-Error",
}

func (c Code) String() string {
	if s := codeNames[c]; s != "" {
		return s
	}
	return "Code-" + strconv.Itoa(int(c))
}

// Type is the type of an attribute (registry "RADIUS Attribute Types").
type Type uint8

// The attribute types that a gateway meets.
const (
	TypeUserName             Type = 1
	TypeUserPassword         Type = 2
	TypeCHAPPassword         Type = 3
	TypeNASIPAddress         Type = 4
	TypeNASPort              Type = 5
	TypeServiceType          Type = 6
	TypeFramedProtocol       Type = 7
	TypeFramedIPAddress      Type = 8
	TypeFramedIPNetmask      Type = 9
	TypeFilterID             Type = 11
	TypeFramedMTU            Type = 12
	TypeReplyMessage         Type = 18
	TypeState                Type = 24
	TypeClass                Type = 25
	TypeVendorSpecific       Type = 26
	TypeSessionTimeout       Type = 27
	TypeIdleTimeout          Type = 28
	TypeTerminationAction    Type = 29
	TypeCalledStationID      Type = 30
	TypeCallingStationID     Type = 31
	TypeNASIdentifier        Type = 32
	TypeProxyState           Type = 33
	TypeAcctStatusType       Type = 40
	TypeAcctDelayTime        Type = 41
	TypeAcctInputOctets      Type = 42
	TypeAcctOutputOctets     Type = 43
	TypeAcctSessionID        Type = 44
	TypeAcctAuthentic        Type = 45
	TypeAcctSessionTime      Type = 46
	TypeAcctInputPackets     Type = 47
	TypeAcctOutputPackets    Type = 48
	TypeAcctTerminateCause   Type = 49
	TypeAcctMultiSessionID   Type = 50
	TypeAcctInputGigawords   Type = 52
	TypeAcctOutputGigawords  Type = 53
	TypeEventTimestamp       Type = 55
	TypeCHAPChallenge        Type = 60
	TypeNASPortType          Type = 61
	TypePortLimit            Type = 62
	TypeTunnelType           Type = 64
	TypeConnectInfo          Type = 77
	TypeEAPMessage           Type = 79
	TypeMessageAuthenticator Type = 80
	TypeTunnelPrivateGroupID Type = 81
	TypeAcctInterimInterval  Type = 85
	TypeNASPortID            Type = 87
	TypeFramedPool           Type = 88
	TypeNASIPv6Address       Type = 95
	TypeFramedInterfaceID    Type = 96
	TypeFramedIPv6Prefix     Type = 97
	TypeFramedIPv6Route      Type = 99
	TypeFramedIPv6Pool       Type = 100
	TypeErrorCause           Type = 101
	TypeDelegatedIPv6Prefix  Type = 123
	TypeFramedIPv6Address    Type = 168
	TypeDNSServerIPv6Address Type = 169
	TypeExtended1            Type = 241
	TypeExtended6            Type = 246
)

var typeNames = map[Type]string{
	TypeUserName: "User-Name", TypeUserPassword: "User-Password", TypeCHAPPassword: "CHAP-Password",
	TypeNASIPAddress: "NAS-IP-Address", TypeNASPort: "NAS-Port", TypeServiceType: "Service-Type",
	TypeFramedProtocol: "Framed-Protocol", TypeFramedIPAddress: "Framed-IP-Address",
	TypeFramedIPNetmask: "Framed-IP-Netmask", TypeFilterID: "Filter-Id", TypeFramedMTU: "Framed-MTU",
	TypeReplyMessage: "Reply-Message", TypeState: "State", TypeClass: "Class",
	TypeVendorSpecific: "Vendor-Specific", TypeSessionTimeout: "Session-Timeout",
	TypeIdleTimeout: "Idle-Timeout", TypeTerminationAction: "Termination-Action",
	TypeCalledStationID: "Called-Station-Id", TypeCallingStationID: "Calling-Station-Id",
	TypeNASIdentifier: "NAS-Identifier", TypeProxyState: "Proxy-State",
	TypeAcctStatusType: "Acct-Status-Type", TypeAcctDelayTime: "Acct-Delay-Time",
	TypeAcctInputOctets: "Acct-Input-Octets", TypeAcctOutputOctets: "Acct-Output-Octets",
	TypeAcctSessionID: "Acct-Session-Id", TypeAcctAuthentic: "Acct-Authentic",
	TypeAcctSessionTime: "Acct-Session-Time", TypeAcctInputPackets: "Acct-Input-Packets",
	TypeAcctOutputPackets: "Acct-Output-Packets", TypeAcctTerminateCause: "Acct-Terminate-Cause",
	TypeAcctMultiSessionID: "Acct-Multi-Session-Id", TypeAcctInputGigawords: "Acct-Input-Gigawords",
	TypeAcctOutputGigawords: "Acct-Output-Gigawords", TypeEventTimestamp: "Event-Timestamp",
	TypeCHAPChallenge: "CHAP-Challenge", TypeNASPortType: "NAS-Port-Type", TypePortLimit: "Port-Limit",
	TypeTunnelType: "Tunnel-Type", TypeConnectInfo: "Connect-Info", TypeEAPMessage: "EAP-Message",
	TypeMessageAuthenticator: "Message-Authenticator", TypeTunnelPrivateGroupID: "Tunnel-Private-Group-ID",
	TypeAcctInterimInterval: "Acct-Interim-Interval", TypeNASPortID: "NAS-Port-Id",
	TypeFramedPool: "Framed-Pool", TypeNASIPv6Address: "NAS-IPv6-Address",
	TypeFramedInterfaceID: "Framed-Interface-Id", TypeFramedIPv6Prefix: "Framed-IPv6-Prefix",
	TypeFramedIPv6Route: "Framed-IPv6-Route", TypeFramedIPv6Pool: "Framed-IPv6-Pool",
	TypeErrorCause: "Error-Cause", TypeDelegatedIPv6Prefix: "Delegated-IPv6-Prefix",
	TypeFramedIPv6Address: "Framed-IPv6-Address", TypeDNSServerIPv6Address: "DNS-Server-IPv6-Address",
	TypeExtended1: "Extended-Type-1", TypeExtended6: "Extended-Vendor-Specific-6",
}

func (t Type) String() string {
	if s := typeNames[t]; s != "" {
		return s
	}
	return "Attr-" + strconv.Itoa(int(t))
}

// Values of Service-Type (RFC 2865 §5.6) and NAS-Port-Type (§5.41) that a gateway
// sends.
const (
	ServiceTypeFramed  = 2
	NASPortTypeVirtual = 5
)
