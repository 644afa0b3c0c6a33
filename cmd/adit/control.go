package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"text/tabwriter"

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

// act sends a command, shows the log lines that belong to it, and says how it went.
func act(ctx context.Context, out io.Writer, command string, msg *conf.Section) error {
	c, err := dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	res, err := c.Stream(ctx, command, "control-log", msg, func(line *conf.Section) error {
		_, err := fmt.Fprintf(out, "[%s] %s\n", line.Text("group"), line.Text("msg"))
		return err
	})
	if err != nil {
		return err
	}
	if res.Text("success") != "yes" {
		return errors.New(res.Text("errmsg"))
	}
	return nil
}

// actOn has a command act on the child or connection of that name, waits at most
// timeout seconds (0: as long as it takes), and says what became of it.
func actOn(cmd *cobra.Command, command, name string, timeout int, msg *conf.Section, became string) error {
	kind, err := kindOf(cmd.Context(), name)
	if err != nil {
		return err
	}
	msg.Set(kind, name)
	if timeout > 0 {
		msg.Setf("timeout", "%d", timeout*1000)
	}
	if err := act(cmd.Context(), cmd.OutOrStdout(), command, msg); err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), name, became)
	return nil
}

func upCommand() *cobra.Command {
	var timeout int
	cmd := &cobra.Command{
		Use: "up NAME", Short: "Bring a child (or, with no child of that name, a connection) up",
		Example: "  adit up net-net\n  adit up net-net --timeout 10",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			return actOn(cmd, "initiate", args[0], timeout, conf.New(""), "is up")
		},
	}
	cmd.Flags().IntVar(&timeout, "timeout", 0, "seconds to wait (0: until it is up or was given up)")
	return cmd
}

func downCommand() *cobra.Command {
	var timeout int
	var force bool
	cmd := &cobra.Command{
		Use: "down NAME", Short: "Close the SAs of a child or connection",
		Example: "  adit down net-net\n  adit down gw --force",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			msg := conf.New("")
			if force {
				msg.Set("force", "yes")
			}
			return actOn(cmd, "terminate", args[0], timeout, msg, "is down")
		},
	}
	cmd.Flags().IntVar(&timeout, "timeout", 0, "seconds to wait (0: until the peer answered or was given up)")
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
	if near := conf.Nearest(name, known); near != "" {
		return "", fmt.Errorf("no child or connection is called %q; did you mean %q?", name, near)
	}
	return "", fmt.Errorf("no child or connection is called %q", name)
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

func logCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use: "log", Short: "Show what the gateway logs, as it happens",
		Example: "  adit log -f",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !follow {
				return errors.New("the gateway keeps no history: use -f to follow, or read the log of the service (journalctl -u adit)")
			}
			c, err := dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			for e, err := range c.Listen(cmd.Context(), "log") {
				if err != nil {
					if cmd.Context().Err() != nil {
						return nil
					}
					return err
				}
				who := ""
				if name := e.Body.Text("ikesa-name"); name != "" {
					who = fmt.Sprintf(" %s[%s]", name, e.Body.Text("ikesa-uniqueid"))
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s%s %s\n", e.Body.Text("group"), who, e.Body.Text("msg"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on showing new lines")
	return cmd
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

func statusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show connections, IKE SAs and Child SAs",
		Example: "  adit status\n  adit status --json | jq '.sas[].children'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := readStatus(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(st)
			}
			st.print(cmd.OutOrStdout())
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs")
	return cmd
}

// status is what `adit status --json` prints: VICI's own keys and values.
type status struct {
	Daemon      map[string]any   `json:"daemon"`
	Stats       map[string]any   `json:"stats"`
	Connections []map[string]any `json:"connections"`
	SAs         []map[string]any `json:"sas"`
}

func readStatus(ctx context.Context) (*status, error) {
	c, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	st := &status{Connections: []map[string]any{}, SAs: []map[string]any{}}
	for _, q := range []struct {
		command string
		into    *map[string]any
	}{{"version", &st.Daemon}, {"stats", &st.Stats}} {
		m, err := c.Call(ctx, q.command, conf.New(""))
		if err != nil {
			return nil, err
		}
		*q.into = asMap(m)
	}
	for _, q := range []struct {
		command, event string
		into           *[]map[string]any
	}{{"list-conns", "list-conn", &st.Connections}, {"list-sas", "list-sa", &st.SAs}} {
		_, err := c.Stream(ctx, q.command, q.event, nil, func(body *conf.Section) error {
			for sec := range body.Sections() {
				m := asMap(sec)
				m["name"] = sec.Name
				*q.into = append(*q.into, m)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return st, nil
}

// asMap turns a message into what JSON can show. Sections become objects, lists arrays.
func asMap(s *conf.Section) map[string]any {
	m := map[string]any{}
	for e := range s.All() {
		switch {
		case e.Section != nil:
			m[e.Section.Name] = asMap(e.Section)
		case e.Value.IsList:
			m[e.Value.Key] = append([]string{}, e.Value.List...)
		default:
			m[e.Value.Key] = e.Value.Text
		}
	}
	return m
}

func (st *status) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "adit %v, up %v, %v IKE SAs (%v half-open)\n", st.Daemon["version"], dig(st.Stats, "uptime", "running"),
		dig(st.Stats, "ikesas", "total"), dig(st.Stats, "ikesas", "half-open"))
	if drops, _ := st.Stats["drops"].(map[string]any); drops != nil {
		var parts []string
		for _, k := range sortedKeys(drops) {
			if drops[k] != "0" {
				parts = append(parts, fmt.Sprintf("%s %v", k, drops[k]))
			}
		}
		if parts != nil {
			fmt.Fprintf(out, "dropped: %s\n", strings.Join(parts, ", "))
		}
	}
	up := map[string]bool{}
	for _, sa := range st.SAs {
		fmt.Fprintf(w, "%v[%v]\t%v\t%v[%v] … %v[%v]\t%v/%v\t%vs\n", sa["name"], sa["uniqueid"], sa["state"], sa["local-host"], sa["local-id"],
			sa["remote-host"], or(sa["remote-eap-id"], sa["remote-id"]), sa["encr-alg"], sa["dh-group"], or(sa["established"], "0"))
		for _, v := range []struct{ key, whose string }{{"local-vips", "our"}, {"remote-vips", "the peer's"}} {
			if list := words(sa[v.key]); list != "" {
				fmt.Fprintf(w, "  %s virtual addresses\t\t%s\t\t\n", v.whose, list)
			}
		}
		children, _ := sa["child-sas"].(map[string]any)
		for _, k := range sortedKeys(children) {
			c := children[k].(map[string]any)
			up[fmt.Sprintf("%v/%v", sa["name"], c["name"])] = true
			udp := ""
			if c["encap"] == "yes" {
				udp = " in UDP"
			}
			fmt.Fprintf(w, "  %v{%v}\t%v\t%v … %v\t%v%s %v\tin %v B, out %v B\n", c["name"], c["uniqueid"], c["state"], words(c["local-ts"]),
				words(c["remote-ts"]), c["mode"], udp, or(c["encr-alg"], ""), or(c["bytes-in"], "0"), or(c["bytes-out"], "0"))
		}
	}
	for _, conn := range st.Connections {
		children, _ := conn["children"].(map[string]any)
		for _, k := range sortedKeys(children) {
			if up[fmt.Sprintf("%v/%s", conn["name"], k)] {
				continue
			}
			c := children[k].(map[string]any)
			state := "down"
			if c["mode"] == "PASS" || c["mode"] == "DROP" {
				state = "in force"
			}
			fmt.Fprintf(w, "  %s/%s\t%s\t%v … %v\t%v\t\n", conn["name"], k, state, words(c["local-ts"]), words(c["remote-ts"]), c["mode"])
		}
	}
	w.Flush()
}
