package tunnel

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
)

// panel is one chart: a bar a contender, as long as its median, with a line from the
// least to the largest value.
type panel struct {
	title, key, format string
	less               bool // less is better
}

var panels = []panel{
	{"TCP, 1 stream, Gbit/s", "tcp1_lr.gbit_s", "%.2f", false},
	{"TCP, 4 streams, Gbit/s", "tcp4_lr.gbit_s", "%.2f", false},
	{"UDP 64 bytes, 1000 packets/s at ≤ 1 % loss", "udp64.kpps", "%.0f", false},
	{"UDP 1300 bytes, 1000 packets/s at ≤ 1 % loss", "udp1300.kpps", "%.0f", false},
	{"Round trip, idle, median, µs (less is better)", "rtt_idle.p50_us", "%.0f", true},
	{"Round trip beside TCP, median, µs (less is better)", "rtt_loaded.p50_us", "%.0f", true},
	{"Gateways' CPU seconds per GB (less is better)", "tcp1_lr.cpu_s_per_gb", "%.2f", true},
	{"Memory of a gateway, MB (less is better)", "rss.mb", "%.0f", true},
}

// Measures of the drawing, in pixels.
const (
	svgWidth, svgName, svgBar = 440, 100, 270
	svgRow, svgHead, svgGap   = 20, 30, 16
	svgColumns                = 2
	svgFoot                   = 34
)

// svg draws all panels, two in a row.
func (r *Result) svg() []byte {
	var body bytes.Buffer
	x, y, tallest := 0, 0, 0
	for i, p := range panels {
		x = i % svgColumns * svgWidth
		if x == 0 {
			y, tallest = y+tallest, 0
		}
		tallest = max(tallest, r.panel(&body, p, x, y))
	}
	height := y + tallest + svgFoot
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="12">`+"\n", svgColumns*svgWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", svgColumns*svgWidth, height)
	b.Write(body.Bytes())
	m := r.Machine
	foot := fmt.Sprintf("%s, %d cores for hosts and gateways, %s; medians of %d rounds, lines from least to most; %s", m.CPU, m.Cores, m.Kernel, r.Options.Rounds, r.Started.Format("2006-01-02"))
	fmt.Fprintf(&b, `<text x="12" y="%d" font-size="10" fill="#555555">%s</text>`+"\n</svg>\n", height-12, escape(foot))
	return b.Bytes()
}

// panel draws one and returns its height.
func (r *Result) panel(b *bytes.Buffer, p panel, x, y int) int {
	most := 0.0
	for _, c := range r.Contenders {
		most = max(most, c.Medians[p.key].Max)
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", x+12, y+20, escape(p.title))
	row := y + svgHead
	for _, c := range r.Contenders {
		s, ok := c.Medians[p.key]
		if !ok || most <= 0 {
			continue
		}
		color := "#9aa5b1"
		switch {
		case c.Name == "adit":
			color = "#1f6feb"
		case strings.HasPrefix(c.Name, "adit"):
			color = "#8db5f5"
		}
		scale := func(v float64) float64 { return v / most * svgBar }
		left := float64(x + svgName)
		fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, x+svgName-6, row+14, escape(c.Name))
		fmt.Fprintf(b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`, left, row+2, max(scale(s.Median), 0.5), svgRow-5, color)
		fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%[3]d" stroke="#24292f"/>`, left+scale(s.Min), left+scale(s.Max), row+svgRow/2-1)
		fmt.Fprintf(b, `<text x="%.1f" y="%d">%s</text>`+"\n", left+scale(s.Max)+6, row+14, escape(fmt.Sprintf(p.format, s.Median)))
		row += svgRow
	}
	return row - y + svgGap
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes everything
	return b.String()
}
