package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

func dig(m map[string]any, keys ...string) any {
	for _, k := range keys[:len(keys)-1] {
		m, _ = m[k].(map[string]any)
	}
	if v := m[keys[len(keys)-1]]; v != nil {
		return v
	}
	return "?"
}

func words(v any) string {
	list, _ := v.([]string)
	return strings.Join(list, " ")
}

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }

func text(m map[string]any, key string) string {
	s, _ := m[key].(string)
	return s
}

func count(m map[string]any, key string) uint64 {
	n, _ := strconv.ParseUint(text(m, key), 10, 64)
	return n
}

// span reads a number of seconds; -1 where there is none.
func span(m map[string]any, key string) time.Duration {
	n, err := strconv.ParseInt(text(m, key), 10, 64)
	if err != nil {
		return -1
	}
	return time.Duration(max(n, 0)) * time.Second
}

// suiteOf joins the algorithms of an SA as strongSwan writes proposals.
func suiteOf(m map[string]any) string {
	encr := text(m, "encr-alg")
	if size := text(m, "encr-keysize"); size != "" {
		encr += "-" + size
	}
	list := []string{encr, text(m, "integ-alg"), text(m, "prf-alg"), text(m, "dh-group")}
	for n := '1'; n <= '7'; n++ { // RFC 9370
		if ke := text(m, "ake"+string(n)); ke != "" {
			list = append(list, "KE"+string(n)+"_"+ke)
		}
	}
	var parts []string
	for _, p := range list {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "/")
}

// short prints a span in its two largest units: 45s, 3m20s, 2h5m, 3d4h.
func short(d time.Duration) string {
	s := int64(d / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%dh", s/86400, s/3600%24)
}

// amount prints bytes with a binary unit.
func amount(n uint64) string {
	v, unit := float64(n), 0
	for v >= 1000 && unit < 4 {
		v, unit = v/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.3g %s", v, []string{"B", "KiB", "MiB", "GiB", "TiB"}[unit])
}

// speed prints bytes a second as bits a second, in brackets; nothing if it wasn't measured.
func speed(bytes float64) string {
	if bytes < 0 {
		return ""
	}
	return " (" + bits(bytes) + ")"
}

func bits(bytes float64) string {
	v, unit := bytes*8, 0
	for v >= 1000 && unit < 4 {
		v, unit = v/1000, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%.0f bit/s", v)
	}
	return fmt.Sprintf("%.3g %s", v, []string{"", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"}[unit])
}

// clip makes a line fit, by leaving out its middle: both ends of names tell most.
func clip(line string, width int) string {
	n := utf8.RuneCountInString(line)
	if n <= width {
		return line
	}
	r := []rune(line)
	head := (width - 1) * 2 / 3
	return string(r[:head]) + "…" + string(r[n-(width-1-head):])
}

// wrapped breaks a line at spaces; what follows the first line gets the indent. A
// word longer than a line stays whole. It ends in a newline.
func wrapped(line, indent string) string {
	var b strings.Builder
	rest := line
	for utf8.RuneCountInString(rest) > columns {
		at := strings.LastIndexByte(string([]rune(rest)[:columns+1]), ' ')
		if at <= len(rest)-len(strings.TrimLeft(rest, " ")) {
			if at = strings.IndexByte(strings.TrimLeft(rest, " "), ' '); at < 0 {
				break
			}
			at += len(rest) - len(strings.TrimLeft(rest, " "))
		}
		b.WriteString(rest[:at] + "\n")
		rest = indent + strings.TrimLeft(rest[at:], " ")
	}
	return b.String() + rest + "\n"
}
