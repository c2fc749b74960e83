package limiter

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// known returns what is known of requests that had so much time left.
func known(left ...time.Duration) *patience {
	var s slacks
	var p patience
	for _, left := range left {
		s.add(left)
	}
	s.served = true
	s.drain(&p)
	return &p
}

// The line is made for those who have least time, but for one in eight.
func TestPatienceIsThatOfTheImpatient(t *testing.T) {
	many := func(n int, left time.Duration) (all []time.Duration) {
		for range n {
			all = append(all, left)
		}
		return all
	}
	const short, long = 500 * time.Millisecond, time.Minute
	for name, test := range map[string]struct {
		left []time.Duration
		want time.Duration
	}{
		"nobody":                  {nil, 0},
		"all the same":            {many(80, short), short},
		"half":                    {append(many(40, short), many(40, long)...), short},
		"one in five":             {append(many(16, short), many(64, long)...), short},
		"one in ten":              {append(many(8, short), many(72, long)...), long},
		"some who have no time":   {append(many(8, 0), many(72, short)...), short},
		"all who have no time":    {many(8, 0), 1},
		"all whose time is over":  {many(8, -time.Hour), 1},
		"as much as can be":       {many(8, 1<<63-1), forEver},
		"the same, within octave": {append(many(40, 300*time.Millisecond), many(40, short)...), 400 * time.Millisecond},
	} {
		if got := known(test.left...).typical(); got < test.want-test.want/1000 || got-1 > test.want+test.want/1000 {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// What was known long ago is forgotten.
func TestPatienceForgets(t *testing.T) {
	p := known(time.Second, time.Second)
	for range patienceMemory / 8 {
		p.forget()
		var s slacks
		s.add(time.Minute)
		s.served = true
		s.drain(p)
	}
	if got := p.typical(); got > time.Second {
		t.Errorf("%v after %d windows, want a second", got, patienceMemory/8)
	}
	for range 2 * patienceMemory {
		p.forget()
		var s slacks
		s.add(time.Minute)
		s.served = true
		s.drain(p)
	}
	if got := p.typical(); got < time.Minute-time.Second {
		t.Errorf("%v, want the minute that has come for so long", got)
	}
	p.forget()
	if got := p.typical(); got != 0 {
		t.Errorf("%v in a window in which nobody was served, want 0", got)
	}
}

// A burst of those who have a minute leaves those who have half a second their place.
func TestPatientLeaveRoomForImpatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const service = 10 * time.Millisecond
		l := mustNew(t, WithFixedLimit(1))
		ask := func(left time.Duration) bool {
			ctx, cancel := context.WithTimeout(t.Context(), left)
			defer cancel()
			p, err := l.Acquire(ctx)
			if err == nil {
				time.Sleep(service)
				p.Release(OK)
			}
			return err == nil
		}
		for i := range 200 {
			ask([]time.Duration{500 * time.Millisecond, time.Minute, time.Minute, time.Minute}[i%4])
		}
		for range 1000 {
			go ask(time.Minute)
		}
		time.Sleep(5 * service)
		if !ask(500 * time.Millisecond) {
			t.Errorf("refused half a second behind a burst, %d in line", l.Stats().Line)
		}
		time.Sleep(time.Minute)
		wantEmpty(t, l)
	})
}
