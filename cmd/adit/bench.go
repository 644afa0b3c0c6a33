package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"adit/internal/bench"
	"adit/internal/bench/traffic"
	"adit/internal/bench/tunnel"
)

func benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the gateway beside others",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(benchIKECommand(), benchUsersCommand(), benchTunnelCommand(), benchHostCommand())
	return cmd
}

func benchTunnelCommand() *cobra.Command {
	o := tunnel.Options{Length: 3 * time.Second, Rounds: 5}
	seconds := o.Length.Seconds()
	cmd := &cobra.Command{
		Use:   "tunnel",
		Short: "Tunnels: throughput, latency, CPU time and memory beside other VPNs",
		Long: `Measure what goes through a tunnel between two hosts, all in network namespaces of
this machine that are removed again: plain forwarding, adit, wireguard-go (built
from the Go module proxy once, into the user's cache), and where they are installed
strongSwan's kernel-libipsec, OpenVPN and DPDK's ipsec-secgw, in rounds of changing
order. TCP with 1 and 4 streams in both directions, UDP of 64, 512 and 1300 bytes at
the highest rate of which at most 1 % is lost, round trips idle and under load, the
gateways' CPU time per GB and resident memory; the SHA-256 of a file is compared at
both ends. Needs root. A measurement is made again when other processes took more than
5 % of a core. bench/README.md says what the figures mean.`,
		Example: "  adit bench tunnel --json r.json --svg r.svg\n  adit bench tunnel --contenders plain,adit,wireguard-go --rounds 3\n  adit bench tunnel --quick",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out, o.Progress, o.Terminal = cmd.OutOrStdout(), cmd.ErrOrStderr(), isTerminal(cmd.ErrOrStderr())
			o.Length = time.Duration(seconds * float64(time.Second))
			if o.Quick {
				if !cmd.Flags().Changed("seconds") {
					o.Length = 0
				}
				if !cmd.Flags().Changed("rounds") {
					o.Rounds = 0
				}
			}
			return tunnel.Run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.Contenders, "contenders", tunnel.DefaultContenders, "who is measured; there are adit-raw and adit-other, too")
	f.StringSliceVar(&o.Measures, "measures", nil, "what is measured (default: the usual ones); any of "+strings.Join(tunnel.Measures(), ", "))
	f.IntVar(&o.Rounds, "rounds", o.Rounds, "rounds; the medians count")
	f.Float64Var(&seconds, "seconds", seconds, "length of one measurement of throughput")
	f.BoolVar(&o.Quick, "quick", false, "one round of 0.3 seconds: to see that it works, not for figures")
	f.StringVar(&o.JSON, "json", "", "file for all samples, the machine and the versions")
	f.StringVar(&o.SVG, "svg", "", "file for a plot")
	f.StringVar(&o.Other, "other-adit", "", "an adit of another version, the contender adit-other")
	f.StringVar(&o.WireGuard, "wireguard-go", "", "a wireguard-go to be measured instead of building one")
	f.StringVar(&o.Secgw, "secgw", "", "a dpdk-ipsec-secgw (looked for in PATH)")
	return cmd
}

// benchHostCommand is what a benchmark runs in the namespaces of its hosts.
func benchHostCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "host SOCKET",
		Short:  "Be a host of adit bench tunnel",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return traffic.Serve(cmd.Context(), args[0])
		},
	}
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
		Example: "  adit bench ike\n  adit bench ike --sas 1000,10000 --auth psk --rounds 5\n  adit bench ike --peer adit --sas 10000 --rounds 1 --profile /tmp/p\n  adit bench ike --peer adit,charon --auth psk --sas 15000 --rounds 1 --list",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out, o.Auth, o.Peers = cmd.OutOrStdout(), auth, peers
			return bench.IKE(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.IntSliceVar(&o.SAs, "sas", []int{1000, 10_000}, "numbers of SAs, one measurement each")
	f.StringSliceVar(&auth, "auth", auth, "authentication: psk, ecdsa, mlkem (psk and ML-KEM-768)")
	f.StringSliceVar(&peers, "peer", peers, "responders: "+strings.Join(peers, ", "))
	f.IntVar(&o.Rounds, "rounds", 3, "rounds; the medians count")
	f.IntVar(&o.Parallel, "parallel", 64, "set-ups under way at any time")
	f.DurationVar(&o.Settle, "settle", 5*time.Second, "wait before the memory is read")
	f.BoolVar(&o.List, "list", false, "measure swanctl --list-sas, too, among set-ups and at rest")
	f.StringVar(&o.ProfileDir, "profile", "", "directory for CPU and heap profiles of the adit responder (see go tool pprof)")
	f.BoolVar(&o.KeepLog, "log", false, "print the end of the responder's log")
	return cmd
}

func benchUsersCommand() *cobra.Command {
	var o bench.CrowdOptions
	atOnce := false
	cmd := &cobra.Command{
		Use:   "users",
		Short: "Remote access: thousands of users who come at about the same time",
		Long: `Let thousands of users come to one gateway, each from an address of its own, with a
name, a password (EAP-MSCHAPv2) and the wish for an address of the pool, whose leases are
written to the disk. Clients repeat what is lost as strongSwan's do, and who is sent away
stays away. It is printed who was left out and why, what a set-up took, CPU time and memory
a user, and what a packet costs with that many users. Needs root. The gateway is a process
of its own with its usual settings, in network namespaces that are removed again; the
clients have the lowest priority on the same cores. See docs/bench.md. The exit code is 1
if a user was left out.`,
		Example: "  adit bench users\n  adit bench users --users 10000 --at-once\n  adit bench users --users 1000 --within 10s --packets 0",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Out = cmd.OutOrStdout(); atOnce {
				o.Within = 0
			}
			return bench.Users(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.IntSliceVar(&o.Users, "users", []int{1, 1000, 10_000}, "numbers of users, one measurement each")
	f.DurationVar(&o.Within, "within", time.Minute, "time in which the most of them come; fewer come at the same rate")
	f.BoolVar(&atOnce, "at-once", false, "all come at the same instant")
	f.DurationVar(&o.Wait, "wait", 2*time.Minute, "how long late ones are waited for")
	f.DurationVar(&o.Settle, "settle", 5*time.Second, "wait before the memory is read")
	f.DurationVar(&o.Packets, "packets", time.Second, "how long packets are sent for each figure; 0: none")
	f.StringVar(&o.ProfileDir, "profile", "", "directory for CPU and heap profiles of the gateway (see go tool pprof)")
	f.BoolVar(&o.KeepLog, "log", false, "print the end of the gateway's log")
	return cmd
}
