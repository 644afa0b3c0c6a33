package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"adit/ike"
	"adit/ipsec"
)

// apply carries out one effect. What cannot be done at once is given to others
// and comes back through done.
func (s *shard) apply(e ike.Effect) {
	dp := s.g.opt.Dataplane
	switch e := e.(type) {
	case ike.Send:
		// A message that cannot be sent now is retransmitted by the engine.
		if ours, ok := ourSPI(e.Data, false); ok {
			s.known.add(ours)
		}
		if err := s.g.opt.Transport.Send(e.Datagram); err != nil {
			s.unsent.note(e.Remote, err)
			s.g.bus.publish(ike.Note{Level: 2, Text: fmt.Sprintf("sending to %s failed: %v", e.Remote, err)})
		} else {
			s.unsent.clear(e.Remote)
		}
	case ike.InstallChild:
		s.install(e)
	case ike.ActivateChild:
		for _, p := range e.Policies {
			if err := dp.AddPolicy(p); err != nil {
				s.g.bus.publish(ike.Note{Level: 1, Text: fmt.Sprintf("policy of %s: %v", p.Name, err)})
			}
		}
		if len(e.Policies) > 0 {
			if ids := s.g.inv.activate(e.Policies, s.tunnelMTU(e.Policies[0].Out)); len(ids) > 0 {
				s.g.host.moved(ids, nil)
			}
		}
	case ike.RemoveChild:
		s.remove(e.Child, e.Policies)
	case ike.UpdateChild:
		for _, d := range []ipsec.Direction{ipsec.In, ipsec.Out} {
			_ = dp.UpdateSA(ipsec.SARef{Child: e.Child, Dir: d}, e.Update) // the SA may just have gone
		}
		// Another family, or UDP or not, is another MTU of the tunnel's routes.
		if ids := s.g.inv.remeasure(e.Child, s.tunnelMTU(ipsec.SARef{Child: e.Child, Dir: ipsec.Out})); len(ids) > 0 {
			s.g.host.moved(ids, nil)
		}
	case ike.QueryChild:
		in, out := s.g.Query(e.Child)
		s.ready = append(s.ready, outcome{Result: ike.Result{Job: e.Job, Value: ike.ChildStats{In: in, Out: out}}})
	case ike.Compute:
		s.start(e.Job, func(finish finisher) bool {
			return s.g.pool.submit(func() { finish(e.Run(), nil) }, func(err error) { finish(nil, err) })
		})
	case ike.Ask:
		s.ask(e)
	case ike.ReleaseLease:
		s.g.leases.release(e.Lease)
	case ike.UndoAddresses:
		s.undoAddresses(e.Lease)
	case ike.EndEAP:
		s.g.conversations.end(e.Session)
	case ike.Emit:
		s.g.bus.publish(s.unsent.explain(e.Event))
	case ike.ExportKeys:
		if s.g.opt.KeyLog != nil {
			s.g.opt.KeyLog(e)
		}
	}
}

// outcome is a job's result. then, if set, runs on the shard's thread just before
// the engine gets the result, is told the job's error, and may replace it.
type outcome struct {
	ike.Result
	then func(error) error
}

// finisher ends a job, from any thread; only its first call counts.
type finisher func(value any, err error)

// start counts an outstanding job; begin hands it away and must arrange for
// finish to be called once. Where it cannot, the job fails at once.
func (s *shard) start(job ike.JobID, begin func(finish finisher) bool) {
	s.startThen(job, nil, begin)
}

// startThen is start for a job whose outcome has a then.
func (s *shard) startThen(job ike.JobID, then func(error) error, begin func(finish finisher) bool) {
	busy := outcome{ike.Result{Job: job, Err: ErrBusy}, then}
	if s.outstanding.Load() >= limitJobs {
		s.ready = append(s.ready, busy)
		return
	}
	s.outstanding.Add(1)
	var once atomic.Bool
	finish := func(v any, err error) {
		if once.CompareAndSwap(false, true) {
			s.done <- &outcome{ike.Result{Job: job, Value: v, Err: err}, then} // has room for every outstanding job
		}
	}
	if !begin(finish) {
		once.Store(true)
		s.outstanding.Add(-1)
		s.ready = append(s.ready, busy)
	}
}

// install puts the SAs in place, inbound first, then the policies, then the host's
// routes and guard where those change. The engine hears of it when all stands, and
// so the peer. Policies are switched here and now, in the order of the effects, so
// that engine and data plane agree on which of several Child SAs with the same
// selectors carries the traffic.
func (s *shard) install(e ike.InstallChild) {
	dp := s.g.opt.Dataplane
	err := dp.AddSA(e.In)
	if err == nil {
		if err = dp.AddSA(e.Out); err != nil {
			_ = dp.DeleteSA(e.In.Ref)
		}
	}
	if err != nil {
		s.ready = append(s.ready, outcome{Result: ike.Result{Job: e.Job, Err: err}})
		return
	}
	mtu := s.tunnelMTU(e.Out.Ref)
	var changed []ipsec.PolicyID
	if !e.Activate {
		changed = s.g.inv.prepare(e.Policies, mtu)
	} else {
		changed = s.g.inv.activate(e.Policies, mtu)
		for _, p := range e.Policies {
			if err == nil {
				err = dp.AddPolicy(p)
			}
		}
	}
	undo := func(err error) error {
		if err != nil {
			child := e.In.Ref.Child
			s.remove(child, s.g.inv.servedBy(child, e.Policies))
		}
		return err
	}
	if err != nil || len(changed) == 0 {
		s.ready = append(s.ready, outcome{ike.Result{Job: e.Job, Err: err}, undo})
		return
	}
	s.startThen(e.Job, undo, func(finish finisher) bool {
		s.g.host.moved(changed, func(err error) { finish(nil, err) })
		return true
	})
}

func (s *shard) tunnelMTU(out ipsec.SARef) int {
	st, _ := s.g.opt.Dataplane.Query(out)
	return st.MTU
}

// remove takes SAs and policies away.
func (s *shard) remove(child uint32, policies []ipsec.PolicyID) {
	dp := s.g.opt.Dataplane
	for _, id := range policies {
		_ = dp.DeletePolicy(id)
	}
	in, out := s.g.Query(child)
	s.g.departed.put(child, ike.ChildStats{In: in, Out: out})
	s.g.accounts.childGone(child, in, out)
	s.leaving = true
	for _, d := range []ipsec.Direction{ipsec.Out, ipsec.In} {
		_ = dp.DeleteSA(ipsec.SARef{Child: child, Dir: d})
	}
	if ids := s.g.inv.deactivate(child, policies); len(ids) > 0 {
		s.g.host.moved(ids, nil)
	}
}

// ask answers a question, or has it answered by a thread of its own.
func (s *shard) ask(e ike.Ask) {
	switch q := e.Question.(type) {
	case ike.PSKLookup:
		s.ready = append(s.ready, outcome{Result: ike.Result{Job: e.Job, Value: s.g.inv.keys(q)}})
	case ike.PPKLookup:
		s.ready = append(s.ready, outcome{Result: ike.Result{Job: e.Job, Value: s.g.inv.ppk(q.ID)}})
	case ike.SourceAddress:
		a, err := s.g.opt.Transport.SourceFor(q.Remote)
		s.ready = append(s.ready, outcome{Result: ike.Result{Job: e.Job, Value: a, Err: err}})
	case ike.Paths:
		s.ready = append(s.ready, outcome{Result: ike.Result{Job: e.Job, Value: s.paths(q)}})
	case ike.LeaseAddresses:
		if s.g.leases.waits(q.Lease) {
			s.leasing.Add(1)
			s.startThen(e.Job, s.leased, func(finish finisher) bool { return s.lease(e, q, finish) })
			return
		}
		l, err := s.g.leases.give(context.Background(), q)
		s.ready = append(s.ready, outcome{Result: ike.Result{Job: e.Job, Value: l, Err: err}})
	case ike.SignAuth:
		s.compute(e.Job, func() (any, error) { return s.g.trust.sign(q) })
	case ike.VerifyAuth:
		s.verify(e, q)
	case ike.XAuth:
		if q.Server && q.Peer.Remote[q.Round].EAP != ike.EAPAny {
			s.outside(e, func(ctx context.Context) (any, error) { return s.g.conversations.xauth(ctx, q) })
			return
		}
		a, _ := s.g.conversations.xauth(context.Background(), q) // it waits for nobody
		s.ready = append(s.ready, outcome{Result: ike.Result{Job: e.Job, Value: a}})
	case ike.StillTrusted:
		s.outside(e, func(ctx context.Context) (any, error) { return nil, s.g.stillTrusted(ctx, q) })
	case ike.SignerKinds:
		s.compute(e.Job, func() (any, error) { return s.g.trust.kinds(q) })
	case ike.EAPRound:
		v, err := s.g.conversations.expect(q.Session) // now: its end may be the next effect
		if err != nil {
			s.ready = append(s.ready, outcome{Result: ike.Result{Job: e.Job, Err: err}})
			return
		}
		if local(q) {
			s.compute(e.Job, func() (any, error) { return s.g.conversations.round(context.Background(), v, q) })
			return
		}
		s.outside(e, func(ctx context.Context) (any, error) { return s.g.conversations.round(ctx, v, q) })
	case ike.AssumeAddresses:
		s.g.virtual.expect(q.Lease) // now: its end may be the next effect
		s.outside(e, func(context.Context) (any, error) { return nil, s.g.assume(q) })
	case ike.Resolve:
		s.outside(e, func(ctx context.Context) (any, error) {
			ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
			defer cancel()
			return s.g.resolve(ctx, q.Hosts)
		})
	default:
		s.ready = append(s.ready, outcome{Result: ike.Result{Job: e.Job, Err: fmt.Errorf("nobody answers %T", q)}})
	}
}

// local reports whether a round of EAP needs nothing but the processor: of methods that
// look at a password. Those with certificates may have to fetch something.
func local(q ike.EAPRound) bool {
	if !q.Server {
		return false
	}
	switch q.Peer.Remote[q.Round].EAP {
	case ike.EAPMSCHAPv2, ike.EAPMD5, ike.EAPGTC:
		return true
	}
	return false
}

// paths finds the local address towards each of the addresses, where there is a way.
func (s *shard) paths(q ike.Paths) []netip.Addr {
	list := make([]netip.Addr, len(q.Remotes))
	for i, r := range q.Remotes {
		if a, err := s.g.opt.Transport.SourceFor(r); err == nil {
			list[i] = a.Unmap()
		}
	}
	return list
}

// compute has the pool work out an answer that needs nothing but the processor.
func (s *shard) compute(job ike.JobID, work func() (any, error)) {
	s.start(job, func(finish finisher) bool {
		return s.g.pool.submit(func() { finish(work()) }, func(err error) { finish(nil, err) })
	})
}

// verify has the pool check a peer's signature; where that may have to fetch
// something about revocation, a thread of its own.
func (s *shard) verify(e ike.Ask, q ike.VerifyAuth) {
	t := &s.g.trust
	s.start(e.Job, func(finish finisher) bool {
		failed := func(err error) { finish(nil, err) }
		return s.g.pool.submit(func() {
			p := readProof(q)
			if !p.mayFetch(t) {
				v, err := t.verify(context.Background(), p)
				s.g.standing.signed(p, v)
				finish(v, err)
				return
			}
			if !s.g.pool.ask(&s.g.pool.outside, func(ctx context.Context) {
				ctx, stop := context.WithDeadline(ctx, e.Deadline)
				defer stop()
				v, err := t.verify(ctx, p)
				s.g.standing.signed(p, v)
				finish(v, err)
			}, failed) {
				failed(ErrBusy)
			}
		}, failed)
	})
}

// lease has a thread of its own take addresses out of the store. What comes after the
// question's deadline is given back, as the engine has gone on.
func (s *shard) lease(e ike.Ask, q ike.LeaseAddresses, finish finisher) bool {
	begun := s.g.pool.ask(&s.g.pool.leases, func(ctx context.Context) {
		ctx, stop := context.WithDeadline(ctx, e.Deadline)
		defer stop()
		l, err := s.g.leases.keep(ctx, q)
		if errors.Is(err, ErrLeaseStore) {
			err = &ike.Rejection{Reason: ike.ReasonAddresses, Detail: ike.DetailLeaseStore, Difference: err.Error()}
		}
		finish(l, err)
	}, func(err error) { finish(nil, err) })
	if !begun {
		s.g.leases.given(q.Lease)
	}
	return begun
}

// leased ends the count of a lease that is being written.
func (s *shard) leased(err error) error {
	s.leasing.Add(-1)
	return err
}

// outside has a thread of its own find an answer that may wait for others, until
// the question's deadline.
func (s *shard) outside(e ike.Ask, work func(context.Context) (any, error)) {
	s.start(e.Job, func(finish finisher) bool {
		return s.g.pool.ask(&s.g.pool.outside, func(ctx context.Context) {
			if !e.Deadline.IsZero() {
				var stop context.CancelFunc
				ctx, stop = context.WithDeadline(ctx, e.Deadline)
				defer stop()
			}
			finish(work(ctx))
		}, func(err error) { finish(nil, err) })
	})
}

// undoAddresses takes virtual addresses away on a thread of its own, since the
// kernel may take its time.
func (s *shard) undoAddresses(lease uint64) {
	list := s.g.virtual.forget(lease)
	if (len(list.addrs)+len(list.servers) > 0 || list.told != 0) && !s.g.pool.ask(&s.g.pool.outside, func(context.Context) { s.g.undo(list) }, func(error) {}) {
		s.g.undo(list)
	}
}

func (g *Gateway) resolve(ctx context.Context, hosts []string) ([]netip.Addr, error) {
	look := g.opt.Resolver
	if look == nil {
		look = systemResolver
	}
	var out []netip.Addr
	var errs []error
	for _, h := range hosts {
		addrs, err := look(ctx, h)
		if err != nil {
			errs = append(errs, err)
		}
		for _, a := range addrs {
			out = append(out, a.Unmap())
		}
	}
	if len(out) == 0 {
		return nil, errors.Join(errs...)
	}
	return out, nil
}
