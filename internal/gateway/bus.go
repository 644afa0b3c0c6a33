package gateway

import (
	"slices"
	"sync"
	"sync/atomic"

	"adit/ike"
)

// bus hands every event to every subscriber, in order, on the publisher's thread.
type bus struct {
	mu     sync.Mutex
	subs   atomic.Pointer[[]*subscriber]
	failed atomic.Uint64 // events that made a subscriber panic
}

type subscriber struct{ f func(ike.Event) }

func (b *bus) subscribe(f func(ike.Event)) (cancel func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []*subscriber
	if old := b.subs.Load(); old != nil {
		list = slices.Clone(*old)
	}
	if len(list) >= limitSubscribers {
		return func() {}
	}
	s := &subscriber{f}
	list = append(list, s)
	b.subs.Store(&list)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		list := slices.DeleteFunc(slices.Clone(*b.subs.Load()), func(x *subscriber) bool { return x == s })
		b.subs.Store(&list)
	}
}

func (b *bus) publish(e ike.Event) {
	if subs := b.subs.Load(); subs != nil {
		for _, s := range *subs {
			b.tell(s, e)
		}
	}
}

// tell hands an event to one subscriber; that one's panic is not the others' affair.
func (b *bus) tell(s *subscriber, e ike.Event) {
	defer func() {
		if recover() != nil {
			b.failed.Add(1)
		}
	}()
	s.f(e)
}
