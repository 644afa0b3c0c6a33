package peer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// SA is an IKE SA as `swanctl --list-sas` shows it.
type SA struct {
	Name                  string
	UniqueID              string
	State                 string // "ESTABLISHED" and so on
	InitiatorSPI          string // hexadecimal
	ResponderSPI          string
	LocalHost, RemoteHost string
	LocalPort, RemotePort string
	LocalID, RemoteID     string
	Encryption, Integrity string // with the key size: "AES_GCM_16-256"
	PRF, KeyExchange      string
	Initiator             bool
	NATLocal, NATRemote   bool
	LocalVIPs, RemoteVIPs []string // virtual addresses that were got, and given
	Children              []Child
	Fields                map[string]string // every field under its own name
}

// Child is a Child SA as `swanctl --list-sas` shows it.
type Child struct {
	Name, UniqueID        string
	State, Mode           string // "INSTALLED", "TUNNEL"
	SPIIn, SPIOut         string // hexadecimal
	Encap                 bool   // in UDP
	Encryption, Integrity string
	KeyExchange           string
	ESN                   bool
	BytesIn, BytesOut     uint64
	PacketsIn, PacketsOut uint64
	LocalTS, RemoteTS     []string
	Fields                map[string]string
}

// Installed are the children of all SAs with a name that are installed.
func Installed(sas []SA, child string) []Child {
	var cs []Child
	for _, s := range sas {
		for _, c := range s.Children {
			if c.Name == child && c.State == "INSTALLED" {
				cs = append(cs, c)
			}
		}
	}
	return cs
}

// Established are the IKE SAs with a name that are established.
func Established(sas []SA, name string) []SA {
	return slices.DeleteFunc(slices.Clone(sas), func(s SA) bool {
		return s.Name != name || s.State != "ESTABLISHED"
	})
}

// tree is a VICI message as swanctl --pretty prints it: one "key = value", one
// "name {", one "name = [", one item or one closing bracket a line.
type tree struct {
	name   string
	fields map[string]string
	lists  map[string][]string
	subs   []*tree
}

func parseTree(text string) (*tree, error) {
	root := &tree{fields: map[string]string{}, lists: map[string][]string{}}
	stack, list := []*tree{root}, ""
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		top := stack[len(stack)-1]
		key, value, isField := strings.Cut(line, " = ")
		switch {
		case line == "":
		case list != "" && line == "]":
			list = ""
		case list != "":
			top.lists[list] = append(top.lists[list], line)
		case line == "}":
			if len(stack) == 1 {
				return nil, fmt.Errorf("line %d: closes what is not open", n+1)
			}
			stack = stack[:len(stack)-1]
		case isField && value == "[":
			list = key
		case isField || strings.HasSuffix(line, " ="):
			top.fields[strings.TrimSuffix(key, " =")] = value
		case strings.HasSuffix(line, "{"):
			sub := &tree{name: strings.TrimSpace(strings.TrimSuffix(line, "{")), fields: map[string]string{}, lists: map[string][]string{}}
			top.subs = append(top.subs, sub)
			stack = append(stack, sub)
		default:
			return nil, fmt.Errorf("line %d: %q is not understood", n+1, line)
		}
	}
	if len(stack) != 1 {
		return nil, fmt.Errorf("%d sections are not closed", len(stack)-1)
	}
	return root, nil
}

// ParseSAs reads the output of `swanctl --list-sas --pretty`.
func ParseSAs(text string) ([]SA, error) {
	root, err := parseTree(text)
	if err != nil {
		return nil, fmt.Errorf("list-sas: %w: %s", err, text)
	}
	var sas []SA
	for _, ev := range root.subs {
		if ev.name != "list-sa event" {
			continue // the reply that ends the stream
		}
		for _, t := range ev.subs {
			sas = append(sas, newSA(t))
		}
	}
	return sas, nil
}

func newSA(t *tree) SA {
	f := t.fields
	s := SA{
		Name: t.name, UniqueID: f["uniqueid"], State: f["state"],
		InitiatorSPI: f["initiator-spi"], ResponderSPI: f["responder-spi"],
		LocalHost: f["local-host"], RemoteHost: f["remote-host"], LocalPort: f["local-port"], RemotePort: f["remote-port"],
		LocalID: f["local-id"], RemoteID: f["remote-id"],
		Encryption: algorithm(f["encr-alg"], f["encr-keysize"]), Integrity: algorithm(f["integ-alg"], f["integ-keysize"]),
		PRF: f["prf-alg"], KeyExchange: f["dh-group"],
		Initiator: f["initiator"] == "yes", NATLocal: f["nat-local"] == "yes", NATRemote: f["nat-remote"] == "yes",
		LocalVIPs: t.lists["local-vips"], RemoteVIPs: t.lists["remote-vips"],
		Fields: f,
	}
	for _, sub := range t.subs {
		if sub.name == "child-sas" {
			for _, c := range sub.subs {
				s.Children = append(s.Children, newChild(c))
			}
		}
	}
	return s
}

func newChild(t *tree) Child {
	f := t.fields
	num := func(k string) uint64 { n, _ := strconv.ParseUint(f[k], 10, 64); return n }
	return Child{
		Name: f["name"], UniqueID: f["uniqueid"], State: f["state"], Mode: f["mode"],
		SPIIn: f["spi-in"], SPIOut: f["spi-out"], Encap: f["encap"] == "yes",
		Encryption: algorithm(f["encr-alg"], f["encr-keysize"]), Integrity: algorithm(f["integ-alg"], f["integ-keysize"]),
		KeyExchange: f["dh-group"], ESN: f["esn"] == "1" || f["esn"] == "yes",
		BytesIn: num("bytes-in"), BytesOut: num("bytes-out"), PacketsIn: num("packets-in"), PacketsOut: num("packets-out"),
		LocalTS: t.lists["local-ts"], RemoteTS: t.lists["remote-ts"], Fields: f,
	}
}

func algorithm(name, bits string) string {
	if name == "" || bits == "" || bits == "0" {
		return name
	}
	return name + "-" + bits
}
