package tunnel

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/internal/bench/traffic"
)

func TestOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"unknown":  {Contenders: []string{"plain", "pptp"}},
		"twice":    {Contenders: []string{"plain", "plain"}},
		"rounds":   {Rounds: MaxRounds + 1},
		"negative": {Rounds: -1},
		"short":    {Length: time.Millisecond},
		"long":     {Length: time.Hour},
	} {
		if err := o.complete(); err == nil {
			t.Errorf("%s: %+v was taken", name, o)
		}
	}
	o := Options{Quick: true}
	if err := o.complete(); err != nil || o.Rounds != 1 || o.Length >= time.Second || o.Binary == "" || len(o.Contenders) == 0 {
		t.Errorf("%+v %v", o, err)
	}
}

// In as many rounds as twice their number, all contenders have had every place equally
// often.
func TestOrderIsFair(t *testing.T) {
	list := contenders()
	places := map[string][]int{}
	for round := range 2 * len(list) {
		for place, c := range order(list, round) {
			places[c.name] = append(places[c.name], place)
		}
	}
	for name, p := range places {
		slices.Sort(p)
		if len(p) != 2*len(list) || len(slices.Compact(p)) != len(list) {
			t.Errorf("%s: %v", name, p)
		}
	}
	if order(list, 0)[0].name == order(list, 1)[0].name {
		t.Error("two rounds begin alike")
	}
}

func TestTried(t *testing.T) {
	const s = int64(time.Second)
	for name, c := range map[string]struct {
		sent traffic.Sent
		got  traffic.Arrived
		want trial
	}{
		"all":            {traffic.Sent{Packets: 1000, Took: s}, traffic.Arrived{Packets: 1000, FirstAt: 1, LastAt: s - 1}, trial{Asked: 900, Sent: 1000, Received: 1000}},
		"a tenth lost":   {traffic.Sent{Packets: 1000, Took: s}, traffic.Arrived{Packets: 900, FirstAt: 1, LastAt: s}, trial{Asked: 900, Sent: 1000, Received: 900, Loss: 0.1}},
		"late":           {traffic.Sent{Packets: 1000, Took: s}, traffic.Arrived{Packets: 1000, FirstAt: s, LastAt: 3 * s}, trial{Asked: 900, Sent: 1000, Received: 500}},
		"nothing sent":   {traffic.Sent{}, traffic.Arrived{}, trial{Asked: 900, Loss: 1}},
		"nothing came":   {traffic.Sent{Packets: 10, Took: s}, traffic.Arrived{}, trial{Asked: 900, Sent: 10, Loss: 1}},
		"more than sent": {traffic.Sent{Packets: 10, Took: s}, traffic.Arrived{Packets: 11, LastAt: 1}, trial{Asked: 900, Sent: 10, Received: 11}},
	} {
		got := tried(900, c.sent, c.got)
		if math.Abs(got.Loss-c.want.Loss) > 1e-9 || got.Asked != c.want.Asked || math.Abs(got.Sent-c.want.Sent) > 1e-6 || math.Abs(got.Received-c.want.Received) > 1e-6 {
			t.Errorf("%s: %+v, not %+v", name, got, c.want)
		}
	}
}

func TestQuantile(t *testing.T) {
	list := make([]int64, 100)
	for i := range list {
		list[i] = int64(i + 1)
	}
	for q, want := range map[float64]int64{0: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := quantile(list, q); got != want {
			t.Errorf("%v: %d, not %d", q, got, want)
		}
	}
	if quantile(list[:1], 0.99) != 1 || median([]float64{3, 1, 2}) != 2 || median([]float64{4, 1, 2, 3}) != 2.5 {
		t.Error("short lists")
	}
}

// The gateways' time is that of all given processes, with their threads.
func TestCPU(t *testing.T) {
	cat := func() (*exec.Cmd, io.WriteCloser) {
		cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; echo done; read x")
		out, err1 := cmd.StdoutPipe()
		in, err2 := cmd.StdinPipe()
		if err := errors.Join(err1, err2, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		return cmd, in
	}
	a, endA := cat()
	b, endB := cat()
	m := &bench{run: &running{pids: []int{a.Process.Pid, b.Process.Pid}}}
	got, err := m.cpu()
	if err != nil {
		t.Fatal(err)
	}
	m.seen()
	_, _ = endA.Close(), endB.Close()
	_, _ = a.Wait(), b.Wait()
	var want time.Duration
	for _, c := range []*exec.Cmd{a, b} {
		want += c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	}
	if got <= 0 || got > want+tickError || got < want/2-tickError {
		t.Errorf("%v, in the end %v", got, want)
	}
	if m.rss < 100<<10 {
		t.Errorf("%d octets resident", m.rss)
	}
	if _, err := m.cpu(); err == nil {
		t.Error("processes that ended still have a clock")
	}
}

// result is one with values of adit and others; each of the three rounds differs a
// little.
func result() *Result {
	o := Options{Rounds: 3, Length: time.Second, Contenders: []string{"plain", "adit", "wireguard-go", "libipsec", "secgw"}}
	r := newResult(&o)
	r.Machine = Machine{CPU: "A & B <processor>", Cores: 2, Kernel: "Linux 6"}
	for _, n := range o.Contenders {
		r.Contenders = append(r.Contenders, Contender{Name: n, What: n, Medians: map[string]Stat{}})
	}
	r.contender("secgw").Missing = "not installed"
	add := func(name, measure, value string, v float64) {
		for round := range 3 {
			r.Samples = append(r.Samples, Sample{Round: round + 1, Contender: name, Measure: measure, Values: map[string]float64{value: v * (0.9 + float64(round)/10)}})
		}
	}
	for name, gbit := range map[string]float64{"plain": 16, "adit": 6, "wireguard-go": 2.4, "libipsec": 0.5} {
		add(name, "tcp1_lr", "gbit_s", gbit)
		add(name, "udp64", "kpps", gbit*50)
		add(name, "rtt_idle", "p50_us", 600/gbit)
	}
	add("adit", "tcp1_lr", "cpu_s_per_gb", 1.2)
	add("wireguard-go", "tcp1_lr", "cpu_s_per_gb", 5)
	add("adit", "rss", "mb", 30)
	for i := range r.Samples {
		if r.Samples[i].Contender == "libipsec" && r.Samples[i].Measure == "udp64" {
			r.Samples[i].Disturbance.Load = true
		}
	}
	r.Failures = append(r.Failures, Failure{2, "libipsec", "it fell over\nand said why"})
	r.finish()
	return r
}

func TestMedians(t *testing.T) {
	r := result()
	if s, ok := r.stat("adit", "tcp1_lr.gbit_s"); !ok || math.Abs(s.Median-6) > 1e-9 || math.Abs(s.Min-5.4) > 1e-9 || math.Abs(s.Max-6.6) > 1e-9 || s.N != 3 || s.Noisy != 0 {
		t.Errorf("%+v", s)
	}
	if s, _ := r.stat("libipsec", "udp64.kpps"); s.Noisy != 3 {
		t.Errorf("%+v", s)
	}
	if _, ok := r.stat("secgw", "tcp1_lr.gbit_s"); ok {
		t.Error("who was not there has a value")
	}
}

func TestGoals(t *testing.T) {
	r := result()
	want := []struct {
		what    string
		must    bool
		verdict string
	}{
		{"TCP, one stream, of wireguard-go's", true, "met"},
		{"TCP, one stream, of wireguard-go's", false, "NOT MET"},
		{"TCP, one stream, of kernel-libipsec's", true, "met"},
		{"TCP, one stream, of ipsec-secgw's", true, "not measured"},
		{"UDP, 64 bytes, of wireguard-go's", true, "NOT MET"},
		{"UDP, 1300 bytes, of wireguard-go's", false, "not measured"},
		{"CPU time per GB, of wireguard-go's", true, "met"},
		{"CPU time per GB, of wireguard-go's", false, "met"},
		{"idle round trip, median, of wireguard-go's", true, "met"},
		{"idle round trip, p99, of wireguard-go's", true, "not measured"},
		{"memory of the process, MB", true, "met"},
	}
	for _, w := range want {
		i := slices.IndexFunc(r.Goals, func(g Goal) bool { return g.What == w.what && g.Must == w.must })
		if i < 0 || !strings.HasSuffix(r.Goals[i].String(), "  "+w.verdict) {
			t.Errorf("%s: not %q in %v", w.what, w.verdict, r.Goals)
		}
	}
	if len(r.Goals) != 13 {
		t.Errorf("%d goals", len(r.Goals))
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	result().print(&b)
	text := b.String()
	for _, want := range []string{"A & B <processor>, 2 cores", "16.00", "6.00", "300", "25!", "1.20", "30", "not installed", "libipsec failed in round 2: it fell over\n", "is    2.5  met"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for line := range strings.Lines(text) {
		if n := len([]rune(line)); n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// The drawing is XML with a bar for every value, none wider than it may be.
func TestSVG(t *testing.T) {
	d := xml.NewDecoder(bytes.NewReader(result().svg()))
	bars, texts := 0, ""
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := tok.(type) {
		case xml.StartElement:
			if e.Name.Local == "rect" {
				bars++
			}
		case xml.CharData:
			texts += string(e)
		}
	}
	if want := 1 + 4 + 4 + 4 + 2 + 1; bars != want { // the paper, TCP, UDP, round trips, CPU, memory
		t.Errorf("%d bars, not %d", bars, want)
	}
	if !strings.Contains(texts, "A & B <processor>") || !strings.Contains(texts, "wireguard-go") {
		t.Errorf("%s", texts)
	}
}

// What adit failed at is an error of the program, what others failed at is told.
func TestPublish(t *testing.T) {
	dir := t.TempDir()
	o := &Options{Out: io.Discard, JSON: filepath.Join(dir, "r.json"), SVG: filepath.Join(dir, "r.svg")}
	r := result()
	if err := r.publish(o); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(o.JSON)
	if err != nil {
		t.Fatal(err)
	}
	var again Result
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&again); err != nil || again.Schema != Schema || len(again.Samples) != len(r.Samples) || len(again.Goals) != len(r.Goals) {
		t.Errorf("%v", err)
	}
	r.Failures = append(r.Failures, Failure{1, "adit", "it fell over"})
	if err := r.publish(o); err == nil {
		t.Error("no error though adit failed")
	}
	o.JSON = filepath.Join(dir, "nowhere", "r.json")
	if err := result().publish(o); err == nil {
		t.Error("no error though the file could not be written")
	}
}

func TestProgress(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&b, true, 40)
	p.at("round 1 of 2, adit")
	p.step("TCP")
	p.step("UDP")
	p.reach(20)
	p.end()
	for _, line := range strings.Split(b.String(), "\r") {
		line = strings.TrimSuffix(line, "\x1b[K")
		if len([]rune(line)) > 79 {
			t.Errorf("%q", line)
		}
	}
	if s := b.String(); !strings.Contains(s, "50 % round 1 of 2, adit: UDP") || !strings.Contains(s, "[##########..........]") || !strings.HasSuffix(s, "\r\x1b[K") {
		t.Errorf("%q", s)
	}
	b.Reset()
	p = newProgress(&b, false, 40)
	p.at("round 1 of 2, adit")
	p.step("TCP")
	p.end()
	if b.String() != "round 1 of 2, adit\n" {
		t.Errorf("%q", b.String())
	}
	newProgress(nil, true, 0).at("nowhere")
}
