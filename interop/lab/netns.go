package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func nsPath(ns string) string { return "/var/run/netns/" + ns }

// InNS runs f on a thread that entered the namespace with that name and that ends
// afterwards. Sockets that f opens stay in the namespace for life and may be used
// from anywhere; goroutines and processes that f starts would not be in it, so f
// must start none.
func InNS(ns string, f func() error) error {
	return onDyingThread(func() error {
		fd, err := unix.Open(nsPath(ns), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("namespace %s: %w", ns, err)
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering namespace %s: %w", ns, err)
		}
		return f()
	})
}

// onDyingThread runs f on a thread of its own. The thread isn't given back to the
// scheduler, and is never the main thread: that one cannot end, and /proc/self
// speaks of it.
func onDyingThread(f func() error) error {
	res := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			res <- onDyingThread(f)
			runtime.UnlockOSThread()
			return
		}
		res <- f()
	}()
	return <-res
}

// starts is served by one thread that lives as long as the process: a child's
// parent-death signal fires when the *thread* that forked it ends.
var starts = sync.OnceValue(func() chan func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range c {
			f()
		}
	}()
	return c
})

// startChild starts cmd in a process group of its own that dies with us.
func startChild(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	res := make(chan error, 1)
	starts() <- func() { res <- cmd.Start() }
	return <-res
}

// run runs a short command of the host with stdin and returns its output.
func run(timeout time.Duration, stdin, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	cmd := exec.Command(name, args...)
	return runCmd(ctx, cmd, stdin)
}

func runCmd(ctx context.Context, cmd *exec.Cmd, stdin string) (string, error) {
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	cmd.WaitDelay = 2 * time.Second
	if err := startChild(cmd); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	stop()
	if ctx.Err() != nil {
		err = fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), ctx.Err())
	} else if err != nil {
		err = fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return out.String(), err
}

// killNamespace kills every process in a namespace and waits until they are gone.
func killNamespace(ns string) error {
	return Poll(5*time.Second, func() (bool, error) {
		out, err := run(5*time.Second, "", "ip", "netns", "pids", ns)
		if err != nil {
			return false, fmt.Errorf("%w: %s", err, out)
		}
		pids := strings.Fields(out)
		for _, p := range pids {
			pid, err := strconv.Atoi(p)
			if err != nil || pid == os.Getpid() {
				return false, fmt.Errorf("lab: unexpected pid %q in %s", p, ns)
			}
			syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(pids) == 0, nil
	})
}

// ErrPoll is returned by [Poll] when the condition did not come true in time.
var ErrPoll = errors.New("lab: condition not met in time")

// Poll asks cond every few milliseconds until it says true, fails, or the timeout
// has passed. The last question is asked after the timeout.
func Poll(timeout time.Duration, cond func() (bool, error)) error {
	end := time.Now().Add(timeout)
	wait := time.Millisecond
	for {
		last := !time.Now().Before(end)
		ok, err := cond()
		if ok || err != nil {
			return err
		}
		if last {
			return fmt.Errorf("%w (%v)", ErrPoll, timeout)
		}
		time.Sleep(wait)
		wait = min(2*wait, 50*time.Millisecond)
	}
}
