package explain

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"adit/conf"
	"adit/ike"
	"adit/internal/gateway"
)

// State is how it stands with what was asked for.
type State string

// The states.
const (
	Up      State = "up"
	Partly  State = "partly"  // some of the children are
	Trying  State = "trying"  // it is being set up, or will be tried again
	Waiting State = "waiting" // for traffic, or for the peer
	Down    State = "down"    // and nothing will change that by itself
	Unknown State = "unknown" // nothing of that name is loaded
)

// Report is the answer.
type Report struct {
	Name    string
	State   State
	Verdict string   // one sentence
	Facts   []string // what is known, in sentences
	Changes []Change // the likeliest first; empty: nothing of the configuration is to be changed
	Records []Record // the refusals behind it, the newest first
}

// Change is an option to change, or another thing to do where Option is empty.
type Change struct {
	Text   string
	Option string // its path
	At     string // file:line of it or, if it is not given, of its section
}

// Record is a refusal with its facts, as the log and the alert have them.
type Record struct {
	Fields      []ike.Field
	First, Last time.Time
	Count       int
	Mended      time.Time // zero: not
}

func record(r gateway.Refusal) Record {
	return Record{Fields: r.Record.Fields(), First: r.First, Last: r.Last, Count: r.Count, Mended: r.Mended}
}

// Section is the report as a body of VICI, under its name.
func (r Report) Section() *conf.Section {
	m := conf.New("")
	s := m.Add(r.Name)
	s.Set("state", string(r.State))
	s.Set("verdict", r.Verdict)
	s.SetList("facts", r.Facts...)
	changes := s.Add("changes")
	for i, c := range r.Changes {
		x := changes.Add(strconv.Itoa(i + 1))
		x.Set("text", c.Text)
		if c.Option != "" {
			x.Set("option", c.Option)
		}
		if c.At != "" {
			x.Set("at", c.At)
		}
	}
	records := s.Add("records")
	for i, c := range r.Records {
		x := records.Add(strconv.Itoa(i + 1))
		x.Set("first", stamp(c.First))
		x.Set("last", stamp(c.Last))
		x.Setf("count", "%d", c.Count)
		if !c.Mended.IsZero() {
			x.Set("mended", stamp(c.Mended))
		}
		facts := x.Add("record")
		for _, f := range c.Fields {
			if f.List != nil {
				facts.SetList(f.Name, f.List...)
			} else {
				facts.Set(f.Name, f.Value)
			}
		}
	}
	return m
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Parse reads what Section made.
func Parse(m *conf.Section) (out []Report) {
	for s := range m.Sections() {
		r := Report{Name: s.Name, State: State(s.Text("state")), Verdict: s.Text("verdict")}
		if v, ok := s.Get("facts"); ok {
			r.Facts = v.Strings()
		}
		for x := range sections(s, "changes") {
			r.Changes = append(r.Changes, Change{Text: x.Text("text"), Option: x.Text("option"), At: x.Text("at")})
		}
		for x := range sections(s, "records") {
			c := Record{First: moment(x.Text("first")), Last: moment(x.Text("last")), Mended: moment(x.Text("mended"))}
			c.Count, _ = strconv.Atoi(x.Text("count"))
			if facts := x.Sub("record"); facts != nil {
				for v := range facts.Values() {
					f := ike.Field{Name: v.Key, Value: v.Text}
					if v.IsList {
						f.List = v.Strings()
						f.Value = strings.Join(f.List, ", ")
					}
					c.Fields = append(c.Fields, f)
				}
			}
			r.Records = append(r.Records, c)
		}
		out = append(out, r)
	}
	return out
}

func sections(s *conf.Section, name string) func(func(*conf.Section) bool) {
	if sub := s.Sub(name); sub != nil {
		return sub.Sections()
	}
	return func(func(*conf.Section) bool) {}
}

func moment(text string) time.Time {
	t, _ := time.Parse(time.RFC3339, text)
	return t
}

// Text is the report for people, in lines of at most width characters where words allow it.
func (r Report) Text(width int) string {
	var b strings.Builder
	wrap(&b, width, "", "", r.Verdict)
	for _, f := range r.Facts {
		wrap(&b, width, "  ", "  ", f)
	}
	for i, c := range r.Changes {
		head := "  or: "
		if i == 0 {
			b.WriteString("change this\n")
			head = "  "
		}
		wrap(&b, width, head, "      ", c.Text)
		switch {
		case c.At != "" && c.Option != "":
			wrap(&b, width, "      ", "      ", c.At+": "+c.Option)
		case c.Option != "":
			wrap(&b, width, "      ", "      ", c.Option)
		}
	}
	return b.String()
}

// wrap writes a text in lines, the first one behind head, the others behind more.
func wrap(b *strings.Builder, width int, head, more, text string) {
	line := head
	empty := true
	for word := range strings.FieldsSeq(text) {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			fmt.Fprintln(b, line)
			line, empty = more, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	fmt.Fprintln(b, line)
}

// ago is a span for people.
func ago(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
