package conf_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"adit/conf"
)

// FuzzParse: any text is parsed or refused with a position in bounded time, and what was parsed
// is parsed again from its printed form as the same.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/*.conf", "testdata/*/*.conf"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(data), "k = v")
		}
	}
	f.Add("a { b : c.d, e { k = \"x\\n\" # y\n } } include inc\ne { }\nc { d { } }", "a { z = 1 }\ninclude main")
	f.Add("t { k = 1 }\nn : t { sub : t { } }", "\xef\xbb\xbf")
	f.Fuzz(func(t *testing.T, text, other string) {
		if len(text)+len(other) > 1<<14 {
			return
		}
		start := time.Now()
		s, err := conf.Parse(conf.MapFiles{"/main": text, "/inc": other}, "/main")
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("took %v", d)
		}
		if err != nil {
			var e *conf.Error
			if s != nil || !errors.As(err, &e) || e.Err == nil || e.Pos.File == "" {
				t.Fatalf("error %#v without a reason or position", err)
			}
			return
		}
		printed := s.Format(nil)
		again, err := conf.ParseBytes("printed", []byte(printed))
		if err != nil {
			t.Fatalf("printed form is refused: %v\n%s", err, printed)
		}
		if got := again.Format(nil); got != printed {
			t.Errorf("printed as\n%s\nthen as\n%s", printed, got)
		}
	})
}

// FuzzValue: no text makes a typed value panic, and errors carry their place.
func FuzzValue(f *testing.F) {
	for _, s := range []string{"", "yes", "4h", "0x1f", "-1", "18446744073709551615g", "a,b", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v := conf.Value{Key: "k", Text: text, Pos: conf.Pos{File: "f", Line: 3, Col: 1}}
		if d, err := v.Duration(); err == nil && d < 0 {
			t.Errorf("negative time %v", d)
		}
		if n, err := v.Uint(1000); err == nil && n > 1000 {
			t.Errorf("%d is beyond the limit", n)
		}
		if n, err := v.Int(-5, 5); err == nil && (n < -5 || n > 5) {
			t.Errorf("%d is beyond the limits", n)
		}
		for _, err := range []error{second(v.Bool()), second(v.Bytes()), second(v.OneOf("a", "bb")), second(v.One())} {
			var e *conf.Error
			if err != nil && (!errors.As(err, &e) || e.Pos.Line != 3) {
				t.Errorf("error %v has no place", err)
			}
		}
		v.Strings()
		conf.Nearest(text, []string{text, "abc"})
	})
}
