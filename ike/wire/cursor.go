package wire

import "encoding/binary"

// cursor reads b[pos:end] and remembers the first error with its position.
// After an error every read yields zero values, so that a body is read without
// a check at each field and judged once at the end; loops must test c.err.
type cursor struct {
	b        []byte
	pos, end int
	err      error
	errAt    int
}

func (c *cursor) fail(at int, err error) {
	if c.err == nil {
		c.err, c.errAt = err, at
	}
}

func (c *cursor) left() int { return c.end - c.pos }

// take returns the next n bytes without copying, nil when they are not there.
func (c *cursor) take(n int) []byte {
	if c.err != nil {
		return nil
	}
	if n < 0 || n > c.left() {
		c.fail(c.pos, ErrShort)
		return nil
	}
	s := c.b[c.pos : c.pos+n : c.pos+n]
	c.pos += n
	return s
}

func (c *cursor) rest() []byte { return c.take(c.left()) }

func (c *cursor) skip(n int) { c.take(n) }

func (c *cursor) u8() uint8 {
	s := c.take(1)
	if s == nil {
		return 0
	}
	return s[0]
}

func (c *cursor) u16() uint16 {
	s := c.take(2)
	if s == nil {
		return 0
	}
	return binary.BigEndian.Uint16(s)
}

func (c *cursor) u32() uint32 {
	s := c.take(4)
	if s == nil {
		return 0
	}
	return binary.BigEndian.Uint32(s)
}

// sub cuts a cursor over the next n bytes off c; offsets stay absolute. When
// they are not there, c has failed and the sub-cursor is failed too.
func (c *cursor) sub(n int) cursor {
	start := c.pos
	c.take(n)
	return cursor{b: c.b, pos: start, end: c.pos, err: c.err, errAt: c.errAt}
}

// join takes over the sub-cursor's error, and ErrTrailing if it was not read
// to its end.
func (c *cursor) join(s *cursor) {
	if s.err != nil {
		c.fail(s.errAt, s.err)
	} else if s.left() != 0 {
		c.fail(s.pos, ErrTrailing)
	}
}

// builder appends to b and remembers the first value that did not fit.
type builder struct {
	b   []byte
	err error
}

func (w *builder) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

func (w *builder) u8(v uint8)     { w.b = append(w.b, v) }
func (w *builder) u16(v uint16)   { w.b = binary.BigEndian.AppendUint16(w.b, v) }
func (w *builder) u32(v uint32)   { w.b = binary.BigEndian.AppendUint32(w.b, v) }
func (w *builder) bytes(s []byte) { w.b = append(w.b, s...) }
func (w *builder) reserved(n int) { w.b = append(w.b, zeros[:n]...) }
func (w *builder) count8(n int)   { w.u8(uint8(w.fits(n, 0xff))) }
func (w *builder) count16(n int)  { w.u16(uint16(w.fits(n, 0xffff))) }
func (w *builder) patch16(at, n int) {
	binary.BigEndian.PutUint16(w.b[at:], uint16(w.fits(n, 0xffff)))
}

var zeros [4]byte

// fits returns n, or zero with the builder failed when n exceeds limit.
func (w *builder) fits(n, limit int) int {
	if n > limit {
		w.fail(ErrTooLarge)
		return 0
	}
	return n
}
