package tunnel

import "math"

// trial is what came of sending at a rate for a while.
type trial struct {
	Asked    float64 `json:"asked"`    // a second
	Sent     float64 `json:"sent"`     // what the sender managed, a second
	Received float64 `json:"received"` // a second
	Loss     float64 `json:"loss"`     // share of what was sent
	Noisy    bool    `json:"noisy"`    // other processes took too much of the machine
	By       string  `json:"by,omitempty"`
}

// search finds the highest rate at which at most a given share is lost.
//
// A loss is a fact of one moment on a shared machine, so a rate counts as too high only
// when two trials said so, and the rate that is the result has been tried once more, for
// longer. All is bounded.
type search struct {
	try   func(rate float64, long bool) (trial, error)
	loss  float64 // the share that may be lost
	start float64 // where to begin, a second
	most  int     // trials at most; 0: mostTrials
	close float64 // ratio of the lowest rate too high to the highest that is not, at which to end

	trials []trial
}

// over reports whether the trials are used up.
func (s *search) over() bool {
	most := s.most
	if most == 0 {
		most = mostTrials
	}
	return len(s.trials) >= most
}

const (
	mostTrials = 40
	lowestRate = 100
	// saturated is the share of the asked rate below which the sender fell behind.
	saturated = 0.9
	// gain is what twice the rate has to bring to be worth asking for.
	gain = 1.05
)

// good reports whether the trial at a rate passes. It asks a second time if not, or if
// the sender was kept from sending: the better one counts.
func (s *search) good(rate float64, long bool) (best trial, ok bool, err error) {
	for range 2 {
		if s.over() {
			break
		}
		t, err := s.try(rate, long)
		if err != nil {
			return t, false, err
		}
		s.trials = append(s.trials, t)
		if pass := t.Loss <= s.loss; pass && t.Received > best.Received {
			best, ok = t, true
		}
		if ok && best.Sent >= saturated*rate {
			break
		}
	}
	return best, ok, nil
}

// run returns a long trial at the highest rate that passed; if the trials are used up
// before one passes, the best of the others; the zero trial if nothing passes.
func (s *search) run() (trial, error) {
	low, err := s.highest()
	// A short trial may have been lucky: from there downwards until a long one passes.
	for rate := low; err == nil && rate >= lowestRate && !s.over(); rate *= 0.9 {
		t, ok, err := s.good(rate, true)
		if err != nil || ok {
			return t, err
		}
	}
	return s.best(), err
}

// best is the best of all that passed, for when the trials were used up.
func (s *search) best() (best trial) {
	for _, t := range s.trials {
		if t.Loss <= s.loss && t.Received > best.Received {
			best = t
		}
	}
	return best
}

// highest is the highest rate that passed a short trial.
func (s *search) highest() (float64, error) {
	from := s.start
	for {
		low, high, err := s.bracket(from)
		if err != nil || low == 0 || math.IsInf(high, 1) {
			return low, err
		}
		top := high
		for high/low > s.close && !s.over() {
			mid := math.Sqrt(low * high)
			_, ok, err := s.good(mid, false)
			switch {
			case err != nil:
				return 0, err
			case ok:
				low = mid
			default:
				high = mid
			}
		}
		if high != top || s.over() {
			return low, nil
		}
		// Everything below the first rate that was too high passes: was it, really?
		if _, ok, err := s.good(high, false); err != nil || !ok {
			return low, err
		}
		from = high
	}
}

// bracket finds a rate that passes and one that does not, a factor of 2 apart; high is
// infinite if the sender reached its limit before, and low is 0 if nothing passes. The
// sender shares the cores with what it measures: that it falls behind isn't the limit
// yet, but that asking for more brings no more is.
func (s *search) bracket(rate float64) (low, high float64, err error) {
	high = math.Inf(1)
	most := 0.0
	for rate >= lowestRate && !s.over() {
		t, ok, err := s.good(rate, false)
		if err != nil {
			return 0, 0, err
		}
		switch {
		case ok && !math.IsInf(high, 1): // came from above
			return rate, high, nil
		case ok && t.Sent < saturated*rate && t.Received < gain*most:
			return low, math.Inf(1), nil
		case ok:
			low, most = rate, t.Received
			rate *= 2
		case low > 0: // came from below
			return low, rate, nil
		default:
			high = rate
			rate /= 2
		}
	}
	return low, high, nil
}
