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
		if err := s.g.opt.Transport.Send(e.Datagram); err != nil {
			s.g.bus.publish(ike.Note{Level: 2, Text: fmt.Sprintf("sending to %s failed: %v", e.Remote, err)})
		}
	case ike.InstallChild:
		s.install(e)
	case ike.ActivateChild:
		for _, p := range e.Policies {
			if err := dp.AddPolicy(p); err != nil {
				s.g.bus.publish(ike.Note{Level: 1, Text: fmt.Sprintf("policy of %s: %v", p.Name, err)})
			}
		}
		if s.g.inv.activate(e.Policies) {
			s.g.host.changed(nil)
		}
	case ike.RemoveChild:
		s.remove(e.Child, e.Policies)
	case ike.UpdateChild:
		for _, d := range []ipsec.Direction{ipsec.In, ipsec.Out} {
			_ = dp.UpdateSA(ipsec.SARef{Child: e.Child, Dir: d}, e.Update) // the SA may just have gone
		}
	case ike.QueryChild:
		in, out := s.g.Query(e.Child)
		s.ready = append(s.ready, ike.Result{Job: e.Job, Value: ike.ChildStats{In: in, Out: out}})
	case ike.Compute:
		s.start(e.Job, func(finish func(any, error)) bool {
			return s.g.pool.submit(func() { finish(e.Run(), nil) }, func(err error) { finish(nil, err) })
		})
	case ike.Ask:
		s.ask(e)
	case ike.Emit:
		s.g.bus.publish(e.Event)
	case ike.ExportKeys:
		if s.g.opt.KeyLog != nil {
			s.g.opt.KeyLog(e)
		}
	}
}

// start counts an outstanding job; begin hands it away and must arrange for
// finish to be called once. Where it cannot, the job fails at once.
func (s *shard) start(job ike.JobID, begin func(finish func(any, error)) bool) {
	if s.outstanding.Load() >= limitJobs {
		s.ready = append(s.ready, ike.Result{Job: job, Err: ErrBusy})
		return
	}
	s.outstanding.Add(1)
	var once atomic.Bool
	finish := func(v any, err error) {
		if once.CompareAndSwap(false, true) {
			s.done <- ike.Result{Job: job, Value: v, Err: err} // has room for every outstanding job
		}
	}
	if !begin(finish) {
		once.Store(true)
		s.outstanding.Add(-1)
		s.ready = append(s.ready, ike.Result{Job: job, Err: ErrBusy})
	}
}

// install puts the SAs in place, inbound first, then the policies, then the
// host's routes and guard where those change. The engine hears of it when all
// stands, and so the peer.
func (s *shard) install(e ike.InstallChild) {
	dp := s.g.opt.Dataplane
	err := dp.AddSA(e.In)
	if err == nil {
		if err = dp.AddSA(e.Out); err != nil {
			_ = dp.DeleteSA(e.In.Ref)
		}
	}
	if err != nil {
		s.ready = append(s.ready, ike.Result{Job: e.Job, Err: err})
		return
	}
	if st, ok := dp.Query(e.Out.Ref); ok {
		s.g.inv.setMTU(e.Out.Ref.Child, st.MTU)
	}
	if !e.Activate {
		s.ready = append(s.ready, ike.Result{Job: e.Job})
		return
	}
	for _, p := range e.Policies {
		if err = dp.AddPolicy(p); err != nil {
			break
		}
	}
	if err != nil {
		s.remove(e.In.Ref.Child, policyIDs(e.Policies))
		s.ready = append(s.ready, ike.Result{Job: e.Job, Err: err})
		return
	}
	if !s.g.inv.activate(e.Policies) {
		s.ready = append(s.ready, ike.Result{Job: e.Job})
		return
	}
	s.start(e.Job, func(finish func(any, error)) bool {
		s.g.host.changed(func(err error) {
			if err != nil {
				s.remove(e.In.Ref.Child, policyIDs(e.Policies))
			}
			finish(nil, err)
		})
		return true
	})
}

func policyIDs(ps []ipsec.Policy) []ipsec.PolicyID {
	ids := make([]ipsec.PolicyID, len(ps))
	for i, p := range ps {
		ids[i] = p.ID
	}
	return ids
}

// remove takes SAs and policies away. Safe from any thread: it touches the data
// plane and the inventory only.
func (s *shard) remove(child uint32, policies []ipsec.PolicyID) {
	dp := s.g.opt.Dataplane
	for _, id := range policies {
		_ = dp.DeletePolicy(id)
	}
	for _, d := range []ipsec.Direction{ipsec.Out, ipsec.In} {
		_ = dp.DeleteSA(ipsec.SARef{Child: child, Dir: d})
	}
	changed := s.g.inv.deactivate(policies)
	s.g.inv.setMTU(child, 0)
	if changed {
		s.g.host.changed(nil)
	}
}

// ask answers a question, or has it answered by a thread of its own.
func (s *shard) ask(e ike.Ask) {
	switch q := e.Question.(type) {
	case ike.PSKLookup:
		s.ready = append(s.ready, ike.Result{Job: e.Job, Value: s.g.inv.keys(q)})
	case ike.SourceAddress:
		a, err := s.g.opt.Transport.SourceFor(q.Remote)
		s.ready = append(s.ready, ike.Result{Job: e.Job, Value: a, Err: err})
	case ike.Resolve:
		s.start(e.Job, func(finish func(any, error)) bool {
			return s.g.pool.ask(func() {
				ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
				defer cancel()
				if !e.Deadline.IsZero() {
					var stop context.CancelFunc
					ctx, stop = context.WithDeadline(ctx, e.Deadline)
					defer stop()
				}
				addrs, err := s.g.resolve(ctx, q.Hosts)
				finish(addrs, err)
			}, func(err error) { finish(nil, err) })
		})
	default:
		s.ready = append(s.ready, ike.Result{Job: e.Job, Err: fmt.Errorf("nobody answers %T", q)})
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
