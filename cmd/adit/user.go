package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"adit/internal/config"
	"adit/internal/users"
	"adit/vici"
)

// swanctlDir is the directory of swanctl.conf: the one given, or the default.
func swanctlDir(given string) string {
	return cmp.Or(given, os.Getenv("SWANCTL_DIR"), "/etc/swanctl")
}

// userFlags are the flags of adit user.
type userFlags struct {
	dir    string
	groups []string
	stdin  bool
}

func userCommand() *cobra.Command {
	var f userFlags
	cmd := &cobra.Command{
		Use: "user", Short: "Add, change and delete the users who log in with a password",
		Long: `Add, change and delete the local users of connections with auth = eap-mschapv2.
They stand in the file users beside swanctl.conf, with the NT hash of the password
and their groups. A hash is as good as the password, so the file is root's alone.

Passwords are made and printed once, unless --password-stdin gives one. A running
gateway takes the change at once; without one it counts from the next start. Who is
deleted is put out.`,
	}
	cmd.PersistentFlags().StringVar(&f.dir, "dir", "", "`directory` of swanctl.conf (default: $SWANCTL_DIR, or /etc/swanctl)")
	add := &cobra.Command{
		Use: "add NAME", Short: "Add a user and print the password",
		Example: "  adit user add alice --group staff\n  pass vpn/bob | adit user add bob --password-stdin",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return addUser(cmd, f, args[0]) },
	}
	passwd := &cobra.Command{
		Use: "passwd NAME", Short: "Give a user another password",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return changePassword(cmd, f, args[0]) },
	}
	groups := &cobra.Command{
		Use: "groups NAME [GROUP...]", Short: "Put a user into these groups and no others",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			edit := users.Edit(args[0], func(u *users.User) error { return u.SetGroups(args[1:]) })
			if err := users.Change(swanctlDir(f.dir), edit); err != nil {
				return err
			}
			return tellUsers(cmd, f)
		},
	}
	del := &cobra.Command{
		Use: "del NAME...", Short: "Delete users and close their tunnels",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := users.Change(swanctlDir(f.dir), users.Delete(args...)); err != nil {
				return err
			}
			return tellUsers(cmd, f)
		},
	}
	list := &cobra.Command{
		Use: "list", Short: "List users and their groups", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := users.Read(swanctlDir(f.dir))
			defer users.Zero(all)
			for _, u := range all {
				fmt.Fprintln(cmd.OutOrStdout(), strings.TrimSpace(u.Name+" "+strings.Join(u.Groups, ",")))
			}
			return err
		},
	}
	add.Flags().StringSliceVar(&f.groups, "group", nil, "groups of the user, which `groups` of a connection asks for")
	for _, c := range []*cobra.Command{add, passwd} {
		c.Flags().BoolVar(&f.stdin, "password-stdin", false, "read the password from standard input instead of making one")
	}
	cmd.AddCommand(add, passwd, groups, del, list)
	return cmd
}

// password is the new one: made, or from standard input.
func (f userFlags) password(in io.Reader) (text string, made bool, err error) {
	if !f.stdin {
		return users.Password(), true, nil
	}
	b, err := io.ReadAll(io.LimitReader(in, 4096))
	return strings.TrimRight(string(b), "\r\n"), false, err
}

func addUser(cmd *cobra.Command, f userFlags, name string) error {
	password, made, err := f.password(cmd.InOrStdin())
	if err != nil {
		return err
	}
	u, err := users.New(name, password, f.groups)
	if err != nil {
		return err
	}
	if err := users.Change(swanctlDir(f.dir), users.Add(u)); err != nil {
		return err
	}
	if made {
		fmt.Fprintln(cmd.OutOrStdout(), password)
	}
	return tellUsers(cmd, f)
}

func changePassword(cmd *cobra.Command, f userFlags, name string) error {
	password, made, err := f.password(cmd.InOrStdin())
	if err != nil {
		return err
	}
	edit := users.Edit(name, func(u *users.User) error { return u.SetPassword(password) })
	if err := users.Change(swanctlDir(f.dir), edit); err != nil {
		return err
	}
	if made {
		fmt.Fprintln(cmd.OutOrStdout(), password)
	}
	return tellUsers(cmd, f)
}

// tellUsers gives the users to the gateway that runs, if one does.
func tellUsers(cmd *cobra.Command, f userFlags) error {
	list, err := users.Read(swanctlDir(f.dir))
	if err != nil {
		return err
	}
	defer users.Zero(list)
	return withRunning(cmd, func(ctx context.Context, c *vici.Client) error {
		for _, s := range config.UserSteps(list) {
			m, err := c.Call(ctx, s.Command, s.Body)
			switch {
			case errors.Is(err, vici.ErrUnknownCommand):
				return errors.New("the file is written, but the daemon that answers is not adit and knows no users")
			case err != nil:
				return fmt.Errorf("the file is written, but the running gateway did not take it: %w", err)
			case m.Text("success") != "yes":
				return fmt.Errorf("the file is written, but the running gateway refused it: %s", m.Text("errmsg"))
			}
		}
		return nil
	})
}

// withRunning tells the gateway that runs, if one does, of what was written.
func withRunning(cmd *cobra.Command, do func(context.Context, *vici.Client) error) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), 20*time.Second)
	defer cancel()
	c, err := dial(ctx)
	if err != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "no gateway is running: this counts from its next start")
		return nil
	}
	defer c.Close()
	return do(ctx, c)
}
