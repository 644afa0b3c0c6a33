package cluster

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"time"

	"adit/internal/gateway"
)

// record is a lease as it is written: one key an address, so that nobody can have an
// address twice, whatever the pools are called.
type record struct {
	Pool     string `json:"pool"`
	Identity string `json:"identity"`
	Gateway  string `json:"gateway"`
	Boot     string `json:"boot"` // the run of that gateway
	Online   bool   `json:"online"`
	At       int64  `json:"at"` // when it was taken or given back, Unix nanoseconds
}

const (
	keyLease   = "lease."
	keyGateway = "gateway."
)

var errRecord = errors.New("malformed record")

func leaseKey(a netip.Addr) string { return keyLease + hex.EncodeToString(a.AsSlice()) }

// ParseRecord reads a record that somebody wrote under a key.
func ParseRecord(key string, value []byte) (gateway.LeaseRecord, error) {
	text, ok := strings.CutPrefix(key, keyLease)
	raw, err := hex.DecodeString(text)
	if !ok || err != nil || len(value) > limitRecord {
		return gateway.LeaseRecord{}, errRecord
	}
	a, ok := netip.AddrFromSlice(raw)
	if !ok {
		return gateway.LeaseRecord{}, errRecord
	}
	var r record
	if json.Unmarshal(value, &r) != nil || r.Identity == "" || len(r.Identity)+len(r.Pool)+len(r.Gateway)+len(r.Boot) > limitRecord {
		return gateway.LeaseRecord{}, errRecord
	}
	return gateway.LeaseRecord{Addr: a, Pool: r.Pool, Identity: r.Identity, Gateway: r.Gateway, Boot: r.Boot, Online: r.Online, At: time.Unix(0, r.At)}, nil
}

func encode(l gateway.LeaseRecord) ([]byte, error) {
	if len(l.Identity) > limitName || len(l.Pool) > limitName {
		return nil, errors.New("the identity is too long to be kept")
	}
	return json.Marshal(record{l.Pool, l.Identity, l.Gateway, l.Boot, l.Online, l.At.UnixNano()})
}
