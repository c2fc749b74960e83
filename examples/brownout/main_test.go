package main

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
)

// The claim of the example, in a world where sleep is exact: under overload not half as many get no answer, and all get
// a full one where all can.
func TestBrownout(t *testing.T) {
	var rows [2][]row
	for i, brownout := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			listener := bufconn.Listen(1 << 16)
			dial := func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }
			var err error
			rows[i], err = run(t.Context(), brownout, listener, "passthrough:///bufconn", grpc.WithContextDialer(dial))
			if err != nil || len(rows[i]) != len(factors) {
				t.Fatalf("run = %+v, %v; want a row for each of %v", rows[i], err, factors)
			}
			if calm := rows[i][0]; calm.percent(calm.full) < 99 {
				t.Errorf("%+v; want full answers", calm)
			}
		})
	}
	var table strings.Builder
	writeTable(&table, slices.Concat(rows[0], rows[1]))
	t.Logf("\n%s", &table)
	for i := range factors[1:] {
		without, with := rows[0][1+i], rows[1][1+i]
		if 2*with.percent(with.none) > without.percent(without.none) {
			t.Errorf("without %+v\nwith    %+v; want less than half of the calls without an answer", without, with)
		}
	}
}

func TestInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		listener := bufconn.Listen(1 << 16)
		dial := func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }
		rows, err := run(ctx, true, listener, "passthrough:///bufconn", grpc.WithContextDialer(dial))
		if err != nil || len(rows) != len(factors) || rows[0].calls > 0 {
			t.Errorf("run = %+v, %v; want nothing", rows, err)
		}
	})
}
