package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"adit/internal/cluster"
	"adit/internal/gateway"
)

// natsCluster are three servers on loopback that know each other.
func natsCluster(t *testing.T) (nodes []*server.Server) {
	t.Helper()
	var ports []int
	var routes string
	for range 3 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		ports = append(ports, ln.Addr().(*net.TCPAddr).Port)
		routes += fmt.Sprintf("nats://127.0.0.1:%d,", ports[len(ports)-1])
	}
	routes = strings.TrimSuffix(routes, ",")
	for i, port := range ports {
		s, err := server.NewServer(&server.Options{ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true,
			StoreDir: t.TempDir(), SyncAlways: true, JetStreamMaxMemory: 1 << 20, JetStreamMaxStore: 1 << 26,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port, NoAdvertise: true}, Routes: server.RoutesFromStr(routes)})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, s)
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	}
	return nodes
}

// valve forwards TCP until it is shut.
type valve struct {
	ln   net.Listener
	to   string
	mu   sync.Mutex
	shut bool
	open map[net.Conn]bool
}

func newValve(t *testing.T, to string) *valve {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &valve{ln: ln, to: to, open: map[net.Conn]bool{}}
	t.Cleanup(func() { ln.Close(); v.set(true) })
	go func() {
		for {
			a, err := ln.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", v.to)
			v.mu.Lock()
			if err != nil || v.shut {
				a.Close()
				if err == nil {
					b.Close()
				}
				v.mu.Unlock()
				continue
			}
			v.open[a], v.open[b] = true, true
			v.mu.Unlock()
			go func() { _, _ = io.Copy(a, b); a.Close() }()
			go func() { _, _ = io.Copy(b, a); b.Close() }()
		}
	}()
	return v
}

func (v *valve) set(shut bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.shut = shut
	for c := range v.open {
		c.Close()
	}
	clear(v.open)
}

// Three gateways on a cluster of three NATS servers; the server that leads is killed in
// the middle of a storm of clients, a gateway too. Nobody is left out and no address is
// given twice. Then one gateway is cut off: it refuses new leases in bounded time, keeps
// the ones that it has, and goes on when the partition heals.
func TestLeasesOfThreeGateways(t *testing.T) {
	nodes := natsCluster(t)
	for _, n := range nodes {
		n.Start()
	}
	var urls []string
	for _, n := range nodes {
		if !n.ReadyForConnections(20 * time.Second) {
			t.Fatal("a NATS server does not start")
		}
		urls = append(urls, n.ClientURL())
	}
	cut := newValve(t, strings.TrimPrefix(urls[0], "nats://"))
	p := pool4("10.3.0.1", "10.3.3.254")
	var stores []*cluster.Store
	var gws []*gateway.Lessor
	for i, url := range []string{"nats://" + cut.ln.Addr().String(), urls[1] + "," + urls[2] + "," + urls[0], urls[2] + "," + urls[1] + "," + urls[0]} {
		s := cluster.New(cluster.Config{URL: url, Gateway: fmt.Sprint("gw", i), Dir: t.TempDir()})
		stores = append(stores, s)
		gws = append(gws, gateway.NewLessor(s, nil, p))
	}
	defer stores[0].Close()
	defer stores[1].Close()
	for _, s := range stores {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		if kept, err := s.Ready(ctx); !kept || err != nil {
			t.Fatal(kept, err)
		}
		cancel()
	}
	var mu sync.Mutex
	has := map[netip.Addr]string{}
	refused := 0
	half := make(chan struct{})
	var once sync.Once
	client := func(gw, i int) {
		id := fmt.Sprintf("user %d of %d", i, gw)
		for try := 0; ; try++ {
			a, err := gws[gw].Give(context.Background(), uint64(i+1), id, "p")
			mu.Lock()
			other, twice := has[a]
			switch {
			case errors.Is(err, gateway.ErrLeaseStore) && gw == 2: // its gateway was killed: it goes to another
				gw, i, refused = 1, i+1000, refused+1
			case err != nil && try < 5:
				refused++
			case err != nil || twice && other != id:
				t.Errorf("%s: %v %v, which %q has", id, a, err, other)
				mu.Unlock()
				return
			default:
				if has[a] = id; len(has) > 60 {
					once.Do(func() { close(half) })
				}
				mu.Unlock()
				return
			}
			mu.Unlock()
		}
	}
	var wg sync.WaitGroup
	for gw := range gws {
		queue := make(chan int, 80)
		for i := range 80 {
			queue <- i
		}
		close(queue)
		for range 8 {
			wg.Go(func() {
				for i := range queue {
					client(gw, i)
				}
			})
		}
	}
	<-half
	for i := 1; i < 3; i++ {
		if i == 2 || nodes[i].JetStreamIsStreamLeader("$G", "KV_adit") {
			nodes[i].Shutdown() // a server of gateway 1 or 2
			break
		}
	}
	stores[2].Close()
	wg.Wait()
	if len(has) != 240 {
		t.Errorf("%d addresses for 240 clients", len(has))
	}
	t.Logf("240 clients, %d tries that were refused and tried again", refused)

	cut.set(true)
	begun := time.Now()
	if _, err := gws[0].Give(context.Background(), 5000, "nobody", "p"); !errors.Is(err, gateway.ErrLeaseStore) {
		t.Errorf("cut off, gateway 0 says %v", err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("that took %v", took)
	}
	before := gws[0].Pools()[0].Online
	a, err := gws[1].Give(context.Background(), 5001, "elsewhere", "p")
	if err != nil || has[a] != "" {
		t.Errorf("gateway 1 gave %v %v, which %q has", a, err, has[a])
	}
	cut.set(false)
	eventually(t, "the partition does not heal", func() bool {
		b, err := gws[0].Give(context.Background(), 5002, "again", "p")
		if err == nil && (b == a || has[b] != "") {
			t.Fatalf("after the partition %v was given twice", b)
		}
		return err == nil
	})
	for begun := time.Now(); gws[0].Pools()[0].Online < before+2; time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > 30*time.Second {
			t.Fatal("what happened meanwhile is not known")
		}
	}
}

// keepUntilKilled is the other half of TestLeasesSurviveKill.
func keepUntilKilled(dir string) {
	l := gateway.NewLessor(cluster.New(cluster.Config{Dir: dir}), nil, pool4("10.3.0.1", "10.3.0.254"))
	for i := range 200 {
		id := fmt.Sprint("user-", i)
		a, err := l.Give(context.Background(), uint64(i+1), id, "p")
		fmt.Println(a, id, err)
	}
	select {}
}

func init() {
	if dir := os.Getenv("ADIT_TEST_KEEP"); dir != "" {
		keepUntilKilled(dir)
	}
}

// Every lease that a client may have heard of survives kill -9 of the gateway.
func TestLeasesSurviveKill(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "ADIT_TEST_KEEP="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	has := map[string]string{}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 3 || f[2] != "<nil>" {
			t.Fatalf("the child says %q", lines.Text())
		}
		if has[f[1]] = f[0]; len(has) == 50 {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
	if len(has) < 50 {
		t.Fatalf("%d leases", len(has))
	}
	store := cluster.New(cluster.Config{Dir: dir})
	defer store.Close()
	l := gateway.NewLessor(store, nil, pool4("10.3.0.1", "10.3.0.254"))
	for id, a := range has {
		if got := give(t, l, uint64(len(id))<<32|uint64(netip.MustParseAddr(a).As4()[3]), id); got != a {
			t.Fatalf("%s had %s and got %s", id, a, got)
		}
	}
	// A second process on the same directory has its leases in memory, and says so.
	other := cluster.New(cluster.Config{Dir: dir})
	defer other.Close()
	other.Open(func(gateway.LeaseRecord) {})
	if kept, err := other.Ready(context.Background()); kept || err != nil {
		t.Errorf("a second process shares the directory: %v %v", kept, err)
	}
}
