package hostnet

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Name servers stand in front of the file's own, counted, and go at the end, also if
// the end was a crash; what others wrote meanwhile stays.
func TestNameServers(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "link")
	own := "# mine\nnameserver 192.0.2.53\nsearch example.org\n"
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	has := func(what, want string) {
		t.Helper()
		if b, err := os.ReadFile(file); err != nil || string(b) != want {
			t.Errorf("%s: %q, want %q (%v)", what, b, want, err)
		}
	}
	ok(os.WriteFile(file, []byte(own), 0o640))
	ok(os.Symlink(file, link))
	a, b := netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("fd00::53")
	n := &Net{servers: map[serverKey]int{}, jr: journal{path: filepath.Join(dir, "state.json"), state: journalState{Protocols: []int{defaultProtocol}}}}
	ok(n.AddNameServer(link, a))
	ok(n.AddNameServer(link, a))
	ok(n.AddNameServer(link, b))
	has("two servers", "nameserver fd00::53   # by adit\nnameserver 10.0.0.53   # by adit\n"+own)
	ok(n.DelNameServer(link, a))
	ok(n.DelNameServer(link, b))
	has("one of two calls undone", "nameserver 10.0.0.53   # by adit\n"+own)
	if err := n.DelNameServer(link, b); err == nil {
		t.Error("a server that is not there was taken away")
	}
	if fi, err := os.Lstat(link); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v %v", fi, err)
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("%v %v", fi, err)
	}
	// The journal of an instance that died tells the next one which files to clean.
	state, err := os.ReadFile(n.jr.path)
	if err != nil || !strings.Contains(string(state), link) {
		t.Fatalf("%s %v", state, err)
	}
	own += "options edns0\n"
	ok(os.WriteFile(file, []byte("nameserver 10.0.0.53   # by adit\n"+own), 0o640))
	ok(dropServers([]string{link}))
	has("at the end", own)
	// Without a file there is one as long as there is something to say.
	ok(os.Remove(file))
	ok(n.AddNameServer(file, b))
	has("a new file", "nameserver fd00::53   # by adit\n")
	for range maxServers {
		b = b.Next()
		err = n.AddNameServer(file, b)
	}
	if err == nil {
		t.Errorf("more than %d servers", maxServers)
	}
	if err := n.AddNameServer(dir, a); err == nil {
		t.Error("a directory was taken for a file")
	}
}
