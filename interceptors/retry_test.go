package interceptors

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// retried is the method that the tests call.
const retried = "/grpc.testing.TestService/UnaryCall"

// shop has a descriptor with a method of each idempotency level.
func shop(t *testing.T) *protoregistry.Files {
	t.Helper()
	method := func(name string, level *descriptorpb.MethodOptions_IdempotencyLevel) *descriptorpb.MethodDescriptorProto {
		m := &descriptorpb.MethodDescriptorProto{
			Name:       proto.String(name),
			InputType:  proto.String(".google.protobuf.Empty"),
			OutputType: proto.String(".google.protobuf.Empty"),
		}
		if level != nil {
			m.Options = &descriptorpb.MethodOptions{IdempotencyLevel: level}
		}
		return m
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name:       proto.String("acme/shop.proto"),
		Package:    proto.String("acme.v1"),
		Dependency: []string{emptypb.File_google_protobuf_empty_proto.Path()},
		Service: []*descriptorpb.ServiceDescriptorProto{{
			Name: proto.String("Shop"),
			Method: []*descriptorpb.MethodDescriptorProto{
				method("Browse", descriptorpb.MethodOptions_NO_SIDE_EFFECTS.Enum()),
				method("Cancel", descriptorpb.MethodOptions_IDEMPOTENT.Enum()),
				method("Pay", descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN.Enum()),
				method("Order", nil),
			},
		}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	files := new(protoregistry.Files)
	if err := files.RegisterFile(file); err != nil {
		t.Fatal(err)
	}
	return files
}

func TestServiceConfig(t *testing.T) {
	const (
		policy     = `"retryPolicy":` + retryPolicy
		throttling = `"retryThrottling":` + retryThrottling
		both       = `[{"service":"acme.v1.Shop","method":"Browse"},{"service":"acme.v1.Shop","method":"Cancel"}]`
		roundRobin = `"loadBalancingConfig":[{"round_robin":{}}]`
		ours       = `"loadBalancingConfig":[{"spillway_backends":{"childPolicy":[{"pick_first":{}}]}}]`
		oursRound  = `"loadBalancingConfig":[{"spillway_backends":{"childPolicy":[{"round_robin":{}}]}}]`
		theirs     = `"retryPolicy":{"maxAttempts":2,"initialBackoff":"1s","maxBackoff":"1s","backoffMultiplier":1,"retryableStatusCodes":["ABORTED"]}`
	)
	for _, c := range []struct {
		name    string
		strange bool // no descriptor has a word on it
		opts    []ClientOption
		want    string
	}{
		{name: "by descriptor", want: `{` + ours + `,"methodConfig":[{"name":` + both + `,` + policy + `}],` + throttling + `}`},
		{name: "nothing to retry", strange: true, want: `{` + ours + `}`},
		{
			name: "by the user's word", strange: true,
			opts: []ClientOption{WithIdempotent("/a.B/C", "/d.E/*"), WithIdempotent("/a.B/C")},
			want: `{` + ours + `,"methodConfig":[{"name":[{"service":"a.B","method":"C"},{"service":"d.E"}],` + policy + `}],` + throttling + `}`,
		},
		{name: "none", opts: []ClientOption{WithoutRetries(), WithIdempotent("/a.B/C")}, want: `{` + ours + `}`},
		{
			name: "none, and another service config",
			opts: []ClientOption{WithoutRetries(), WithServiceConfig(`{ ` + roundRobin + ` }`)},
			want: `{` + oursRound + `}`,
		},
		{
			name: "besides another service config",
			opts: []ClientOption{WithServiceConfig(`{` + roundRobin + `,"methodConfig":null}`)},
			want: `{` + oursRound + `,"methodConfig":[{"name":` + both + `,` + policy + `}],` + throttling + `}`,
		},
		{
			name: "around a policy as it was named of old", strange: true,
			opts: []ClientOption{WithServiceConfig(`{"loadBalancingPolicy":"round_robin"}`)},
			want: `{"loadBalancingConfig":[{"spillway_backends":{"childPolicy":[{"round_robin":{}},{"pick_first":{}}]}}]}`,
		},
		{
			name: "with our policy there already", strange: true,
			opts: []ClientOption{WithServiceConfig(`{` + oursRound + `}`)},
			want: `{` + oursRound + `}`,
		},
		{
			name: "besides what holds for all of a service", strange: true,
			opts: []ClientOption{WithIdempotent("/a.B/C"), WithServiceConfig(`{"methodConfig":[{"name":[{"service":"a.B"}],"waitForReady":true}]}`)},
			want: `{` + ours + `,"methodConfig":[{"name":[{"service":"a.B","method":"C"}],` + policy + `,"waitForReady":true},` +
				`{"name":[{"service":"a.B"}],"waitForReady":true}],` + throttling + `}`,
		},
		{
			name: "besides what holds for all", strange: true,
			opts: []ClientOption{WithIdempotent("/a.B/*"), WithServiceConfig(`{"methodConfig":[{"name":[{}],"timeout":"1s"}]}`)},
			want: `{` + ours + `,"methodConfig":[{"name":[{"service":"a.B"}],` + policy + `,"timeout":"1s"},{"name":[{}],"timeout":"1s"}],` + throttling + `}`,
		},
		{
			name: "besides what holds for a method of the service", strange: true,
			opts: []ClientOption{WithIdempotent("/a.B/*"), WithServiceConfig(`{"methodConfig":[{"name":[{"service":"a.B","method":"C"},{"service":"d.E","method":"C"}],"timeout":"1s"}]}`)},
			want: `{` + ours + `,"methodConfig":[{"name":[{"service":"a.B","method":"C"}],` + policy + `,"timeout":"1s"},{"name":[{"service":"a.B"}],` + policy + `},` +
				`{"name":[{"service":"d.E","method":"C"}],"timeout":"1s"}],` + throttling + `}`,
		},
		{
			name: "besides retries of the user's own", strange: true,
			opts: []ClientOption{WithIdempotent("/a.B/C"), WithServiceConfig(`{"MethodConfig":[{"Name":[{"service":"a.B"}],` + theirs + `}],"RetryThrottling":{"maxTokens":5,"tokenRatio":1}}`)},
			want: `{"RetryThrottling":{"maxTokens":5,"tokenRatio":1},` + ours + `,"methodConfig":[{"name":[{"service":"a.B"},{"service":"a.B","method":"C"}],` + theirs + `}]}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := shop(t)
			if c.strange {
				files = nil
			}
			config, err := newClientConfig(c.opts)
			if err != nil {
				t.Fatal(err)
			}
			got, err := config.retries.serviceConfig(files)
			if err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			conn, err := grpc.NewClient("passthrough:///", grpc.WithDefaultServiceConfig(got), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatalf("gRPC: %v", err)
			}
			_ = conn.Close()
		})
	}
}

func TestRetryOptionErrors(t *testing.T) {
	for name, c := range map[string]struct {
		opts []ClientOption
		want string
	}{
		"no method":      {[]ClientOption{WithIdempotent()}, "WithIdempotent(); want the methods"},
		"no slash":       {[]ClientOption{WithIdempotent("a.B/C")}, `WithIdempotent("a.B/C"); want a full method`},
		"everything":     {[]ClientOption{WithIdempotent("*")}, `WithIdempotent("*"); want a full method`},
		"no JSON":        {[]ClientOption{WithServiceConfig("retry!")}, "want a JSON object with a service config"},
		"null":           {[]ClientOption{WithServiceConfig("null")}, "want a JSON object with a service config"},
		"a list":         {[]ClientOption{WithServiceConfig("[]")}, "want a JSON object with a service config"},
		"empty":          {[]ClientOption{WithServiceConfig("")}, "want a JSON object with a service config"},
		"no list":        {[]ClientOption{WithServiceConfig(`{"methodConfig":{}}`)}, "methodConfig is not what it should be"},
		"no name":        {[]ClientOption{WithServiceConfig(`{"methodConfig":[{}]}`)}, "methodConfig 0 has no name"},
		"no object":      {[]ClientOption{WithServiceConfig(`{"methodConfig":[null]}`)}, "methodConfig 0 has no name"},
		"a strange name": {[]ClientOption{WithServiceConfig(`{"methodConfig":[{"name":"a.B"}]}`)}, "methodConfig 0: name is not what it should be"},
		"a name twice": {
			[]ClientOption{WithServiceConfig(`{"methodConfig":[{"name":[{"service":"a.B"}]},{"name":[{"service":"a.B"}]}]}`)},
			"methodConfig 1: the name {Service:a.B Method:} is there already",
		},
		"no list of policies":              {[]ClientOption{WithServiceConfig(`{"loadBalancingConfig":{}}`)}, "loadBalancingConfig is not what it should be"},
		"no name of a policy":              {[]ClientOption{WithServiceConfig(`{"loadBalancingPolicy":1}`)}, "loadBalancingPolicy is not what it should be"},
		"twice":                            {[]ClientOption{WithServiceConfig("{}"), WithServiceConfig("{}")}, "WithServiceConfig is given twice"},
		"wrong where there are no retries": {[]ClientOption{WithoutRetries(), WithServiceConfig("[]")}, "want a JSON object with a service config"},
	} {
		if _, err := NewClient(c.opts...); err == nil || !strings.Contains(err.Error(), "interceptors: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want it to say %q", name, err, c.want)
		}
	}
	for _, opt := range []ClientOption{WithIdempotent(retried), WithoutRetries(), WithServiceConfig("{}")} {
		c := newClient(t)
		if err := c.SetOptions(opt); err == nil || !strings.Contains(err.Error(), "cannot be changed while connected") {
			t.Errorf("SetOptions: %v, want an error", err)
		}
	}
}

// flaky answers unary calls by what fail says of each, and counts what reaches it.
type flaky struct {
	testpb.TestServiceClient
	seen atomic.Int64
	last atomic.Int64 // what the last said of attempts before it
}

func newFlaky(t *testing.T, fail func(n int64) error, dial ...grpc.DialOption) *flaky {
	t.Helper()
	f := new(flaky)
	conn, _ := serve(t, &service{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		f.last.Store(int64(PreviousAttempts(ctx)))
		if err := fail(f.seen.Add(1)); err != nil {
			return nil, err
		}
		return &testpb.SimpleResponse{}, nil
	}}, nil, dial...)
	f.TestServiceClient = testpb.NewTestServiceClient(conn)
	return f
}

var errDown = status.Error(codes.Unavailable, "down")

func alwaysDown(int64) error { return errDown }

func TestWhatIsRetried(t *testing.T) {
	untilTheThird := func(code codes.Code) func(int64) error {
		return func(n int64) error {
			if n == 3 {
				return nil
			}
			return status.Error(code, "no")
		}
	}
	for name, c := range map[string]struct {
		opts     []ClientOption
		fail     func(int64) error
		attempts int64
		code     codes.Code
	}{
		"a callee that comes back":  {[]ClientOption{WithIdempotent(retried)}, untilTheThird(codes.Unavailable), 3, codes.OK},
		"a callee that does not":    {[]ClientOption{WithIdempotent(retried)}, alwaysDown, 3, codes.Unavailable},
		"all of a service":          {[]ClientOption{WithIdempotent("/grpc.testing.TestService/*")}, untilTheThird(codes.Unavailable), 3, codes.OK},
		"not a refusal":             {[]ClientOption{WithIdempotent(retried)}, untilTheThird(codes.ResourceExhausted), 1, codes.ResourceExhausted},
		"not a failure":             {[]ClientOption{WithIdempotent(retried)}, untilTheThird(codes.Internal), 1, codes.Internal},
		"not what nobody speaks of": {nil, untilTheThird(codes.Unavailable), 1, codes.Unavailable},
		"not another method":        {[]ClientOption{WithIdempotent("/grpc.testing.TestService/EmptyCall")}, untilTheThird(codes.Unavailable), 1, codes.Unavailable},
		"not without":               {[]ClientOption{WithIdempotent(retried), WithoutRetries()}, untilTheThird(codes.Unavailable), 1, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFlaky(t, c.fail, DialOptions(c.opts...)...)
				began := time.Now()
				if err := askUnary(t.Context(), f); status.Code(err) != c.code {
					t.Errorf("%v, want %v", err, c.code)
				}
				if got := f.seen.Load(); got != c.attempts {
					t.Errorf("%d attempts, want %d", got, c.attempts)
				}
				if got := f.last.Load(); got != c.attempts-1 {
					t.Errorf("the last attempt says %d before it, want %d", got, c.attempts-1)
				}
				if took := time.Since(began); c.attempts == 3 && (took < 240*time.Millisecond || took > 360*time.Millisecond) {
					t.Errorf("took %v, want .1 s and .2 s, a fifth more or less", took)
				}
			})
		})
	}
}

// Streams are retried as long as nothing has come back.
func TestStreamsAreRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var opened int
		conn, _ := serve(t, &service{duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
			if opened++; opened < 3 {
				return errDown
			}
			return echo(0).duplex(stream)
		}}, nil, DialOptions(WithIdempotent("/grpc.testing.TestService/*"))...)
		if err := askStream(t.Context(), testpb.NewTestServiceClient(conn), 2); err != nil || opened != 3 {
			t.Errorf("%v after %d attempts, want none after 3", err, opened)
		}
	})
}

// The bounds are those of retryThrottling's comment.
func TestRetriesAreATenth(t *testing.T) {
	for name, c := range map[string]struct {
		calls, together int
		failed          float64 // part of the attempts that fail
		most            int64   // retries
	}{
		"nothing works, a hundred calls":              {100, 1, 1, 9},
		"nothing works, a hundred calls at once":      {100, 100, 1, 9},
		"nothing works, a thousand calls":             {1000, 10, 1, 9},
		"half works":                                  {1000, 10, .5, 100},
		"a tenth fails":                               {1000, 10, .1, 100},
		"as much fails as can be retried for ever":    {1000, 10, .08, 100},
		"a hundredth fails":                           {1000, 10, .01, 100},
		"a hundredth fails, a thousand calls at once": {1000, 1000, .01, 100},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(1, 1))
				var mu sync.Mutex
				f := newFlaky(t, func(int64) error {
					mu.Lock()
					defer mu.Unlock()
					if rng.Float64() < c.failed {
						return errDown
					}
					return nil
				}, DialOptions(WithoutBreaker(), WithIdempotent(retried))...)
				var callers sync.WaitGroup
				for range c.together {
					callers.Go(func() {
						for range c.calls / c.together {
							_ = askUnary(t.Context(), f)
						}
					})
				}
				callers.Wait()
				if retries := f.seen.Load() - int64(c.calls); retries < 1 || retries > c.most {
					t.Errorf("%d retries of %d calls, want 1 to %d", retries, c.calls, c.most)
				} else {
					t.Logf("%d retries of %d calls", retries, c.calls)
				}
			})
		})
	}
}

// Whoever runs the servers has the last word: a service config that the resolver brings takes the place of ours.
func TestTheResolversServiceConfigHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := manual.NewBuilderWithScheme("passthrough")
		state := resolver.State{Addresses: []resolver.Address{{Addr: "bufconn"}}}
		r.InitialState(state)
		f := newFlaky(t, alwaysDown, append(DialOptions(WithIdempotent(retried)), grpc.WithResolvers(r))...)
		_ = askUnary(t.Context(), f)
		if got := f.seen.Load(); got != 3 {
			t.Errorf("%d attempts with our service config, want 3", got)
		}
		state.ServiceConfig = r.CC().ParseServiceConfig("{}")
		r.UpdateState(state)
		_ = askUnary(t.Context(), f)
		if got := f.seen.Load(); got != 4 {
			t.Errorf("%d attempts with the resolver's, want 1", got-3)
		}
	})
}
