package vendors_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// Windows 10 and 11, the built-in client. Sources: strongSwan's documentation,
// interop/windowsClients (proposals; "Rekeying Behavior": it rekeys Child SAs after
// about 200 MiB; behind a NAT it answers a rekey by the server with notify 12345 and
// 13863; to a key exchange that it does not expect with 13816, also if `none` is among
// the proposals; IKE SA rekeys must begin with modp2048; no IDr; fragments since
// version 1803) and interop/microsoftStatusNotify (the notify's form); error codes:
// learn.microsoft.com, "System Error Codes (12000-15999)".
//
// The script of this file proves itself by a shared key where Windows has EAP or a
// certificate: what differs here is not how the client authenticates. Whole sessions with
// EAP are in sessions_test.go.
const (
	windowsIKE   = "aes256-sha1-sha256-sha384-modp2048" // NegotiateDH2048_AES256 = 2
	windowsESP   = "aes256-aes128-3des-des-null-sha1"
	windowsBytes = 200 << 20
	msStatus     = wire.NotifyType(12345)
	// IKE_AUTH of a client with certificates is longer than a packet; the script's is
	// not, so it cuts smaller pieces.
	windowsFragment = 100
)

func win32(code uint32) *wire.Notify {
	return notify(msStatus, binary.BigEndian.AppendUint32(nil, code))
}

var serverKey = sync(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func sync[T any](f func() T) func() T {
	var v T
	made := false
	return func() T {
		if !made {
			v, made = f(), true
		}
		return v
	}
}

// client is a remote client; adit proves itself by RSA.
func client(t *testing.T, ikeText, espText string) *peer {
	p := &peer{ike: split(t, suite.IKE, ikeText), esp: split(t, suite.ESP, espText), local: selectors(t, "10.9.0.1/32"), remote: selectors(t, "0.0.0.0/0")}
	p.serverKey = serverKey()
	return p
}

func windows(t *testing.T) *peer {
	p := client(t, windowsIKE, windowsESP)
	p.noIDr, p.certRequest, p.habits.fragments = true, true, windowsFragment
	return p
}

// server is the connection for clients.
func server(ikeText, espText string, change func(p *ike.Peer)) conn {
	return conn{ike: ikeText, esp: espText, children: []string{"net 0.0.0.0/0 === 10.9.0.0/16"}, change: func(p *ike.Peer) {
		p.Local[0].Method, p.Local[0].Certs = ike.AuthPubkey, [][]byte{{1}}
		p.RekeyTime = 4 * time.Hour
		p.Children[0].RekeyTime, p.Children[0].LifeTime = time.Hour, 66*time.Minute
		if change != nil {
			change(p)
		}
	}, engine: func(c *ike.Config) { c.FragmentSize = 576 }}
}

func (w *world) connect() *peer {
	w.p.initiate()
	w.advance(2 * time.Second)
	return w.p
}

func TestWindowsConnects(t *testing.T) {
	p := windows(t)
	w := newWorld(t, server("aes256-sha256-modp2048", "aes256-sha1", nil), p)
	w.connect()
	w.settled(1)
	if !p.first().fragments || w.largest > 576-28 {
		t.Errorf("fragments: %v, largest message of %d bytes", p.first().fragments, w.largest)
	}
	if len(w.signed) != 1 || !w.signed[0].Requested {
		t.Errorf("asked for signatures: %+v", w.signed)
	}
}

// It rekeys the Child SA after 200 MiB, without a key exchange, again and again.
func TestWindowsRekeysByVolume(t *testing.T) {
	p := windows(t)
	w := newWorld(t, server("aes256-sha256-modp2048", "aes256-sha1", func(p *ike.Peer) { p.Children[0].RekeyTime, p.Children[0].LifeTime = 0, 0 }), p)
	w.connect()
	for range 20 { // 4 GiB
		w.use.Bytes += windowsBytes
		p.first().rekeyChild(p.children()[0], p.esp)
		w.advance(20 * time.Second)
		w.settled(1)
	}
	if p.rekeys != 20 || p.kes != 0 || w.childDowns != 0 {
		t.Errorf("%d rekeys, %d downs", p.rekeys, w.childDowns)
	}
	// PFS that is not optional: the record names the option.
	p = windows(t)
	w = newWorld(t, server("aes256-sha256-modp2048", "aes256-sha1-modp2048", nil), p)
	w.connect()
	w.settled(1)
	p.first().rekeyChild(p.children()[0], p.esp)
	w.advance(time.Second)
	if len(w.rejections) != 1 || w.rejections[0].Detail != ike.DetailGroup || !strings.Contains(strings.Join(w.rejections[0].Options, " "), "esp_proposals") {
		t.Errorf("rejections %v", w.rejections)
	}
}

// noKE answers as a client without -PfsGroup does.
func noKE(list []wire.Payload) *wire.Notify {
	saP, _ := wire.First[*wire.SA](list)
	for _, x := range saP.Proposals {
		for _, tr := range x.Transforms {
			if tr.Type == wire.TransformTypeKE {
				return win32(13816)
			}
		}
	}
	return nil
}

// The server rekeys first: without a key exchange where the configuration lets it.
func TestWindowsServerRekeys(t *testing.T) {
	for _, tt := range []struct {
		esp  string
		good bool
	}{{"aes256-sha1", true}, {"aes256-sha1-modp2048-none", true}, {"aes256-sha1-modp2048", false}} {
		t.Run(tt.esp, func(t *testing.T) {
			p := windows(t)
			p.refuseRekey = noKE
			w := newWorld(t, server("aes256-sha256-modp2048", tt.esp, nil), p)
			w.connect()
			if tt.good {
				w.advance(10 * time.Hour)
				w.settledSoon(1)
				if p.rekeys < 10 || w.childDowns != 0 || len(w.rejections) != 0 || p.kes > 1 {
					t.Errorf("%d rekeys, %d downs, %d key exchanges offered, rejections %v", p.rekeys, w.childDowns, p.kes, w.rejections)
				}
				return
			}
			w.advance(time.Hour + time.Second)
			w.settled(1)
			if len(w.rejections) == 0 || w.rejections[0].Notify != "MS_STATUS(13816)" || len(w.rejections[0].Options) == 0 || w.rejections[0].Options[0] != "connections.gw.children.net.esp_proposals" {
				t.Fatalf("rejections %v", w.rejections)
			}
		})
	}
}

// Behind a NAT it takes no rekey by the server at all: one record that names
// rekey_time, no siege. With rekey_time = 0 the client does it.
func TestWindowsBehindNAT(t *testing.T) {
	p := windows(t)
	p.badHash = true // what a NAT makes of the source
	p.refuseRekey = func([]wire.Payload) *wire.Notify { return win32(13863) }
	w := newWorld(t, server("aes256-sha256-modp2048", "aes256-sha1", func(p *ike.Peer) { p.Children[0].LifeTime = 0 }), p)
	w.connect()
	w.advance(2 * time.Hour)
	w.settled(1)
	if len(w.rejections) != 1 || len(w.rejections[0].Options) != 1 || w.rejections[0].Options[0] != "connections.gw.children.net.rekey_time" {
		t.Errorf("rejections %v", w.rejections)
	}
	p.first().rekeyChild(p.children()[0], p.esp)
	w.advance(10 * time.Second)
	w.settled(1)
}

// An IKE SA rekey by the server has to begin with modp2048, whatever comes first here.
func TestWindowsIKERekey(t *testing.T) {
	p := windows(t)
	p.refuseIKERekey = func(list []wire.Payload) *wire.Notify {
		if ke, _ := wire.First[*wire.KE](list); suite.TransformID(ke.Group) != suite.KEMODP2048 {
			return win32(13868)
		}
		return nil
	}
	w := newWorld(t, server("aes256-sha256-x25519-ecp384-modp2048", "aes256-sha1", nil), p)
	w.connect()
	w.advance(13 * time.Hour)
	w.settledSoon(1)
	if st := w.e.Stats(); st.RekeysIKE < 3 || len(w.rejections) != 0 {
		t.Errorf("%d rekeys of the IKE SA, rejections %v", st.RekeysIKE, w.rejections)
	}
}

// An error of Windows is told in words.
func TestWindowsErrorCodes(t *testing.T) {
	p := windows(t)
	w := newWorld(t, server("aes256-sha256-modp2048", "aes256-sha1", nil), p)
	w.connect()
	s := p.first()
	s.ask(&exchange{wire.ExchangeInformational, func() []wire.Payload {
		return []wire.Payload{win32(13801), &wire.Delete{Protocol: wire.ProtocolIKE}}
	}, func([]wire.Payload) { s.gone = true }})
	w.advance(time.Second)
	if len(w.rejections) != 1 || w.rejections[0].Notify != "MS_STATUS(13801)" || !strings.Contains(w.rejections[0].Difference, "unacceptable") {
		t.Errorf("rejections %v", w.rejections)
	}
	if st := w.e.Stats(); st.SAs != 0 || len(w.sas) != 0 {
		t.Errorf("left: %+v", st)
	}
}
