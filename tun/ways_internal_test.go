package tun

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"

	"adit/tun/ring"
)

// twoWays plays the kernel's side of both ways: processors that run the program for one
// packet after the other, a step at a time between any two looks of the reader's.
type twoWays struct {
	t    *testing.T
	rng  *rand.Rand
	cpus []*processor
	// stalls: processors stand still for a while, in the midst of the program, too.
	stalls bool
	// pace bounds the steps between two looks, but for every burst-th time.
	pace, burst int

	queue  [][]byte
	on     ring.Class
	asleep bool
	woken  bool
	ring   []record // all that were ever reserved
	at     int
}

type record struct {
	pkt   []byte
	ready bool
}

// processor has the packets of its flows, in order.
type processor struct {
	todo []sent
	step int // 0: the next packet's class hasn't been looked at
	rec  int // the record that is being filled
	// stalled is for how many steps it does nothing, as a virtual processor that has to wait.
	stalled int
}

type sent struct {
	flow, number int
	class        ring.Class
	special      bool // only the queue takes it
}

// packet is what a reader takes, with the flow and number in it.
func (s sent) packet() []byte {
	b := make([]byte, vnetHdrLen+60)
	p := b[vnetHdrLen:]
	p[0], p[8] = 0x45, 64
	p[9] = map[ring.Class]byte{ring.UDP: protoUDP, ring.TCP: protoTCP, 0: 1}[s.class]
	if s.special {
		p[6] = 0x20 // more fragments
	}
	binary.BigEndian.PutUint32(p[40:], uint32(s.flow))
	binary.BigEndian.PutUint32(p[44:], uint32(s.number))
	return b
}

// some runs a few steps of some processors.
func (k *twoWays) some() {
	steps := k.rng.IntN(k.pace)
	if k.rng.IntN(k.burst) == 0 {
		steps = k.rng.IntN(40)
	}
	for range steps {
		p := k.cpus[k.rng.IntN(len(k.cpus))]
		if p.stalled--; p.stalled <= 0 {
			k.stepOf(p)
		}
		if k.stalls && k.rng.IntN(100) == 0 {
			p.stalled = k.rng.IntN(40)
		}
	}
}

func (k *twoWays) stepOf(p *processor) {
	if len(p.todo) == 0 {
		return
	}
	s := p.todo[0]
	done := false
	switch {
	case p.step == 0 && (s.class == 0 || k.on&s.class == 0):
		p.step = 3
	case p.step == 0 && s.special:
		p.step = 1
	case p.step == 0:
		p.step = 2
	case p.step == 1: // off
		k.on &^= s.class
		p.step = 3
	case p.step == 2: // reserve
		p.rec, p.step = len(k.ring), 4
		k.ring = append(k.ring, record{pkt: s.packet()[vnetHdrLen:]})
	case p.step == 3: // to the queue
		k.queue = append(k.queue, s.packet())
		k.woken = true
		done = true
	case p.step == 4: // look for a sleeper
		p.step = 5
		if k.asleep {
			k.asleep, p.step = false, 6
		}
	default:
		k.ring[p.rec].ready = true
		k.woken = k.woken || p.step == 6
		done = true
	}
	if done {
		p.todo, p.step = p.todo[1:], 0
	}
}

func (k *twoWays) read(mem []byte) (int, error) {
	k.some()
	if len(k.queue) == 0 {
		return 0, nil
	}
	n := copy(mem, k.queue[0])
	k.queue = k.queue[1:]
	return n, nil
}

func (k *twoWays) On() ring.Class { k.some(); return k.on }

func (k *twoWays) Turn(c, old ring.Class) bool {
	k.some()
	if k.on != old {
		return false
	}
	k.on |= c
	return true
}

func (k *twoWays) Off()                    { k.some(); k.on = 0 }
func (k *twoWays) Head() uint64            { k.some(); return uint64(len(k.ring)) }
func (k *twoWays) Before(head uint64) bool { return uint64(k.at) < head }
func (k *twoWays) Wake()                   { k.asleep = false }

func (k *twoWays) Sleep() bool {
	k.some()
	k.asleep = true
	k.some()
	if k.at < len(k.ring) {
		k.asleep = false
		return false
	}
	return true
}

func (k *twoWays) Take(mem []byte) int {
	k.some()
	if k.at == len(k.ring) || !k.ring[k.at].ready {
		return 0
	}
	k.at++
	return copy(mem, k.ring[k.at-1].pkt)
}

func (k *twoWays) left() (n int) {
	for _, p := range k.cpus {
		n += len(p.todo)
	}
	return n
}

// never is how often packets come that only the queue takes, in the worlds in which nothing
// is switched off.
const never = 1 << 30

// mostSwapped is in how many of 100,000 worlds a packet may come before an older one, as ways
// says that it can: it is in three, and in six if a class that was just switched on isn't
// remembered as early.
const mostSwapped = 4

// TestWaysKeepOrder takes what processors bring by both ways, however their steps fall
// between the reader's: nothing is lost or comes twice, flows keep their order, and who sleeps
// is woken.
func TestWaysKeepOrder(t *testing.T) {
	seeds := uint64(1500)
	if os.Getenv("ADIT_LONG") != "" {
		seeds = 100_000
	}
	swapped := 0
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 1))
		special := []int{never, 500, 60, 8}[seed%4]
		inOrder, ok := keepOrder(t, &twoWays{t: t, rng: rng, stalls: special == never, pace: 6, burst: 8}, special)
		if !inOrder {
			t.Logf("seed %d", seed)
			swapped++
		}
		if !ok || swapped > mostSwapped*int(seeds)/100_000 {
			t.Fatalf("seed %d: of %d worlds %d have packets out of order", seed, seeds, swapped)
		}
	}
}

// TestWaysKeepOrderAtLeisure has kernels that the reader keeps up with, which finds the queue
// empty: only then is a class switched on, and the ring used.
func TestWaysKeepOrderAtLeisure(t *testing.T) {
	const seeds = 1500
	byRing := 0
	for seed := range uint64(seeds) {
		rng := rand.New(rand.NewPCG(seed, 2))
		special := []int{never, 500, 60}[seed%3]
		k := &twoWays{t: t, rng: rng, stalls: special == never, pace: 2 + rng.IntN(5), burst: 40}
		if inOrder, ok := keepOrder(t, k, special); !inOrder || !ok {
			t.Fatalf("seed %d", seed)
		}
		byRing += k.at
	}
	if byRing < 10*seeds {
		t.Errorf("%d packets came by the ring in %d worlds: too few to show anything", byRing, seeds)
	}
}

// keepOrder plays one world; not ok: packets are lost, or nobody is woken.
func keepOrder(t *testing.T, k *twoWays, special int) (inOrder, ok bool) {
	rng := k.rng
	flow := 0
	for range 1 + rng.IntN(3) {
		p := &processor{}
		flows := 1 + rng.IntN(3)
		classes, numbers := make([]ring.Class, flows), make([]int, flows)
		for i := range classes {
			classes[i] = []ring.Class{ring.UDP, ring.UDP, ring.TCP, 0}[rng.IntN(4)]
		}
		for range 300 {
			f := rng.IntN(flows)
			p.todo = append(p.todo, sent{flow + f, numbers[f], classes[f], classes[f] != 0 && rng.IntN(special) == 0})
			numbers[f]++
		}
		flow += flows
		k.cpus = append(k.cpus, p)
	}
	all := k.left()
	var seen atomic.Bool
	w := &ways{ring: k, read: k.read,
		seen: &seen, after: 1 + rng.IntN(6)}
	next := map[int]int{}
	mem := make([]byte, TakeSize)
	for got := 0; got < all; {
		if !k.stalls && rng.IntN(200) == 0 {
			seen.Store(!seen.Load())
		}
		if taken, err := w.next(mem); err != nil {
			t.Error(err)
			return true, false
		} else if taken > 0 {
			f, n := int(binary.BigEndian.Uint32(mem[vnetHdrLen+40:])), int(binary.BigEndian.Uint32(mem[vnetHdrLen+44:]))
			if n != next[f] {
				t.Logf("packet %d of flow %d comes where %d should", n, f, next[f])
				return false, true
			}
			next[f]++
			got++
			continue
		}
		k.woken = len(k.queue) > 0
		if !w.rest() {
			k.some()
			continue
		}
		for !k.woken && k.left() > 0 {
			k.some()
		}
		if !k.woken {
			t.Errorf("nobody is woken for %d packets", all-got)
			return true, false
		}
	}
	return true, true
}
