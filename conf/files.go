package conf

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Files is the parser's access to files.
type Files interface {
	// Open opens a file for reading. Errors for which errors.Is(err, fs.ErrNotExist) holds mean
	// that there is none.
	Open(name string) (io.ReadCloser, error)
	// Glob returns the names of regular files that match a shell pattern, sorted.
	Glob(pattern string) ([]string, error)
}

var errNotRegular = errors.New("not a regular file")

// OS is the file system of the operating system.
var OS Files = osFiles{}

type osFiles struct{}

func (osFiles) Open(name string) (io.ReadCloser, error) {
	// Without O_NONBLOCK the open itself would wait for a FIFO's writer.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	// A FIFO or device named in a configuration must not block or feed the parser for ever.
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (osFiles) Glob(pattern string) ([]string, error) {
	names, err := filepath.Glob(shellPattern(pattern))
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		st, err := os.Stat(name)
		return hidden(pattern, name) || err == nil && !st.Mode().IsRegular()
	})
	slices.Sort(names)
	return names, nil
}

// MapFiles is a file system in memory, from name to content, for tests and tools.
type MapFiles map[string]string

// Open returns a reader of the content.
func (m MapFiles) Open(name string) (io.ReadCloser, error) {
	text, ok := m[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NopCloser(strings.NewReader(text)), nil
}

// Glob returns the names that match.
func (m MapFiles) Glob(pattern string) ([]string, error) {
	var names []string
	for name := range m {
		ok, err := filepath.Match(shellPattern(pattern), name)
		if err != nil {
			return nil, err
		}
		if ok && !hidden(pattern, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// shellPattern turns the shell's [!…] into the [^…] that Go wants.
func shellPattern(pattern string) string { return strings.ReplaceAll(pattern, "[!", "[^") }

// hidden reports whether a wildcard of pattern matched a leading dot in name, which the shell's
// rules exclude: editors leave lock and backup files such as .#a.conf behind.
func hidden(pattern, name string) bool {
	p, n := strings.Split(filepath.Clean(pattern), "/"), strings.Split(filepath.Clean(name), "/")
	for i := range n {
		if i < len(p) && strings.HasPrefix(n[i], ".") && !strings.HasPrefix(p[i], ".") {
			return true
		}
	}
	return false
}

// isGlob reports whether a pattern has wildcards.
func isGlob(pattern string) bool { return strings.ContainsAny(pattern, `*?[\`) }
