package lab

import "errors"

// TB is the part of testing.TB that [ForTest] needs; the package is also linked
// into programs, where package testing has no business.
type TB interface {
	Helper()
	Cleanup(func())
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Errorf(format string, args ...any)
}

// ForTest builds a lab that is closed when the test ends. Without root the test
// is skipped; everything else that goes wrong fails it.
func ForTest(t TB, prefix string, opt Options) *Lab {
	t.Helper()
	if opt.Logf == nil {
		opt.Logf = t.Logf
	}
	l, err := New(prefix, opt)
	if errors.Is(err, ErrNotRoot) {
		t.Skipf("skipped: %v", err)
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("closing the lab: %v", err)
		}
	})
	return l
}
