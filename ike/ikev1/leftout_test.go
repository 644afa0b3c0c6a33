package ikev1_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/ikev2"
)

// TestLeftOut: the package can be left out. Of what is built into the program only the
// façade names it, in one import and one argument of ike.New; and an engine without it
// keeps nothing of IKEv1's messages.
func TestLeftOut(t *testing.T) {
	var users []string
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return nil // somebody's scratch file
		}
		for _, i := range f.Imports {
			if i.Path.Value == `"adit/ike/ikev1"` {
				rel, _ := filepath.Rel(root, path)
				users = append(users, filepath.Dir(rel))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	users = slices.Compact(users)
	// internal/sim is for tests alone.
	if slices.Sort(users); !slices.Equal(users, []string{".", "internal/sim"}) {
		t.Errorf("IKEv1 is used by %v", users)
	}

	p := newPair(t, nil)
	p.b.e = ike.New(ike.Config{Shard: 'b', Peers: []*ike.Peer{p.b.peer}}, ikev2.Version)
	p.a.initiate("net")
	p.run(5 * time.Second)
	if st := p.b.e.Stats(); st.SAs != 0 || st.Dropped[ike.DropVersion] == 0 {
		t.Errorf("an engine without IKEv1: %+v", st)
	}
}
