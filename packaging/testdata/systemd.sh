# The service under a systemd that is process 1: systemd.sh OLD.deb NEW.deb, started by
# a unit of the test. There is no network but a pair of devices.
. /bring/steps.sh
set -u

conf=/etc/swanctl/swanctl.conf
good() {
	cat >$conf <<'END'
connections {
  net {
    remote_addrs = 192.0.2.9
    local {
      auth = psk
    }
    remote {
      auth = psk
    }
    children {
      net {
        remote_ts = 10.9.0.0/16
        start_action = trap
      }
    }
  }
}
secrets {
  ike {
    secret = abcdefghijklmnopqrstuvwxyz123456
  }
}
END
	chmod 600 $conf
}
pid() { systemctl show -p MainPID --value adit.service; }
active() { [ "$(systemctl is-active adit.service)" = "$1" ]; }
guarded() { nft list tables | grep -q adit; }
charon() { systemctl is-active strongswan.service; }
listed() { swanctl --list-conns | grep -q '^net:'; }
ringed() { journalctl -u adit.service | grep -q 'adit is running' && ! journalctl -u adit.service | grep -q "device's queue"; }
other() { [ "$(pid)" != "$1" ] && active active; }

ip link set lo up
ip link add v0 type veth peer v1
ip link set v1 up
ip addr add 192.0.2.1/24 dev v0
ip link set v0 up
# Containers forbid packages to start anything; this is no container.
rm -f /usr/sbin/policy-rc.d

good
# Whatever the machine has: the device of several workers has no ring.
printf 'adit {\n  workers = 1\n}\n' >>/etc/strongswan.conf
must 'charon runs' systemctl start strongswan.service
must 'install' dpkg -i "$1"
must 'charon runs on' charon
must 'start' systemctl start adit.service
must 'it is active' active active
mustnt 'charon made room' charon
must 'the socket is where swanctl looks' test -S /run/charon.vici
must 'the socket is root'"'"'s and the group'"'"'s' [ "$(stat -c '%a %U %G' /run/charon.vici)" = '660 root adit' ]
must 'swanctl lists what was loaded' listed
must 'the guard stands' guarded
must 'the process is the user'"'"'s' [ "$(stat -c %U "/proc/$(pid)")" != root -o "$(awk '/^Uid/{print $2}' "/proc/$(pid)/status")" = "$(id -u adit)" ]
# CAP_BPF was there for the device, and is left in the bounding set alone.
three() { ! grep -h '^Cap[IPEA]' /proc/"$1"/task/*/status | grep -qv '.0000000000003400$'; }
must 'it has three capabilities' three "$(pid)"
must 'and no way to more than one besides' grep -q '^CapBnd:.0000008000003400$' "/proc/$(pid)/status"
must 'single packets come by the ring' ringed
must 'it is under a filter' grep -q '^Seccomp:.2$' "/proc/$(pid)/status"
must 'the keys are closed to it' test "$(stat -c '%a %U' $conf)" = '600 root'
mustnt 'others do not reach the socket' setpriv --reuid nobody --regid nogroup --clear-groups swanctl --stats

p=$(pid)
sed -i 's/10\.9\.0\.0/10.8.0.0/' $conf
must 'reload' systemctl reload adit.service
must 'what was changed is loaded' sh -c 'swanctl --list-conns | grep -q 10.8.0.0/16'
echo 'nonsense = 1' >>$conf
mustnt 'a reload with an error says so' systemctl reload adit.service
must 'it runs on' listed
must 'it is the same process' [ "$(pid)" = "$p" ]
good

kill -9 "$p"
must 'it is started again after a crash' await other "$p"
must 'with the configuration' listed
must 'and the guard' guarded

must 'enable' systemctl enable adit.service
p=$(pid)
must 'upgrade' dpkg -i "$2"
must 'the new version runs' await other "$p"
must 'and has the configuration' listed

must 'stop' systemctl stop adit.service
must 'it is over' active inactive
mustnt 'the socket went with it' test -e /run/charon.vici
mustnt 'the guard went with it' guarded
must 'nothing of the journal is left' test -z "$(find /run/adit -type f)"

echo 'nonsense = 1' >>$conf
mustnt 'a start with an error fails' systemctl start adit.service
systemctl stop adit.service
systemctl reset-failed adit.service
mustnt 'nothing is left of it' guarded
good
must 'start again' systemctl start adit.service
must 'charon takes over' systemctl start strongswan.service
must 'adit made room' active inactive
mustnt 'no guard under charon' guarded
must 'swanctl finds charon' listed
must 'adit takes over' systemctl start adit.service
must 'swanctl finds adit' listed
mustnt 'charon made room again' charon
must 'remove' dpkg -r adit
mustnt 'nothing runs' pidof adit
mustnt 'no guard' guarded
must 'purge' dpkg -P adit
mustnt 'no link' test -e /etc/systemd/system/multi-user.target.wants/adit.service
[ $failed = 0 ] || journalctl --no-pager -u adit.service -u adit.socket | tail -n 60
echo "END $failed"
