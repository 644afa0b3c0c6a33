package peer

import "testing"

func TestParseSAs(t *testing.T) {
	text := `list-sa event {
  gw {
    uniqueid = 1
    state = ESTABLISHED
    initiator = yes
    remote-id = C=CH, O=a = b, CN=r
    encr-alg = AES_GCM_16
    encr-keysize = 256
    child-sas {
      net-7 {
        name = net
        state = INSTALLED
        spi-in = c0000001
        encap = yes
        bytes-in = 84
        esn = 1
        local-ts = [
          10.1.0.0/24
          fd01::/64
        ]
      }
    }
  }
}
list-sa event {
  other {
    state = CONNECTING
    child-sas {
    }
  }
}
list-sas reply {
}
`
	sas, err := ParseSAs(text)
	if err != nil || len(sas) != 2 {
		t.Fatalf("%+v %v", sas, err)
	}
	if s := sas[0]; s.Name != "gw" || !s.Initiator || s.RemoteID != "C=CH, O=a = b, CN=r" || s.Encryption != "AES_GCM_16-256" {
		t.Errorf("%+v", s)
	}
	cs := Installed(sas, "net")
	if len(cs) != 1 || cs[0].SPIIn != "c0000001" || cs[0].BytesIn != 84 || !cs[0].Encap || !cs[0].ESN || len(cs[0].LocalTS) != 2 || cs[0].LocalTS[1] != "fd01::/64" {
		t.Errorf("%+v", cs)
	}
	if e := Established(sas, "gw"); len(e) != 1 {
		t.Errorf("%+v", e)
	}
	if e := Established(sas, "other"); len(e) != 0 {
		t.Errorf("%+v", e)
	}
	for _, bad := range []string{"}", "a {", "what"} {
		if _, err := ParseSAs(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
