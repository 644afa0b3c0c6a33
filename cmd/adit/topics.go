package main

import "github.com/spf13/cobra"

// topics are texts of `adit help` that belong to no verb; the manual page has them
// as sections.
func topics() []*cobra.Command {
	topic := func(name, short, long string) *cobra.Command {
		return &cobra.Command{Use: name, Short: short, Long: long}
	}
	return []*cobra.Command{
		topic("files", "Files that adit reads and makes", `  /etc/swanctl/swanctl.conf   connections, secrets, pools and authorities
  /etc/swanctl/x509*/, private/, ...
                              certificates and keys, in swanctl's directories
  /etc/swanctl/users          who logs in with a password that adit user gave
  /etc/swanctl/ca/            authority of adit pki, with its key
  /etc/strongswan.conf        settings of the daemon, charon's section
  /run/charon.vici            control socket
  /var/lib/adit/crash.key     secret by which peers notice a restart
  /run/adit/                  journal of what was changed on the host, by which
                              the next start cleans up after a crash`),
		topic("signals", "What signals do", `  SIGHUP            adit run reads strongswan.conf and the file named by --config
                    again and opens log files anew; with an error in them
                    nothing changes
  SIGUSR1           adit run writes down what all its goroutines do
  SIGTERM, SIGINT   adit run closes all tunnels, undoes every change to the host
                    and ends

The packet filter that keeps protected traffic from leaving in the clear stays
after SIGKILL and after a crash, until the next start takes it over.`),
		topic("environment", "Environment variables that adit reads", `  STRONGSWAN_CONF   the daemon's settings instead of /etc/strongswan.conf
  SWANCTL_DIR       directory of swanctl.conf instead of /etc/swanctl
  NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS
                    set by systemd: where readiness and life signs go, and
                    the control socket that it made`),
		topic("exit-status", "What exit codes mean", `0 if all went well; 1 if something failed, which is said on standard error, or if
adit check found an error. adit check --strict, adit explain and
adit import also use 2.`),
	}
}
