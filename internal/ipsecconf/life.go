package ipsecconf

import (
	"fmt"
	"time"
)

// Defaults of the two programs.
type times struct{ ike, child, margin time.Duration }

var defaultTimes = map[Dialect]times{
	StrongSwan: {3 * time.Hour, time.Hour, 9 * time.Minute},
	Libreswan:  {8 * time.Hour, 8 * time.Hour, 9 * time.Minute},
}

// defaultFuzz is rekeyfuzz in per cent.
const defaultFuzz = 100

// time is the value of a keyword with a time.
func (c *conn) time(key string, fallback time.Duration) (time.Duration, *Line) {
	v, l := c.text(key)
	if l == nil {
		return fallback, nil
	}
	d, err := seconds(v)
	if err != nil {
		c.drop(l, refused, err.Error())
		return fallback, l
	}
	return d, l
}

// rekeys reports whether we rekey ourselves, and the line that says no.
func (c *conn) rekeys() (bool, *Line) {
	v, l := c.word("rekey")
	if l == nil {
		return true, nil
	}
	b, err := yes(v)
	if err != nil {
		c.drop(l, refused, err.Error())
	}
	return b || err != nil, l
}

// margin is how long before the end a rekeying begins, and by how much that varies.
func (c *conn) margin() (margin, fuzz time.Duration, at *Line) {
	margin, at = c.time("rekeymargin", defaultTimes[c.im.dialect].margin)
	per := defaultFuzz
	if v, l := c.text("rekeyfuzz"); l != nil {
		n, err := percent(v)
		if err != nil {
			c.drop(l, refused, err.Error())
		} else {
			per = n
		}
	}
	return margin, margin * time.Duration(per) / 100, at
}

// soft is when a rekeying begins at the latest: the margin before the end. Where the
// margin is longer than the whole, a tenth is taken.
func (c *conn) soft(life, margin time.Duration, l *Line) time.Duration {
	if life == 0 {
		return 0
	}
	if margin < life {
		return (life - margin).Truncate(time.Second)
	}
	if l != nil {
		c.drop(l, changed, fmt.Sprintf("it is no longer than the margin of %s: a tenth of it is taken instead", span(margin)))
	}
	return max(time.Second, (life - life/10).Truncate(time.Second))
}

// lifetimes translates the times of the IKE SA. In ipsec.conf a lifetime is the end
// and the rekeying begins margin, and up to fuzz more, before it; in swanctl.conf
// rekey_time is the latest begin, rand_time how much earlier, over_time what is left.
func (c *conn) lifetimes() {
	life, l := c.time("ikelifetime", defaultTimes[c.im.dialect].ike)
	margin, fuzz, _ := c.margin()
	rekey, rekeyLine := c.rekeys()
	if !rekey {
		c.put(c.top, pathConn, "rekey_time", "0", rekeyLine)
		if l != nil {
			c.drop(l, moot, "rekey=no: the IKE SA lives until the peer replaces it")
		}
		c.line("reauth")
		return
	}
	again, reauthLine := c.word("reauth")
	reauth := c.im.dialect == StrongSwan
	if reauthLine != nil {
		b, err := yes(again)
		if err != nil {
			c.drop(reauthLine, refused, err.Error())
		} else {
			reauth = b
		}
	}
	option := "rekey_time"
	if reauth {
		option = "reauth_time"
	}
	begin := c.soft(life, margin, l)
	it := len(c.top.items)
	c.put(c.top, pathConn, option, span(begin), l)
	c.top.items[it].notes = append(c.top.items[it].notes, fmt.Sprintf("ikelifetime %s, begun again %s to %s before its end", span(life), span(life-begin), span(life-begin+min(fuzz, begin))))
	c.put(c.top, pathConn, "over_time", span(life-begin), nil)
	c.put(c.top, pathConn, "rand_time", span(min(fuzz, begin)), nil)
}

// childTimes translates the times of the Child SA.
func (c *conn) childTimes(at *node) {
	life, l := c.time("lifetime", defaultTimes[c.im.dialect].child)
	margin, fuzz, _ := c.margin()
	if rekey, _ := c.rekeys(); !rekey {
		c.put(at, pathChild, "rekey_time", "0", nil)
		if c.im.dialect == StrongSwan {
			if l != nil {
				c.drop(l, moot, "rekey=no turns it off in strongSwan, too")
			}
		} else if life > 0 {
			c.put(at, pathChild, "life_time", span(life), l)
		}
	} else {
		begin := c.soft(life, margin, l)
		it := len(at.items)
		c.put(at, pathChild, "life_time", span(life), l)
		at.items[it].notes = append(at.items[it].notes, fmt.Sprintf("lifetime %s, rekeyed %s to %s before its end", span(life), span(life-begin), span(life-begin+min(fuzz, begin))))
		c.put(at, pathChild, "rekey_time", span(begin), nil)
		c.put(at, pathChild, "rand_time", span(min(fuzz, begin)), nil)
	}
	for _, unit := range []string{"bytes", "packets"} {
		c.volume(at, unit, int64(fuzz), int64(margin))
	}
}

// volume translates lifebytes and lifepackets, with the same share of fuzz.
func (c *conn) volume(at *node, unit string, fuzz, margin int64) {
	if c.im.dialect == Libreswan {
		if v, l := c.text("ipsec-max-" + unit); l != nil {
			n, err := count(v)
			if err != nil {
				c.drop(l, refused, err.Error())
				return
			}
			c.put(at, pathChild, "life_"+unit, fmt.Sprint(n), l)
		}
		return
	}
	v, l := c.text("life" + unit)
	m, ml := c.text("margin" + unit)
	if l == nil {
		return
	}
	n, err := count(v)
	before := uint64(0)
	if ml != nil && err == nil {
		before, err = count(m)
	}
	if err != nil {
		c.drop(l, refused, err.Error())
		return
	}
	before = min(before, n)
	c.put(at, pathChild, "life_"+unit, fmt.Sprint(n), l)
	c.put(at, pathChild, "rekey_"+unit, fmt.Sprint(n-before), ml)
	if margin > 0 && fuzz > 0 {
		share := float64(before) * float64(fuzz) / float64(margin)
		c.put(at, pathChild, "rand_"+unit, fmt.Sprint(uint64(min(share, float64(n-before)))), nil)
	}
}

// liveness translates dead peer detection.
func (c *conn) liveness() {
	delay, l := c.time("dpddelay", 30*time.Second)
	action, actionLine := c.word("dpdaction")
	if c.im.dialect == StrongSwan {
		if action == "" || action == "none" {
			if l != nil {
				c.drop(l, moot, "without dpdaction strongSwan sends no probes")
			}
			c.drop(c.line("dpdtimeout"), moot, "without dpdaction strongSwan sends no probes")
			return
		}
	} else if l == nil {
		return
	}
	at := l
	if at == nil && actionLine != nil {
		at = nil
	}
	c.put(c.top, pathConn, "dpd_delay", span(delay), at)
	timeout, tl := c.time("dpdtimeout", 150*time.Second)
	switch {
	case c.version == "2":
		if tl != nil {
			c.drop(tl, moot, "IKEv2 counts retransmissions instead")
		}
	case tl != nil:
		c.put(c.top, pathConn, "dpd_timeout", span(timeout), tl)
	}
}
