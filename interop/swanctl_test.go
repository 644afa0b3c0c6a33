package interop_test

import (
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"adit/interop/lab"
)

// Every subcommand of swanctl answers about adit as it does about charon in the same
// situation: the end's code, the keys and their order, the values, the words of errors,
// and the order of the events. What differs is in the table of differences.
func TestSwanctl(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var mu sync.Mutex
	said := map[kind][]saying{}
	t.Run("runs", func(t *testing.T) {
		// A replaced child stays a while, in charon for ever with 0.
		among(t, []pair{{strongSwan, strongSwan}, {adit, strongSwan}}, settings{middle: lab.Bridge, noAttach: true, charon: "delete_rekeyed_delay = 1\nmake_before_break = yes\n"}, func(t *testing.T, p *path) {
			c := &console{path: p}
			c.script(f)
			mu.Lock()
			defer mu.Unlock()
			said[kind(kindOf(p.left))] = c.said
		})
	})
	if len(said) != 2 {
		return // a run failed, or was not asked for
	}
	charon, ours := said[strongSwan], said[adit]
	if len(charon) != len(ours) || len(charon) < 300 {
		t.Fatalf("charon was asked %d times, adit %d times", len(charon), len(ours))
	}
	commands(t, charon)
	used := map[*regexp.Regexp]bool{}
	for i, a := range charon {
		b := ours[i]
		if a.String() != b.String() {
			t.Fatalf("call %d is %v of charon, %v of adit", i, a, b)
		}
		if i > 0 && a.afterRaw(charon[i-1]) {
			// The call before asked for the same as --raw: the same tree on one line.
			for _, k := range [][]saying{charon, ours} {
				if raw, again := k[i-1].normal(), k[i].raw(); raw != again && k[i].Code == 0 {
					t.Errorf("%v of %s:\n%s\nand pretty\n%s", k[i-1], map[bool]kind{true: strongSwan, false: adit}[&k[0] == &charon[0]], raw, again)
				}
			}
		}
		if i+1 < len(charon) && charon[i+1].afterRaw(a) && a.Code == 0 {
			continue
		}
		compare(t, a, b, used)
	}
	for i := range differences {
		for _, re := range []*regexp.Regexp{differences[i].charon, differences[i].adit} {
			if re != nil && !used[re] {
				t.Errorf("the difference %q is none any more: nobody said %v; take it out of the table", differences[i].why, re)
			}
		}
	}
}

// commands demands that the script has every command that swanctl has.
func commands(t *testing.T, said []saying) {
	t.Helper()
	out, _ := exec.Command("swanctl", "--help").CombinedOutput()
	all := regexp.MustCompile(`(?m)^ +swanctl (--[\w-]+)`).FindAllStringSubmatch(string(out), -1)
	if len(all) < 25 {
		t.Fatalf("swanctl --help: %s", out)
	}
	for _, m := range all {
		if m[1] != "--help" && !slices.ContainsFunc(said, func(s saying) bool { return s.Args[0] == m[1] }) {
			t.Errorf("nobody asked swanctl %s", m[1])
		}
	}
}

// compare holds two answers against each other.
func compare(t *testing.T, charon, ours saying, used map[*regexp.Regexp]bool) {
	t.Helper()
	a, b := charon.lines(), ours.lines()
	if charon.Args[0] == "--log" {
		if !charon.pretty() { // the same lines in other forms
			return
		}
		a, b = charon.marked(strongSwan), ours.marked(adit)
	}
	for i := range differences {
		d := &differences[i]
		if !d.step.MatchString(charon.String()) {
			continue
		}
		var hit bool
		if a, hit = d.strip(a, d.charon); hit {
			used[d.charon] = true
		}
		if b, hit = d.strip(b, d.adit); hit {
			used[d.adit] = true
		}
	}
	if charon.Code != ours.Code {
		t.Errorf("%v: ended with %d under charon, %d under adit", charon, charon.Code, ours.Code)
	}
	if !slices.Equal(a, b) {
		t.Errorf("%v:\n%s", charon, diff(a, b))
	}
}

// diff shows lines of either alone, in their order.
func diff(a, b []string) string {
	// The longest common subsequence: texts are short.
	n := make([][]int, len(a)+1)
	for i := range n {
		n[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				n[i][j] = n[i+1][j+1] + 1
			} else {
				n[i][j] = max(n[i+1][j], n[i][j+1])
			}
		}
	}
	var out strings.Builder
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && n[i+1][j] >= n[i][j+1]:
			fmt.Fprintf(&out, "  charon: %s\n", a[i])
			i++
		default:
			fmt.Fprintf(&out, "  adit:   %s\n", b[j])
			j++
		}
	}
	return out.String()
}

// normal is the answer without what differs between any two runs.
func (s saying) normal() string {
	text := strings.TrimSpace(s.Text)
	for _, n := range normals {
		text = n.find.ReplaceAllString(text, n.put)
	}
	// charon has secrets in the order of their hashes.
	text = regexp.MustCompile(`keys=\[[^\]]*\]`).ReplaceAllStringFunc(text, func(list string) string {
		words := strings.Fields(list[len("keys=[") : len(list)-1])
		slices.Sort(words)
		return "keys=" + fmt.Sprint(words)
	})
	return text
}

// landmarks are the lines of a log that tell the same in the words of both daemons, and
// what they stand for.
var landmarks = []struct {
	charon, adit *regexp.Regexp
	put          string
}{
	{regexp.MustCompile(`^IKE_SA (\w+)\[\d+\] established between (\S+\])\.\.\.(\S+\])$`), regexp.MustCompile(`^IKE SA (\w+)\[\d+\] established between (\S+) and (\S+) with`), "IKE SA $1 up, $2, $3"},
	{regexp.MustCompile(`^IKE_SA (\w+)\[\d+\] rekeyed between`), regexp.MustCompile(`^IKE SA (\w+)\[\d+\] replaces`), "IKE SA $1 rekeyed"},
	{regexp.MustCompile(`^CHILD_SA (\w+)\{\d+\} established with SPIs [0-9a-f]{8}_i [0-9a-f]{8}_o and TS (\S+) === (\S+)$`),
		regexp.MustCompile(`^Child SA (\w+)\{\d+\} is up: .* SPIs [0-9a-f]{8} in and [0-9a-f]{8} out, (\S+) to (\S+)$`), "Child SA $1 up, $2, $3"},
	{regexp.MustCompile(`^outbound CHILD_SA (\w+)\{\d+\} established`), regexp.MustCompile(`^Child SA (\w+)\{\d+\} replaces`), "Child SA $1 rekeyed"},
}

// marked are the landmarks of a log, in order, and the keys that its events have.
func (s saying) marked(k kind) (out []string) {
	keys := map[string]bool{}
	for _, event := range strings.Split(s.Text, "\n}\n") {
		var names []string
		for l := range strings.Lines(event) {
			key, msg, ok := strings.Cut(strings.TrimSpace(l), " = ")
			if !ok {
				continue
			}
			names = append(names, key)
			for _, m := range landmarks {
				re := map[kind]*regexp.Regexp{strongSwan: m.charon, adit: m.adit}[k]
				if i := re.FindStringSubmatchIndex(msg); key == "msg" && i != nil {
					out = append(out, string(re.ExpandString(nil, m.put, msg, i)))
				}
			}
		}
		keys[strings.Join(names, " ")] = true
	}
	return append(out, slices.Sorted(maps.Keys(keys))...)
}

// lines are the normal answer's; of a tree they are the path and value of each field.
func (s saying) lines() (out []string) {
	var path []string
	for l := range strings.Lines(s.normal()) {
		if !s.pretty() {
			if l = strings.TrimRight(l, "\n"); l != "" {
				out = append(out, l)
			}
			continue
		}
		l = strings.TrimSpace(l)
		at := strings.Join(path, "/")
		switch {
		case l == "":
		case (l == "}" || l == "]") && len(path) > 0:
			path = path[:len(path)-1]
		case l == "{": // a section without a name
			out = append(out, at+"/ {")
			path = append(path, "")
		case strings.HasSuffix(l, " {") || strings.HasSuffix(l, " = ["):
			if len(path) > 0 || !strings.HasSuffix(l, " event {") { // an event is told by its name's lines
				out = append(out, strings.TrimPrefix(at+"/"+l, "/"))
			}
			path = append(path, strings.TrimSuffix(strings.TrimSuffix(l, " {"), " = ["))
		default:
			out = append(out, strings.TrimPrefix(at+"/"+l, "/"))
		}
	}
	if slices.ContainsFunc(s.Args, func(a string) bool { return slices.Contains([]string{"--list-certs", "--load-all", "--load-creds"}, a) }) {
		slices.Sort(out) // the order of charon's certificates and secrets is by chance
	}
	return out
}

// afterRaw tells that a call asks for the same as the one before, which was --raw.
func (s saying) afterRaw(before saying) bool {
	if !strings.HasPrefix(s.Args[0], "--list") && s.Args[0] != "--counters" && s.Args[0] != "--monitor-sa" {
		return false
	}
	n := len(s.Args) - 1
	return s.pretty() && len(before.Args) == n+1 && before.Args[n] == "--raw" && slices.Equal(before.Args[:n], s.Args[:n])
}

// raw is a pretty answer in the form that --raw gives.
func (s saying) raw() string {
	var raw strings.Builder
	open, top, list := true, 0, false
	for l := range strings.Lines(s.normal()) {
		if l = strings.TrimSpace(l); l == "{" {
			l = " {" // a section without a name
		}
		switch {
		case l == "":
			continue
		case l == "}":
			top--
		case l == "]":
			list = false
		case !open && top == 0:
			raw.WriteByte('\n')
		case !open:
			raw.WriteByte(' ')
		}
		if !list {
			l = strings.Replace(l, " = ", "=", 1)
		}
		raw.WriteString(l)
		open = strings.HasSuffix(l, "{") || strings.HasSuffix(l, "[")
		if strings.HasSuffix(l, "{") {
			top++
		} else if strings.HasSuffix(l, "=[") {
			list = true
		}
	}
	return raw.String()
}

// normals are what differs between any two runs.
var normals = func() (list []struct {
	find *regexp.Regexp
	put  string
}) {
	for _, n := range [][2]string{
		{`(\b(?:uniqueid|reqid|ike-id|ikesa-uniqueid)(?: = |=))[1-9]\d*\b`, "${1}N"},
		{`(\b(?:initiator|responder)-spi(?: = |=))[0-9a-f]{16}\b`, "${1}SPI"},
		{`(\bspi-(?:in|out)(?: = |=))[0-9a-f]{8}\b`, "${1}SPI"},
		{`(\b(?:established|rekey-time|reauth-time|life-time|install-time|use-in|use-out)(?: = |=))\d+\b`, "${1}TIME"},
		{`/tmp/adit-lab-\w+/l-\w+/`, "DIR/"},
		// Of --list-sas.
		{`[0-9a-f]{16}_i(\*?) [0-9a-f]{16}_r(\*?)`, "SPI_i${1} SPI_r${2}"},
		{`(\w+): #\d+`, "${1}: #N"},
		{`\breqid \d+`, "reqid N"},
		{`established \d+s ago`, "established TIME ago"},
		{`installed \d+s ago, rekeying in \d+s, expires in \d+s`, "installed TIME ago, rekeying in TIME, expires in TIME"},
		{`(rekeying|reauthentication|expires) in \d+s`, "${1} in TIME"},
		{`(in |out) [0-9a-f]{8}`, "${1} SPI"},
		{`(\b[a-z]+)-\d+( \{\s*name)`, "${1}-N${2}"},
		// Of --stats.
		{`(uptime: |running = |running=)\d+ seconds?`, "${1}TIME"},
		{`since(,? |=| = )\w{3} \d\d \d\d:\d\d:\d\d \d{4}`, "since${1}DATE"},
	} {
		list = append(list, struct {
			find *regexp.Regexp
			put  string
		}{regexp.MustCompile(n[0]), n[1]})
	}
	return list
}()
