package packaging_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"adit/interop/lab"
)

var anImage struct { // built once
	files  map[string][]byte
	octets []byte
}

// image is the image and its archive's files.
func image(t *testing.T) (files map[string][]byte, octets []byte) {
	t.Helper()
	if anImage.files == nil {
		anImage.files, anImage.octets = buildImage(t)
	}
	return anImage.files, anImage.octets
}

func buildImage(t *testing.T) (files map[string][]byte, octets []byte) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("../scripts/image.sh", dir)
	cmd.Env = append(os.Environ(), "IMAGE_VERSION=1.2.3", "IMAGE_BINARY="+binary(t), "SOURCE_DATE_EPOCH=1700000000")
	octets = []byte(read(t, strings.TrimSpace(run(t, cmd))))
	files = map[string][]byte{}
	untar(t, bytes.NewReader(octets), func(h *tar.Header, text []byte) {
		if _, twice := files[h.Name]; twice {
			t.Errorf("%s is there twice", h.Name)
		}
		files[h.Name] = text
	})
	return files, octets
}

// untar visits the files of an archive; whatever it is, root owns it.
func untar(t *testing.T, r io.Reader, visit func(h *tar.Header, text []byte)) {
	t.Helper()
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 1700000000 {
			t.Errorf("%s: owner %d:%d, time %v", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		visit(h, text)
	}
}

// blob follows a descriptor and holds it to its digest and size.
func blob(t *testing.T, files map[string][]byte, descriptor any) []byte {
	t.Helper()
	d := descriptor.(map[string]any)
	name := strings.Replace(d["digest"].(string), ":", "/", 1)
	b, ok := files["blobs/"+name]
	if !ok || float64(len(b)) != d["size"] || fmt.Sprintf("sha256/%x", sha256.Sum256(b)) != name {
		t.Fatalf("blob %s: %d octets, found %v", name, len(b), ok)
	}
	return b
}

func decode(t *testing.T, b []byte) (v map[string]any) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// unpack follows index, manifest and configuration as a container runtime does, and
// lays the layers over each other in dir.
func unpack(t *testing.T, files map[string][]byte, dir string) (config map[string]any) {
	t.Helper()
	if string(files["oci-layout"]) != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout: %s", files["oci-layout"])
	}
	manifests := decode(t, files["index.json"])["manifests"].([]any)
	if len(manifests) != 1 {
		t.Fatalf("%d manifests", len(manifests))
	}
	m := decode(t, blob(t, files, manifests[0]))
	config = decode(t, blob(t, files, m["config"]))
	diffs := config["rootfs"].(map[string]any)["diff_ids"].([]any)
	layers := m["layers"].([]any)
	if len(layers) != len(diffs) || len(layers) == 0 {
		t.Fatalf("%d layers, %d diff_ids", len(layers), len(diffs))
	}
	for i, layer := range layers {
		z, err := gzip.NewReader(bytes.NewReader(blob(t, files, layer)))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("sha256:%x", sha256.Sum256(plain)); got != diffs[i] {
			t.Errorf("layer %d: diff_id %v, but its tar has %s", i, diffs[i], got)
		}
		untar(t, bytes.NewReader(plain), func(h *tar.Header, text []byte) {
			path := filepath.Join(dir, h.Name)
			var err error
			switch h.Typeflag {
			case tar.TypeDir:
				if err = os.Mkdir(path, 0o700); errors.Is(err, os.ErrExist) {
					err = nil
				}
				err = errors.Join(err, syscall.Chmod(path, uint32(h.Mode)))
			case tar.TypeSymlink:
				err = os.Symlink(h.Linkname, path)
			default:
				err = os.WriteFile(path, text, os.FileMode(h.Mode))
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
	return config
}

// The archive is whole, says what it is, and is the same each time.
func TestImageLayout(t *testing.T) {
	files, octets := image(t)
	if _, again := buildImage(t); !bytes.Equal(octets, again) {
		t.Error("two builds differ")
	}
	dir := t.TempDir()
	config := unpack(t, files, dir)
	if config["architecture"] != runtime.GOARCH || config["os"] != "linux" {
		t.Errorf("it is for %v/%v", config["os"], config["architecture"])
	}
	for path, mode := range map[string]os.FileMode{"usr/sbin/adit": 0o755, "etc/swanctl": 0o755 | os.ModeDir, "etc/swanctl/private": 0o700 | os.ModeDir,
		"etc/passwd": 0o644, "tmp": 0o777 | os.ModeSticky | os.ModeDir, "run": 0o755 | os.ModeDir} {
		if fi, err := os.Stat(filepath.Join(dir, path)); err != nil || fi.Mode() != mode {
			t.Errorf("%s: %v, want %v, %v", path, fi.Mode(), mode, err)
		}
	}
}

// imageArg makes the test's binary what a container runtime is at last: it enters the
// root file system, keeps some capabilities alone and becomes the container's program:
// launch imageArg ROOT CAPABILITIES PROGRAM ARGUMENT...
const imageArg = "exec-in-image"

func inImage(args []string) error {
	runtime.LockOSThread() // capabilities are the thread's, which becomes the program
	keep, err := strconv.ParseUint(args[1], 0, 64)
	if err != nil {
		return err
	}
	if err := unix.Chroot(args[0]); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if keep&(1<<c) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Exec(args[2], args[2:], os.Environ())
}

// contained is the image in namespaces, as `docker run --cap-drop ALL --cap-add ... --device
// /dev/net/tun --read-only --tmpfs /run` makes them, once it runs.
type contained struct {
	said  *output
	ended <-chan error
	pid   string
}

func runImage(t *testing.T, l *lab.Lab, caps uint64) contained {
	t.Helper()
	dir := shared(t)
	fs, swanctl := filepath.Join(dir, "root"), filepath.Join(dir, "swanctl")
	for _, d := range []string{fs, swanctl} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	files, _ := image(t)
	config := unpack(t, files, fs)["config"].(map[string]any)
	for name, text := range map[string]string{"swanctl.conf": conf(l.L, l.R, "left.example", "right.example"), "strongswan.conf": oneWorker} {
		if err := os.WriteFile(filepath.Join(swanctl, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script := `set -e
mount --bind "$ROOT" "$ROOT"
mount -o remount,bind,ro "$ROOT"
mount -t proc proc "$ROOT/proc"
echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start
mount --bind /proc/sys "$ROOT/proc/sys"
mount -o remount,bind,ro "$ROOT/proc/sys"
mount -t tmpfs tmpfs "$ROOT/run"
mount -t tmpfs tmpfs "$ROOT/dev"
mkdir "$ROOT/dev/net"
touch "$ROOT/dev/net/tun"
mount --bind /dev/net/tun "$ROOT/dev/net/tun"
mount --bind "$SWANCTL" "$ROOT/etc/swanctl"
exec "$@"`
	argv := []string{"netns", "exec", l.NS(lab.Left), "unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child",
		"sh", "-c", script, "sh", launcher(t), imageArg, fs, fmt.Sprint(caps)}
	for _, key := range []string{"Entrypoint", "Cmd"} {
		for _, a := range config[key].([]any) {
			argv = append(argv, a.(string))
		}
	}
	cmd := exec.Command("ip", argv...)
	cmd.Env = []string{"ROOT=" + fs, "SWANCTL=" + swanctl, "STRONGSWAN_CONF=/etc/swanctl/strongswan.conf", "PATH=" + os.Getenv("PATH")}
	c := contained{}
	c.said, c.ended = start(t, cmd)
	if err := lab.Poll(10*time.Second, func() (bool, error) { return strings.Contains(c.said.String(), "adit is running"), nil }); err != nil {
		t.Fatalf("%v\n%s", err, c.said)
	}
	c.pid = strings.Fields(read(t, fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", cmd.Process.Pid)))[0]
	return c
}

// inside is docker exec.
func (c contained) inside(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, "nsenter", append([]string{"-t", c.pid, "-m", "-n", "-p", "-r", "-w", "/usr/sbin/adit"}, args...)...)
}

// A tunnel between the image with CAP_NET_ADMIN alone and an adit outside carries pings,
// whoever begins.
func TestImageRuns(t *testing.T) {
	root(t)
	l := lab.ForTest(t, "pkim", lab.Options{})
	right := plainPeer(t, l)
	c := runImage(t, l, 1<<unix.CAP_NET_ADMIN)
	said, ended, pid := c.said, c.ended, c.pid
	inside := func(args ...string) string { t.Helper(); return c.inside(t, args...) }
	if !strings.Contains(said.String(), "CAP_NET_RAW is missing") {
		t.Errorf("it does not say that raw ESP is impossible:\n%s", said)
	}
	status := read(t, "/proc/"+pid+"/status")
	for _, want := range []string{"CapEff:\t0000000000001000", "CapBnd:\t0000000000001000", "NoNewPrivs:\t1"} {
		if !strings.Contains(status, want+"\n") {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	inside("up", "net")
	if err := l.WaitPing(lab.LeftHost, l.R.Host4, 5*time.Second); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if out := inside("status"); !strings.Contains(out, "net") {
		t.Errorf("adit status says:\n%s", out)
	}
	singlePackets(t, l, said, false)
	inside("down", "net")
	if err := right.Initiate("net"); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if err := l.WaitPing(lab.RightHost, l.L.Host4, 5*time.Second); err != nil {
		t.Errorf("from the right: %v\n%s", err, said)
	}
	if n := strings.Count(said.String(), "ESP in UDP"); n < 2 {
		t.Errorf("%d tunnels with ESP in UDP, want 2:\n%s", n, said)
	}
	command(t, "kill", "-TERM", pid)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
	if out := inNode(t, l, lab.Left, "nft", "list", "tables"); strings.TrimSpace(out) != "" {
		t.Errorf("left behind: %s", out)
	}
	if strings.Contains(said.String(), "level=ERROR") {
		t.Errorf("errors were logged:\n%s", said)
	}
}

// With CAP_BPF beside CAP_NET_ADMIN single packets come by the ring, and the image's root
// has it no more once it runs.
func TestImageWithBPF(t *testing.T) {
	root(t)
	l := lab.ForTest(t, "pkib", lab.Options{})
	plainPeer(t, l)
	const admin, bpf = 1 << unix.CAP_NET_ADMIN, 1 << unix.CAP_BPF
	c := runImage(t, l, admin|bpf)
	hasCaps(t, c.pid, "", "1000", "1000", fmt.Sprintf("%x", admin|bpf), "")
	c.inside(t, "up", "net")
	if err := l.WaitPing(lab.LeftHost, l.R.Host4, 5*time.Second); err != nil {
		t.Fatalf("%v\n%s", err, c.said)
	}
	c.inside(t, "reload")
	singlePackets(t, l, c.said, true)
}
