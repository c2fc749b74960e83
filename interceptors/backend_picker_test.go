package interceptors

import (
	"context"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/spillway-go/spillway/limiter"
)

// inTurn is a child that picks backends in turn.
type inTurn struct {
	conns []*backendConn
	next  int
	given int // back, of what was picked
}

func newInTurn(n int) *inTurn {
	p := &inTurn{}
	for range n {
		p.conns = append(p.conns, &backendConn{backend: new(backend)})
	}
	return p
}

func (p *inTurn) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	sc := p.conns[p.next%len(p.conns)]
	p.next++
	return balancer.PickResult{SubConn: sc, Done: func(balancer.DoneInfo) { p.given++ }}, nil
}

// at returns which backend the last pick was of.
func (p *inTurn) at() int { return (p.next - 1) % len(p.conns) }

// picking returns what a picker is asked for a call.
func picking(c *callee) (balancer.PickInfo, *dispatch) {
	d := &dispatch{call: &call{ctx: context.Background(), policy: new(clientPolicy), callee: c, criticality: limiter.Critical}}
	return balancer.PickInfo{Ctx: context.WithValue(context.Background(), dispatchKey{}, d)}, d
}

// A hedge goes to another backend than its call, as long as the child has another that is well.
func TestHedgesLookElsewhere(t *testing.T) {
	for name, c := range map[string]struct {
		backends, pressed int
		want              int // backend
	}{
		"another":                     {backends: 3, want: 1},
		"another that is not pressed": {backends: 3, pressed: 1, want: 2},
		"the only one":                {backends: 1, want: 0},
		"none":                        {backends: 1, pressed: 1, want: -1},
	} {
		child := newInTurn(c.backends)
		picker := &backendPicker{child}
		_, d := picking(new(callee))
		for i := range c.pressed {
			child.conns[(1+i)%c.backends].backend.of(d.call.callee).pressed.Store(true)
		}
		hedge := &dispatch{call: d.call, hedge: true}
		d.call.dispatch.goes(child.conns[0].backend, false)
		got := -1
		if _, err := picker.Pick(balancer.PickInfo{Ctx: context.WithValue(t.Context(), dispatchKey{}, hedge)}); err == nil {
			got = child.at()
		}
		if got != c.want {
			t.Errorf("%s: to backend %d, want %d", name, got, c.want)
		}
	}
}

// overloaded is some backends that calls come to in turn.
type overloaded struct {
	child  *inTurn
	picker *backendPicker
	callee *callee
	came   []float64 // calls lately, as parts of what each can take
	served []int
}

func newOverloaded(n int) *overloaded {
	child := newInTurn(n)
	return &overloaded{child, &backendPicker{child}, new(callee), make([]float64, n), make([]int, n)}
}

// ask makes calls, of which a backend can take so many times fewer than are its part. It returns how many were sent.
func (o *overloaded) ask(rng *rand.Rand, calls int, overload func(backend int) float64) (sent, good int) {
	n := len(o.came)
	for range calls {
		for b := range o.came {
			o.came[b] *= 1 - 1/float64(50*n)
		}
		info, d := picking(o.callee)
		result, err := o.picker.Pick(info)
		if err != nil {
			continue
		}
		sent++
		b := o.child.at()
		o.came[b] += overload(b) / 50
		var answer error
		if rng.Float64() > 1/o.came[b] {
			answer = errThrottled
		} else {
			good++
			o.served[b]++
		}
		said := new(percentages).of(LoadTrailer, pressureField, int(100*max(0, min(1, (o.came[b]-.8)/.2)))) // as limiter.Pressure has it
		result.Done(balancer.DoneInfo{Err: answer, BytesSent: true, Trailer: said})
		n, _ := parseNews(said)
		_, _ = d.end(answer, n)
	}
	return sent, good
}

// While all backends have more to do than they can, little more is sent than they take, as much as where there is but
// one, and each gets as much.
func TestOverloadedBackendsShare(t *testing.T) {
	for _, overload := range []float64{1.5, 5, 10} {
		var usedOfOne, refusedOfOne float64
		for _, n := range []int{1, 2, 10} {
			rng := rand.New(rand.NewPCG(uint64(n), uint64(overload*10)))
			o := newOverloaded(n)
			all := func(int) float64 { return overload }
			calls := 3000 * n
			o.ask(rng, calls, all)
			clear(o.served)
			sent, good := o.ask(rng, calls, all)
			used, refused := float64(good)/float64(calls)*overload, float64(sent-good)/float64(calls)
			t.Logf("%d backends at an overload of %v: %.3f of the capacity used, %.3f of the calls sent and refused", n, overload, used, refused)
			if n == 1 {
				usedOfOne, refusedOfOne = used, refused
			}
			if used < usedOfOne-.05 || refused > refusedOfOne+.015 {
				t.Errorf("want it to be as with one")
			}
			if jain := jainOf(o.served); jain < .99 {
				t.Errorf("Jain's index %.3f of %v, want .99", jain, o.served)
			}
			if o.child.given != o.child.next {
				t.Errorf("the child heard of the end of %d picks of %d", o.child.given, o.child.next)
			}
		}
	}
}

func jainOf(served []int) float64 {
	var sum, squares float64
	for _, n := range served {
		sum += float64(n)
		squares += float64(n) * float64(n)
	}
	return sum * sum / squares / float64(len(served))
}

// What some backends cannot take goes to those that can, as far as these have room; and where none has, each takes what
// it can.
func TestBackendsTakeEachOthersCalls(t *testing.T) {
	for name, c := range map[string]struct {
		overload func(backend int) float64
		want     float64 // of the calls, at least
	}{
		"one refuses all":              {func(b int) float64 { return cond(b == 0, 1e9, .5) }, .99},
		"half refuse all":              {func(b int) float64 { return cond(b < 5, 1e9, .4) }, .98},
		"nine of ten refuse all":       {func(b int) float64 { return cond(b < 9, 1e9, .08) }, .9},
		"one has half of the room":     {func(b int) float64 { return cond(b == 0, 2., .7) }, .99},
		"half have a quarter":          {func(b int) float64 { return cond(b < 5, 4., .5) }, .95},
		"all too much, some even more": {func(b int) float64 { return cond(b < 5, 10., 2.) }, .95 * (.1 + .5) / 2},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			o := newOverloaded(10)
			o.ask(rng, 20_000, c.overload)
			sent, good := o.ask(rng, 20_000, c.overload)
			t.Logf("%.3f of the calls served, %.3f refused; by backend %v", float64(good)/20_000, float64(sent-good)/20_000, o.served)
			if float64(good) < c.want*20_000 {
				t.Errorf("%d of 20000 calls served, want %.3f of them", good, c.want)
			}
		})
	}
}

func cond(ok bool, yes, no float64) float64 {
	if ok {
		return yes
	}
	return no
}

// BenchmarkPick is what a look at a backend costs, beside what the child's pick costs: with a call that is taken, and
// with one that ten backends refuse.
func BenchmarkPick(b *testing.B) {
	child := newInTurn(10)
	b.Run("child", func(b *testing.B) {
		b.ReportAllocs()
		info, _ := picking(new(callee))
		for b.Loop() {
			_, _ = child.Pick(info)
		}
	})
	b.Run("taken", func(b *testing.B) {
		b.ReportAllocs()
		picker := &backendPicker{child}
		info, _ := picking(new(callee))
		for b.Loop() {
			result, err := picker.Pick(info)
			if err != nil {
				b.Fatal(err)
			}
			result.Done(balancer.DoneInfo{BytesSent: true})
		}
	})
	b.Run("refused", func(b *testing.B) {
		b.ReportAllocs()
		picker := &backendPicker{newInTurn(10)}
		info, d := picking(new(callee))
		for _, sc := range picker.child.(*inTurn).conns {
			sc.backend.of(d.call.callee).breaker = breaker{opened: 1, until: time.Now().Add(time.Hour)}
		}
		for b.Loop() {
			if _, err := picker.Pick(info); err == nil {
				b.Fatal("taken by what is broken")
			}
		}
	})
}

// BenchmarkCallsOfBackends is what a call costs with backends told apart, beside one with plain round_robin, by turns.
func BenchmarkCallsOfBackends(b *testing.B) {
	var services []*service
	for range 10 {
		services = append(services, &service{})
	}
	f := startFleet(b, services, WithExempt(selector.MatchFunc(everything)))
	connect := func(more ...grpc.DialOption) testpb.TestServiceClient {
		c, err := NewClient(WithServiceConfig(turnByTurn))
		if err != nil {
			b.Fatal(err)
		}
		conn, _ := f.dial(b, append(c.DialOptions(), more...)...)
		return testpb.NewTestServiceClient(conn)
	}
	clients := []testpb.TestServiceClient{connect(), connect(grpc.WithDefaultServiceConfig(turnByTurn))}
	var took [2]time.Duration
	var allocated [2]uint64
	for i := 0; b.Loop(); i++ {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		for range 200 {
			if _, err := clients[i%2].UnaryCall(b.Context(), &testpb.SimpleRequest{}); err != nil {
				b.Fatal(err)
			}
		}
		took[i%2] += time.Since(began)
		runtime.ReadMemStats(&after)
		allocated[i%2] += after.Mallocs - before.Mallocs
	}
	b.ReportMetric(float64(took[0])/float64(took[1]), "time/plain")
	b.ReportMetric(float64(allocated[0])/float64(allocated[1]), "allocs/plain")
}
