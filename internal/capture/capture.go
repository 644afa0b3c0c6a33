// Package capture writes what a gateway sees into a directory that Wireshark and
// tshark read: inner.pcap, outer.pcap, and the keys (ikev2_decryption_table and
// esp_sa, files of a Wireshark profile). It exists for the explicit unsafe option
// only: whoever reads the directory reads the traffic.
//
// It owns the file formats; it must not know engines or data planes. Start with Open.
package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"adit/ipsec"
)

// limitFile is the size in bytes at which a pcap stops growing.
const limitFile = 1 << 30

// Dir is an open directory. Its methods are safe for concurrent use.
type Dir struct {
	mu           sync.Mutex
	inner, outer pcap
	ike, esp     *os.File
	err          error // the first failure of a write
}

// Open makes the directory (mode 0700) if need be and starts new files in it.
func Open(dir string) (*Dir, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d := &Dir{}
	var errs []error
	create := func(name string) *os.File {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		errs = append(errs, err)
		return f
	}
	d.inner.f, d.outer.f = create("inner.pcap"), create("outer.pcap")
	d.ike, d.esp = create("ikev2_decryption_table"), create("esp_sa")
	if err := errors.Join(errs...); err != nil {
		d.Close()
		return nil, err
	}
	d.fail(d.inner.start())
	d.fail(d.outer.start())
	return d, d.err
}

// Close closes the files and returns the first error of any write.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range []*os.File{d.inner.f, d.outer.f, d.ike, d.esp} {
		if f != nil {
			d.fail(f.Close())
		}
	}
	return d.err
}

func (d *Dir) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// Inner records one inner IP packet.
func (d *Dir) Inner(_ ipsec.Direction, packet []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail(d.inner.write(packet))
}

// Outer records one ESP packet as on the wire. The outer IP header (and UDP's) is
// made anew from the addresses, because sockets do not show it.
func (d *Dir) Outer(dir ipsec.Direction, local, remote netip.AddrPort, encap bool, tos uint8, esp []byte) {
	src, dst := local, remote
	if dir == ipsec.In {
		src, dst = remote, local
	}
	payload, proto := esp, byte(50)
	if encap {
		payload, proto = udp(src.Port(), dst.Port(), nil, esp), 17
	}
	d.write(ip(src.Addr(), dst.Addr(), proto, tos, payload))
}

// IKE records one IKE message; marker says that it travels with the non-ESP marker.
func (d *Dir) IKE(dir ipsec.Direction, local, remote netip.AddrPort, marker bool, msg []byte) {
	src, dst := local, remote
	if dir == ipsec.In {
		src, dst = remote, local
	}
	var zeros []byte
	if marker {
		zeros = make([]byte, 4)
	}
	d.write(ip(src.Addr(), dst.Addr(), 17, 0, udp(src.Port(), dst.Port(), zeros, msg)))
}

func (d *Dir) write(packet []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail(d.outer.write(packet))
}

// line appends one line to a key file.
func (d *Dir) line(f *os.File, format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := fmt.Fprintf(f, format+"\n", args...)
	d.fail(err)
}

// pcap is one file of packets that start with an IP header.
type pcap struct {
	f    *os.File
	size int64
}

const linkTypeRaw = 101 // LINKTYPE_RAW: IPv4 or IPv6

func (p *pcap) start() error {
	h := binary.LittleEndian.AppendUint32(nil, 0xa1b23c4d) // nanosecond stamps
	h = binary.LittleEndian.AppendUint16(h, 2)
	h = binary.LittleEndian.AppendUint16(h, 4)
	h = append(h, make([]byte, 8)...)
	h = binary.LittleEndian.AppendUint32(h, 1<<18)
	h = binary.LittleEndian.AppendUint32(h, linkTypeRaw)
	n, err := p.f.Write(h)
	p.size += int64(n)
	return err
}

func (p *pcap) write(packet []byte) error {
	if p.size+int64(len(packet))+16 > limitFile {
		return nil
	}
	now := time.Now()
	rec := binary.LittleEndian.AppendUint32(make([]byte, 0, 16+len(packet)), uint32(now.Unix()))
	rec = binary.LittleEndian.AppendUint32(rec, uint32(now.Nanosecond()))
	rec = binary.LittleEndian.AppendUint32(rec, uint32(len(packet)))
	rec = binary.LittleEndian.AppendUint32(rec, uint32(len(packet)))
	n, err := p.f.Write(append(rec, packet...))
	p.size += int64(n)
	return err
}

// ip puts an IPv4 or IPv6 header before a payload.
func ip(src, dst netip.Addr, proto, tos byte, payload []byte) []byte {
	if src.Is4() && dst.Is4() {
		h := make([]byte, 20, 20+len(payload))
		h[0], h[1], h[8], h[9] = 0x45, tos, 64, proto
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
		copy(h[12:], src.AsSlice())
		copy(h[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(h[10:], checksum(h))
		return append(h, payload...)
	}
	h := make([]byte, 40, 40+len(payload))
	binary.BigEndian.PutUint32(h, 6<<28|uint32(tos)<<20)
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	h[6], h[7] = proto, 64
	s, d := src.As16(), dst.As16()
	copy(h[8:], s[:])
	copy(h[24:], d[:])
	return append(h, payload...)
}

// udp puts a UDP header without checksum (RFC 3948 §2.1) before marker and body.
func udp(src, dst uint16, marker, body []byte) []byte {
	h := binary.BigEndian.AppendUint16(make([]byte, 0, 12+len(body)), src)
	h = binary.BigEndian.AppendUint16(h, dst)
	h = binary.BigEndian.AppendUint16(h, uint16(8+len(marker)+len(body)))
	h = append(h, 0, 0)
	return append(append(h, marker...), body...)
}

func checksum(h []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
