package radius

import (
	"context"
	"errors"
)

// ErrChallenged: a server wants to know more than name and password.
var ErrChallenged = errors.New("radius: Access-Challenge to name and password")

// Password asks whether name and password are right, in one request with User-Password
// (RFC 2865 §5.2). cfg is what the request has beside them; its Client is asked. An
// error means that there is no verdict. Step.Out is of no use.
func Password(ctx context.Context, cfg RelayConfig, user string, password Key) (Step, error) {
	r := NewRelay(cfg)
	r.done, r.identity = true, user
	if user == "" || len(user) > MaxValue {
		return Step{}, ErrNoIdentity
	}
	p := r.cfg.request(user)
	p.Add(TypeUserPassword, password)
	resp, err := cfg.Client.Exchange(ctx, p, nil)
	if err != nil {
		return Step{}, err
	}
	switch resp.Code {
	case AccessAccept:
		return r.granted(resp, nil), nil
	case AccessChallenge:
		return r.failed(resp, ErrChallenged), nil
	}
	return r.failed(resp, ErrRejected), nil
}
