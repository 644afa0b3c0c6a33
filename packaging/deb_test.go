package packaging_test

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var debs sync.Map // version → path

// deb is the path of the package of a version, which is built once.
func deb(t *testing.T, version string) string {
	t.Helper()
	path, ok := debs.Load(version)
	if !ok {
		parent, err := buildDir()
		if err != nil {
			t.Fatal(err)
		}
		path = buildDeb(t, parent, version)
		debs.Store(version, path)
	}
	return path.(string)
}

// buildDeb builds it, without compression: that is dpkg-deb's, and takes most of the time.
func buildDeb(t *testing.T, dir, version string) string {
	t.Helper()
	cmd := exec.Command("../scripts/deb.sh", dir)
	cmd.Env = append(os.Environ(), "DEB_VERSION="+version, "DEB_BINARY="+binary(t), "DEB_COMPRESS=none", "SOURCE_DATE_EPOCH=1700000000")
	return strings.TrimSpace(run(t, cmd))
}

// The same sources give the same octets, and the contents are as Debian wants them.
func TestDebContents(t *testing.T) {
	path := deb(t, "1.2.3")
	if name := "adit_1.2.3_" + runtime.GOARCH + ".deb"; filepath.Base(path) != name {
		t.Errorf("it is called %s, not %s", filepath.Base(path), name)
	}
	if a, b := read(t, path), read(t, buildDeb(t, t.TempDir(), "1.2.3")); !bytes.Equal([]byte(a), []byte(b)) {
		t.Error("two builds differ")
	}
	line := regexp.MustCompile(`^([-dl])([rwxst-]{9}) root/root +\d+ 2023-11-14 \d\d:\d\d (\./.*)$`)
	found := map[string]string{}
	for s := range strings.Lines(command(t, "dpkg-deb", "-c", path)) {
		m := line.FindStringSubmatch(strings.TrimSpace(s))
		if m == nil {
			t.Errorf("odd owner, mode or time: %s", s)
			continue
		}
		found[strings.TrimPrefix(m[3], ".")] = m[2]
		want := map[string]string{"d": "rwxr-xr-x", "-": "rw-r--r--", "l": "rwxrwxrwx"}[m[1]]
		if m[3] == "./usr/sbin/adit" {
			want = "rwxr-xr-x"
		}
		if m[2] != want {
			t.Errorf("%s has mode %s, want %s", m[3], m[2], want)
		}
	}
	for _, want := range []string{"/usr/sbin/adit", "/lib/systemd/system/adit.service", "/lib/systemd/system/adit.socket",
		"/usr/lib/sysusers.d/adit.conf", "/usr/share/man/man8/adit.8.gz", "/usr/share/doc/adit/copyright", "/usr/share/doc/adit/changelog.gz",
		"/usr/share/doc/adit/README.md", "/usr/share/doc/adit/docs/install.md", "/usr/share/bash-completion/completions/adit",
		"/usr/share/zsh/vendor-completions/_adit", "/usr/share/fish/vendor_completions.d/adit.fish"} {
		if found[want] == "" {
			t.Errorf("%s is missing", want)
		}
	}
	for name := range found {
		if strings.HasPrefix(name, "/etc/") {
			t.Errorf("%s would collide with strongSwan's package", name)
		}
	}
	control := command(t, "dpkg-deb", "-f", path)
	for _, want := range []string{"Package: adit", "Version: 1.2.3", "Architecture: " + runtime.GOARCH, "Depends: passwd"} {
		if !strings.Contains(control, want+"\n") {
			t.Errorf("no %q in\n%s", want, control)
		}
	}
	out := t.TempDir()
	command(t, "dpkg-deb", "-R", path, out)
	sums := exec.Command("md5sum", "--check", "--quiet", "--strict", "DEBIAN/md5sums")
	sums.Dir = out
	run(t, sums)
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		command(t, "sh", "-n", filepath.Join(out, "DEBIAN", script))
	}
}

// Versions sort as they were made, and dpkg takes them.
func TestDebVersion(t *testing.T) {
	version := strings.TrimSpace(command(t, "../scripts/version.sh"))
	if !regexp.MustCompile(`^[0-9][A-Za-z0-9.+~]*$`).MatchString(version) {
		t.Errorf("%q is no version of a Debian package", version)
	}
	repo := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=adit", "-c", "user.email=adit@localhost"}, args...)...)
		cmd.Dir = repo
		run(t, cmd)
	}
	git("init", "-q")
	for name, text := range map[string]string{"scripts/version.sh": read(t, "../scripts/version.sh"), "adit.go": "package adit\n\nvar Version = \"0.1.0-dev\"\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(repo, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(repo, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	last := "0~"
	step := func(want string) {
		t.Helper()
		got := strings.TrimSpace(command(t, filepath.Join(repo, "scripts/version.sh")))
		if !regexp.MustCompile("^" + want + "$").MatchString(got) {
			t.Errorf("version %q, want %s", got, want)
		}
		if err := exec.Command("dpkg", "--compare-versions", last, "lt", got).Run(); err != nil {
			t.Errorf("%s does not sort before %s", last, got)
		}
		last = got
	}
	git("add", ".")
	git("commit", "-qm", "one")
	step(`0\.1\.0~dev1\+g[0-9a-f]{7,}`)
	git("commit", "-qm", "two", "--allow-empty")
	step(`0\.1\.0~dev2\+g[0-9a-f]{7,}`)
	git("tag", "v0.1.0-rc1")
	step(`0\.1\.0~rc1`)
	git("commit", "-qm", "three", "--allow-empty")
	step(`0\.1\.0~rc1\+1\.g[0-9a-f]{7,}`)
	git("tag", "v0.1.0")
	step(`0\.1\.0`)
	git("commit", "-qm", "four", "--allow-empty")
	step(`0\.1\.0\+1\.g[0-9a-f]{7,}`)
	if err := os.WriteFile(filepath.Join(repo, "adit.go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	step(`0\.1\.0\+1\.g[0-9a-f]{7,}\.dirty`)
}

// chroot runs a script of testdata with arguments in a root file system of its own: a
// layer above what is at lower, in memory, without network, with its own process ids.
// Nothing of it stays but the directory /bring, which holds the scripts and packages
// and is returned. With systemd it is systemd, as process 1, that starts the script.
func chroot(t *testing.T, lower string, systemd bool, env []string, script string, debs ...string) (said, bring string) {
	t.Helper()
	bring = shared(t)
	argv := "sh /bring/" + script
	for _, path := range append(debs, "testdata/steps.sh", "testdata/"+script) {
		command(t, "cp", path, bring)
	}
	for _, path := range debs {
		argv += " /bring/" + filepath.Base(path)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup", "--fork", "--kill-child", "sh", "-ec", `
mount -t tmpfs tmpfs "$WORK"
mkdir "$WORK/upper" "$WORK/work" "$WORK/root"
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$WORK/upper,workdir=$WORK/work" "$WORK/root"
cd "$WORK/root"
mkdir -p proc sys run dev tmp bring
mount -t proc proc proc
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs tmpfs dev
mkdir dev/net dev/shm dev/pts run/lock
for d in null zero full random urandom tty net/tun; do touch "dev/$d" && mount --bind "/dev/$d" "dev/$d"; done
mount --bind "$BRING" bring
if [ -n "$SYSTEMD" ]; then
	mount -t sysfs sysfs sys
	mount -t cgroup2 cgroup2 sys/fs/cgroup
	touch bring/console dev/console && mount --bind bring/console dev/console
	rm -f etc/systemd/system/*.wants/*
	printf '[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=%s\nExecStopPost=systemctl exit --force\nStandardOutput=file:/bring/out\nStandardError=file:/bring/out\n' \
		"$SCRIPT" >etc/systemd/system/adit-test.service
	exec chroot . env -i container=adit PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=adit-test.service
fi
exec chroot . $SCRIPT`)
	cmd.Env = append(os.Environ(), "WORK="+t.TempDir(), "LOWER="+lower, "BRING="+bring, "SCRIPT="+argv)
	if systemd {
		cmd.Env = append(cmd.Env, "SYSTEMD=yes")
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: cgroup(t)}
	} else {
		cmd.Env = append(cmd.Env, "SYSTEMD=")
	}
	cmd.Env = append(cmd.Env, env...)
	return run(t, cmd), bring
}

// cgroup makes a control group for a systemd of the test, so that it leaves nothing in
// that of the test, and returns its descriptor.
func cgroup(t *testing.T) int {
	t.Helper()
	m := regexp.MustCompile(`(?m)^\S+ (\S+) cgroup2 `).FindStringSubmatch(read(t, "/proc/self/mounts"))
	own := regexp.MustCompile(`(?m)^0::(/.*)$`).FindStringSubmatch(read(t, "/proc/self/cgroup"))
	if m == nil || own == nil {
		t.Fatal("there are no control groups of version 2")
	}
	dir, err := os.MkdirTemp(filepath.Join(m[1], own[1]), "adit-test-")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		var all []string
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		for _, path := range slices.Backward(all) {
			if err := syscall.Rmdir(path); err != nil {
				t.Errorf("a control group stays: %s: %v", path, err)
			}
		}
	})
	return int(f.Fd())
}

// Under systemd itself: the service starts, reloads, is restarted after a crash and
// an upgrade, stops and goes with the package; errors in the file are told.
func TestDebUnderSystemd(t *testing.T) {
	root(t)
	said, bring := chroot(t, "/", true, nil, "systemd.sh", deb(t, "1.2.3"), deb(t, "1.2.10"))
	out := read(t, filepath.Join(bring, "out"))
	if !strings.HasSuffix(out, "END 0\n") || strings.Count(out, "ok: ") < 35 {
		t.Errorf("%s%s%s", said, read(t, filepath.Join(bring, "console")), out)
	}
}

func lifecycle(t *testing.T, lower, owned string) {
	t.Helper()
	out, _ := chroot(t, lower, false, []string{"OWNED=" + owned}, "lifecycle.sh", deb(t, "1.2.3"), deb(t, "1.2.10"))
	t.Log(out)
	if n := strings.Count(out, "ok: "); n < 35 {
		t.Errorf("only %d steps were looked at", n)
	}
}

// The package comes, is upgraded, goes and is purged above this machine's own system,
// which has strongSwan's packages, in a layer that vanishes.
func TestDebLifecycle(t *testing.T) {
	root(t)
	lifecycle(t, "/", "yes")
}

// The same in the smallest Debian, where neither systemd nor strongSwan is.
func TestDebLifecycleMinimal(t *testing.T) {
	if os.Getenv("ADIT_LONG") == "" {
		t.Skip("skipped: long; runs with ADIT_LONG=1 and needs a Debian mirror at the first time")
	}
	root(t)
	lifecycle(t, minbase(t), "")
}

// minbase is a minimal Debian, made once and kept in the user's cache.
func minbase(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "adit-chroot", "bookworm-"+runtime.GOARCH)
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	partial, err := os.MkdirTemp(filepath.Dir(dir), "partial-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(partial)
	command(t, "debootstrap", "--variant=minbase", "--merged-usr", "bookworm", filepath.Join(partial, "root"), "http://deb.debian.org/debian")
	if err := os.Rename(filepath.Join(partial, "root"), dir); err != nil {
		t.Fatal(err)
	}
	return dir
}
