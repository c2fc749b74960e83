package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
)

// The claim of the example: in turn the weakest server gets more than it can do, and by load reports none does. In
// one of thirty runs a server is taken for stronger than it is for some of the time: so the median of five is judged.
func TestOrca(t *testing.T) {
	var rows []row
	for _, balancer := range append(balancers, slices.Repeat(balancers[1:], 4)...) {
		synctest.Test(t, func(t *testing.T) {
			networks := map[string]*bufconn.Listener{}
			var listeners []net.Listener
			var addresses []string
			for _, workers := range strengths {
				name := fmt.Sprint(workers)
				networks[name] = bufconn.Listen(1 << 16)
				listeners, addresses = append(listeners, networks[name]), append(addresses, name)
			}
			dialing := make(chan struct{}, 1) // room for one: at once they can bring the race detector down (https://go.dev/issue/78156)
			r, err := run(t.Context(), balancer.config, listeners, addresses,
				grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
					dialing <- struct{}{}
					defer func() { <-dialing }()
					return networks[address].DialContext(ctx)
				}))
			if err != nil {
				t.Fatal(err)
			}
			r.balancer = balancer.name
			rows = append(rows, r)
		})
	}
	var table strings.Builder
	writeTable(&table, rows)
	t.Logf("\n%s", &table)
	if in := rows[0]; in.unanswered < .05 {
		t.Errorf("%+v; want a part that gets no answer", in)
	}
	reported := rows[1:]
	slices.SortFunc(reported, func(a, b row) int { return cmp.Compare(a.unanswered, b.unanswered) })
	by := reported[2]
	if by.unanswered > .02 || by.shares[0] > .22 || by.shares[2] < .45 {
		t.Errorf("%+v; want all answered, with shares near 1 : 2 : 4", by)
	}
}
