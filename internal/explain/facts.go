package explain

import (
	"time"

	"adit/ike"
	"adit/internal/gateway"
	"adit/ipsec"
)

// Facts are what is known of one connection.
type Facts struct {
	Now  time.Time
	Peer *ike.Peer
	// Child narrows the question to one child; nil: the whole connection.
	Child *ike.Child
	// SAs are the connection's IKE SAs, Stats the counters of their Child SAs by number.
	SAs     []ike.SAInfo
	Stats   map[uint32]ike.ChildStats
	History gateway.History
	Attempt ike.Attempt
	// Strangers are refusals that belong to no connection, or to others that were preferred.
	Strangers []gateway.Refusal
	Trouble   []gateway.Trouble
	// Drops are the data plane's counters of dropped packets by reason, of all tunnels.
	Drops map[string]uint64
	// Secrets names the sections of the pre-shared keys that fit two identities.
	Secrets func(local, remote string) []string
	// Clock are signs that this host's clock is wrong.
	Clock []string
	// Place says where an option is written; nil: nobody knows.
	Place func(option string) (at string, given bool)
}

// children are those that the question is about.
func (f *Facts) children() []*ike.Child {
	if f.Child != nil {
		return []*ike.Child{f.Child}
	}
	var out []*ike.Child
	for _, c := range f.Peer.Children {
		if c.Action == ipsec.Protect {
			out = append(out, c)
		}
	}
	return out
}

// name is what was asked for.
func (f *Facts) name() string {
	if f.Child != nil {
		return f.Child.Name
	}
	return f.Peer.Name
}

// concerns reports whether a refusal has to do with what was asked for.
func (f *Facts) concerns(r *ike.Rejection) bool {
	return r.Child == "" || f.Child == nil || r.Child == f.Child.Name
}
