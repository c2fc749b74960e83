package interceptors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/spillway-go/spillway/limiter"
)

// fromAnother returns a context like those of the requests of one connection more.
func fromAnother(ctx context.Context) context.Context { return peer.NewContext(ctx, &peer.Peer{}) }

// Whoever is refused seldom learns why, and who is refused often learns it often enough.
func TestFirstRefusalsOfASecondHaveDetails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, limit(1)...)
		defer fill(t, s.Limiter())()
		detailed := func(ctx context.Context) int {
			_, err := s.tap(ctx, &tap.Info{FullMethodName: "/a.B/C"})
			if !IsRefusal(err) || !errors.Is(err, limiter.ErrRefused) || status.Convert(err).Message() != messageOverloaded {
				t.Fatalf("%v, want a refusal", err)
			}
			return len(status.Convert(err).Details())
		}
		busy := fromAnother(t.Context())
		for second := range 3 {
			for i := range 20 {
				want := 2
				if i >= detailsASecond {
					want = 0
				}
				if got := detailed(busy); got != want {
					t.Errorf("refusal %d of second %d has %d details, want %d", i, second, got, want)
				}
			}
			if got := detailed(fromAnother(t.Context())); got != 2 {
				t.Errorf("another connection's first refusal has %d details, want 2", got)
			}
			if !s.details.due(busy, limiter.ReasonDeadline, time.Now()) {
				t.Error("the first refusal for another reason has no details")
			}
			time.Sleep(time.Second)
		}
		for range 2 * detailsASecond {
			if got := detailed(t.Context()); got != 2 {
				t.Fatalf("a request of no connection is refused with %d details, want 2", got)
			}
		}
	})
}

// However many connections there are, and whatever slots they meet in, none loses what it is due.
func TestNobodyTakesDetailsFromOthers(t *testing.T) {
	d, now := newDetails(), time.Now()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			var connections [3 * detailSlots]context.Context
			for i := range connections {
				connections[i] = fromAnother(context.Background())
			}
			for turn := range detailsASecond {
				for i, ctx := range connections {
					if !d.due(ctx, limiter.ReasonLimit, now) {
						t.Errorf("refusal %d of connection %d is due no details", turn, i)
						return
					}
				}
			}
		})
	}
	all.Wait()
}

// A client of this package takes a NO without details as it takes one with.
func TestCallersKnowABriefRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, &service{}, limit(1))
		defer fill(t, p.server.Limiter())()
		seen := map[int]int{}
		for i := range 3 * detailsASecond {
			var err error
			if i%3 == 0 {
				var stream grpc.BidiStreamingClient[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]
				if stream, err = p.FullDuplexCall(t.Context()); err == nil {
					_, err = stream.Recv()
				}
			} else {
				_, err = p.UnaryCall(t.Context(), &testpb.SimpleRequest{})
			}
			if !IsRefusal(err) {
				t.Errorf("call %d: %v, want a refusal", i, err)
			}
			if wrapped := fmt.Errorf("the shop: %w", err); !IsRefusal(wrapped) {
				t.Errorf("call %d: %v is no refusal", i, wrapped)
			}
			var s standing
			s.learn(limiter.Critical, time.Now(), time.Now(), err, news{}, throttleBack)
			if s.foreign.Load() {
				t.Errorf("call %d: taken for somebody else's refusal", i)
			}
			seen[len(status.Convert(err).Details())]++
		}
		if seen[2] != detailsASecond || seen[0] != 2*detailsASecond {
			t.Errorf("refusals by their number of details: %v, want %d with 2", seen, detailsASecond)
		}
	})
}

// Words alone make no refusal, nor do the right ones in the wrong place.
func TestForeignStatusesAreNoRefusals(t *testing.T) {
	with := func(message string, detail *errdetails.ErrorInfo) error {
		st, err := status.New(codes.ResourceExhausted, message).WithDetails(detail)
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	for _, c := range []struct {
		err  error
		want refuser
	}{
		{status.Error(codes.ResourceExhausted, messageOverloaded), spillway},
		{status.Error(codes.ResourceExhausted, messageTooLate), spillway},
		{with("whatever", &errdetails.ErrorInfo{Domain: Domain}), spillway},
		{errThrottled, spillway},
		{with(messageOverloaded, &errdetails.ErrorInfo{Domain: "acme", Reason: "QUOTA"}), somebody},
		{status.Error(codes.ResourceExhausted, ""), somebody},
		{status.Error(codes.ResourceExhausted, messageOverloaded+"!"), somebody},
		{status.Error(codes.ResourceExhausted, "the shop: "+messageTooLate), somebody},
		{status.Error(codes.ResourceExhausted, strings.ToUpper(messageOverloaded)), somebody},
		{status.Error(codes.Unavailable, messageOverloaded), nobody},
		{status.Error(codes.OK, messageOverloaded), nobody},
		{errors.New(messageOverloaded), nobody},
		{io.EOF, nobody},
		{ErrDraining, nobody},
		{errBroken, nobody},
		{nil, nobody},
	} {
		if got := refusedBy(c.err); got != c.want {
			t.Errorf("%v is refused by %d, want %d", c.err, got, c.want)
		}
	}
	if got := verdictOn(status.Error(codes.Unavailable, messageOverloaded), true); got != failed {
		t.Errorf("a failure in the words of a refusal is judged %d, want %d: a broken callee must not pass for a busy one", got, failed)
	}
}
