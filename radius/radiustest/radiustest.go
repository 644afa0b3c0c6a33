// Package radiustest runs a real FreeRADIUS for tests: a private configuration in a
// temporary directory, a server in a namespace, stopped by its process id.
//
// It owns the configuration's text and the process, and nothing of the protocol. It
// must not know package radius: the tests of that one, and of gateways that
// authenticate against an AAA server, use it alike. Start reading at Config and Start.
package radiustest

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Binary is Debian's FreeRADIUS server.
const Binary = "/usr/sbin/freeradius"

// readyTimeout is how long the server may take to start, stopTimeout to stop.
const (
	readyTimeout = 20 * time.Second
	stopTimeout  = 5 * time.Second
)

// TB is the part of testing.TB that is used here.
type TB interface {
	Helper()
	TempDir() string
	Cleanup(func())
	Failed() bool
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// User is somebody the server lets in.
type User struct {
	// Name is what the peer says in EAP-Response/Identity and, in TTLS and PEAP, in the
	// tunnel. A certificate of EAP-TLS needs no user, but may have one for its replies.
	Name, Password string
	// Reply are attributes of the Access-Accept as FreeRADIUS writes them, such as
	// `Framed-IP-Address = 10.3.0.7` or `Class = "staff"`; they go by the outer name.
	Reply []string
}

// Config says what server to run.
type Config struct {
	Namespace string         // network namespace by name; this process's if empty
	Listen    netip.AddrPort // must be configured there; the port mustn't be 0
	// Accounting also listens on the next port, and writes what comes to AcctRecords.
	Accounting bool
	Secret     string         // shared with the clients
	Clients    []netip.Prefix // who may ask; all if empty
	Users      []User
	// DefaultEAP is the method that is offered first: md5, mschapv2, gtc, tls, ttls or
	// peap; md5 if empty. Peers may ask for each of them.
	DefaultEAP string
	// CAFile, CertFile and KeyFile are absolute paths of PEM files: whom EAP-TLS clients
	// are checked against, the server's chain and its key. Without them there is
	// neither tls, ttls nor peap.
	CAFile, CertFile, KeyFile string
	// TLSMax is 1.2 or 1.3; 1.2 if empty.
	TLSMax string
}

// Server is a running FreeRADIUS.
type Server struct {
	// Dir holds the configuration and radius.log.
	Dir  string
	PID  int
	once sync.Once
	done chan struct{}
	out  bytes.Buffer // read after done
}

// Start writes the configuration, starts the server and waits until it is ready; it is
// stopped when the test ends. Without root (or, without a namespace, without
// FreeRADIUS) the test is skipped; with root everything that goes wrong fails it.
func Start(t TB, cfg Config) *Server {
	t.Helper()
	if os.Geteuid() != 0 && cfg.Namespace != "" {
		t.Skipf("skipped: FreeRADIUS in a namespace needs root")
	}
	if _, err := os.Stat(Binary); err != nil {
		if os.Geteuid() != 0 {
			t.Skipf("skipped: %v", err)
		}
		t.Fatalf("%v: run scripts/setup.sh", err)
	}
	s := &Server{Dir: t.TempDir(), done: make(chan struct{})}
	if err := write(s.Dir, cfg); err != nil {
		t.Fatalf("radiustest: %v", err)
	}
	if err := s.start(cfg.Namespace); err != nil {
		t.Fatalf("radiustest: %v", err)
	}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("FreeRADIUS's log:\n%s", s.Log())
		}
	})
	for end := time.Now().Add(readyTimeout); !strings.Contains(s.Log(), "Ready to process requests"); time.Sleep(20 * time.Millisecond) {
		select {
		case <-s.done:
			t.Fatalf("FreeRADIUS ended while starting:\n%s%s", s.Log(), s.out.String())
		default:
		}
		if time.Now().After(end) {
			s.Stop()
			t.Fatalf("FreeRADIUS isn't ready after %v:\n%s%s", readyTimeout, s.Log(), s.out.String())
		}
	}
	return s
}

// Stop ends the server and waits until it is gone. It may be called again.
func (s *Server) Stop() {
	s.once.Do(func() {
		syscall.Kill(s.PID, syscall.SIGTERM)
		select {
		case <-s.done:
		case <-time.After(stopTimeout):
			syscall.Kill(s.PID, syscall.SIGKILL)
			<-s.done
		}
	})
}

// Log returns what the server has logged.
func (s *Server) Log() string {
	b, _ := os.ReadFile(filepath.Join(s.Dir, "radius.log"))
	return string(b)
}

// AcctRecords returns the Accounting-Requests that came, as FreeRADIUS writes them.
func (s *Server) AcctRecords() string {
	b, _ := os.ReadFile(filepath.Join(s.Dir, "acct"))
	return string(b)
}

// start runs the server from a thread that lives as long as it does: the signal that
// ends it with us comes when the thread that started it ends.
func (s *Server) start(ns string) error {
	args := []string{Binary, "-f", "-d", s.Dir, "-l", filepath.Join(s.Dir, "radius.log")}
	if ns != "" {
		args = append([]string{"ip", "netns", "exec", ns}, args...) // which becomes the server
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &s.out, &s.out
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
		close(s.done)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting FreeRADIUS: %w", err)
	}
	s.PID = cmd.Process.Pid
	return nil
}
