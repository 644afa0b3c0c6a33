package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"adit"
	"adit/conf"
	"adit/internal/acme"
	"adit/internal/config"
	"adit/internal/logging"
	"adit/vici"
)

// acmeLimit is how long the authority may take for all certificates.
const acmeLimit = 10 * time.Minute

func acmeCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "acme [NAME]", Short: "Get or renew certificates by ACME now, and say what fails",
		Long: `Get the certificates of section adit.acme of strongswan.conf from their authority by
ACME, if they are not there or are due, or the one of that name alone. The gateway
does that by itself, and in time; this command shows at once whether it works. It has
the gateway do it if one runs, else it does it itself.`,
		Example: "  adit pki acme\n  adit pki acme vpn --force",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), acmeLimit)
			defer cancel()
			c, err := dial(ctx)
			if err != nil {
				return renewHere(ctx, cmd.OutOrStdout(), name, force)
			}
			defer c.Close()
			return renewThere(ctx, cmd.OutOrStdout(), c, name, force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "renew what is not due, too")
	return cmd
}

// renewThere has the running gateway renew.
func renewThere(ctx context.Context, out io.Writer, c *vici.Client, name string, force bool) error {
	body := conf.New("")
	if name != "" {
		body.Set("name", name)
	}
	if force {
		body.Set("force", "yes")
	}
	m, err := c.Call(ctx, "renew-certs", body)
	switch {
	case errors.Is(err, vici.ErrUnknownCommand):
		return errors.New("the daemon that answers is not adit, or an older one")
	case err != nil:
		return err
	}
	printCertificates(out, m)
	if m.Text("success") != "yes" {
		return errors.New(m.Text("errmsg"))
	}
	return nil
}

// renewHere renews without a gateway.
func renewHere(ctx context.Context, out io.Writer, name string, force bool) error {
	d, err := config.LoadDaemon(config.DaemonFile(""))
	if err != nil {
		return err
	}
	k := acme.New(acme.Options{Dir: d.ACMEDir(), Version: adit.Version, Log: slog.New(slog.DiscardHandler)})
	defer k.Close()
	n := 0
	var errs []error
	for _, c := range d.ACME {
		if name != "" && c.Name != name {
			continue
		}
		n++
		s, err := k.Once(ctx, c, force)
		printCertificate(out, c.Name, s.Serial, s.NotAfter.UTC().Format(time.RFC3339), s.Renew.UTC().Format(time.RFC3339))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Name, err))
		}
	}
	if n == 0 {
		return errors.New("there is no such section in adit.acme of strongswan.conf")
	}
	return errors.Join(errs...)
}

// printCertificates prints how things are with the certificates of adit.acme.
func printCertificates(out io.Writer, m *conf.Section) {
	for c := range m.Sub("certificates").Sections() {
		printCertificate(out, c.Name, c.Text("serial"), c.Text("until"), c.Text("renewal"))
	}
}

func printCertificate(out io.Writer, name, serial, until, renewal string) {
	state := "there is none"
	if serial != "" {
		state = "serial number " + serial + ", until " + until + ", renewal at " + renewal
	}
	fmt.Fprintln(out, logging.Printable(name+": "+state))
}

// acmeWarnings tells which certificates could not be had or renewed.
func acmeWarnings(d config.Daemon) (list []config.Warning) {
	k := acme.New(acme.Options{Dir: d.ACMEDir()})
	for _, c := range d.ACME {
		if s := k.Look(c); s.Error != "" {
			list = append(list, config.Warning{Pos: c.Pos, Text: fmt.Sprintf("adit.acme.%s: the last attempt failed on %s, the next is on %s: %s",
				c.Name, s.Failed.UTC().Format(time.RFC3339), s.Next.UTC().Format(time.RFC3339), s.Error)})
		}
	}
	return list
}
