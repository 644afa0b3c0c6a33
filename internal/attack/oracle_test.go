package attack_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"strings"
	"testing"
)

// The oracles of Bleichenbacher, as found in IKE in 2018 (CVE-2018-0131,
// CVE-2017-17305, CVE-2018-8753, CVE-2018-9129), need something of a peer's that an
// RSA key decrypts: nothing of ours does that, nor has a method of AUTH for it.
func TestNoRSADecryption(t *testing.T) {
	root := os.DirFS("../..")
	files := 0
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "out" || d.Name() == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		files++
		b, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		for _, name := range decryptions(t, p, b) {
			t.Errorf("%s: %s", p, name)
		}
		return nil
	})
	if err != nil || files < 200 {
		t.Fatalf("%d files, %v", files, err)
	}
	if got := decryptions(t, "x.go", []byte("package x\nimport \"crypto\"\nvar _, _ = rsa.DecryptPKCS1v15, k.Decrypt\n")); len(got) != 2 {
		t.Errorf("found %v", got)
	}
}

// decryptions are the names by which Go decrypts with RSA that a file uses.
func decryptions(t *testing.T, name string, src []byte) (found []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	keys := false // it may have private keys; Decrypt of a block cipher is another matter
	for _, i := range f.Imports {
		keys = keys || i.Path.Value == `"crypto"` || i.Path.Value == `"crypto/rsa"`
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			switch s.Sel.Name {
			case "DecryptPKCS1v15", "DecryptPKCS1v15SessionKey", "DecryptOAEP", "Decrypter":
				found = append(found, s.Sel.Name)
			case "Decrypt":
				if keys {
					found = append(found, s.Sel.Name)
				}
			}
		}
		return true
	})
	return found
}
