package users

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// File is the name of the file in the directory of swanctl.conf.
const File = "users"

// Errors of changes.
var (
	ErrExists  = errors.New("there is a user of that name already")
	ErrUnknown = errors.New("there is no user of that name")
)

// Read reads the users of a directory; without the file there are none.
func Read(dir string) ([]User, error) {
	name := filepath.Join(dir, File)
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, err
	}
	defer clear(b)
	list, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return list, nil
}

// Change reads the users of a directory, has edit change them, and writes them back
// unless edit fails. The file is replaced in one step, so that readers and a crash see
// all of it or nothing, and two changes at a time come one after the other.
func Change(dir string, edit func([]User) ([]User, error)) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	list, err := Read(dir)
	if err != nil {
		return err
	}
	defer func() { Zero(list) }()
	if list, err = edit(list); err != nil {
		return err
	}
	if len(list) > MaxUsers {
		return fmt.Errorf("more than %d users", MaxUsers)
	}
	return write(d, dir, list)
}

func write(d *os.File, dir string, list []User) error {
	b := format(list)
	defer clear(b)
	t, err := os.CreateTemp(dir, ".users-*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(t.Name())
	_, err = t.Write(b)
	if err = errors.Join(err, t.Sync(), t.Close()); err != nil {
		return err
	}
	if err := os.Rename(t.Name(), filepath.Join(dir, File)); err != nil {
		return err
	}
	return d.Sync()
}

// Add is an edit that adds a user. Names that differ in case alone are refused: people
// would take one for the other.
func Add(u User) func([]User) ([]User, error) {
	return func(list []User) ([]User, error) {
		for _, old := range list {
			switch {
			case old.Name == u.Name:
				return nil, fmt.Errorf("%s: %w", u.Name, ErrExists)
			case strings.EqualFold(old.Name, u.Name):
				return nil, fmt.Errorf("%s: %w, but for upper and lower case: %s", u.Name, ErrExists, old.Name)
			}
		}
		u.NT = slices.Clone(u.NT) // Change overwrites its own
		return append(list, u), nil
	}
}

// Edit is an edit that changes one user.
func Edit(name string, f func(*User) error) func([]User) ([]User, error) {
	return func(list []User) ([]User, error) {
		i := slices.IndexFunc(list, func(u User) bool { return u.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("%s: %w", name, ErrUnknown)
		}
		return list, f(&list[i])
	}
}

// Delete is an edit that takes users away.
func Delete(names ...string) func([]User) ([]User, error) {
	return func(list []User) ([]User, error) {
		for _, name := range names {
			i := slices.IndexFunc(list, func(u User) bool { return u.Name == name })
			if i < 0 {
				return nil, fmt.Errorf("%s: %w", name, ErrUnknown)
			}
			list[i].NT.Zero()
			list = slices.Delete(list, i, i+1)
		}
		return list, nil
	}
}
