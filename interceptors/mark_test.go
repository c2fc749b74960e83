package interceptors

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/spillway-go/spillway/limiter"
)

// marking is a callee that does 200 calls a second, evenly, and whose line may stand for .2 s.
type marking struct {
	line  float64 // in calls
	last  time.Time
	calls int64
}

const (
	markingRate = 200.
	markingRoom = 40
)

// ask has a throttle's call answered if there is room in the line, and reports whether it was, and whether there was.
func (m *marking) ask(th *throttle, now time.Time) (sent, served bool) {
	m.line = max(0, m.line-now.Sub(m.last).Seconds()*markingRate)
	m.last = now
	m.calls++
	if !th.send(now, 1, m.calls) {
		return false, false
	}
	if m.line >= markingRoom {
		th.refused(now, now, throttleBack)
		return true, false
	}
	mark := m.line / markingRoom
	m.line++
	th.marked(now, news{pressure: 1, mark: mark})
	return true, true
}

// Under a lasting overload next to nothing is refused of what is sent to a callee that marks, and it has enough to do.
func TestMarksComeBeforeRefusals(t *testing.T) {
	for _, overload := range []float64{1.5, 2, 3, 10} {
		rng := rand.New(rand.NewPCG(uint64(overload*10), 1))
		now := time.Now()
		began := now
		m, th := &marking{last: now}, &throttle{}
		var served, refused, offered float64
		for now.Sub(began) < 200*time.Second {
			now = now.Add(time.Duration(rng.ExpFloat64() / (overload * markingRate) * float64(time.Second)))
			sent, ok := m.ask(th, now)
			if now.Sub(began) < 20*time.Second {
				continue
			}
			offered++
			if ok {
				served++
			} else if sent {
				refused++
			}
		}
		if used := served / 180 / markingRate; used < .99 {
			t.Errorf("at an overload of %v: %.3f of the capacity used, want .99", overload, used)
		}
		if part := refused / served; part > .005 {
			t.Errorf("at an overload of %v: a refusal for %.4f of the calls served, want .005 at most", overload, part)
		}
	}
}

// Callers that begin with different shares come to the same by marks alone.
func TestMarksAreFair(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	now := time.Now()
	began := now
	m := &marking{last: now}
	callers := make([]*throttle, 10)
	for i := range callers {
		callers[i] = &throttle{missing: .8 + .19*float64(i%2), last: now}
	}
	for now.Sub(began) < 100*time.Second {
		now = now.Add(time.Duration(rng.ExpFloat64() / (10 * markingRate) * float64(time.Second)))
		th := callers[rng.IntN(len(callers))]
		th.round = now // so that marks are believed
		m.ask(th, now)
	}
	var sum, squares float64
	for _, th := range callers {
		sum += th.share()
		squares += th.share() * th.share()
	}
	if jain := sum * sum / squares / float64(len(callers)); jain < .98 {
		t.Errorf("Jain's index of the shares is %.3f, want .98", jain)
	}
}

// Marks lower nothing where there was no refusal, no more than half of what a refusal left, and nothing long after it.
func TestMarksAreBelievedOnlyOfWhoRefuses(t *testing.T) {
	now := time.Now()
	var th throttle
	mark := func(seconds int) {
		for range 4 * seconds {
			now = now.Add(250 * time.Millisecond)
			th.marked(now, news{pressure: 1, mark: 1})
		}
	}
	mark(60)
	if share := th.share(); share != 1 {
		t.Errorf("a share of %v after marks without a refusal, want 1", share)
	}
	th.refused(now, now, throttleBack)
	mark(9)
	if share := th.share(); share != .5 {
		t.Errorf("a share of %v after a refusal and marks, want half", share)
	}
	th.missing = .2
	mark(2)
	before := th.share()
	mark(60)
	if share := th.share(); share < before {
		t.Errorf("a share of %v after marks long after a refusal, want no less than the %v before", share, before)
	}
}

// A callee that marks and has nothing more to say is soon sent all again; what an old one says counts as ever.
func TestMarksEnd(t *testing.T) {
	now := time.Now()
	var s standing
	answer := func(n news, back float64) {
		now = now.Add(100 * time.Millisecond)
		s.learn(limiter.Critical, now, now, nil, n, back)
	}
	th := &s.throttles[bounded(limiter.Critical)]
	refuse := func(times int) {
		for range times {
			now = now.Add(time.Second)
			s.learn(limiter.Critical, now, now, errThrottled, news{}, throttleBack)
		}
	}
	refuse(20)
	before := th.share()
	answer(news{pressure: 1}, throttleBack)
	if rise := th.share() - before; rise < throttleSlow*.99 || rise > throttleSlow*1.01 {
		t.Errorf("an answer of a callee that does not mark raises the share by %v, want %v", rise, throttleSlow)
	}
	before = th.share()
	answer(news{pressure: 1, mark: 1}, throttleBackServing)
	if share := th.share(); share <= before {
		t.Errorf("the share of a caller that serves a request falls from %v to %v at a mark, want a rise", before, share)
	}
	answer(news{pressure: 1, mark: 1}, throttleBack)
	for range 40 {
		answer(news{}, throttleBack)
	}
	if share := th.share(); share != 1 {
		t.Errorf("a share of %v after 4 s of answers without a word, want 1", share)
	}
}

// What waits at the bottom is known at the top, and a server without a line says nothing.
func TestMarksTravelUpward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bottom := newServer(t, limit(1)...)
		defer bottom.Close()
		leaf, _ := serve(t, &service{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			time.Sleep(10 * time.Millisecond)
			return &testpb.SimpleResponse{}, nil
		}}, bottom.ServerOptions(), newClient(t).DialOptions()...)
		below := testpb.NewTestServiceClient(leaf)
		p := connect(t, &service{unary: func(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			return below.UnaryCall(ctx, r)
		}}, nil)
		ask := func() news {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			var md metadata.MD
			if _, err := p.UnaryCall(ctx, &testpb.SimpleRequest{}, grpc.Trailer(&md)); err != nil {
				t.Error(err)
			}
			n, _ := parseNews(md)
			return n
		}
		for range 50 {
			time.Sleep(2 * time.Millisecond) // else the few who may always wait would wait for long
			if n := ask(); n.mark != 0 {
				t.Fatalf("a mark of %v where nobody waits", n.mark)
			}
		}
		marks := make(chan float64, 6)
		for range cap(marks) {
			go func() { marks <- ask().mark }()
		}
		most := 0.
		for range cap(marks) {
			most = max(most, <-marks)
		}
		// When the first of six is answered five wait, the next newcomer for 60 to 70 ms of the 225 that may stand.
		if most < .25 || most > .35 {
			t.Errorf("a mark of %v at the top, want about .3", most)
		}
	})
}

// One of ten backends that marks all that it does not refuse hurts the calls to itself alone.
func TestBackendThatMarksHurtsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		servers := newTen(t, turnByTurn)
		servers.ask(t, 500, time.Second)
		bad := func(ctx context.Context) error {
			if servers.came[0].Load()%10 == 0 {
				return errThrottled
			}
			return grpc.SetTrailer(ctx, metadata.Pairs(MarkTrailer, "1;m=100"))
		}
		servers.does[0].Store(&bad)
		before := servers.came[0].Load()
		got := servers.ask(t, 5000, 300*time.Millisecond)
		came := servers.came[0].Load() - before
		if refused := (came + 9) / 10; got.notSent != 0 || got.failed > refused {
			t.Errorf("%+v of 5000, want all sent, and all but %d answered", got, refused)
		}
		if came > 400 {
			t.Errorf("%d of 5000 calls came to the backend that marks and refuses, want fewer than 400", came)
		}
	})
}
