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
	return writeResolver(file, list)
}

// writeResolver makes the servers our lines of the file: those that came last stand first.
func writeResolver(file string, servers []netip.Addr) error {
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
	for _, a := range slices.Backward(servers) {
		fmt.Fprintf(&b, "nameserver %s%s\n", a, ourServer)
	}
	for line := range strings.Lines(string(old)) {
		if !strings.HasSuffix(strings.TrimRight(line, "\r\n"), ourServer) {
			b.WriteString(line)
		}
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
		if err := writeResolver(file, nil); err != nil {
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
