package interceptors

import (
	"context"
	"testing"
	"testing/synctest"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	calls "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"

	"github.com/spillway-go/spillway/limiter"
)

func newClient(t *testing.T, opts ...ClientOption) *Client {
	t.Helper()
	c, err := NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// hop is a server that asks the next one for every request, and keeps what the last request came with.
type hop struct {
	testpb.TestServiceClient // to reach it
	criticality              limiter.Criticality
	header, baggage          []string
}

func (h *hop) note(ctx context.Context) {
	h.criticality = limiter.CriticalityFromContext(ctx)
	h.header = metadata.ValueFromIncomingContext(ctx, CriticalityHeader)
	h.baggage = metadata.ValueFromIncomingContext(ctx, baggageHeader)
}

// want checks the handler's criticality and that the header came once, or not at all for "".
func (h *hop) want(t *testing.T, name string, criticality limiter.Criticality, header string) {
	t.Helper()
	if h.criticality != criticality {
		t.Errorf("%s: %v in the handler, want %v", name, h.criticality, criticality)
	}
	if got := h.header; (header == "") != (len(got) == 0) || len(got) > 1 || len(got) == 1 && got[0] != header {
		t.Errorf("%s: header %q, want %q", name, got, header)
	}
}

// newHop starts a server that asks next, if there is one, and is dialled with the options.
func newHop(t *testing.T, next *hop, server []grpc.ServerOption, dial ...grpc.DialOption) *hop {
	t.Helper()
	h := &hop{}
	conn, _ := serve(t, &service{
		unary: func(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			h.note(ctx)
			if next == nil {
				return &testpb.SimpleResponse{}, nil
			}
			return next.UnaryCall(ctx, r)
		},
		duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
			h.note(stream.Context())
			if next == nil {
				return echo(0).duplex(stream)
			}
			if err := askStream(stream.Context(), next, 1); err != nil {
				return err
			}
			return echo(0).duplex(stream)
		},
	}, server, dial...)
	h.TestServiceClient = testpb.NewTestServiceClient(conn)
	return h
}

// protected returns the options of a protected server.
func protected(t *testing.T, opts ...Option) []grpc.ServerOption {
	t.Helper()
	s := newServer(t, opts...)
	t.Cleanup(func() { _ = s.Close() })
	return s.ServerOptions()
}

func askUnary(ctx context.Context, client testpb.TestServiceClient) error {
	_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{})
	return err
}

// inBoth runs a test in a bubble for unary calls and for streams.
func inBoth(t *testing.T, test func(t *testing.T, ask func(context.Context, testpb.TestServiceClient) error)) {
	t.Run("unary", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, askUnary) })
	})
	t.Run("stream", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			test(t, func(ctx context.Context, c testpb.TestServiceClient) error { return askStream(ctx, c, 2) })
		})
	})
}

func TestThreeHops(t *testing.T) {
	inBoth(t, func(t *testing.T, ask func(context.Context, testpb.TestServiceClient) error) {
		third := newHop(t, nil, protected(t), DialOptions()...)
		second := newHop(t, third, protected(t), DialOptions()...)
		first := newHop(t, second, protected(t), DialOptions()...)
		for said, heard := range map[limiter.Criticality]limiter.Criticality{
			limiter.Sheddable:        limiter.Sheddable,
			limiter.SheddablePlus:    limiter.SheddablePlus,
			limiter.Critical:         limiter.Critical,
			limiter.CriticalPlus:     limiter.Critical,
			limiter.Criticality(200): limiter.Critical,
		} {
			if err := ask(limiter.ContextWithCriticality(t.Context(), said), first); err != nil {
				t.Fatal(err)
			}
			sent := heard.String()
			if said == limiter.CriticalPlus {
				sent = said.String() // and clamped by the first who hears it
			}
			first.want(t, "first", heard, sent)
			second.want(t, "second", heard, heard.String())
			third.want(t, "third", heard, heard.String())
		}
		if err := ask(t.Context(), first); err != nil { // and nothing, of nothing
			t.Fatal(err)
		}
		first.want(t, "first", limiter.Unspecified, "")
		second.want(t, "second", limiter.Unspecified, "")
		third.want(t, "third", limiter.Unspecified, "")
	})
}

// What the operator of one server decides holds for the servers behind it, and what an outsider claims does not
// come past the ceiling of the first, however high that of the others is.
func TestTheFirstServerDecides(t *testing.T) {
	inBoth(t, func(t *testing.T, ask func(context.Context, testpb.TestServiceClient) error) {
		inner := func() []grpc.ServerOption { return protected(t, WithCriticalityCeiling(limiter.CriticalPlus)) }
		third := newHop(t, nil, inner(), DialOptions()...)
		second := newHop(t, third, inner(), DialOptions()...)
		edge := newHop(t, second, protected(t), DialOptions()...)
		ctx := limiter.ContextWithCriticality(t.Context(), limiter.CriticalPlus)
		if err := ask(ctx, edge); err != nil {
			t.Fatal(err)
		}
		third.want(t, "an outsider", limiter.Critical, "CRITICAL")

		table := WithMethodCriticality(methods{"/grpc.testing.TestService/*": limiter.CriticalPlus})
		edge = newHop(t, second, protected(t, table), DialOptions()...)
		if err := ask(limiter.ContextWithCriticality(t.Context(), limiter.Sheddable), edge); err != nil {
			t.Fatal(err)
		}
		third.want(t, "the table", limiter.CriticalPlus, "CRITICAL_PLUS")

		edge = newHop(t, second, protected(t, WithCriticalityCeiling(limiter.Sheddable)), DialOptions()...)
		if err := ask(t.Context(), edge); err != nil {
			t.Fatal(err)
		}
		third.want(t, "silence under a low ceiling", limiter.Sheddable, "SHEDDABLE")
	})
}

// propagating is a process that knows nothing of spillway and hands baggage on, as OpenTelemetry's instrumentation
// of gRPC does.
func propagating() ([]grpc.ServerOption, []grpc.DialOption) {
	extract := func(ctx context.Context) context.Context {
		header := propagation.MapCarrier{}
		for _, value := range metadata.ValueFromIncomingContext(ctx, baggageHeader) {
			header[baggageHeader] = value
			break // only the first is read
		}
		return propagation.Baggage{}.Extract(ctx, header)
	}
	inject := func(ctx context.Context) context.Context {
		header := propagation.MapCarrier{}
		propagation.Baggage{}.Inject(ctx, header)
		md, ok := metadata.FromOutgoingContext(ctx)
		if !ok {
			md = metadata.MD{}
		}
		for key, value := range header {
			md.Set(key, value)
		}
		return metadata.NewOutgoingContext(ctx, md)
	}
	return []grpc.ServerOption{
			grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
				return handler(extract(ctx), req)
			}),
			grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
				return handler(srv, &middleware.WrappedServerStream{ServerStream: stream, WrappedContext: extract(stream.Context())})
			}),
		}, []grpc.DialOption{
			grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				return invoker(inject(ctx), method, req, reply, cc, opts...)
			}),
			grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
				return streamer(inject(ctx), desc, cc, method, opts...)
			}),
		}
}

func TestThroughAProcessThatKnowsNothing(t *testing.T) {
	inBoth(t, func(t *testing.T, ask func(context.Context, testpb.TestServiceClient) error) {
		server, dial := propagating()
		last := newHop(t, nil, protected(t, WithCriticalityBaggage()), dial...)
		between := newHop(t, last, server, DialOptions(WithCriticalityBaggage())...)
		ctx := metadata.AppendToOutgoingContext(t.Context(), baggageHeader, "tenant=7")
		if err := ask(limiter.ContextWithCriticality(ctx, limiter.Sheddable), between); err != nil {
			t.Fatal(err)
		}
		between.want(t, "between", limiter.Unspecified, "SHEDDABLE")
		last.want(t, "last", limiter.Sheddable, "")
		if b, err := baggage.Parse(last.baggage[0]); err != nil || b.Member("tenant").Value() != "7" {
			t.Errorf("the caller's own baggage came as %q, %v", last.baggage, err)
		}

		// Without the option nothing is put into baggage, and nothing read from it.
		silent := newHop(t, last, server, DialOptions()...)
		if err := ask(limiter.ContextWithCriticality(t.Context(), limiter.Sheddable), silent); err != nil {
			t.Fatal(err)
		}
		last.want(t, "without baggage at the client", limiter.Unspecified, "")
		deaf := newHop(t, nil, protected(t), dial...)
		between = newHop(t, deaf, server, DialOptions(WithCriticalityBaggage())...)
		if err := ask(limiter.ContextWithCriticality(t.Context(), limiter.Sheddable), between); err != nil {
			t.Fatal(err)
		}
		deaf.want(t, "without baggage at the server", limiter.Unspecified, "")
	})
}

// A server that was instrumented with OpenTelemetry too: what the caller claims in its baggage is clamped, also in
// the baggage that goes on.
func TestBaggageIsClampedOnItsWay(t *testing.T) {
	inBoth(t, func(t *testing.T, ask func(context.Context, testpb.TestServiceClient) error) {
		server, dial := propagating()
		last := newHop(t, nil, protected(t, WithCriticalityBaggage(), WithCriticalityCeiling(limiter.CriticalPlus)), dial...)
		between := newHop(t, last, server, append(DialOptions(WithCriticalityBaggage()), dial...)...)
		edge := newHop(t, between, append(server, protected(t, WithCriticalityBaggage())...))
		ctx := metadata.AppendToOutgoingContext(t.Context(), baggageHeader, "tenant=7,spillway.criticality=CRITICAL_PLUS")
		if err := ask(ctx, edge); err != nil {
			t.Fatal(err)
		}
		edge.want(t, "edge", limiter.Critical, "")
		between.want(t, "between", limiter.Unspecified, "CRITICAL")
		last.want(t, "last", limiter.Critical, "")
		if b, err := baggage.Parse(last.baggage[0]); err != nil || b.Member("tenant").Value() != "7" {
			t.Errorf("the caller's own baggage came as %q, %v", last.baggage, err)
		}
	})
}

// A server without our interceptors, but with our client's: what came in goes on, if it can be read, up to the
// ceiling.
func TestIncomingHeaderIsCarriedOn(t *testing.T) {
	inBoth(t, func(t *testing.T, ask func(context.Context, testpb.TestServiceClient) error) {
		trusting := []Option{WithCriticalityCeiling(limiter.CriticalPlus)}
		for _, c := range []struct {
			opts []ClientOption
			said []string // pairs
			want string
		}{
			{nil, nil, ""},
			{nil, []string{CriticalityHeader, "SHEDDABLE"}, "SHEDDABLE"},
			{nil, []string{CriticalityHeader, "CRITICAL_PLUS"}, "CRITICAL"},
			{[]ClientOption{WithCriticalityCeiling(limiter.CriticalPlus)}, []string{CriticalityHeader, "CRITICAL_PLUS"}, "CRITICAL_PLUS"},
			{nil, []string{CriticalityHeader, "HIGH"}, ""},
			{nil, []string{CriticalityHeader, "SHEDDABLE", CriticalityHeader, "SHEDDABLE"}, ""},
			{nil, []string{baggageHeader, "spillway.criticality=SHEDDABLE"}, ""},
			{[]ClientOption{WithCriticalityBaggage()}, []string{baggageHeader, "spillway.criticality=SHEDDABLE"}, "SHEDDABLE"},
		} {
			last := newHop(t, nil, protected(t, trusting...), DialOptions(c.opts...)...)
			bare := newHop(t, last, nil)
			if err := ask(metadata.AppendToOutgoingContext(t.Context(), c.said...), bare); err != nil {
				t.Fatal(err)
			}
			want, _ := parseLevel(c.want)
			last.want(t, c.want, want, c.want)
		}
	})
}

// The header is sent once, and what the application puts there itself stays.
func TestExplicitHeaderStays(t *testing.T) {
	inBoth(t, func(t *testing.T, ask func(context.Context, testpb.TestServiceClient) error) {
		twice := append(DialOptions(WithCriticalityBaggage()), DialOptions(WithCriticalityBaggage())...)
		h := newHop(t, nil, protected(t), twice...)
		ctx := limiter.ContextWithCriticality(t.Context(), limiter.SheddablePlus)
		if err := ask(ctx, h); err != nil {
			t.Fatal(err)
		}
		h.want(t, "twice the options", limiter.SheddablePlus, "SHEDDABLE_PLUS")
		if len(h.baggage) != 1 || h.baggage[0] != "spillway.criticality=SHEDDABLE_PLUS" {
			t.Errorf("baggage %q", h.baggage)
		}
		if err := ask(metadata.AppendToOutgoingContext(ctx, "Spillway-Criticality", "SHEDDABLE"), h); err != nil {
			t.Fatal(err)
		}
		h.want(t, "an explicit header", limiter.Sheddable, "SHEDDABLE")
		if len(h.baggage) != 1 || h.baggage[0] != "spillway.criticality=SHEDDABLE" {
			t.Errorf("baggage %q", h.baggage)
		}
		if err := ask(metadata.AppendToOutgoingContext(ctx, CriticalityHeader, "HIGH"), h); err != nil {
			t.Fatal(err)
		}
		h.want(t, "an explicit header of another meaning", limiter.Unspecified, "HIGH")
	})
}

// A method that is exempt from the limit carries on what it was asked with all the same.
func TestExemptMethodsCarryOn(t *testing.T) {
	inBoth(t, func(t *testing.T, ask func(context.Context, testpb.TestServiceClient) error) {
		all := WithExempt(selector.MatchFunc(func(context.Context, calls.CallMeta) bool { return true }))
		last := newHop(t, nil, protected(t), DialOptions()...)
		exempt := newHop(t, last, protected(t, all), DialOptions()...)
		if err := ask(limiter.ContextWithCriticality(t.Context(), limiter.Sheddable), exempt); err != nil {
			t.Fatal(err)
		}
		exempt.want(t, "exempt", limiter.Sheddable, "SHEDDABLE")
		last.want(t, "last", limiter.Sheddable, "SHEDDABLE")
	})
}
