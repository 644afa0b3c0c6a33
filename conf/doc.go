// Package conf is the configuration tree and the grammar of strongswan.conf and swanctl.conf.
//
// It owns the ordered tree of sections, values and lists ([Section], [Value]) that files and
// VICI messages are both turned into, the parser for the file grammar with includes and
// references ([Parse], [Parser]), positions for error messages ([Pos], [Error]), and the typed
// reading of single values (booleans, times, sizes, words).
//
// It does not know which options exist, what they mean or what their defaults are; that is the
// configuration model's part. It touches the file system only through [Files].
//
// # The grammar
//
//	file       := { statement }
//	statement  := NAME "=" [ value ]                 a value, to the end of the line
//	            | NAME [ ":" ref { "," ref } ] "{" { statement } "}"
//	            | "include" pattern
//	value      := { WORD | STRING }                  parts are joined by one blank
//	ref        := NAME { "." NAME }                  absolute path of another section
//
// A NAME holds any byte but # { } : . , = " and blanks. A value ends at a newline, a # or a };
// quoted strings may contain them, span lines, and know \n, \r, \t, \" , \\ and the escaped end
// of a line, which joins two. A section or key written again extends or replaces the former
// and keeps its place. "key =" unsets a key: it then has no value at all, not even an
// inherited one, whereas key = "" is an empty value. References add what the section itself
// does not have, from left to right, at every level below.
//
// Stricter than strongSwan, where that is silent: a reference to a section that does not exist,
// references in a loop, a file that exists but cannot be read, braces that do not balance
// within one file, and NUL bytes are errors.
//
// Start reading at section.go, then parser.go and resolve.go.
package conf
