package hostnet_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"adit/internal/hostnet"
)

func deviceIndex(l *lab) int {
	l.t.Helper()
	line := run(l.t, "ip -n "+l.gw.ns+" -o link show dev adit0")
	n, err := strconv.Atoi(line[:strings.IndexByte(line, ':')])
	if err != nil {
		l.t.Fatal(err)
	}
	return n
}

// After our death another device has the name and the index that ours had, and the
// route leads into it: the guard that we left lets nothing out by it, and believes
// nothing that comes by it. That packets would go by it otherwise is shown last, by
// putting it into our group by hand.
func TestGuardKnowsAForeignDeviceOfOurNameAndIndex(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	l.apply(siteToSite)
	l.expect(l.host, udp("10.1.0.5:1000", "10.2.0.5:2000"), "tun")
	index := deviceIndex(l)
	l.gw.kill()
	l.restart()
	g, o := l.gw.ns, l.out.ns
	for _, c := range []string{
		fmt.Sprintf("ip -n %s link add adit0 index %d type veth peer name stale netns %s", g, index, o),
		"ip -n " + o + " link set stale address 02:00:00:00:00:99",
		"ip -n " + o + " link set stale up",
		"ip -n " + g + " link set adit0 up",
		"ip -n " + g + " neigh add 10.2.0.5 lladdr 02:00:00:00:00:99 dev adit0",
		"ip -n " + g + " route add 10.2.0.0/24 dev adit0",
	} {
		run(t, c)
	}
	if got := deviceIndex(l); got != index {
		t.Fatalf("the foreign device has index %d, ours had %d", got, index)
	}
	l.out.ok(request{Op: "sniff", Device: "stale"})
	l.expect(l.host, udp("10.1.0.5:1000", "10.2.0.5:2000"))
	l.expect(l.gw, udp("10.1.0.1:1000", "10.2.0.5:2001"))
	back := func() {
		run(t, fmt.Sprintf("ip -n %s route replace 10.1.0.0/24 dev stale", o))
		mac := strings.TrimSpace(run(t, "ip netns exec "+g+" cat /sys/class/net/adit0/address"))
		run(t, "ip -n "+o+" neigh replace 10.1.0.5 lladdr "+mac+" dev stale")
	}
	back()
	l.expect(l.out, udp("10.2.0.5:2000", "10.1.0.5:1000"))
	run(t, "ip -n "+g+" link set adit0 group 44311")
	l.expect(l.host, udp("10.1.0.5:1000", "10.2.0.5:2000"), "out")
	l.expect(l.out, udp("10.2.0.5:2000", "10.1.0.5:1000"), "host")
}

// Our device taken out of our group carries nothing, and nothing leaves beside it,
// until Refresh puts it back.
func TestDeviceOutOfItsGroup(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	l.apply(siteToSite)
	run(t, "ip -n "+l.gw.ns+" link set adit0 group default")
	l.expect(l.host, udp("10.1.0.5:1000", "10.2.0.5:2000"))
	l.fromTunnel(udp("10.2.0.5:9", "10.1.0.5:1"))
	l.gw.ok(request{Op: "refresh"})
	l.expect(l.host, udp("10.1.0.5:1000", "10.2.0.5:2000"), "tun")
	l.fromTunnel(udp("10.2.0.5:9", "10.1.0.5:1"), "host")
}

// Our device has no queueing discipline, unless somebody gives it one.
func TestNoQueueBeforeTheDevice(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	l.apply(siteToSite)
	show := "tc -n " + l.gw.ns + " qdisc show dev adit0"
	if got := run(t, show); !strings.Contains(got, "noqueue") {
		t.Errorf("the device has %s", got)
	}
	run(t, "tc -n "+l.gw.ns+" qdisc replace dev adit0 root pfifo")
	l.apply(siteToSite)
	l.gw.ok(request{Op: "refresh"})
	if got := run(t, show); !strings.Contains(got, "pfifo") {
		t.Errorf("the device of somebody who wants a queue has %s", got)
	}
}
