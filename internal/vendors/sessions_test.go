package vendors_test

import (
	"crypto/tls"
	"encoding/hex"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/pki/pkitest"
	"adit/suite"
)

// Whole sessions of the clients that come with the operating systems: EAP-MSCHAPv2,
// configuration payloads, rekeys, roaming, sleep, reconnect, against the configurations
// of docs/peers.md. Sources beside those of the files by maker:
//
// Windows: logs of charon (the payloads of IKE_SA_INIT with four vendor IDs and no
// fragmentation before 1803; IKE_AUTH as IDi CERTREQ MOBIKE_SUPPORTED CP SA TSi TSr with
// the attributes ADDR DNS NBNS SRV ADDR6 DNS6 SRV6); MS-IKEE §2.2.11 and later
// (INTERNAL_IP4_SERVER 23456, INTERNAL_IP6_SERVER 23457). Its IDi is the address of the
// host's interface (strongSwan's documentation, interop/windowsClients).
//
// iOS and macOS: github.com/strongX509/docker issue 7 and other logs of charon: IKE_AUTH
// as IDi INITIAL_CONTACT IDr CP ESP_TFC_PADDING_NOT_SUPPORTED NON_FIRST_FRAGMENTS_ALSO SA
// TSi TSr MOBIKE_SUPPORTED; CP with ADDR MASK DHCP DNS ADDR6 DHCP6 DNS6 DOMAIN;
// REDIRECT_SUPPORTED in IKE_SA_INIT.
//
// Android: AOSP, VpnIkev2Utils (proposals; addresses and DNS servers of both families; an
// identifier without @ and colon is an FQDN, IDr what was dialled; MOBIKE is on,
// INITIAL_CONTACT not). Its first KE is modp4096 (hwdsl2/docker-ipsec-vpn-server issue 472).
//
// EAP-TLS with a user's certificate (not Android's own client: AOSP, VpnProfile has IKEv2
// with name and password, a shared key or RSA). Windows says the name in the certificate
// as its EAP identity, the userPrincipalName of the subjectAltName (learn.microsoft.com,
// "EapTlsUserPropertiesV1 Username Element"). Apple's IKEv2 has TLS up to 1.2
// (developer.apple.com, NEVPNIKEv2TLSVersion); the identity is the profile's AuthName.
const (
	windowsIP4Server wire.AttributeType = 23456
	windowsIP6Server wire.AttributeType = 23457

	androidNativeIKE = "aes256ctr-aes256-aes192ctr-aes192-aes128ctr-aes128-sha512-sha384-sha256-aesxcbc-aescmac-prfsha512-prfsha384-prfsha256-prfaesxcbc-prfaescmac-prfsha1-modp4096-x25519-modp3072-modp2048," +
		"chacha20poly1305-aes256gcm16-aes256gcm12-aes256gcm8-aes192gcm16-aes192gcm12-aes192gcm8-aes128gcm16-aes128gcm12-aes128gcm8-prfsha512-prfsha384-prfsha256-prfaesxcbc-prfaescmac-prfsha1-modp4096-x25519-modp3072-modp2048"
	androidNativeESP = "aes256-aes192-aes128-sha512-sha384-sha256,aes256gcm16-aes256gcm12-aes256gcm8-aes192gcm16-aes192gcm12-aes192gcm8-aes128gcm16-aes128gcm12-aes128gcm8"
)

// windowsVendors: MS NT5 ISAKMPOAKLEY with the version, MS-Negotiation Discovery Capable,
// Vid-Initial-Contact, and the one that MS-IKEE calls IKE Security Realm Id.
var windowsVendors = []string{"1e2b516905991c7d7c96fcbfb587e46100000009", "fb1de3cdf341b7ea16b7e5be0855f120", "26244d38eddb61b3172a36e3d0cfb819", "01528bbbc00696121849ab9a1c5b2a5100000002"}

// roamer is a native client and what its maker does in a session.
type roamer struct {
	section string // of docs/peers.md
	peer    *peer
	rekey   string        // the proposals of its Child SA rekeys; "": what was negotiated
	every   time.Duration // between them
	ike     string        // proposals of its IKE SA rekeys, after every second of the Child SA; "": none
	contact bool          // it says INITIAL_CONTACT
}

func anywhere(t *testing.T, p *peer) {
	p.local, p.remote = selectors(t, "0.0.0.0/0,::/0"), selectors(t, "0.0.0.0/0,::/0")
	p.serverKey = serverKey()
}

func nativeWindows(t *testing.T) roamer {
	p := windows(t)
	anywhere(t, p)
	p.id = ike.Identity{Type: uint8(wire.IDIPv4Addr), Data: "\xc0\xa8\x01\x17"}
	p.badHash = true // at home behind a router
	p.refuseRekey = func([]wire.Payload) *wire.Notify { return win32(13863) }
	p.native = &native{user: nativeUser, password: nativePassword,
		asks: []wire.AttributeType{wire.InternalIP4Address, wire.InternalIP4DNS, wire.InternalIP4NBNS, windowsIP4Server, wire.InternalIP6Address, wire.InternalIP6DNS, windowsIP6Server},
		order: func(idi, _ *wire.ID, cp *wire.CP, child []wire.Payload) []wire.Payload {
			return append([]wire.Payload{idi, &wire.CertReq{Encoding: wire.CertX509Signature, Authorities: random(20 * 25)}, notify(wire.MOBIKESupported, nil), cp}, child...)
		}}
	for _, v := range windowsVendors {
		b, err := hex.DecodeString(v)
		if err != nil {
			t.Fatal(err)
		}
		p.native.hello = append(p.native.hello, &wire.VendorID{Data: b})
	}
	return roamer{section: "Windows", peer: p, rekey: windowsESP, every: time.Hour}
}

func nativeApple(t *testing.T, ikeText, espText, rekey string) roamer {
	p := client(t, ikeText, espText)
	anywhere(t, p)
	p.fragments, p.firstNumber = 400, 1
	p.id = ike.Identity{Type: uint8(wire.IDFQDN), Data: "alice"}
	p.native = &native{user: nativeUser, password: nativePassword, hello: []wire.Payload{notify(wire.RedirectSupported, nil)},
		asks: []wire.AttributeType{wire.InternalIP4Address, wire.InternalIP4Netmask, wire.InternalIP4DHCP, wire.InternalIP4DNS, wire.InternalIP6Address, wire.InternalIP6DHCP, wire.InternalIP6DNS, wire.InternalDNSDomain},
		order: func(idi, idr *wire.ID, cp *wire.CP, child []wire.Payload) []wire.Payload {
			out := append([]wire.Payload{idi, notify(wire.InitialContact, nil), idr, cp, notify(wire.ESPTFCPaddingNotSupported, nil), notify(wire.NonFirstFragmentsAlso, nil)}, child...)
			return append(out, notify(wire.MOBIKESupported, nil))
		}}
	return roamer{section: "iOS and macOS", peer: p, rekey: rekey, every: appleChild, ike: macIKE, contact: true}
}

func nativeAndroid(t *testing.T) roamer {
	p := plain(t, "aes128-sha256-x25519", "aes128gcm16", "10.9.0.1/32", "0.0.0.0/0")
	p.ike, p.esp = split(t, suite.IKE, androidNativeIKE), split(t, suite.ESP, androidNativeESP)
	anywhere(t, p)
	p.fragments, p.hashes, p.deletesRefused = 1000, true, true
	p.id = ike.Identity{Type: uint8(wire.IDFQDN), Data: "phone"}
	p.native = &native{user: nativeUser, password: nativePassword,
		asks: []wire.AttributeType{wire.InternalIP4Address, wire.InternalIP6Address, wire.InternalIP4DNS, wire.InternalIP6DNS},
		order: func(idi, idr *wire.ID, cp *wire.CP, child []wire.Payload) []wire.Payload {
			return append(append([]wire.Payload{idi, idr}, child...), cp, notify(wire.MOBIKESupported, nil))
		}}
	return roamer{section: "Android", peer: p, every: androidChildSoft}
}

// world has the configuration of a section of docs/peers.md as it stands.
func (r roamer) world(t *testing.T, change ...func(p *ike.Peer)) *world {
	t.Helper()
	page, err := os.ReadFile("../../docs/peers.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## "+r.section+"\n")
	m := snippet.FindStringSubmatch(section)
	if m == nil {
		t.Fatal("the page has no configuration for ", r.section)
	}
	cfg := loadSnippet(t, m[1])
	for _, f := range change {
		f(cfg)
	}
	return newWorld(t, conn{ike: "default", esp: "default", change: func(p *ike.Peer) { *p = *cfg }}, r.peer)
}

func (r roamer) proposals(t *testing.T, s *ikeSA) []suite.Proposal {
	if r.rekey == "" {
		return []suite.Proposal{s.kids[0].sel.Proposal()}
	}
	return split(t, suite.ESP, r.rekey)
}

func natives(t *testing.T, f func(t *testing.T, r roamer)) {
	for _, x := range []struct {
		name string
		make func(t *testing.T) roamer
	}{
		{"Windows", nativeWindows},
		{"iOS", func(t *testing.T) roamer { return nativeApple(t, iosIKE, iosESP, iosRekey) }},
		{"macOS", func(t *testing.T) roamer { return nativeApple(t, macIKE, macESP, macRekey) }},
		{"Android", nativeAndroid},
	} {
		t.Run(x.name, func(t *testing.T) { f(t, x.make(t)) })
	}
}

// served demands that the client has an address, and its own alone.
func (w *world) served(addr string) {
	w.t.Helper()
	w.settled(1)
	s := w.p.first()
	if got := s.got(wire.InternalIP4Address); got.String() != addr || s.got(wire.InternalIP4DNS) != officeDNS {
		w.t.Errorf("CFG_REPLY gives %v and the DNS server %v", got, s.got(wire.InternalIP4DNS))
	}
	if !w.carries("10.1.0.5", addr) || w.carries("10.1.0.5", "10.9.0.77") {
		w.t.Errorf("the way to %s alone does not lead into the tunnel", addr)
	}
}

func TestNativeSession(t *testing.T) {
	natives(t, func(t *testing.T, r roamer) {
		w, p := r.world(t), r.peer
		w.connect()
		w.served("10.9.0.1")
		if len(w.talks) != 0 || len(w.wants) != 1 || len(w.wants[0]) != len(p.native.asks) {
			t.Errorf("%d conversations open; CFG_REQUEST as the pool sees it: %v", len(w.talks), w.wants)
		}
		for i := range 10 { // rekeys of the client
			w.advance(r.every)
			s := p.first()
			s.rekeyChild(s.kids[0], r.proposals(t, s))
			w.advance(10 * time.Second)
			if i%2 == 1 && r.ike != "" {
				p.first().rekeyIKE(split(t, suite.IKE, r.ike))
				w.advance(10 * time.Second)
			}
			w.settled(1)
		}
		if p.rekeys < 10 || w.downs+w.childDowns != 0 || len(w.used) != 1 {
			t.Errorf("%d rekeys, %d and %d downs, %d addresses in use, rejections %v", p.rekeys, w.downs, w.childDowns, len(w.used), w.rejections)
		}
		// Goodbye.
		p.first().deleteIKE()
		w.advance(time.Second)
		if st := w.e.Stats(); st.SAs != 0 || len(w.sas)+len(w.used)+len(w.talks) != 0 {
			t.Errorf("left: %+v, %d SAs, %d addresses", st, len(w.sas), len(w.used))
		}
	})
}

// From the office to the street and back, while the screen is dark in between.
func TestNativeRoamsAndSleeps(t *testing.T) {
	natives(t, func(t *testing.T, r roamer) {
		w, p := r.world(t), r.peer
		w.connect()
		w.settled(1)
		for _, to := range []string{"203.0.113.9", "198.51.100.77", "198.51.100.2"} {
			w.moved = nil
			a := netip.MustParseAddr(to)
			p.first().roam(a)
			w.advance(5 * time.Second)
			if len(w.moved) == 0 || w.moved[len(w.moved)-1].Update.Remote.Addr() != a {
				t.Fatalf("the Child SA did not follow to %s: %+v, notes %q", to, w.moved, w.notes)
			}
			p.asleep = true
			w.advance(5 * time.Minute)
			p.asleep = false
			answered := false
			p.first().probe(func() { answered = true })
			w.advance(time.Second)
			if !answered {
				t.Errorf("adit does not answer at %s after a short sleep", to)
			}
		}
		if w.downs+w.childDowns != 0 || w.ups != 1 {
			t.Errorf("%d ups, %d and %d downs", w.ups, w.downs, w.childDowns)
		}
		// Asleep for the night: adit gives up, and gives the address to nobody else.
		p.asleep = true
		w.advance(14 * time.Hour)
		if st := w.e.Stats(); st.SAs != 0 || len(w.sas)+len(w.used) != 0 {
			t.Errorf("of a client that is away is left: %+v, %d SAs, %d addresses", st, len(w.sas), len(w.used))
		}
		for _, s := range p.sas {
			s.gone = true
		}
		p.asleep = false
		w.connect()
		w.served("10.9.0.1")
	})
}

// It lost its battery and comes back while adit still has the old IKE SA: who says
// INITIAL_CONTACT is alone at once, the others in a few minutes with `unique = replace`.
func TestNativeComesBack(t *testing.T) {
	natives(t, func(t *testing.T, r roamer) { comesBack(t, r, ike.UniqueNo) })
	natives(t, func(t *testing.T, r roamer) { comesBack(t, r, ike.UniqueReplace) })
}

func comesBack(t *testing.T, r roamer, unique ike.UniquePolicy) {
	w, p := r.world(t, func(p *ike.Peer) { p.Unique = unique }), r.peer
	w.connect()
	w.settled(1)
	for _, s := range p.sas {
		s.gone = true
	}
	w.connect()
	n := 2
	switch {
	case r.contact:
		n = 1
	case unique == ike.UniqueReplace:
		n = 1
		w.advance(5 * time.Minute) // the Delete of the old one is repeated until adit gives up
	}
	if n == 1 {
		w.settled(1)
	}
	if st := w.e.Stats(); st.Established != n || len(w.used) != n {
		t.Errorf("%+v, %d addresses in use; %d are due", st, len(w.used), n)
	}
	if now := p.first().got(wire.InternalIP4Address); !w.carries("10.1.0.5", now.String()) {
		t.Errorf("what the client has now, %v, does not carry", now)
	}
}

// A user's certificate instead of a password, by EAP-TLS 1.2 in fragments; and one that is
// somebody else's, whose owner hears of it or goes without a word: the record says why.
func TestNativeCertificates(t *testing.T) {
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "Office CA", Key: pkitest.RSA2048})
	card := func(e *pkitest.Entity) tls.Certificate {
		return tls.Certificate{Certificate: [][]byte{e.Cert.DER(), ca.Cert.DER()}, PrivateKey: e.Key}
	}
	issue := func(name string) tls.Certificate {
		return card(ca.Issue(pkitest.Spec{Name: name, Emails: []string{name}, Key: pkitest.RSA2048}))
	}
	const upn = "alice@corp.example"
	server, alices, mallorys := issue("adit.example.org"), issue(upn), issue("mallory@corp.example")
	for _, forged := range []bool{false, true} {
		natives(t, func(t *testing.T, r roamer) {
			if r.section == "Android" {
				return
			}
			r.peer.native.user, r.peer.native.card = upn, &alices
			if forged {
				r.peer.native.card, r.peer.native.silent = &mallorys, r.section == "Windows"
			}
			w := r.world(t, func(p *ike.Peer) { p.Remote[0].EAP = ike.EAPTLS })
			w.cards = &cards{server: server, owners: map[string][]byte{upn: alices.Certificate[0]}}
			w.connect()
			w.advance(3 * time.Second) // a dozen round trips
			if !forged {
				w.served("10.9.0.1")
				return
			}
			w.advance(2 * time.Minute)
			if len(w.rejections) != 1 || !strings.Contains(w.rejections[0].Difference, "not the certificate of") {
				t.Errorf("rejections %v", w.rejections)
			}
			if st := w.e.Stats(); st.SAs != 0 || len(w.sas)+len(w.used)+len(w.talks) != 0 {
				t.Errorf("left: %+v, %d addresses, %d conversations", st, len(w.used), len(w.talks))
			}
		})
	}
}

// A wrong password: the record says so, and nothing is left.
func TestNativeWrongPassword(t *testing.T) {
	natives(t, func(t *testing.T, r roamer) {
		r.peer.native.password = "guessed"
		w := r.world(t)
		w.connect()
		w.advance(2 * time.Minute)
		if len(w.rejections) != 1 || w.rejections[0].Detail != ike.DetailEAP || !strings.Contains(w.rejections[0].Difference, "MSCHAPV2") {
			t.Errorf("rejections %v", w.rejections)
		}
		if st := w.e.Stats(); st.SAs != 0 || len(w.sas)+len(w.used)+len(w.talks) != 0 {
			t.Errorf("left: %+v, %d addresses, %d conversations", st, len(w.used), len(w.talks))
		}
	})
}
