package ike

import (
	"container/heap"
	"time"
)

// timerHeap orders SAs by their next timer, and SAs of the same instant by
// their number.
type timerHeap struct{ list timerList }

type timerList []*Env

func (l timerList) Len() int { return len(l) }
func (l timerList) Less(i, j int) bool {
	if !l[i].wake.Equal(l[j].wake) {
		return l[i].wake.Before(l[j].wake)
	}
	return l[i].id < l[j].id
}
func (l timerList) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].heapAt, l[j].heapAt = i, j
}

// Push is part of heap.Interface.
func (l *timerList) Push(x any) {
	env := x.(*Env)
	env.heapAt = len(*l)
	*l = append(*l, env)
}

// Pop is part of heap.Interface.
func (l *timerList) Pop() any {
	old := *l
	env := old[len(old)-1]
	old[len(old)-1] = nil
	*l = old[:len(old)-1]
	env.heapAt = -1
	return env
}

// set moves the SA's timer; the zero time removes it.
func (h *timerHeap) set(env *Env, at time.Time) {
	switch {
	case env.heapAt < 0 && at.IsZero():
	case env.heapAt < 0:
		env.wake = at
		heap.Push(&h.list, env)
	case at.IsZero():
		heap.Remove(&h.list, env.heapAt)
	case !env.wake.Equal(at):
		env.wake = at
		heap.Fix(&h.list, env.heapAt)
	}
}

// due takes every SA whose timer is not after now, in order.
func (h *timerHeap) due(now time.Time) []*Env {
	var out []*Env
	for len(h.list) > 0 && !h.list[0].wake.After(now) {
		out = append(out, heap.Pop(&h.list).(*Env))
	}
	return out
}

func (h *timerHeap) next() time.Time {
	if len(h.list) == 0 {
		return time.Time{}
	}
	return h.list[0].wake
}
