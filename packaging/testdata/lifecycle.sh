#!/bin/sh
# Installs, upgrades, removes and purges the package in a root file system and looks
# at each step: lifecycle.sh OLD.deb NEW.deb. Runs in the chroot. OWNED=yes tells that
# strongSwan's package has /etc/swanctl already.
set -u
. /bring/steps.sh

mode() { [ "$(stat -c '%a %U' "$1")" = "$2" ]; }
version() { [ "$(dpkg-query -W -f '${Version}' adit)" = "$1" ] && [ "$(dpkg-query -W -f '${db:Status-Abbrev}' adit)" = 'ii ' ]; }
link=/etc/systemd/system/multi-user.target.wants/adit.service

mustnt 'adit is not there before' test -e /usr/sbin/adit
before=$(find /etc/swanctl 2>/dev/null | sort)
must 'install' dpkg -i "$1"
must 'installed' version "$(dpkg-deb -f "$1" Version)"
must 'the program runs' /usr/sbin/adit version
must 'the user is there' getent passwd adit
must 'nobody logs in as that user' sh -c 'getent passwd adit | grep -q /nologin$'
must 'keys are closed' mode /etc/swanctl/private '700 root'
must 'certificates are open' mode /etc/swanctl/x509ca '755 root'
mustnt 'the first installation enables nothing' test -e $link
for f in /usr/share/bash-completion/completions/adit /lib/systemd/system/adit.socket; do
	must "$f" test -s $f
done
# Programs that a small system lacks.
if command -v systemctl >/dev/null; then
	must 'enable' systemctl enable adit.service
	must 'enabled' test -L $link
	must 'systemd understands the units' sh -c '[ -z "$(systemd-analyze verify adit.service adit.socket 2>&1)" ]'
else
	mkdir -p ${link%/*} && ln -s /lib/systemd/system/adit.service $link
fi
if command -v man >/dev/null && man -w ls >/dev/null 2>&1; then
	must 'the page is found' sh -c 'man 8 adit | grep -q "adit run"'
fi
if command -v bash >/dev/null; then
	must 'bash understands the completion' bash -n /usr/share/bash-completion/completions/adit
fi

# What people and the service make.
echo 'connections { }' >/etc/swanctl/conf.d/mine.conf
mkdir -p /var/lib/adit /var/log/adit /run/adit
touch /var/lib/adit/state /var/log/adit/adit.log
chown -R adit:adit /var/lib/adit /var/log/adit
uid=$(id -u adit)

must 'upgrade' dpkg -i "$2"
must 'upgraded' version "$(dpkg-deb -f "$2" Version)"
must 'an upgrade leaves it enabled' test -L $link
must 'an upgrade keeps the state' test -e /var/lib/adit/state
must 'nothing is missing' sh -c '[ -z "$(dpkg -V adit)" ]'

must 'remove' dpkg -r adit
mustnt 'removed' test -e /usr/sbin/adit
must 'removal keeps the configuration' test -s /etc/swanctl/conf.d/mine.conf
must 'removal keeps the state' test -e /var/lib/adit/state
must 'install again' dpkg -i "$2"
must 'it is enabled as before' test -L $link
must 'the user kept its number' [ "$(id -u adit)" = "$uid" ]

must 'purge' dpkg -P adit
mustnt 'nothing is known of the package' dpkg-query -W adit
for f in /usr/sbin/adit /var/lib/adit /var/log/adit /run/adit $link /usr/lib/sysusers.d/adit.conf /usr/share/doc/adit; do
	mustnt "purged: $f" ls -d $f
done
must 'purging keeps what people wrote' test -s /etc/swanctl/conf.d/mine.conf
rm -f /etc/swanctl/conf.d/mine.conf
if [ "${OWNED:-}" = yes ]; then
	must 'strongSwan keeps its directories' [ "$(find /etc/swanctl | sort)" = "$before" ]
else
	must 'only the directory with the file was left' [ "$(find /etc/swanctl | sort | tr '\n' ' ')" = '/etc/swanctl /etc/swanctl/conf.d ' ]
	must 'install over a purged one' dpkg -i "$2"
	must 'purge again' dpkg -P adit
	mustnt 'nothing is left' test -e /etc/swanctl
fi
exit $failed
