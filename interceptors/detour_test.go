package interceptors

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// As large a part of the looks passes over a backend as it marked its last answer, and none after a while.
func TestDetourFollowsTheMark(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		mark float64
		age  time.Duration
		want int // of a hundred
	}{
		{0, 0, 0}, {.25, 0, 25}, {1, 0, 100}, {1, throttleMemory / 2, 50}, {1, throttleMemory, 0}, {1, time.Hour, 0},
		{1, -time.Hour, 100}, // the clock was set back
	} {
		var d detour
		d.learn(now, c.mark)
		took := 0
		for range 100 {
			if d.takes(now.Add(c.age)) {
				took++
			}
		}
		if took != c.want {
			t.Errorf("%d of 100 pass over a backend that marked %v %v ago, want %d", took, c.mark, c.age, c.want)
		}
		d.learn(now, 0)
		if d.takes(now) {
			t.Errorf("one passes over a backend that has marked %v and then nothing", c.mark)
		}
	}
}

// Of ten backends, the one that has a line gets fewer calls, and as many as the others when that is over.
func TestCallsPassOverTheLongerLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		servers := newTen(t, turnByTurn)
		part := func() float64 {
			before := servers.came[0].Load()
			if got := servers.ask(t, 1000, time.Second); got.failed > 0 || got.notSent > 0 {
				t.Errorf("%+v of 1000, want all answered", got)
			}
			return float64(servers.came[0].Load()-before) / 100
		}
		if got := part(); got != 1 {
			t.Errorf("%v of its part goes to a backend like the others, want 1", got)
		}
		busy := func(ctx context.Context) error { return grpc.SetTrailer(ctx, metadata.Pairs(MarkTrailer, "1;m=50")) }
		servers.does[0].Store(&busy)
		if got := part(); got < .45 || got > .55 {
			t.Errorf("%v of its part goes to a backend with marks of .5, want half", got)
		}
		idle := func(context.Context) error { return nil }
		servers.does[0].Store(&idle)
		if got := part(); got < .95 {
			t.Errorf("%v of its part goes to it when it marks no more, want all", got)
		}
	})
}
