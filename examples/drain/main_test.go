package main

import (
	"context"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
)

// A server that gets its signal in the middle of a load ends, and no call is lost.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		networks := map[string]*bufconn.Listener{}
		var listeners [4]net.Listener
		for i, name := range []string{"first", "second", "probes of the first", "probes of the second"} {
			networks[name] = bufconn.Listen(1 << 16)
			listeners[i] = networks[name]
		}
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		time.AfterFunc(time.Second, cancel)
		probe := &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return networks["probes of the first"].DialContext(ctx)
			},
			DisableKeepAlives: true,
		}}
		check := func(path string, want int) {
			answer, err := probe.Get("http://probes" + path)
			if err != nil {
				t.Error(err)
				return
			}
			_ = answer.Body.Close()
			if answer.StatusCode != want {
				t.Errorf("after %v: %s says %d, want %d", time.Since(start), path, answer.StatusCode, want)
			}
		}
		time.AfterFunc(500*time.Millisecond, func() { check("/readyz", http.StatusOK) })
		time.AfterFunc(1500*time.Millisecond, func() { check("/readyz", http.StatusServiceUnavailable) })
		time.AfterFunc(1500*time.Millisecond, func() { check("/livez", http.StatusOK) })
		result, err := run(ctx, []string{"first", "second"}, listeners,
			grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return networks[address].DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		if result.lost > 0 || result.answers["first"] < 100 || result.answers["second"] < 500 {
			t.Errorf("%+v; want a sixth of all and more from the first, the rest from the second, and none lost", result)
		}
	})
}

// A server that cannot serve says so.
func TestServeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed, probes := bufconn.Listen(1), bufconn.Listen(1)
		_ = closed.Close()
		if err := serve(t.Context(), "", closed, probes); err == nil {
			t.Error("no error from a listener that is closed")
		}
	})
}
