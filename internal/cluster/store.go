package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"adit/internal/gateway"
)

// Config says where the leases are kept. The zero value of a field means its default.
type Config struct {
	URL         string // of the servers, separated by commas; empty: embedded
	Dir         string // of the embedded server, and of this gateway's name
	Credentials string // file for URL
	CA          string // file of the authority that the servers' certificates must come from
	Bucket      string // "adit"
	Gateway     string // this gateway's name among several; default: random, kept in Dir
	Replicas    int    // of a bucket that is made, 3
	Log         *slog.Logger
}

// Store is a [gateway.LeaseStore]. Safe for concurrent use.
type Store struct {
	cfg  Config
	boot string

	open   sync.Once
	opened chan struct{} // closed when everything that was known has been told, or never will be
	ctx    context.Context
	stop   context.CancelFunc
	under  sync.WaitGroup
	told   func(gateway.LeaseRecord)
	alone  error // why nothing is kept: there is no usable directory

	mu    sync.Mutex
	kv    jetstream.KeyValue
	why   error // why there is none yet
	nc    *nats.Conn
	srv   *embedded
	freed map[netip.Addr]gateway.LeaseRecord
	wake  chan struct{}
	anew  chan struct{} // the connection was lost and is back
	heard map[string]time.Time
	live  time.Time // since when our own heartbeats come back; zero: they don't
	own   time.Time // the last one
}

// New makes a store; nothing happens before Open.
func New(c Config) *Store {
	if c.Bucket == "" {
		c.Bucket = "adit"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{cfg: c, boot: rand.Text(), opened: make(chan struct{}), freed: map[netip.Addr]gateway.LeaseRecord{},
		wake: make(chan struct{}, 1), anew: make(chan struct{}, 1), heard: map[string]time.Time{}, why: errors.New("the store is not open yet")}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Open begins to tell what is known of leases, and whatever others change. It does not
// block; the second call does nothing.
func (s *Store) Open(told func(gateway.LeaseRecord)) {
	s.open.Do(func() {
		s.told = told
		s.under.Go(s.run)
	})
}

func (s *Store) run() {
	var once sync.Once
	ready := func() { once.Do(func() { close(s.opened) }) }
	defer ready()
	if s.cfg.URL == "" {
		srv, err := startEmbedded(s.cfg.Dir)
		if err != nil {
			s.alone = err
			s.cfg.Log.Warn("leases of addresses are kept in memory alone, and begin anew at a restart: "+err.Error(), "dir", s.cfg.Dir)
			return
		}
		s.mu.Lock()
		s.srv = srv
		s.mu.Unlock()
	}
	s.mu.Lock()
	if s.cfg.Gateway == "" {
		s.cfg.Gateway = gatewayID(s.cfg.Dir)
	}
	s.mu.Unlock()
	s.under.Go(s.writeFreed)
	if s.cfg.URL != "" {
		s.under.Go(s.beat)
	}
	for said := false; s.ctx.Err() == nil; s.pause(retryOpen) {
		err := s.connect()
		if err == nil {
			err = s.watch(ready)
		}
		if err != nil && s.ctx.Err() == nil {
			s.mu.Lock()
			s.why = err
			s.mu.Unlock()
			if !said {
				s.cfg.Log.Warn("the store of leases cannot be reached; it is tried again: " + err.Error())
				said = true
			}
		}
	}
}

// connect makes the connection, which then mends itself, and finds or makes the bucket.
func (s *Store) connect() error {
	s.mu.Lock()
	nc, srv := s.nc, s.srv
	s.mu.Unlock()
	if nc == nil {
		opts := []nats.Option{nats.Name("adit " + s.cfg.Gateway), nats.MaxReconnects(-1), nats.ReconnectWait(reconnectPause), nats.Timeout(dialTimeout),
			nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(2),
			nats.ReconnectBufSize(-1), // what cannot be written now has failed, and is not written later
			nats.ReconnectHandler(func(*nats.Conn) {
				select {
				case s.anew <- struct{}{}:
				default:
				}
			})}
		if srv != nil {
			opts = append(opts, nats.InProcessServer(srv.srv))
		}
		if s.cfg.Credentials != "" {
			opts = append(opts, nats.UserCredentials(s.cfg.Credentials))
		}
		if s.cfg.CA != "" {
			opts = append(opts, nats.RootCAs(s.cfg.CA))
		}
		var err error
		if nc, err = nats.Connect(s.cfg.URL, opts...); err != nil {
			return err
		}
		s.mu.Lock()
		s.nc = nc
		s.mu.Unlock()
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	kv, err := s.bucket(js)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.kv, s.why = kv, nil
	s.mu.Unlock()
	return nil
}

// bucket finds the bucket, or makes it: on one server where there are no three.
func (s *Store) bucket(js jetstream.JetStream) (jetstream.KeyValue, error) {
	ctx, cancel := context.WithTimeout(s.ctx, openTimeout)
	defer cancel()
	kv, err := js.KeyValue(ctx, s.cfg.Bucket)
	if !errors.Is(err, jetstream.ErrBucketNotFound) {
		return kv, err
	}
	c := jetstream.KeyValueConfig{Bucket: s.cfg.Bucket, Description: "leases of adit", History: 1, Storage: jetstream.FileStorage, Replicas: 1, MaxValueSize: limitRecord}
	if s.cfg.URL != "" {
		c.Replicas = s.cfg.Replicas
		if c.Replicas == 0 {
			c.Replicas = defaultReplicas
		}
	}
	kv, err = js.CreateKeyValue(ctx, c)
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == codeNotClustered && s.cfg.Replicas == 0 {
		s.cfg.Log.Warn("the NATS server is alone: leases are kept once")
		c.Replicas = 1
		kv, err = js.CreateKeyValue(ctx, c)
	}
	if errors.Is(err, jetstream.ErrBucketExists) { // somebody else was first
		kv, err = js.KeyValue(ctx, s.cfg.Bucket)
	}
	return kv, err
}

// codeNotClustered is the error of a server that is asked for replicas and has no others.
const codeNotClustered = 10074

// watch tells every record, and then each change; it returns when that ends.
func (s *Store) watch(ready func()) error {
	w, err := s.kv.WatchAll(s.ctx)
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return nil
		case <-s.anew: // the library's own watch takes some 10 s to see that it lost something
			return nil
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return errors.New("the watch ended")
			case e == nil:
				ready()
			case strings.HasPrefix(e.Key(), keyGateway):
				s.hear(strings.TrimPrefix(e.Key(), keyGateway), string(e.Value()))
			case e.Operation() == jetstream.KeyValuePut:
				if r, err := ParseRecord(e.Key(), e.Value()); err == nil {
					r.Rev = e.Revision()
					s.hear(r.Gateway, "")
					s.told(s.mine(r))
				}
			}
		}
	}
}

func (s *Store) mine(r gateway.LeaseRecord) gateway.LeaseRecord {
	r.Mine = r.Gateway == s.cfg.Gateway && r.Boot == s.boot
	r.Ours = r.Gateway == s.cfg.Gateway
	return r
}

// Ready waits until everything that was known has been told. Without an error but not
// kept, there is no store and leases live in memory.
func (s *Store) Ready(ctx context.Context) (kept bool, err error) {
	select {
	case <-s.opened:
		return s.alone == nil, nil
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return true, s.unreachable(s.why)
}

func (s *Store) unreachable(why error) error {
	switch {
	case why == nil:
		why = errors.New("it does not answer")
	case errors.Is(why, nats.ErrReconnectBufExceeded): // nothing is kept for later
		why = errors.New("the connection is lost")
	}
	where := "the leases in " + s.cfg.Dir
	if s.cfg.URL != "" {
		where = "the leases' NATS servers"
	}
	return fmt.Errorf("%w: %s: %w", gateway.ErrLeaseStore, where, why)
}

// Take writes a lease if nobody has changed the record of its address since r.Rev (0:
// there was none), and returns it as it stands then. Where somebody has, it returns
// theirs and ErrLeaseTaken. It waits a bounded time for a store that does not answer.
func (s *Store) Take(ctx context.Context, r gateway.LeaseRecord) (gateway.LeaseRecord, error) {
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	s.mu.Lock()
	delete(s.freed, r.Addr)
	kv, why, srv := s.kv, s.why, s.srv
	s.mu.Unlock()
	if kv == nil {
		return r, s.unreachable(why)
	}
	r.Gateway, r.Boot, r.Online, r.At = s.cfg.Gateway, s.boot, true, time.Now()
	value, err := encode(r)
	if err != nil {
		return r, err
	}
	for {
		rev, err := update(ctx, kv, r, value)
		switch {
		case err == nil:
			r.Rev = rev
			if srv != nil {
				if err := srv.durable.wait(ctx); err != nil {
					return r, s.unreachable(err)
				}
			}
			return s.mine(r), nil
		case conflict(err):
			return s.standing(ctx, kv, r)
		}
		// Perhaps it was written and the answer got lost: then the next try finds our record.
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return r, s.unreachable(err)
		case <-s.ctx.Done():
			return r, s.unreachable(err)
		}
	}
}

func update(ctx context.Context, kv jetstream.KeyValue, r gateway.LeaseRecord, value []byte) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return kv.Update(ctx, leaseKey(r.Addr), value, r.Rev)
}

// conflict reports whether the record was changed since.
func conflict(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}

// standing is what became of a record that somebody changed: it may have been us, by a
// write whose answer was lost.
func (s *Store) standing(ctx context.Context, kv jetstream.KeyValue, r gateway.LeaseRecord) (gateway.LeaseRecord, error) {
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		e, err := kv.Get(attempt, leaseKey(r.Addr))
		cancel()
		if err == nil && e.Revision() > r.Rev {
			now, err := ParseRecord(e.Key(), e.Value())
			if err != nil {
				return r, err
			}
			now.Rev = e.Revision()
			if now = s.mine(now); now.Mine && now.At.Equal(r.At) {
				return now, nil
			}
			return now, gateway.ErrLeaseTaken
		}
		// A replica that lags behind.
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return r, s.unreachable(err)
		}
	}
}

// Free writes later that nobody uses the lease any more. If that gets lost, others learn
// it by this gateway's next run or its silence.
func (s *Store) Free(r gateway.LeaseRecord) {
	s.mu.Lock()
	if len(s.freed) < limitFreed {
		r.At = time.Now()
		s.freed[r.Addr] = r
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Store) writeFreed() {
	for {
		select {
		case <-s.ctx.Done():
			ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
			defer cancel()
			s.flush(ctx)
			return
		case <-s.wake:
			s.flush(s.ctx)
		}
	}
}

func (s *Store) flush(ctx context.Context) {
	for ctx.Err() == nil {
		s.mu.Lock()
		kv := s.kv
		var r gateway.LeaseRecord
		for _, r = range s.freed {
			break
		}
		s.mu.Unlock()
		if !r.Addr.IsValid() || kv == nil {
			return
		}
		r.Gateway, r.Boot, r.Online = s.cfg.Gateway, s.boot, false
		value, err := encode(r)
		if err == nil {
			_, err = update(ctx, kv, r, value)
		}
		if err != nil && !conflict(err) && !s.pause(retryPause) && ctx == s.ctx {
			return
		}
		s.mu.Lock()
		if now, ok := s.freed[r.Addr]; ok && now.At.Equal(r.At) && (err == nil || conflict(err) || ctx != s.ctx) {
			delete(s.freed, r.Addr)
		}
		s.mu.Unlock()
	}
}

// pause waits; false: the store is being closed.
func (s *Store) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-s.ctx.Done():
		return false
	}
}

// beat tells the others that this gateway lives.
func (s *Store) beat() {
	for ; s.ctx.Err() == nil; s.pause(heartbeat) {
		s.mu.Lock()
		kv := s.kv
		s.mu.Unlock()
		if kv == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(s.ctx, attemptTimeout)
		_, _ = kv.Put(ctx, keyGateway+s.cfg.Gateway, []byte(s.boot))
		cancel()
	}
}

// hear notes a sign of life.
func (s *Store) hear(id, boot string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == s.cfg.Gateway {
		if boot != s.boot {
			return
		}
		if s.live.IsZero() || now.Sub(s.own) > 3*heartbeat {
			s.live = now
		}
		s.own = now
		return
	}
	if _, known := s.heard[id]; known || len(s.heard) < limitGateways {
		s.heard[id] = now
	}
}

// Silent is how long a gateway was not heard although we would have heard it. A
// former run of our own, and a gateway whose directory we have, will never be heard.
func (s *Store) Silent(id string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch {
	case s.cfg.URL == "" || id == s.cfg.Gateway:
		return math.MaxInt64
	case s.live.IsZero() || now.Sub(s.own) > 3*heartbeat: // we hear nobody
		return 0
	}
	since := s.heard[id]
	if since.Before(s.live) {
		since = s.live
	}
	return now.Sub(since)
}

// Shared reports whether other gateways may use the same store, and our name among them.
func (s *Store) Shared() (name string, shared bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Gateway, s.cfg.URL != ""
}

// Close writes what is to be written, for a short time, and ends.
func (s *Store) Close() {
	s.stop()
	s.under.Wait()
	if s.nc != nil {
		s.nc.Close()
	}
	if s.srv != nil {
		s.srv.close()
	}
}
