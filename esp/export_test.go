package esp

// SetSeq makes n the last sequence number sent.
func (s *SA) SetSeq(n uint64) { s.seq.Store(n) }

// Window is the anti-replay window, for tests of its own.
type Window = window

func NewWindow(size uint32) *Window                { return newWindow(size) }
func (w *window) Check(seq uint64) bool            { return w.check(seq) }
func (w *window) Commit(seq uint64) bool           { return w.commit(seq) }
func (w *window) Extend(low uint32) (uint64, bool) { return w.extend(low) }
func (w *window) Top() uint64                      { return w.top.Load() }

func InnerECN(inner, outer uint8) (uint8, bool) { return innerECN(inner, outer) }
