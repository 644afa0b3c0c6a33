#!/bin/bash
# Builds DPDK's example ipsec-secgw for `adit bench tunnel`: Debian has its source only.
# As root; installs DPDK's development package and leaves the program in
# ~/.cache/adit-bench/ipsec-secgw, where the benchmark looks for it.
#
# One line is changed: AF_PACKET has no receive checksum offload, which the example asks
# every device for.
set -euo pipefail

out=${XDG_CACHE_HOME:-$HOME/.cache}/adit-bench
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/lists/partial"

DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 install --no-install-recommends dpdk libdpdk-dev gcc make pkg-config ethtool </dev/null
. /etc/os-release
echo "deb-src http://deb.debian.org/debian $VERSION_CODENAME main" >"$work/src.list"
apt=(apt-get -q -o "Dir::Etc::sourcelist=$work/src.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$work/lists" -o APT::Sandbox::User=root)
"${apt[@]}" update
(cd "$work" && "${apt[@]}" --download-only source dpdk && tar -xf dpdk_*.orig.tar.xz --wildcards '*/examples/ipsec-secgw/*' '*/examples/common/*')
cd "$work"/dpdk*/examples/ipsec-secgw
grep -q 'offloads = RTE_ETH_RX_OFFLOAD_CHECKSUM,' ipsec-secgw.c || { echo 'secgw: the line to be changed is not there' >&2; exit 1; }
sed -i 's/offloads = RTE_ETH_RX_OFFLOAD_CHECKSUM,/offloads = 0,/' ipsec-secgw.c
make shared
install -m 755 build/ipsec-secgw-shared "$out/ipsec-secgw"
echo "$out/ipsec-secgw"
