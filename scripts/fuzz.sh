#!/bin/bash
# Runs every fuzz target of the module, one after the other, for the given time.
set -uo pipefail

for_each=${1:-60s}
rc=0
for pkg in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz'); do
		printf '== %s %s\n' "$pkg" "$target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$for_each" "$pkg" || rc=1
	done
done
exit $rc
