#!/bin/bash
# Fetches what strongSwan and Libreswan publish as configurations, for the tests of
# adit import: the source packages of Debian, with lists of their own, into a
# directory outside of the repository. They are under the GPL and cannot lie here.
# usage: corpus.sh DIR; leaves DIR/strongswan and DIR/libreswan, each only if it could be had.
set -euo pipefail
dir=$(mkdir -p "$1" && cd "$1" && pwd)
exec 9>"$dir/.lock"
flock 9

# fetch NAME SUITE PATHS...: unpack these paths of the newest original tar of a
# source package into DIR/NAME.
fetch() {
	local name=$1 suite=$2; shift 2
	[ ! -e "$dir/$name/.complete" ] || return 0
	local tmp="$dir/.$name.$$"
	rm -rf "$tmp"; mkdir -p "$tmp"/{lists/partial,cache/archives/partial,src,out}
	cat >"$tmp/list.sources" <<-EOF
		Types: deb-src
		URIs: http://deb.debian.org/debian
		Suites: $suite
		Components: main
		Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
	EOF
	local apt=(apt-get -qq -o "Dir::Etc::sourcelist=$tmp/list.sources" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$tmp/lists"
		-o "Dir::Cache=$tmp/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o Acquire::Retries=1 -o Acquire::http::Timeout=10)
	# The signature beside the tar may be missing in a mirror; apt compares the sum of the tar.
	"${apt[@]}" update && (cd "$tmp/src" && "${apt[@]}" source --download-only --tar-only "$name") || true
	local tar
	tar=$(ls "$tmp"/src/*.orig.tar.* 2>/dev/null | grep -v '\.asc$' | head -1) || true
	if [ -z "$tar" ]; then
		echo "corpus: the source of $name in $suite cannot be had" >&2
		rm -rf "$tmp"; return 0
	fi
	tar -C "$tmp/out" --strip-components=1 --wildcards -xf "$tar" "$@"
	basename "$tar" >"$tmp/out/.complete"
	rm -rf "${dir:?}/$name"
	mv "$tmp/out" "$dir/$name"
	rm -rf "$tmp"
}

fetch strongswan bookworm '*/testing/tests/*.conf' '*/testing/tests/*.secrets'
fetch libreswan trixie '*/testing/pluto/*.conf' '*/testing/pluto/*.secrets' '*/testing/baseconfigs'
