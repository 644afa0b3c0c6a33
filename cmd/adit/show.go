package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"adit/internal/config"
)

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check [FILE]", Short: "Check a swanctl.conf without loading it",
		Long: `Check a swanctl.conf: grammar, options, values and what belongs together, with the
certificates and keys in the directories beside it. Every error names file and
line, what is wrong and the nearest known option. Warnings tell of certificates
without their keys, expired ones, and names that no certificate confirms. Without
FILE it checks swanctl.conf in $SWANCTL_DIR or /etc/swanctl. The exit code is 1
if anything is wrong.`,
		Example: "  adit check /etc/swanctl/swanctl.conf",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := filepath.Join(cmp.Or(os.Getenv("SWANCTL_DIR"), "/etc/swanctl"), "swanctl.conf")
			if len(args) == 1 {
				file = args[0]
			}
			d, err := config.LoadDaemon(config.DaemonFile(""))
			if err != nil {
				return err
			}
			m, err := config.Load(file, d)
			if err != nil {
				fmt.Fprintln(cmd.OutOrStdout(), err)
				return exitCode(1)
			}
			for _, w := range append(d.Warnings, m.Warnings...) {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: warning: %s\n", w.Pos, w.Text)
			}
			children := 0
			for _, p := range m.Peers {
				children += len(p.Children)
			}
			out := fmt.Sprintf("%s is fine: %d connections, %d children, %d secrets", file, len(m.Peers), children, len(m.Secrets))
			for _, more := range []struct {
				n    int
				what string
			}{{len(m.Certs), "certificates"}, {len(m.Keys), "private keys"}, {len(m.Authorities), "authorities"}, {len(m.Pools), "pools"}} {
				if more.n > 0 {
					out += fmt.Sprintf(", %d %s", more.n, more.what)
				}
			}
			fmt.Fprintln(cmd.OutOrStdout(), out)
			return nil
		},
	}
}
