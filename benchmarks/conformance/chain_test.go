package conformance

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/auth"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/limiter"
)

// chain is a protected server with what servers most often have besides, and what that has written down.
type chain struct {
	protection *interceptors.Server
	service    *ways
	client     testpb.TestServiceClient
	spans      *tracetest.SpanRecorder
	log        logbook
}

// newChain puts the protection before all other interceptors of the server, or behind them, and what carries
// criticality in the same place among those of the client.
func newChain(t *testing.T, outermost bool, opts ...interceptors.Option) *chain {
	t.Helper()
	c := &chain{
		protection: protect(t, everyOption(opts...)...),
		service:    new(ways),
		spans:      tracetest.NewSpanRecorder(),
	}
	serverLog, clientLog := logging.LoggerFunc(c.log.add), logging.LoggerFunc(new(logbook).add)
	finish := logging.WithLogOnEvents(logging.FinishCall)
	internal := recovery.WithRecoveryHandler(func(any) error { return status.Error(codes.Internal, "recovered") })
	locked := selector.MatchFunc(func(_ context.Context, call middleware.CallMeta) bool { return call.Method != "EmptyCall" })
	around := []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(logging.UnaryServerInterceptor(serverLog, finish), recovery.UnaryServerInterceptor(internal),
			selector.UnaryServerInterceptor(auth.UnaryServerInterceptor(authenticate), locked)),
		grpc.ChainStreamInterceptor(logging.StreamServerInterceptor(serverLog, finish), recovery.StreamServerInterceptor(internal),
			selector.StreamServerInterceptor(auth.StreamServerInterceptor(authenticate), locked)),
	}
	aroundClient := []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(logging.UnaryClientInterceptor(clientLog)),
		grpc.WithChainStreamInterceptor(logging.StreamClientInterceptor(clientLog)),
	}
	tracing := []otelgrpc.Option{
		otelgrpc.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(c.spans))),
		otelgrpc.WithPropagators(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})),
	}
	server, dial := c.protection.ServerOptions(), interceptors.DialOptions(interceptors.WithCriticalityBaggage())
	if outermost {
		server, dial = slices.Concat(server, around), slices.Concat(dial, aroundClient)
	} else {
		server, dial = slices.Concat(around, server), slices.Concat(aroundClient, dial)
	}
	s := serve(t, c.service, append(server, grpc.StatsHandler(otelgrpc.NewServerHandler(tracing...)))...)
	c.client = testpb.NewTestServiceClient(s.dial(t, append(dial, grpc.WithStatsHandler(otelgrpc.NewClientHandler(tracing...)))...))
	return c
}

// authenticate lets nobody in without a token.
func authenticate(ctx context.Context) (context.Context, error) {
	_, err := auth.AuthFromMD(ctx, "bearer")
	return ctx, err
}

// logbook keeps the codes of the calls that were logged.
type logbook struct {
	mu    sync.Mutex
	codes []string
}

func (l *logbook) add(_ context.Context, _ logging.Level, _ string, fields ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := logging.Fields(fields).Iterator(); i.Next(); {
		if key, value := i.At(); key == "grpc.code" {
			l.codes = append(l.codes, value.(string))
		}
	}
}

// traced returns the codes of the calls that the server has traced.
func (c *chain) traced() (traced []string) {
	for _, span := range c.spans.Ended() {
		for _, attribute := range span.Attributes() {
			if span.SpanKind() == trace.SpanKindServer && attribute.Key == "rpc.response.status_code" {
				traced = append(traced, attribute.Value.AsString())
			}
		}
	}
	return traced
}

// fill takes all permits and all places in the line, until a newcomer is refused, and returns what undoes it.
func (c *chain) fill(t *testing.T) (empty func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	empty = func() { cancel(); synctest.Wait() }
	t.Cleanup(empty)
	for range 1000 {
		if c.protection.Limiter().Preview(ctx, limiter.Request{}) != nil {
			return empty
		}
		go func() {
			if permit, err := c.protection.Limiter().Acquire(ctx); err == nil {
				<-ctx.Done()
				permit.Cancel()
			}
		}()
		synctest.Wait()
	}
	t.Fatal("1000 wait and the line has no end")
	return nil
}

// chainCases are what can become of a call. Where it makes a difference who comes first, the protection is outermost
// or innermost.
var chainCases = []struct {
	name               string
	way                codes.Code
	anonymous, refused bool
	code               codes.Code
	traced             string
	admitted, logged   [2]bool // outermost, innermost
}{
	{name: "ok", code: codes.OK, traced: "OK", admitted: both, logged: both},
	{name: "error", way: codes.NotFound, code: codes.NotFound, traced: "NOT_FOUND", admitted: both, logged: both},
	{name: "panic", way: panicking, code: codes.Internal, traced: "INTERNAL", admitted: both, logged: both},
	{name: "anonymous", anonymous: true, code: codes.Unauthenticated, traced: "UNAUTHENTICATED",
		admitted: [2]bool{true, false}, logged: both},
	{name: "refused", refused: true, code: codes.ResourceExhausted, traced: "RESOURCE_EXHAUSTED",
		admitted: neither, logged: [2]bool{false, true}},
}

var both, neither = [2]bool{true, true}, [2]bool{}

// Whoever comes first, callers see the same. What the protection refuses is in the trace, and in the log if that is
// outside. Without the tap: what that refuses, nothing else of the server sees.
func TestChain(t *testing.T) {
	for i, order := range []string{"outermost", "innermost"} {
		for kind, call := range map[string]func(context.Context, testpb.TestServiceClient, codes.Code) error{
			"unary": callUnary, "stream": callStream,
		} {
			for _, c := range chainCases {
				t.Run(order+"/"+kind+"/"+c.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						chain := newChain(t, i == 0, fixedLimit(1), interceptors.WithoutTap())
						token := metadata.AppendToOutgoingContext(t.Context(), "authorization", "bearer of a token")
						ctx, empty := token, func() {}
						if c.anonymous {
							ctx = t.Context()
						}
						if c.refused {
							empty = chain.fill(t)
						}
						before := chain.protection.Limiter().Stats().Admitted
						err := call(limiter.ContextWithCriticality(ctx, limiter.SheddablePlus), chain.client, c.way)
						synctest.Wait()
						if status.Code(err) != c.code || interceptors.IsRefusal(err) != c.refused {
							t.Errorf("got %v, want %v", err, c.code)
						}
						if admitted := chain.protection.Limiter().Stats().Admitted > before; admitted != c.admitted[i] {
							t.Errorf("admitted: %v, want %v", admitted, c.admitted[i])
						}
						if served := chain.service.criticality == limiter.SheddablePlus; served != (!c.anonymous && !c.refused) {
							t.Errorf("the handler saw %v", chain.service.criticality)
						}
						var logged []string
						if c.logged[i] {
							logged = []string{c.code.String()}
						}
						if got := chain.log.codes; !slices.Equal(got, logged) {
							t.Errorf("logged: %v, want %v", got, logged)
						}
						if got := chain.traced(); !slices.Equal(got, []string{c.traced}) {
							t.Errorf("traced: %v, want %v", got, c.traced)
						}

						empty()
						wantEmpty(t, chain.protection.Limiter())
						next, cancel := context.WithTimeout(token, time.Second)
						defer cancel()
						if err := call(next, chain.client, codes.OK); err != nil { // the only permit is there again
							t.Errorf("the next call: %v", err)
						}
						anonymous, cancel := context.WithTimeout(t.Context(), time.Second)
						defer cancel()
						if _, err := chain.client.EmptyCall(anonymous, &testpb.Empty{}); err != nil { // needs no token
							t.Errorf("the next call, without a token: %v", err)
						}
					})
				})
			}
		}
	}
}

// What the tap refuses is refused before anything else of the server runs. Only our own figures have it.
func TestChainSeesNothingOfTheTap(t *testing.T) {
	for _, outermost := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			chain := newChain(t, outermost, fixedLimit(1))
			chain.fill(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second) // what the client gives by default is too far for the tap
			defer cancel()
			if err := callUnary(ctx, chain.client, codes.OK); !interceptors.IsRefusal(err) {
				t.Errorf("got %v, want a refusal", err)
			}
			if len(chain.log.codes)+len(chain.traced()) > 0 {
				t.Errorf("logged %v and traced %v, want neither", chain.log.codes, chain.traced())
			}
			if refused := chain.protection.Limiter().Stats().Refused[limiter.ReasonLimit]; refused != 1 {
				t.Errorf("%d refused by the limiter's figures, want 1", refused)
			}
		})
	}
}

// A selector may choose what is protected at all.
func TestSelectedMethodsAreProtected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		protection := protect(t, everyOption(fixedLimit(1))...)
		chosen := selector.MatchFunc(func(_ context.Context, call middleware.CallMeta) bool { return call.Method != "EmptyCall" })
		s := serve(t, new(ways),
			grpc.UnaryInterceptor(selector.UnaryServerInterceptor(protection.UnaryInterceptor(), chosen)),
			grpc.StreamInterceptor(selector.StreamServerInterceptor(protection.StreamInterceptor(), chosen)))
		c := &chain{protection: protection, client: testpb.NewTestServiceClient(s.dial(t))}
		c.fill(t)
		if err := callUnary(t.Context(), c.client, codes.OK); !interceptors.IsRefusal(err) {
			t.Errorf("a chosen method: %v, want a refusal", err)
		}
		if err := callStream(t.Context(), c.client, codes.OK); !interceptors.IsRefusal(err) {
			t.Errorf("a chosen stream: %v, want a refusal", err)
		}
		if _, err := c.client.EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
			t.Errorf("another method: %v, want it served", err)
		}
	})
}
