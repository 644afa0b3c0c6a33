package interop_test

import "regexp"

// difference is one that is meant: lines that one of the daemons alone has.
type difference struct {
	step         *regexp.Regexp // the step and the call
	charon, adit *regexp.Regexp // lines of either
	why          string
}

func (d *difference) strip(lines []string, which *regexp.Regexp) (left []string, hit bool) {
	if which == nil {
		return lines, false
	}
	for _, l := range lines {
		if which.MatchString(l) {
			hit = true
		} else {
			left = append(left, l)
		}
	}
	return left, hit
}

// apart makes an entry of the table.
func apart(step, charon, adit, why string) difference {
	re := func(s string) *regexp.Regexp {
		if s == "" {
			return nil
		}
		return regexp.MustCompile(s)
	}
	return difference{re(step), re(charon), re(adit), why}
}

var differences = []difference{
	apart(`--version --daemon`, `daemon = charon-systemd|version = |^strongSwan|^version reply`, `daemon = adit|version = |^strongSwan|^version reply`, "another program, another version"),
	apart(`--stats( --pretty)?$`, `^worker threads|/workers/(total|idle)|/active/|^job queues|/queues/`, `^worker threads|/workers/(total|idle)|/active/|^job queues|/queues/`, "adit has other threads"),
	apart(`--stats`, `^jobs scheduled|/scheduled`, `^jobs scheduled|/scheduled`, "adit's timers are in the engine, and no jobs"),
	apart(`--stats`, `^mallinfo|/mallinfo`, `^memory usage|/mem`, "Go's memory, in the keys that daemons without mallinfo have"),
	apart(`--stats`, `^loaded plugins|/plugins/`, `^loaded plugins|/plugins/`, "adit has no plugins"),
	apart(`--stats --pretty`, ``, `/drops`, "counters of dropped packets are adit's own"),
	apart(`--stats --raw`, `^stats reply`, `^stats reply`, "all these on one line"),
	apart(`--list-algs`, `\[[\w-]+\]$|reply/[\w-]+/|^dh:$|/dh \{$`, `\[adit\]$|reply/[\w-]+/|^ke:$|/ke \{$`, "other algorithms, of one plugin; key exchanges have the name of strongSwan 6"),
	apart(`.`, `\[(tcp|udp)/(echo|domain)\]$`, `\[(tcp|udp)/(7|53)\]$`, "charon prints names of /etc/services, which tools cannot rely on, adit the number"),
	apart(`--list-conns --pretty`, ``, `/(local|remote)_port = 500`, "keys of strongSwan 6"),
	apart(`--list-pols( --trap)? --pretty`, ``, `/caught/reqid = |/net/reqid = `, "a key of strongSwan 6"),
	apart(`--list-sas.* --pretty|(--monitor-sa|events) --pretty`, ``, `/nat-fake = yes`, "a key of strongSwan 6: adit tells that it faked a NAT for ESP in UDP, where charon's kernel-libipsec does so in silence"),
	apart(`--monitor-sa|events`, `/tasks-(active|queued|passive)|^  (active|queued|passive):`, `/tasks-(active|queued|passive)|^  (active|queued|passive):`, "what is under way in the moment of an event: the engine's exchanges are not charon's tasks"),
	apart(`failing: swanctl --list-sas`, `/tasks-active/|^  active:`, `/tasks-active/|^  active:`, "the same of an attempt"),
	apart(`failing: swanctl --list-sas`, `local  '%any'|local-id = %any`, `local  '192.0.2.1'|local-id = 192.0.2.1`, "without local.id the identity is the address, which adit knows from the first packet on"),
	apart(`failing: swanctl --initiate`, `^initiate (failed|reply).*'(nobody|oldgroup|elsewhere)' failed\}?$|/errmsg = establishing CHILD_SA '(nobody|oldgroup|elsewhere)' failed$`,
		`^initiate (failed|reply).*'(nobody|oldgroup|elsewhere)' failed: |/errmsg = establishing CHILD_SA '(nobody|oldgroup|elsewhere)' failed: .*; notify: `, "adit says why, behind the same words"),
	apart(`failing: swanctl events|end: swanctl --monitor-sa --pretty`, `^ike-updown event/(nobody|oldgroup|silent)`, ``, "an end of what never was: adit's downs balance ups, and a refusal is an alert"),
	apart(`initiate: .* --timeout|terminate: .* --timeout`, `^\[(IKE|CFG|ENC|NET|CHD)\] `, `^\[(IKE|CFG|ENC|NET|CHD)\] `, "the log has each daemon's own words"),
	apart(`terminate: swanctl events`, `/six-N/(rekey|life)-time = TIME`, ``, "a child that is being deleted has no timers any more"),
	apart(`end: swanctl --monitor-sa --pretty`, `/six-N/(rekey|life)-time = TIME`, `/six-N/(rekey|life)-time = TIME`, "a child that is being deleted has no timers any more, in all at once"),
	apart(`rekey.*: swanctl events`, `^child-rekey event/gw/child-sas/(net|six)/old/rekey-time`, ``, "a child that was replaced will not be rekeyed"),
	apart(`(by the peer|client): swanctl events`, `^ike-update event`, ``, "the change from port 500 to 4500 during the set-up is no move of a peer"),
	apart(`end: swanctl --monitor-sa$`, `^    installed TIME ago`, `^    installed `, "a child without timers, as swanctl prints it"),
	apart(`by the peer: swanctl --list-certs`, `^list-cert event|^List of|^  `, ``, "charon keeps certificates that peers sent"),
	apart(`mistake \w+: swanctl --load-`, `(invalid value for|unknown option): .*, config discarded`, `gw\.\w+: `, "adit says where and what instead"),
	apart(`counters: swanctl --counters`, `info-(out-req|in-resp)`, `info-(out-req|in-resp)`, "adit tells its token of crash detection after a rekey of the IKE SA that it began (RFC 6290 §4.3)"),
	apart(`redirect: swanctl --list-sas`, ``, `/tasks-queued|^  queued:`, "a redirected client that does not leave is sent away by adit: that Delete waits"),
}
