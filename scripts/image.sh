#!/bin/bash
# Builds the container image as an OCI archive and says its path: image.sh DIRECTORY.
# No container daemon is needed. The same sources give the same octets. From the
# environment:
#   GOARCH             architecture, else this machine's
#   IMAGE_VERSION      version, else that of scripts/version.sh
#   IMAGE_BINARY       a binary of that architecture, else one is built
#   SOURCE_DATE_EPOCH  time of every file, else that of the last commit
set -euo pipefail
out=$(realpath "${1:?directory for the image}")
cd "$(dirname "$0")/.."

arch=${GOARCH:-$(go env GOARCH)}
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
# A tag of an image has no ~ and no +.
version=${IMAGE_VERSION:-$(scripts/version.sh | tr '~+' '--')}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
binary=${IMAGE_BINARY:-}
if [ -z "$binary" ]; then
	binary=$work/adit
	CGO_ENABLED=0 GOARCH=$arch go build -buildvcs=false -trimpath -ldflags "-s -w -X adit.Version=$version" -o "$binary" ./cmd/adit
fi
image=$out/adit-$version-$arch.oci.tar
GOARCH=$(go env GOHOSTARCH) go run ./packaging/image -binary "$binary" -arch "$arch" -version "$version" -epoch "$epoch" -out "$image"
echo "$image"
