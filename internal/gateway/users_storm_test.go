package gateway_test

import (
	"fmt"
	"math"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/internal/config"
	"adit/internal/gateway"
	"adit/ipsec"
)

// router is a NAT in front of the clients: all of them have one address inside, and
// behind it one public address with a port for each IKE SA and port of theirs.
type router struct {
	mu      sync.Mutex
	public  netip.Addr
	clients *end
	ports   map[mapping]uint16
	back    map[uint16]netip.AddrPort
}

type mapping struct {
	spi  [8]byte
	port uint16
}

// inside is the clients' Transport, outside the gateway's.
type inside struct {
	outer
	r *router
}

type outside struct {
	outer
	r *router
}

func (x inside) Send(d ike.Datagram) error {
	if len(d.Data) < 8 {
		return nil
	}
	m := mapping{[8]byte(d.Data), d.Local.Port()}
	x.r.mu.Lock()
	port, ok := x.r.ports[m]
	if !ok {
		port = uint16(10_000 + len(x.r.ports))
		x.r.ports[m], x.r.back[port] = port, d.Local
	}
	x.r.mu.Unlock()
	x.lab.mu.Lock()
	to := x.lab.ends[d.Remote.Addr()]
	x.lab.mu.Unlock()
	time.AfterFunc(way, func() {
		to.gw.Datagram(ike.Datagram{Local: d.Remote, Remote: netip.AddrPortFrom(x.r.public, port), Data: slices.Clone(d.Data)})
	})
	return nil
}

func (x outside) Send(d ike.Datagram) error {
	x.r.mu.Lock()
	to, ok := x.r.back[d.Remote.Port()]
	x.r.mu.Unlock()
	if ok && d.Remote.Addr() == x.r.public {
		time.AfterFunc(way, func() {
			x.r.clients.gw.Datagram(ike.Datagram{Local: to, Remote: d.Local, Data: slices.Clone(d.Data)})
		})
	}
	return nil
}

// settings decodes a whole configuration.
func settings(t *testing.T, text string) *config.Model {
	t.Helper()
	root, err := conf.ParseBytes("test.conf", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	daemon, _ := config.LoadDaemon("")
	m, err := config.Decode(root, daemon)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// usersConf are the configurations of n clients and of their gateway.
func usersConf(n int) (clients, office string) {
	var c, s strings.Builder
	for i := range n {
		fmt.Fprintf(&c, "u%d {\n remote_addrs = %s\n vips = 0.0.0.0\n proposals = aes128gcm16-prfsha256-x25519\n local { auth = eap-mschapv2\n id = u%d\n eap_id = u%d\n }\n"+
			" remote { auth = psk\n id = gw.example.org\n }\n children { net { remote_ts = 10.2.0.0/16\n esp_proposals = aes128gcm16\n } }\n}\n", i, rightAddr, i, i)
		fmt.Fprintf(&s, "eap-u%d { id = u%d\n secret = \"password of user %d\"\n }\n", i, i, i)
	}
	secrets := "secrets {\n ike { secret = \"a secret that is long enough\" }\n" + s.String() + "}\n"
	return "connections {\n" + c.String() + "}\n" + secrets,
		"connections { users {\n local_addrs = " + rightAddr + "\n pools = users\n proposals = aes128gcm16-prfsha256-x25519\n local { auth = psk\n id = gw.example.org\n }\n" +
			" remote { auth = eap-mschapv2\n eap_id = %any\n }\n children { net { local_ts = 10.2.0.0/16\n esp_proposals = aes128gcm16\n } }\n} }\n" +
			"pools { users { addrs = 10.64.0.0/16\n dns = 10.2.0.53\n } }\n" + secrets
}

// A hundred users come within half a minute from behind one NAT address, and all have the
// same address behind it: each has a tunnel and an inner address of its own, though of one
// source only block_threshold half-open IKE SAs are taken at a time.
func TestHundredUsersBehindOneNAT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { storm(t, 100, 30*time.Second, func(*config.Daemon) {}) })
}

// All come at the same instant, after the gateway was away; a site with so many behind one
// address sets block_threshold = 0 (in the model: no bound), and cookies protect it. Within
// a minute nobody is left out. ADIT_STORM=n makes it n users and prints what a set-up takes
// in real time and a user in memory; both ends are in this process. 10,000 at one and the
// same instant, of virtual time, are in after 12 s of it: what overruns the queue of first
// messages is repeated. `adit bench users` does the same with a gateway's whole process.
func TestStormOfUsers(t *testing.T) {
	n := 200
	if text := os.Getenv("ADIT_STORM"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 || n > 25_000 {
			t.Fatal("ADIT_STORM: ", text)
		}
	}
	began := time.Now()
	synctest.Test(t, func(t *testing.T) { storm(t, n, 0, func(d *config.Daemon) { d.BlockThreshold = math.MaxInt32 }) })
	if took := time.Since(began); n > 200 {
		t.Logf("%d users in %v of real time: %.0f set-ups a second, both ends", n, took, float64(n)/took.Seconds())
	}
}

// way is how long a datagram takes.
const way = 20 * time.Millisecond

// storm has n users connect, each at its part of spread.
func storm(t *testing.T, n int, spread time.Duration, change func(*config.Daemon)) {
	l := newLab(t)
	r := &router{public: netip.MustParseAddr("203.0.113.7"), ports: map[mapping]uint16{}, back: map[uint16]netip.AddrPort{}}
	left := l.end("clients", leftAddr, func(o *gateway.Options) {
		o.ForceEncap = false
		o.Transport = inside{o.Transport.(outer), r}
	})
	right := l.end("gateway", rightAddr, func(o *gateway.Options) {
		o.ForceEncap = false
		o.Transport = outside{o.Transport.(outer), r}
		change(&o.Daemon)
	})
	r.clients = left
	defer right.gw.Shutdown()
	defer left.gw.Shutdown()
	clients, office := usersConf(n)
	for e, text := range map[*end]string{left: clients, right: office} {
		if err := e.gw.Load(settings(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	failed := make(chan error, n)
	start := time.Now()
	for i := range n {
		wg.Go(func() {
			time.Sleep(spread * time.Duration(i) / time.Duration(n))
			if err := left.gw.Initiate(within(time.Minute), fmt.Sprintf("u%d", i), "net"); err != nil {
				failed <- fmt.Errorf("u%d: %w", i, err)
			}
		})
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	if took := time.Since(start); took > time.Minute { // of the bubble's clock
		t.Errorf("it took %v", took)
	}
	right.settle()
	if n > 200 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		t.Logf("%v of virtual time; %d bytes of heap a user, of both ends and the test", time.Since(start), m.HeapAlloc/uint64(n))
	}
	addrs, ports := map[ipsec.Selector]bool{}, map[uint16]bool{}
	right.mu.Lock()
	for ref, sa := range right.sas {
		if ref.Dir == ipsec.Out {
			addrs[sa.RemoteTS[0]], ports[sa.Remote.Port()] = true, true
		}
	}
	right.mu.Unlock()
	if len(addrs) != n || len(ports) != n {
		t.Errorf("%d inner addresses and %d ports of %d users", len(addrs), len(ports), n)
	}
	if sas, policies, _ := right.count(); sas != 2*n || policies != n {
		t.Errorf("%d SAs and %d policies of %d users", sas, policies, n)
	}
	if left.bugs()+right.bugs() != 0 {
		t.Error("bugs")
	}
}
