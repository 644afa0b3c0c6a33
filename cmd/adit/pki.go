package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"adit/conf"
	"adit/internal/ca"
	"adit/internal/config"
	"adit/internal/users"
	"adit/pki"
	"adit/vici"
)

// pkiFlags are the flags of adit pki and of what issues certificates beside it.
type pkiFlags struct {
	dir, caDir, key, caKey, out, reason, name string
	days, caDays, crlDays                     int
	crl                                       []string
	legacy                                    bool
}

// authority is the directory of the CA: ca beside swanctl.conf.
func (f pkiFlags) authority() string {
	if f.caDir != "" {
		return f.caDir
	}
	return filepath.Join(swanctlDir(f.dir), "ca")
}

func pkiCommand() *cobra.Command {
	var f pkiFlags
	cmd := &cobra.Command{
		Use: "pki", Short: "A certificate authority for gateways and users",
		Long: `A certificate authority for gateways and users, in the directory ca beside
swanctl.conf. What belongs to the gateway is put into swanctl's directories (x509ca,
x509, private, x509crl); adit reload loads it. Keys have mode 0600. The key of the
authority, ca/ca.key, need not lie on the gateway: with --dir and --ca all works
elsewhere.`,
	}
	cmd.PersistentFlags().StringVar(&f.dir, "dir", "", "`directory` of swanctl.conf (default: $SWANCTL_DIR, or /etc/swanctl)")
	cmd.PersistentFlags().StringVar(&f.caDir, "ca", "", "`directory` of the authority (default: ca in that directory)")
	initial := &cobra.Command{
		Use: "init", Short: "Make the authority", Args: cobra.NoArgs,
		Example: `  adit pki init --name "Example VPN CA"`,
		RunE:    func(cmd *cobra.Command, _ []string) error { return initCA(cmd, f) },
	}
	gateway := &cobra.Command{
		Use: "gateway NAME...", Short: "Issue a gateway's certificate, for the names that clients connect to",
		Example: "  adit pki gateway vpn.example.org\n  adit pki gateway vpn.example.org 192.0.2.2 --days 825",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withCA(f, func(c *ca.CA) error {
				i, err := c.Gateway(args, f.key, f.days, f.crl)
				if err != nil {
					return err
				}
				return placeGateway(cmd.OutOrStdout(), f, args[0], i)
			})
		},
	}
	user := &cobra.Command{
		Use: "user NAME", Short: "Issue a user's certificate as a PKCS#12 file and print its passphrase",
		Long: `Issue a user's certificate with a new key, as a PKCS#12 file that has the
certificate of the authority, too, and print the passphrase of the file. The key is
kept nowhere else: give each device a certificate of its own.

With --legacy the file is encrypted by 3DES and SHA-1, which Windows before 10 1709,
macOS before 12 and iOS before 15 need.`,
		Example: "  adit pki user alice@example.org --out alice-phone.p12",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withCA(f, func(c *ca.CA) error {
				i, err := c.User(args[0], f.key, f.days, f.crl)
				if err != nil {
					return err
				}
				return placeUser(cmd.OutOrStdout(), f, args[0], i, c.Cert)
			})
		},
	}
	renew := &cobra.Command{
		Use: "renew NAME", Short: "Issue the certificate of that name again, with a new key",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withCA(f, func(c *ca.CA) error {
				i, kind, err := c.Renew(args[0])
				switch {
				case err != nil:
					return err
				case kind == ca.KindGateway:
					return placeGateway(cmd.OutOrStdout(), f, args[0], i)
				}
				return placeUser(cmd.OutOrStdout(), f, args[0], i, c.Cert)
			})
		},
	}
	revoke := &cobra.Command{
		Use: "revoke NAME|SERIAL", Short: "Revoke the certificates of a name, or one by its serial number",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withCA(f, func(c *ca.CA) error {
				list, err := c.Revoke(args[0], f.reason)
				if err != nil {
					return err
				}
				for _, e := range list {
					fmt.Fprintf(cmd.OutOrStdout(), "revoked %s of %s\n", e.Serial, e.Name)
				}
				return placeCRL(cmd, f, c)
			})
		},
	}
	crl := &cobra.Command{
		Use: "crl", Short: "Make the list of revoked certificates anew", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withCA(f, func(c *ca.CA) error { return placeCRL(cmd, f, c) })
		},
	}
	list := &cobra.Command{
		Use: "list", Short: "List the certificates that were issued", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return listCA(cmd.OutOrStdout(), f) },
	}
	initial.Flags().StringVar(&f.name, "name", "adit VPN CA", "name of the authority, which users see")
	initial.Flags().IntVar(&f.caDays, "days", ca.DaysCA, "lifetime")
	initial.Flags().StringVar(&f.caKey, "key", ca.RSA3072, "kind of key: rsa2048, rsa3072, ecdsa256 or ecdsa384")
	for _, c := range []*cobra.Command{gateway, user} {
		c.Flags().IntVar(&f.days, "days", ca.DaysGateway, "lifetime, at most 825, which is what Apple's clients take")
		c.Flags().StringVar(&f.key, "key", ca.RSA2048, "kind of key: rsa2048, rsa3072, ecdsa256 or ecdsa384; all clients take RSA")
		c.Flags().StringSliceVar(&f.crl, "crl", nil, "`URL` where others find the list of revoked certificates")
	}
	for _, c := range []*cobra.Command{user, renew} {
		c.Flags().StringVarP(&f.out, "out", "o", "", "`file` to write (default: NAME.p12)")
		c.Flags().BoolVar(&f.legacy, "legacy", false, "encrypt for old systems")
	}
	revoke.Flags().StringVar(&f.reason, "reason", "unspecified", "unspecified, key-compromise, affiliation-changed, superseded or cessation")
	for _, c := range []*cobra.Command{revoke, crl} {
		c.Flags().IntVar(&f.crlDays, "days", 0, "days that the list counts (default: until the authority ends)")
	}
	cmd.AddCommand(initial, gateway, user, renew, revoke, crl, list, acmeCommand())
	return cmd
}

func withCA(f pkiFlags, do func(*ca.CA) error) error {
	c, err := ca.Open(f.authority())
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

// place writes a file into one of swanctl's directories.
func (f pkiFlags) place(dir, name string, b []byte, mode os.FileMode) (string, error) {
	path := filepath.Join(swanctlDir(f.dir), dir, name)
	return path, replaceFile(path, b, mode)
}

// caFile is the name of the authority's files in swanctl's directories.
const caFile = "adit-ca"

func initCA(cmd *cobra.Command, f pkiFlags) error {
	c, err := ca.Init(f.authority(), f.name, f.caKey, f.caDays)
	if err != nil {
		return err
	}
	defer c.Close()
	path, err := f.place("x509ca", caFile+".pem", c.CertPEM(), 0o644)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s until %s: %s, the key in %s\n", c.Cert, c.Cert.X509.NotAfter.Format(time.DateOnly), path, f.authority())
	return nil
}

func placeGateway(out io.Writer, f pkiFlags, name string, i ca.Identity) error {
	key, err := i.KeyPEM()
	if err != nil {
		return err
	}
	defer clear(key)
	keyPath, err := f.place("private", name+".key", key, 0o600)
	if err != nil {
		return err
	}
	path, err := f.place("x509", name+".pem", i.CertPEM(), 0o644)
	if err == nil {
		fmt.Fprintf(out, "%s until %s\n%s\n%s\nloaded by: adit reload\n", strings.Join(i.Cert.X509.DNSNames, ", "), i.Cert.X509.NotAfter.Format(time.DateOnly), path, keyPath)
	}
	return err
}

func placeUser(out io.Writer, f pkiFlags, name string, i ca.Identity, authority *pki.Certificate) error {
	passphrase := users.Password()
	b, err := pki.EncodePKCS12(i.Key, i.Cert, []*pki.Certificate{authority}, passphrase, f.legacy)
	if err != nil {
		return err
	}
	path := f.out
	if path == "" {
		path = name + ".p12"
	}
	if err := ca.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s until %s, serial number %s\npassphrase: %s\n", path, i.Cert.X509.NotAfter.Format(time.DateOnly), i.Cert.Serial(), passphrase)
	return nil
}

// placeCRL puts the list of what is revoked where the gateway reads it, and gives it
// to the one that runs.
func placeCRL(cmd *cobra.Command, f pkiFlags, c *ca.CA) error {
	days := f.crlDays
	if days == 0 {
		days = max(1, int(time.Until(c.Cert.X509.NotAfter)/(24*time.Hour)))
	}
	b, err := c.CRL(days)
	if err != nil {
		return err
	}
	path, err := f.place("x509crl", caFile+".crl", b, 0o644)
	if err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), path)
	return withRunning(cmd, func(ctx context.Context, client *vici.Client) error {
		body := conf.New("")
		body.Set("type", string(config.CertCRL))
		body.Set("data", string(b))
		m, err := client.Call(ctx, "load-cert", body)
		if err == nil && m.Text("success") != "yes" {
			err = errors.New(m.Text("errmsg"))
		}
		if err != nil {
			return fmt.Errorf("the file is written, but the running gateway did not take it: %w", err)
		}
		return nil
	})
}

func listCA(out io.Writer, f pkiFlags) error {
	return withCA(f, func(c *ca.CA) error {
		list, err := c.List()
		if err != nil {
			return err
		}
		slices.Reverse(list) // the latest first
		fmt.Fprintf(out, "%s, until %s\n", c.Cert, c.Cert.X509.NotAfter.Format(time.DateOnly))
		for _, e := range list {
			state := "until " + e.NotAfter.Format(time.DateOnly)
			switch {
			case !e.Revoked.IsZero():
				state = "revoked on " + e.Revoked.Format(time.DateOnly) + ", " + e.Reason
			case time.Now().After(e.NotAfter):
				state = "expired on " + e.NotAfter.Format(time.DateOnly)
			}
			fmt.Fprintf(out, "%s %-7s %s: %s\n", e.Serial, e.Kind, e.Name, state)
		}
		return nil
	})
}
