package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

type options struct {
	binary, license string
	arch, version   string
	time            time.Time
}

// entry is a file of the root file system: a directory without contents, or a link.
type entry struct {
	path string
	mode int64
	text []byte
	link string
}

// rootFS is what the image holds beside the program: the users that tools ask for and
// the directories that swanctl has. What runs in it writes below /run alone.
func rootFS() []entry {
	dir := func(path string, mode int64) entry { return entry{path: path, mode: mode} }
	file := func(path, text string) entry { return entry{path: path, mode: 0o644, text: []byte(text)} }
	list := []entry{
		dir("dev", 0o755), dir("etc", 0o755),
		file("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
		file("etc/nsswitch.conf", "hosts: files dns\n"),
		file("etc/passwd", "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"),
		dir("etc/swanctl", 0o755),
	}
	for _, name := range []string{"conf.d", "pubkey", "x509", "x509aa", "x509ca", "x509crl", "x509ocsp"} {
		list = append(list, dir("etc/swanctl/"+name, 0o755))
	}
	for _, name := range []string{"ecdsa", "pkcs12", "pkcs8", "private", "rsa"} {
		list = append(list, dir("etc/swanctl/"+name, 0o700))
	}
	return append(list, dir("proc", 0o755), dir("root", 0o700), dir("run", 0o755), dir("run/adit", 0o700), dir("sys", 0o755),
		dir("tmp", 0o1777), dir("usr", 0o755), dir("usr/sbin", 0o755), dir("var", 0o755), entry{path: "var/run", mode: 0o777, link: "../run"})
}

// programFS is the layer that changes from version to version.
func programFS(o options) ([]entry, error) {
	program, err := os.ReadFile(o.binary)
	if err != nil {
		return nil, err
	}
	license, err := os.ReadFile(o.license)
	if err != nil {
		return nil, err
	}
	return []entry{
		{path: "usr", mode: 0o755}, {path: "usr/sbin", mode: 0o755}, {path: "usr/sbin/adit", mode: 0o755, text: program},
		{path: "usr/share", mode: 0o755}, {path: "usr/share/doc", mode: 0o755}, {path: "usr/share/doc/adit", mode: 0o755},
		{path: "usr/share/doc/adit/LICENSE", mode: 0o644, text: license},
	}, nil
}

// writeTar writes entries, owned by root.
func writeTar(w io.Writer, list []entry, when time.Time) error {
	t := tar.NewWriter(w)
	for _, e := range list {
		h := &tar.Header{Format: tar.FormatUSTAR, Name: e.path, Mode: e.mode, Size: int64(len(e.text)), ModTime: when, Typeflag: tar.TypeReg}
		switch {
		case e.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		case e.text == nil:
			h.Typeflag, h.Name = tar.TypeDir, e.path+"/"
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(e.text); err != nil {
			return err
		}
	}
	return t.Close()
}

// Media types of the OCI image specification.
const (
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeIndex    = "application/vnd.oci.image.index.v1+json"
)

// descriptor points to a blob by its digest.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant,omitempty"`
}

type imageConfig struct {
	Created time.Time `json:"created"`
	platform
	Config struct {
		Entrypoint []string
		Cmd        []string
		Env        []string
		WorkingDir string
		StopSignal string
		Labels     map[string]string
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []history `json:"history"`
}

type history struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// blobs collects the archive's files by digest.
type blobs struct{ list []entry }

func (b *blobs) add(mediaType string, body []byte) descriptor {
	d := descriptor{MediaType: mediaType, Digest: digest(body), Size: len(body)}
	b.list = append(b.list, entry{path: "blobs/sha256/" + d.Digest[len("sha256:"):], mode: 0o644, text: body})
	return d
}

func (b *blobs) addJSON(mediaType string, v any) (descriptor, error) {
	body, err := json.Marshal(v)
	return b.add(mediaType, body), err
}

// addLayer adds a layer and returns its descriptor and the digest of its tar.
func (b *blobs) addLayer(list []entry, when time.Time) (d descriptor, diffID string, err error) {
	var plain, packed bytes.Buffer
	if err := writeTar(&plain, list, when); err != nil {
		return d, "", err
	}
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return d, "", err
	}
	if _, err := z.Write(plain.Bytes()); err != nil {
		return d, "", err
	}
	if err := z.Close(); err != nil {
		return d, "", err
	}
	return b.add(typeLayer, packed.Bytes()), digest(plain.Bytes()), nil
}

// archive writes the image.
func archive(w io.Writer, o options) error {
	program, err := programFS(o)
	if err != nil {
		return err
	}
	p := platform{Architecture: o.arch, OS: "linux"}
	switch o.arch {
	case "arm":
		p.Variant = "v7"
	case "arm64":
		p.Variant = "v8"
	}
	labels := map[string]string{
		"org.opencontainers.image.title":       "adit",
		"org.opencontainers.image.description": "IPsec gateway that is driven by swanctl.conf",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.version":     o.version,
		"org.opencontainers.image.created":     o.time.Format(time.RFC3339),
	}
	c := imageConfig{Created: o.time, platform: p}
	c.Config.Entrypoint = []string{"/usr/sbin/adit"}
	c.Config.Cmd = []string{"run", "--config", "/etc/swanctl/swanctl.conf"}
	c.Config.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	c.Config.WorkingDir = "/"
	c.Config.StopSignal = "SIGTERM"
	c.Config.Labels = labels
	c.RootFS.Type = "layers"
	m := manifest{SchemaVersion: 2, MediaType: typeManifest}
	var b blobs
	for _, layer := range []struct {
		what string
		list []entry
	}{{"directories and users", rootFS()}, {"adit", program}} {
		d, diffID, err := b.addLayer(layer.list, o.time)
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, d)
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, diffID)
		c.History = append(c.History, history{o.time, layer.what})
	}
	if m.Config, err = b.addJSON(typeConfig, c); err != nil {
		return err
	}
	d, err := b.addJSON(typeManifest, m)
	if err != nil {
		return err
	}
	d.Platform = &p
	// podman takes the whole name from the first, containerd and docker from the second.
	name := "localhost/adit:" + o.version
	d.Annotations = map[string]string{"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}
	top, err := json.Marshal(index{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{d}})
	if err != nil {
		return err
	}
	return writeTar(w, append([]entry{
		{path: "oci-layout", mode: 0o644, text: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{path: "index.json", mode: 0o644, text: top},
		{path: "blobs", mode: 0o755}, {path: "blobs/sha256", mode: 0o755},
	}, b.list...), o.time)
}
