package ike

import "net/netip"

// AddressesBefore are the virtual addresses that another IKE SA of the same
// connection, made by us, has got of the peer: who reauthenticates asks for them again.
func (v *Env) AddressesBefore() []netip.Addr {
	if v.conn == nil {
		return nil
	}
	for i := len(v.conn.sas) - 1; i >= 0; i-- {
		if o := v.conn.sas[i]; o != v && !o.upSince.IsZero() && !o.rekeyed && !o.gone {
			if list := o.sa.Info().LocalVIPs; len(list) > 0 {
				return list
			}
		}
	}
	return nil
}
