//go:build linux

package conn

// IsRaw reports whether a Reader of Listen's Conn is for raw ESP of a family.
func IsRaw(r Reader, v6 bool) bool {
	s := r.(*socketReader).sock
	return s.role == roleRaw && s.v6 == v6
}

// MaxRaw is the number of workers that receive raw ESP.
const MaxRaw = maxRaw
