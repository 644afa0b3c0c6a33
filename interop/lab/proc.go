package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Exec runs a command in a node's namespace, with the caller's environment, and
// returns stdout and stderr together. A non-zero end is an error that holds the
// output; so is a run longer than the timeout, after which the command and its
// children are killed.
func (l *Lab) Exec(timeout time.Duration, node string, cmd ...string) (string, error) {
	return l.ExecEnv(timeout, node, nil, cmd...)
}

// ExecEnv is Exec with additional NAME=VALUE settings.
func (l *Lab) ExecEnv(timeout time.Duration, node string, env []string, cmd ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c := l.command(node, env, cmd)
	out, err := runCmd(ctx, c, "")
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(out))
	}
	return out, err
}

func (l *Lab) command(node string, env, cmd []string) *exec.Cmd {
	c := exec.Command("ip", append([]string{"netns", "exec", l.NS(node)}, cmd...)...)
	c.Env = append(os.Environ(), env...)
	c.Dir = l.Dir
	return c
}

// Proc is a running program of a lab.
type Proc struct {
	Name    string // the program's name, for messages
	LogPath string // stdout and stderr

	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

var procSeq atomic.Uint64

// Start starts a long-running program in a node's namespace. Its output goes to a
// log file under l.Dir. Close kills it if Stop did not.
func (l *Lab) Start(node string, env []string, cmd ...string) (*Proc, error) {
	name := filepath.Base(cmd[0])
	p := &Proc{
		Name:    name,
		LogPath: filepath.Join(l.Dir, fmt.Sprintf("%s-%s-%d.log", node, name, procSeq.Add(1))),
		cmd:     l.command(node, env, cmd),
		done:    make(chan struct{}),
	}
	f, err := os.Create(p.LogPath)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p.cmd.Stdout, p.cmd.Stderr = f, f
	l.opt.Logf("%s: start %s", l.NS(node), strings.Join(cmd, " "))
	if err := startChild(p.cmd); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	l.onClose(func() { p.Kill() })
	return p, nil
}

// PID is the process id of the program itself (`ip netns exec` replaces itself).
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal to the program, not to its children.
func (p *Proc) Signal(s syscall.Signal) error {
	select {
	case <-p.done:
		return os.ErrProcessDone
	default:
		return p.cmd.Process.Signal(s)
	}
}

// Done is closed when the program has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Stop asks the program to end (SIGTERM) and kills it with its children after the
// timeout; the error says that it had to, or how the program ended.
func (p *Proc) Stop(timeout time.Duration) error {
	if p.Signal(syscall.SIGTERM) != nil {
		return p.ended()
	}
	select {
	case <-p.done:
		return p.ended()
	case <-time.After(timeout):
		p.Kill()
		return fmt.Errorf("%s did not end within %v of SIGTERM and was killed", p.Name, timeout)
	}
}

func (p *Proc) ended() error {
	<-p.done
	if p.err != nil {
		return fmt.Errorf("%s: %w", p.Name, p.err)
	}
	return nil
}

// Kill ends the program and its process group with SIGKILL and waits for it.
func (p *Proc) Kill() {
	select {
	case <-p.done: // the group's id may belong to somebody else by now
		return
	default:
	}
	syscall.Kill(-p.PID(), syscall.SIGKILL)
	<-p.done
}

// Log is what the program has printed so far.
func (p *Proc) Log() string {
	b, err := os.ReadFile(p.LogPath)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
