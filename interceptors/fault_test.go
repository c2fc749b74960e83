package interceptors

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/interceptors/chaos"
	"github.com/spillway-go/spillway/limiter"
)

// inject starts a server with faults inside of its protection, and more interceptors outside of it and between the two.
func inject(t *testing.T, svc *service, opts []Option, outside, between []grpc.ServerOption) (*pair, *chaos.Server) {
	t.Helper()
	faults, err := chaos.NewServer(chaos.WithSeed(1))
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{server: newServer(t, opts...)}
	t.Cleanup(func() {
		faults.Stop()
		p.wantEmpty(t)
	})
	chain := append(outside, p.server.ServerOptions()...)
	chain = append(append(chain, between...), faults.ServerOptions()...)
	p.conn, p.grpc = serve(t, svc, chain)
	p.TestServiceClient = testpb.NewTestServiceClient(p.conn)
	return p, faults
}

// recovers are go-grpc-middleware's interceptors that make errors of panics.
func recovers() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(recovery.UnaryServerInterceptor()),
		grpc.ChainStreamInterceptor(recovery.StreamServerInterceptor()),
	}
}

// panicsToo counts what recovery, inside of Spillway, makes of a panic as the panic that it was.
func panicsToo(err error) limiter.Outcome {
	if recovered := (*recovery.PanicError)(nil); errors.As(err, &recovered) {
		return limiter.Panicked
	}
	return Outcome(err)
}

// Half of all calls panic, under load: every permit comes back, and every panic counts, wherever it is recovered from.
func TestPermitsComeBackFromPanics(t *testing.T) {
	const permits = 4 // and as many callers: one permit lost, and somebody is refused
	for _, c := range []struct {
		name             string
		outside, between []grpc.ServerOption
		opts             []Option
		want             limiter.Outcome
	}{
		{"recovery outside", recovers(), nil, nil, limiter.Panicked},
		{"recovery inside", nil, recovers(), nil, limiter.Failed}, // it is an error like any other
		{"recovery inside, told apart", nil, recovers(), []Option{WithOutcome(panicsToo)}, limiter.Panicked},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := slow(time.Millisecond)
				svc.duplex = echo(time.Millisecond).duplex
				p, faults := inject(t, svc, limit(permits, c.opts...), c.outside, c.between)
				err := faults.Start(chaos.Fault{Kind: chaos.Panic, Share: .5, Methods: []string{"/grpc.testing.TestService/*"}, For: time.Hour})
				if err != nil {
					t.Fatal(err)
				}
				var all sync.WaitGroup
				for range permits {
					all.Go(func() {
						for range 20 {
							if _, err := p.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil && status.Code(err) != codes.Unknown {
								t.Errorf("unary: %v", err)
							}
							if err := askStream(t.Context(), p, 1); err != nil && status.Code(err) != codes.Unknown {
								t.Errorf("stream: %v", err)
							}
						}
					})
				}
				all.Wait()
				synctest.Wait()
				p.wantEmpty(t)
				if got, want := p.server.Limiter().Stats().Outcomes[c.want], faults.Faults()[0].Injected; got != want || want < 60 {
					t.Errorf("%d of %d panics counted as %v", got, want, c.want)
				}
				faults.Stop()
				for range permits {
					if _, err := p.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
						t.Errorf("after the panics: %v", err)
					}
				}
			})
		})
	}
}
