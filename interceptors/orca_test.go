package interceptors

import (
	"context"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/balancer/weightedroundrobin"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/orca"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

const outOfBand = `{"weighted_round_robin": {"enableOobLoadReport": true}}`

// run asks for permits at a rate for 5 s, for work of 10 ms, of which each second time fails.
func run(t *testing.T, lim *limiter.Limiter, rate int) {
	t.Helper()
	for i := range 5 * rate {
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if permit, err := lim.Acquire(ctx); err == nil {
				time.Sleep(10 * time.Millisecond)
				permit.Release([]limiter.Outcome{limiter.OK, limiter.Failed}[i%2])
			}
		}()
		time.Sleep(time.Second / time.Duration(rate))
	}
}

func TestLoadReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, limit(10)...)
		check := func(when string, rate, least, most float64) {
			t.Helper()
			got := s.LoadReports().ServerMetrics()
			if math.Abs(got.QPS-rate) > .1*rate || math.Abs(got.EPS-got.QPS/2) > .05*got.QPS {
				t.Errorf("%s: %v/s, of which %v/s failed; want %v and half of it", when, got.QPS, got.EPS, rate)
			}
			if got.AppUtilization < least || got.AppUtilization > most {
				t.Errorf("%s: utilisation %v, want %v to %v", when, got.AppUtilization, least, most)
			}
		}
		if got := s.LoadReports().ServerMetrics(); got.QPS != 0 || got.AppUtilization != 0 || got.EPS != 0 {
			t.Errorf("at the start: %+v, want nothing", got)
		}
		run(t, s.Limiter(), 500)
		check("half of the limit in use", 500, .45, .55)
		run(t, s.Limiter(), 1500)
		check("half too much", 1000, 1.01, 1.2)
		run(t, s.Limiter(), 500)
		check("half of what it was seen to do", 500, .45, .55)

		time.Sleep(time.Minute)
		if got := s.LoadReports().ServerMetrics(); got.AppUtilization != 0 || got.QPS > 1 {
			t.Errorf("with nothing to do: %+v, want no utilisation", got)
		}
		time.Sleep(time.Second)
		for range 10 {
			permit, err := s.Limiter().Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer permit.Cancel()
		}
		if got := s.LoadReports().ServerMetrics(); got.AppUtilization != 1 || got.QPS > 1 {
			t.Errorf("with ten requests that do not end: %+v, want all in use and no rate", got)
		}
	})
}

// One report comes with each answer, whatever else the handler has to tell, and none with a refusal or without the
// option.
func TestReportsComeWithAnswers(t *testing.T) {
	const trailerKey = "endpoint-load-metrics-bin"
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			opts []Option
			want int
		}{
			"off": {nil, 0},
			"on":  {[]Option{WithLoadReports()}, 1},
		} {
			svc := echo(0)
			svc.unary = func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
				if own := orca.CallMetricsRecorderFromContext(ctx); own != nil {
					own.SetRequestCost("rows", 7)
				}
				return &testpb.SimpleResponse{}, nil
			}
			p := connect(t, svc, limit(1, append(c.opts, WithoutTap())...))
			var md metadata.MD
			if _, err := p.UnaryCall(t.Context(), &testpb.SimpleRequest{}, grpc.Trailer(&md)); err != nil {
				t.Fatal(err)
			}
			if got := md.Get(trailerKey); len(got) != c.want || c.want > 0 && !strings.Contains(got[0], "rows") {
				t.Errorf("%s: an answer with the reports %q, want %d", name, got, c.want)
			}
			stream, err := p.FullDuplexCall(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_ = stream.CloseSend()
			_, _ = stream.Recv()
			if got := stream.Trailer().Get(trailerKey); len(got) != c.want {
				t.Errorf("%s: a stream with the reports %q, want %d", name, got, c.want)
			}
			empty := fill(t, p.server.Limiter())
			_, err = p.UnaryCall(t.Context(), &testpb.SimpleRequest{}, grpc.Trailer(&md))
			if got := md.Get(trailerKey); status.Code(err) != codes.ResourceExhausted || len(got) != 0 {
				t.Errorf("%s: %v with the reports %q, want a refusal without", name, err, got)
			}
			empty()
		}
	})
}

// Who listens to reports takes no permit, and holds up no drain.
func TestListenersHoldNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := connectFleet(t, []*service{{}, {}}, `{"loadBalancingConfig": [`+outOfBand+`]}`, limit(1)...)
		if _, err := f.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		for _, s := range f.servers {
			if got := s.Limiter().Stats().InFlight; got != 0 {
				t.Errorf("%d in flight, want 0", got)
			}
			if err := s.Drain(t.Context()); err != nil {
				t.Errorf("Drain: %v", err)
			}
		}
	})
}
