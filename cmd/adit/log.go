package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"adit/conf"
	"adit/internal/logging"
	"adit/vici"
)

// logOptions are the flags of adit log.
type logOptions struct {
	follow, asJSON, reset, levels bool
	count, level                  int
	conn, peer, set               string
	groups                        []string
	during                        time.Duration
}

func logCommand() *cobra.Command {
	o := logOptions{level: 1}
	cmd := &cobra.Command{
		Use: "log", Short: "Show what the gateway has logged, follow it, set what it logs",
		Long: `Show the last lines that the gateway has logged; with -f go on with new ones. --conn
and --peer (an address, a prefix or an identity) choose those of a connection or
peer. Detail (level 2 and above) is there with -f, and where --set has asked for it.

--set LEVEL changes what all targets of the log get while the gateway runs: of all
lines, of some groups (--group ike,chd), of one connection or peer; with --for it
falls back by itself. Levels are strongSwan's: -1 nothing, 0 what must be known, 1 as
usual, 2 detail. --reset takes back what was set, --levels shows it.`,
		Example: `  adit log -f --conn gw
  adit log -n 50 --peer 192.0.2.7
  adit log --set 2 --peer 192.0.2.7 --for 5m
  adit log --set 2 --group ike,net
  adit log --reset`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			switch {
			case o.set != "" || o.reset || o.levels:
				return setLevels(cmd, c, o)
			case o.during != 0 || len(o.groups) > 0:
				return errors.New("--for and --group belong to --set or --reset")
			}
			return showLog(cmd, c, o)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "go on showing new lines")
	f.IntVarP(&o.count, "lines", "n", 0, "show so many at most of those that are kept (0: all; with -f: none)")
	f.StringVar(&o.conn, "conn", "", "only of this connection")
	f.StringVar(&o.peer, "peer", "", "only of this peer: an address, a prefix or an identity")
	f.IntVar(&o.level, "level", 1, "show lines up to this level")
	f.BoolVar(&o.asJSON, "json", false, "one JSON object a line")
	f.StringVar(&o.set, "set", "", "set the level of what is logged")
	f.StringSliceVar(&o.groups, "group", nil, "with --set: of these groups; ike=2 gives one its own level")
	f.DurationVar(&o.during, "for", 0, "with --set: fall back after this time, such as 5m")
	f.BoolVar(&o.reset, "reset", false, "take back what was set: for --group, --conn and --peer, or all of it")
	f.BoolVar(&o.levels, "levels", false, "show what was set")
	return cmd
}

// showLog prints what is kept, and then what comes.
func showLog(cmd *cobra.Command, c *vici.Client, o logOptions) error {
	out := cmd.OutOrStdout()
	if !o.follow || o.count > 0 {
		msg := conf.New("")
		msg.Set("conn", o.conn)
		msg.Set("peer", o.peer)
		msg.Setf("level", "%d", o.level)
		msg.Setf("count", "%d", o.count)
		m, err := c.Stream(cmd.Context(), "get-log", "list-log", msg, func(l *conf.Section) error { return printLine(out, l, o.asJSON) })
		if err == nil && m.Text("success") != "yes" {
			err = errors.New(m.Text("errmsg"))
		}
		if err != nil || !o.follow {
			return err
		}
	}
	err := follow(cmd, c, o, "adit-log")
	if errors.Is(err, vici.ErrUnknownEvent) { // another daemon: its lines tell no peer
		if o.peer != "" {
			return errors.New("this daemon's log does not tell the peer of a line")
		}
		if c, err = dial(cmd.Context()); err != nil {
			return err
		}
		defer c.Close()
		err = follow(cmd, c, o, "log")
	}
	return err
}

// follow prints the lines that come as events of that name, until the command is ended.
func follow(cmd *cobra.Command, c *vici.Client, o logOptions, event string) error {
	who := logging.Matcher{Conn: o.conn, Peer: o.peer}
	for e, err := range c.Listen(cmd.Context(), event) {
		if err != nil {
			if cmd.Context().Err() != nil {
				return nil
			}
			return err
		}
		l := logging.Line{Conn: e.Body.Text("ikesa-name"), Peer: e.Body.Text("peer"), PeerID: e.Body.Text("peer-id")}
		if level, _ := strconv.Atoi(e.Body.Text("level")); level > o.level || !who.Match(&l) {
			continue
		}
		if err := printLine(cmd.OutOrStdout(), e.Body, o.asJSON); err != nil {
			return err
		}
	}
	return nil
}

// printLine writes one line for people or as JSON. Peers' text moves no cursor.
func printLine(w io.Writer, l *conf.Section, asJSON bool) error {
	if asJSON {
		b, err := json.Marshal(plain(l))
		if err == nil {
			_, err = fmt.Fprintf(w, "%s\n", b)
		}
		return err
	}
	who := ""
	if name := l.Text("ikesa-name"); name != "" {
		who = fmt.Sprintf(" %s[%s]", logging.Printable(name), l.Text("ikesa-uniqueid"))
	}
	text := logging.Printable(l.Text("msg"))
	if l.Text("group") == "DMN" {
		for v := range l.Sub("facts").Values() {
			text += fmt.Sprintf(", %s %s", logging.Printable(v.Key), logging.Printable(v.Text))
		}
	}
	at := ""
	if t, err := time.Parse(time.RFC3339Nano, l.Text("time")); err == nil {
		at = t.Local().Format("15:04:05.000") + " "
	}
	_, err := fmt.Fprintf(w, "%s%s%s %s\n", at, logging.Printable(l.Text("group")), who, text)
	return err
}

// setLevels changes levels and shows those in force.
func setLevels(cmd *cobra.Command, c *vici.Client, o logOptions) error {
	type change struct{ group, level string }
	changes := []change{}
	for _, g := range o.groups {
		name, level, own := strings.Cut(g, "=")
		if !own {
			level = o.set
		}
		changes = append(changes, change{name, level})
	}
	if len(changes) == 0 {
		changes = append(changes, change{"", o.set})
	}
	var rules *conf.Section
	for _, ch := range changes {
		msg := conf.New("")
		msg.Set("group", ch.group)
		msg.Set("conn", o.conn)
		msg.Set("peer", o.peer)
		switch {
		case o.reset:
			msg.Set("reset", "yes")
		case !o.levels:
			msg.Set("level", ch.level)
			msg.Setf("seconds", "%d", int64((o.during+time.Second-1)/time.Second))
		}
		m, err := c.Call(cmd.Context(), "set-log", msg)
		if err == nil && m.Text("success") != "yes" {
			err = errors.New(m.Text("errmsg"))
		}
		if err != nil {
			return err
		}
		rules = m.Sub("rules")
	}
	n := 0
	for r := range rules.Sections() {
		rule := logging.Rule{Group: r.Text("group"), Conn: r.Text("conn"), Peer: r.Text("peer"), Level: int8(number(r.Text("level")))}
		text := rule.String()
		if s := number(r.Text("seconds")); s > 0 {
			text += fmt.Sprintf(" for another %v", time.Duration(s)*time.Second)
		}
		fmt.Fprintln(cmd.OutOrStdout(), text)
		n++
	}
	if n == 0 {
		fmt.Fprintln(cmd.OutOrStdout(), "levels are as configured")
	}
	return nil
}
