// Package users keeps the people who log in with a password that this gateway itself
// checks: the file `users` beside swanctl.conf, with a name, the NT hash of the
// password and groups on each line.
//
// EAP-MSCHAPv2 needs the NT hash (RFC 2759 §8.3), which no salt or slow function can
// protect: whoever has it can log in. So the file is root's alone (mode 0600), hashes
// print as [key], and passwords that are made here are long.
//
// It must not know VICI, the gateway or how a user gets his profile. Start with
// [Parse] for the format and [Change] for how the file is written.
package users

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"adit/eap"
	"adit/suite"
)

// Limits of the file.
const (
	maxBytes    = 16 << 20
	MaxUsers    = 100_000
	maxName     = 200 // bytes; VICI's names have at most 255
	maxGroups   = 32  // of one user
	maxGroup    = 64  // bytes of a group's name
	maxPassword = 256 // characters, as RFC 2759 §8.3 has it
	minPassword = 8   // characters
	ntHash      = 16  // bytes
)

// User is one who may log in.
type User struct {
	Name   string
	NT     suite.Key // NT hash of the password
	Groups []string  // compared with `groups` of remote sections
}

// Equal says whether nothing differs.
func (u User) Equal(o User) bool {
	return u.Name == o.Name && u.NT.Equal(o.NT) && slices.Equal(u.Groups, o.Groups)
}

// New makes a user of a name, a password and groups.
func New(name, password string, groups []string) (User, error) {
	u := User{Name: name}
	if err := CheckName(name); err != nil {
		return u, err
	}
	if err := u.SetGroups(groups); err != nil {
		return u, err
	}
	return u, u.SetPassword(password)
}

// Check refuses what is no NT hash.
func (u *User) Check() error {
	if len(u.NT) != ntHash {
		return fmt.Errorf("the hash of %s has %d bytes instead of %d", u.Name, len(u.NT), ntHash)
	}
	return nil
}

// SetPassword replaces the hash.
func (u *User) SetPassword(password string) error {
	n := utf8.RuneCountInString(password)
	switch {
	case !utf8.ValidString(password):
		return errors.New("the password is not UTF-8")
	case n < minPassword:
		return fmt.Errorf("the password has %d characters, at least %d are needed", n, minPassword)
	case n > maxPassword:
		return fmt.Errorf("the password has %d characters, at most %d can be used", n, maxPassword)
	case strings.ContainsFunc(password, unicode.IsControl):
		return errors.New("the password has a control character")
	}
	u.NT.Zero()
	u.NT = eap.NTHash([]byte(password))
	return nil
}

// SetGroups replaces the groups.
func (u *User) SetGroups(groups []string) error {
	if len(groups) > maxGroups {
		return fmt.Errorf("more than %d groups", maxGroups)
	}
	for _, g := range groups {
		if err := checkWord(g, maxGroup, "group"); err != nil {
			return err
		}
	}
	sorted := slices.Sorted(slices.Values(groups))
	u.Groups = slices.Compact(sorted)
	return nil
}

// CheckName refuses names that the file or a configuration could not hold, or that
// would be a pattern.
func CheckName(name string) error { return checkWord(name, maxName, "name") }

func checkWord(s string, limit int, what string) error {
	switch {
	case s == "":
		return fmt.Errorf("an empty %s", what)
	case len(s) > limit:
		return fmt.Errorf("a %s of %d bytes, at most %d can be used", what, len(s), limit)
	case !utf8.ValidString(s):
		return fmt.Errorf("a %s that is not UTF-8", what)
	}
	for i, r := range s {
		switch {
		case i == 0 && (r == '#' || r == '-' || r == '@' || r == '%'):
			return fmt.Errorf("%s %q: it must not begin with %q", what, s, r)
		case unicode.IsSpace(r) || !unicode.IsPrint(r) || strings.ContainsRune(`:,*"'\/{}=`, r):
			return fmt.Errorf("%s %q: it must not have %q", what, s, r)
		}
	}
	return nil
}

// Parse reads the file's text: a user a line, NAME:NTHASH:GROUP,GROUP; empty lines and
// those that begin with # are comments. Every line that is wrong is an error: a user
// that is left out of silence could be one who was to be locked out by another.
func Parse(b []byte) ([]User, error) {
	if len(b) > maxBytes {
		return nil, fmt.Errorf("more than %d bytes", maxBytes)
	}
	var list []User
	known := map[string]int{}
	n := 0
	for line := range bytes.Lines(b) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		u, err := parseLine(line)
		switch {
		case err != nil:
		case known[u.Name] > 0:
			err = fmt.Errorf("%s stands in line %d already", u.Name, known[u.Name])
		case len(list) == MaxUsers:
			err = fmt.Errorf("more than %d users", MaxUsers)
		}
		if err != nil {
			Zero(list)
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		known[u.Name] = n
		list = append(list, u)
	}
	return list, nil
}

// parseLine never quotes the hash in an error.
func parseLine(line []byte) (u User, err error) {
	name, rest, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return u, errors.New("no NAME:HASH:GROUPS")
	}
	hash, groups, _ := bytes.Cut(rest, []byte(":"))
	u.Name = string(name)
	if err := CheckName(u.Name); err != nil {
		return u, err
	}
	u.NT = make(suite.Key, ntHash)
	if len(hash) != 2*ntHash {
		return u, fmt.Errorf("the hash of %s has %d characters instead of %d", u.Name, len(hash), 2*ntHash)
	}
	if _, err := hex.Decode(u.NT, hash); err != nil {
		return u, fmt.Errorf("the hash of %s is not hexadecimal", u.Name)
	}
	if len(groups) > 0 {
		err = u.SetGroups(strings.Split(string(groups), ","))
	}
	return u, err
}

// format is the text of a file.
func format(list []User) []byte {
	b := []byte("# Users of adit: name, NT hash of the password, groups; see adit user.\n# A hash is as good as the password: keep this file to root.\n")
	for _, u := range list {
		b = append(b, u.Name...)
		b = append(b, ':')
		b = hex.AppendEncode(b, u.NT)
		b = append(b, ':')
		b = append(b, strings.Join(u.Groups, ",")...)
		b = append(b, '\n')
	}
	return b
}

// Zero overwrites the hashes of a list that is not needed any more.
func Zero(list []User) {
	for _, u := range list {
		u.NT.Zero()
	}
}
