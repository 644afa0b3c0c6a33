package client_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"testing"

	"adit/client"
)

// A page of the network behind a gateway, without root: only what this program dials goes
// through the tunnel. (The gateway is one in this process; your Options name yours.)
func ExampleConnect() {
	gateway, stop := exampleGateway()
	defer stop()

	ctx := context.Background()
	tunnel, err := client.Connect(ctx, client.Options{
		Gateway:   gateway.Gateway, // vpn.example.org
		GatewayID: "vpn.example.org",
		CAs:       gateway.CAs, // none: those that the system trusts
		User:      "alice",
		Password:  func(context.Context) ([]byte, error) { return []byte("Tweedle dee & dum"), nil },
	})
	if err != nil {
		log.Fatal(err) // a *client.Error says whose fault it is
	}
	defer tunnel.Close()

	web := http.Client{Transport: &http.Transport{DialContext: tunnel.DialContext, DisableKeepAlives: true}}
	page, err := web.Get("http://intranet.corp.example/")
	if err != nil {
		log.Fatal(err)
	}
	defer page.Body.Close()
	text, err := io.ReadAll(page.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s", text)
	fmt.Println(tunnel.Progress().State, tunnel.Progress().Routes)
	// Output:
	// this page is inside
	// connected [10.2.0.0/24 fd02::/64]
}

// exampleTB is a test for what an example needs: it has none.
type exampleTB struct {
	testing.TB
	ends []func()
}

func (*exampleTB) Helper()                      {}
func (*exampleTB) Failed() bool                 { return false }
func (*exampleTB) Fatal(args ...any)            { log.Fatal(args...) }
func (*exampleTB) Fatalf(f string, args ...any) { log.Fatalf(f, args...) }
func (b *exampleTB) Cleanup(f func())           { b.ends = append(b.ends, f) }

// exampleGateway is the tests' gateway.
func exampleGateway() (client.Options, func()) {
	b := &exampleTB{}
	o := newOffice(b, both, "")
	return o.options(), func() {
		for i := range b.ends {
			b.ends[len(b.ends)-1-i]()
		}
	}
}
