package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"adit/eap"
	"adit/ike"
	"adit/radius"
)

// xauth answers a question about a name and password of IKEv1's XAUTH. Failures count
// for the lock-out as those of EAP do.
func (c *conversations) xauth(ctx context.Context, q ike.XAuth) (*ike.XAuthAnswer, error) {
	if !q.Server {
		secret, _ := c.g.inv.password(q.User)
		secret.NTHash.Zero()
		return &ike.XAuthAnswer{Password: secret.Password}, nil
	}
	defer q.Password.Zero()
	if q.User == "" {
		return &ike.XAuthAnswer{Why: "the peer gave no name (XAUTH)"}, nil
	}
	login, from := claimed(q.User), q.Remote.Addr()
	if why := c.lockout.refuses(login, from, time.Now()); why != "" {
		return &ike.XAuthAnswer{Why: why}, nil
	}
	a, err := c.checkXAuth(ctx, q)
	switch {
	case err != nil: // nobody has said that it is wrong
	case a.Success:
		c.lockout.succeeded(login, from, time.Now())
	default:
		c.lockout.failed(login, from, time.Now())
	}
	return a, err
}

// checkXAuth asks whoever knows the users: a RADIUS server, or ourselves, with the same
// users and secrets as for EAP.
func (c *conversations) checkXAuth(ctx context.Context, q ike.XAuth) (*ike.XAuthAnswer, error) {
	if q.Peer.Remote[q.Round].EAP != ike.EAPAny {
		return c.xauthRADIUS(ctx, q)
	}
	secret, found := c.g.secretOf(q.User)
	defer secret.Password.Zero()
	defer secret.NTHash.Zero()
	switch {
	case !found:
		return &ike.XAuthAnswer{Why: "no secret for this XAUTH name (adit user, secrets.eap*, secrets.xauth*)"}, nil
	case len(secret.NTHash) > 0:
		hash := eap.NTHash(q.Password)
		defer hash.Zero()
		if !secret.NTHash.Equal(hash) {
			return &ike.XAuthAnswer{Why: "the password is wrong (XAUTH)"}, nil
		}
	case len(secret.Password) == 0 || !secret.Password.Equal(q.Password):
		return &ike.XAuthAnswer{Why: "the password is wrong (XAUTH)"}, nil
	}
	return &ike.XAuthAnswer{Success: true, Groups: c.g.users.groups(q.User)}, nil
}

// xauthRADIUS has the RADIUS server answer: it is given name and password (xauth-radius),
// or we prove that we know them by a method of EAP (xauth-eap).
func (c *conversations) xauthRADIUS(ctx context.Context, q ike.XAuth) (*ike.XAuthAnswer, error) {
	if c.radius == nil {
		return nil, c.failed
	}
	cfg := radius.RelayConfig{Client: c.radius, Identity: q.User, CalledStationID: q.Local.String(), CallingStationID: q.Remote.String(),
		NASAddress: q.Local.Addr(), NASPortID: q.Peer.Name}
	done, err := c.mayAsk()
	if err != nil {
		return nil, err
	}
	defer done()
	var step radius.Step
	if q.Peer.Remote[q.Round].EAP == ike.EAPRadius {
		step, err = radius.Password(ctx, cfg, q.User, radius.Key(q.Password))
	} else {
		step, err = xauthByEAP(ctx, cfg, q)
	}
	defer step.MSK.Zero()
	switch {
	case err != nil:
		return nil, fmt.Errorf("XAUTH of %.200q: %w", q.User, err)
	case !step.Success:
		why := fmt.Sprintf("RADIUS server %s: %v", step.Server, step.Reason)
		return &ike.XAuthAnswer{Why: why}, nil
	}
	a := &ike.XAuthAnswer{Success: true, Lifetime: step.SessionTimeout, Identity: step.UserName}
	for _, class := range step.Class {
		a.Groups = append(a.Groups, string(class))
	}
	c.g.accounts.accepted(q.SA, q.Local, q.Remote, &step)
	return a, nil
}

// xauthByEAP is the client of a RADIUS server's EAP in the user's place. GTC would show
// the server what xauth-radius shows it as well.
func xauthByEAP(ctx context.Context, cfg radius.RelayConfig, q ike.XAuth) (radius.Step, error) {
	peer, err := eap.NewPeer(eap.PeerConfig{Identity: q.User, Methods: []eap.Type{eap.TypeMSCHAPv2, eap.TypeMD5, eap.TypeGTC}, Secret: eap.Secret{Password: q.Password}})
	if err != nil {
		return radius.Step{}, err
	}
	defer peer.Close()
	relay := radius.NewRelay(cfg)
	packet := []byte{byte(eap.CodeRequest), 0, 0, 5, byte(eap.TypeIdentity)}
	for {
		ours, err := peer.Next(packet)
		if err != nil {
			return radius.Step{}, err
		}
		if len(ours.Out) == 0 {
			return radius.Step{}, errors.New("nothing to answer the server's EAP packet by")
		}
		step, err := relay.Next(ctx, ours.Out)
		if err != nil || !step.Done {
			if err != nil {
				return radius.Step{}, err
			}
			packet = step.Out
			continue
		}
		if step.Success {
			// A server that doesn't know the password itself can't end MSCHAPv2 so.
			last, err := peer.Next(step.Out)
			if err != nil || !last.Success {
				step.MSK.Zero()
				return radius.Step{}, fmt.Errorf("the server's EAP-Success comes too early: %w", errors.Join(err, last.Failing))
			}
			last.MSK.Zero()
			last.EMSK.Zero()
		}
		return step, nil
	}
}
