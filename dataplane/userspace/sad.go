package userspace

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"adit/esp"
	"adit/ipsec"
)

// sa is one SA of the SAD.
type sa struct {
	*esp.SA
	ref ipsec.SARef
	spi ipsec.SPI
	dev *device // In: where its packets go

	// mu is held over a run of packets, not over one: workers may meet at an SA
	// when a peer changes between raw and UDP, or when waiting packets leave.
	mu   sync.Mutex
	dead atomic.Bool // set under mu: after that no packet passes
	// owner is the worker that seals: numbers must leave in their order, for a peer's
	// window may be as short as 32, and two threads that send cannot keep one, whatever
	// they lock: each processor has queues of its own. It opens, too, what comes in.
	owner int
	// resource is the worker, plus 1, that alone uses it (RFC 9611), 0: all do; own: from
	// a source port of its own.
	resource uint16
	own      bool

	mapped   netip.AddrPort // last MappingChange told; under mu
	mappedAt time.Time
	mtuSet   time.Time // when a report lowered the path MTU; under Plane.outMu

	twin atomic.Pointer[sa] // of the other direction of the Child SA, or nil
}

// setPathMTU tells both SAs of a Child SA: the inbound one clamps MSS by it.
func (s *sa) setPathMTU(mtu int, at time.Time) {
	s.SetPathMTU(mtu)
	s.mtuSet = at
	if t := s.twin.Load(); t != nil {
		t.SetPathMTU(mtu)
	}
}

// seal seals a run of packets; false: the SA was deleted, and nothing happened.
func (s *sa) seal(ps []esp.Packet) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead.Load() {
		return false
	}
	s.SealBatch(ps)
	return true
}

// open opens a run of packets unless the SA was deleted.
func (s *sa) open(ps []esp.Packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead.Load() {
		for i := range ps {
			ps[i].Err = esp.ErrExpired
		}
		return
	}
	s.OpenBatch(ps)
}

// kill ends the SA; when it returns no worker is in it.
func (s *sa) kill() {
	s.mu.Lock()
	s.dead.Store(true)
	s.Close()
	s.mu.Unlock()
}

// spiTable finds inbound SAs by SPI: open addressing, read without lock, written
// under Plane.mu. A place that was once taken is never empty again until the
// table is rebuilt, so that a reader's walk is not cut short.
type spiTable struct {
	slots atomic.Pointer[[]atomic.Pointer[sa]]
	used  int // places that are not nil
	live  int
}

var tombstone = &sa{}

func (t *spiTable) init() {
	s := make([]atomic.Pointer[sa], 64)
	t.slots.Store(&s)
}

func spiHash(spi ipsec.SPI, mask int) int {
	return int(uint32(spi)*0x9e3779b1>>7) & mask
}

func (t *spiTable) get(spi ipsec.SPI) *sa {
	slots := *t.slots.Load()
	mask := len(slots) - 1
	for i := spiHash(spi, mask); ; i = (i + 1) & mask {
		s := slots[i].Load()
		if s == nil {
			return nil
		}
		if s.spi == spi && s != tombstone {
			return s
		}
	}
}

func (t *spiTable) put(s *sa) {
	if (t.used+1)*2 > len(*t.slots.Load()) {
		t.rebuild()
	}
	t.place(*t.slots.Load(), s)
	t.live++
}

func (t *spiTable) place(slots []atomic.Pointer[sa], s *sa) {
	mask := len(slots) - 1
	i := spiHash(s.spi, mask)
	for slots[i].Load() != nil {
		i = (i + 1) & mask
	}
	slots[i].Store(s)
	t.used++
}

func (t *spiTable) remove(s *sa) {
	slots := *t.slots.Load()
	mask := len(slots) - 1
	for i := spiHash(s.spi, mask); ; i = (i + 1) & mask {
		switch slots[i].Load() {
		case nil:
			return
		case s:
			slots[i].Store(tombstone)
			t.live--
			return
		}
	}
}

func (t *spiTable) rebuild() {
	old := *t.slots.Load()
	size := 64
	for size < (t.live+1)*4 {
		size *= 2
	}
	slots := make([]atomic.Pointer[sa], size)
	t.used = 0
	for i := range old {
		if s := old[i].Load(); s != nil && s != tombstone {
			t.place(slots, s)
		}
	}
	t.slots.Store(&slots)
}
