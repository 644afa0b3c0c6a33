package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"adit"
	"adit/conf"
	"adit/internal/config"
	"adit/vici"
)

// dial connects to the control socket that the flag, strongswan.conf or the default names.
func dial(ctx context.Context) (*vici.Client, error) {
	uri := viciURI
	if uri == "" {
		d, err := config.LoadDaemon(config.DaemonFile(""))
		if err != nil {
			return nil, err
		}
		uri = d.VICISocket
	}
	c, err := adit.Dial(ctx, uri)
	if err != nil {
		return nil, fmt.Errorf("no gateway answers on %s (is `adit run` running?): %w", uri, err)
	}
	return c, nil
}

// actOn has a command act on the child or connection of that name, waits at most
// timeout seconds (0: as long as it takes), shows what happens, and says what became of it.
func actOn(cmd *cobra.Command, command, name string, timeout int, verbose bool, msg *conf.Section, became string) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	kind, err := kindOf(ctx, name)
	if err != nil {
		return err
	}
	msg.Set(kind, name)
	if timeout > 0 {
		msg.Setf("timeout", "%d", timeout*1000)
	}
	c, err := dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	p := newProgress(out, name, verbose)
	res, err := c.Stream(ctx, command, "control-log", msg, func(line *conf.Section) error {
		return p.line(line.Text("group"), line.Text("msg"))
	})
	p.end()
	if err != nil {
		return err
	}
	if res.Text("success") != "yes" {
		return errors.New(res.Text("errmsg"))
	}
	fmt.Fprintln(out, name, became)
	return nil
}

const verboseUsage = "show the log's lines on a terminal, too, where else one line tells the step"

func upCommand() *cobra.Command {
	var timeout int
	var verbose bool
	cmd := &cobra.Command{
		Use: "up NAME", Short: "Bring a child (or, with no child of that name, a connection) up",
		Example: "  adit up net-net\n  adit up net-net --timeout 10",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			return actOn(cmd, "initiate", args[0], timeout, verbose, conf.New(""), "is up")
		},
	}
	cmd.Flags().IntVar(&timeout, "timeout", 0, "seconds to wait (0: until it is up or was given up)")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, verboseUsage)
	return cmd
}

func downCommand() *cobra.Command {
	var timeout int
	var force, verbose bool
	cmd := &cobra.Command{
		Use: "down NAME", Short: "Close the SAs of a child or connection",
		Example: "  adit down net-net\n  adit down gw --force",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			msg := conf.New("")
			if force {
				msg.Set("force", "yes")
			}
			return actOn(cmd, "terminate", args[0], timeout, verbose, msg, "is down")
		},
	}
	cmd.Flags().IntVar(&timeout, "timeout", 0, "seconds to wait (0: until the peer answered or was given up)")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, verboseUsage)
	cmd.Flags().BoolVar(&force, "force", false, "do not wait for the peer's answer")
	return cmd
}

// kindOf tells whether a name is a child's or a connection's; a child goes first.
func kindOf(ctx context.Context, name string) (string, error) {
	conns, err := list(ctx, "list-conns", "list-conn")
	if err != nil {
		return "", err
	}
	var known []string
	kind := ""
	for _, body := range conns {
		for conn := range body.Sections() {
			known = append(known, conn.Name)
			if conn.Name == name && kind == "" {
				kind = "ike"
			}
			if children := conn.Sub("children"); children != nil {
				for child := range children.Sections() {
					known = append(known, child.Name)
					if child.Name == name {
						kind = "child"
					}
				}
			}
		}
	}
	if kind != "" {
		return kind, nil
	}
	return "", noSuchName(name, known)
}

// unknownName is the error for a name that nothing has.
func unknownName(ctx context.Context, name string) error {
	_, err := kindOf(ctx, name)
	return err
}

func noSuchName(name string, known []string) error {
	if near := conf.Nearest(name, known); near != "" {
		return fmt.Errorf("no child or connection is called %q; did you mean %q?", name, near)
	}
	return fmt.Errorf("no child or connection is called %q", name)
}

func completeNames(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if len(args) == 0 {
		conns, _ := list(cmd.Context(), "list-conns", "list-conn")
		for _, body := range conns {
			for conn := range body.Sections() {
				names = append(names, conn.Name)
				if children := conn.Sub("children"); children != nil {
					for child := range children.Sections() {
						names = append(names, child.Name)
					}
				}
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// list collects the events that a listing command streams.
func list(ctx context.Context, command, event string) ([]*conf.Section, error) {
	c, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var out []*conf.Section
	_, err = c.Stream(ctx, command, event, nil, func(body *conf.Section) error {
		out = append(out, body)
		return nil
	})
	return out, err
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintf(cmd.OutOrStdout(), "adit %s (%s, %s/%s)\n", adit.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}
