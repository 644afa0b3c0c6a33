#!/bin/bash
# Says the version for packages: that of the tag vX.Y.Z, and how many commits came
# after it; before the first tag that of adit.go. Versions sort as they were made.
set -euo pipefail
cd "$(dirname "$0")/.."

dirty=
[ -z "$(git status --porcelain --untracked-files=no 2>/dev/null)" ] || dirty=.dirty
if described=$(git describe --tags --match 'v[0-9]*' --long 2>/dev/null); then
	hash=${described##*-}
	rest=${described%-*}
	version=${rest%-*}
	version=${version#v}
	# v1.2.0-rc1 is older than v1.2.0.
	version=${version/-/\~}
	[ "${rest##*-}" = 0 ] && [ -z "$dirty" ] || version+=+${rest##*-}.$hash$dirty
else
	version=$(sed -n 's/^var Version = "\([0-9.]*\).*/\1/p' adit.go)
	version+="~dev$(git rev-list --count HEAD 2>/dev/null || echo 0)"
	hash=$(git rev-parse --short HEAD 2>/dev/null) && version+=+g$hash$dirty
fi
echo "$version"
