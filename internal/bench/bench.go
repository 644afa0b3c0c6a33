package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"adit/interop/lab"
)

// Options of a benchmark; the zero value of a field means its default.
type Options struct {
	Out    io.Writer
	SAs    []int    // how many set-ups, one measurement each (1000, 10000)
	Auth   []string // "psk", "ecdsa" (both), "mlkem"
	Peers  []string // "adit", "charon" (both)
	Rounds int      // of all measurements, the peers in turn; medians count (3)
	// Parallel is the number of set-ups under way at any time (64).
	Parallel int
	// Settle is how long a process has to give memory back after the set-ups, both
	// alike: what a gateway keeps is meant, not what a storm left behind (5 s).
	Settle time.Duration
	// Binary is the adit that is measured; empty: the program that runs.
	Binary string
	// ProfileDir receives the CPU and heap profiles of the adit responder; empty: none.
	ProfileDir string
	// List measures `swanctl --list-sas --raw`, too, while set-ups are made and at rest. It
	// costs the responder time, so the other figures are not those without it.
	List bool
	// KeepLog prints the responder's log after each measurement.
	KeepLog bool
}

// MaxSAs bounds one measurement.
const MaxSAs = 65_000

// runTimeout bounds one measurement.
const runTimeout = 3 * time.Minute

func (o *Options) complete() error {
	if len(o.SAs) == 0 {
		o.SAs = []int{1000, 10_000}
	}
	if len(o.Auth) == 0 {
		o.Auth = []string{"psk", "ecdsa"}
	}
	if len(o.Peers) == 0 {
		o.Peers = []string{"adit", "charon"}
	}
	if o.Rounds == 0 {
		o.Rounds = 3
	}
	if o.Parallel == 0 {
		o.Parallel = 64
	}
	if o.Settle == 0 {
		o.Settle = 5 * time.Second
	}
	for _, n := range o.SAs {
		if n < 1 || n > MaxSAs {
			return fmt.Errorf("%d SAs: from 1 to %d are possible", n, MaxSAs)
		}
	}
	for _, a := range o.Auth {
		if _, ok := suites[a]; !ok || a == "eap" {
			return fmt.Errorf("authentication %q: use psk, ecdsa or mlkem", a)
		}
	}
	for _, p := range o.Peers {
		if p != "adit" && p != "charon" {
			return fmt.Errorf("peer %q: use adit or charon", p)
		}
	}
	if o.Rounds < 1 || o.Rounds > 100 || o.Parallel < 1 || o.Parallel > 1000 {
		return errors.New("use 1 to 100 rounds and 1 to 1000 set-ups at a time")
	}
	if o.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		o.Binary = self
	}
	return nil
}

// suites are the proposals of both sides by authentication: those that the figures
// of strongSwan in this project were taken with.
var suites = map[string]struct{ ike, esp string }{
	"psk":   {"aes128gcm16-prfsha256-x25519", "aes128gcm16"},
	"ecdsa": {"aes128gcm16-prfsha256-ecp256", "aes128gcm16"},
	"eap":   {"aes128gcm16-prfsha256-x25519", "aes128gcm16"}, // of users alone
	// Beside charon only where that has RFC 9370 (strongSwan 6.1).
	"mlkem": {"aes128gcm16-prfsha256-x25519-ke1_mlkem768", "aes128gcm16"},
}

// Sample is one measurement.
type Sample struct {
	Auth, Peer string
	SAs        int
	CPU        time.Duration // of the responder's process for all set-ups, user and system
	Wall       time.Duration
	Base       int64 // resident memory before the first set-up, bytes
	Resident   int64 // and with all SAs
	Routes     int   // in the responder's namespace towards the initiators' inner addresses
	Repeated   uint64
	// ListBusy is the listing with the most IKE SAs while set-ups were made, ListIdle one at rest.
	ListBusy, ListIdle listing
}

// perSetup is the CPU time of one set-up.
func (s Sample) perSetup() time.Duration { return s.CPU / time.Duration(s.SAs) }

// IKE measures IKE set-ups at responders and prints the table. It needs root, and
// strongSwan where charon is one of the peers.
func IKE(ctx context.Context, o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return lab.ErrNotRoot
	}
	var all []Sample
	for round := range o.Rounds {
		for _, auth := range o.Auth {
			for _, n := range o.SAs {
				peers := slices.Clone(o.Peers)
				if round%2 == 1 {
					slices.Reverse(peers)
				}
				for _, p := range peers {
					s, err := one(ctx, o, auth, p, n)
					if err != nil {
						return fmt.Errorf("%s, %s, %d SAs: %w", p, auth, n, err)
					}
					fmt.Fprintf(o.Out, "round %d: %s\n", round+1, s)
					all = append(all, s)
				}
			}
		}
	}
	fmt.Fprintf(o.Out, "\nMedians of %d rounds:\n", o.Rounds)
	printTable(o.Out, all)
	return nil
}

// one is one measurement in namespaces of its own.
func one(ctx context.Context, o Options, auth, peer string, n int) (s Sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	l, err := lab.New("bike", lab.Options{})
	if err != nil {
		return s, err
	}
	defer func() {
		if e := l.Close(); err == nil {
			err = e
		}
	}()
	creds, err := newCredentials(auth, n)
	if err != nil {
		return s, err
	}
	r, err := startResponder(l, o, auth, peer, creds)
	if err != nil {
		return s, err
	}
	defer func() {
		if err != nil || o.KeepLog {
			fmt.Fprintf(o.Out, "--- log of %s\n%s\n---\n", peer, lastLines(r.log(), 15))
		}
	}()
	st, err := newStorm(l, auth, creds, n, o.Parallel)
	if err != nil {
		return s, err
	}
	defer st.close()
	s = Sample{Auth: auth, Peer: peer, SAs: n}
	err = measure(ctx, l, r, st, o, &s)
	return s, err
}

// measure runs the set-ups and reads the responder's costs before and after.
func measure(ctx context.Context, l *lab.Lab, r responder, st *storm, o Options, s *Sample) (err error) {
	pid := r.pid()
	if err := quiet(ctx, pid); err != nil {
		return err
	}
	before, err := CPUTime(pid)
	if err != nil {
		return err
	}
	if s.Base, err = Resident(pid); err != nil {
		return err
	}
	var lists *listings
	if o.List {
		lists = startListings(ctx, r.uri())
		defer lists.stop()
	}
	start := time.Now()
	if err := st.run(ctx); err != nil {
		return err
	}
	if lists != nil {
		if s.ListBusy, err = lists.end(); err != nil {
			return err
		}
	}
	s.Wall, s.Repeated = time.Since(start), st.repeated()
	// What the responder still does for the set-ups counts too: routes, logs, collection.
	if err := quiet(ctx, pid); err != nil {
		return err
	}
	if s.Resident, err = settled(ctx, pid, o.Settle); err != nil {
		return err
	}
	after, err := CPUTime(pid)
	if err != nil {
		return err
	}
	s.CPU = after - before
	if s.Routes, err = routes(l); err != nil {
		return err
	}
	if s.Routes < s.SAs {
		return fmt.Errorf("the responder has %d routes for %d SAs", s.Routes, s.SAs)
	}
	if o.List {
		if s.ListIdle, err = list(ctx, r.uri()); err != nil {
			return err
		}
		if s.ListIdle.sas != s.SAs {
			return fmt.Errorf("swanctl lists %d of %d IKE SAs", s.ListIdle.sas, s.SAs)
		}
	}
	return r.profiled(o.ProfileDir)
}
