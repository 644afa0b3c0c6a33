package ikev2

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/internal/simbug"
)

// task is an exchange of ours that waits, or whose request is in flight. begin
// either sends the request (s.request), or starts a job that will, or calls
// s.finish if there is nothing to do any more.
type task interface {
	name() string
	begin(s *sa, now time.Time)
	// answered takes the response; it ends with s.finish, maybe after a job.
	answered(s *sa, now time.Time, in *inbound)
	// cancel is called instead if the IKE SA goes or is rekeyed first.
	cancel(s *sa, now time.Time)
}

// scheduler orders what one IKE SA does: one task in flight (window size 1), one
// job that makes the IKE SA busy, and bounded queues for what comes meanwhile.
type scheduler struct {
	current   task
	follow    *following // the additional key exchanges of current
	ppk       *namedPPK  // that current has offered (RFC 9867)
	queue     []task
	delayed   []delayedTask
	jobs      map[ike.JobID]func(time.Time, ike.Result)
	busy      ike.JobID
	busyUntil time.Time
	held      []ike.Datagram
	// working is the SHA-256 of the request that is being worked at, or was last:
	// to know it again takes no more in an IKE SA that stands for days.
	working   [sha256.Size]byte
	heldBytes int
}

type delayedTask struct {
	at time.Time
	t  task
}

// hold keeps a datagram that came while the IKE SA is busy. A repetition of one
// that is held, or of what is being worked at, is dropped.
func (q *scheduler) hold(s *sa, now time.Time, d ike.Datagram) {
	limit := limitHeld
	if s.state.phase() == phaseEstablished {
		limit = limitHeldUp
	}
	if len(q.held) >= limit || q.heldBytes+len(d.Data) > limitHeldBytes {
		s.env.Drop(now, ike.DropBusy, d.Remote)
		return
	}
	for _, h := range q.held {
		if bytes.Equal(h.Data, d.Data) {
			s.env.Drop(now, ike.DropBusy, d.Remote)
			return
		}
	}
	if st, ok := s.state.(*initReceived); q.working == sha256.Sum256(d.Data) || ok && bytes.Equal(st.request, d.Data) {
		s.env.Drop(now, ike.DropBusy, d.Remote)
		return
	}
	q.held = append(q.held, d)
	q.heldBytes += len(d.Data)
}

// all lists the task in flight and those that wait.
func (q *scheduler) all() (out []task) {
	if q.current != nil {
		out = append(out, q.current)
	}
	out = append(out, q.queue...)
	for _, d := range q.delayed {
		out = append(out, d.t)
	}
	return out
}

// tasks names the exchanges that we have begun, those that wait, and what is
// expected of the peer.
func (s *sa) tasks() (active, queued, passive []string) {
	switch s.state.phase() {
	case phaseInitSent:
		active = []string{"IKE_INIT", "IKE_AUTH"}
	case phaseIntermediateSent:
		active = []string{"IKE_INTERMEDIATE", "IKE_AUTH"}
	case phaseAuthSent:
		active = []string{"IKE_AUTH"}
	case phaseInitReceived:
		passive = []string{"IKE_INIT", "IKE_AUTH"}
	case phaseAuthReceived:
		passive = []string{"IKE_AUTH"}
	}
	if t := s.sched.current; t != nil {
		active = append(active, t.name())
	}
	for _, t := range s.sched.all() {
		if t != s.sched.current {
			queued = append(queued, t.name())
		}
	}
	return active, queued, passive
}

// clear cancels every task.
func (q *scheduler) clear(s *sa, now time.Time) {
	all := q.queue
	if q.current != nil && s.state.phase() == phaseDead {
		all = append([]task{q.current}, all...)
		q.current = nil
		q.follow.wipe()
		q.follow = nil
		q.ppk.wipe()
		q.ppk = nil
	}
	for _, d := range q.delayed {
		all = append(all, d.t)
	}
	q.queue, q.delayed = nil, nil
	for _, t := range all {
		t.cancel(s, now)
	}
}

// enqueue adds a task behind the others; false: the queue is full.
func (s *sa) enqueue(t task) bool {
	if len(s.sched.queue)+len(s.sched.delayed) >= limitTasks {
		s.note(1, "too many exchanges wait: "+t.name()+" dropped")
		return false
	}
	s.sched.queue = append(s.sched.queue, t)
	return true
}

func (s *sa) enqueueFirst(t task) { s.sched.queue = slices.Insert(s.sched.queue, 0, t) }

// later adds a task that begins not before at.
func (s *sa) later(at time.Time, t task) {
	s.sched.delayed = append(s.sched.delayed, delayedTask{at, t})
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

// run starts the next task if nothing is in flight.
func (s *sa) run(now time.Time) {
	if r := s.doomed; r != nil && s.sched.busy == 0 {
		s.doomed = nil
		s.end(now, ike.Closed{Cause: ike.CauseFailed, Reason: r.Error(), Rejection: r})
		return
	}
	for s.sched.busy == 0 && (s.sched.current == nil && s.win.out == nil || simbug.Chosen == simbug.NoWindow) && len(s.sched.queue) > 0 && s.state.phase() == phaseEstablished && !s.rekeyAwaited() {
		i := max(slices.IndexFunc(s.sched.queue, urgent), 0)
		t := s.sched.queue[i]
		s.sched.queue = slices.Delete(s.sched.queue, i, i+1)
		s.sched.current = t
		t.begin(s, now)
	}
}

// urgent reports whether traffic waits for a task: MOBIKE's.
func urgent(t task) bool {
	switch t.(type) {
	case *updateAddrs, *routability:
		return true
	}
	return false
}

// finish ends the task in flight.
func (s *sa) finish() {
	s.sched.current, s.earlyDeletes = nil, nil
	s.sched.ppk.wipe()
	s.sched.ppk = nil
}

// taskResponse hands a response to the task in flight.
func (s *sa) taskResponse(now time.Time, in *inbound) {
	if s.sched.current == nil {
		return
	}
	if _, ok := s.sched.current.(*rekeyIKE); ok {
		s.nextToken = s.crashTokenIn(in.payloads) // in the last of its answers
	} else {
		s.takeCrashToken(in.payloads)
	}
	s.sched.current.answered(s, now, in)
}

// await makes the IKE SA busy until the job is done.
func (s *sa) await(job ike.JobID, then func(time.Time, ike.Result)) {
	if s.sched.busy != 0 {
		panic("ikev2: two jobs at once")
	}
	s.sched.busy = job
	s.background(job, then)
}

// background takes a job's result without making the IKE SA busy.
func (s *sa) background(job ike.JobID, then func(time.Time, ike.Result)) {
	if s.sched.jobs == nil {
		s.sched.jobs = map[ike.JobID]func(time.Time, ike.Result){}
	}
	s.sched.jobs[job] = then
}

// compute runs f elsewhere if it is slow, then goes on with then.
func compute[T any](s *sa, now time.Time, kind string, slow bool, f func() T, then func(time.Time, T, error)) {
	if !slow {
		then(now, f(), nil)
		return
	}
	job := s.env.NewJob()
	s.await(job, func(now time.Time, r ike.Result) {
		v, _ := r.Value.(T)
		then(now, v, r.Err)
	})
	s.env.Effect(ike.Compute{Job: job, Kind: kind, Run: func() any { return f() }})
}

// notify is a Notify payload without SPI.
func notify(t wire.NotifyType, data []byte) *wire.Notify {
	return &wire.Notify{NotifyType: t, Data: data}
}
