package client

import (
	"context"
	"errors"
	"fmt"

	"adit/ike"
)

// errNoAnswer is the cause of the end of the first connection's time.
var errNoAnswer = errors.New("nothing came of it in time")

// kindOf tells whose fault a refused negotiation is.
func kindOf(r *ike.Rejection) Kind {
	switch r.Reason {
	case ike.ReasonAuthentication:
		if r.ByPeer || r.Detail == ike.DetailEAP {
			return Refused
		}
		return Untrusted
	case ike.ReasonIdentity:
		if r.ByPeer {
			return Refused
		}
		return Untrusted
	case ike.ReasonNoAnswer, ike.ReasonAddress:
		return Unreachable
	}
	return Failed
}

// hints are what people can do about a Detail.
var hints = map[ike.Detail]string{
	ike.DetailExpired:       "its certificate has expired",
	ike.DetailNotYetValid:   "its certificate is not valid yet: is the clock of this machine right?",
	ike.DetailUntrusted:     "no CA that is trusted here has signed its certificate: name the right one",
	ike.DetailRevoked:       "its certificate was revoked",
	ike.DetailOtherName:     "its certificate is of somebody else: is the name right?",
	ike.DetailNoCertificate: "it has sent no certificate",
	ike.DetailSignature:     "its signature is wrong",
}

// explain makes of an error what people can act on.
func explain(ctx context.Context, err error, c *connection) error {
	var known *Error
	var r *ike.Rejection
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(context.Cause(ctx), errNoAnswer) && ctx.Err() != nil:
		return &Error{Unreachable, fmt.Sprintf("%s does not answer: is UDP 500 and 4500 open on the way?", c.hosts[0]), err}
	case ctx.Err() != nil:
		return ctx.Err()
	case !errors.As(err, &r):
		return err
	}
	k := kindOf(r)
	switch k {
	case Refused:
		who := c.user
		if who == "" {
			who = "this certificate"
		}
		return &Error{k, fmt.Sprintf("%s did not let %s in: wrong name or password, not allowed, or its own name is not %s", c.hosts[0], who, c.id), err}
	case Untrusted:
		why, ok := hints[r.Detail]
		if !ok {
			why = r.Error()
		}
		return &Error{k, fmt.Sprintf("%s could not prove that it is the gateway: %s", c.hosts[0], why), err}
	case Unreachable:
		return &Error{k, fmt.Sprintf("%s does not answer (%s): is UDP 500 and 4500 open on the way?", c.hosts[0], r.Detail), err}
	}
	if r.Reason == ike.ReasonAddresses && (r.ByPeer || r.Detail == ike.DetailNotGiven) {
		return &Error{k, fmt.Sprintf("%s knows you and has no address left to give: its operator can make the pool larger, or try again later", c.hosts[0]), err}
	}
	return &Error{k, fmt.Sprintf("%s: %s", c.hosts[0], r.Error()), err}
}
