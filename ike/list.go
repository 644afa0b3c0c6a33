package ike

// IDs are the numbers of all IKE SAs, or of those of one connection, in no order.
func (e *Engine) IDs(conn string) []uint32 {
	if conn != "" {
		out := []uint32{}
		for id, env := range e.byID {
			if env.key().Name == conn {
				out = append(out, id)
			}
		}
		return out
	}
	out := make([]uint32, 0, len(e.byID))
	for id := range e.byID {
		out = append(out, id)
	}
	return out
}

// SA is the IKE SA of a number; false if there is none any more.
func (e *Engine) SA(id uint32) (SAInfo, bool) {
	env := e.byID[id]
	if env == nil {
		return SAInfo{}, false
	}
	return env.sa.Info(), true
}

// HalfOpenLimited reports whether Config.InitLimit keeps peers from beginning IKE SAs now.
func (e *Engine) HalfOpenLimited() bool { return e.halfOpen >= e.cfg.InitLimit }
