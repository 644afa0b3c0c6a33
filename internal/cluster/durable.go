package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// durable has the disk keep what the embedded server has written below a directory, for
// all who wait for that at the same time by one turn: a disk that takes 5 ms for each
// would let in 200 users a second, and these wait in line. The server itself writes each
// record before it answers, and does not sync (Options.SyncAlways).
type durable struct {
	dir     string
	mu      sync.Mutex
	waiting []chan error
	running bool
	seen    map[string]version // as it was when it was synced, by path; of the turn alone
	sync    func(*os.File) error
}

// version tells whether a file was changed since.
type version struct {
	inode uint64
	size  int64
	at    time.Time
}

// coarse is how far apart two changes of a file may be that have the same time.
const coarse = 20 * time.Millisecond

func newDurable(dir string) *durable {
	return &durable{dir: dir, seen: map[string]version{}, sync: (*os.File).Sync}
}

// wait returns when everything that was written before is on the disk.
func (d *durable) wait(ctx context.Context) error {
	done := make(chan error, 1)
	d.mu.Lock()
	d.waiting = append(d.waiting, done)
	if !d.running {
		d.running = true
		go d.run()
	}
	d.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run takes turns as long as somebody waits.
func (d *durable) run() {
	for {
		d.mu.Lock()
		list := d.waiting
		d.waiting = nil
		if d.running = len(list) > 0; !d.running {
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
		err := d.turn()
		for _, done := range list {
			done <- err
		}
	}
}

// turn syncs what has changed. Files that the server removes meanwhile are no error.
func (d *durable) turn() error {
	for {
		anew, err := len(d.seen) == 0, error(nil)
		for path, was := range d.seen { // the server has some ten files
			var dir bool
			if dir, err = d.look(path, was); err != nil {
				break
			}
			anew = anew || dir
		}
		if anew && err == nil {
			if err = d.find(); err == nil && len(d.seen) == 0 {
				err = fmt.Errorf("%s is gone", d.dir)
			}
		}
		if err != nil {
			clear(d.seen) // what a failed sync left undone is not told a second time
		}
		if err != nil || !anew {
			return err
		}
	}
}

// look syncs a file or directory if it is not as it was; it tells whether that was a
// directory, which may have other files now.
func (d *durable) look(path string, was version) (dir bool, err error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		delete(d.seen, path)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	now := version{size: info.Size(), at: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		now.inode = st.Ino
	}
	if now == was && time.Since(now.at) > coarse {
		return false, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return false, gone(err)
	}
	defer f.Close()
	if err := d.sync(f); err != nil {
		return false, err
	}
	d.seen[path] = now
	return info.IsDir() && now != was, nil
}

// find enters files and directories that are new, not synced yet.
func (d *durable) find() error {
	return filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() && !e.Type().IsRegular() {
			return gone(err)
		}
		if _, known := d.seen[path]; !known {
			d.seen[path] = version{}
		}
		return nil
	})
}

func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
