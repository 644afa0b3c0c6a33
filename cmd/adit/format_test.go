package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m1s", 2*time.Hour + 5*time.Minute: "2h5m", 76 * time.Hour: "3d4h"} {
		if got := short(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 999: "999 B", 1536: "1.5 KiB", 123 << 20: "123 MiB", 1 << 60: "1.05e+06 TiB"} {
		if got := amount(n); got != want {
			t.Errorf("%d bytes: %q, want %q", n, got, want)
		}
	}
	for n, want := range map[float64]string{0: "0 bit/s", 12: "96 bit/s", 1e6: "8 Mbit/s", 1.5e9: "12 Gbit/s"} {
		if got := bits(n); got != want {
			t.Errorf("%v bytes/s: %q, want %q", n, got, want)
		}
	}
}

func TestClipAndWrap(t *testing.T) {
	long := strings.Repeat("ä", 100)
	if got := clip(long, 40); utf8.RuneCountInString(got) != 40 || !strings.Contains(got, "…") {
		t.Errorf("%q", got)
	}
	if got := clip("short", 40); got != "short" {
		t.Errorf("%q", got)
	}
	text := "    " + strings.Repeat("10.11.12.0/24 ", 20)
	for i, l := range strings.Split(strings.TrimSuffix(wrapped(text, "      "), "\n"), "\n") {
		if utf8.RuneCountInString(l) > columns || i > 0 && !strings.HasPrefix(l, "      1") {
			t.Errorf("line %d: %q", i, l)
		}
	}
	// A word that is longer than a line must not hang.
	if got := wrapped("  "+strings.Repeat("x", 200)+" y", " "); !strings.HasSuffix(got, "\n y\n") {
		t.Errorf("%q", got)
	}
}

// A status with the longest names that there are fits 80 columns.
func TestStatusFitsColumns(t *testing.T) {
	name := strings.Repeat("site-to-site-", 6)
	dn := "C=CH, O=" + strings.Repeat("organisation ", 8) + ", CN=gateway"
	list := func(n int) (out []string) {
		for range n {
			out = append(out, "2001:db8:1234:5678::/64[tcp/1024-65535]")
		}
		return out
	}
	sa := map[string]any{"name": name, "uniqueid": "4294967295", "version": "2", "state": "ESTABLISHED", "local-id": dn, "local-host": "2001:db8::1", "local-port": "4500",
		"remote-id": dn, "remote-host": "2001:db8::2", "remote-port": "65535", "encr-alg": "AES_CBC", "encr-keysize": "256", "integ-alg": "HMAC_SHA2_512_256", "prf-alg": "PRF_HMAC_SHA2_512", "dh-group": "MODP_8192",
		"established": "123456", "rekey-time": "12345", "reauth-time": "-5", "remote-vips": list(3),
		"child-sas": map[string]any{"c-1": map[string]any{"name": name, "uniqueid": "1", "state": "INSTALLED", "mode": "TUNNEL", "encap": "yes", "local-ts": list(3), "remote-ts": list(2),
			"bytes-in": "1000", "bytes-out": "123456789012345", "install-time": "100", "rekey-time": "3000"}}}
	st := func(in string, at time.Time) *view {
		sa["child-sas"].(map[string]any)["c-1"].(map[string]any)["bytes-in"] = in
		return viewOf(&status{Daemon: map[string]any{"version": "1"}, Stats: map[string]any{"drops": map[string]any{"replay": "12", "no-policy": "0"}}, SAs: []map[string]any{sa}, at: at,
			Connections: []map[string]any{{"name": "other", "children": map[string]any{"net": map[string]any{"mode": "TUNNEL", "local-ts": list(4), "remote-ts": list(4)}}}}})
	}
	now := time.Now()
	before := st("1000", now)
	v := st("126000", now.Add(time.Second))
	v.rate(before)
	var out bytes.Buffer
	v.print(&out)
	for l := range strings.Lines(out.String()) {
		if utf8.RuneCountInString(strings.TrimSuffix(l, "\n")) > columns {
			t.Errorf("too long: %q", l)
		}
	}
	for _, want := range []string{"dropped: replay 12 ", "up 1d10h", "rekey in 3h25m", "in 123 KiB (1 Mbit/s), out 112 TiB (0 bit/s)", "rekey in 50m0s", "other/net down TUNNEL"} {
		if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), want) { // wherever lines break
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	tp := top{sort: "rate"}
	for _, l := range tp.picture(v, 0) {
		if utf8.RuneCountInString(l) > columns {
			t.Errorf("too long: %q", l)
		}
	}
	if lines := tp.picture(v, 4); len(lines) != 4 || !strings.HasPrefix(lines[3], "… 3 more") {
		t.Errorf("%q", lines)
	}
	if !v.only("net") || len(v.sas) != 0 || len(v.idle) != 1 {
		t.Errorf("%+v", v)
	}
}

func TestSteps(t *testing.T) {
	for msg, want := range map[string]string{
		"sent IKE_SA_INIT request 0 [ SA KE(31) ] from 192.0.2.1:500 to 192.0.2.2:500 (484 bytes)":  "IKE_SA_INIT sent to 192.0.2.2:500, waiting for the answer",
		"retransmission 2 of IKE_AUTH request 1 [ IDi ]":                                            "IKE_AUTH sent again (2), no answer yet",
		"received IKE_SA_INIT response 0 [ SA KE ] from 192.0.2.2:500 to 192.0.2.1:500 (300 bytes)": "IKE_SA_INIT received from 192.0.2.2:500",
		"something else entirely": "something else entirely",
	} {
		if got := stepOf(msg); got != want {
			t.Errorf("%q: %q, want %q", msg, got, want)
		}
	}
	var out bytes.Buffer
	p := newProgress(&out, "net", false)
	_ = p.line("IKE", "hello")
	p.end()
	if out.String() != "[IKE] hello\n" {
		t.Errorf("%q", &out)
	}
}
