package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"adit/internal/bench"
)

func benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the gateway beside strongSwan",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(benchIKECommand())
	return cmd
}

func benchIKECommand() *cobra.Command {
	var o bench.Options
	auth, peers := []string{"psk", "ecdsa"}, []string{"adit", "charon"}
	cmd := &cobra.Command{
		Use:   "ike",
		Short: "IKE set-ups: CPU time and memory of the responder",
		Long: `Measure what a responder pays for IKE set-ups, each with a Child SA, its data
plane and its route: CPU time a set-up and resident memory. The same initiator
(thousands of identities in this process) meets adit and charon in turn, each a
process of its own in network namespaces that are removed again. Needs root, and
Debian's strongSwan for charon. See docs/bench.md.`,
		Example: "  adit bench ike\n  adit bench ike --sas 1000,10000 --auth psk --rounds 5\n  adit bench ike --peer adit --sas 10000 --rounds 1 --profile /tmp/p",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out, o.Auth, o.Peers = cmd.OutOrStdout(), auth, peers
			return bench.IKE(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.IntSliceVar(&o.SAs, "sas", []int{1000, 10_000}, "numbers of SAs, one measurement each")
	f.StringSliceVar(&auth, "auth", auth, "authentication: psk, ecdsa")
	f.StringSliceVar(&peers, "peer", peers, "responders: "+strings.Join(peers, ", "))
	f.IntVar(&o.Rounds, "rounds", 3, "rounds; the medians count")
	f.IntVar(&o.Parallel, "parallel", 64, "set-ups under way at any time")
	f.DurationVar(&o.Settle, "settle", 5*time.Second, "wait before the memory is read")
	f.StringVar(&o.ProfileDir, "profile", "", "directory for CPU and heap profiles of the adit responder (see go tool pprof)")
	f.BoolVar(&o.KeepLog, "log", false, "print the end of the responder's log")
	return cmd
}
