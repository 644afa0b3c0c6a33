package wire_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"adit/ike/wire"
)

// What parsing may cost: a multiple of the input (a selector of an unknown type
// is 4 bytes on the wire and 80 in memory) and a little for any message.
const (
	allocPerByte = 24
	allocBase    = 1024
	timeLimit    = 100 * time.Millisecond
)

// checkCost runs parse and fails when it allocates or takes too much. Other
// goroutines and preemption disturb both figures, so that the least of several
// runs counts.
func checkCost(t *testing.T, input int, parse func()) {
	t.Helper()
	limit := uint64(allocPerByte*input + allocBase)
	var bytes uint64
	var took time.Duration
	for range 25 { // a busy machine runs others in between
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		parse()
		took = time.Since(start)
		runtime.ReadMemStats(&after)
		bytes = after.TotalAlloc - before.TotalAlloc
		if bytes <= limit && took <= timeLimit {
			return
		}
	}
	t.Fatalf("%d bytes of input cost %d bytes of memory (limit %d) and %v (limit %v)", input, bytes, limit, took, timeLimit)
}

func seedMessages(f *testing.F) [][]byte {
	var seeds [][]byte
	for _, tt := range malformed {
		seeds = append(seeds, unhex(f, tt.msg))
	}
	for _, c := range readCaptures(f) {
		seeds = append(seeds, c.wire...)
	}
	return seeds
}

func FuzzParseHeader(f *testing.F) {
	for _, b := range seedMessages(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := wire.ParseHeader(b)
		if err != nil {
			checkParseError(t, err, len(b))
			return
		}
		if out := h.Append(nil); !bytes.Equal(out, b[:wire.HeaderLen]) {
			t.Errorf("rebuilt %x from %x", out, b[:wire.HeaderLen])
		}
	})
}

func FuzzParseMessage(f *testing.F) {
	for _, b := range seedMessages(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		original := bytes.Clone(b)
		var m *wire.Message
		var err error
		checkCost(t, len(b), func() { m, err = wire.ParseMessage(b) })
		if err != nil {
			checkParseError(t, err, len(b))
			return
		}
		_ = m.Summary()
		m.UnknownCritical()
		out := m.Append(nil)
		if len(out) != len(b) {
			t.Fatalf("rebuilt %d bytes of %d", len(out), len(b))
		}
		again, err := wire.ParseMessage(out)
		if err != nil {
			t.Fatalf("own message refused: %v", err)
		}
		again.Raw = m.Raw
		again.Header.Length, again.Header.NextPayload = m.Header.Length, m.Header.NextPayload
		if !reflect.DeepEqual(m, again) {
			t.Errorf("rebuilt to another message:\n%+v\n%+v", m, again)
		}
		if twice := again.Append(nil); !bytes.Equal(twice, out) {
			t.Errorf("rebuilt twice to different bytes:\n%x\n%x", out, twice)
		}
		if !bytes.Equal(b, original) {
			t.Error("the input was changed")
		}
	})
}

func FuzzParsePayloads(f *testing.F) {
	for _, tt := range bodies {
		f.Add(uint8(tt.typ), chain(wire.PayloadNone, 0, unhex(f, tt.body)))
	}
	for _, b := range seedMessages(f) {
		if len(b) > wire.HeaderLen {
			f.Add(b[16], b[wire.HeaderLen:])
		}
	}
	for _, c := range readCaptures(f) {
		if len(c.plain) > 0 {
			f.Add(c.wire[0][wire.HeaderLen], bytes.Join(c.plain, nil))
		}
	}
	f.Fuzz(func(t *testing.T, first uint8, b []byte) {
		var ps []wire.Payload
		var err error
		checkCost(t, len(b), func() { ps, err = wire.ParsePayloads(wire.PayloadType(first), b) })
		if err != nil {
			checkParseError(t, err, len(b))
			return
		}
		if len(b) <= wire.MaxMessageLen-wire.HeaderLen {
			if err := wire.CheckPayloads(ps); err != nil {
				t.Errorf("CheckPayloads of parsed payloads: %v", err)
			}
		}
		_ = wire.Summarize(wire.Header{}, ps)
		start, out := wire.AppendPayloads(nil, ps)
		if start != wire.PayloadType(first) || len(out) != len(b) {
			t.Fatalf("rebuilt %v and %d bytes of %v and %d", start, len(out), wire.PayloadType(first), len(b))
		}
		again, err := wire.ParsePayloads(start, out)
		if err != nil {
			t.Fatalf("own payloads refused: %v", err)
		}
		if !reflect.DeepEqual(ps, again) {
			t.Errorf("rebuilt to other payloads:\n%s\n%s", wire.Summarize(wire.Header{}, ps), wire.Summarize(wire.Header{}, again))
		}
	})
}

func checkParseError(t *testing.T, err error, input int) {
	t.Helper()
	pe, ok := err.(*wire.ParseError)
	if !ok {
		t.Fatalf("error of type %T: %v", err, err)
	}
	if pe.Offset < 0 || pe.Offset > max(input, wire.HeaderLen) || pe.Err == nil || pe.Error() == "" {
		t.Errorf("error %#v for %d bytes", pe, input)
	}
}

// TestEveryParserHasItsFuzzTarget fails when an exported Parse function is added
// without a Fuzz function of the same name.
func TestEveryParserHasItsFuzzTarget(t *testing.T) {
	parsers, targets := map[string]bool{}, map[string]bool{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if name := fn.Name.Name; strings.HasSuffix(file, "_test.go") {
				targets[name] = true
			} else if strings.HasPrefix(name, "Parse") {
				parsers[name] = true
			}
		}
	}
	if len(parsers) < 3 {
		t.Fatalf("found only %v", parsers)
	}
	for name := range parsers {
		if !targets["Fuzz"+name] {
			t.Errorf("%s has no fuzz target Fuzz%s", name, name)
		}
	}
}

// The dearest messages that the format allows stay within the bounds.
func TestCostOfTheLargestMessages(t *testing.T) {
	fill := func(typ wire.PayloadType, body []byte) []byte {
		b := chain(wire.PayloadNone, 0, body)
		for len(b)+len(body)+4 < wire.MaxMessageLen-wire.HeaderLen && len(b)/(len(body)+4) < wire.MaxPayloads-1 {
			b = append(chain(typ, 0, body), b...)
		}
		return b
	}
	for name, tt := range map[string]struct {
		typ  wire.PayloadType
		body []byte
	}{
		"unknown selectors": {wire.PayloadTSi, append([]byte{255, 0, 0, 0}, bytes.Repeat([]byte{99, 0, 0, 4}, 255)...)},
		"attributes":        {wire.PayloadCP, make([]byte, 4+4*wire.MaxAttributes)},
		"delete":            {wire.PayloadDelete, append([]byte{3, 4, wire.MaxDeleteSPIs >> 8, 0}, make([]byte, 4*wire.MaxDeleteSPIs)...)},
		"proposals":         {wire.PayloadSA, append(bytes.Repeat([]byte{2, 0, 0, 8, 1, 1, 0, 0}, wire.MaxProposals-1), 0, 0, 0, 8, 1, 1, 0, 0)},
		"empty vendor IDs":  {wire.PayloadVendorID, nil},
		"empty notifies":    {wire.PayloadNotify, make([]byte, 4)},
	} {
		t.Run(name, func(t *testing.T) {
			b := fill(tt.typ, tt.body)
			checkCost(t, len(b), func() {
				if _, err := wire.ParsePayloads(tt.typ, b); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// Refusing costs one small allocation, whatever the message claims.
func TestRefusalIsCheap(t *testing.T) {
	for _, tt := range malformed {
		b := unhex(t, tt.msg)
		if n := testing.AllocsPerRun(20, func() { _, _ = wire.ParseMessage(b) }); n > 6 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
	}
}
