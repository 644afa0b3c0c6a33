package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"adit"
)

// manCommand prints the manual page, made of the texts that --help shows.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man",
		Short:  "Print the manual page adit(8)",
		Long:   "Print the manual page adit(8) in troff's language. Its date is $SOURCE_DATE_EPOCH.",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := bufio.NewWriter(cmd.OutOrStdout())
			manPage(w, cmd.Root(), pageDate())
			return w.Flush()
		},
	}
}

func pageDate() string {
	s, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return ""
	}
	return time.Unix(s, 0).UTC().Format(time.DateOnly)
}

// manPage writes the page of a command and all below it.
func manPage(w io.Writer, root *cobra.Command, date string) {
	var verbs, topics, described []*cobra.Command // described: the verbs, and groups with a text of their own
	walk(root, func(c *cobra.Command) {
		switch {
		case c.IsAdditionalHelpTopicCommand():
			topics = append(topics, c)
		case c.Runnable() && c != root && !c.Hidden && c.Name() != "help" && c.Parent().Name() != "completion": // cobra's own
			verbs, described = append(verbs, c), append(described, c)
		case c != root && c.HasAvailableSubCommands() && c.Long != "" && c.Name() != "completion":
			described = append(described, c)
		}
	})
	fmt.Fprintf(w, ".TH %s 8 %q %q %q\n", strings.ToUpper(root.Name()), date, root.Name()+" "+adit.Version, "System administration")
	fmt.Fprintf(w, ".SH NAME\n%s \\- %s\n.SH SYNOPSIS\n", root.Name(), roff(root.Short))
	for _, c := range verbs {
		fmt.Fprintf(w, ".B %s\n\\&%s\n.br\n", roff(c.CommandPath()), roff(strings.TrimSpace(strings.TrimPrefix(c.UseLine(), c.CommandPath()))))
	}
	fmt.Fprint(w, ".SH DESCRIPTION\n")
	manText(w, root.Long)
	fmt.Fprint(w, ".SH COMMANDS\n")
	for _, c := range described {
		fmt.Fprintf(w, ".SS %s\n", roff(c.UseLine()))
		if c.Long != "" {
			manText(w, c.Long)
		} else {
			manText(w, c.Short+".")
		}
		manFlags(w, c.NonInheritedFlags())
		if c.Example != "" {
			fmt.Fprint(w, ".PP\nExamples:\n")
			manText(w, c.Example)
		}
	}
	fmt.Fprint(w, ".SH OPTIONS\n")
	manFlags(w, root.PersistentFlags())
	for _, c := range topics {
		fmt.Fprintf(w, ".SH %s\n", strings.ToUpper(strings.ReplaceAll(c.Name(), "-", " ")))
		manText(w, c.Long)
	}
	fmt.Fprint(w, ".SH EXAMPLES\n")
	manText(w, root.Example)
	fmt.Fprint(w, ".SH SEE ALSO\n.BR swanctl (8),\n.BR swanctl.conf (5),\n.BR strongswan.conf (5),\n.BR systemctl (1)\n")
}

func walk(c *cobra.Command, visit func(*cobra.Command)) {
	visit(c)
	for _, sub := range c.Commands() {
		walk(sub, visit)
	}
}

// manFlags writes options as a list of tagged paragraphs.
func manFlags(w io.Writer, set *pflag.FlagSet) {
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		tag := "\\-\\-" + roff(f.Name)
		if f.Shorthand != "" {
			tag = "\\-" + f.Shorthand + ", " + tag
		}
		fmt.Fprintf(w, ".TP\n.BI %q %q\n%s", tag+" ", roff(value), roff(usage))
		if d := f.DefValue; d != "" && d != "false" && d != "0" && d != "0s" && d != "[]" {
			fmt.Fprintf(w, " (default %s)", roff(d))
		}
		fmt.Fprintln(w)
	})
}

// manText writes what --help shows: paragraphs between empty lines are filled,
// indented lines stay as they are.
func manText(w io.Writer, s string) {
	const none, filled, literal = 0, 1, 2
	mode := none
	end := func() {
		if mode == literal {
			fmt.Fprint(w, ".EE\n.RE\n")
		}
		mode = none
	}
	for line := range strings.Lines(s) {
		line = strings.TrimRight(line, " \t\n")
		indented := strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")
		switch {
		case line == "" && mode == literal:
			fmt.Fprintln(w)
			continue
		case line == "":
			end()
			continue
		case indented && mode != literal:
			end()
			fmt.Fprint(w, ".PP\n.RS 2\n.EX\n")
			mode = literal
		case !indented && mode != filled:
			end()
			fmt.Fprint(w, ".PP\n")
			mode = filled
		}
		if indented {
			line = strings.TrimPrefix(line, "  ")
		}
		fmt.Fprintln(w, roff(line))
	}
	end()
}

// roff keeps a text from being read as troff's requests and escapes.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, `"`, `\(dq`, "…", `\&...`, "“", `\(lq`, "”", `\(rq`, "’", `\(cq`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
