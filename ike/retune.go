package ike

// Retune takes over what of a configuration can change while IKE SAs live: the
// retransmission schedule and half-open limits, keepalives, delays, sizes. The rest
// (ports, node and shard, peers) stays as it is. What is under way, such as a message
// being retransmitted, may end by the former values.
func (e *Engine) Retune(c Config) {
	c = c.withDefaults()
	t := &e.cfg
	t.Retransmit, t.HalfOpenTimeout = c.Retransmit, c.HalfOpenTimeout
	t.CookieThreshold, t.CookieThresholdIP, t.BlockThreshold, t.InitLimit = c.CookieThreshold, c.CookieThresholdIP, c.BlockThreshold, c.InitLimit
	t.FragmentSize, t.MaxPacket, t.NoSignatureAuth = c.FragmentSize, c.MaxPacket, c.NoSignatureAuth
	t.FullTranscript = c.FullTranscript
	t.KeepAlive, t.DeleteRekeyedDelay, t.RetryInitiate = c.KeepAlive, c.DeleteRekeyedDelay, c.RetryInitiate
	t.FragmentSize4, t.FragmentSize6 = c.FragmentSize4, c.FragmentSize6
	t.BreakBeforeMake, t.Habits = c.BreakBeforeMake, c.Habits
	e.espSPIs.bound(t.SPIMin, t.SPIMax)
}
