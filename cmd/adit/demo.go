package main

import (
	"os"

	"github.com/spf13/cobra"

	"adit/internal/demo"
)

func demoCommand() *cobra.Command {
	o := demo.Options{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show a tunnel: two gateways, real packets, what an observer sees",
		Long: `Build two gateways and two hosts in network namespaces, bring the tunnel up, send
real traffic, and show what is on the wire, what it costs, a rekey without loss
and what happens to a packet with a flipped bit. Everything made is removed again.
Without root, both gateways run in one process over a network in memory.`,
		Example: "  adit demo\n  adit demo --mode transport",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out = cmd.OutOrStdout()
			o.Env = os.Environ()
			return demo.Run(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&o.Mode, "mode", "tunnel", "tunnel or transport")
	cmd.Flags().BoolVar(&o.Quick, "quick", false, "shorter measurements")
	return cmd
}
