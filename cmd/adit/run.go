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
	"adit/internal/logging"
	"adit/suite"
)

func runCommand() *cobra.Command {
	var o adit.Options
	var level, format, aesGCM string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the gateway in the foreground",
		Long: `Run the gateway in the foreground. With --config it loads that swanctl.conf,
without it waits for VICI clients (swanctl --load-all). SIGHUP reads the file and
strongswan.conf again and opens log files anew; with an error in it nothing changes.
SIGUSR1 writes down what all goroutines do. SIGTERM and SIGINT close all tunnels,
undo every change to the host and end. Readiness, the watchdog and a line of status
go to systemd (Type=notify).`,
		Example: `  adit run --config /etc/swanctl/swanctl.conf
  adit run --vici unix:///run/adit.vici --log-level debug
  adit run --config gw.conf --unsafe-debug-dir /root/trace   # pcaps and keys`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLog(level, format)
			if err != nil {
				return err
			}
			defer log.Close()
			o.Log, o.VICI, o.GiveUp = slog.New(log), viciURI, true
			if err := suite.SetAESGCM(aesGCM); err != nil {
				return err
			}
			o.Log.Info("AES-GCM is computed by " + suite.AESGCM())
			return run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.ConfigFile, "config", "", "swanctl.conf to load")
	f.StringVar(&o.StrongswanConf, "strongswan-conf", "", "daemon settings (default: $STRONGSWAN_CONF, or /etc/strongswan.conf)")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&format, "log-format", "", "text or json (default: the journal's own where there is one, else text)")
	f.StringVar(&o.HealthAddr, "health", "", "answer GET /healthz there: HOST:PORT or unix:///PATH (default: strongswan.conf's adit.health)")
	f.StringVar(&o.UnsafeDebugDir, "unsafe-debug-dir", "", "UNSAFE: write packets and keys into this directory, for Wireshark")
	f.StringVar(&aesGCM, "aes-gcm", "auto", "code for AES-GCM: auto, vaes-avx512, vaes-avx2 or go; auto is the fastest of the machine")
	f.BoolVar(&o.NoGuard, "unsafe-no-guard", false, "UNSAFE: no packet filter against traffic in the clear")
	_ = cmd.MarkFlagFilename("config", "conf")
	return cmd
}

// newLog is the log of the program until strongswan.conf says more: the journal where
// systemd connects standard error to it and no format was asked for, else standard error.
func newLog(level, format string) (*logging.Hub, error) {
	t := logging.Target{Kind: logging.Stderr, BySeverity: true, Format: format, Default: logging.LevelControl, MapLevel: -1}
	if err := t.Severity.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: use debug, info, warn or error", level)
	}
	switch format {
	case "":
		t.Format = "text"
		if logging.OnJournal() {
			t.Kind = logging.Journal
		}
	case "text", "json":
	default:
		return nil, fmt.Errorf("log format %q: use text or json", format)
	}
	return logging.New(t), nil
}

func run(ctx context.Context, o adit.Options) error {
	if err := noCoreDumps(); err != nil {
		o.Log.Warn("core dumps could not be switched off: " + err.Error())
	}
	keepProfiles(o.Log)
	go returnMemory(ctx)
	ready := make(chan struct{})
	o.Ready = func() {
		notify(daemon.SdNotifyReady)
		close(ready)
	}
	g, err := adit.New(o)
	if err != nil {
		return err
	}
	// Workers are locked threads of their own beside the engine and its pool.
	runtime.GOMAXPROCS(runtime.NumCPU() + g.Workers())
	w := newWatch(g, o.Log)
	go func() {
		select {
		case <-ready:
			w.run(ctx)
		case <-ctx.Done():
		}
	}()
	hup, usr1 := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	signal.Notify(usr1, syscall.SIGUSR1)
	defer signal.Stop(hup)
	defer signal.Stop(usr1)
	go func() {
		for range hup {
			notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec()) // Type=notify-reload wants the time
			_ = g.Reload()                                                           // it logs what is wrong
			notify(daemon.SdNotifyReady)
		}
	}()
	go func() {
		for range usr1 {
			w.dump("asked")
		}
	}()
	defer context.AfterFunc(ctx, func() { notify(daemon.SdNotifyStopping) })()
	return g.Run(ctx)
}

// noCoreDumps keeps keys out of core files, and other processes from reading our memory.
func noCoreDumps() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
