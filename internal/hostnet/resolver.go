package hostnet

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ourServer ends the lines of a resolv.conf that are ours.
const ourServer = "   # by adit"

// maxResolver bounds a resolv.conf in bytes, maxServers the name servers of ours in it:
// resolvers look at the first three.
const (
	maxResolver = 1 << 20
	maxServers  = 16
)

// AddNameServer puts a name server in front of those of a resolv.conf
// (charon.plugins.resolve.file). Calls are counted: as many DelNameServer calls take it away.
// What stands in the file is left as it is, and Close takes away what is left of ours.
func (n *Net) AddNameServer(file string, a netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := serverKey{file, a}
	switch {
	case n.done:
		return ErrClosed
	case n.servers[k] > 0:
		n.servers[k]++
		return nil
	case len(n.servers) >= maxServers:
		return fmt.Errorf("hostnet: more than %d name servers", maxServers)
	}
	if !slices.Contains(n.jr.state.Resolvers, file) {
		n.jr.state.Resolvers = append(n.jr.state.Resolvers, file)
		if err := n.jr.write(); err != nil {
			return err
		}
	}
	n.servers[k] = 1
	n.order = append(n.order, k)
	if err := n.writeServers(file); err != nil {
		n.forgetServer(k)
		if !slices.ContainsFunc(n.order, func(o serverKey) bool { return o.file == file }) {
			n.jr.state.Resolvers = slices.DeleteFunc(n.jr.state.Resolvers, func(f string) bool { return f == file })
		}
		return err
	}
	return nil
}

// DelNameServer undoes one AddNameServer.
func (n *Net) DelNameServer(file string, a netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := serverKey{file, a}
	switch {
	case n.done:
		return ErrClosed
	case n.servers[k] == 0:
		return fmt.Errorf("hostnet: name server %v is not one of ours", a)
	case n.servers[k] > 1:
		n.servers[k]--
		return nil
	}
	n.forgetServer(k)
	return n.writeServers(file)
}

type serverKey struct {
	file string
	addr netip.Addr
}

func (n *Net) forgetServer(k serverKey) {
	delete(n.servers, k)
	n.order = slices.DeleteFunc(n.order, func(o serverKey) bool { return o == k })
}

func (n *Net) writeServers(file string) error {
	var list []netip.Addr
	for _, k := range n.order {
		if k.file == file {
			list = append(list, k.addr)
		}
	}
	var w *Names
	if n.named != nil && n.named.File == file {
		w = n.named
	}
	return writeResolver(file, list, w)
}

// What a client's tunnel writes stands between ourBegin and ourEnd, at the beginning;
// what must not count meanwhile has ourHold in front. The file says by itself how it was,
// whatever ends the program.
const (
	ourBegin = "# adit, until the tunnel is down {"
	ourEnd   = "# } adit"
	ourHold  = "#adit# "
)

// without are the lines of a resolv.conf as they are without us.
func without(old string) (lines []string) {
	ours := strings.Contains(old, ourEnd+"\n") // else somebody has cut it: believe the single lines
	inside := false
	for line := range strings.Lines(old) {
		bare := strings.TrimRight(line, "\r\n")
		switch {
		case bare == ourBegin:
			inside = ours
		case bare == ourEnd:
			inside = false
		case inside, strings.HasSuffix(bare, ourServer):
		default:
			lines = append(lines, strings.TrimPrefix(line, ourHold))
		}
	}
	return lines
}

// block are the lines of a client's tunnel. Resolvers look at the first three servers only
// and know one list of domains.
func (w *Names) block(lines []string) string {
	var b strings.Builder
	b.WriteString(ourBegin + "\n")
	for _, a := range w.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if len(w.Domains) > 0 {
		search := slices.Clone(w.Domains)
		for _, line := range lines {
			f := strings.Fields(line)
			if len(f) > 1 && (f[0] == "search" || f[0] == "domain") {
				search = append(search, f[1:]...)
			}
		}
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	b.WriteString(ourEnd + "\n")
	return b.String()
}

// holds reports whether a line must not count while the block stands.
func (w *Names) holds(line string) bool {
	f := strings.Fields(line)
	return len(f) > 0 && (f[0] == "nameserver" && w.All || (f[0] == "search" || f[0] == "domain") && len(w.Domains) > 0)
}

// writeResolver makes the servers our lines of the file: those that came last stand first.
// With w they stand behind those of a client's tunnel.
func writeResolver(file string, servers []netip.Addr, w *Names) error {
	if path, err := filepath.EvalSymlinks(file); err == nil {
		file = path
	}
	mode := fs.FileMode(0o644)
	fi, err := os.Stat(file)
	switch {
	case err == nil && (!fi.Mode().IsRegular() || fi.Size() > maxResolver):
		return fmt.Errorf("hostnet: %s is no file of a resolver", file)
	case err == nil:
		mode = fi.Mode().Perm()
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("hostnet: %w", err)
	}
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("hostnet: %w", err)
	}
	var b bytes.Buffer
	lines := without(string(old))
	if w != nil {
		b.WriteString(w.block(lines))
	}
	for _, a := range slices.Backward(servers) {
		fmt.Fprintf(&b, "nameserver %s%s\n", a, ourServer)
	}
	for _, line := range lines {
		if w != nil && w.holds(line) {
			b.WriteString(ourHold)
		}
		b.WriteString(line)
	}
	if err == nil && bytes.Equal(old, b.Bytes()) || b.Len() == 0 && err != nil {
		return nil
	}
	return replaceFile(file, b.Bytes(), mode)
}

// dropServers takes all lines of ours out of the files.
func dropServers(files []string) error {
	var errs []error
	for _, file := range files {
		if err := writeResolver(file, nil, nil); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// replaceFile writes a file so that readers see the old one or the new one; where that
// cannot be (the file is a mount of its own, as in containers), in place.
func replaceFile(file string, b []byte, mode fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".adit-*")
	if err == nil {
		_, err = tmp.Write(b)
		err = errors.Join(err, tmp.Chmod(mode), tmp.Close())
		if err == nil {
			err = os.Rename(tmp.Name(), file)
		}
		if err == nil {
			return nil
		}
		os.Remove(tmp.Name())
	}
	if err := os.WriteFile(file, b, mode); err != nil {
		return fmt.Errorf("hostnet: %w", err)
	}
	return nil
}
