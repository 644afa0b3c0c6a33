package vendors_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/suite"
)

// plain is a peer without any habit.
func plain(t *testing.T, ikeText, espText, local, remote string) *peer {
	return &peer{ike: proposals(t, suite.IKE, ikeText), esp: proposals(t, suite.ESP, espText), local: selectors(t, local), remote: selectors(t, remote)}
}

// obsolete are ciphers that peers offer and adit does not take unasked.
var obsolete = map[string]suite.TransformID{"des": 2, "3des": 3, "null": 11}

// split reads proposals in the keywords of swanctl.conf, obsolete ciphers included.
func split(t *testing.T, proto suite.Protocol, text string) (list []suite.Proposal) {
	t.Helper()
	for one := range strings.SplitSeq(text, ",") {
		var words []string
		var old []suite.Transform
		cipher := false
		for word := range strings.SplitSeq(one, "-") {
			if id, ok := obsolete[word]; ok {
				old = append(old, suite.Transform{Type: suite.TypeENCR, ID: id})
				continue
			}
			cipher = cipher || strings.HasPrefix(word, "aes") || strings.HasPrefix(word, "chacha")
			words = append(words, word)
		}
		if !cipher {
			words = append([]string{"aes256"}, words...)
		}
		p := proposals(t, proto, strings.Join(words, "-"))[0]
		if !cipher {
			p.Transforms = slices.DeleteFunc(p.Transforms, func(x suite.Transform) bool { return x.Type == suite.TypeENCR })
		}
		p.Transforms = append(p.Transforms, old...)
		list = append(list, p)
	}
	return list
}

// A peer that does nothing odd: what fails here is wrong with the script.
func TestPlainPeer(t *testing.T) {
	for _, initiator := range []bool{true, false} {
		p := plain(t, "aes128-sha256-x25519", "aes128gcm16-x25519", "10.2.0.0/16", "10.1.0.0/16")
		w := newWorld(t, conn{ike: "aes128-sha256-x25519", esp: "aes128gcm16-x25519", children: []string{"net 10.1.0.0/16 === 10.2.0.0/16"}}, p)
		if initiator {
			w.initiate("net")
		} else {
			p.initiate()
			w.advance(time.Second)
		}
		w.settled(1)
		w.do(ike.Rekey{Child: "net"})
		w.advance(10 * time.Second)
		w.settled(1)
		w.do(ike.Rekey{IKE: "gw"})
		w.advance(10 * time.Second)
		w.settled(1)
		p.first().rekeyChild(p.children()[0], p.esp)
		w.advance(10 * time.Second)
		w.settled(1)
		p.first().rekeyIKE(p.ike)
		w.advance(10 * time.Second)
		w.settled(1)
		if p.rekeys != 4 || !w.carries("10.1.2.3", "10.2.3.4") {
			t.Errorf("%d rekeys, notes %q, rejections %v", p.rekeys, w.notes, w.rejections)
		}
	}
}
