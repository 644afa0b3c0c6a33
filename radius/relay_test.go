package radius_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"adit/radius"
)

var (
	identity  = []byte{2, 1, 0, 10, 1, 'c', 'a', 'r', 'o', 'l'}
	challenge = eapAttr(1, 2, 0, 6, 4, 0)
	answer    = []byte{2, 2, 0, 6, 4, 0}
	success   = eapAttr(3, 2, 0, 4)
	failure   = eapAttr(4, 2, 0, 4)
)

// conversation runs the relay against a server that answers the nth request with the
// nth of responses.
func conversation(t *testing.T, cfg radius.RelayConfig, first []byte, responses ...func(a *ask) []byte) (radius.Step, error) {
	t.Helper()
	srv := serve(t, func(a *ask) [][]byte {
		if a.n >= len(responses) {
			return nil
		}
		return [][]byte{responses[a.n](a)}
	})
	server := srv.config("aaa")
	server.Timeout = 5 * time.Second // a repetition would get the next response
	cfg.Client = newClient(t, server)
	r := radius.NewRelay(cfg)
	for eap := first; ; eap = answer {
		s, err := r.Next(context.Background(), eap)
		if err != nil || s.Done {
			if _, again := r.Next(context.Background(), answer); again != radius.ErrDone {
				t.Errorf("after the end: %v", again)
			}
			return s, err
		}
	}
}

func replies(t *testing.T, code radius.Code, attrs ...radius.Attribute) func(a *ask) []byte {
	return func(a *ask) []byte { return a.reply(t, code, attrs...) }
}

func TestRFC3579_2_RelayAccepts(t *testing.T) {
	msk := make([]byte, 64)
	for i := range msk {
		msk[i] = byte(i)
	}
	cfg := radius.RelayConfig{
		CalledStationID: "192.0.2.1[500]", CallingStationID: "192.0.2.2[4500]", NASIdentifier: "gw", NASPort: 7,
		NASPortID: "rw", NASAddress: netip.MustParseAddr("192.0.2.1"), SessionID: "123",
		Extra: []radius.Attribute{attr(radius.TypeConnectInfo, "IKEv2")},
	}
	state := func(a *ask, want ...string) {
		var got []string
		for _, v := range a.All(radius.TypeState) {
			got = append(got, string(v))
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("State %q, want %q", got, want)
		}
	}
	s, err := conversation(t, cfg, append(bytes.Clone(identity), "beyond the length"...),
		func(a *ask) []byte {
			state(a)
			var got []string
			for _, at := range a.Attributes {
				got = append(got, at.Type.String())
			}
			want := "Message-Authenticator User-Name NAS-IP-Address Service-Type NAS-Port-Type NAS-Port Framed-MTU NAS-Identifier " +
				"NAS-Port-Id Acct-Session-Id Called-Station-Id Calling-Station-Id Connect-Info EAP-Message"
			if strings.Join(got, " ") != want {
				t.Errorf("%q", got)
			}
			if eap, _ := a.EAP(); !bytes.Equal(eap, identity) {
				t.Errorf("EAP %x", eap)
			}
			return a.reply(t, radius.AccessChallenge, attr(radius.TypeState, "one"), challenge)
		},
		func(a *ask) []byte {
			state(a, "one")
			if name, _ := a.Get(radius.TypeUserName); string(name) != "carol" {
				t.Errorf("User-Name %q", name)
			}
			return a.reply(t, radius.AccessChallenge, attr(radius.TypeState, "two"), challenge)
		},
		func(a *ask) []byte {
			state(a, "two")
			return a.reply(t, radius.AccessChallenge, challenge)
		},
		func(a *ask) []byte {
			state(a)
			p := &radius.Packet{Code: radius.AccessAccept, Identifier: a.Identifier}
			p.Attributes = append(p.Attributes, success, attr(radius.TypeUserName, "carol@example.org"),
				attr(radius.TypeClass, "c1"), attr(radius.TypeClass, "c2"), attr(radius.TypeFilterID, "f"),
				attr(radius.TypeFramedIPAddress, "\x0a\x00\x00\x05"), attr(radius.TypeFramedPool, "pool"))
			p.AddUint32(radius.TypeSessionTimeout, 3600)
			p.AddUint32(radius.TypeIdleTimeout, 60)
			p.AddMSK(msk, &a.Authenticator, []byte(secret))
			b, err := radius.SealResponse(p, &a.Authenticator, []byte(secret))
			if err != nil {
				t.Error(err)
			}
			return b
		})
	if err != nil {
		t.Fatal(err)
	}
	if !s.Success || s.Reason != nil || !bytes.Equal(s.Out, success.Value) || !bytes.Equal(s.MSK, msk) || s.Keyless {
		t.Errorf("%+v", s)
	}
	if s.Identity != "carol" || s.UserName != "carol@example.org" || len(s.Class) != 2 || string(s.Class[1]) != "c2" ||
		s.FilterID[0] != "f" || s.Framed4.String() != "10.0.0.5" || s.FramedPool != "pool" || s.Server != "aaa" ||
		s.SessionTimeout != time.Hour || s.IdleTimeout != time.Minute || s.InterimInterval != 0 {
		t.Errorf("%+v", s)
	}
	for _, a := range s.Attributes {
		if a.Type == radius.TypeVendorSpecific {
			t.Error("key attributes are handed on")
		}
	}
}

func TestRelayRefusals(t *testing.T) {
	chal := replies(t, radius.AccessChallenge, challenge)
	badKey := func(a *ask) []byte {
		p := &radius.Packet{Code: radius.AccessAccept, Identifier: a.Identifier, Attributes: []radius.Attribute{success}}
		p.AddVendor(radius.VendorMicrosoft, radius.MSMPPESendKey, []byte("short"))
		p.AddVendor(radius.VendorMicrosoft, radius.MSMPPERecvKey, []byte("short"))
		b, _ := radius.SealResponse(p, &a.Authenticator, []byte(secret))
		return b
	}
	for _, c := range []struct {
		name   string
		reason error
		resp   []func(a *ask) []byte
	}{
		{"RFC3579_2_Reject", radius.ErrRejected, []func(*ask) []byte{chal, replies(t, radius.AccessReject, failure)}},
		{"RFC3579_2_RejectWithoutEAP", radius.ErrRejected, []func(*ask) []byte{replies(t, radius.AccessReject, attr(radius.TypeReplyMessage, "go \x1b[31maway"))}},
		{"RFC3579_2_6_3_RejectWithEAPSuccess", radius.ErrRejected, []func(*ask) []byte{chal, replies(t, radius.AccessReject, success)}},
		{"RFC3579_2_6_3_AcceptWithEAPFailure", radius.ErrContradicted, []func(*ask) []byte{chal, replies(t, radius.AccessAccept, failure)}},
		{"RFC3579_2_6_3_AcceptWithEAPRequest", radius.ErrContradicted, []func(*ask) []byte{chal, replies(t, radius.AccessAccept, challenge)}},
		{"AcceptWithEAPResponse", radius.ErrContradicted, []func(*ask) []byte{chal, replies(t, radius.AccessAccept, eapAttr(2, 2, 0, 4))}},
		{"AcceptWithEmptyEAP", radius.ErrContradicted, []func(*ask) []byte{chal, replies(t, radius.AccessAccept, eapAttr())}},
		{"AcceptWithLongEAPSuccess", radius.ErrContradicted, []func(*ask) []byte{chal, replies(t, radius.AccessAccept, eapAttr(3, 2, 0, 5, 0))}},
		{"EarlySuccess_AcceptAtOnce", radius.ErrEarlyAccept, []func(*ask) []byte{replies(t, radius.AccessAccept, success)}},
		{"EarlySuccess_AcceptAtOnceWithoutEAP", radius.ErrEarlyAccept, []func(*ask) []byte{replies(t, radius.AccessAccept)}},
		{"EarlySuccess_ChallengeWithEAPSuccess", radius.ErrServerEAP, []func(*ask) []byte{replies(t, radius.AccessChallenge, success)}},
		{"CodeSpoofing_ChallengeWithEAPResponse", radius.ErrServerEAP, []func(*ask) []byte{chal, replies(t, radius.AccessChallenge, eapAttr(2, 2, 0, 6, 4, 0))}},
		{"CodeSpoofing_ChallengeWithUnknownCode", radius.ErrServerEAP, []func(*ask) []byte{chal, replies(t, radius.AccessChallenge, eapAttr(5, 2, 0, 6, 4, 0))}},
		{"ChallengeWithEAPFailure", radius.ErrServerEAP, []func(*ask) []byte{chal, replies(t, radius.AccessChallenge, failure)}},
		{"ChallengeWithoutEAP", radius.ErrServerEAP, []func(*ask) []byte{replies(t, radius.AccessChallenge)}},
		{"ChallengeWithTruncatedEAP", radius.ErrServerEAP, []func(*ask) []byte{replies(t, radius.AccessChallenge, eapAttr(1, 2, 0, 7, 4, 0))}},
		{"ChallengeWithTrailingEAP", radius.ErrServerEAP, []func(*ask) []byte{replies(t, radius.AccessChallenge, eapAttr(1, 2, 0, 5, 4, 0))}},
		{"ChallengeWithoutEAPType", radius.ErrServerEAP, []func(*ask) []byte{replies(t, radius.AccessChallenge, eapAttr(1, 2, 0, 4))}},
		{"RFC2865_5_44_TwoStates", radius.ErrState, []func(*ask) []byte{replies(t, radius.AccessChallenge, challenge, attr(radius.TypeState, "a"), attr(radius.TypeState, "b"))}},
		{"RFC2548_2_4_BadKeys", radius.ErrKeys, []func(*ask) []byte{chal, badKey}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := conversation(t, radius.RelayConfig{}, identity, c.resp...)
			id := byte(2)
			if len(c.resp) == 1 {
				id = 1
			}
			if err != nil || s.Success || !errors.Is(s.Reason, c.reason) || !bytes.Equal(s.Out, []byte{4, id, 0, 4}) || s.MSK != nil {
				t.Errorf("%+v %v", s, err)
			}
			if strings.ContainsRune(s.Reason.Error(), 0x1b) {
				t.Error("the server's text is not quoted")
			}
		})
	}
}

func TestRFC3579_2_6_3_AcceptWithoutEAPMessage(t *testing.T) {
	s, err := conversation(t, radius.RelayConfig{}, identity, replies(t, radius.AccessChallenge, challenge), replies(t, radius.AccessAccept))
	if err != nil || !s.Success || !s.Keyless || s.MSK != nil || !bytes.Equal(s.Out, []byte{3, 2, 0, 4}) || s.UserName != "carol" {
		t.Errorf("%+v %v", s, err)
	}
}

func TestRFC3579_2_1_EAPStart(t *testing.T) {
	s, err := conversation(t, radius.RelayConfig{Identity: "carol"}, nil, func(a *ask) []byte {
		if eap, ok := a.EAP(); !ok || len(eap) != 0 {
			t.Errorf("%x", eap)
		}
		return a.reply(t, radius.AccessReject)
	})
	if err != nil || !errors.Is(s.Reason, radius.ErrRejected) {
		t.Error(s, err)
	}
}

func TestHostilePeer(t *testing.T) {
	srv := serve(t, func(a *ask) [][]byte { return [][]byte{a.reply(t, radius.AccessChallenge, challenge)} })
	cl := newClient(t, srv.config("s"))
	r := radius.NewRelay(radius.RelayConfig{Client: cl})
	long := append([]byte{2, 1, 0x0b, 0xb9, 1}, make([]byte, 2996)...)
	for _, bad := range [][]byte{{2}, {2, 1, 0, 4}, {2, 1, 0, 4, 1}, {2, 1, 0, 9, 1}, {1, 1, 0, 5, 1}, {3, 1, 0, 4, 1}, {4, 1, 0, 4, 1}, {7, 1, 0, 5, 1}, long} {
		if _, err := r.Next(context.Background(), bad); err != radius.ErrPeerEAP {
			t.Errorf("%.8x: %v", bad, err)
		}
	}
	if n := srv.seen.Load(); n != 0 {
		t.Errorf("the server saw %d of them", n)
	}
	if _, err := r.Next(context.Background(), identity); err != nil {
		t.Error("after them:", err)
	}
	if _, err := r.Next(context.Background(), nil); err != radius.ErrPeerEAP {
		t.Error("EAP-Start in the middle:", err)
	}
	for _, id := range [][]byte{{2, 1, 0, 5, 1}, append([]byte{2, 1, 1, 3, 1}, make([]byte, 254)...)} {
		if _, err := radius.NewRelay(radius.RelayConfig{Client: cl}).Next(context.Background(), id); err != radius.ErrNoIdentity {
			t.Errorf("identity of %d octets: %v", len(id)-5, err)
		}
	}
	r = radius.NewRelay(radius.RelayConfig{Client: cl})
	var err error
	n := 0
	for eap := identity; err == nil; n++ {
		_, err = r.Next(context.Background(), eap)
		eap = answer
	}
	if err != radius.ErrRounds || n != radius.MaxRounds+1 {
		t.Errorf("%v after %d", err, n)
	}
}

func TestConversationStaysWithItsServer(t *testing.T) {
	first := true
	a := serve(t, func(a *ask) [][]byte { return nil })
	b := serve(t, func(a *ask) [][]byte {
		if first {
			first = false
			return [][]byte{a.reply(t, radius.AccessChallenge, challenge, attr(radius.TypeState, "b"))}
		}
		return nil
	})
	ca, cb := a.config("a"), b.config("b")
	ca.Preference, ca.Tries, cb.Tries = 1, 1, 2
	r := radius.NewRelay(radius.RelayConfig{Client: newClient(t, ca, cb)})
	if s, err := r.Next(context.Background(), identity); err != nil || s.Server != "b" {
		t.Fatal(s, err)
	}
	if _, err := r.Next(context.Background(), answer); !errors.Is(err, radius.ErrNoAnswer) {
		t.Error(err)
	}
	if n := a.seen.Load(); n != 1 {
		t.Errorf("the other server saw %d requests", n)
	}
	if !bytes.Equal(r.Failure(), []byte{4, 2, 0, 4}) {
		t.Errorf("%x", r.Failure())
	}
}
