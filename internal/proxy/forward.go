package proxy

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// ParseForward takes "[bind:]port:host:hostport" apart, as ssh's -L has it; addresses of IPv6 stand in
// brackets. Without a bind address it is the loopback's.
func ParseForward(text string) (listen, to string, err error) {
	parts, err := splitColons(text)
	if err != nil {
		return "", "", err
	}
	if len(parts) == 3 {
		parts = append([]string{"127.0.0.1"}, parts...)
	}
	if len(parts) != 4 {
		return "", "", fmt.Errorf("forward %q: write [bind:]port:host:hostport, as in 8080:intranet:80", text)
	}
	for _, i := range []int{1, 3} {
		n, err := strconv.ParseUint(parts[i], 10, 16)
		if err != nil || n == 0 && i == 3 {
			return "", "", fmt.Errorf("forward %q: %q is no port", text, parts[i])
		}
	}
	if parts[2] == "" || strings.ContainsAny(parts[2], " /%") {
		return "", "", fmt.Errorf("forward %q: %q is no host", text, parts[2])
	}
	return net.JoinHostPort(parts[0], parts[1]), net.JoinHostPort(parts[2], parts[3]), nil
}

// splitColons splits at colons outside of brackets, and takes these away.
func splitColons(text string) (parts []string, err error) {
	for rest := text; ; {
		part, after, more := strings.Cut(rest, ":")
		if strings.HasPrefix(rest, "[") {
			inner, behind, closed := strings.Cut(rest[1:], "]")
			if !closed || behind != "" && behind[0] != ':' {
				return nil, fmt.Errorf("forward %q: a bracket is open", text)
			}
			part, after, more = inner, strings.TrimPrefix(behind, ":"), behind != ""
		}
		if parts = append(parts, part); len(parts) > 4 {
			return parts, nil
		}
		if !more {
			return parts, nil
		}
		rest = after
	}
}
