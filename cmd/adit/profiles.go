package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/piglig/go-qr"
	"github.com/spf13/cobra"

	"adit/internal/ca"
	"adit/internal/config"
	"adit/internal/download"
	"adit/internal/profile"
	"adit/internal/users"
	"adit/pki"
)

// profileFlags are the flags of adit profile.
type profileFlags struct {
	pkiFlags
	system, conn, gateway, serve string
	stdin, fresh, onDemand       bool
	life                         time.Duration
}

func profileCommand() *cobra.Command {
	var f profileFlags
	cmd := &cobra.Command{
		Use: "profile USER", Short: "Write what a user's device needs to connect",
		Long: `Write what a user's device needs to connect, made from a connection of swanctl.conf:
its name, the proposals that the system can do, the networks behind the gateway and the
authority of its certificate.

Where the connection wants a password, the device asks for it, unless it is given by
--password-stdin or made by --new-password, which changes the user's. Where it wants a
certificate, the authority of adit pki issues one for this device.

With --serve the profile is not written but offered by HTTPS, with the gateway's own
certificate, behind a link that works once; the command ends when it was used or has
expired. On a terminal the link is shown as a QR code, too.`,
		Example: `  adit profile alice --for ios --new-password
  adit profile bob --for windows -o bob.ps1
  adit profile carol --for android --serve vpn.example.org:8443`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runProfile(cmd, f, args[0]) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.system, "for", "", "`SYSTEM`: "+strings.Join(profile.Systems, ", "))
	fl.StringVar(&f.conn, "connection", "", "connection of swanctl.conf (default: the only one that people can use)")
	fl.StringVar(&f.gateway, "gateway", "", "name or address to connect to (default: local.id, or the certificate's name)")
	fl.StringVar(&f.dir, "dir", "", "`directory` of swanctl.conf (default: $SWANCTL_DIR, or /etc/swanctl)")
	fl.StringVar(&f.caDir, "ca", "", "`directory` of the authority (default: ca in that directory)")
	fl.StringVarP(&f.out, "out", "o", "", "`file` to write, or directory where there are several; - is standard output")
	fl.StringVar(&f.key, "key", ca.RSA2048, "kind of key of a certificate: rsa2048, rsa3072, ecdsa256 or ecdsa384")
	fl.IntVar(&f.days, "days", ca.DaysUser, "lifetime of a certificate")
	fl.BoolVar(&f.stdin, "password-stdin", false, "put the password that comes on standard input into the profile")
	fl.BoolVar(&f.fresh, "new-password", false, "give the user of adit user another password and put it into the profile")
	fl.BoolVar(&f.onDemand, "on-demand", false, "Apple: connect whenever there is a network")
	fl.StringVar(&f.serve, "serve", "", "offer it at `HOST:PORT` by HTTPS, once")
	fl.DurationVar(&f.life, "life", time.Hour, "how long the link works")
	_ = cmd.MarkFlagRequired("for")
	return cmd
}

func runProfile(cmd *cobra.Command, f profileFlags, user string) error {
	if err := users.CheckName(user); err != nil {
		return err
	}
	d, err := config.LoadDaemon(config.DaemonFile(""))
	if err != nil {
		return err
	}
	m, err := config.Load(filepath.Join(swanctlDir(f.dir), "swanctl.conf"), d)
	if err != nil {
		return err
	}
	p, err := profile.Of(m, f.conn, f.gateway)
	if err != nil {
		return err
	}
	p.User, p.OnDemand = user, f.onDemand
	if _, err := p.Probe(f.system); err != nil { // before anything is made that it would need
		return err
	}
	cert, err := profile.NeedsCert(m, p.Name)
	if err != nil {
		return err
	}
	if cert {
		err = f.certify(cmd.ErrOrStderr(), p)
	} else {
		err = f.password(cmd, m, p)
	}
	if err != nil {
		return err
	}
	files, err := p.For(f.system)
	if err != nil {
		return err
	}
	if f.serve != "" {
		return f.offer(cmd, m, p, files)
	}
	return f.write(cmd.OutOrStdout(), p, files)
}

// certify has the authority issue the user's certificate for this device.
func (f profileFlags) certify(log io.Writer, p *profile.Profile) error {
	return withCA(f.pkiFlags, func(c *ca.CA) error {
		i, err := c.User(p.User, f.key, f.days, nil)
		if err != nil {
			return err
		}
		p.Cert, p.Key, p.Passphrase = i.Cert, i.Key, users.Password()
		fmt.Fprintf(log, "certificate %s, until %s\n", i.Cert.Serial(), i.Cert.X509.NotAfter.Format(time.DateOnly))
		if f.system == "android" { // whose profile has no place for it
			fmt.Fprintf(log, "passphrase that the app asks for: %s\n", p.Passphrase)
		}
		return nil
	})
}

// password finds what goes into the profile, if anything does.
func (f profileFlags) password(cmd *cobra.Command, m *config.Model, p *profile.Profile) error {
	uf := userFlags{dir: f.dir, stdin: f.stdin}
	switch {
	case f.fresh && f.stdin:
		return errors.New("--new-password and --password-stdin exclude each other")
	case f.stdin:
		text, _, err := uf.password(cmd.InOrStdin())
		p.Password = text
		return err
	case f.fresh:
		p.Password = users.Password()
		edit := users.Edit(p.User, func(u *users.User) error { return u.SetPassword(p.Password) })
		if err := users.Change(swanctlDir(f.dir), edit); err != nil {
			return err
		}
		if f.system == "windows" || f.system == "android" { // which have no place for it
			fmt.Fprintf(cmd.ErrOrStderr(), "password that the device asks for: %s\n", p.Password)
		}
		return tellUsers(cmd, uf)
	}
	for _, u := range m.Users {
		if u.Name == p.User {
			return nil
		}
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "note: there is no user %s in %s; adit user add makes one\n", p.User, filepath.Join(swanctlDir(f.dir), users.File))
	return nil
}

// write writes the files, those with a secret in them readable by the owner alone.
func (f profileFlags) write(out io.Writer, p *profile.Profile, files []profile.File) error {
	if f.out == "-" {
		if len(files) > 1 {
			return errors.New("these are several files: -o wants a directory")
		}
		_, err := out.Write(files[0].Data)
		return err
	}
	dir := ""
	if len(files) > 1 {
		if dir = f.out; dir == "" {
			dir = p.User + "-" + f.system
		}
	} else if f.out != "" {
		files[0].Name = f.out
	}
	for _, x := range files {
		name := filepath.Join(dir, x.Name)
		mode := os.FileMode(0o644)
		if x.Secret {
			mode = 0o600
		}
		if err := replaceFile(name, x.Data, mode); err != nil {
			return err
		}
		fmt.Fprintln(out, name)
	}
	return nil
}

// offer serves the files once.
func (f profileFlags) offer(cmd *cobra.Command, m *config.Model, p *profile.Profile, files []profile.File) error {
	host, port, err := net.SplitHostPort(f.serve)
	if err != nil {
		return err
	}
	cert, err := tlsCertificate(m, host, p)
	if err != nil {
		return err
	}
	b := download.Bundle{Label: p.User + ", " + f.system, Name: files[0].Name, Type: files[0].Type, Data: files[0].Data}
	if len(files) > 1 {
		contents, order := map[string][]byte{}, []string{}
		for _, x := range files {
			contents[x.Name], order = x.Data, append(order, x.Name)
		}
		if b, err = download.Zip(b.Label, p.User+"-"+f.system, contents, order); err != nil {
			return err
		}
	}
	ln, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.life)
	defer cancel()
	links := download.NewLinks(slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)))
	token, used, err := links.Add(b, f.life)
	if err != nil {
		return err
	}
	url := fmt.Sprintf("https://%s/d/%s", net.JoinHostPort(host, fmt.Sprint(ln.Addr().(*net.TCPAddr).Port)), token)
	fmt.Fprintln(cmd.OutOrStdout(), url)
	if isTerminal(cmd.OutOrStdout()) {
		if err := printQR(cmd.OutOrStdout(), url); err != nil {
			return err
		}
	}
	go func() {
		select {
		case <-used:
			cancel() // what is under way is finished
		case <-ctx.Done():
		}
	}()
	if err := links.Serve(ctx, ln, cert); err != nil {
		return err
	}
	select {
	case <-used:
		return nil
	default:
		return errors.New("the profile was not downloaded")
	}
}

// tlsCertificate is a loaded certificate for that name, or the gateway's, with its key
// and those between it and its root.
func tlsCertificate(m *config.Model, host string, p *profile.Profile) (tls.Certificate, error) {
	for _, k := range m.Certs {
		c, err := pki.NewCertificate(k.DER)
		if k.Kind != config.CertX509 || err != nil || c.IsCA() || c.X509.VerifyHostname(host) != nil && c.X509.VerifyHostname(p.Gateway) != nil {
			continue
		}
		for _, key := range m.Keys {
			if c.Matches(key.Signer) {
				return tls.Certificate{Certificate: append([][]byte{c.DER()}, between(m, c)...), PrivateKey: key.Signer}, nil
			}
		}
	}
	return tls.Certificate{}, fmt.Errorf("no certificate with its key is for %s or %s", host, p.Gateway)
}

// between are the authorities above a certificate, without the root.
func between(m *config.Model, c *pki.Certificate) (ders [][]byte) {
	for range 8 {
		i := slices.IndexFunc(m.Certs, func(k config.Cert) bool {
			ca, err := pki.NewCertificate(k.DER)
			return k.Kind == config.CertX509 && err == nil && ca.IsCA() && !ca.SelfIssued() && ca.Subject() == c.Issuer() && c.X509.CheckSignatureFrom(ca.X509) == nil
		})
		if i < 0 {
			break
		}
		c, _ = pki.NewCertificate(m.Certs[i].DER)
		ders = append(ders, c.DER())
	}
	return ders
}

// printQR draws a QR code with half blocks, two modules a character, dark on light.
func printQR(out io.Writer, text string) error {
	q, err := go_qr.EncodeText(text, go_qr.Medium)
	if err != nil {
		return err
	}
	const quiet = 4 // modules around it (ISO/IEC 18004)
	n := q.Size()
	var b strings.Builder
	for y := -quiet; y < n+quiet; y += 2 {
		b.WriteString("\x1b[30;107m")
		for x := -quiet; x < n+quiet; x++ {
			switch top, bottom := q.Module(x, y), q.Module(x, y+1); {
			case top && bottom:
				b.WriteRune('█')
			case top:
				b.WriteRune('▀')
			case bottom:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteString("\x1b[0m\n")
	}
	_, err = io.WriteString(out, b.String())
	return err
}
