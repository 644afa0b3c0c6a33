package ike

import "slices"

// Siblings are the other established IKE SAs of the same version with the same
// identities, oldest first.
func (v *Env) Siblings(local, remote Identity) (out []SA) {
	for _, o := range v.e.policies.sameIdentities(local, remote) {
		if o != v && !o.gone && !o.rekeyed && !o.upSince.IsZero() && o.version == v.version {
			out = append(out, o.sa)
		}
	}
	return out
}

// TakeChild makes this IKE SA the owner of a Child SA of another one, which is not
// closed for it: in IKEv1 Child SAs outlive the ISAKMP SA that they were made under.
func (v *Env) TakeChild(id uint32) {
	old := v.e.byChild[id]
	if old == nil || old == v {
		return
	}
	if i := slices.Index(old.children, id); i >= 0 {
		old.children = slices.Delete(old.children, i, i+1)
	}
	v.e.byChild[id] = v
	v.children = append(v.children, id)
	v.e.touch(old)
	v.e.touch(v)
}
