package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"adit/conf"
	"adit/vici"
)

func drainCommand() *cobra.Command {
	var to string
	var rate int
	var closing, noWait, status bool
	cmd := &cobra.Command{
		Use: "drain", Short: "Empty the gateway for maintenance: send its peers to another one",
		Long: `Refuse new peers and send those that are there to another gateway, by IKEv2's REDIRECT
(RFC 5685). Then wait until the last one has left, and show how many are there. Tunnels
that this gateway has begun itself stay. Peers that do not know REDIRECT stay, too, unless
--close has their tunnels deleted; new ones of them get no answer. The end of this command,
by Ctrl-C too, does not end the draining: adit undrain does, or a restart of the gateway.`,
		Example: "  adit drain --to gw2.example.org\n  adit drain --to 192.0.2.2 --rate 50 --close",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			out := cmd.OutOrStdout()
			if status {
				m, err := called(cmd.Context(), c, "drain-state", nil)
				if err == nil {
					fmt.Fprintln(out, drainLine(m))
				}
				return err
			}
			msg := conf.New("")
			if to != "" {
				msg.Set("to", to)
			}
			if cmd.Flags().Changed("rate") {
				msg.Setf("rate", "%d", rate)
			}
			if closing {
				msg.Set("close", "yes")
			}
			if _, err := called(cmd.Context(), c, "drain", msg); err != nil || noWait {
				return err
			}
			return watchDrain(cmd.Context(), c, out)
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "address or name of the gateway to send peers to (none: nobody is redirected)")
	cmd.Flags().IntVar(&rate, "rate", 20, "how many peers a second are told")
	cmd.Flags().BoolVar(&closing, "close", false, "delete the tunnels of peers that cannot be redirected")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for the peers to leave")
	cmd.Flags().BoolVar(&status, "status", false, "only show how the draining stands")
	return cmd
}

func undrainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "undrain", Short: "Take peers again after adit drain", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err = called(cmd.Context(), c, "undrain", nil); err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), "new peers are taken again")
			}
			return err
		},
	}
}

// called calls a command whose answer tells success.
func called(ctx context.Context, c *vici.Client, command string, msg *conf.Section) (*conf.Section, error) {
	m, err := c.Call(ctx, command, msg)
	if err == nil && m.Text("success") != "yes" {
		err = errors.New(m.Text("errmsg"))
	}
	return m, err
}

// drainPause is the time between two looks.
const drainPause = 500 * time.Millisecond

// watchDrain shows how many peers are there until all have left, or only those that
// cannot be redirected.
func watchDrain(ctx context.Context, c *vici.Client, out io.Writer) error {
	live, last := isTerminal(out), ""
	for {
		m, err := called(ctx, c, "drain-state", nil)
		if err != nil {
			return err
		}
		line := drainLine(m)
		switch {
		case live:
			fmt.Fprintf(out, "\r%s\x1b[K", clip(line, columns-1))
		case line != last:
			fmt.Fprintln(out, line)
		}
		last = line
		done := number(m.Text("left")) == 0 && number(m.Text("waiting")) == 0
		stuck := number(m.Text("waiting")) == 0 && number(m.Text("left")) > 0 && number(m.Text("left")) <= number(m.Text("stay"))
		if done || stuck || m.Text("draining") != "yes" {
			if live {
				fmt.Fprintln(out)
			}
			switch {
			case m.Text("draining") != "yes":
				return errors.New("the draining was ended by somebody else")
			case stuck:
				return fmt.Errorf("%s left that cannot be redirected; --close deletes their tunnels", peers(number(m.Text("left"))))
			}
			return nil
		}
		select {
		case <-ctx.Done():
			if live {
				fmt.Fprintln(out)
			}
			fmt.Fprintln(out, "the gateway goes on draining; adit undrain ends it")
			return exitCode(1)
		case <-time.After(drainPause):
		}
	}
}

func peers(n int64) string {
	if n == 1 {
		return "1 peer is"
	}
	return fmt.Sprintf("%d peers are", n)
}

// drainLine is the state in one line.
func drainLine(m *conf.Section) string {
	if m.Text("draining") != "yes" {
		return fmt.Sprintf("not draining, %s here", peers(number(m.Text("left"))))
	}
	line := fmt.Sprintf("draining: %s here; %s of %s redirected", peers(number(m.Text("left"))), m.Text("told"), m.Text("found"))
	for _, x := range [...][2]string{{"closed", "closed"}, {"stay", "cannot be"}, {"waiting", "to come"}} {
		if n := m.Text(x[0]); n != "0" {
			line += ", " + n + " " + x[1]
		}
	}
	if n := m.Text("own"); n != "0" {
		line += "; " + n + " of our own stay"
	}
	return line
}
