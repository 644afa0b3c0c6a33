package cluster_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"adit/internal/cluster"
	"adit/internal/gateway"
)

// BenchmarkTake is a lease that is written to the disk, 512 of them under way at a time.
func BenchmarkTake(b *testing.B) {
	s := cluster.New(cluster.Config{Dir: b.TempDir()})
	defer s.Close()
	s.Open(func(gateway.LeaseRecord) {})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := s.Ready(ctx); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 512)
	for i := range b.N {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			if _, err := s.Take(ctx, gateway.LeaseRecord{Addr: a, Pool: "p", Identity: fmt.Sprint("user", i)}); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
}
