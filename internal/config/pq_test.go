package config_test

import (
	"strings"
	"testing"
)

func TestPostQuantumOption(t *testing.T) {
	const hybrid = "aes128gcm16-prfsha256-curve25519-ke1_mlkem768"
	const classic = "aes128gcm16-prfsha256-curve25519"
	for _, c := range []struct{ pq, proposals, want, warns string }{
		{"", classic, classic, ""},
		{"prefer", classic, hybrid + " " + classic, ""},
		{"prefer", hybrid + ", " + classic, hybrid + " " + classic, ""},
		{"require", classic, hybrid, ""},
		{"require", "aes128gcm16-prfsha256-x25519-ke1_none-ke1_mlkem768", hybrid, ""},
		{"require", hybrid + ", " + classic, hybrid, ""},
		{"off", hybrid + ", " + classic, classic, ""},
		{"off", "aes128gcm16-prfsha256-mlkem768", "", "no proposal is left"},
		{"", "aes128gcm16-prfsha256-mlkem768", "aes128gcm16-prfsha256-mlkem768", "ML-KEM alone"},
		{"", "aes128gcm16-prfsha256-mlkem768-ke1_ecp384", "aes128gcm16-prfsha256-mlkem768-ke1_ecp384", ""},
		{"maybe", classic, "", "expected one of prefer, require, off"},
	} {
		text := "connections {\n gw {\n proposals = " + c.proposals + "\n"
		if c.pq != "" {
			text += " pq = " + c.pq + "\n"
		}
		text += " local {\n auth = psk\n }\n remote {\n auth = psk\n }\n children {\n net {\n }\n }\n }\n}\n"
		m, err := decode(t, text)
		if c.want == "" {
			if err == nil || !strings.Contains(err.Error(), c.warns) {
				t.Errorf("pq = %s, %s: %v", c.pq, c.proposals, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("pq = %s, %s: %v", c.pq, c.proposals, err)
			continue
		}
		var got []string
		for _, p := range m.Peers[0].Proposals {
			got = append(got, p.Keywords())
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("pq = %s, %s: %v, want %s", c.pq, c.proposals, got, c.want)
		}
		warned := strings.Join(m.Peers[0].Warnings, "\n")
		if (c.warns != "") != strings.Contains(warned, "ML-KEM") || !strings.Contains(warned, c.warns) {
			t.Errorf("pq = %s, %s: warns %q", c.pq, c.proposals, warned)
		}
	}
}
