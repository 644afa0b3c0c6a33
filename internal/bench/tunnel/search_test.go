package tunnel

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// channel is a path that carries a rate and loses what is above, and now and then a
// burst; its sender has a limit, too.
type channel struct {
	carries, limit float64
	bursts         float64 // share of trials that lose 5 % for no reason
	rng            *rand.Rand
	long           int
}

func (c *channel) try(rate float64, long bool) (trial, error) {
	sent := min(rate, c.limit)
	got := min(sent, c.carries)
	if c.rng.Float64() < c.bursts {
		got *= 0.95
	}
	if long {
		c.long++
	}
	return trial{Asked: rate, Sent: sent, Received: got, Loss: 1 - got/sent}, nil
}

func TestSearchFindsTheRate(t *testing.T) {
	for name, c := range map[string]channel{
		"slow":                     {carries: 3_000, limit: 1e6},
		"at the start":             {carries: 50_000, limit: 1e6},
		"fast":                     {carries: 700_000, limit: 1e6},
		"the sender is the limit":  {carries: 5e6, limit: 560_000},
		"at both limits":           {carries: 560_000, limit: 561_000},
		"with bursts":              {carries: 200_000, limit: 1e6, bursts: 0.1},
		"the sender, with bursts":  {carries: 5e6, limit: 300_000, bursts: 0.1},
		"very slow, with bursts":   {carries: 900, limit: 1e6, bursts: 0.1},
		"just above the beginning": {carries: 51_000, limit: 1e6},
	} {
		short := 0
		for seed := range uint64(200) {
			c := c
			c.rng = rand.New(rand.NewPCG(seed, 1))
			s := search{try: c.try, loss: 0.01, start: 50_000, close: 1.05}
			got, err := s.run()
			if err != nil {
				t.Fatal(err)
			}
			want := min(c.carries, c.limit)
			low := 0.89
			if c.bursts > 0 {
				low = 0.65
			}
			if got.Received > want*1.001 || got.Received < want/4 || got.Loss > 0.01 {
				t.Errorf("%s, seed %d: %+v, the path carries %.0f\n%+v", name, seed, got, want, s.trials)
			}
			if got.Received < want*low {
				short++
			}
			if len(s.trials) > mostTrials || c.long == 0 || !slices.Contains(s.trials, got) {
				t.Errorf("%s, seed %d: %d trials, %d of them long, %+v is none of them", name, seed, len(s.trials), c.long, got)
			}
		}
		// Four trials of the same rate with a burst each end the way up early.
		if short > 0 && c.bursts == 0 || short > 2 {
			t.Errorf("%s: %d of 200 searches end far too low", name, short)
		}
	}
}

// Without bursts few trials are enough: the time of a benchmark depends on it.
func TestSearchIsShort(t *testing.T) {
	for carries := 1000.0; carries < 2e6; carries *= 1.37 {
		c := channel{carries: carries, limit: 4e6, rng: rand.New(rand.NewPCG(1, 1))}
		s := search{try: c.try, loss: 0.01, start: 50_000, close: 1.05}
		if _, err := s.run(); err != nil || len(s.trials) > 22 {
			t.Errorf("%.0f a second: %d trials, %v", carries, len(s.trials), err)
		}
	}
}

func TestSearchGivesUp(t *testing.T) {
	dead := func(rate float64, _ bool) (trial, error) { return trial{Asked: rate, Sent: rate, Loss: 1}, nil }
	s := search{try: dead, loss: 0.01, start: 50_000, close: 1.05}
	if got, err := s.run(); err != nil || got != (trial{}) || len(s.trials) > mostTrials {
		t.Errorf("%+v %v after %d trials", got, err, len(s.trials))
	}
	// Nothing ever lost, and no limit: the trials end all the same.
	endless := func(rate float64, _ bool) (trial, error) {
		return trial{Asked: rate, Sent: rate, Received: rate}, nil
	}
	s = search{try: endless, loss: 0.01, start: 50_000, close: 1.05}
	if _, err := s.run(); err != nil || len(s.trials) != mostTrials {
		t.Errorf("%v after %d trials", err, len(s.trials))
	}
	broken := errors.New("broken")
	s = search{try: func(float64, bool) (trial, error) { return trial{Loss: math.NaN()}, broken }, start: 1000}
	if _, err := s.run(); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}
