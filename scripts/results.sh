#!/bin/bash
# Says where the interop table of the last test run is, how many scenarios it holds
# and which of them failed.
table=interop/out/interop.txt
if [ ! -s "$table" ]; then
	printf 'interop results: none were written\n'
	exit 0
fi
grep -E '  FAILED  ' "$table"
printf 'interop results: %d ok, %d failed: %s and, for machines, %s\n' \
	"$(grep -c '  ok  ' "$table")" "$(grep -c '  FAILED  ' "$table")" \
	"$PWD/$table" "$PWD/interop/out/interop.json"
