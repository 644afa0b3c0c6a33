#!/bin/bash
# Installs what the tests and the demo need on Debian 12 (the peers, the packet
# tools), as root. Does nothing, and asks no network, where all is there already.
set -euo pipefail

packages=(
	nftables iproute2 iputils-ping ethtool
	tcpdump tshark iperf3 python3-scapy
	strongswan-swanctl charon-systemd strongswan-pki strongswan-starter strongswan-charon
	libcharon-extra-plugins libcharon-extauth-plugins libstrongswan-standard-plugins libstrongswan-extra-plugins
	freeradius freeradius-utils vpnc ike-scan
	make gcc libc6-dev dbus-daemon
	systemd groff-base
)
# A minimal Debian to install the package into.
[ -z "${ADIT_LONG:-}" ] || packages+=(debootstrap)

fail() {
	printf 'setup: %s\n' "$*" >&2
	exit 1
}

installed() {
	[ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null)" = 'ii ' ]
}

command -v dpkg-query >/dev/null || fail 'this is no Debian: install the counterparts of these yourself:' "${packages[*]}"

missing=()
for p in "${packages[@]}"; do
	installed "$p" || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
	[ "$(id -u)" = 0 ] || fail "not root, and these packages are missing: ${missing[*]}"
	printf 'setup: installing %s\n' "${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	apt=(apt-get -q -y -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3)
	"${apt[@]}" update </dev/null || fail 'apt-get update failed (see above)'
	# Capturing by users who aren't root is not wanted; and no question about it.
	if command -v debconf-set-selections >/dev/null; then
		echo 'wireshark-common wireshark-common/install-setuid boolean false' | debconf-set-selections
	fi
	# The tests start daemons of their own in namespaces of their own; the packaged
	# one must not run. Without systemd nothing starts it; with it, the package would,
	# unless a policy says no while installing.
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		trap 'rm -f "$policy"' EXIT
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	"${apt[@]}" install --no-install-recommends "${missing[@]}" </dev/null ||
		fail "could not install: ${missing[*]} (see above)"
	# These enable themselves for the next boot; only where they are new they are ours.
	case " ${missing[*]} " in
	*' freeradius '*) update-rc.d freeradius disable ||
		fail 'could not disable the freeradius service (see above)' ;;
	esac
	case " ${missing[*]} " in
	*' strongswan-starter '*) update-rc.d ipsec disable ||
		fail 'could not disable the ipsec service (see above)' ;;
	esac
fi

for p in "${packages[@]}"; do
	installed "$p" || fail "package $p is still not installed"
done
for f in /usr/sbin/charon-systemd /usr/sbin/swanctl /usr/sbin/freeradius /usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so /usr/sbin/ipsec /usr/lib/ipsec/charon; do
	[ -e "$f" ] || fail "$f is missing though its package is installed"
done
command -v go >/dev/null || fail 'Go is missing: see https://go.dev/doc/install'
# A missing device node on an otherwise capable machine (a container) can be made.
if [ "$(id -u)" = 0 ] && [ ! -e /dev/net/tun ]; then
	mkdir -p /dev/net && mknod /dev/net/tun c 10 200 && chmod 666 /dev/net/tun ||
		fail '/dev/net/tun is missing and cannot be made'
fi
