package gateway_test

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/internal/config"
	"adit/internal/gateway"
	"adit/pki/pkitest"
)

// shapes are the forms in which code shows octets by mistake.
func shapes(secret []byte) []string {
	list := strings.Trim(fmt.Sprint(secret), "[]")
	return []string{string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)),
		strings.TrimRight(base64.StdEncoding.EncodeToString(secret), "="), strings.TrimRight(base64.URLEncoding.EncodeToString(secret), "="),
		list, strings.ReplaceAll(list, " ", ", "), strings.Trim(fmt.Sprintf("%q", secret), `"`)}
}

// keyLike finds what has the length of a key whoever it belongs to: SK_*, MSK and
// shared secrets, which no test has in its hands.
var keyLike = regexp.MustCompile(`[0-9a-fA-F]{24,}|[A-Za-z0-9+/_-]{43,}|[0-9]{1,3}(,? [0-9]{1,3}){15,}|(0x[0-9a-f]{1,2}, ){15,}`)

// leaks are the secrets that a text shows.
func leaks(text string, secrets map[string][]byte) (found []string) {
	for name, s := range secrets {
		if slices.ContainsFunc(shapes(s), func(shape string) bool { return strings.Contains(text, shape) }) {
			found = append(found, name)
		}
	}
	for _, x := range keyLike.FindAllString(text, -1) {
		if strings.ToUpper(x) == x && strings.Contains(x, "_") {
			continue // names of algorithms
		}
		found = append(found, "something like a key: "+x)
	}
	return found
}

// lockedBuffer is a log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// No secret is in a log at its most talkative, nor in an event, whether
// authentication succeeds or fails: pre-shared keys, passwords of EAP, private keys,
// and whatever has the form of a key.
func TestSecretsNeverInALog(t *testing.T) {
	const psk, password, guess = "the-psk-of-left-and-right", "alices-password-in-EAP", "a-guess-of-bobs-password"
	bubble(t, func(t *testing.T) {
		var log lockedBuffer
		var keys [][]byte
		var mu sync.Mutex
		talkative := func(o *gateway.Options) {
			o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug - 8}))
		}
		l := newLab(t)
		left, right := l.end("left", leftAddr, talkative), l.end("right", rightAddr, talkative, func(o *gateway.Options) {
			o.KeyLog = func(k ike.ExportKeys) { // is for files, not for the log
				mu.Lock()
				defer mu.Unlock()
				if k.IKE != nil {
					keys = append(keys, slices.Clone(k.IKE.SKei), slices.Clone(k.IKE.SKer))
				} else {
					keys = append(keys, slices.Clone(k.Child.EncKey))
				}
			}
		})
		defer right.gw.Shutdown()
		defer left.gw.Shutdown()
		ca := pkitest.NewCA(t, pkitest.Spec{Name: "CA"})
		gw := ca.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}})
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(left.gw.LoadCert(config.Cert{Kind: config.CertX509, Flag: "CA", DER: ca.Cert.DER()}))
		must(right.gw.LoadCert(config.Cert{Kind: config.CertX509, Flag: "CA", DER: ca.Cert.DER()}))
		must(right.gw.LoadCert(config.Cert{Kind: config.CertX509, Flag: "NONE", DER: gw.Cert.DER()}))
		must(right.gw.LoadKey(config.Key{Signer: gw.Key}))

		child := func(n int, left bool) string {
			a, b := fmt.Sprintf("10.1.%d.0/24", n), fmt.Sprintf("10.2.%d.0/24", n)
			if !left {
				a, b = b, a
			}
			return fmt.Sprintf("children { net%d { local_ts = %s\n remote_ts = %s\n } }", n, a, b)
		}
		conn := func(name, mine, other, local, remote, children string) string {
			return fmt.Sprintf("%s { local_addrs = %s\n remote_addrs = %s\n local { %s }\n remote { %s }\n %s\n}\n", name, mine, other,
				strings.ReplaceAll(local, ";", "\n"), strings.ReplaceAll(remote, ";", "\n"), children)
		}
		load := func(e *end, conns, secrets string) {
			t.Helper()
			root, err := conf.ParseBytes("t.conf", []byte("connections {\n"+conns+"}\nsecrets {\n"+secrets+"}\n"))
			must(err)
			daemon, err := config.LoadDaemon("")
			must(err)
			m, err := config.Decode(root, daemon)
			must(err)
			must(e.gw.Load(m))
			e.settle()
		}
		load(left, conn("psk", leftAddr, rightAddr, "auth = psk; id = left.psk", "auth = psk; id = right.psk", child(1, true))+
			conn("eap", leftAddr, rightAddr, "auth = eap-mschapv2; id = client.example; eap_id = alice", "auth = pubkey; id = gw.example", child(2, true))+
			conn("badpsk", leftAddr, rightAddr, "auth = psk; id = other.psk", "auth = psk; id = right.psk", child(3, true))+
			conn("badeap", leftAddr, rightAddr, "auth = eap-mschapv2; id = other.example; eap_id = bob", "auth = pubkey; id = gw.example", child(4, true)),
			"ike-1 { id-1 = left.psk\n secret = "+psk+"\n }\n ike-2 { id-1 = other.psk\n secret = not-"+psk+"\n }\n"+
				"eap-1 { id = alice\n secret = "+password+"\n }\n eap-2 { id = bob\n secret = "+guess+"\n }\n")
		load(right, conn("psk", rightAddr, leftAddr, "auth = psk; id = right.psk", "auth = psk; id = *.psk", child(1, false))+
			conn("eap", rightAddr, leftAddr, "auth = pubkey; id = gw.example", "auth = eap-mschapv2; id = *.example; eap_id = %any", child(2, false)),
			"ike { secret = "+psk+"\n }\n eap-1 { id = alice\n secret = "+password+"\n }\n eap-2 { id = bob\n secret = "+password+"\n }\n")
		for i, name := range []string{"psk", "eap"} {
			must(left.gw.Initiate(within(time.Minute), name, fmt.Sprintf("net%d", i+1)))
		}
		left.settle()
		if n, err := left.gw.Rekey(within(time.Minute), ike.Rekey{IKE: "eap"}); n != 1 || err != nil {
			t.Error(n, err)
		}
		for _, name := range []string{"badpsk", "badeap"} {
			if err := left.gw.Initiate(within(time.Minute), name, ""); err == nil {
				t.Errorf("%s: up", name)
			} else if found := leaks(err.Error(), nil); found != nil {
				t.Errorf("%s: %v", name, found)
			}
		}
		right.settle()

		scalar, err := gw.Key.(*ecdsa.PrivateKey).Bytes()
		must(err)
		secrets := map[string][]byte{"PSK": []byte(psk), "EAP password": []byte(password), "guess": []byte(guess),
			"private key": scalar, "PKCS#8": gw.KeyDER()}
		mu.Lock()
		for i, k := range keys {
			secrets[fmt.Sprint("SK ", i)] = k
		}
		if len(keys) < 6 {
			t.Errorf("%d keys were exported", len(keys))
		}
		mu.Unlock()
		text := log.String()
		for _, want := range []string{"established between", "is up", "refused", "IKE_AUTH", "EAP"} {
			if !strings.Contains(text, want) {
				t.Errorf("the log has no %q, it is not at its most talkative:\n%s", want, text)
			}
		}
		if found := leaks(text, secrets); found != nil {
			t.Errorf("the log shows %q:\n%s", found, text)
		}
		for _, e := range []*end{left, right} {
			e.mu.Lock()
			for _, ev := range e.events {
				if found := leaks(fmt.Sprintf("%+v", ev), secrets); found != nil {
					t.Errorf("%T shows %q", ev, found)
				}
			}
			e.mu.Unlock()
		}
		// What looks for leaks finds them.
		for name, s := range secrets {
			for _, shape := range shapes(s) {
				if !slices.Contains(leaks("key="+shape+" ", secrets), name) {
					t.Errorf("%s as %q is not found", name, shape)
				}
			}
		}
		msk := make([]byte, 64)
		for _, shown := range []string{fmt.Sprint(msk), fmt.Sprintf("%x", msk), fmt.Sprintf("%#v", msk), base64.StdEncoding.EncodeToString(msk)} {
			if leaks(shown, nil) == nil {
				t.Errorf("an MSK as %q is not found", shown)
			}
		}
	})
}
