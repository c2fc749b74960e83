package interceptors

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

// Under a lasting overload a caller sends little more than is taken, whatever the overload, and wherever it began.
func TestThrottleFindsTheShare(t *testing.T) {
	for _, overload := range []float64{1.5, 2, 3, 10, 40} {
		for _, start := range []float64{0, 0.5, 1 - leastShare} {
			rng := rand.New(rand.NewPCG(uint64(overload*10), uint64(start*10)))
			th := throttle{missing: start, last: time.Now()}
			var offered, sent, refused float64
			for i := range 40_000 {
				now := th.last
				ok := th.send(now, 1, int64(i))
				judged := i >= 10_000
				if judged {
					offered++
				}
				share := th.share()
				if ok {
					q := min(1, 1/(overload*share))
					if judged {
						sent++
					}
					if rng.Float64() < q {
						pressure := max(0, min(1, (overload*share-.8)/.2)) // as limiter.Pressure has it
						th.answered(now, throttleSlow+(1-pressure)*throttleFree)
					} else {
						th.refused(now, now, throttleBack)
						if judged {
							refused++
						}
					}
				}
			}
			if good := (sent - refused) / offered * overload; good < .95 {
				t.Errorf("at an overload of %v, from %v: %.3f of the capacity used, want .95", overload, start, good)
			}
			// Up to an overload of 3 the share climbs quickly at each answer that comes without pressure.
			most := .05
			if overload <= 3 {
				most = .1
			}
			if part := refused / offered; part > most {
				t.Errorf("at an overload of %v, from %v: %.3f of the calls sent and refused, want at most %v", overload, start, part, most)
			}
		}
	}
}

// Callers that begin with different shares come to the same.
func TestThrottlesAreFair(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	now := time.Now()
	callers := make([]*throttle, 10)
	for i := range callers {
		callers[i] = &throttle{missing: .9 * float64(i%2), last: now}
	}
	sent := make([]float64, len(callers))
	for round := range 4000 {
		all := 0.
		for _, c := range callers {
			all += c.share()
		}
		q := min(1, 1/all) // one of ten can be served
		for i, c := range callers {
			if !c.send(now, 1, int64(round)) {
				continue
			}
			if round >= 1000 {
				sent[i]++
			}
			if rng.Float64() < q {
				c.answered(now, throttleSlow)
			} else {
				c.refused(now, now, throttleBack)
			}
		}
	}
	var sum, squares float64
	for _, n := range sent {
		sum += n
		squares += n * n
	}
	if jain := sum * sum / squares / float64(len(sent)); jain < .98 {
		t.Errorf("Jain's index %.3f of %v, want .98", jain, sent)
	}
}

// One of ten servers that refuses all hurts the calls to itself alone.
func TestOneServerThatLiesHurtsItsOwnCalls(t *testing.T) {
	now := time.Now()
	var th throttle
	sent := 0
	for i := range 10_000 {
		if !th.send(now, 1, int64(i)) {
			continue
		}
		sent++
		if i%10 == 0 {
			th.refused(now, now, throttleBack)
		} else {
			th.answered(now, throttleSlow+throttleFree)
		}
	}
	if sent < 9_800 {
		t.Errorf("%d of 10000 sent, want nearly all", sent)
	}
}

// What is not heard of for long is forgotten, and while it is not, one call in 64 is a probe.
func TestThrottleProbesAndForgets(t *testing.T) {
	now := time.Now()
	var th throttle
	for range 1000 {
		th.refused(now, now, throttleBack)
	}
	sent := 0
	for i := range 640 {
		if th.send(now, 1, int64(i)) {
			sent++
		}
	}
	if sent < 10 || sent > 11 {
		t.Errorf("%d probes in 640 calls, want 10 or 11", sent)
	}
	now = now.Add(throttleMemory + 1)
	for i := range 10 {
		if !th.send(now, 1, int64(640+i)) {
			t.Error("not all are sent after a long silence")
		}
	}
}

// As many calls are sent in a second as before when there are more of them, or fewer: after a spike all, and soon.
func TestThrottleKeepsTheRateWhenTheLoadChanges(t *testing.T) {
	now := time.Now()
	var th throttle
	for range 16 {
		th.refused(now, now, throttleBack)
	}
	before, calls := th.share(), int64(0)
	sent := func(perSecond int, d time.Duration) (n float64) {
		for range int(d.Seconds() * float64(perSecond)) {
			now = now.Add(time.Second / time.Duration(perSecond))
			calls++
			if th.send(now, 1, calls) {
				n++
				th.answered(now, 0) // so that nothing is forgotten
			}
		}
		return n / d.Seconds()
	}
	want := before * 200
	for _, load := range []struct {
		perSecond int
		change    time.Duration // in which it is noticed
	}{{200, 0}, {400, 2 * time.Second}, {100, 2 * time.Second}, {200, 2 * time.Second}} {
		sent(load.perSecond, max(time.Second, load.change))
		if got := sent(load.perSecond, 5*time.Second); math.Abs(got/want-1) > .1 {
			t.Errorf("%.1f calls a second sent of %d, want %.1f", got, load.perSecond, want)
		}
	}
	sent(28, 500*time.Millisecond)
	if got := sent(28, time.Second); got != 28 {
		t.Errorf("%v of 28 calls sent where %.1f a second are taken, want all", got, want)
	}
}

// Many refusals that come at once, of calls that were sent before the first of them, halve the share at most, and those of
// calls that were sent after it take more.
func TestOneRoundHalvesTheShareAtMost(t *testing.T) {
	began := time.Now()
	now := began.Add(300 * time.Millisecond)
	var th throttle
	for range 20 {
		th.refused(now, began, throttleBack)
	}
	if got := th.share(); got != .5 {
		t.Errorf("a share of %v after a round of refusals, want .5", got)
	}
	for range 20 {
		th.refused(now.Add(300*time.Millisecond), now, throttleBack)
	}
	if got := th.share(); got != .25 {
		t.Errorf("a share of %v after the next, want .25", got)
	}
}

// A caller that serves a request itself leaves it to its own callers to send less.
func TestThoseWhoServeHoldBackLess(t *testing.T) {
	client := &call{ctx: t.Context()}
	server := &call{ctx: grpc.NewContextWithServerTransportStream(t.Context(), transport{})}
	if c, s := client.back(), server.back(); c != throttleBack || s != throttleBackServing || s >= c {
		t.Errorf("a refusal takes %v of a client's share and %v of a server's, want less of the latter", c, s)
	}
}

// A call that its callee would refuse is not sent; the answer says so, and matches like any refusal. What is more
// critical is sent all the same. When the server has room again, all are.
func TestRefusedCallsAreNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		came := 0
		overloaded := true
		svc := &service{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			came++
			if overloaded && limiter.CriticalityFromContext(ctx) == limiter.Sheddable {
				return nil, errThrottled
			}
			return &testpb.SimpleResponse{}, nil
		}}
		s := newServer(t)
		defer s.Close()
		c := newClient(t)
		conn, _ := serve(t, svc, s.ServerOptions(), c.DialOptions()...)
		client := testpb.NewTestServiceClient(conn)
		ask := func(criticality limiter.Criticality, times int) (sent, failed int) {
			before := came
			ctx := limiter.ContextWithCriticality(t.Context(), criticality)
			for range times {
				_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{})
				if err == nil {
					continue
				}
				failed++
				if status.Code(err) != codes.ResourceExhausted {
					t.Fatalf("%v", err)
				}
				if errors.Is(err, ErrNotSent) && !errors.Is(err, limiter.ErrRefused) {
					t.Fatalf("%v is not sent, and not refused", err)
				}
			}
			return came - before, failed
		}
		if sent, failed := ask(limiter.Sheddable, 1000); sent > 100 || failed != 1000 {
			t.Errorf("%d of 1000 sent while all are refused, %d failed", sent, failed)
		}
		if sent, failed := ask(limiter.Critical, 100); sent != 100 || failed != 0 {
			t.Errorf("%d of 100 sent that are not refused, %d failed", sent, failed)
		}
		overloaded = false
		ask(limiter.Sheddable, 700) // some probes
		if sent, failed := ask(limiter.Sheddable, 100); sent != 100 || failed != 0 {
			t.Errorf("%d of 100 sent after the overload, %d failed", sent, failed)
		}
	})
}

// A call that has less time left than the quickest answer takes is not sent.
func TestTooLateIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		came := 0
		conn, _ := serve(t, &service{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			came++
			time.Sleep(50 * time.Millisecond)
			return &testpb.SimpleResponse{}, nil
		}}, nil, newClient(t).DialOptions()...)
		client := testpb.NewTestServiceClient(conn)
		for range 20 {
			if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		for left, want := range map[time.Duration]int{20 * time.Millisecond: 20, 100 * time.Millisecond: 21} {
			ctx, cancel := context.WithTimeout(t.Context(), left)
			_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{})
			cancel()
			if came = min(came, 21); left < 50*time.Millisecond {
				if !errors.Is(err, ErrNotSent) {
					t.Errorf("with %v left: %v", left, err)
				}
			} else if err != nil || came != want {
				t.Errorf("with %v left: %v, %d came", left, err, came)
			}
		}
	})
}

// A server under pressure tells its caller, also of what it met further down; one without says nothing.
func TestNewsTravelUpward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var leafSays error
		leaf, _ := serve(t, &service{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			return &testpb.SimpleResponse{}, leafSays
		}}, nil, newClient(t).DialOptions()...)
		below := testpb.NewTestServiceClient(leaf)
		// The middle hides what its callee said from its caller.
		p := connect(t, &service{unary: func(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			_, _ = below.UnaryCall(ctx, r)
			return &testpb.SimpleResponse{}, nil
		}}, nil)
		said := func() news {
			t.Helper()
			var md metadata.MD
			if _, err := p.UnaryCall(t.Context(), &testpb.SimpleRequest{}, grpc.Trailer(&md)); err != nil {
				t.Fatal(err)
			}
			n, why := parseNews(md)
			if why != notIgnored {
				t.Errorf("the trailers %v are ignored: %v", md, why)
			}
			return n
		}
		if n := said(); n != (news{}) {
			t.Errorf("%+v said without any pressure", n)
		}
		leafSays = errThrottled
		if n := said(); n.pressure != 1 || n.mark != 1 {
			t.Errorf("%+v said of a refusal further down, want a pressure and a mark of 1", n)
		}
	})
}

func TestNewsFromStrangers(t *testing.T) {
	for _, c := range []struct {
		values   []string
		pressure float64
		why      ignored
	}{
		{nil, 0, notIgnored},
		{[]string{"1;p=87"}, .87, notIgnored},
		{[]string{"1;p=100"}, 1, notIgnored},
		{[]string{"1;p=87;q=1;r"}, .87, notIgnored}, // of a later version that this one can read too
		{[]string{"1;p=87;"}, .87, notIgnored},
		{[]string{"1;p=;q=1"}, 0, malformed},
		{[]string{"1;p=101"}, 0, malformed},
		{[]string{"1;p=-1"}, 0, malformed},
		{[]string{"1;p=NaN"}, 0, malformed},
		{[]string{"1;p="}, 0, malformed},
		{[]string{"2;p=87"}, 0, unknown},
		{[]string{""}, 0, unknown},
		{[]string{"1;p=87", "1;p=87"}, 0, doubled},
		{[]string{string(make([]byte, 1<<20))}, 0, oversized},
	} {
		n, why := parseNews(metadata.MD{LoadTrailer: c.values})
		if math.Abs(n.pressure-c.pressure) > 1e-9 || n.mark != 0 || why != c.why {
			t.Errorf("%.30q: %+v, %v; want a pressure of %v, %v", c.values, n, why, c.pressure, c.why)
		}
		marks := slices.Clone(c.values)
		for i := range marks {
			marks[i] = strings.Replace(marks[i], "p=", "m=", 1)
		}
		n, why = parseNews(metadata.MD{LoadTrailer: {"1;p=5"}, MarkTrailer: marks})
		if n.pressure != .05 || math.Abs(n.mark-c.pressure) > 1e-9 || why != c.why {
			t.Errorf("%.30q: %+v, %v; want a pressure of .05 and a mark of %v, %v", marks, n, why, c.pressure, c.why)
		}
	}
}

func FuzzNews(f *testing.F) {
	f.Add("1;p=87", "")
	f.Add("1;p=", "1;m=9")
	f.Add("1;m=9;q=1", "1;p=9;")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, trailer := range []metadata.MD{{LoadTrailer: {a}}, {LoadTrailer: {a}, MarkTrailer: {b}}, {LoadTrailer: {a, b}, MarkTrailer: {b, a}}} {
			n, why := parseNews(trailer)
			if !(n.pressure >= 0 && n.pressure <= 1 && n.mark >= 0 && n.mark <= 1) || why != notIgnored && n.pressure != 0 && n.mark != 0 {
				t.Fatalf("%q: %+v, %v", trailer, n, why)
			}
		}
	})
}

// Whatever names are called, memory is bounded.
func TestCalleesAreBounded(t *testing.T) {
	var c callees
	first := c.of("a", "first")
	for i := range 3 * maxCallees {
		c.of("a", string(rune(i)))
	}
	if got := len(c.known.all()); got != maxCallees {
		t.Errorf("%d remembered, want %d", got, maxCallees)
	}
	if c.of("a", "first") != first || c.of("b", "late") != &c.other {
		t.Error("the first is forgotten, or one too many is not among the others")
	}
}
