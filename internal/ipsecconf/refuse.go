package ipsecconf

import (
	"strings"

	"adit/conf"
	"adit/internal/config"
)

// probe asks adit's decoder what it thinks of one option of a connection, and
// remembers the answers.
type probe struct {
	known map[string]string
	stub  func(key, value string) string // tests: instead of the decoder
}

// refusal is why adit refuses an option in a section of a connection, or empty. The
// path is that of the section: nothing for the connection itself.
func (p *probe) refusal(path []string, key, value string) string {
	switch key {
	case "certs", "cacerts", "pubkeys", "pools": // files and sections elsewhere
		return ""
	}
	if p.stub != nil {
		return p.stub(key, value)
	}
	id := strings.Join(path, ".") + "." + key + "=" + value
	if why, ok := p.known[id]; ok {
		return why
	}
	root := conf.New("")
	at := root
	for _, name := range path {
		at = at.Add(name)
	}
	at.Set(key, value)
	_, err := config.DecodeConn("c", root, config.Daemon{})
	why := ""
	if err != nil {
		why = firstLine(err, key)
	}
	if p.known == nil {
		p.known = map[string]string{}
	}
	p.known[id] = why
	return why
}

// poolRefusal is why adit refuses an option of a pool, or empty.
func poolRefusal(a attribute) string {
	s := conf.New("pool")
	s.Set("addrs", "192.0.2.0/24")
	s.Set(a.key, a.value)
	if _, err := config.DecodePool(s); err != nil {
		return firstLine(err, a.key)
	}
	return ""
}

// firstLine is what the decoder says of a key, without its path.
func firstLine(err error, key string) string {
	why := err.Error()
	if _, rest, ok := strings.Cut(why, key+": "); ok {
		why = rest
	}
	why, _, _ = strings.Cut(why, "\n")
	return why
}

// secretRefusal is why adit refuses a section of secrets, or empty.
func secretRefusal(n *node) string {
	root := conf.New("")
	s := root.Add("secrets").Add(n.name)
	for _, it := range n.items {
		s.Set(it.key, it.value)
	}
	if _, err := config.Decode(root, config.Daemon{}); err != nil {
		why, _, _ := strings.Cut(err.Error(), "\n")
		_, why, _ = strings.Cut(why, ": ")
		return why
	}
	return ""
}
