package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"adit/conf"
	"adit/internal/logging"
)

func healthCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "health", Short: "Tell whether every part of the gateway answers",
		Long: `Tell whether every thread of the gateway answers: the engine, the job pool, the
data plane's workers, the one that changes the host, and the log. Exit code 0: all
do; 1: one does not, or there is no gateway.`,
		Example: "  adit health && echo well\n  adit health --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			m, err := c.Call(cmd.Context(), "health", nil)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				b, err := json.MarshalIndent(plain(m), "", "  ")
				if err != nil {
					return err
				}
				fmt.Fprintf(out, "%s\n", b)
			} else {
				for p := range m.Sub("parts").Sections() {
					state := "answers"
					if ms := number(p.Text("silent-ms")); p.Text("ok") != "yes" {
						state = fmt.Sprintf("has not answered for %v", (time.Duration(ms) * time.Millisecond).Truncate(time.Second))
					}
					fmt.Fprintf(out, "%-14s %s\n", p.Name, state)
				}
				for c := range m.Sub("certificates").Sections() {
					state := "until " + c.Text("until")
					if c.Text("until") == "" {
						state = "is not there"
					}
					if e := c.Text("error"); e != "" {
						state += ", " + e + "; next attempt at " + c.Text("next")
					}
					fmt.Fprintf(out, "%-14s %s\n", "certificate", logging.Printable(c.Name+" "+state))
				}
				for t := range m.Sub("logs").Sections() {
					state := "is written"
					if e := t.Text("error"); e != "" {
						state = "cannot be written: " + logging.Printable(e)
					} else if ms := number(t.Text("stalled-ms")); ms > 0 {
						state = fmt.Sprintf("has been stuck for %v", (time.Duration(ms) * time.Millisecond).Truncate(time.Second))
					}
					if lost := t.Text("lost"); lost != "0" {
						state += ", " + lost + " lines were lost"
					}
					fmt.Fprintf(out, "%-14s %s\n", "log "+logging.Printable(t.Name), state)
				}
			}
			if m.Text("healthy") != "yes" {
				return exitCode(1)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

// plain is a tree as JSON has it.
func plain(s *conf.Section) map[string]any {
	out := map[string]any{}
	for e := range s.All() {
		if e.Section != nil {
			out[e.Section.Name] = plain(e.Section)
		} else if e.Value.IsList {
			out[e.Value.Key] = e.Value.List
		} else {
			out[e.Value.Key] = e.Value.Text
		}
	}
	return out
}

// number reads a decimal number of an answer, 0 if it is none.
func number(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}
