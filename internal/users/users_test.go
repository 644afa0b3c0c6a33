package users_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"adit/internal/users"
)

// The hash is that of RFC 2759 §9.2, whose password is clientPass.
func TestFileFormat(t *testing.T) {
	dir := t.TempDir()
	u, err := users.New("User", "clientPass", []string{"staff", "admins", "staff"})
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %+v %#v", u, u, u.NT); strings.Contains(strings.ToLower(s), "44ebba8d") || strings.Contains(s, "68, 235") {
		t.Errorf("printing shows the hash: %s", s)
	}
	if err := users.Change(dir, users.Add(u)); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, users.File)
	b, err := os.ReadFile(name)
	if err != nil || !strings.Contains(string(b), "\nUser:44ebba8d5312b8d611474411f56989ae:admins,staff\n") {
		t.Fatalf("%v\n%s", err, b)
	}
	if fi, _ := os.Stat(name); fi.Mode() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
	list, err := users.Read(dir)
	if err != nil || len(list) != 1 || !list[0].Equal(u) {
		t.Fatalf("%v %v", list, err)
	}
	for _, edit := range []func([]users.User) ([]users.User, error){users.Add(u), users.Add(users.User{Name: "USER", NT: u.NT}),
		users.Delete("nobody"), users.Edit("nobody", func(*users.User) error { return nil })} {
		if err := users.Change(dir, edit); !errors.Is(err, users.ErrExists) && !errors.Is(err, users.ErrUnknown) {
			t.Errorf("%v", err)
		}
	}
	if err := users.Change(dir, users.Delete("User")); err != nil {
		t.Fatal(err)
	}
	if list, err := users.Read(dir); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
}

func TestRefusedLines(t *testing.T) {
	const hash = "44ebba8d5312b8d611474411f56989ae"
	for text, why := range map[string]string{
		"alice":                               "no NAME:HASH:GROUPS",
		"alice:" + hash[1:] + ":":             "31 characters",
		"alice:" + hash[2:] + "zz:":           "not hexadecimal",
		"a b:" + hash + ":":                   "must not have",
		"*@corp:" + hash + ":":                "must not have",
		"%any:" + hash + ":":                  "must not begin with",
		":" + hash + ":":                      "empty name",
		"a\x00b:" + hash + ":":                "must not have",
		strings.Repeat("a", 201) + ":" + hash: "201 bytes",
		"alice:" + hash + ":a,,b":             "empty group",
		"alice:" + hash + ":a\nalice:" + hash: "stands in line 1 already",
		"alice:" + hash + ":" + strings.Repeat("g,", 40) + "g": "more than 32 groups",
	} {
		_, err := users.Parse([]byte(text))
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want %q", text, err, why)
		}
		if err != nil && strings.Contains(err.Error(), hash[4:]) {
			t.Errorf("the error tells the hash: %v", err)
		}
	}
	for _, p := range []string{"short", "with\nnewline", strings.Repeat("x", 257), "\xff\xff\xff\xff\xff\xff\xff\xff"} {
		if _, err := users.New("alice", p, nil); err == nil || strings.Contains(err.Error(), "newline") {
			t.Errorf("%q: %v", p, err)
		}
	}
}

// Changes at the same time all come in, and a reader never sees half a file.
func TestChangesAtOnce(t *testing.T) {
	dir := t.TempDir()
	var all sync.WaitGroup
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := users.Read(dir); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	for i := range 20 {
		all.Go(func() {
			u, err := users.New(fmt.Sprintf("user%d", i), users.Password(), nil)
			if err == nil {
				err = users.Change(dir, users.Add(u))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	close(stop)
	reader.Wait()
	if list, err := users.Read(dir); err != nil || len(list) != 20 {
		t.Errorf("%d users, %v", len(list), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

func TestPassword(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		p := users.Password()
		if len(p) != 23 || strings.ContainsAny(p, "0Ol1") || seen[p] {
			t.Fatalf("%q", p)
		}
		seen[p] = true
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("# c\nalice:44ebba8d5312b8d611474411f56989ae:a,b\n\nbob:44ebba8d5312b8d611474411f56989ae:\n"))
	f.Add([]byte("x:y:z"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := users.Parse(b)
		if err != nil {
			return
		}
		for _, u := range list {
			if users.CheckName(u.Name) != nil || u.Check() != nil || !slices.IsSorted(u.Groups) {
				t.Errorf("%q", u.Name)
			}
		}
	})
}
