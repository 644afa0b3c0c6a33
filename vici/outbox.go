package vici

import (
	"errors"
	"sync"
)

// ErrGone is what [Request.Emit] returns once the client has hung up or was cut off.
var ErrGone = errors.New("vici: client is gone")

// outbox is the queue of packets that one client has still to read. Replies wait for room, so
// that none is lost and a command streams no faster than its client reads; published events do
// not wait.
type outbox struct {
	mu       sync.Mutex
	room     sync.Cond // signalled when something was taken out, or at the end
	more     sync.Cond // signalled when something was put in, or at the end
	packets  [][]byte
	bytes    int
	most     int // packets
	mostSize int // bytes
	ended    bool
}

func newOutbox(most, mostSize int) *outbox {
	o := &outbox{most: most, mostSize: mostSize}
	o.room.L, o.more.L = &o.mu, &o.mu
	return o
}

// fits reports whether there is room. One packet always fits an empty queue, whatever its size.
func (o *outbox) fits(b []byte) bool {
	return len(o.packets) == 0 || len(o.packets) < o.most && o.bytes+len(b) <= o.mostSize
}

func (o *outbox) add(b []byte) {
	o.packets = append(o.packets, b)
	o.bytes += len(b)
	o.more.Signal()
}

// put waits for room; it reports false when the client is gone.
func (o *outbox) put(b []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.ended && !o.fits(b) {
		o.room.Wait()
	}
	if !o.ended {
		o.add(b)
	}
	return !o.ended
}

// offer does not wait; it reports false when there is no room.
func (o *outbox) offer(b []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return true // a client that is gone loses nothing
	}
	if !o.fits(b) {
		return false
	}
	o.add(b)
	return true
}

// take waits for packets and returns all there are; none at the end.
func (o *outbox) take() [][]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.ended && len(o.packets) == 0 {
		o.more.Wait()
	}
	p := o.packets
	o.packets, o.bytes = nil, 0
	o.room.Broadcast()
	return p
}

// end lets nothing further in; what is queued can still be taken.
func (o *outbox) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.room.Broadcast()
	o.more.Broadcast()
}
