package hostnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// journalState names what an instance may have made on the host. Routes and
// rules are told by their protocol number and the guard by its table's name, so
// the journal needs to be written only when something of another kind is made;
// it is written before the change, so that it is never short of anything.
type journalState struct {
	// Protocols are the route protocol numbers used.
	Protocols []int
	// Addresses are those put on devices.
	Addresses []addressKey
	// Resolvers are files with name servers of ours.
	Resolvers []string `json:",omitempty"`
}

// journal is the file of the journalState, one for each network namespace.
type journal struct {
	path  string
	state journalState
}

// maxJournal bounds the journal's size in bytes: larger ones aren't ours.
const maxJournal = 16 << 20

func openJournal(dir string) (journal, error) {
	var ns unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &ns); err != nil {
		return journal{}, fmt.Errorf("hostnet: finding the network namespace: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return journal{}, fmt.Errorf("hostnet: journal: %w", err)
	}
	j := journal{path: filepath.Join(dir, fmt.Sprintf("state-%d.json", ns.Ino))}
	if fi, err := os.Lstat(j.path); err == nil && (!fi.Mode().IsRegular() || fi.Size() > maxJournal) {
		return journal{}, fmt.Errorf("hostnet: journal %s is not a file of ours", j.path)
	}
	b, err := os.ReadFile(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return journal{}, fmt.Errorf("hostnet: journal: %w", err)
	}
	// A journal that can't be read must not keep the gateway from starting: what
	// carries our protocol number and name is found without it.
	var s journalState
	if json.Unmarshal(b, &s) == nil {
		s.Protocols = slices.DeleteFunc(s.Protocols, func(p int) bool { return p < 5 || p > 255 })
		s.Addresses = slices.DeleteFunc(s.Addresses, func(a addressKey) bool {
			return !a.Prefix.IsValid() || checkDeviceName(a.Device) != nil
		})
		j.state = s
	}
	return j, nil
}

// write replaces the file atomically. A state that the next start would assume
// anyway needs no file: namespaces come and go, and nobody would clean up.
func (j *journal) write() error {
	if len(j.state.Addresses)+len(j.state.Resolvers) == 0 && slices.Equal(j.state.Protocols, []int{defaultProtocol}) {
		return j.remove()
	}
	b, err := json.Marshal(&j.state)
	if err != nil {
		return fmt.Errorf("hostnet: journal: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(j.path), ".state-*") // mode 0600
	if err != nil {
		return fmt.Errorf("hostnet: journal: %w", err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), j.path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("hostnet: journal: %w", err)
	}
	return nil
}

func (j *journal) remove() error {
	if err := os.Remove(j.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("hostnet: journal: %w", err)
	}
	return nil
}
