package radius

// Values of Acct-Status-Type (RFC 2866 §5.1).
const (
	AcctStart         = 1
	AcctStop          = 2
	AcctInterimUpdate = 3
	AcctOn            = 7
	AcctOff           = 8
)

// Values of Acct-Terminate-Cause (RFC 2866 §5.10).
const (
	CauseUserRequest    = 1
	CauseLostCarrier    = 2
	CauseIdleTimeout    = 4
	CauseSessionTimeout = 5
	CauseAdminReset     = 6
	CauseAdminReboot    = 7
	CauseNASError       = 9
	CauseNASRequest     = 10
)

// DefaultAcctPort is that of RFC 2866.
const DefaultAcctPort = 1813

// requestAuthenticator is MD5(Code+ID+Length+16 zeros+Attributes+Secret), the
// authenticator of requests that are no Access-Request (RFC 2866 §3, RFC 5176 §2.3).
func requestAuthenticator(b, secret []byte) [16]byte {
	var zero [16]byte
	return responseAuthenticator(b, &zero, secret)
}

// SealAccounting returns the octets of an Accounting-Request, or of a request of
// dynamic authorization, and sets its Authenticator. With sign, a Message-Authenticator
// comes first.
func SealAccounting(p *Packet, secret []byte, sign bool) ([]byte, error) {
	q := *p
	q.Authenticator = [16]byte{}
	if sign {
		q.Attributes = append([]Attribute{{TypeMessageAuthenticator, make([]byte, 16)}}, p.Attributes...)
	}
	b, err := q.Append(nil)
	if err != nil {
		return nil, err
	}
	if sign {
		const at = headerLen + 2
		copy(b[at:], messageAuth(b, at, &q.Authenticator, secret))
	}
	p.Authenticator = requestAuthenticator(b, secret)
	copy(b[4:], p.Authenticator[:])
	return b, nil
}

// OpenAccountingResponse verifies the answer to an Accounting-Request and only then
// parses it. A Message-Authenticator is not demanded (RFC 2866 knows none), but a wrong one refused.
func OpenAccountingResponse(b []byte, id uint8, request *[16]byte, secret []byte) (*Packet, error) {
	b, err := trim(b)
	switch {
	case err != nil:
		return nil, err
	case b[1] != id:
		return nil, ErrIdentifier
	case Code(b[0]) != AccountingResponse:
		return nil, ErrCode
	}
	return authenticated(b, responseAuthenticator(b, request, secret), request, secret, false)
}

// OpenRequest verifies a request of dynamic authorization (RFC 5176 §2.3) and only then
// parses it; its values alias b. A Message-Authenticator is not demanded, but a wrong one refused.
func OpenRequest(b, secret []byte) (*Packet, error) {
	b, err := trim(b)
	if err != nil {
		return nil, err
	}
	if c := Code(b[0]); c != DisconnectRequest && c != CoARequest {
		return nil, ErrCode
	}
	return authenticated(b, requestAuthenticator(b, secret), &[16]byte{}, secret, false)
}
