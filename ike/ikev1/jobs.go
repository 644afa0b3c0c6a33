package ikev1

import (
	"bytes"
	"time"

	"adit/ike"
	"adit/suite"
)

// task is an exchange of ours that waits for its turn.
type task interface {
	name() string
	begin(s *sa, now time.Time)
	// cancel is called instead, or while it is under way, if the SA goes.
	cancel(s *sa, now time.Time)
}

// scheduler orders what one ISAKMP SA does: one exchange of ours at a time, one job
// that makes it busy, and bounded queues for what comes meanwhile.
type scheduler struct {
	current   task
	queue     []task
	delayed   []delayedTask
	jobs      map[ike.JobID]func(time.Time, ike.Result)
	busy      ike.JobID
	busyUntil time.Time
	held      []ike.Datagram
	heldBytes int
}

type delayedTask struct {
	at time.Time
	t  task
}

func (q *scheduler) all() (out []task) {
	out = append(out, q.queue...)
	for _, d := range q.delayed {
		out = append(out, d.t)
	}
	return out
}

// hold keeps a datagram that came while the SA is busy.
func (q *scheduler) hold(s *sa, now time.Time, d ike.Datagram) {
	full := len(q.held) >= limitHeld || q.heldBytes+len(d.Data) > limitHeldBytes
	for _, h := range q.held {
		full = full || bytes.Equal(h.Data, d.Data)
	}
	if full {
		s.env.Drop(now, ike.DropBusy, d.Remote)
		return
	}
	q.held = append(q.held, d)
	q.heldBytes += len(d.Data)
}

func (q *scheduler) wakeDelayed(now time.Time) {
	var rest []delayedTask
	for _, d := range q.delayed {
		if now.Before(d.at) {
			rest = append(rest, d)
		} else {
			q.queue = append(q.queue, d.t)
		}
	}
	q.delayed = rest
}

// enqueue adds a task; false: the queue is full.
func (s *sa) enqueue(t task) bool {
	if len(s.sched.queue)+len(s.sched.delayed) >= limitTasks {
		s.note(1, "too many exchanges wait: "+t.name()+" dropped")
		return false
	}
	s.sched.queue = append(s.sched.queue, t)
	return true
}

// run starts the next task if nothing of ours is under way.
func (s *sa) run(now time.Time) {
	for s.phase == phaseEstablished && s.sched.busy == 0 && s.sched.current == nil && len(s.sched.queue) > 0 {
		t := s.sched.queue[0]
		s.sched.queue = s.sched.queue[1:]
		s.sched.current = t
		t.begin(s, now)
	}
}

// tasks names the exchanges of ours, those that wait, and the peer's.
func (s *sa) tasks() (active, queued, passive []string) {
	switch s.phase {
	case phaseSASent, phaseKESent, phaseAuthSent:
		active = []string{"MAIN_MODE"}
	case phaseAggrSent:
		active = []string{"AGGRESSIVE_MODE"}
	case phaseSAReceived, phaseKEReceived:
		passive = []string{"MAIN_MODE"}
	case phaseAggrReceived:
		passive = []string{"AGGRESSIVE_MODE"}
	}
	if t := s.sched.current; t != nil {
		active = append(active, t.name())
	}
	for _, t := range s.sched.all() {
		queued = append(queued, t.name())
	}
	for _, x := range s.exchanges {
		if x.quick != nil && x.quick.task == nil {
			passive = append(passive, "QUICK_MODE")
		}
	}
	return active, queued, passive
}

// await makes the SA busy until the job is done.
func (s *sa) await(job ike.JobID, then func(time.Time, ike.Result)) {
	if s.sched.busy != 0 {
		panic("ikev1: two jobs at once")
	}
	s.sched.busy = job
	s.background(job, then)
}

// background takes a job's result without making the SA busy.
func (s *sa) background(job ike.JobID, then func(time.Time, ike.Result)) {
	if s.sched.jobs == nil {
		s.sched.jobs = map[ike.JobID]func(time.Time, ike.Result){}
	}
	s.sched.jobs[job] = then
}

// ask puts a question to the driver; the SA is busy meanwhile, and a set-up gets the
// time that the answer takes.
func (s *sa) ask(now time.Time, within time.Duration, q ike.Question, then func(time.Time, ike.Result)) {
	job := s.env.NewJob()
	if t := now.Add(within + graceAsk); !s.life.setupEnd.IsZero() && s.life.setupEnd.Before(t) {
		s.life.setupEnd = t
	}
	s.await(job, then)
	s.sched.busyUntil = now.Add(within)
	s.env.Effect(ike.Ask{Job: job, Deadline: s.sched.busyUntil, Question: q})
}

// compute runs f elsewhere if it is slow, then goes on with then.
func compute[T any](s *sa, now time.Time, kind string, slow bool, f func() (T, error), then func(time.Time, T, error)) {
	if !slow {
		v, err := f()
		then(now, v, err)
		return
	}
	type made struct {
		v   T
		err error
	}
	job := s.env.NewJob()
	s.await(job, func(now time.Time, r ike.Result) {
		m, ok := r.Value.(made)
		switch {
		case r.Err != nil:
			m.err = r.Err
		case !ok:
			m.err = errNoAnswerInTime
		}
		then(now, m.v, m.err)
	})
	s.env.Effect(ike.Compute{Job: job, Kind: kind, Run: func() any { v, err := f(); return made{v, err} }})
}

// slowGroup tells the groups whose computation takes more than 200 µs and so is a job.
func slowGroup(g suite.TransformID) bool { return g != suite.KECurve25519 && g != suite.KEECP256 }

func groupName(g suite.TransformID) string {
	return suite.Transform{Type: suite.TypeKE, ID: g}.Name()
}
