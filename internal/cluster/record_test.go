package cluster

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"adit/internal/gateway"
)

// What another gateway, or whoever can write the bucket, wrote does no harm, and what is
// taken of it is written the same again.
func FuzzParseRecord(f *testing.F) {
	f.Add("lease.0a030001", []byte(`{"pool":"p","identity":"alice","gateway":"g","boot":"b","online":true,"at":1}`))
	f.Add("lease.fd030000000000000000000000000001", []byte(`{"identity":"a"}`))
	f.Add("lease.0a03", []byte(`{}`))
	f.Add("gateway.x", []byte(`x`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		r, err := ParseRecord(key, value)
		if err != nil {
			return
		}
		b, err := encode(r)
		if err != nil {
			return
		}
		again, err := ParseRecord(leaseKey(r.Addr), b)
		if err != nil || again != r {
			t.Fatalf("%+v became %+v: %v", r, again, err)
		}
	})
}

func TestRecordBounds(t *testing.T) {
	r := gateway.LeaseRecord{Addr: netip.MustParseAddr("10.3.0.1"), Identity: strings.Repeat("x", limitName+1), At: time.Now()}
	if _, err := encode(r); err == nil {
		t.Error("an endless identity is kept")
	}
	if _, err := ParseRecord("lease.0a030001", []byte(`{"identity":"`+strings.Repeat("x", limitRecord)+`"}`)); err == nil {
		t.Error("an endless record is read")
	}
}
