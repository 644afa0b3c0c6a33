package updown

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"runtime"
	"syscall"
)

// shell has /bin/sh run a command in a process group of its own, which is killed when
// ctx ends. What the command leaves running in the background stays, but nobody listens
// to it any longer.
func shell(ctx context.Context, command string, env []string, line func(string)) error {
	// The signal at the parent's death is bound to the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = linger
	out := &lineWriter{line: line}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	out.flush()
	if errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil {
		return nil
	}
	return err
}

// lineWriter cuts what is written into lines of bounded length.
type lineWriter struct {
	line func(string)
	rest []byte
}

func (w *lineWriter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		part, after, whole := bytes.Cut(b, []byte{'\n'})
		part = part[:min(len(part), limitLine-len(w.rest))]
		w.rest = append(w.rest, part...)
		switch {
		case len(w.rest) == limitLine && len(part) < len(b) && b[len(part)] != '\n':
			b = b[len(part):] // the line goes on
			w.flush()
		case whole:
			b = after
			w.line(string(w.rest))
			w.rest = w.rest[:0]
		default:
			b = nil
		}
	}
	return n, nil
}

func (w *lineWriter) flush() {
	if len(w.rest) > 0 {
		w.line(string(w.rest))
		w.rest = w.rest[:0]
	}
}

// interfaceOf names the device that has an address, "" if none has. It asks the kernel
// once, however many devices there are.
func interfaceOf(local netip.Addr) string {
	rib, err := syscall.NetlinkRIB(syscall.RTM_GETADDR, syscall.AF_UNSPEC)
	if err != nil {
		return ""
	}
	messages, err := syscall.ParseNetlinkMessage(rib)
	if err != nil {
		return ""
	}
	return deviceIn(messages, local.Unmap().WithZone(""))
}
