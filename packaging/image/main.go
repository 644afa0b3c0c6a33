// Command image writes a container image of a static adit as an OCI archive (the
// image layout of the OCI image specification 1.1 in a tar file), without a container
// daemon and without a base image. The same input gives the same octets.
//
// It owns the image's root file system and configuration; start reading at rootFS.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

func main() {
	var o options
	var epoch int64
	flag.StringVar(&o.binary, "binary", "", "static binary of adit")
	flag.StringVar(&o.license, "license", "LICENSE", "text of the licence")
	flag.StringVar(&o.arch, "arch", "amd64", "architecture, in Go's words")
	flag.StringVar(&o.version, "version", "", "version, for labels and the image's name")
	flag.Int64Var(&epoch, "epoch", 0, "time of every file, in seconds since 1970")
	out := flag.String("out", "", "file to write")
	flag.Parse()
	o.time = time.Unix(epoch, 0).UTC()
	if err := write(*out, o); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// write makes the archive; nothing half-written stays.
func write(path string, o options) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".image-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := archive(f, o); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
