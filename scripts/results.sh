#!/bin/bash
# Says where the interop table of the last test run is, and shows it.
table=interop/out/interop.txt
if [ -s "$table" ]; then
	cat "$table"
	printf 'interop results: %s and, for machines, %s\n' "$PWD/$table" "$PWD/interop/out/interop.json"
else
	printf 'interop results: none were written\n'
fi
