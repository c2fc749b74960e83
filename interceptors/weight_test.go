package interceptors

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/spillway-go/spillway/limiter"
)

// bySize weighs a request by its payload, a unit for each byte.
func bySize(_ context.Context, _ string, req any) int {
	switch r := req.(type) {
	case *testpb.SimpleRequest:
		return len(r.GetPayload().GetBody())
	case *testpb.StreamingOutputCallRequest:
		return len(r.GetPayload().GetBody())
	default:
		return 0
	}
}

func payload(size int) *testpb.Payload { return &testpb.Payload{Body: make([]byte, size)} }

// A unary request, and each message of a stream, takes as much of the limit as it weighs, for as long as it is worked on.
func TestWeight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p *pair
		var seen []int
		look := func() { seen = append(seen, p.server.Limiter().Stats().InFlight) }
		svc := &service{
			unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
				look()
				return &testpb.SimpleResponse{}, nil
			},
			duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
				look() // opened, and nothing read yet
				for {
					if _, err := stream.Recv(); err != nil {
						look()
						return nil
					}
					look()
					if err := stream.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
						return err
					}
				}
			},
		}
		p = connect(t, svc, limit(50, WithWeight(bySize)))
		for _, size := range []int{7, 0, 1000} { // none weighs less than 1, and none more than the limit
			if _, err := p.UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: payload(size)}); err != nil {
				t.Fatal(err)
			}
		}
		stream, err := p.FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{3, 20} {
			if err := stream.Send(&testpb.StreamingOutputCallRequest{Payload: payload(size)}); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n := p.server.Limiter().Stats().InFlight; n != 0 {
				t.Errorf("%d in flight of an idle stream", n)
			}
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err == nil {
			t.Fatal("the stream goes on")
		}
		if want := []int{7, 1, 50, 1, 3, 20, 1}; !slices.Equal(seen, want) {
			t.Errorf("in flight %v, want %v", seen, want)
		}
	})
}

// What the methods of a server cost is learned by their names.
func TestMethodsAreLearnedByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		defer s.Close()
		for i := range 170 {
			name, stay := "/a.B/Light", 2*time.Millisecond
			if i%17 == 16 {
				name, stay = "/a.B/Heavy", 100*time.Millisecond
			}
			_, err := s.unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: name}, func(context.Context, any) (any, error) {
				time.Sleep(stay)
				return nil, nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		costs := s.Settings().Costs
		if len(costs) != 2 || costs[0].Name != "/a.B/Heavy" || costs[0].Stay < 40*costs[1].Stay {
			t.Errorf("%v, want /a.B/Heavy at 50 times /a.B/Light", costs)
		}
	})
}

// A report runs on as many workers as it has parts.
func ExampleWithWeight() {
	type report struct{ parts int }
	protection, err := NewServer(
		WithLimiterOptions(limiter.WithFixedLimit(10)),
		WithWeight(func(_ context.Context, _ string, req any) int {
			if r, ok := req.(*report); ok {
				return r.parts
			}
			return 1
		}),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer protection.Close()
	_, err = protection.UnaryInterceptor()(context.Background(), &report{parts: 4}, &grpc.UnaryServerInfo{FullMethod: "/acme.v1.Reports/Make"},
		func(context.Context, any) (any, error) {
			fmt.Println(protection.Limiter().Stats().InFlight, "of", protection.Limiter().Stats().Limit)
			return nil, nil
		})
	fmt.Println(err)
	// Output:
	// 4 of 10
	// <nil>
}
