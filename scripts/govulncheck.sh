#!/bin/bash
# Looks for known vulnerabilities in what the program calls. A finding fails; a
# database that can't be reached is said and let pass.
set -uo pipefail

version=v1.9.0
# The tool is built only where somebody could answer it.
if [ -z "${HTTPS_PROXY:-}${https_proxy:-}${ALL_PROXY:-}${all_proxy:-}" ] && ! timeout 20 getent hosts vuln.go.dev >/dev/null; then
	echo 'govulncheck: NOT CHECKED, its database cannot be reached: no address of vuln.go.dev'
	exit 0
fi
out=$(mktemp)
trap 'rm -f "$out"' EXIT
# First a package without dependencies: is the database there at all?
timeout 120 go run "golang.org/x/vuln/cmd/govulncheck@$version" ./conf >"$out" 2>&1 </dev/null
case $? in
0 | 3) exec go run "golang.org/x/vuln/cmd/govulncheck@$version" ./... ;;
esac
if grep -Eq 'vuln\.go\.dev|fetching vulnerabilities|no such host|dial tcp|proxyconnect' "$out"; then
	printf 'govulncheck: NOT CHECKED, its database cannot be reached: %s\n' "$(grep -m 1 govulncheck: "$out" || tail -n 1 "$out")"
	exit 0
fi
cat "$out" >&2
printf 'govulncheck: could not run (see above)\n' >&2
exit 1
