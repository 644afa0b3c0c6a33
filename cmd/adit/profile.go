package main

import (
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"

	"golang.org/x/sys/unix"
)

// profileVar names a directory that `adit run` writes profiles into: cpu.pprof from
// the start until SIGUSR2, which also writes heap.pprof. For `adit bench ike
// --profile`; profiles name functions and sizes, never contents.
const profileVar = "ADIT_UNSAFE_PROFILE"

func keepProfiles(log *slog.Logger) {
	dir := os.Getenv(profileVar)
	if dir == "" {
		return
	}
	runtime.MemProfileRate = 4096
	f, err := os.Create(filepath.Join(dir, "cpu.pprof"))
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		log.Warn("no profile: " + err.Error())
		return
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGUSR2)
	go func() {
		<-c
		pprof.StopCPUProfile()
		_ = f.Close()
		runtime.GC()
		tmp := filepath.Join(dir, "heap.tmp")
		if f, err := os.Create(tmp); err == nil {
			_ = pprof.Lookup("heap").WriteTo(f, 0)
			_ = f.Close()
			_ = os.Rename(tmp, filepath.Join(dir, "heap.pprof"))
		}
	}()
}
