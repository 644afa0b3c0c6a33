// Command adit is the gateway and the tools around it. All verbs but run, check, import,
// user, pki, profile, demo and version talk to a running gateway by its VICI socket.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:   "adit",
		Short: "An IPsec gateway: IKEv2 and ESP in one binary, driven by swanctl.conf",
		Long: `adit joins networks through IPsec tunnels. It reads strongSwan's swanctl.conf and
answers on strongSwan's VICI socket, so the unmodified swanctl drives it.`,
		Example: `  adit check /etc/swanctl/swanctl.conf
  adit run --config /etc/swanctl/swanctl.conf
  adit up net-net
  adit status`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&viciURI, "vici", "", "URI of the control socket (default: strongswan.conf's, or unix:///var/run/charon.vici)")
	root.AddCommand(runCommand(), connectCommand(), upCommand(), downCommand(), statusCommand(), topCommand(), explainCommand(), logCommand(), healthCommand(), checkCommand(), planCommand(), reloadCommand(), drainCommand(), undrainCommand(), importCommand(), userCommand(), pkiCommand(), profileCommand(), demoCommand(), benchCommand(), versionCommand(), manCommand())
	root.AddCommand(topics()...)
	if err := root.ExecuteContext(ctx); err != nil {
		var quiet exitCode
		if errors.As(err, &quiet) {
			os.Exit(int(quiet))
		}
		fmt.Fprintln(os.Stderr, "adit:", err)
		os.Exit(1)
	}
}

// exitCode ends the program with a code after everything was said.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

var viciURI string
