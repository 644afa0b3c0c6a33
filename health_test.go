package adit

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// healthz tells which part does not answer, and that nothing runs.
func TestHealthz(t *testing.T) {
	for name, c := range map[string]struct {
		parts []Part
		code  int
		body  string
	}{
		"well":     {[]Part{{Name: "engine-0"}, {Name: "pool-0", Silent: 9 * time.Second}}, 200, `"healthy":true`},
		"stuck":    {[]Part{{Name: "engine-0"}, {Name: "pool-0", Silent: 11500 * time.Millisecond}}, 503, `{"name":"pool-0","ok":false,"silent_seconds":11.5}`},
		"patience": {[]Part{{Name: "host", Silent: 30 * time.Second, Patience: time.Minute}}, 200, `"ok":true`},
		"down":     {nil, 503, `"healthy":false`},
	} {
		w := httptest.NewRecorder()
		healthz(w, httptest.NewRequest(http.MethodGet, "/healthz", nil), c.parts)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

// A reload tells what it applies from what needs a restart, and nothing else.
func TestChangedSettings(t *testing.T) {
	t.Setenv("STRONGSWAN_CONF", "")
	g, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := g.daemon
	d.Port, d.KeepAlive = 501, time.Minute
	live, late := changed(&g.daemon, &d)
	if strings.Join(live, " ") != "keep_alive" || strings.Join(late, " ") != "port" {
		t.Errorf("%v, %v", live, late)
	}
	if live, late = changed(&d, &d); live != nil || late != nil {
		t.Errorf("%v, %v of the same", live, late)
	}
}
