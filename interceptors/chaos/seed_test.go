package chaos

import (
	"context"
	"math"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// picks returns which of n calls, one after the other, each of the faults hits.
func picks(t *testing.T, s *Server, n int, faults ...Fault) []codes.Code {
	t.Helper()
	start(t, s, faults...)
	defer s.Stop()
	hit := make([]codes.Code, n)
	for i := range hit {
		_, err := s.unary(context.Background(), nil, &grpc.UnaryServerInfo{FullMethod: "/a.B/C"},
			func(context.Context, any) (any, error) { return nil, nil })
		hit[i] = status.Code(err)
	}
	return hit
}

func shareOf(share float64, code codes.Code) Fault {
	return Fault{Kind: Error, Code: code, Share: share, Methods: []string{"/a.B/C"}, For: time.Minute}
}

func TestASeedRepeatsAGame(t *testing.T) {
	const calls = 2000
	game := []Fault{shareOf(.1, codes.Aborted), shareOf(.1, codes.Internal)}
	first := newServer(t, WithSeed(7))
	once := picks(t, first, calls, game...)
	if again := picks(t, first, calls, game...); !slices.Equal(once, again) {
		t.Error("another Start with the same faults hits other calls")
	}
	if again := picks(t, newServer(t, WithSeed(first.Seed())), calls, game...); !slices.Equal(once, again) {
		t.Error("another server with the same seed hits other calls")
	}
	if other := picks(t, newServer(t, WithSeed(8)), calls, game...); slices.Equal(once, other) {
		t.Error("another seed hits the same calls")
	}
	if one, other := newServer(t), newServer(t); one.Seed() == other.Seed() {
		t.Error("two servers without a seed have the same")
	}
}

// A fault hits its share of what it sees, whatever the seed: within four standard deviations of a binomial.
func TestShares(t *testing.T) {
	const calls = 20_000
	for seed := range uint64(5) {
		for _, share := range []float64{.001, .01, .3, .5, .99, 1} {
			hit := picks(t, newServer(t, WithSeed(seed)), calls, shareOf(share, codes.Aborted))
			got := 0.0
			for _, code := range hit {
				if code == codes.Aborted {
					got++
				}
			}
			if off, sigma := math.Abs(got-calls*share), math.Sqrt(calls*share*(1-share)); off > 4*sigma {
				t.Errorf("seed %d: %v of %d calls hit with a share of %v, %.1f standard deviations off", seed, got, calls, share, off/sigma)
			}
		}
	}
}

// One fault's choice says nothing of another's: of a tenth and a tenth of the rest.
func TestFaultsChooseForThemselves(t *testing.T) {
	const calls = 20_000
	s := newServer(t, WithSeed(3))
	both := 0.0
	f := shareOf(.1, codes.OK)
	f.Kind, f.Delay = Delay, time.Nanosecond
	start(t, s, f, shareOf(.1, codes.Internal))
	for range calls {
		before := s.Faults()[0].Injected
		_, err := s.unary(context.Background(), nil, &grpc.UnaryServerInfo{FullMethod: "/a.B/C"},
			func(context.Context, any) (any, error) { return nil, nil })
		if err != nil && s.Faults()[0].Injected > before {
			both++
		}
	}
	s.Stop()
	if want, sigma := calls*.01, math.Sqrt(calls*.01*.99); math.Abs(both-want) > 4*sigma {
		t.Errorf("%v calls hit by both of two faults of a tenth, want about %v", both, want)
	}
}
