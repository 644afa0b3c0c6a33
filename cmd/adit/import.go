package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"adit/internal/ca"
	"adit/internal/config"
	"adit/internal/ipsecconf"
)

// importFlags are the flags of adit import.
type importFlags struct {
	dialect, secrets, output, dir    string
	own                              []string
	all, strict, force, copy, silent bool
}

func importCommand() *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Turn an ipsec.conf into a swanctl.conf",
		Long: `Turn the ipsec.conf and ipsec.secrets of strongSwan's starter or of Libreswan into
a swanctl.conf. Comments stay at their places. A line that means something else in
swanctl.conf is marked with CHANGED, and one that could not be translated with NOT
TRANSLATED and the reason; options that adit refuses are written as comments, and
a connection that would not protect the same without one as well. LEFT OUT is what
is not needed. The marks are told on standard error as well, with a summary.

With -o DIR it writes DIR/swanctl.conf, the secrets in DIR/conf.d/secrets.conf that
only root can read, and public keys of the file itself in DIR/pubkey. It prints the
commands that copy certificates and keys; --copy runs them. Existing files are kept,
unless --force is given. Without -o all goes to standard output, the secrets only
if --secrets names them.

Which of left and right is this host is found by its addresses; --own says them for
a file of another host.

The exit code is 0 if every line was translated, 2 if one was not, or with --strict
if one is marked CHANGED, and 1 if nothing was written.`,
		Example: "  adit import /etc/ipsec.conf\n  adit import -o /etc/swanctl --copy /etc/ipsec.conf\n  adit import --dialect libreswan --own 192.0.2.1 -o new ipsec.conf",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return runImport(cmd, args[0], f) },
	}
	cmd.Flags().StringVar(&f.dialect, "dialect", "auto", "whose `DIALECT` the file has: strongswan, libreswan or auto")
	cmd.Flags().StringVar(&f.secrets, "secrets", "", "ipsec.secrets (default with -o DIR: the one beside FILE)")
	cmd.Flags().StringVarP(&f.output, "output", "o", "-", "directory to write to, or - for standard output")
	cmd.Flags().StringVar(&f.dir, "ipsec-d", "", "directory of certificates and keys (default: ipsec.d beside FILE)")
	cmd.Flags().StringSliceVar(&f.own, "own", nil, "addresses and names of the host that the file is for (default: this host's)")
	cmd.Flags().BoolVar(&f.all, "all", false, "load connections with auto=ignore, too")
	cmd.Flags().BoolVar(&f.strict, "strict", false, "exit with 2 if a line means something else")
	cmd.Flags().BoolVar(&f.force, "force", false, "replace files that exist")
	cmd.Flags().BoolVar(&f.copy, "copy", false, "copy certificates and keys, too; needs -o DIR")
	cmd.Flags().BoolVarP(&f.silent, "quiet", "q", false, "print only errors and the summary")
	return cmd
}

func runImport(cmd *cobra.Command, file string, f importFlags) error {
	d, err := ipsecconf.DialectOf(f.dialect)
	if err != nil {
		return err
	}
	toDir := f.output != "-" && f.output != ""
	if f.copy && !toDir {
		return errors.New("--copy needs a directory: -o DIR")
	}
	o := ipsecconf.Options{Dialect: d, Secrets: f.secrets, Dir: f.dir, All: f.all}
	if o.Own, o.OwnNames, err = ownAddresses(f.own); err != nil {
		return err
	}
	if beside := filepath.Join(filepath.Dir(file), "ipsec.secrets"); o.Secrets == "" && toDir {
		if _, err := os.Stat(beside); err == nil {
			o.Secrets = beside
		}
	}
	r, err := ipsecconf.Import(file, o)
	if err != nil {
		return err
	}
	out, log := cmd.OutOrStdout(), cmd.ErrOrStderr()
	if toDir {
		if err := writeImport(f, r, log); err != nil {
			return err
		}
	} else {
		fmt.Fprint(out, r.Config)
		if r.Secrets != "" {
			fmt.Fprint(out, "\n"+r.Secrets)
		}
		for _, name := range slices.Sorted(keysOf(r.Files)) {
			fmt.Fprintf(log, "not written: %s (use -o DIR)\n", name)
		}
	}
	tellImport(log, file, f, r)
	if toDir {
		checkImport(log, filepath.Join(f.output, "swanctl.conf"))
	}
	if r.Count.Refused+r.SecretCount.Refused > 0 || f.strict && r.Count.Changed+r.SecretCount.Changed > 0 {
		return exitCode(2)
	}
	return nil
}

func keysOf(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// ownAddresses are those that were given, or the host's.
func ownAddresses(given []string) (addrs []netip.Addr, names []string, err error) {
	for _, text := range given {
		if a, err := netip.ParseAddr(text); err == nil {
			addrs = append(addrs, a.Unmap())
		} else {
			names = append(names, text)
		}
	}
	if len(given) > 0 {
		return addrs, names, nil
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, nil, err
	}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLoopback() {
			addrs = append(addrs, p.Addr().Unmap().WithZone(""))
		}
	}
	return addrs, nil, nil
}

// tellImport prints what was marked, what is to be copied, and the summary.
func tellImport(log io.Writer, file string, f importFlags, r *ipsecconf.Result) {
	if !f.silent {
		for _, m := range r.Remarks {
			if m.Of || m.Word == "LEFT OUT" {
				continue // the connection is told, or nothing is lost
			}
			fmt.Fprintf(log, "%s: %s: %s: %s\n", m.Pos, m.Word, m.Line, m.Text)
		}
		if len(r.Copies) > 0 && !f.copy {
			fmt.Fprintln(log, "\nTo be done in the directory of swanctl.conf:")
			for _, c := range r.Copies {
				fmt.Fprintln(log, "  "+c.String())
			}
			fmt.Fprintln(log)
		}
	}
	count := func(what string, n ipsecconf.Count) {
		fmt.Fprintf(log, "%s (%s): %d lines: %d translated, %d left out, %d changed, %d not translated\n",
			what, r.Dialect, n.Total(), n.Translated, n.LeftOut, n.Changed, n.Refused)
	}
	count(file, r.Count)
	if r.SecretCount.Total() > 0 {
		count("secrets", r.SecretCount)
	}
}

// writeImport writes the files of an import.
func writeImport(f importFlags, r *ipsecconf.Result, log io.Writer) error {
	type file struct {
		name, text string
		mode       os.FileMode
	}
	files := []file{{"swanctl.conf", r.Config, 0o644}}
	if r.Secrets != "" {
		files[0].text += "\ninclude conf.d/secrets.conf\n"
		files = append(files, file{"conf.d/secrets.conf", r.Secrets, 0o600})
	}
	for _, name := range slices.Sorted(keysOf(r.Files)) {
		files = append(files, file{name, r.Files[name], 0o644})
	}
	if !f.force {
		for _, x := range files {
			if _, err := os.Lstat(filepath.Join(f.output, x.name)); err == nil {
				return fmt.Errorf("%s exists: use --force to replace it, or another directory", filepath.Join(f.output, x.name))
			}
		}
	}
	for _, x := range files {
		if err := replaceFile(filepath.Join(f.output, x.name), []byte(x.text), x.mode); err != nil {
			return err
		}
	}
	if !f.copy {
		return nil
	}
	for _, c := range r.Copies {
		if c.Command != "" {
			fmt.Fprintln(log, "to be done in "+f.output+": "+c.Command)
			continue
		}
		if err := copyCredential(f, c, log); err != nil {
			return err
		}
	}
	return nil
}

// replaceFile writes a file anew with its mode from the beginning, so that a secret
// is never to be read by others.
func replaceFile(name string, b []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return ca.WriteFile(name, b, mode)
}

// copyCredential copies a certificate or key, or all of a directory. What is missing
// is told, and does not end the import.
func copyCredential(f importFlags, c ipsecconf.Copy, log io.Writer) error {
	names := map[string]string{c.From: filepath.Join(f.output, c.To)}
	if c.Dir {
		names = map[string]string{}
		list, err := os.ReadDir(c.From)
		if err != nil {
			return err
		}
		for _, e := range list {
			if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") {
				names[filepath.Join(c.From, e.Name())] = filepath.Join(f.output, c.To, e.Name())
			}
		}
	}
	mode := os.FileMode(0o644)
	if c.Private {
		mode = 0o600
	}
	for _, from := range slices.Sorted(keysOf(names)) {
		to := names[from]
		if _, err := os.Lstat(to); err == nil && !f.force {
			fmt.Fprintf(log, "%s exists and was kept\n", to)
			continue
		}
		b, err := os.ReadFile(from)
		if err != nil {
			fmt.Fprintf(log, "not copied: %v\n", err)
			continue
		}
		if err := replaceFile(to, b, mode); err != nil {
			return err
		}
	}
	return nil
}

// checkImport says whether what was written loads.
func checkImport(log io.Writer, file string) {
	d, err := config.LoadDaemon("")
	if err != nil {
		return
	}
	m, err := config.Check(file, d)
	if err != nil {
		fmt.Fprintf(log, "%s does not load yet: %v\n", file, err)
		return
	}
	fmt.Fprintln(log, summary(file, m)+fmt.Sprintf(", %d warnings: see adit check", len(m.Warnings)))
}
