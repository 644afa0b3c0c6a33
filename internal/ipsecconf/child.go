package ipsecconf

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"adit/suite"
)

// childs makes the children: one, or with leftsubnets and rightsubnets one for each
// pair.
func (c *conn) childs() {
	local, localLines := c.selectors(c.local)
	remote, remoteLines := c.selectors(c.remote)
	if len(local)*len(remote) > limitChildren {
		c.fail(fmt.Sprintf("more than %d pairs of subnets", limitChildren))
		return
	}
	if c.im.children += len(local) * len(remote); c.im.children > limitAllChildren {
		c.fail(fmt.Sprintf("more than %d children in all", limitAllChildren))
		return
	}
	for i, lts := range local {
		for j, rts := range remote {
			name := c.name
			if len(local)*len(remote) > 1 {
				name += fmt.Sprintf("-%dx%d", i+1, j+1)
			}
			child := &node{name: name}
			c.children = append(c.children, child)
			c.selector(child, "local_ts", lts, localLines)
			c.selector(child, "remote_ts", rts, remoteLines)
			c.childOptions(child)
		}
	}
}

// selector writes local_ts or remote_ts, unless it is the default.
func (c *conn) selector(child *node, key, value string, lines []*Line) {
	if value == "dynamic" && len(lines) == 0 {
		return
	}
	var first *Line
	if len(lines) > 0 {
		first = lines[0]
	}
	c.must(child, pathChild, key, value, first)
	for _, l := range lines[min(1, len(lines)):] {
		c.place(child.add(&item{}), l)
	}
}

// selectors are the traffic selectors of a side: a list for each child.
func (c *conn) selectors(side string) (lists []string, lines []*Line) {
	suffix := ""
	proto, protoLine := c.sided(side, "protoport")
	if protoLine != nil {
		if p, ok := strings.CutPrefix(proto, "%any"); ok {
			proto = p
		}
		name, port, _ := strings.Cut(proto, "/")
		switch {
		case port == "%any" || port == "0" && c.im.dialect == Libreswan:
			proto = name
			if c.im.dialect == Libreswan && port == "%any" {
				c.drop(protoLine, changed, "%any is every port, and not the one that the peer names")
			}
		case port == "%opaque":
			proto = name + "/opaque"
		}
		if proto != "" && proto != "0" && proto != "0/0" {
			suffix = "[" + proto + "]"
		}
	}
	one := func(text string) string {
		text = normal(text)
		if parts := strings.Split(text, "/"); len(parts) == 4 && c.im.dialect == Libreswan { // 10.0.0.0/8/tcp/22
			text = parts[0] + "/" + parts[1] + "[" + parts[2] + "/" + parts[3] + "]"
		}
		if strings.Contains(text, "[") {
			return text
		}
		return text + suffix
	}
	v, l := c.sided(side, "subnet")
	if many, ml := c.sided(side, "subnets"); ml != nil && c.im.dialect == Libreswan {
		for _, part := range strings.FieldsFunc(many, func(r rune) bool { return strings.ContainsRune("{}, ", r) }) {
			lists = append(lists, one(part))
		}
		l = ml
	} else if l != nil {
		var parts []string
		for _, part := range splitList(v) {
			if strings.HasPrefix(part, "vhost:") || strings.HasPrefix(part, "vnet:") {
				c.bad(l, "adit has no virtual subnets: write the subnets, or give addresses out of a pool")
			}
			parts = append(parts, one(part))
		}
		lists = []string{strings.Join(parts, ", ")}
	}
	if len(lists) == 0 {
		lists = []string{"dynamic" + suffix}
		if c.isShunt() {
			lists[0] = c.shuntHost(side) + suffix
		}
	}
	for _, at := range []*Line{l, protoLine} {
		if at != nil {
			lines = append(lines, at)
		}
	}
	return lists, lines
}

// normal writes a subnet as swanctl.conf has it.
func normal(text string) string {
	addr, rest, bracket := strings.Cut(text, "[")
	switch host, mask, ok := strings.Cut(addr, "/"); {
	case addr == "%dynamic":
		addr = "dynamic"
	case addr == "0/0" || addr == "%any":
		addr = "0.0.0.0/0"
	case ok && strings.Contains(mask, "."): // a netmask
		m, err := netip.ParseAddr(mask)
		if err == nil && m.Is4() {
			if ones, size := net.IPMask(m.AsSlice()).Size(); size == 32 {
				addr = host + "/" + strconv.Itoa(ones)
			}
		}
	}
	if bracket {
		return addr + "[" + rest
	}
	return addr
}

// childOptions translates what belongs to a child but its selectors and lifetimes.
func (c *conn) childOptions(child *node) {
	at, path := child, pathChild
	c.espProposals(at)
	if v, l := c.word("type"); l != nil {
		switch v {
		case "tunnel", "transport", "transport_proxy", "beet":
			c.must(at, path, "mode", v, l)
		default:
			c.bad(l, fmt.Sprintf("%q is no type", clip(v)))
		}
	}
	if c.action != "" {
		c.put(at, path, "start_action", c.action, c.line("auto"))
	}
	c.action2("dpdaction", at, "dpd_action")
	c.action2("closeaction", at, "close_action")
	c.childTimes(at)
	c.flag("compress", at, path, "ipcomp")
	c.flag("installpolicy", at, path, "policies")
	c.copied("inactivity", at, path, "inactivity")
	c.copied("reqid", at, path, "reqid")
	c.copied("priority", at, path, "priority")
	if v, l := c.text("policy-label"); l != nil {
		c.must(at, path, "label", v, l)
	}
	if v, l := c.text("mark"); l != nil {
		c.must(at, path, "mark_in", v, l)
		c.must(at, path, "mark_out", v, l)
	}
	for _, key := range []string{"mark_in", "mark_out"} {
		if v, l := c.text(key); l != nil {
			c.must(at, path, key, v, l)
		}
	}
	if v, l := c.text("tfc"); l != nil {
		c.put(at, path, "tfc_padding", strings.TrimPrefix(v, "%"), l)
	}
	if v, l := c.text("replay_window"); l != nil && v != "-1" {
		c.put(at, path, "replay_window", v, l)
	}
	for _, key := range []string{"sha256_96", "sha2-truncbug"} {
		if v, l := c.word(key); l != nil {
			if b, err := yes(v); err != nil {
				c.drop(l, refused, err.Error())
			} else {
				c.must(at, path, "sha256_96", yesNo(b), l)
			}
		}
	}
	c.copied("nic-offload", at, path, "hw_offload")
	c.swanChild(at, path)
	c.scripts(at, path)
}

// action2 translates dpdaction and closeaction.
func (c *conn) action2(key string, at *node, option string) {
	v, l := c.word(key)
	if l == nil {
		return
	}
	switch v {
	case "none", "":
	case "clear":
		c.put(at, pathChild, option, "clear", l)
	case "hold", "route", "trap":
		c.put(at, pathChild, option, "trap", l)
	case "restart", "start", "restart_by_peer":
		c.put(at, pathChild, option, "start", l)
	default:
		c.drop(l, refused, fmt.Sprintf("%q is none of none, clear, hold and restart", clip(v)))
	}
}

// swanChild translates what only Libreswan has.
func (c *conn) swanChild(at *node, path []string) {
	out, l := c.word("encap-dscp")
	in, l2 := c.word("decap-dscp")
	if l != nil || l2 != nil {
		copyOut, copyIn := true, false
		if b, err := yes(out); l != nil && err == nil {
			copyOut = b
		}
		if b, err := yes(in); l2 != nil && err == nil {
			copyIn = b
		}
		if l == nil {
			l = l2
		}
		c.put(at, path, "copy_dscp", [...]string{"no", "out", "in", "yes"}[btoi(copyOut)+2*btoi(copyIn)], l)
	}
	if v, l := c.word("nopmtudisc"); l != nil {
		if b, err := yes(v); err == nil {
			c.put(at, path, "copy_df", yesNo(!b), l)
		}
	}
	if v, l := c.word("narrowing"); l != nil {
		if b, err := yes(v); err == nil && !b {
			c.drop(l, changed, "adit narrows selectors wherever it can (RFC 7296 §2.9)")
		}
	}
	if v, l := c.word("require-id-on-certificate"); l != nil {
		if b, err := yes(v); err == nil && !b {
			c.drop(l, refused, "adit believes an identity only if the certificate has it")
		}
	}
	for _, key := range []string{"failureshunt", "negotiationshunt"} {
		if v, l := c.word(key); l != nil && v != "none" && v != "drop" && v != "hold" && v != "reject" {
			c.drop(l, refused, "adit lets nothing out in the clear that a tunnel should protect; a child with mode = pass says what needs no protection")
		}
	}
	c.line("hostaddrfamily")
	c.line("clientaddrfamily")
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// scripts translates updown and firewall.
func (c *conn) scripts(at *node, path []string) {
	if v, l := c.sided(c.local, "updown"); l != nil {
		if v == "%disabled" || v == "" {
			c.drop(l, moot, "there is no script without updown")
		} else {
			if c.im.dialect == Libreswan {
				c.drop(l, changed, "the script gets strongSwan's PLUTO_ variables (docs/updown.md), not all of Libreswan's")
			}
			c.put(at, path, "updown", v, l)
		}
	}
	if v, l := c.sided(c.local, "firewall"); l != nil {
		if b, err := yes(v); err == nil && b {
			c.drop(l, changed, "not needed: its rules match packets of the kernel's IPsec (iptables -m policy), which adit's are not. Let your firewall accept what comes from adit0")
			c.place(at.add(&item{key: "updown", value: "/usr/lib/ipsec/_updown iptables", off: true}), l)
		}
	}
	c.flag(c.local+"hostaccess", at, path, "hostaccess")
	for _, key := range []string{"updown", "firewall", "hostaccess"} {
		if l := c.line(c.remote + key); l != nil {
			c.drop(l, moot, "it belongs to the other side")
		}
	}
}

// ikeProposals translates ike.
func (c *conn) ikeProposals() {
	v, l := c.text("ike")
	if l == nil {
		return
	}
	list, err := splitStrict(v), error(nil)
	if c.im.dialect == Libreswan {
		list, err = swanProposals(v, suite.IKE, nil, "")
	}
	c.proposals(c.top, pathConn, "proposals", suite.IKE, list, err, l)
}

// espProposals translates esp and ah.
func (c *conn) espProposals(at *node) {
	key, option, p := "esp", "esp_proposals", suite.ESP
	kind, kindLine := c.word("phase2")
	if c.set["ah"] != nil || kind == "ah" {
		option, p = "ah_proposals", suite.AH
		if c.set["ah"] != nil {
			key = "ah"
		}
	}
	v, l := c.text(key)
	if p == suite.AH && l == nil {
		c.must(at, pathChild, option, "sha256", kindLine)
		return
	}
	if c.im.dialect == StrongSwan {
		if l != nil {
			c.proposals(at, pathChild, option, p, splitStrict(v), nil, l)
		}
		return
	}
	pfs, pfsLine := c.word("pfs")
	var groups []string
	if b, err := yes(pfs); pfsLine == nil || err == nil && b {
		if list, ok := c.top.value("proposals"); ok {
			groups = groupsOf(splitList(list))
		} else {
			groups = swanGroups
		}
	}
	esn, esnLine := c.word("esn")
	switch esn {
	case "yes":
		esn = "esn"
	case "no":
		esn = "noesn"
	case "either":
		esn = "noesn-esn"
	}
	if l == nil {
		if pfsLine == nil && esnLine == nil {
			return
		}
		v = "aes_gcm256,aes_gcm128,aes256-sha2_512+sha2_256,aes128-sha2_512+sha2_256" // Libreswan's default
		if l = esnLine; l == nil {
			l = pfsLine
		}
	}
	list, err := swanProposals(v, p, groups, esn)
	c.proposals(at, pathChild, option, p, list, err, l)
}

// proposals writes what adit takes of a list.
func (c *conn) proposals(at *node, path []string, option string, p suite.Protocol, list []string, err error, l *Line) {
	if err != nil {
		c.bad(l, err.Error())
		return
	}
	kept, reasons := usable(p, list)
	if len(reasons) > 0 && len(kept) > 0 {
		for _, why := range reasons {
			c.drop(l, changed, "left out: "+why)
		}
	}
	if len(kept) == 0 {
		for _, why := range reasons {
			l.mark(refused, why)
		}
		c.fail(l.Key + "=" + clip(l.Value) + ": " + why(reasons))
		return
	}
	c.must(at, path, option, strings.Join(kept, ", "), l)
}

// isShunt reports whether the connection is only a rule what happens to packets.
func (c *conn) isShunt() bool {
	l := c.set["type"]
	if l == nil {
		return false
	}
	switch strings.ToLower(l.Value) {
	case "passthrough", "pass", "drop", "reject":
		return true
	}
	return false
}

// shuntHost is the selector of a side without subnet.
func (c *conn) shuntHost(side string) string {
	if a, err := netip.ParseAddr(c.host(side)); err == nil {
		return a.String() + "/" + strconv.Itoa(a.BitLen())
	}
	return "0.0.0.0/0"
}

// shunt translates a connection of type passthrough or drop.
func (c *conn) shunt() bool {
	if !c.isShunt() {
		return false
	}
	v, l := c.word("type")
	child := &node{name: c.name}
	c.children = []*node{child}
	for _, s := range []struct{ side, key string }{{c.local, "local_ts"}, {c.remote, "remote_ts"}} {
		lists, lines := c.selectors(s.side)
		c.selector(child, s.key, lists[0], append(lines, c.line(s.side)))
	}
	mode := "drop"
	if strings.HasPrefix(v, "pass") {
		mode = "pass"
	}
	if v == "reject" {
		c.drop(l, changed, "packets are dropped without an answer")
	}
	c.must(child, pathChild, "mode", mode, l)
	c.put(child, pathChild, "start_action", "trap", c.line("auto"))
	c.copied("priority", child, pathChild, "priority")
	return true
}
