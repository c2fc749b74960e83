package interceptors

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

// newAnswering returns a client of a server that answers by f.
func newAnswering(t *testing.T, f func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error), opts ...ClientOption) testpb.TestServiceClient {
	t.Helper()
	conn, _ := serve(t, &service{unary: f}, nil, newClient(t, opts...).DialOptions()...)
	return testpb.NewTestServiceClient(conn)
}

func TestFallbackAnswersWhereThereIsNoAnswer(t *testing.T) {
	for code, asked := range map[codes.Code]bool{
		codes.OK: false, codes.NotFound: false, codes.InvalidArgument: false, codes.Canceled: false, codes.Aborted: false,
		codes.ResourceExhausted: true, codes.Unavailable: true, codes.Internal: true, codes.Unknown: true, codes.DeadlineExceeded: true,
	} {
		t.Run(code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told error
				client := newAnswering(t, func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
					return &testpb.SimpleResponse{Username: "callee"}, status.Error(code, "")
				}, WithFallback("/grpc.testing.TestService/*", func(_ context.Context, method string, req, reply any, cause error) error {
					told = cause
					reply.(*testpb.SimpleResponse).Username = method + fmt.Sprint(req.(*testpb.SimpleRequest).ResponseSize)
					return nil
				}))
				answer, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{ResponseSize: 7})
				if got := told != nil; got != asked {
					t.Fatalf("asked: %v, want %v", got, asked)
				}
				if !asked {
					if status.Code(err) != code {
						t.Errorf("%v, want %v", err, code)
					}
					return
				}
				if err != nil || answer.Username != "/grpc.testing.TestService/UnaryCall7" || status.Code(told) != code {
					t.Errorf("%v, %v for the cause %v", answer, err, told)
				}
			})
		})
	}
}

// What is not sent has a fallback too, which is told why; and a fallback may have nothing to say.
func TestFallbackOfWhatIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refusal := error(errThrottled)
		locally := map[string]int{}
		client := newAnswering(t, func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			return nil, refusal
		}, WithFallback("/grpc.testing.TestService/UnaryCall", func(_ context.Context, _ string, _, _ any, cause error) error {
			if errors.Is(cause, ErrNotSent) {
				locally[fmt.Sprintf("%v refused: %v", status.Code(cause), errors.Is(cause, limiter.ErrRefused))]++
			}
			return fmt.Errorf("and nothing else: %w", cause)
		}))
		for range 100 {
			if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "nothing else") {
				t.Fatal(err)
			}
		}
		time.Sleep(throttleMemory + 1)
		refusal = status.Error(codes.Internal, "")
		for range 100 {
			_, _ = client.UnaryCall(t.Context(), &testpb.SimpleRequest{})
		}
		if len(locally) != 2 || locally["ResourceExhausted refused: true"] == 0 || locally["Unavailable refused: false"] == 0 {
			t.Errorf("told %v", locally)
		}
	})
}

func TestFallbackOptionErrors(t *testing.T) {
	f := func(context.Context, string, any, any, error) error { return nil }
	store, err := NewLastGood(time.Minute, 1<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	for want, opts := range map[string][]ClientOption{
		"WithFallback(nil)":                        {WithFallback("/a.B/C", nil)},
		`WithFallback("C")`:                        {WithFallback("C", f)},
		`WithFallback("/a.B/C"): it has`:           {WithFallback("/a.B/C", f), WithFallback("/a.B/C", f)},
		`WithLastGood("/a.B/*"): it has`:           {WithFallback("/a.B/*", f), WithLastGood("/a.B/*", store)},
		"WithLastGood(nil)":                        {WithLastGood("/a.B/C", nil)},
		`WithLastGood("/a.B"); want a full method`: {WithLastGood("/a.B", store)},
	} {
		if _, err := NewClient(opts...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an error that says %s", err, want)
		}
	}
	for _, c := range []struct {
		age   time.Duration
		bytes int
	}{{0, 1}, {-1, 1}, {1, 0}, {1, -1}} {
		if _, err := NewLastGood(c.age, c.bytes, nil); err == nil || !strings.Contains(err.Error(), "NewLastGood(") {
			t.Errorf("%v, %d: %v, want an error that names it", c.age, c.bytes, err)
		}
	}
}
