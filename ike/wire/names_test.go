package wire_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"adit/ike/wire"
)

// typedConstants reads the constants of the named type from the package's
// source: name to number.
func typedConstants(t *testing.T, file, typ string) map[string]uint16 {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]uint16{}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			if id, ok := v.Type.(*ast.Ident); !ok || id.Name != typ || !v.Names[0].IsExported() {
				continue
			}
			n, err := strconv.ParseUint(v.Values[0].(*ast.BasicLit).Value, 0, 16)
			if err != nil {
				t.Fatal(err)
			}
			all[v.Names[0].Name] = uint16(n)
		}
	}
	return all
}

// Every number has a name, no two share one, and where the registry writes
// NAMES_LIKE_THIS it is the constant's own.
func TestNamesOfNumbers(t *testing.T) {
	for _, tt := range []struct {
		file, typ, prefix string
		least             int
		str               func(uint16) string
	}{
		{"types.go", "PayloadType", "Payload", 40, func(n uint16) string { return wire.PayloadType(n).String() }},
		{"types.go", "ExchangeType", "Exchange", 19, func(n uint16) string { return wire.ExchangeType(n).String() }},
		{"types.go", "ProtocolID", "Protocol", 6, func(n uint16) string { return wire.ProtocolID(n).String() }},
		{"types.go", "IDType", "ID", 13, func(n uint16) string { return wire.IDType(n).String() }},
		{"types.go", "AuthMethod", "Auth", 9, func(n uint16) string { return wire.AuthMethod(n).String() }},
		{"types.go", "CertEncoding", "Cert", 14, func(n uint16) string { return wire.CertEncoding(n).String() }},
		{"types.go", "AttributeType", "", 26, func(n uint16) string { return wire.AttributeType(n).String() }},
		{"notifytype.go", "NotifyType", "", 89, func(n uint16) string { return wire.NotifyType(n).String() }},
		{"ts.go", "TSType", "", 4, func(n uint16) string { return wire.TSType(n).String() }},
		{"cp.go", "CFGType", "", 4, func(n uint16) string { return wire.CFGType(n).String() }},
	} {
		t.Run(tt.typ, func(t *testing.T) {
			consts := typedConstants(t, tt.file, tt.typ)
			if len(consts) < tt.least {
				t.Errorf("found only %d constants", len(consts))
			}
			seen, numbers := map[string]string{}, map[uint16]string{}
			for name, n := range consts {
				s := tt.str(n)
				if s == "" || strings.HasSuffix(s, "("+strconv.Itoa(int(n))+")") {
					t.Errorf("%s has no name", name)
				}
				if other, ok := seen[s]; ok {
					t.Errorf("%s and %s are both %q", name, other, s)
				}
				if other, ok := numbers[n]; ok {
					t.Errorf("%s and %s are both %d", name, other, n)
				}
				seen[s], numbers[n] = name, name
				bare := strings.ToLower(strings.ReplaceAll(s, "_", ""))
				bare = strings.TrimPrefix(bare, strings.ToLower(tt.prefix))
				own := strings.TrimPrefix(strings.ToLower(name), strings.ToLower(tt.prefix))
				if strings.Contains(s, "_") && s == strings.ToUpper(s) && !strings.HasSuffix(s, "_V1") &&
					!strings.HasSuffix(bare, strings.TrimPrefix(own, "v1")) && !strings.HasPrefix(bare, own) {
					t.Errorf("%s is %q", name, s)
				}
			}
			if s := tt.str(255); !strings.HasSuffix(s, "(255)") {
				t.Errorf("an unknown number is %q", s)
			}
		})
	}
}

// RFC 7296 section 3.10.1: the range tells errors from statuses.
func TestRFC7296_3_10_1_ErrorRange(t *testing.T) {
	for n, want := range map[wire.NotifyType]bool{
		wire.InvalidSyntax: true, wire.TSMaxQueue: true, 8192: true, 16383: true,
		wire.InitialContact: false, wire.UseBEETMode: false, 65535: false,
	} {
		if n.IsError() != want {
			t.Errorf("%v.IsError() = %v", n, !want)
		}
	}
}
