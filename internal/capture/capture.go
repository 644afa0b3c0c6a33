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

// Limits of one directory; tests make them small.
var (
	limitFile int64 = 1 << 30 // bytes at which a pcap stops growing
	limitKeys int64 = 4 << 20 // bytes at which a file of keys stops growing
)

// Dir is an open directory. Its methods are safe for concurrent use.
type Dir struct {
	mu           sync.Mutex
	inner, outer pcap
	ike, esp     keyFile
	err          error // the first failure of a write
}

// Open makes the directory (mode 0700) if need be and starts new files in it (mode
// 0600). Files of an earlier run are removed and made anew, so that neither their
// mode nor a link in their place decides who reads the new ones. A directory that
// others may write to is refused: they could take the files away and read on.
func Open(dir string) (*Dir, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if mode := fi.Mode().Perm(); mode&0o022 != 0 {
		return nil, fmt.Errorf("capture: others may write to %s (mode %#o): chmod 700 it", dir, mode)
	}
	d := &Dir{}
	var errs []error
	create := func(name string) *os.File {
		path := filepath.Join(dir, name)
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		errs = append(errs, err)
		return f
	}
	d.inner.f, d.outer.f = create("inner.pcap"), create("outer.pcap")
	d.ike.f, d.esp.f = create("ikev2_decryption_table"), create("esp_sa")
	if prefs := create("preferences"); prefs != nil {
		_, err := prefs.WriteString(preferences)
		errs = append(errs, err, prefs.Close())
	}
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
	for _, f := range []*os.File{d.inner.f, d.outer.f, d.ike.f, d.esp.f} {
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
	src, dst := ends(dir, local, remote)
	payload, proto := esp, byte(50)
	if encap {
		payload, proto = udp(src, dst, nil, esp), 17
	}
	d.write(ip(src.Addr(), dst.Addr(), proto, tos, payload))
}

// IKE records one IKE message; marker says that it travels with the non-ESP marker.
func (d *Dir) IKE(dir ipsec.Direction, local, remote netip.AddrPort, marker bool, msg []byte) {
	src, dst := ends(dir, local, remote)
	var zeros []byte
	if marker {
		zeros = make([]byte, 4)
	}
	d.write(ip(src.Addr(), dst.Addr(), 17, 0, udp(src, dst, zeros, msg)))
}

// ends are source and destination of a packet in a direction.
func ends(dir ipsec.Direction, local, remote netip.AddrPort) (src, dst netip.AddrPort) {
	if dir == ipsec.In {
		return remote, local
	}
	return local, remote
}

func (d *Dir) write(packet []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail(d.outer.write(packet))
}

// keyFile is one file of keys.
type keyFile struct {
	f    *os.File
	size int64
}

// line appends one line to a key file.
func (d *Dir) line(k *keyFile, format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	text := fmt.Sprintf(format+"\n", args...)
	if k.size+int64(len(text)) > limitKeys {
		return
	}
	n, err := k.f.WriteString(text)
	k.size += int64(n)
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

// udp puts a UDP header before marker and body: without checksum over IPv4 (RFC
// 3948 §2.1), with the one that IPv6 demands (RFC 8200 §8.1).
func udp(src, dst netip.AddrPort, marker, body []byte) []byte {
	n := 8 + len(marker) + len(body)
	h := binary.BigEndian.AppendUint16(make([]byte, 0, n), src.Port())
	h = binary.BigEndian.AppendUint16(h, dst.Port())
	h = binary.BigEndian.AppendUint16(h, uint16(n))
	h = append(h, 0, 0)
	h = append(append(h, marker...), body...)
	if !src.Addr().Is4() {
		s, d := src.Addr().As16(), dst.Addr().As16()
		pseudo := append(s[:], d[:]...)
		pseudo = append(binary.BigEndian.AppendUint32(pseudo, uint32(n)), 0, 0, 0, 17)
		sum := checksum(append(pseudo, h...))
		if sum == 0 {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(h[6:], sum)
	}
	return h
}

// checksum is that of the Internet (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
