package main

import (
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
)

// The claim of the example, in a world where sleep is exact: under overload not half as many get no answer, and all get
// a full one where all can. It counts over three runs: in one of fifty the limit runs away for half of a load, on what it
// takes for a service that has become faster.
func TestBrownout(t *testing.T) {
	const runs = 3
	none := make([][2]float64, len(factors)) // without brownout and with it, in percent of the calls
	for i := range 2 * runs {
		synctest.Test(t, func(t *testing.T) {
			listener := bufconn.Listen(1 << 16)
			dial := func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }
			rows, err := run(t.Context(), i%2 == 1, listener, "passthrough:///bufconn", grpc.WithContextDialer(dial))
			if err != nil || len(rows) != len(factors) {
				t.Fatalf("run = %+v, %v; want a row for each of %v", rows, err, factors)
			}
			if calm := rows[0]; calm.percent(calm.full) < 99 {
				t.Errorf("%+v; want full answers", calm)
			}
			for load, r := range rows {
				none[load][i%2] += r.percent(r.none) / runs
			}
			var table strings.Builder
			writeTable(&table, rows)
			t.Logf("\n%s", &table)
		})
	}
	for i, factor := range factors[1:] {
		if without, with := none[1+i][0], none[1+i][1]; 2*with > without {
			t.Errorf("at %vx %.0f%% of the calls have no answer, and without brownout %.0f%%; want less than half", factor, with, without)
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
