package tunnel

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	cost "adit/internal/bench"
	"adit/internal/bench/traffic"
	"adit/interop/lab"
)

// bench is one contender under measurement.
type bench struct {
	lab         *lab.Lab
	o           *Options
	run         *running
	rec         *recorder
	left, right *traffic.Host
	trial       uint32 // the last one's number
	rss         int64  // the highest seen, octets
	many        bool   // the right gateway has manySAs
}

// measure is one measurement of every contender. do fills the values in.
type measure struct {
	name  string
	what  string
	asked bool // made only if asked for
	storm bool // it needs a storm of set-ups, at an adit
	once  bool // it cannot be made again
	do    func(b *bench, ctx context.Context, s *Sample) error
}

// measures are made in this order. Round trips come first, while the gateways are as
// idle as their users leave them; trains last: they make some gateways grow by gigabytes,
// and memory is that of ordinary load.
var measures = []measure{
	{name: "rtt_idle", what: "round trips, idle", do: func(b *bench, ctx context.Context, s *Sample) error { return b.roundTrips(ctx, s, 0) }},
	{name: "rtt_paused", what: "round trips with pauses", do: func(b *bench, ctx context.Context, s *Sample) error { return b.roundTrips(ctx, s, pingPause) }},
	{name: "tcp1_lr", what: "TCP, 1 stream ->", do: func(b *bench, ctx context.Context, s *Sample) error { return b.tcp(ctx, s, 1, true) }},
	{name: "tcp1_rl", what: "TCP, 1 stream <-", do: func(b *bench, ctx context.Context, s *Sample) error { return b.tcp(ctx, s, 1, false) }},
	{name: "tcp4_lr", what: "TCP, 4 streams ->", do: func(b *bench, ctx context.Context, s *Sample) error { return b.tcp(ctx, s, 4, true) }},
	{name: "tcp4_rl", what: "TCP, 4 streams <-", do: func(b *bench, ctx context.Context, s *Sample) error { return b.tcp(ctx, s, 4, false) }},
	{name: "rtt_loaded", what: "round trips beside TCP", do: (*bench).loaded},
	{name: "udp64", what: "UDP, 64 bytes", do: func(b *bench, ctx context.Context, s *Sample) error { return b.udp(ctx, s, 64, false) }},
	{name: "udp512", what: "UDP, 512 bytes", do: func(b *bench, ctx context.Context, s *Sample) error { return b.udp(ctx, s, 512, false) }},
	{name: "udp1300", what: "UDP, 1300 bytes", do: func(b *bench, ctx context.Context, s *Sample) error { return b.udp(ctx, s, 1300, false) }},
	{name: "file", what: "a file", do: (*bench).file},
	{name: "rss", what: "memory", do: (*bench).memory},
	{name: "udp64_trains", what: "UDP, 64 bytes, in trains", do: func(b *bench, ctx context.Context, s *Sample) error { return b.udp(ctx, s, 64, true) }},
	{name: "udp1300_trains", what: "UDP, 1300 bytes, in trains", do: func(b *bench, ctx context.Context, s *Sample) error { return b.udp(ctx, s, 1300, true) }},
	{name: "rss_flood", what: "memory under a flood of garbage", asked: true, storm: true, once: true, do: (*bench).flood},
	{name: "rtt_storm", what: "round trips beside set-ups", asked: true, storm: true, once: true, do: (*bench).besideSetups},
	{name: "tcp1_many_lr", what: "TCP, 1 stream ->, 1 of 10,000 SAs", asked: true, storm: true, do: func(b *bench, ctx context.Context, s *Sample) error {
		return b.amongMany(ctx, func() error { return b.tcp(ctx, s, 1, true) })
	}},
	{name: "tcp1_many_rl", what: "TCP, 1 stream <-, 1 of 10,000 SAs", asked: true, storm: true, do: func(b *bench, ctx context.Context, s *Sample) error {
		return b.amongMany(ctx, func() error { return b.tcp(ctx, s, 1, false) })
	}},
	{name: "udp1300_many", what: "UDP, 1300 bytes, 1 of 10,000 SAs", asked: true, storm: true, do: func(b *bench, ctx context.Context, s *Sample) error {
		return b.amongMany(ctx, func() error { return b.udp(ctx, s, 1300, false) })
	}},
}

const (
	portTCP, portUDP, portEcho, portFile = 5001, 5002, 5003, 5004

	pingPause   = 2 * time.Millisecond // long enough for a gateway to go to sleep
	loadedPause = time.Millisecond
	// mostLoss is the share of datagrams that may be lost.
	mostLoss = 0.01
	// searchStart is where every search begins, datagrams a second.
	searchStart = 50_000
	// fileSize is what is transferred and compared.
	fileSize, fileSizeQuick = 64 << 20, 4 << 20
	// mostRepeats is how often a disturbed measurement is made again.
	mostRepeats = 2
)

func (b *bench) measure(ctx context.Context) error {
	if err := b.hosts(ctx); err != nil {
		return err
	}
	defer b.left.Close()
	defer b.right.Close()
	if b.run.storm != nil {
		defer b.run.storm.End()
	}
	for _, m := range b.o.chosen {
		b.rec.bar.step(m.what)
		if m.storm && b.run.storm == nil {
			continue
		}
		if err := b.undisturbed(ctx, m); err != nil {
			return fmt.Errorf("%s: %w", m.what, err)
		}
	}
	return nil
}

// hosts starts a process in each host's namespace, and what listens there.
func (b *bench) hosts(ctx context.Context) error {
	for _, h := range []struct {
		node string
		at   netip.Addr
		to   **traffic.Host
	}{{lab.LeftHost, b.lab.L.Host4, &b.left}, {lab.RightHost, b.lab.R.Host4, &b.right}} {
		socket := filepath.Join(b.lab.Dir, h.node+".sock")
		if _, err := b.lab.Start(h.node, nil, b.o.Binary, "bench", "host", socket); err != nil {
			return err
		}
		host, err := traffic.Dial(ctx, socket)
		if err != nil {
			return err
		}
		*h.to = host
		if err := errors.Join(host.ListenTCP(ctx, netip.AddrPortFrom(h.at, portTCP)), host.ListenUDP(ctx, netip.AddrPortFrom(h.at, portUDP)),
			host.Echo(ctx, netip.AddrPortFrom(h.at, portEcho))); err != nil {
			return err
		}
	}
	return nil
}

// undisturbed makes a measurement, and again while other processes took too much of
// the machine; the least disturbed one counts, and says how much it was.
func (b *bench) undisturbed(ctx context.Context, m measure) error {
	var best *Sample
	for n := range mostRepeats + 1 {
		w, err := beginWatch()
		if err != nil {
			return err
		}
		s := &Sample{Round: b.rec.round, Place: b.rec.place, Contender: b.rec.contender, Measure: m.name, Values: map[string]float64{}}
		start := time.Now()
		if err := m.do(b, ctx, s); err != nil {
			return err
		}
		s.Seconds = time.Since(start).Seconds()
		d, err := w.end()
		if err != nil {
			return err
		}
		s.Disturbance, s.Repeated = d, n
		b.seen()
		if best == nil || d.sum() < best.Disturbance.sum() {
			best = s
		}
		// A search watches over its trials itself.
		if !d.Load || b.o.Quick || m.once || len(s.Trials) > 0 {
			break
		}
	}
	b.rec.add(*best)
	return nil
}

// seen keeps the highest memory of a gateway.
func (b *bench) seen() {
	for _, pid := range b.run.pids {
		if n, err := cost.Resident(pid); err == nil {
			b.rss = max(b.rss, n)
		}
	}
}

func (b *bench) memory(_ context.Context, s *Sample) error {
	b.seen()
	if len(b.run.pids) > 0 {
		s.Values["mb"] = float64(b.rss) / 1e6
	}
	return nil
}

// cpu is the gateways' time so far.
func (b *bench) cpu() (sum time.Duration, err error) {
	for _, pid := range b.run.pids {
		d, err := cost.CPUTime(pid)
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// warm is how long a measurement runs before it counts.
func (b *bench) warm() time.Duration { return b.o.Length / 6 }

// tcp measures streams from left to right, or back.
func (b *bench) tcp(ctx context.Context, s *Sample, streams int, forth bool) (err error) {
	from, to, at := b.left, b.right, b.lab.R.Host4
	if !forth {
		from, to, at = b.right, b.left, b.lab.L.Host4
	}
	if err := from.StartTCP(ctx, traffic.SendTCP{To: netip.AddrPortFrom(at, portTCP), Streams: streams}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.StopTCP(ctx)) }()
	if err := pause(ctx, b.warm()); err != nil {
		return err
	}
	begin, err := to.ReceivedTCP(ctx)
	if err != nil {
		return err
	}
	cpu, err := b.cpu()
	if err != nil {
		return err
	}
	if err := pause(ctx, b.o.Length); err != nil {
		return err
	}
	end, err := to.ReceivedTCP(ctx)
	if err != nil {
		return err
	}
	after, err := b.cpu()
	if err != nil {
		return err
	}
	b.seen()
	bytes := float64(end.Bytes - begin.Bytes)
	if bytes <= 0 {
		return errors.New("nothing arrived")
	}
	s.Values["gbit_s"] = bytes * 8 / float64(end.At-begin.At)
	if len(b.run.pids) > 0 {
		s.Values["cpu_s_per_gb"] = (after - cpu).Seconds() / (bytes / 1e9)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// roundTrips pings from left to right.
func (b *bench) roundTrips(ctx context.Context, s *Sample, pause time.Duration) error {
	p, err := b.left.Ping(ctx, traffic.Ping{To: netip.AddrPortFrom(b.lab.R.Host4, portEcho), For: b.o.Length * 2 / 3, Pause: pause})
	if err != nil {
		return err
	}
	return s.trips(p)
}

// loaded pings in the direction of a TCP stream.
func (b *bench) loaded(ctx context.Context, s *Sample) (err error) {
	if err := b.left.StartTCP(ctx, traffic.SendTCP{To: netip.AddrPortFrom(b.lab.R.Host4, portTCP), Streams: 1}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.left.StopTCP(ctx)) }()
	if err := pause(ctx, b.warm()); err != nil {
		return err
	}
	p, err := b.left.Ping(ctx, traffic.Ping{To: netip.AddrPortFrom(b.lab.R.Host4, portEcho), For: b.o.Length, Pause: loadedPause})
	if err != nil {
		return err
	}
	return s.trips(p)
}

// trips are the values of round trips.
func (s *Sample) trips(p traffic.Pongs) error {
	if len(p.Times) == 0 {
		return errors.New("no datagram came back")
	}
	slices.Sort(p.Times)
	s.Values["p50_us"] = float64(quantile(p.Times, 0.5)) / 1e3
	s.Values["p99_us"] = float64(quantile(p.Times, 0.99)) / 1e3
	s.Values["count"] = float64(len(p.Times))
	s.Values["lost"] = float64(p.Lost)
	return nil
}

// udp searches the highest rate with a bounded loss, from left to right.
func (b *bench) udp(ctx context.Context, s *Sample, size int, trains bool) error {
	q := search{loss: mostLoss, start: searchStart, close: 1.05}
	if b.o.Quick {
		q.close, q.most = 1.3, 10
	}
	q.try = func(rate float64, long bool) (trial, error) {
		for n := 0; ; n++ {
			w, err := beginWatch()
			if err != nil {
				return trial{}, err
			}
			t, err := b.send(ctx, traffic.SendUDP{Size: size, Rate: int(rate), Trains: trains}, long)
			if err != nil {
				return t, err
			}
			d, err := w.end()
			if err != nil || !d.Load || b.o.Quick || n == mostRepeats {
				if t.Noisy = d.Load; d.Load {
					t.By = d.By
				}
				return t, err
			}
		}
	}
	t, err := q.run()
	s.Trials, s.Result = q.trials, &t
	s.Values["kpps"] = t.Received / 1e3
	s.Values["mbit_s"] = t.Received * float64(size) * 8 / 1e6
	s.Values["loss"] = t.Loss
	return err
}

// send is one trial.
func (b *bench) send(ctx context.Context, a traffic.SendUDP, long bool) (trial, error) {
	a.To, a.Warm, a.For = netip.AddrPortFrom(b.lab.R.Host4, portUDP), b.o.Length/30, b.o.Length/6
	if long {
		a.For = b.o.Length
	}
	b.trial++
	a.Trial = b.trial
	sent, err := b.left.SendUDP(ctx, a)
	if err != nil {
		return trial{}, err
	}
	got, err := b.arrived(ctx, traffic.CountUDP{Trial: a.Trial, First: sent.First}, sent.Packets)
	if err != nil {
		return trial{}, err
	}
	return tried(float64(a.Rate), sent, got), nil
}

// tried is what a trial says. What was late arrived at a lower rate: the time counts
// that it took to arrive.
func tried(rate float64, sent traffic.Sent, got traffic.Arrived) trial {
	t := trial{Asked: rate}
	if sent.Packets <= 0 || sent.Took <= 0 {
		t.Loss = 1
		return t
	}
	t.Sent = float64(sent.Packets) / float64(sent.Took) * 1e9
	t.Received = float64(got.Packets) / float64(max(sent.Took, got.LastAt-got.FirstAt)) * 1e9
	t.Loss = max(1-float64(got.Packets)/float64(sent.Packets), 0)
	return t
}

// arrived waits until all has arrived, or nothing does for a while: some gateways hold
// seconds of what they were sent too fast, and that mustn't meet the next trial.
func (b *bench) arrived(ctx context.Context, c traffic.CountUDP, want int64) (got traffic.Arrived, err error) {
	const look, still, most = 5 * time.Millisecond, 12, 2000
	for n, all := 0, 0; n < still && all < most; n, all = n+1, all+1 {
		now, err := b.right.CountUDP(ctx, c)
		if err != nil || now.Packets >= want {
			return now, err
		}
		if now.Ever != got.Ever {
			n = 0
		}
		got = now
		if err := pause(ctx, look); err != nil {
			return got, err
		}
	}
	return got, nil
}

// file sends random octets and compares what arrived.
func (b *bench) file(ctx context.Context, s *Sample) error {
	size := fileSize
	if b.o.Quick {
		size = fileSizeQuick
	}
	text := make([]byte, size)
	rand.Read(text)
	from, to := filepath.Join(b.lab.Dir, "sent"), filepath.Join(b.lab.Dir, "received")
	if err := os.WriteFile(from, text, 0o600); err != nil {
		return err
	}
	want, err := traffic.DigestFile(from)
	if err != nil {
		return err
	}
	at := netip.AddrPortFrom(b.lab.R.Host4, portFile)
	if err := b.right.ExpectFile(ctx, traffic.File{Path: to, Addr: at}); err != nil {
		return err
	}
	if err := b.left.SendFile(ctx, traffic.File{Path: from, Addr: at}); err != nil {
		return err
	}
	got, err := b.right.GotFile(ctx)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%d octets with SHA-256 %s were sent, %d with %s arrived", want.Bytes, want.SHA256, got.Bytes, got.SHA256)
	}
	s.SHA256 = got.SHA256
	s.Values["bytes"] = float64(got.Bytes)
	return nil
}

// quantile of a sorted list (nearest rank).
func quantile[T int64 | float64](sorted []T, q float64) T {
	i := int(q*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

func median(list []float64) float64 {
	s := slices.Sorted(slices.Values(list))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
