// Package demo shows a tunnel to a person: two gateways and two hosts, real
// packets, what an observer between the gateways sees, a rekey under traffic, a
// bit flipped on the wire. As root it builds network namespaces (root.go); without
// root it runs both gateways inside the process (rootless.go).
//
// It owns what is printed and nothing that a gateway needs. Start with Run.
package demo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Options of a demonstration.
type Options struct {
	Mode string // tunnel or transport
	Out  io.Writer
	Env  []string // for the gateways that the demonstration starts
	// Quick leaves the longer measurements out, for tests.
	Quick bool
}

// Run shows everything; what it made is gone when it returns, also on an error.
func Run(ctx context.Context, o Options) error {
	switch o.Mode {
	case "tunnel", "transport":
	default:
		return fmt.Errorf("mode %q: use tunnel or transport", o.Mode)
	}
	s := &screen{out: o.Out}
	if os.Geteuid() != 0 {
		return rootless(ctx, o, s)
	}
	return root(ctx, o, s)
}

// screen prints headings and lines.
type screen struct {
	out  io.Writer
	step int
}

func (s *screen) title(format string, a ...any) {
	s.step++
	fmt.Fprintf(s.out, "\n%d. %s\n", s.step, fmt.Sprintf(format, a...))
}

func (s *screen) say(format string, a ...any) { fmt.Fprintf(s.out, "   "+format+"\n", a...) }

// bar shows a transfer's progress on one line.
func (s *screen) bar(done, total int64, since time.Time) {
	const width = 40
	n := int(done * width / max(total, 1))
	fmt.Fprintf(s.out, "\r   [%s%s] %4d of %d MB  %s", strings.Repeat("#", n), strings.Repeat(".", width-n), done>>20, total>>20, rate(done, time.Since(since)))
}

func rate(bytes int64, took time.Duration) string {
	bits := float64(bytes) * 8 / max(took.Seconds(), 1e-9)
	if bits >= 1e9 {
		return fmt.Sprintf("%.2f Gbit/s", bits/1e9)
	}
	return fmt.Sprintf("%.0f Mbit/s", bits/1e6)
}

// columns prints packets side by side.
func (s *screen) columns(heads []string, cells [][]string) {
	const width = 38
	line := func(get func(i int) string) {
		var b strings.Builder
		for i := range heads {
			text := get(i)
			if len(text) > width {
				text = text[:width]
			}
			fmt.Fprintf(&b, "%-*s", width+2, text)
		}
		s.say("%s", strings.TrimRight(b.String(), " "))
	}
	line(func(i int) string { return heads[i] })
	line(func(int) string { return strings.Repeat("-", width) })
	for row := 0; ; row++ {
		more := false
		for _, c := range cells {
			more = more || row < len(c)
		}
		if !more {
			return
		}
		line(func(i int) string {
			if row < len(cells[i]) {
				return cells[i][row]
			}
			return ""
		})
	}
}

// dump is the hexadecimal form of the first bytes of a packet, with what is printable beside it.
func dump(b []byte, rows int) []string {
	var out []string
	for i := 0; i < rows && i*8 < len(b); i++ {
		part := b[i*8 : min(len(b), i*8+8)]
		text := make([]byte, len(part))
		for j, c := range part {
			if text[j] = '.'; c >= ' ' && c < 127 {
				text[j] = c
			}
		}
		out = append(out, fmt.Sprintf("%-24s %s", strings.ToLower(fmt.Sprintf("% x", part)), text))
	}
	return out
}

// secret makes a pre-shared key of 32 random bytes in swanctl.conf's form.
func secret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return "0x" + hex.EncodeToString(b)
}

// siteConf is one gateway's swanctl.conf.
func siteConf(local, remote, localID, remoteID, localTS, remoteTS, mode, start, key string) string {
	ts := ""
	if mode == "tunnel" {
		ts = fmt.Sprintf("\n        local_ts = %s\n        remote_ts = %s", localTS, remoteTS)
	}
	return fmt.Sprintf(`connections {
  demo {
    local_addrs = %s
    remote_addrs = %s
    proposals = aes256gcm16-prfsha384-x25519
    local  { auth = psk
             id = %s }
    remote { auth = psk
             id = %s }
    children {
      net {%s
        mode = %s
        esp_proposals = aes256gcm16-x25519
        start_action = %s
      }
    }
  }
}
secrets {
  ike-demo { secret = %s }
}
`, local, remote, localID, remoteID, ts, mode, start, key)
}
