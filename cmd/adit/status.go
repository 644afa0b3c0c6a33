package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"adit/conf"
	"adit/vici"
)

func statusCommand() *cobra.Command {
	var asJSON bool
	var measure time.Duration
	cmd := &cobra.Command{
		Use: "status [NAME]", Short: "Show connections, IKE SAs and Child SAs",
		Long: `Show IKE SAs and Child SAs with their addresses, algorithms, ages, bytes and rates,
what is configured and not up, and why packets were dropped. With NAME only the
connection or child of that name. Rates are measured while the command waits.`,
		Example: "  adit status\n  adit status gw\n  adit status --json | jq '.sas[].\"child-sas\"'",
		Args:    cobra.MaximumNArgs(1), ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			st, err := readStatus(cmd.Context(), c)
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(st)
			}
			v := viewOf(st)
			if measure > 0 && len(v.sas) > 0 {
				select {
				case <-time.After(measure):
				case <-cmd.Context().Done():
					return cmd.Context().Err()
				}
				if st, err = readStatus(cmd.Context(), c); err != nil {
					return err
				}
				before := v
				v = viewOf(st)
				v.rate(before)
			}
			if len(args) == 1 && !v.only(args[0]) {
				if err = unknownName(cmd.Context(), args[0]); err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), args[0], "is not up")
				}
				return err
			}
			v.print(cmd.OutOrStdout())
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs: VICI's own keys and values")
	cmd.Flags().DurationVar(&measure, "measure", 300*time.Millisecond, "how long to measure rates; 0: none are shown")
	return cmd
}

// status is what `adit status --json` prints: VICI's own keys and values.
type status struct {
	Daemon      map[string]any   `json:"daemon"`
	Stats       map[string]any   `json:"stats"`
	Connections []map[string]any `json:"connections"`
	SAs         []map[string]any `json:"sas"`

	at time.Time // when it was read
}

func readStatus(ctx context.Context, c *vici.Client) (*status, error) {
	st := &status{Connections: []map[string]any{}, SAs: []map[string]any{}, at: time.Now()}
	for _, q := range []struct {
		command string
		into    *map[string]any
	}{{"version", &st.Daemon}, {"stats", &st.Stats}} {
		m, err := c.Call(ctx, q.command, conf.New(""))
		if err != nil {
			return nil, err
		}
		*q.into = asMap(m)
	}
	for _, q := range []struct {
		command, event string
		into           *[]map[string]any
	}{{"list-conns", "list-conn", &st.Connections}, {"list-sas", "list-sa", &st.SAs}} {
		_, err := c.Stream(ctx, q.command, q.event, nil, func(body *conf.Section) error {
			for sec := range body.Sections() {
				m := asMap(sec)
				m["name"] = sec.Name
				*q.into = append(*q.into, m)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return st, nil
}

// asMap turns a message into what JSON can show. Sections become objects, lists arrays.
func asMap(s *conf.Section) map[string]any {
	m := map[string]any{}
	for e := range s.All() {
		switch {
		case e.Section != nil:
			m[e.Section.Name] = asMap(e.Section)
		case e.Value.IsList:
			m[e.Value.Key] = append([]string{}, e.Value.List...)
		default:
			m[e.Value.Key] = e.Value.Text
		}
	}
	return m
}

// view is a status in the terms in which people read it.
type view struct {
	at     time.Time
	header string
	drops  string
	sas    []viewSA
	idle   []viewIdle
}

type viewSA struct {
	name, id, state, version   string
	local, remote              string // identity@address:port
	suite                      string
	age, rekey, reauth         time.Duration // negative: unknown or never
	localVIPs, remoteVIPs      string
	children                   []viewChild
	bytesIn, bytesOut          uint64
	rateIn, rateOut, rateTotal float64 // bytes a second
}

type viewChild struct {
	name, id, state, mode, suite string
	local, remote                string
	age, rekey                   time.Duration
	bytesIn, bytesOut            uint64
	rateIn, rateOut              float64 // bytes a second; negative: not measured
}

// viewIdle is a configured child without a Child SA.
type viewIdle struct{ conn, child, state, local, remote, mode string }

func viewOf(st *status) *view {
	v := &view{at: st.at, header: fmt.Sprintf("adit %v, up %v, %v IKE SAs (%v half-open)", st.Daemon["version"], dig(st.Stats, "uptime", "running"),
		dig(st.Stats, "ikesas", "total"), dig(st.Stats, "ikesas", "half-open"))}
	if drops, _ := st.Stats["drops"].(map[string]any); drops != nil {
		for _, k := range sortedKeys(drops) {
			if drops[k] != "0" {
				v.drops += fmt.Sprintf(", %s %v", k, drops[k])
			}
		}
	}
	up := map[[2]string]bool{}
	for _, m := range st.SAs {
		sa := viewSA{name: text(m, "name"), id: text(m, "uniqueid"), state: text(m, "state"), version: "IKEv" + text(m, "version"),
			local: endpoint(m, "local"), remote: endpoint(m, "remote"), suite: suiteOf(m),
			age: span(m, "established"), rekey: span(m, "rekey-time"), reauth: span(m, "reauth-time"),
			localVIPs: words(m["local-vips"]), remoteVIPs: words(m["remote-vips"])}
		children, _ := m["child-sas"].(map[string]any)
		for _, k := range sortedKeys(children) {
			c := children[k].(map[string]any)
			ch := viewChild{name: text(c, "name"), id: text(c, "uniqueid"), state: text(c, "state"), mode: text(c, "mode"), suite: suiteOf(c),
				local: words(c["local-ts"]), remote: words(c["remote-ts"]), age: span(c, "install-time"), rekey: span(c, "rekey-time"),
				bytesIn: count(c, "bytes-in"), bytesOut: count(c, "bytes-out"), rateIn: -1, rateOut: -1}
			if text(c, "encap") == "yes" {
				ch.mode += " in UDP"
			}
			up[[2]string{sa.name, ch.name}] = true
			sa.bytesIn, sa.bytesOut = sa.bytesIn+ch.bytesIn, sa.bytesOut+ch.bytesOut
			sa.children = append(sa.children, ch)
		}
		v.sas = append(v.sas, sa)
	}
	for _, conn := range st.Connections {
		children, _ := conn["children"].(map[string]any)
		for _, k := range sortedKeys(children) {
			if up[[2]string{text(conn, "name"), k}] {
				continue
			}
			c := children[k].(map[string]any)
			state := "down"
			if c["mode"] == "PASS" || c["mode"] == "DROP" {
				state = "in force"
			}
			v.idle = append(v.idle, viewIdle{text(conn, "name"), k, state, words(c["local-ts"]), words(c["remote-ts"]), text(c, "mode")})
		}
	}
	return v
}

// rate compares the counters with those of an earlier view. A Child SA that was
// not there then counts from zero.
func (v *view) rate(before *view) {
	passed := v.at.Sub(before.at).Seconds()
	if passed <= 0 {
		return
	}
	old := map[string]*viewChild{}
	for i := range before.sas {
		for j := range before.sas[i].children {
			c := &before.sas[i].children[j]
			old[c.name+"{"+c.id] = c
		}
	}
	for i := range v.sas {
		sa := &v.sas[i]
		for j := range sa.children {
			c := &sa.children[j]
			var was viewChild
			if o := old[c.name+"{"+c.id]; o != nil {
				was = *o
			}
			c.rateIn = float64(c.bytesIn-min(was.bytesIn, c.bytesIn)) / passed
			c.rateOut = float64(c.bytesOut-min(was.bytesOut, c.bytesOut)) / passed
			sa.rateIn, sa.rateOut = sa.rateIn+c.rateIn, sa.rateOut+c.rateOut
		}
		sa.rateTotal = sa.rateIn + sa.rateOut
	}
}

// only leaves what has that name: a connection with all its children, or a child.
// It reports whether there is such a thing.
func (v *view) only(name string) bool {
	v.drops = ""
	v.sas = slices.DeleteFunc(v.sas, func(sa viewSA) bool {
		return sa.name != name && !slices.ContainsFunc(sa.children, func(c viewChild) bool { return c.name == name })
	})
	for i := range v.sas {
		if v.sas[i].name != name {
			v.sas[i].children = slices.DeleteFunc(v.sas[i].children, func(c viewChild) bool { return c.name != name })
		}
	}
	v.idle = slices.DeleteFunc(v.idle, func(c viewIdle) bool { return c.conn != name && c.child != name })
	return len(v.sas)+len(v.idle) > 0
}

// columns is the width that people's terminals have at least.
const columns = 80

// nameWidth is what a long name gets in a line that tells other things, too.
const nameWidth = 24

func (v *view) print(out io.Writer) {
	fmt.Fprintln(out, clip(v.header, columns))
	if v.drops != "" {
		fmt.Fprint(out, wrapped("dropped: "+v.drops[2:], "         "))
	}
	for _, sa := range v.sas {
		fmt.Fprintln(out)
		sa.print(out)
	}
	if len(v.idle) > 0 {
		fmt.Fprintln(out)
	}
	for _, c := range v.idle {
		line := fmt.Sprintf("%s/%s  %s  %s", c.conn, c.child, c.state, c.mode)
		fmt.Fprintln(out, clip(line, columns))
		fmt.Fprint(out, wrapped(fmt.Sprintf("    %s … %s", c.local, c.remote), "      "))
	}
}

func (sa *viewSA) print(out io.Writer) {
	line := fmt.Sprintf("%s[%s]  %s  %s", clip(sa.name, nameWidth), sa.id, sa.state, sa.version)
	for _, t := range []struct {
		format string
		d      time.Duration
	}{{"  up %s", sa.age}, {"  rekey in %s", sa.rekey}, {"  reauth in %s", sa.reauth}} {
		if t.d >= 0 {
			line += fmt.Sprintf(t.format, short(t.d))
		}
	}
	fmt.Fprint(out, wrapped(line, "  "))
	fmt.Fprintln(out, clip("  "+sa.local, columns))
	fmt.Fprintln(out, clip("  … "+sa.remote, columns))
	if sa.suite != "" {
		fmt.Fprintln(out, clip("  "+sa.suite, columns))
	}
	for _, vip := range [][2]string{{"our", sa.localVIPs}, {"the peer's", sa.remoteVIPs}} {
		if vip[1] != "" {
			fmt.Fprint(out, wrapped("  "+vip[0]+" virtual addresses: "+vip[1], "    "))
		}
	}
	for _, c := range sa.children {
		c.print(out)
	}
}

func (c *viewChild) print(out io.Writer) {
	line := fmt.Sprintf("  %s{%s}  %s  %s", clip(c.name, nameWidth), c.id, c.state, c.mode)
	if c.age >= 0 {
		line += "  up " + short(c.age)
	}
	if c.rekey >= 0 {
		line += "  rekey in " + short(c.rekey)
	}
	fmt.Fprint(out, wrapped(line, "    "))
	fmt.Fprint(out, wrapped(fmt.Sprintf("    %s … %s", c.local, c.remote), "      "))
	traffic := fmt.Sprintf("    in %s%s, out %s%s", amount(c.bytesIn), speed(c.rateIn), amount(c.bytesOut), speed(c.rateOut))
	if c.suite != "" {
		traffic += "  " + c.suite
	}
	fmt.Fprintln(out, clip(traffic, columns))
}

// endpoint is identity@address:port of one side.
func endpoint(m map[string]any, side string) string {
	id := text(m, side+"-id")
	if side == "remote" {
		id = cmp.Or(text(m, "remote-eap-id"), text(m, "remote-xauth-id"), id)
	}
	return fmt.Sprintf("%s @ %s[%s]", id, text(m, side+"-host"), text(m, side+"-port"))
}
