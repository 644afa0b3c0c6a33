package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"adit/conf"
	"adit/internal/config"
	"adit/internal/explain"
)

func explainCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "explain [NAME]", Short: "Say why a tunnel isn't up and which line of the configuration to change",
		Long: `Say why a connection or a child isn't up, in plain words: a verdict, what is known of
it, and which option to change, with file and line. Of a tunnel that is up it says
what is odd: NATs, nothing coming in, packets dropped. Without NAME all connections
are told. The exit code is 0 if what was asked for is up, 1 if not, 2 if nothing of
that name is loaded or nobody could be asked.`,
		Example: "  adit explain net-net\n  adit explain --json",
		Args: func(cmd *cobra.Command, args []string) error {
			return badly(cobra.MaximumNArgs(1)(cmd, args))
		},
		ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			msg := conf.New("")
			if len(args) == 1 {
				msg.Set("name", args[0])
			}
			c, err := dial(cmd.Context())
			if err != nil {
				return badly(err)
			}
			defer c.Close()
			var reports []explain.Report
			if _, err = c.Stream(cmd.Context(), "explain", "explain", msg, func(m *conf.Section) error {
				reports = append(reports, explain.Parse(m)...)
				return nil
			}); err != nil {
				return badly(err)
			}
			locate(reports, configFile(nil))
			if asJSON {
				err = explainJSON(cmd.OutOrStdout(), reports)
			} else {
				err = explainText(cmd.OutOrStdout(), reports)
			}
			if err != nil {
				return err
			}
			return explained(reports)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs")
	return cmd
}

// badly says an error and ends with 2: 1 would mean that the tunnel is down.
func badly(err error) error {
	if err == nil {
		return nil
	}
	fmt.Fprintln(os.Stderr, "adit:", err)
	return exitCode(2)
}

// explained is the exit code: the worst of all reports.
func explained(reports []explain.Report) error {
	code := 0
	for _, r := range reports {
		switch r.State {
		case explain.Up:
		case explain.Unknown:
			code = 2
		default:
			code = max(code, 1)
		}
	}
	if code == 0 {
		return nil
	}
	return exitCode(code)
}

// locate fills in where options are written that the gateway got over VICI: it does
// not know the file, which whoever asks can mostly read.
func locate(reports []explain.Report, file string) {
	var places *config.Places
	for i := range reports {
		for j := range reports[i].Changes {
			c := &reports[i].Changes[j]
			if c.Option == "" || c.At != "" {
				continue
			}
			if places == nil {
				var err error
				if places, err = config.LocateIn(file); err != nil {
					return
				}
			}
			if pos, given := places.Find(c.Option); pos.IsValid() {
				if c.At = fmt.Sprintf("%s:%d", pos.File, pos.Line); !given {
					c.Text = strings.TrimSuffix(c.Text, ".") + explain.NotGiven
				}
			}
		}
	}
}

func explainText(out io.Writer, reports []explain.Report) error {
	for i, r := range reports {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if _, err := io.WriteString(out, r.Text(columns)); err != nil {
			return err
		}
	}
	if len(reports) == 0 {
		_, err := fmt.Fprintln(out, "No connection is loaded.")
		return err
	}
	return nil
}

func explainJSON(out io.Writer, reports []explain.Report) error {
	type change struct {
		Text   string `json:"text"`
		Option string `json:"option,omitempty"`
		At     string `json:"at,omitempty"`
	}
	type refusal struct {
		First  time.Time      `json:"first"`
		Last   time.Time      `json:"last"`
		Count  int            `json:"count"`
		Mended *time.Time     `json:"mended,omitempty"`
		Record map[string]any `json:"record"`
	}
	type report struct {
		Name    string    `json:"name"`
		State   string    `json:"state"`
		Verdict string    `json:"verdict"`
		Facts   []string  `json:"facts"`
		Changes []change  `json:"changes"`
		Records []refusal `json:"records"`
	}
	list := make([]report, 0, len(reports))
	for _, r := range reports {
		v := report{r.Name, string(r.State), r.Verdict, slices.Concat([]string{}, r.Facts), []change{}, []refusal{}}
		for _, c := range r.Changes {
			v.Changes = append(v.Changes, change(c))
		}
		for _, x := range r.Records {
			f := refusal{First: x.First, Last: x.Last, Count: x.Count, Record: map[string]any{}}
			if !x.Mended.IsZero() {
				f.Mended = &x.Mended
			}
			for _, k := range x.Fields {
				if f.Record[k.Name] = k.Value; k.List != nil {
					f.Record[k.Name] = k.List
				}
			}
			v.Records = append(v.Records, f)
		}
		list = append(list, v)
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(list)
}
