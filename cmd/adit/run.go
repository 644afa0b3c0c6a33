package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"adit"
)

func runCommand() *cobra.Command {
	var o adit.Options
	var level, format string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the gateway in the foreground",
		Long: `Run the gateway in the foreground. With --config it loads that swanctl.conf,
without it waits for VICI clients (swanctl --load-all). SIGHUP reads the file
again; with an error in it nothing changes. SIGTERM and SIGINT close all tunnels,
undo every change to the host and end. Readiness goes to systemd (Type=notify).`,
		Example: `  adit run --config /etc/swanctl/swanctl.conf
  adit run --vici unix:///run/adit.vici --log-level debug
  adit run --config gw.conf --unsafe-debug-dir /root/trace   # pcaps and keys`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLog(level, format)
			if err != nil {
				return err
			}
			o.Log, o.VICI = log, viciURI
			return run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.ConfigFile, "config", "", "swanctl.conf to load")
	f.StringVar(&o.StrongswanConf, "strongswan-conf", "", "daemon settings (default: $STRONGSWAN_CONF, or /etc/strongswan.conf)")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&format, "log-format", "text", "text or json")
	f.StringVar(&o.UnsafeDebugDir, "unsafe-debug-dir", "", "UNSAFE: write packets and keys into this directory, for Wireshark")
	f.BoolVar(&o.NoGuard, "unsafe-no-guard", false, "UNSAFE: no packet filter against traffic in the clear")
	_ = cmd.MarkFlagFilename("config", "conf")
	return cmd
}

func newLog(level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: use debug, info, warn or error", level)
	}
	opt := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, opt)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, opt)), nil
	}
	return nil, fmt.Errorf("log format %q: use text or json", format)
}

func run(ctx context.Context, o adit.Options) error {
	if err := noCoreDumps(); err != nil {
		o.Log.Warn("core dumps could not be switched off: " + err.Error())
	}
	profile(o.Log)
	go returnMemory(ctx)
	// Workers are locked threads of their own beside the engine and its pool.
	runtime.GOMAXPROCS(runtime.NumCPU() + 1)
	o.Ready = func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyReady) }
	g, err := adit.New(o)
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		for range hup {
			_, _ = daemon.SdNotify(false, daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec()) // Type=notify-reload wants the time
			_ = g.Reload()                                                                              // it logs what is wrong
			_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
		}
	}()
	defer context.AfterFunc(ctx, func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyStopping) })()
	return g.Run(ctx)
}

// noCoreDumps keeps keys out of core files, and other processes from reading our memory.
func noCoreDumps() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
