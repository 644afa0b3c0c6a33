package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// The control map is one page: the mode, which has the classes that are on and whether the
// reader sleeps, and the number of packets lost.
const (
	asleep     = 1 << 8
	wordMode   = 0
	wordFull   = 4
	controlLen = 64
)

// recordHead is what precedes the packet in a record: its length, of 8 bytes so that the
// packet is aligned.
const recordHead = 8

// Bits in the header of the kernel's records (BPF_RINGBUF_*_BIT), and its length.
const (
	busy      = 1 << 31
	discarded = 1 << 30
	headerLen = 8
)

// Ring is the program at one device and the reader's side of its memory. One goroutine
// at a time may call the methods.
type Ring struct {
	fd                 int
	word               []byte // the control map's
	consumer, producer []byte
	taken              *atomic.Uint64 // how far the reader is, for the kernel
	head               *atomic.Uint64 // how far the kernel is
	data               []byte
	at                 uint64 // how far the reader is
	attached           link.Link
}

// New attaches a ring of a size in bytes, a power of two and at least a page, to the
// interface of an index. All classes are off. The error says what the kernel lacks.
func New(index, size int) (r *Ring, err error) {
	if err := machine(binary.NativeEndian.Uint16([]byte{1, 0}) == 1, bits.UintSize); err != nil {
		return nil, fmt.Errorf("ring: %w", err)
	}
	if size < unix.Getpagesize() || bits.OnesCount(uint(size)) != 1 {
		return nil, fmt.Errorf("ring: %d bytes: a power of two and at least a page is possible", size)
	}
	r = &Ring{fd: -1}
	defer func() {
		if err != nil {
			r.Close()
			if errors.Is(err, unix.EPERM) { // the library says what was the reason in older kernels
				err = fmt.Errorf("it takes CAP_BPF and CAP_NET_ADMIN: %w", unix.EPERM)
			}
			r, err = nil, fmt.Errorf("ring: %w", err)
		}
	}()
	control, err := ebpf.NewMap(&ebpf.MapSpec{Name: "adit_control", Type: ebpf.Array, KeySize: 4, ValueSize: controlLen, MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE})
	if err != nil {
		return r, err
	}
	defer control.Close()
	memory, err := ebpf.NewMap(&ebpf.MapSpec{Name: "adit_ring", Type: ebpf.RingBuf, MaxEntries: uint32(size)})
	if err != nil {
		return r, err
	}
	defer memory.Close()
	if err := r.mapped(control.FD(), memory.FD(), size); err != nil {
		return r, err
	}
	p := program{ring: memory, control: control}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "adit_leaving", Type: ebpf.SchedCLS, Instructions: p.leaving(), License: "Apache-2.0"})
	if err != nil {
		return r, refused(err)
	}
	defer prog.Close() // the link holds it, and it the maps
	r.attached, err = link.AttachTCX(link.TCXOptions{Interface: index, Program: prog, Attach: ebpf.AttachTCXEgress})
	return r, err
}

// machine says whether the program is right for a machine: it reads the packets' numbers as
// a little-endian one, and the reader the kernel's positions as numbers of 64 bits, which
// begin again at 4 GB where the kernel has 32.
func machine(littleEndian bool, word int) error {
	switch {
	case !littleEndian:
		return errors.New("this machine is big-endian, and the kernel's part is for little-endian ones")
	case word != 64:
		return errors.New("this machine isn't one of 64 bits")
	}
	return nil
}

// refused takes what the verifier says of a program in full.
func refused(err error) error {
	var v *ebpf.VerifierError
	if errors.As(err, &v) {
		return fmt.Errorf("%+v", v)
	}
	return err
}

// mapped maps the memory. The kernel has the data twice, one behind the other; once is
// enough for who copies.
func (r *Ring) mapped(control, ring, size int) (err error) {
	page := unix.Getpagesize()
	if r.fd, err = unix.FcntlInt(uintptr(ring), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return err
	}
	if r.word, err = unix.Mmap(control, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return err
	}
	if r.consumer, err = unix.Mmap(ring, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return err
	}
	if r.producer, err = unix.Mmap(ring, int64(page), page+size, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return err
	}
	r.taken = (*atomic.Uint64)(unsafe.Pointer(&r.consumer[0]))
	r.head = (*atomic.Uint64)(unsafe.Pointer(&r.producer[0]))
	r.data = r.producer[page:]
	return nil
}

// Close detaches the program; what is in the ring is lost.
func (r *Ring) Close() {
	if r.attached != nil {
		_ = r.attached.Close()
	}
	for _, m := range [][]byte{r.word, r.consumer, r.producer} {
		if m != nil {
			_ = unix.Munmap(m)
		}
	}
	if r.fd >= 0 {
		_ = unix.Close(r.fd)
	}
}

// FD is a descriptor that is readable when there are packets. Who polls it is woken only
// after Sleep.
func (r *Ring) FD() int { return r.fd }

func (r *Ring) at32(word int) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&r.word[word])) }

// On are the classes whose packets go into the ring. The program switches a class off.
func (r *Ring) On() Class { return Class(r.at32(wordMode).Load()) & All }

// Turn switches a class on, if those in old are on.
func (r *Ring) Turn(c, old Class) bool {
	w := r.at32(wordMode).Load()
	return Class(w)&All == old && r.at32(wordMode).CompareAndSwap(w, w|uint32(c))
}

// Off switches all classes off.
func (r *Ring) Off() { r.at32(wordMode).And(^uint32(All)) }

// Sleep has the next packet make FD readable; false: there is one, or one on its way.
func (r *Ring) Sleep() bool {
	r.at32(wordMode).Or(asleep)
	if r.Before(r.Head()) {
		r.Wake()
		return false
	}
	return true
}

// Wake takes Sleep back.
func (r *Ring) Wake() {
	if w := r.at32(wordMode); w.Load()&asleep != 0 {
		w.And(^uint32(asleep))
	}
}

// Full is the number of packets lost since there was no room, modulo 2^32.
func (r *Ring) Full() uint32 { return r.at32(wordFull).Load() }

// Head is a place behind all packets that are there, or on their way.
func (r *Ring) Head() uint64 { return r.head.Load() }

// Before tells whether there is a packet before a place, or one on its way.
func (r *Ring) Before(head uint64) bool { return r.at < head }

// Take copies the next packet and returns its length; 0: it isn't there yet. mem has
// room for Largest bytes.
func (r *Ring) Take(mem []byte) int {
	mask := uint64(len(r.data) - 1)
	for r.at < r.head.Load() {
		at := r.at & mask
		h := (*atomic.Uint32)(unsafe.Pointer(&r.data[at])).Load()
		if h&busy != 0 {
			return 0
		}
		size := uint64(h &^ discarded)
		n := 0
		if h&discarded == 0 {
			n = r.copy(mem, at+headerLen)
		}
		r.at += headerLen + (size+7)&^7
		r.taken.Store(r.at)
		if n > 0 {
			return n
		}
	}
	return 0
}

// copy copies a record's packet, which can begin again at the memory's start.
func (r *Ring) copy(mem []byte, at uint64) int {
	mask := uint64(len(r.data) - 1)
	n := min(int(*(*uint64)(unsafe.Pointer(&r.data[at&mask]))), Largest)
	k := copy(mem[:n], r.data[(at+recordHead)&mask:])
	copy(mem[k:n], r.data)
	return n
}
