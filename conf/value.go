package conf

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// String tells the key and the place, never the text: values may be secrets.
func (v Value) String() string {
	if at := v.Pos.String(); at != "" {
		return v.Path() + " (" + at + ")"
	}
	return v.Path()
}

// Path returns the path of the section that holds v, and the key, joined by dots.
func (v Value) Path() string {
	if p := v.owner.Path(); p != "" {
		return p + "." + v.Key
	}
	return v.Key
}

// Errorf returns an error at v's place that begins with v's path and wraps [ErrValue].
func (v Value) Errorf(format string, args ...any) *Error {
	return Errorf(v.Pos, "%s: %s", v.Path(), fmt.Sprintf(format, args...))
}

// quote is the text as messages show it, cut to a bearable length.
func (v Value) quote() string {
	const most = 64
	if v.IsList {
		return "a list"
	}
	if len(v.Text) > most {
		return strconv.Quote(v.Text[:most]) + "…"
	}
	return strconv.Quote(v.Text)
}

// Strings returns the items of a list, or the parts of a text between commas without the blanks
// around them; empty parts are left out. It is how an option that takes several words reads the
// same from a file and from VICI.
func (v Value) Strings() []string {
	if v.IsList {
		return v.List
	}
	var out []string
	for part := range strings.SplitSeq(v.Text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// One returns the text, and an error for a list: for options that take one value.
func (v Value) One() (string, error) {
	if v.IsList {
		return "", v.Errorf("takes one value, not a list")
	}
	return v.Text, nil
}

// Bool reads yes, true, enabled, 1 and no, false, disabled, 0, in any case.
func (v Value) Bool() (bool, error) {
	if !v.IsList {
		switch strings.ToLower(v.Text) {
		case "yes", "true", "enabled", "1":
			return true, nil
		case "no", "false", "disabled", "0":
			return false, nil
		}
	}
	return false, v.Errorf("expected yes or no, not %s", v.quote())
}

// OneOf returns the text if it is one of words, in any case, as words spells it.
func (v Value) OneOf(words ...string) (string, error) {
	if !v.IsList {
		for _, w := range words {
			if strings.EqualFold(w, v.Text) {
				return w, nil
			}
		}
	}
	hint := ""
	if near := Nearest(v.Text, words); near != "" && !v.IsList {
		hint = ": did you mean " + near + "?"
	}
	return "", v.Errorf("expected one of %s, not %s%s", strings.Join(words, ", "), v.quote(), hint)
}

// Uint reads an unsigned number, decimal or hexadecimal after 0x, of at most limit.
func (v Value) Uint(limit uint64) (uint64, error) {
	n, rest, err := v.number()
	if err != nil {
		return 0, err
	}
	if rest != "" {
		return 0, v.Errorf("expected a number, not %s", v.quote())
	}
	if n > limit {
		return 0, v.Errorf("%s is more than the %d possible", v.quote(), limit)
	}
	return n, nil
}

// Int reads a number between least and most, decimal or hexadecimal, perhaps after a sign.
func (v Value) Int(least, most int64) (int64, error) {
	u := v
	text, negative := strings.CutPrefix(v.Text, "-")
	u.Text = text
	n, rest, err := u.number()
	if err != nil || rest != "" {
		return 0, v.Errorf("expected a number, not %s", v.quote())
	}
	i := int64(n)
	if negative {
		i = -i
	}
	if n > math.MaxInt64 || i < least || i > most {
		return 0, v.Errorf("%s is not between %d and %d", v.quote(), least, most)
	}
	return i, nil
}

// Duration reads a number of seconds, or one followed by s, m, h or d.
func (v Value) Duration() (time.Duration, error) {
	n, unit, err := v.number()
	if err != nil {
		return 0, v.Errorf("expected a time such as 4h, 30m or 90, not %s", v.quote())
	}
	scale := time.Second
	switch strings.ToLower(unit) {
	case "", "s":
	case "m":
		scale = time.Minute
	case "h":
		scale = time.Hour
	case "d":
		scale = 24 * time.Hour
	default:
		return 0, v.Errorf("unknown unit of time %q: s, m, h and d are possible", unit)
	}
	if n > uint64(math.MaxInt64/int64(scale)) {
		return 0, v.Errorf("a time of %s is too long", v.quote())
	}
	return time.Duration(n) * scale, nil
}

// Bytes reads a number of bytes, or one followed by k, m or g (1024, 1024², 1024³).
func (v Value) Bytes() (uint64, error) {
	n, unit, err := v.number()
	if err != nil {
		return 0, v.Errorf("expected a size such as 500m or 2g, not %s", v.quote())
	}
	shift := 0
	switch strings.ToLower(unit) {
	case "":
	case "k":
		shift = 10
	case "m":
		shift = 20
	case "g":
		shift = 30
	default:
		return 0, v.Errorf("unknown unit of size %q: k, m and g are possible", unit)
	}
	if n > math.MaxUint64>>shift {
		return 0, v.Errorf("a size of %s is too large", v.quote())
	}
	return n << shift, nil
}

// number reads the digits at the start and returns what follows them and blanks. A leading zero
// is refused, because strongSwan takes such a number as octal and people do not.
func (v Value) number() (n uint64, rest string, err error) {
	text, base, digits := v.Text, 10, "0123456789"
	if hex, ok := strings.CutPrefix(strings.ToLower(text), "0x"); ok {
		text, base, digits = hex, 16, "0123456789abcdef"
	}
	end := len(text) - len(strings.TrimLeft(text, digits))
	if v.IsList || end == 0 {
		return 0, "", v.Errorf("expected a number, not %s", v.quote())
	}
	if base == 10 && end > 1 && text[0] == '0' {
		return 0, "", v.Errorf("write the number %s without a leading zero", v.quote())
	}
	n, err = strconv.ParseUint(text[:end], base, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 0, "", v.Errorf("the number %s is too large", v.quote())
	}
	return n, strings.TrimLeft(text[end:], " "), err
}
