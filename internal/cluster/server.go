package cluster

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sys/unix"
)

// embedded is a JetStream server of this process alone: it listens nowhere.
type embedded struct {
	srv     *server.Server
	durable *durable
	unlock  func()
}

// startEmbedded starts the server on a directory that no other process uses.
func startEmbedded(dir string) (*embedded, error) {
	unlock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	srv, err := server.NewServer(&server.Options{
		ServerName: "adit", DontListen: true, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: dir, SyncInterval: syncInterval, DisableJetStreamBanner: true,
		JetStreamMaxMemory: 1 << 20, JetStreamMaxStore: limitStore,
	})
	if err != nil {
		unlock()
		return nil, err
	}
	srv.Start()
	if !srv.ReadyForConnections(startTimeout) {
		srv.Shutdown()
		unlock()
		return nil, errors.New("the embedded server did not start in time")
	}
	return &embedded{srv, newDurable(filepath.Join(dir, "jetstream")), unlock}, nil
}

func (e *embedded) close() {
	e.srv.Shutdown()
	e.srv.WaitForShutdown()
	e.unlock()
}

// lock makes the directory and keeps other processes out of it; the kernel takes the
// lock away with the process.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another process keeps its leases in %s", dir)
	}
	return func() { f.Close() }, nil
}

// gatewayID is this gateway's name among several: what the directory says, else a new
// one that is written there. Where that cannot be, it holds for this run alone.
func gatewayID(dir string) string {
	path := filepath.Join(dir, "gateway")
	if b, err := os.ReadFile(path); err == nil {
		if id := strings.TrimSpace(string(b)); id != "" && len(id) <= 64 {
			return id
		}
	}
	id := rand.Text()
	if os.MkdirAll(dir, 0o700) == nil {
		_ = os.WriteFile(path, []byte(id+"\n"), 0o600)
	}
	return id
}
