#!/bin/bash
# Builds the Debian package and says its path: deb.sh DIRECTORY. The same sources give
# the same octets. From the environment:
#   GOARCH             architecture, else this machine's
#   DEB_VERSION        version, else that of scripts/version.sh
#   DEB_BINARY         a binary of that architecture, else one is built
#   DEB_COMPRESS       compression as dpkg-deb has it, else xz
#   SOURCE_DATE_EPOCH  time of every file, else that of the last commit
set -euo pipefail
out=$(realpath "${1:?directory for the package}")
cd "$(dirname "$0")/.."
umask 022

export GOARCH=${GOARCH:-$(go env GOARCH)}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
version=${DEB_VERSION:-$(scripts/version.sh)}
case $GOARCH in
amd64 | arm64 | riscv64 | s390x) arch=$GOARCH ;;
arm) arch=armhf GOARM=7 && export GOARM ;;
386) arch=i386 ;;
ppc64le) arch=ppc64el ;;
*) echo "deb.sh: Debian has no architecture for GOARCH=$GOARCH" >&2 && exit 1 ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
put() { install -D -m "$1" "$2" "$root$3"; }
build() { CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags "-s -w -X adit.Version=$version" -o "$1" ./cmd/adit; }

if [ -n "${DEB_BINARY:-}" ]; then
	put 755 "$DEB_BINARY" /usr/sbin/adit
else
	build "$root/usr/sbin/adit"
fi
# The page and the completions come from a binary that runs here.
native=$root/usr/sbin/adit
if [ "$GOARCH" != "$(go env GOHOSTARCH)" ]; then
	native=$work/adit
	GOARCH=$(go env GOHOSTARCH) build "$native"
fi

put 644 packaging/adit.service /lib/systemd/system/adit.service
put 644 packaging/adit.socket /lib/systemd/system/adit.socket
put 644 packaging/sysusers.conf /usr/lib/sysusers.d/adit.conf
doc=/usr/share/doc/adit
put 644 README.md $doc/README.md
put 644 packaging/deb/copyright $doc/copyright
put 644 CHANGELOG.md $doc/CHANGELOG.md
gzip -9n "$root$doc/CHANGELOG.md"
printf 'adit (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md.gz.\n\n -- %s  %s\n' "$version" \
	"$(sed -n 's/^Maintainer: //p' packaging/deb/control.in)" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" >"$work/changelog"
put 644 "$work/changelog" $doc/changelog
gzip -9n "$root$doc/changelog"
echo 'adit: statically-linked-binary' >"$work/overrides" # on purpose
put 644 "$work/overrides" /usr/share/lintian/overrides/adit
for f in docs/*.md docs/rfc/*.md; do put 644 "$f" "$doc/$f"; done
"$native" man >"$work/adit.8"
put 644 "$work/adit.8" /usr/share/man/man8/adit.8
gzip -9n "$root/usr/share/man/man8/adit.8"
for shell in bash:/usr/share/bash-completion/completions/adit zsh:/usr/share/zsh/vendor-completions/_adit fish:/usr/share/fish/vendor_completions.d/adit.fish; do
	"$native" completion "${shell%%:*}" >"$work/completion"
	put 644 "$work/completion" "${shell#*:}"
done

mkdir "$root/DEBIAN"
size=$(du -sk --apparent-size --exclude=DEBIAN "$root" | cut -f1)
sed "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@SIZE@/$size/" packaging/deb/control.in >"$root/DEBIAN/control"
install -m 755 packaging/deb/postinst packaging/deb/prerm packaging/deb/postrm "$root/DEBIAN/"
(cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

deb=$out/adit_${version}_$arch.deb
dpkg-deb --root-owner-group "-Z${DEB_COMPRESS:-xz}" --build "$root" "$deb" >/dev/null
echo "$deb"
