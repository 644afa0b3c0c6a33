package gateway

import "adit/ike"

// xauth answers a question about a name and password of IKEv1's XAUTH, from the same
// secrets as those of EAP.
func (v *inventory) xauth(q ike.XAuth) *ike.XAuthAnswer {
	secret, found := v.password(q.User)
	defer secret.NTHash.Zero()
	if !q.Server {
		return &ike.XAuthAnswer{Password: secret.Password}
	}
	defer secret.Password.Zero()
	defer q.Password.Zero()
	switch {
	case !found || len(secret.Password) == 0:
		return &ike.XAuthAnswer{Why: "no secret for this XAUTH name (secrets.eap*, secrets.xauth*)"}
	case !secret.Password.Equal(q.Password):
		return &ike.XAuthAnswer{Why: "the password is wrong (XAUTH)"}
	}
	return &ike.XAuthAnswer{Success: true}
}
