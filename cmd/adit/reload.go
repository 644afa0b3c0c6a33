package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func reloadCommand() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use: "reload [FILE]", Short: "Load a swanctl.conf into the running gateway, what changed only",
		Long: `Read a swanctl.conf, with the certificates and keys in the directories beside it,
and give the running gateway what differs from what it has loaded; what is no longer
there is unloaded. The files are read by this command, so the gateway need not be
able to: this is what the unit's ExecReload=+ runs as root. Tunnels whose connection
is the same are not touched. If the file has an error, or the gateway refuses any
part of it, nothing is loaded. With another VICI daemon it does what
swanctl --load-all does.`,
		Example: "  adit reload\n  adit plan && adit reload",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := readPush(args)
			if err != nil {
				return err
			}
			c, err := dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			list, err := planSteps(cmd.Context(), c, p)
			if err != nil {
				return fmt.Errorf("nothing was loaded:\n%w", err)
			}
			changed, unchanged := 0, 0
			for _, s := range list {
				switch {
				case s.change == "" && (s.Command == "retain-certs" || s.Command == "load-users"): // not of this daemon
					continue
				case s.change == "none":
					if s.Command != "retain-certs" && (s.Command != "load-users" || len(p.Model.Users) > 0) {
						unchanged++
					}
					continue
				}
				m, err := c.Call(cmd.Context(), s.Command, s.Body)
				if err == nil && m.Text("success") != "yes" {
					err = refusal(s.Step, m.Text("errmsg"))
				}
				if err != nil {
					return fmt.Errorf("loaded in part: %w", err)
				}
				changed++
				if !quiet {
					fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", marks[s.change], s.What)
				}
			}
			if !quiet {
				fmt.Fprintf(cmd.OutOrStdout(), "%d changed, %d unchanged\n", changed, unchanged)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "say nothing if all went well")
	return cmd
}
