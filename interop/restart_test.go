package interop_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// A gateway is killed by SIGKILL and started again: by the client's next packet both
// know, and the tunnel is back, without liveness checks on a timer (RFC 6290): by a full
// set-up, or by resumption (RFC 5723).
func TestCrashDetection(t *testing.T) {
	t.Parallel()
	for name, option := range map[string]string{"full": "", "resumed": "session_resumption = yes\n"} {
		t.Run(name, func(t *testing.T) { crash(t, option, name == "resumed") })
	}
}

func crash(t *testing.T, option string, resumed bool) {
	among(t, []pair{{adit, adit}}, settings{middle: lab.Bridge, charon: option}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		p.load(left, right)
		p.up()
		p.pings(false)
		first := p.sas(p.left)[0].InitiatorSPI
		p.right.Kill9()
		if err := p.right.Start(); err != nil {
			t.Fatal(err)
		}
		if err := p.right.Load(right.text(rightID, leftID)); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := p.WaitPing(lab.LeftHost, p.R.Host4, 5*time.Second); err != nil {
			t.Fatal("the tunnel is not back: ", err)
		}
		back := time.Since(begin)
		p.wait("a new IKE SA", p.left, func(s []peer.SA) bool {
			return len(s) == 1 && s[0].InitiatorSPI != first && len(peer.Installed(s, "net")) == 1
		})
		p.facts["back after kill -9"] = fmt.Sprintf("%d ms", back.Milliseconds())
		t.Logf("the first ping went through %v after the restarted gateway was ready", back)
		if got := strings.Contains(p.right.Log(), "the peer resumes its session"); got != resumed {
			t.Errorf("resumed: %v", got)
		}
		p.pings(false)
	})
}
