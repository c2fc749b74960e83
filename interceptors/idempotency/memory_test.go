package idempotency

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	id   = ID{"/a.B/C", "alice", "k"}
	same = Fingerprint{1}
)

// claimed claims, or ends the test.
func claimed(t *testing.T, m *Memory, id ID, lease time.Duration) Claim {
	t.Helper()
	claim, answer, err := m.Claim(t.Context(), id, same, lease)
	if claim == nil || answer != nil || err != nil {
		t.Fatalf("Claim(%+v) = %v, %q, %v; want a claim", id, claim, answer, err)
	}
	return claim
}

// wantClaim checks what a claim gets that is not the first.
func wantClaim(t *testing.T, m *Memory, id ID, of Fingerprint, answer string, want error) {
	t.Helper()
	claim, got, err := m.Claim(t.Context(), id, of, time.Minute)
	if claim != nil || string(got) != answer || !errors.Is(err, want) {
		t.Errorf("Claim = %v, %q, %v; want %q, %v", claim, got, err, answer, want)
	}
}

func wantPut(t *testing.T, claim Claim, answer string, want error) {
	t.Helper()
	if err := claim.Put(t.Context(), []byte(answer)); !errors.Is(err, want) {
		t.Errorf("Put = %v, want %v", err, want)
	}
}

func wantEmpty(t *testing.T, m *Memory) {
	t.Helper()
	if len(m.entries) != 0 || len(m.ends) != 0 || len(m.callers) != 0 || m.used != (usage{}) {
		t.Errorf("%d entries, %d ends, %d callers and %+v used are left, want nothing", len(m.entries), len(m.ends), len(m.callers), m.used)
	}
}

func TestMemoryClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, Limits{Keep: time.Hour})
		claim := claimed(t, m, id, time.Minute)
		wantClaim(t, m, id, same, "", ErrHeld)
		wantClaim(t, m, id, Fingerprint{2}, "", ErrMismatch)
		wantPut(t, claim, "done", nil)
		wantClaim(t, m, id, same, "done", nil)
		wantClaim(t, m, id, Fingerprint{2}, "", ErrMismatch)
		time.Sleep(time.Hour - 1)
		wantClaim(t, m, id, same, "done", nil)
		time.Sleep(time.Nanosecond)
		claim = claimed(t, m, id, time.Minute)
		if err := claim.Release(t.Context()); err != nil {
			t.Error(err)
		}
		wantEmpty(t, m)
	})
}

func TestMemoryLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, Limits{})
		dead := claimed(t, m, id, time.Minute)
		time.Sleep(time.Minute - 1)
		wantClaim(t, m, id, same, "", ErrHeld)
		time.Sleep(time.Nanosecond)
		next := claimed(t, m, id, time.Minute)
		wantPut(t, dead, "too late", ErrLost)
		if err := dead.Release(t.Context()); err != nil {
			t.Error(err)
		}
		wantClaim(t, m, id, same, "", ErrHeld) // still by the next
		wantPut(t, next, "done", nil)
		wantClaim(t, m, id, same, "done", nil)
	})
}

// More end at the same time than are removed at once.
func TestMemoryKeepsNothingForLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, Limits{})
		ids := make([]ID, 10)
		for i := range ids {
			ids[i] = ID{"/a.B/C", "alice", fmt.Sprint(i)}
			wantPut(t, claimed(t, m, ids[i], time.Minute), "done", nil)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Hour)
		for i := range ids {
			claimed(t, m, ids[len(ids)-1-i], time.Minute)
		}
	})
}

// A claim whose lease has ended is good as long as nobody else wanted it.
func TestMemoryTakesALateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, Limits{})
		late := claimed(t, m, id, time.Minute)
		time.Sleep(time.Hour)
		wantPut(t, late, "done", nil)
		wantClaim(t, m, id, same, "done", nil)
	})
}

func TestOneOfManyGetsTheClaim(t *testing.T) {
	m := newMemory(t, Limits{})
	var claims atomic.Int64
	var callers sync.WaitGroup
	for range 50 {
		callers.Go(func() {
			if claim, _, err := m.Claim(t.Context(), id, same, time.Minute); claim != nil {
				claims.Add(1)
			} else if !errors.Is(err, ErrHeld) {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if got := claims.Load(); got != 1 {
		t.Errorf("%d claims, want 1", got)
	}
}

// Whoever floods the store leaves room to others, of entries as of bytes, and answers stay for their time.
func TestAFloodLeavesRoom(t *testing.T) {
	for name, c := range map[string]struct {
		limits Limits
		size   int
	}{
		"of entries": {Limits{Entries: 1000}, 10},
		"of bytes":   {Limits{Bytes: 1 << 20}, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory(t, c.limits)
				flood := func(caller string) (kept int) {
					for i := range 5000 {
						claim, _, err := m.Claim(t.Context(), ID{"/a.B/C", caller, fmt.Sprint(i)}, same, time.Minute)
						if errors.Is(err, ErrFull) {
							continue
						}
						wantPut(t, claim, strings.Repeat("x", c.size), nil)
						kept++
					}
					return kept
				}
				first := flood("mallory")
				second := flood("eve")
				if first < 300 || second < first*45/100 || second > first*55/100 {
					t.Errorf("%d kept of the first and %d of the second, want half of what the other left", first, second)
				}
				claimed(t, m, id, time.Minute) // and there is room for who asks for little
				wantClaim(t, m, ID{"/a.B/C", "mallory", "0"}, same, strings.Repeat("x", c.size), nil)

				time.Sleep(2 * time.Hour)
				for range first + second + 2 { // each call removes what has ended
					if err := claimed(t, m, ID{"/a.B/C", "bob", "k"}, time.Minute).Release(t.Context()); err != nil {
						t.Error(err)
					}
				}
				wantEmpty(t, m)
			})
		})
	}
}

func TestMemoryIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, Limits{Bytes: 4 << 10})
		claim := claimed(t, m, id, time.Minute)
		wantPut(t, claim, strings.Repeat("x", 8<<10), ErrFull)
		wantClaim(t, m, id, same, "", ErrHeld) // still
		wantPut(t, claim, strings.Repeat("x", smallAnswer), nil)
		wantClaim(t, m, id, same, strings.Repeat("x", smallAnswer), nil)
	})
}

// Whatever happens in whatever order, the books are right, the bounds hold, and nothing is left in the end.
func TestMemoryKeepsItsBooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(7, 7))
		m := newMemory(t, Limits{Keep: time.Minute, Entries: 60, Bytes: 60 << 10})
		var claims []Claim
		for range 20000 {
			switch rng.IntN(4) {
			case 0, 1:
				id := ID{"/a.B/C", fmt.Sprint(rng.IntN(5)), fmt.Sprint(rng.IntN(40))}
				lease := time.Duration(1 + rng.IntN(int(time.Minute)))
				if claim, _, _ := m.Claim(t.Context(), id, same, lease); claim != nil {
					claims = append(claims, claim)
				}
			case 2:
				if len(claims) > 0 {
					i := rng.IntN(len(claims))
					if rng.IntN(3) == 0 {
						_ = claims[i].Release(t.Context())
					} else {
						_ = claims[i].Put(t.Context(), make([]byte, 1+rng.IntN(4<<10)))
					}
					claims = append(claims[:i], claims[i+1:]...)
				}
			default:
				time.Sleep(time.Duration(rng.IntN(int(2 * time.Second))))
			}
			checkBooks(t, m)
		}
		time.Sleep(time.Hour)
		for range 60 {
			m.sweep(time.Now())
		}
		wantEmpty(t, m)
	})
}

func checkBooks(t *testing.T, m *Memory) {
	t.Helper()
	callers, all := map[string]usage{}, usage{}
	for id, e := range m.entries {
		one := usage{1, e.bytes()}
		callers[id.Caller], all = callers[id.Caller].plus(one), all.plus(one)
		if m.ends[e.at] != e || e.id != id {
			t.Fatalf("%+v is not where it says", id)
		}
		if parent := m.ends[(e.at-1)/2]; e.at > 0 && parent.ends.After(e.ends) {
			t.Fatalf("%+v ends before one that is nearer to the top", id)
		}
	}
	if all != m.used || len(m.ends) != len(m.entries) || len(callers) != len(m.callers) {
		t.Fatalf("%+v in all, %d ends and %d callers; the books say %+v, %d and %d",
			all, len(m.ends), len(callers), m.used, len(m.entries), len(m.callers))
	}
	for caller, has := range callers {
		if m.callers[caller] != has {
			t.Fatalf("%q has %+v, the books say %+v", caller, has, m.callers[caller])
		}
	}
	if all.entries > m.limits.Entries || all.bytes > m.limits.Bytes {
		t.Fatalf("%+v of %+v", all, m.limits)
	}
}

func TestLimitErrors(t *testing.T) {
	for _, c := range []struct {
		limits Limits
		want   string
	}{
		{Limits{Keep: -1}, "Limits.Keep is -1ns; want more than 0"},
		{Limits{Entries: -1}, "Limits.Entries is -1; want more than 0"},
		{Limits{Bytes: -1}, "Limits.Bytes is -1; want more than 0"},
	} {
		if _, err := NewMemory(c.limits); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want it to say %q", c.limits, err, c.want)
		}
	}
}

func BenchmarkMemory(b *testing.B) {
	m, err := NewMemory(Limits{})
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	for i := 0; b.Loop(); i++ {
		claim, _, err := m.Claim(ctx, ID{"/a.B/C", "alice", fmt.Sprint(i % 20000)}, same, time.Minute)
		if err != nil {
			b.Fatal(err)
		}
		if claim != nil {
			_ = claim.Put(ctx, []byte("done"))
		}
	}
}
