package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"adit/conf"
	"adit/internal/config"
)

func checkCommand() *cobra.Command {
	var asJSON, strict bool
	cmd := &cobra.Command{
		Use: "check [FILE]", Short: "Check a swanctl.conf without loading it",
		Long: `Check a swanctl.conf: grammar, options, values and what belongs together, with the
certificates and keys in the directories beside it. Every error names file and
line, what is wrong and the nearest known option. Warnings tell of what is allowed
and bites: overlapping selectors, lifetimes that end together, weak algorithms and
secrets, certificates without their keys or that clients refuse, and names that no
certificate confirms. Without FILE it checks swanctl.conf in $SWANCTL_DIR or
/etc/swanctl. The exit code is 1 if anything is wrong, and with --strict 2 if there
are warnings.`,
		Example: "  adit check /etc/swanctl/swanctl.conf\n  adit check --strict --json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := configFile(args)
			d, err := config.LoadDaemon(config.DaemonFile(""))
			if err != nil {
				return err
			}
			m, err := config.Check(file, d)
			warnings := d.Warnings
			if err == nil {
				warnings = slices.Concat(warnings, m.Warnings, acmeWarnings(d))
			}
			switch {
			case asJSON:
				if e := checkJSON(cmd.OutOrStdout(), file, err, warnings); e != nil {
					return e
				}
			case err != nil:
				fmt.Fprintln(cmd.OutOrStdout(), err)
			default:
				for _, w := range warnings {
					fmt.Fprintf(cmd.OutOrStdout(), "%s: warning: %s\n", w.Pos, w.Text)
				}
				fmt.Fprintln(cmd.OutOrStdout(), summary(file, m))
			}
			switch {
			case err != nil:
				return exitCode(1)
			case strict && len(warnings) > 0:
				return exitCode(2)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs")
	cmd.Flags().BoolVar(&strict, "strict", false, "exit with 2 if there are warnings")
	return cmd
}

func summary(file string, m *config.Model) string {
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
	return out
}

// remark is one error or warning of `adit check --json`.
type remark struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	Text string `json:"text"`
}

func checkJSON(out io.Writer, file string, err error, warnings []config.Warning) error {
	v := struct {
		File     string   `json:"file"`
		Errors   []remark `json:"errors"`
		Warnings []remark `json:"warnings"`
	}{file, []remark{}, []remark{}}
	for _, e := range split(err) {
		var at *conf.Error
		if errors.As(e, &at) {
			v.Errors = append(v.Errors, remark{at.Pos.File, at.Pos.Line, strings.TrimPrefix(e.Error(), at.Pos.String()+": ")})
		} else {
			v.Errors = append(v.Errors, remark{Text: e.Error()})
		}
	}
	for _, w := range warnings {
		v.Warnings = append(v.Warnings, remark{w.Pos.File, w.Pos.Line, w.Text})
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// split takes joined errors apart.
func split(err error) []error {
	if list, ok := err.(interface{ Unwrap() []error }); ok {
		return list.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
