package control_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/internal/explain"
	"adit/internal/gateway"
	"adit/vici"
)

// facts are the fields of a record as names and values.
func facts(r *ike.Rejection) (out []string) {
	for _, f := range r.Fields() {
		out = append(out, f.Name+"="+f.Value)
	}
	return out
}

// sameAs holds the facts that a place shows against those of the record: all of them,
// in their order, and lists as lists.
func sameAs(t *testing.T, where string, r *ike.Rejection, got []ike.Field) {
	t.Helper()
	want := r.Fields()
	for _, w := range want {
		i := slices.IndexFunc(got, func(f ike.Field) bool { return f.Name == w.Name })
		switch {
		case i < 0:
			t.Errorf("%s lacks %s", where, w.Name)
		case w.List != nil && !slices.Equal(got[i].List, w.List), w.List == nil && got[i].Value != w.Value:
			t.Errorf("%s has %s = %q %q, the record has %q %q", where, w.Name, got[i].Value, got[i].List, w.Value, w.List)
		}
	}
}

func fieldsOf(m *conf.Section) (out []ike.Field) {
	for v := range m.Values() {
		f := ike.Field{Name: v.Key, Value: v.Text}
		if v.IsList {
			f.List = v.Strings()
		}
		out = append(out, f)
	}
	return out
}

// A refusal is the same in the log, as an alert and in explain, field by field; here
// over two gateways with different keys, as both of them tell it.
func TestOneRecordInThreePlaces(t *testing.T) {
	left, right, _ := sides(t)
	left.ok("load-shared", "id = ike-1\ntype = IKE\ndata = \"a secret of the left side alone\"\nowners = 192.0.2.1, 192.0.2.2\n")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	records := map[*side]chan *ike.Rejection{}
	alerts := map[*side]chan *conf.Section{}
	for _, s := range []*side{left, right} {
		rec, got := make(chan *ike.Rejection, 64), make(chan *conf.Section, 64)
		records[s], alerts[s] = rec, got
		defer s.gw.Subscribe(func(e ike.Event) {
			if r, ok := e.(*ike.Rejection); ok {
				rec <- r
			}
		})()
		c, err := vici.Dial(ctx, s.uri)
		if err != nil {
			t.Fatal(err)
		}
		var listening sync.WaitGroup
		listening.Go(func() {
			for e := range c.Listen(ctx, "alert") {
				if e.Body != nil {
					got <- e.Body
				}
			}
		})
		defer listening.Wait()
		defer c.Close()
	}
	time.Sleep(50 * time.Millisecond) // registered; if not, the next attempt is told, and all are alike
	var initiating sync.WaitGroup
	defer initiating.Wait()
	defer cancel()
	initiating.Go(func() { _ = left.gw.Initiate(ctx, "gw", "net") })
	for s, typ := range map[*side]string{left: "local-auth-failed", right: "peer-auth-failed"} {
		r := <-records[s]
		log, ok := gateway.Describe(r)
		if !ok {
			t.Fatal("the log does not show it")
		}
		var attrs []string
		for _, a := range log.Attrs {
			if a.Value.Kind() == slog.KindString {
				attrs = append(attrs, a.Key+"="+a.Value.String())
			}
		}
		if !slices.Equal(attrs, facts(r)) {
			t.Errorf("the log has\n%q\nthe record\n%q", attrs, facts(r))
		}
		var alert *conf.Section
		select {
		case alert = <-alerts[s]:
		case <-ctx.Done():
			t.Fatal("no alert")
		}
		sameAs(t, "alert", r, fieldsOf(alert))
		if alert.Text("type") != typ {
			t.Errorf("alert of type %s, want %s", alert.Text("type"), typ)
		}
		if sa := alert.Sub("ike-sa"); sa == nil || sa.Sub("gw") == nil || sa.Sub("gw").Text("remote-host") != r.Remote.Addr().String() {
			t.Errorf("alert without its IKE SA: %s", alert)
		}
		x := s.explain(ctx, "gw")
		if len(x.Records) == 0 {
			t.Fatalf("explain has %d records", len(x.Records))
		}
		sameAs(t, "explain", r, x.Records[0].Fields)
		if len(x.Changes) == 0 || x.Changes[0].Option != "secrets.ike-1.secret" || x.State == explain.Up {
			t.Errorf("%+v", x)
		}
	}
}

// explain asks for one report.
func (s *side) explain(ctx context.Context, name string) explain.Report {
	s.t.Helper()
	msg := conf.New("")
	msg.Set("name", name)
	var out []explain.Report
	if _, err := s.client.Stream(ctx, "explain", "explain", msg, func(m *conf.Section) error {
		out = append(out, explain.Parse(m)...)
		return nil
	}); err != nil || len(out) != 1 {
		s.t.Fatal(fmt.Sprint(len(out), " reports: ", err))
	}
	return out[0]
}
