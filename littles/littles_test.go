package littles

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestLawSolvedForEachTerm(t *testing.T) {
	for _, c := range []struct {
		l      float64
		lambda Rate
		w      time.Duration
	}{
		{30, 1200, 25 * time.Millisecond},
		{1, 1, time.Second},
		{0.5, 1000, 500 * time.Microsecond},
	} {
		if got := Concurrency(c.lambda, c.w); math.Abs(got-c.l) > 1e-9 {
			t.Errorf("Concurrency(%v, %v) = %v, want %v", c.lambda, c.w, got, c.l)
		}
		if got := Throughput(c.l, c.w); math.Abs(float64(got-c.lambda)) > 1e-9 {
			t.Errorf("Throughput(%v, %v) = %v, want %v", c.l, c.w, got, c.lambda)
		}
		if got := Latency(c.l, c.lambda); got != c.w {
			t.Errorf("Latency(%v, %v) = %v, want %v", c.l, c.lambda, got, c.w)
		}
	}
}

func TestDegenerateTerms(t *testing.T) {
	const forever = time.Duration(math.MaxInt64)
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"no time passes", PerSecond(5, 0), Rate(0)},
		{"time runs backwards", PerSecond(5, -time.Second), Rate(0)},
		{"nothing moves", Latency(3, 0), forever},
		{"moves backwards", Latency(3, -1), forever},
		{"a rate that is not a number", Latency(3, Rate(math.NaN())), forever},
		{"longer than a Duration holds", Latency(1e300, 1e-9), forever},
		{"nobody is there", Latency(0, 0), time.Duration(0)},
		{"no stay", Throughput(3, 0), Rate(0)},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, c.got, c.want)
		}
	}
}

// For any schedule in which all that arrive also leave, the area under the number in flight is the sum of the
// stays: N = X · W, whatever the arrivals, the sizes and the order.
func TestLawHoldsForAnySchedule(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		type event struct {
			at   time.Duration
			stay time.Duration // of one who leaves; 0 for an arrival
		}
		var events []event
		for range 1 + rng.IntN(200) {
			at := time.Duration(rng.Int64N(int64(time.Minute)))
			stay := 1 + time.Duration(rng.ExpFloat64()*float64(time.Second))
			events = append(events, event{at: at}, event{at: at + stay, stay: stay})
		}
		for i := range events { // insertion sort: stable, an arrival before the same instant's departure
			for j := i; j > 0 && events[j].at < events[j-1].at; j-- {
				events[j], events[j-1] = events[j-1], events[j]
			}
		}
		m := NewMeter(0)
		for _, e := range events {
			if e.stay == 0 {
				m.Arrive(e.at, 1)
			} else {
				m.Leave(e.at, 1, e.stay, true)
			}
		}
		w := m.Roll(2 * time.Hour)
		if m.InFlight() != 0 {
			t.Fatalf("seed %d: %d in flight at the end, want 0", seed, m.InFlight())
		}
		if d := math.Abs(w.Area - w.Sum); d > 1e-9*w.Sum {
			t.Errorf("seed %d: area %v, sum of stays %v", seed, w.Area, w.Sum)
		}
		product := float64(w.Goodput()) * w.Sum / float64(w.Completions)
		if d := math.Abs(w.Concurrency() - product); d > 1e-9*product {
			t.Errorf("seed %d: N = %v, X·W = %v", seed, w.Concurrency(), product)
		}
	}
}

// Cutting the same schedule into windows loses nothing.
func TestWindowsAddUp(t *testing.T) {
	whole, cut := NewMeter(0), NewMeter(0)
	rng := rand.New(rand.NewPCG(3, 4))
	var now time.Duration
	var sum Window
	for range 10_000 {
		now += time.Duration(rng.Int64N(int64(time.Millisecond)))
		if rng.IntN(2) == 0 {
			whole.Arrive(now, 1)
			cut.Arrive(now, 1)
		} else if whole.InFlight() > 0 {
			whole.Leave(now, 1, time.Millisecond, rng.IntN(3) > 0)
			cut.Leave(now, 1, time.Millisecond, true)
		}
		if rng.IntN(10) == 0 {
			sum = sum.Add(cut.Roll(now))
		}
	}
	sum = sum.Add(cut.Roll(now))
	w := whole.Roll(now)
	if math.Abs(sum.Area-w.Area) > 1e-9*w.Area || sum.Completions != w.Completions || sum.Arrivals != w.Arrivals || sum.Length() != w.Length() ||
		math.Abs(sum.Squares-w.Squares) > 1e-9*w.Squares {
		t.Errorf("windows add up to %+v, want %+v", sum, w)
	}
}

// Squares tell how much stays differ, and one that takes the room of two is no two that agree.
func TestSquares(t *testing.T) {
	m := NewMeter(0)
	m.Arrive(0, 1)
	m.Arrive(0, 2)
	m.Leave(2*time.Second, 1, 2*time.Second, true)
	m.Leave(3*time.Second, 2, 3*time.Second, true)
	if w := m.Roll(3 * time.Second); w.Sum != 2+2*3 || w.Squares != 2*2+6*6 {
		t.Errorf("a sum of %v and squares of %v, want 8 and 40", w.Sum, w.Squares)
	}
}

func TestClockGoingBackwardsCostsNothingElse(t *testing.T) {
	m := NewMeter(time.Hour)
	m.Arrive(time.Hour+time.Second, 1)
	m.Arrive(time.Minute, 1) // set back
	m.Leave(time.Hour+2*time.Second, 1, -time.Second, true)
	w := m.Roll(0)
	if w.Area != 2 || w.Length() != 2*time.Second || w.Sum != 0 || m.InFlight() != 1 {
		t.Errorf("window %+v with %d in flight; want area 2 over 2s, no stay, 1 in flight", w, m.InFlight())
	}
}

func TestWindowWithoutLength(t *testing.T) {
	var m Meter
	m.Arrive(0, 1)
	w := m.Roll(0)
	if w.Concurrency() != 0 || w.Throughput() != 0 || w.Goodput() != 0 || w.Latency() != 0 {
		t.Errorf("a window without length says %v %v %v %v, want zeros", w.Concurrency(), w.Throughput(), w.Goodput(), w.Latency())
	}
}

func TestLeaveWithoutArrive(t *testing.T) {
	var m Meter
	m.Leave(time.Second, 1, 0, true)
	if m.InFlight() != 0 {
		t.Errorf("%d in flight, want 0", m.InFlight())
	}
}

// A century with ten thousand in flight neither overflows nor loses a second.
func TestNoOverflowAfterYears(t *testing.T) {
	const century = 100 * 365 * 24 * time.Hour
	var m Meter
	for range 10_000 {
		m.Arrive(0, 1)
	}
	w := m.Roll(century)
	if got := w.Concurrency(); math.Abs(got-10_000) > 1e-6 {
		t.Errorf("Concurrency = %v, want 10000", got)
	}
}

func TestPausedRequestIsNotInFlight(t *testing.T) {
	var m Meter
	m.Arrive(0, 1)
	m.Pause(time.Second, 1)
	m.Resume(9*time.Second, 1)
	m.Leave(10*time.Second, 1, 2*time.Second, true)
	if w := m.Roll(10 * time.Second); w.Area != 2 {
		t.Errorf("area %v request-seconds, want 2", w.Area)
	}
}

// A system measured in two parts is the sum of its parts.
func TestPartsMerge(t *testing.T) {
	whole, left, right := NewMeter(0), NewMeter(0), NewMeter(0)
	for i := range 100 {
		part := &left
		if i%3 == 0 {
			part = &right
		}
		now := time.Duration(i) * time.Millisecond
		for _, m := range []*Meter{&whole, part} {
			m.Arrive(now, 1)
			m.Leave(now+time.Millisecond, 1, time.Millisecond, i%2 == 0)
		}
	}
	want, got := whole.Roll(time.Second), left.Roll(time.Second).Merge(right.Roll(time.Second))
	if math.Abs(got.Area-want.Area) > 1e-12 || got.Completions != want.Completions || got.Good != want.Good || got.Length() != want.Length() {
		t.Errorf("parts give %+v, want %+v", got, want)
	}
}
