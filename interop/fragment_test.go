package interop_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"adit/interop/lab"
	"adit/pki/pkitest"
)

// narrow is a path on which nothing longer than this arrives, nor IP fragments.
const narrow = 1280

// Certificate chains of 6 kB: through a path that drops long packets and IP fragments,
// with losses, and with each setting of `fragmentation`.
func TestFragmentationOfLongChains(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.Impaired, charon: "fragment_size = 1280\nretransmit_timeout = 0.4\nretransmit_base = 1.1\nretransmit_tries = 12\n"}, func(t *testing.T, p *path) {
		p.giveLongChains(t, p.ends)
		t.Run("narrow", func(t *testing.T) {
			p.impair(t, lab.Impairment{Filter: narrowPath})
			p.fragments(t, "yes", true, true)
			p.fragments(t, "force", true, true)
		})
		t.Run("loss", func(t *testing.T) {
			p.impair(t, lab.Impairment{Filter: narrowPath, Seed: 11, Loss: 0.15, Duplicate: 0.1, Reorder: 0.3})
			if err := p.left.Initiate("yes"); err != nil {
				t.Errorf("with losses: %v", err)
			}
			p.impair(t, lab.Impairment{})
			p.down(t, "yes")
		})
		t.Run("wide", func(t *testing.T) {
			p.fragments(t, "accept", false, true)
			p.fragments(t, "no", false, false)
		})
	})
}

func narrowPath(_ lab.Direction, frame []byte) bool {
	ip := frame[14:]
	if binary.BigEndian.Uint16(frame[12:]) != 0x0800 || len(ip) < 20 {
		return true
	}
	fragment := binary.BigEndian.Uint16(ip[6:])&0x3fff != 0
	return !fragment && int(binary.BigEndian.Uint16(ip[2:])) <= narrow
}

func (p *path) impair(t *testing.T, i lab.Impairment) {
	t.Helper()
	if err := p.Impair(i); err != nil {
		t.Fatal(err)
	}
}

// giveLongChains loads a connection for each value of `fragmentation` at the left; the
// right has one for all.
func (p *path) giveLongChains(t *testing.T, ends func(v6 bool) (conn, conn)) {
	root := pkitest.NewCA(t, pkitest.Spec{Name: "Root", Key: pkitest.RSA2048})
	wordy := func(own string) (names []string) { // some 30 octets each
		for i := range 60 {
			names = append(names, fmt.Sprintf("name-%d-of-many-others.%s", i, own))
		}
		return names
	}
	end := func(name, own string) (files, string) {
		var cas []*pkitest.Entity
		sub := root
		for i := range 2 {
			sub = sub.IssueCA(pkitest.Spec{Name: fmt.Sprintf("Intermediate %d of %s", i, name), Key: pkitest.RSA2048, DNS: wordy("ca.example")[:30]})
			cas = append(cas, sub)
		}
		leaf := sub.Issue(pkitest.Spec{Name: own, DNS: append([]string{own}, wordy(own)...), Key: pkitest.RSA2048})
		f := trusted(append(cas, root)...).and(owned(name, leaf))
		size := len(leaf.Cert.DER()) + len(cas[0].Cert.DER()) + len(cas[1].Cert.DER())
		p.facts["chain"] = fmt.Sprintf("%d octets", size)
		if size < 5000 {
			t.Fatalf("the chain has only %d octets", size)
		}
		return f, "auth = pubkey\ncerts = " + name + ".pem\nid = " + own
	}
	lf, ll := end("left", leftID)
	rf, rl := end("right", rightID)
	l, r := ends(false)
	var sites []site
	for _, v := range []string{"yes", "force", "accept", "no"} {
		sites = append(sites, site{name: v, local: ll, remote: "auth = pubkey\nid = " + rightID, extra: "send_cert = always\nfragmentation = " + v + "\n"})
	}
	p.give(setting{lf, l.with("", sites...)},
		setting{rf, r.with("", site{name: "net", local: rl, remote: "auth = pubkey\nid = " + leftID, extra: "send_cert = always\n"})})
}

// fragments sets a connection up and takes it down, and looks who sent fragments of
// IKE's own (RFC 7383 §2.5) and who left it to IP.
func (p *path) fragments(t *testing.T, name string, byLeft, byRight bool) {
	t.Helper()
	p.fragmentsOf(t, "IKE", encryptedFragment, name, byLeft, byRight)
}

// fragmentsOf is fragments for those of a protocol, which is tells.
func (p *path) fragmentsOf(t *testing.T, protocol string, is func([]byte) bool, name string, byLeft, byRight bool) {
	t.Helper()
	p.freshCapture()
	p.reach(t, name)
	var ours, ips [2]int
	p.outside.Count(func(k *lab.Packet) bool {
		side := 0
		if k.Src == p.R.Wan4 {
			side = 1
		}
		switch {
		case k.Class == lab.ClassFragment:
			ips[side]++
		case k.Class == lab.ClassIKE && is(k.Bytes):
			ours[side]++
			if k.Len > narrow {
				t.Errorf("%s: a fragment of %d octets", name, k.Len)
			}
		}
		return false
	})
	for side, by := range []bool{byLeft, byRight} {
		if by && (ours[side] < 5 || ips[side] != 0) || !by && (ours[side] != 0 || ips[side] == 0) {
			t.Errorf("%s: end %d sent %d fragments of %s and %d of IP", name, side, ours[side], protocol, ips[side])
		}
	}
}

// encryptedFragment reports whether an IPv4 packet to or from port 4500 is an IKE
// message that begins with an Encrypted Fragment payload.
func encryptedFragment(b []byte) bool {
	const ip, udp, marker, next, skf = 20, 8, 4, 16, 53
	return len(b) > ip+udp+marker+next && b[0] == 0x45 && b[ip+udp+marker+next] == skf
}
