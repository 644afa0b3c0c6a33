# Steps of the tests in a chroot: must and mustnt say what was looked at and how it
# went; the word after that is the command.
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
failed=0

must() { # what, command...
	what=$1
	shift
	if out=$("$@" 2>&1); then
		echo "ok: $what"
	else
		echo "FAILED: $what: $*: $out"
		failed=1
	fi
}
mustnt() {
	what=$1
	shift
	if out=$("$@" 2>&1); then
		echo "FAILED: $what: $*: $out"
		failed=1
	else
		echo "ok: $what"
	fi
}
# await waits for up to 10 seconds until a command succeeds.
await() {
	for _ in $(seq 100); do
		"$@" >/dev/null 2>&1 && return
		sleep 0.1
	done
	"$@"
}
