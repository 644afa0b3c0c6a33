package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"adit/conf"
	"adit/internal/config"
	"adit/vici"
)

// configFile is the file that a command works on: the one given, or the default.
func configFile(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	return filepath.Join(cmp.Or(os.Getenv("SWANCTL_DIR"), "/etc/swanctl"), "swanctl.conf")
}

// planned is a command and what the gateway says that it would change: none, add,
// change, remove, or nothing at all where the daemon cannot say (it isn't adit).
type planned struct {
	config.Step
	change string
	answer *conf.Section
}

// readPush reads the file and strongswan.conf.
func readPush(args []string) (*config.Push, error) {
	d, err := config.LoadDaemon(config.DaemonFile(""))
	if err != nil {
		return nil, err
	}
	return config.LoadPush(configFile(args), d)
}

// unloads are the commands that take away what is loaded and not in the configuration.
func unloads(ctx context.Context, c *vici.Client, p *config.Push) (steps []config.Step, err error) {
	wanted := map[string][]string{}
	for _, s := range p.Steps {
		name := s.Body.Text("id")
		for sub := range s.Body.Sections() {
			name = sub.Name
		}
		wanted[s.Command] = append(wanted[s.Command], name)
	}
	for _, k := range p.Model.Keys {
		wanted["key"] = append(wanted["key"], k.ID)
	}
	for _, part := range []struct{ list, key, load, unload, field, what string }{
		{"get-conns", "conns", "load-conn", "unload-conn", "name", "connection"},
		{"get-pools", "", "load-pool", "unload-pool", "name", "pool"},
		{"get-authorities", "authorities", "load-authority", "unload-authority", "name", "authority"},
		{"get-keys", "keys", "key", "unload-key", "id", "key"},
		{"get-shared", "keys", "load-shared", "unload-shared", "id", "secret"},
	} {
		m, err := c.Call(ctx, part.list, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", part.list, err)
		}
		v, _ := m.Get(part.key)
		names := slices.Clone(v.List)
		for s := range m.Sections() {
			names = append(names, s.Name)
		}
		for _, name := range names {
			if !slices.Contains(wanted[part.load], name) {
				body := conf.New("")
				body.Set(part.field, name)
				steps = append(steps, config.Step{Command: part.unload, Body: body, What: part.what + " " + name})
			}
		}
	}
	if len(p.Model.Users) == 0 {
		steps = append(steps, config.Step{Command: "load-users", Body: config.UserSteps(nil)[0].Body, What: "users"})
	}
	body := conf.New("")
	hashes := []string{}
	for _, cert := range p.Model.Certs {
		sum := sha256.Sum256(cert.DER)
		hashes = append(hashes, hex.EncodeToString(sum[:]))
	}
	body.SetList("sha256", hashes...)
	return append(steps, config.Step{Command: "retain-certs", Body: body, What: "certificates that are not in the directories any more"}), nil
}

// planSteps asks what the commands would change. Nothing is sent if one of them is refused.
func planSteps(ctx context.Context, c *vici.Client, p *config.Push) (list []planned, err error) {
	gone, err := unloads(ctx, c, p)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, s := range slices.Concat(p.Steps, gone) {
		msg := conf.New("")
		msg.Set("command", s.Command)
		body := msg.Add("body")
		for e := range s.Body.All() {
			if e.Section != nil {
				body.Attach(e.Section)
			} else {
				body.SetValue(e.Value)
			}
		}
		m, err := c.Call(ctx, "plan", msg)
		switch {
		case errors.Is(err, vici.ErrUnknownCommand):
			list = append(list, planned{Step: s})
		case err != nil:
			return nil, fmt.Errorf("%s: %w", s.What, err)
		case m.Text("success") != "yes":
			errs = append(errs, refusal(s, m.Text("errmsg")))
		default:
			list = append(list, planned{s, m.Text("change"), m})
		}
	}
	return list, errors.Join(errs...)
}

func refusal(s config.Step, why string) error {
	if s.Pos.IsValid() {
		return fmt.Errorf("%s: %s: %s", s.Pos, s.What, why)
	}
	return fmt.Errorf("%s: %s", s.What, why)
}

func planCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "plan [FILE]", Short: "Say what a reload would do to tunnels, and do nothing",
		Long: `Compare a swanctl.conf, with the files beside it, to what the running gateway has
loaded, and say which connections, secrets and certificates a reload would add,
change or remove: the options that differ with their old and new values, which
SAs would be closed or started, which stay as they are until they are rekeyed, and
what becomes of traps and the guard. Nothing is changed. The exit code is 0 if a
reload would change nothing, 2 if it would, and 1 for an error.`,
		Example: "  adit plan\n  adit plan /root/new/swanctl.conf --json | jq '.changes[].what'",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := readPush(args)
			if err != nil {
				return err
			}
			c, err := dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			list, err := planSteps(cmd.Context(), c, p)
			if err != nil {
				return err
			}
			changes := slices.DeleteFunc(slices.Clone(list), func(s planned) bool { return s.change == "none" })
			if slices.ContainsFunc(changes, func(s planned) bool { return s.change == "" }) {
				return errors.New("the daemon that answers cannot plan: it is not adit, or an older one")
			}
			if asJSON {
				err = planJSON(cmd.OutOrStdout(), changes, len(list)-len(changes))
			} else {
				for _, s := range changes {
					printPlan(cmd.OutOrStdout(), s)
				}
				printRest(cmd.OutOrStdout(), len(changes), list)
			}
			if err == nil && len(changes) > 0 {
				return exitCode(2)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs")
	return cmd
}

// planJSON prints the answers with the gateway's own keys.
func planJSON(out io.Writer, changes []planned, unchanged int) error {
	list := []map[string]any{}
	for _, s := range changes {
		m := asMap(s.answer)
		delete(m, "success")
		m["what"] = s.What
		if s.Pos.IsValid() {
			m["pos"] = s.Pos.String()
		}
		list = append(list, m)
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(map[string]any{"changes": list, "unchanged": unchanged})
}

var marks = map[string]string{"add": "+", "change": "~", "remove": "-", "none": " ", "": "?"}

func printPlan(out io.Writer, s planned) {
	fmt.Fprintf(out, "%s %s\n", marks[s.change], s.What)
	if v, ok := s.answer.Get("certs"); ok {
		for _, c := range v.List {
			fmt.Fprintf(out, "    - %s\n", c)
		}
	}
	if list := s.answer.Sub("differences"); list != nil {
		for d := range list.Sections() {
			printDifference(out, d)
		}
	}
	printNumbers(out, "    IKE SA", s.answer, "closes-ike", "is closed")
	printNumbers(out, "    IKE SA", s.answer, "keeps-ike", "stays, and has the old settings until it is rekeyed")
	if list := s.answer.Sub("children"); list != nil {
		for child := range list.Sections() {
			fmt.Fprintf(out, "    %s child %s\n", marks[child.Text("change")], child.Name)
			printNumbers(out, "        Child SA", child, "closes-child", "is closed")
			printNumbers(out, "        Child SA", child, "keeps-child", "stays, and has the old settings until it is rekeyed")
			if child.Text("starts") == "yes" {
				fmt.Fprintln(out, "        it is started")
			}
			if now, then := child.Text("stands-now"), child.Text("stands-then"); now != then {
				fmt.Fprintf(out, "        without an SA: %s, then %s\n", now, then)
			}
		}
	}
}

// printDifference keeps to 80 columns: on one line if it fits, else one value a line.
func printDifference(out io.Writer, d *conf.Section) {
	was, now := cmp.Or(d.Text("old"), "nothing"), cmp.Or(d.Text("new"), "nothing")
	if line := fmt.Sprintf("    %s: %s -> %s", d.Text("option"), was, now); len(line) <= 80 {
		fmt.Fprintln(out, line)
		return
	}
	fmt.Fprintf(out, "    %s:\n", d.Text("option"))
	for _, v := range []struct{ word, text string }{{"was ", was}, {"will be ", now}} {
		line := "        " + v.word
		for i, item := range strings.Split(v.text, ", ") {
			if i > 0 {
				line += ","
			}
			if i > 0 && len(line)+len(item) > 78 {
				fmt.Fprintln(out, line)
				line = "            " + item
			} else {
				line += map[bool]string{true: " "}[i > 0] + item
			}
		}
		fmt.Fprintln(out, line)
	}
}

func printNumbers(out io.Writer, what string, m *conf.Section, key, becomes string) {
	if v, ok := m.Get(key); ok {
		for _, n := range v.List {
			fmt.Fprintf(out, "%s %s %s\n", what, n, becomes)
		}
	}
}

// printRest says what is not touched.
func printRest(out io.Writer, changes int, list []planned) {
	conns := 0
	for _, s := range list {
		if s.change == "none" && s.Command == "load-conn" {
			conns++
		}
	}
	plural := map[bool]string{false: "s"}[conns == 1]
	if changes == 0 {
		fmt.Fprintf(out, "nothing would change: %d connection%s loaded just so\n", conns, plural)
		return
	}
	fmt.Fprintf(out, "%d connection%s not touched\n", conns, plural)
}
