#!/usr/bin/env bash
# Runs the labs by themselves, after everything else: they measure loss and time.
# A scenario that fails runs once more, alone. What fails twice fails the run; what
# passes then is reported as UNSTEADY, with its first failure above, and stays a
# fault to be found. Arguments: those of go test.
set -uo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
go test -race -vet=off -p 1 "$@" ./interop/... 2>&1 | tee "$log"
rc=${PIPESTATUS[0]}
[ "$rc" = 0 ] && exit 0
mapfile -t failed < <(sed -n 's/^--- FAIL: \(Test[A-Za-z0-9_]*\) .*/\1/p' "$log" | sort -u)
# Too many, a panic, or a failure to build is no matter of chance.
if [ "${#failed[@]}" -eq 0 ] || [ "${#failed[@]}" -gt 3 ] || grep -qE '^(panic:|# adit|fatal error:)|WARNING: DATA RACE' "$log"; then
    exit "$rc"
fi
names=$(IFS='|'; echo "${failed[*]}")
echo "once more, alone: ${failed[*]}"
mv interop/out interop/first # the table of the whole run stays as it is
trap 'rm -rf "$log" interop/out; mv interop/first interop/out' EXIT
if go test -race -vet=off -p 1 "$@" -run "^($names)\$" ./interop/...; then
    echo "UNSTEADY: ${failed[*]} failed once and passed when repeated; see above for the failure"
    exit 0
fi
exit "$rc"
