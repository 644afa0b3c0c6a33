package conf

import (
	"errors"
	"fmt"
	"strconv"
)

// The reasons for which a configuration is refused; every [Error] wraps one of them.
var (
	ErrSyntax    = errors.New("syntax error")
	ErrLimit     = errors.New("limit exceeded")
	ErrInclude   = errors.New("include failed")
	ErrReference = errors.New("bad reference")
	ErrValue     = errors.New("bad value")
)

// Pos is a place in a configuration file. The zero Pos belongs to nodes that come from no file,
// such as those of a VICI message.
type Pos struct {
	File string // as given to the parser, or found by an include
	Line int    // from 1
	Col  int    // from 1, in bytes
}

// IsValid reports whether p names a place in a file.
func (p Pos) IsValid() bool { return p.Line > 0 }

// String returns "file:line", or "" for the zero Pos.
func (p Pos) String() string {
	if !p.IsValid() {
		return ""
	}
	return p.File + ":" + strconv.Itoa(p.Line)
}

// Error is what is wrong with a configuration, and where.
type Error struct {
	Pos Pos    // where; zero when it comes from no file
	Msg string // what, in words for the operator
	Err error  // the reason: ErrSyntax, ErrLimit, … or the error of the file system
}

// Error returns "file:line: message".
func (e *Error) Error() string {
	if !e.Pos.IsValid() {
		if e.Pos.File != "" {
			return e.Pos.File + ": " + e.Msg
		}
		return e.Msg
	}
	return e.Pos.String() + ": " + e.Msg
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an [Error] at pos that wraps [ErrValue]; the configuration model uses it for
// values that parse and yet make no sense.
func Errorf(pos Pos, format string, args ...any) *Error {
	return &Error{Pos: pos, Msg: fmt.Sprintf(format, args...), Err: ErrValue}
}

func fail(reason error, pos Pos, format string, args ...any) *Error {
	return &Error{Pos: pos, Msg: fmt.Sprintf(format, args...), Err: reason}
}
